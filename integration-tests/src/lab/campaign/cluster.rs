//! Three brokers, and a proxy before each that the workers go through. All on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::broker::{ClusterConfig, KafkaCluster, RawLog, RawRecords};
use crate::lab::interrupt::Interrupt;
use crate::oracle;
use crate::proxy::{Proxies, Proxy};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long replicas may take to catch up with their leaders.
const IN_SYNC_TIMEOUT: Duration = Duration::from_mins(2);
const TRANSACTIONS: &str = "__transaction_state";
const OFFSETS: &str = "__consumer_offsets";

/// The cluster under the campaign.
pub(super) struct Cluster {
    pub(super) kafka: KafkaCluster,
    /// One for each node, in their order.
    pub(super) proxies: Proxies,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("kafka", &self.kafka).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A new one, in an empty directory.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let proxies = Proxies::bind(3)?;
        let proxy_ports = proxies.ports();
        // O8 reads every offset that was ever committed: none may be compacted away, which happens to closed segments.
        let config = ClusterConfig::three(directory).with("offsets.topic.segment.bytes", i32::MAX.to_string());
        let kafka = KafkaCluster::start(ClusterConfig { proxy_ports, ..config })?;
        proxies.forward_to(kafka.node_ids().map(|node| kafka.ports(node).behind_proxy));
        Ok(Self { kafka, proxies })
    }

    /// How the workers reach it.
    pub(super) fn proxied(&self) -> String {
        self.proxies.bootstrap()
    }

    /// The proxy before a node.
    pub(super) fn proxy(&self, node: u16) -> &Proxy {
        &self.proxies.each()[usize::from(node) - 1]
    }

    /// How often brokers have dropped the end of a decided transaction: see [`KafkaCluster::dropped_markers`].
    pub(super) fn dropped_markers(&self) -> Result<usize> {
        self.kafka.node_ids().map(|node| self.kafka.dropped_markers(node)).sum()
    }

    /// Waits until every replica is in sync, so that the next broker that is lost takes nothing with it.
    pub(super) fn await_in_sync(&self, interrupt: &Interrupt) -> Result<()> {
        let client = self.client()?;
        let mut behind = Vec::new();
        let in_sync = interrupt.wait_until(IN_SYNC_TIMEOUT, || {
            let Ok(metadata) = client.fetch_metadata(None, REQUEST_TIMEOUT) else { return Ok(false) };
            behind.clear();
            for topic in metadata.topics() {
                let lagging = |partition: &&rdkafka::metadata::MetadataPartition| {
                    partition.leader() < 0 || partition.isr().len() < partition.replicas().len()
                };
                let partitions = topic.partitions().iter().filter(lagging);
                behind.extend(partitions.map(|partition| format!("{}-{}", topic.name(), partition.id())));
            }
            Ok(metadata.brokers().len() == self.proxies.each().len() && behind.is_empty())
        })?;
        anyhow::ensure!(in_sync, "after {IN_SYNC_TIMEOUT:?} not all replicas are in sync: {behind:?}");
        Ok(())
    }

    /// Waits until every broker knows these topics: a client may ask any of them.
    pub(super) fn await_topics(&self, topics: &[String], interrupt: &Interrupt) -> Result<()> {
        for node in self.kafka.node_ids() {
            let client = client(&format!("127.0.0.1:{}", self.kafka.port(node)))?;
            for topic in topics {
                let known = interrupt.wait_until(IN_SYNC_TIMEOUT, || {
                    let Ok(metadata) = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT) else { return Ok(false) };
                    Ok(metadata.topics().iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty()))
                })?;
                anyhow::ensure!(known, "after {IN_SYNC_TIMEOUT:?} broker {node} does not know {topic}");
            }
        }
        Ok(())
    }

    /// The brokers that lead a partition of a topic.
    pub(super) fn leaders(&self, topic: &str) -> Result<BTreeMap<i32, u16>> {
        let metadata = self.client()?.fetch_metadata(Some(topic), REQUEST_TIMEOUT).context("fetch metadata")?;
        let topic = metadata.topics().first().context("no such topic")?;
        let led = topic.partitions().iter().filter(|partition| partition.leader() > 0);
        Ok(led.map(|partition| (partition.id(), partition.leader() as u16)).collect())
    }

    /// The brokers that lead partitions of one of these topics.
    pub(super) fn leading(&self, topics: &[String]) -> Result<Vec<u16>> {
        let mut leading = BTreeSet::new();
        for topic in topics {
            leading.extend(self.leaders(topic)?.into_values());
        }
        Ok(leading.into_iter().collect())
    }

    /// The broker that coordinates the transactions of this id: it leads the id's partition of their topic.
    pub(super) fn coordinator(&self, transactional_id: &str) -> Result<u16> {
        let leaders = self.leaders(TRANSACTIONS)?;
        let partition = partition_of_name(transactional_id, leaders.len());
        leaders.get(&partition).copied().with_context(|| format!("{TRANSACTIONS}-{partition} has no leader"))
    }

    /// The partition of `__consumer_offsets` that has the offsets of this group.
    pub(super) fn offsets_of(&self, group: &str) -> Result<RawLog> {
        let partitions = self.leaders(OFFSETS)?.len();
        self.kafka.raw_log(OFFSETS, partition_of_name(group, partitions), RawRecords::Offsets)
    }

    /// Where brokers have committed a part of what they aborted, in the topics of these names and in the groups' offsets.
    pub(super) fn torn_by_brokers(&self, names: &[&str]) -> Result<Vec<String>> {
        let partitions = self.kafka.partitions_on_disk()?;
        let mut decisions = Vec::new();
        for (topic, partition) in partitions.iter().filter(|(topic, _)| topic == TRANSACTIONS) {
            decisions.extend(self.kafka.raw_log(topic, *partition, RawRecords::Decisions)?.decisions);
        }
        let is_theirs =
            |topic: &str| topic == OFFSETS || names.iter().any(|name| topic.starts_with(&format!("{name}-")));
        let mut found = Vec::new();
        for (topic, partition) in partitions.iter().filter(|(topic, _)| is_theirs(topic)) {
            let log = self.kafka.raw_log(topic, *partition, RawRecords::Unread)?;
            let commits = oracle::torn_by_brokers(&decisions, topic, *partition, &log);
            found.extend(commits.into_iter().map(|offset| format!("{topic}-{partition}@{offset}")));
        }
        Ok(found)
    }

    fn client(&self) -> Result<BaseConsumer> {
        client(&self.kafka.bootstrap_servers())
    }
}

fn client(bootstrap: &str) -> Result<BaseConsumer> {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap).set("client.id", "campaign-cluster");
    settings.create().context("create a client")
}

/// Where brokers keep what belongs to a transactional id, or a group: its Java hash says it.
fn partition_of_name(name: &str, partitions: usize) -> i32 {
    java_hash(name).checked_abs().unwrap_or(0) % partitions as i32
}

/// `String.hashCode` of ASCII text.
fn java_hash(text: &str) -> i32 {
    text.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn a_hash_is_the_one_that_java_gives() {
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
    }
}
