//! The three programs that are measured, each as a process of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::work::Kind;
use super::{Bench, WINDOW};
use crate::client::create_topic;
use crate::lab::program::{self, OWN_FILE, Program, Running};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Where `./x` puts what it builds of `integration-tests/peer`.
const PEER: &str = "PROCESSOR_PEER";
/// Enough that collecting garbage costs little; what is taken beside it (RocksDB, buffers) is not counted in it.
const PEER_HEAP: &str = "-Xmx1g";

/// What all subjects have alike: neither the loop nor Kafka Streams compresses what it writes.
const SETTINGS: [(&str, &str); 1] = [("kafka", "producer.compression.type=none")];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Subject {
    /// The limit: a loop written by hand.
    HandLoop,
    /// The processor.
    Processor,
    /// Kafka Streams, which does the same.
    KafkaStreams,
}

impl Subject {
    pub(super) const ALL: [Self; 3] = [Self::HandLoop, Self::Processor, Self::KafkaStreams];

    /// What people call it, also in the names of topics and groups.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HandLoop => "hand-loop",
            Self::Processor => "processor",
            Self::KafkaStreams => "kafka-streams",
        }
    }

    /// Ends its process: the processor must stop cleanly when it is asked to.
    pub(super) fn end(self, process: Running) -> Result<()> {
        match self {
            Self::HandLoop | Self::KafkaStreams => process.kill(),
            Self::Processor => {
                process.terminate()?;
                process.wait_for_success(STOP_TIMEOUT)
            }
        }
    }
}

/// Work to be done.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The group, the application and its state directory.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// How many stores hold each average.
    pub(super) stores: u8,
    pub(super) input: String,
    pub(super) output: String,
    pub(super) partitions: i32,
    /// How long a transaction collects, where the subject is told: the processor is not.
    pub(super) transaction_ms: u64,
    /// Options of the processor's command line, beside those that every run has.
    pub(super) processor_options: Vec<(&'static str, &'static str)>,
}

impl Job {
    /// Makes what the subject needs beside input and output. Of several workers, the programs differ by their number.
    pub(super) fn program(&self, bench: &Bench<'_>, subject: Subject, worker: usize) -> Result<Program> {
        let state = bench.dir.join("state").join(format!("{}-{worker}", self.name));
        let state = state.to_str().context("the path of the repository is not UTF-8")?.to_owned();
        let window = WINDOW.to_string();
        let transaction = self.transaction_ms.to_string();
        let changelog = format!("{}-changelog", self.name);
        let stores = self.stores.to_string();
        let mut options =
            vec![("bootstrap-servers", bench.bootstrap), ("input", &self.input), ("output", &self.output)];
        let work = [("window", &*window), ("stores", &stores), ("work", self.kind.name())];
        let (path, mut arguments) = match subject {
            Subject::HandLoop => {
                create_topic(bench.bootstrap, &changelog, self.partitions, &[("cleanup.policy", "compact")])?;
                options.extend([("group", &*self.name), ("changelog", &changelog), ("transaction-ms", &transaction)]);
                options.push(("window", &window));
                (PathBuf::from(OWN_FILE), vec!["hand-loop".to_owned()])
            }
            Subject::Processor => {
                options.extend([("application-id", &*self.name), ("state-dir", &state)]);
                options.extend(SETTINGS);
                options.extend(&self.processor_options);
                let program = match self.kind {
                    Kind::Average if self.stores == 1 => {
                        options.push(("window", &window));
                        "moving-average"
                    }
                    Kind::Count => "word-count",
                    Kind::Average | Kind::JsonAverage | Kind::Chain | Kind::Last => {
                        options.extend(work);
                        "bench-worker"
                    }
                };
                (program::beside(program)?, vec!["run".to_owned()])
            }
            Subject::KafkaStreams => {
                options.extend([("application-id", &*self.name), ("state-dir", &state)]);
                options.extend(work);
                options.push(("commit-interval-ms", &transaction));
                (java()?, vec![PEER_HEAP.to_owned(), "-cp".to_owned(), peer_class_path()?, "peer.Peer".to_owned()])
            }
        };
        arguments.extend(options.into_iter().flat_map(|(option, value)| [format!("--{option}"), value.to_owned()]));
        let log = bench.dir.join(format!("{}-{worker}.log", self.name));
        Ok(Program { name: self.name.clone(), path, arguments, log, bound: true })
    }
}

/// Whether Kafka Streams is there to be measured.
pub(super) fn has_peer() -> bool {
    env::var_os(PEER).is_some()
}

fn peer_class_path() -> Result<String> {
    let Some(directory) = env::var_os(PEER).map(PathBuf::from) else {
        bail!("{PEER} is not set, so there is no Kafka Streams to compare with: start the benchmark as ./x bench");
    };
    let jar = directory.join("peer.jar");
    ensure!(jar.is_file(), "{} is missing: remove {} and run ./x bench again", jar.display(), directory.display());
    Ok(format!("{}:{}", jar.display(), directory.join("dependency").join("*").display()))
}

fn java() -> Result<PathBuf> {
    let homes = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = homes.into_iter().chain(env::split_paths(&path)).map(|directory| directory.join("java"));
    places.find(|java| java.is_file()).context("java is not installed; run ./x setup")
}
