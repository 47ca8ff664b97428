//! The clusters that late requests are tried on, with their proxies.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, ensure};

use crate::broker::{ClusterConfig, KafkaCluster, libs_of};
use crate::proxy::Proxies;

/// The Kafka of [`SetUp::Old`].
const OLD_KAFKA: &str = include_str!("../../kafka-3.9.version");
const KAFKA: &str = include_str!("../../kafka.version");

/// A broker and the transactions it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetUp {
    /// The newest Kafka as it is: `transaction.version=2` (KIP-890).
    Tv2,
    /// The newest Kafka with `transaction.version=1`.
    Tv1,
    /// Kafka 3.9, as it is.
    Old,
}

impl SetUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tv2, Self::Tv1, Self::Old];

    /// The version of its brokers.
    pub fn kafka(self) -> &'static str {
        match self {
            Self::Tv2 | Self::Tv1 => KAFKA.trim(),
            Self::Old => OLD_KAFKA.trim(),
        }
    }

    fn config(self, dir: PathBuf, nodes: u16) -> Result<ClusterConfig> {
        let config = ClusterConfig { nodes, ..ClusterConfig::single(dir) };
        Ok(match self {
            Self::Tv2 => config,
            Self::Tv1 => {
                let format_arguments = vec!["--feature".to_owned(), "transaction.version=1".to_owned()];
                ClusterConfig { format_arguments, ..config }
            }
            Self::Old => {
                let libs = libs_of(OLD_KAFKA.trim());
                ensure!(libs.is_dir(), "there is no {}: ./x late fetches it", libs.display());
                ClusterConfig { libs: Some(libs), ..config }
            }
        })
    }
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tv2 => "tv2",
            Self::Tv1 => "tv1",
            Self::Old => "3.9",
        })
    }
}

impl FromStr for SetUp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|set_up| set_up.to_string() == text);
        found.ok_or_else(|| format!("there is no set-up '{text}', but tv2, tv1 and 3.9"))
    }
}

/// A cluster that runs, with a proxy in front of each broker.
#[derive(Debug)]
pub struct Stage {
    /// What it is.
    pub set_up: SetUp,
    /// The level of `transaction.version` that it says it has.
    pub transaction_version: i16,
    /// In front of its brokers.
    pub proxies: Proxies,
    /// The brokers.
    pub cluster: KafkaCluster,
}

impl Stage {
    /// Starts the brokers, and requires that they speak what the set-up says.
    ///
    /// # Errors
    /// They do not start, or speak another version of transactions.
    pub fn start(set_up: SetUp, dir: PathBuf, nodes: u16) -> Result<Self> {
        let proxies = Proxies::bind(nodes)?;
        let config = set_up.config(dir, nodes)?;
        let cluster = KafkaCluster::start(ClusterConfig { proxy_ports: proxies.ports(), ..config })?;
        proxies.forward_to(cluster.node_ids().map(|node| cluster.ports(node).behind_proxy));
        let transaction_version = cluster.feature("transaction.version")?;
        match set_up {
            SetUp::Tv2 => ensure!(transaction_version == 2, "transaction.version is {transaction_version}, not 2"),
            SetUp::Tv1 => ensure!(transaction_version == 1, "transaction.version is {transaction_version}, not 1"),
            SetUp::Old => ensure!(transaction_version < 2, "transaction.version is {transaction_version} on 3.9"),
        }
        Ok(Self { set_up, transaction_version, proxies, cluster })
    }
}
