//! One application under test: its topics, its workers, what is produced for it, and the proof at the end.
//!
//! What a test does to it is in `freeze`, what it watches meanwhile in `watch`, what must hold at the end in `proof`.

mod freeze;
mod group;
mod load;
mod proof;
mod stores;
mod subject;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker;
use crate::client::{Observer, Workload, create_topic};
use crate::oracle::PartitionLog;
use crate::worker::{Worker, WorkerConfig, await_condition};

pub use self::freeze::{Caught, OpenRange};
pub use self::load::Load;
pub use self::stores::{StoreCopy, copy_directory};
pub use self::subject::Subject;
pub use self::watch::Watch;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How many partitions the topics have, where nothing else is said.
pub const PARTITIONS: i32 = 4;

/// A commit is answered before its markers are written: so long after it, everybody sees it.
const MARKERS_WRITTEN: Duration = Duration::from_secs(2);

/// One application under test: its topics, its workers' directories.
#[derive(Debug)]
pub struct Scene {
    /// The application id.
    pub name: String,
    /// What runs in it.
    pub subject: Subject,
    /// How the test reaches the brokers.
    pub bootstrap: String,
    /// How its workers do: through a proxy, if there is one.
    pub workers_bootstrap: String,
    /// Where logs and state lie.
    pub dir: PathBuf,
    /// How many partitions its topics have.
    pub partitions: i32,
    /// How many keys there can be.
    pub keys: u64,
    /// How many records were produced.
    pub produced: u64,
    /// The first record's timestamp; each further one is a millisecond later. It is of today: a broker that is started
    /// again has forgotten idempotent producers whose newest record is older than `producer.id.expiration.ms` (a day), and
    /// then takes what they repeat in any order, or not at all.
    first_timestamp: i64,
    /// Looks at its topics and its group's offsets.
    pub kafka: Observer,
}

impl Scene {
    /// On the broker that the tests of one binary share.
    pub fn new(name: &str) -> Self {
        Self::at(name, &broker::shared().bootstrap_servers())
    }

    /// Of another program than the ledger, on the shared broker.
    pub fn of(subject: Subject, name: &str) -> Self {
        let bootstrap = broker::shared().bootstrap_servers();
        Self::with(subject, name, &bootstrap, &bootstrap)
    }

    /// On another broker.
    pub fn at(name: &str, bootstrap: &str) -> Self {
        Self::behind(name, bootstrap, bootstrap)
    }

    /// On a broker that the workers reach through a proxy, and the test directly.
    pub fn behind(name: &str, bootstrap: &str, workers_bootstrap: &str) -> Self {
        Self::with(Subject::LEDGER, name, bootstrap, workers_bootstrap)
    }

    fn with(subject: Subject, name: &str, bootstrap: &str, workers_bootstrap: &str) -> Self {
        let dir = broker::test_dir(name).expect("the target directory can be written");
        Self::placed(subject, name, dir, (bootstrap, workers_bootstrap), PARTITIONS)
    }

    /// In a directory of the caller's, and with as many partitions as the caller wants. The first address is for the
    /// test, the second for the workers.
    pub fn placed(subject: Subject, name: &str, dir: PathBuf, addresses: (&str, &str), partitions: i32) -> Self {
        let (bootstrap, workers_bootstrap) = addresses;
        let scene = Self {
            name: name.to_owned(),
            subject,
            bootstrap: bootstrap.to_owned(),
            workers_bootstrap: workers_bootstrap.to_owned(),
            dir,
            partitions,
            keys: 500,
            produced: 0,
            first_timestamp: now_ms(),
            kafka: Observer::new(bootstrap, name).expect("the settings are sound"),
        };
        for (_, topic) in subject.topics {
            create_topic(bootstrap, &scene.topic(topic), partitions, &[]).expect("the broker makes topics");
        }
        scene
    }

    /// Looks with new clients: those that saw the brokers die may be slow to find them again.
    pub fn reconnect(&mut self) {
        self.kafka = Observer::new(&self.bootstrap, &self.name).expect("the settings are sound");
    }

    /// The topic with this behind the scene's name.
    pub fn topic(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// The input topic.
    pub fn input(&self) -> String {
        self.topic(self.subject.topics[0].1)
    }

    /// The output topic.
    pub fn output(&self) -> String {
        self.topic(self.subject.topics[1].1)
    }

    /// The changelog topic, of the first store.
    pub fn changelog(&self) -> String {
        self.changelog_of(self.subject.stores[0])
    }

    /// The changelog topic of a store.
    pub fn changelog_of(&self, store: &str) -> String {
        self.topic(&format!("{store}-changelog"))
    }

    /// All that the tasks with stores write: outputs and changelogs.
    pub fn written(&self) -> Vec<String> {
        let outputs = self.subject.topics[1..].iter().map(|(_, topic)| self.topic(topic));
        outputs.chain(self.subject.stores.iter().map(|store| self.changelog_of(store))).collect()
    }

    /// A worker's state directory.
    pub fn state_dir(&self, worker: &str) -> PathBuf {
        self.dir.join(worker)
    }

    /// The next records to produce.
    pub fn workload(&self, count: u64) -> Workload {
        Workload {
            seed: 7 + self.produced,
            keys: self.keys,
            base_timestamp: self.first_timestamp + self.produced as i64,
            ..Workload::new(&self.input(), count, self.partitions)
        }
    }

    /// Produces records.
    pub fn produce(&mut self, count: u64) {
        (self.subject.produce)(&self.bootstrap, &self.workload(count)).expect("the broker takes records");
        self.produced += count;
    }

    /// How to start a worker, without an instance id.
    pub fn worker(&self, worker: &str) -> WorkerConfig {
        let config = WorkerConfig::new(self.subject.program, self.dir.join(format!("{worker}.log")))
            .with("bootstrap-servers", &self.workers_bootstrap)
            .with("application-id", &self.name)
            .with("state-dir", self.state_dir(worker).display());
        self.subject.topics.iter().fold(config, |config, (option, topic)| config.with(option, self.topic(topic)))
    }

    /// Starts a static member.
    pub fn start(&self, worker: &str) -> Worker {
        self.worker(worker).with("instance-id", worker).start()
    }

    /// Runs a worker until everything that was produced is processed.
    pub fn run(&self, config: &WorkerConfig) -> Worker {
        let worker = config.start();
        self.await_outputs(self.produced, &[&worker]);
        worker
    }

    /// Everything that is committed in a topic, once no transaction is open in it.
    pub fn read(&self, topic: &str) -> Vec<PartitionLog> {
        self.kafka.read_committed(topic).expect("the topic can be read")
    }

    /// How many outputs are visible now.
    pub fn outputs(&self) -> u64 {
        count(&self.kafka.read_committed_so_far(&self.output()).expect("the output can be read"))
    }

    /// Waits until as many records are processed; shows the workers' logs where that takes too long.
    pub fn await_outputs(&self, count: u64, workers: &[&Worker]) {
        let outcome = await_condition("outputs", PATIENCE, || Ok(self.asked_offsets().is_ok_and(|done| done >= count)));
        if let Err(error) = outcome {
            let logs: Vec<_> = workers.iter().map(|worker| worker.log_tail(25)).collect();
            panic!("{error:#}: {} of {count} processed; logs:\n{}", self.offsets_done(), logs.join("\n---\n"));
        }
    }

    /// Waits until the readers of the outputs are not held up by any transaction.
    ///
    /// # Errors
    /// They still are.
    pub fn await_visible(&self, patience: Duration) -> anyhow::Result<()> {
        await_condition("all outputs to be visible", patience, || {
            Ok(self.kafka.open_transactions(&self.output())?.is_empty())
        })
    }

    /// Waits for the markers of the last commit. Then outputs and offsets must say the same; how many that are.
    ///
    /// # Panics
    /// If they differ, or a transaction is open.
    pub fn settled(&self) -> u64 {
        for topic in self.written() {
            let none_open = || Ok(self.kafka.open_transactions(&topic)?.is_empty());
            let closed = await_condition("all markers to be written", MARKERS_WRITTEN, none_open);
            closed.unwrap_or_else(|error| panic!("{error:#}: a transaction is open in {topic}"));
        }
        let offsets = self.kafka.committed_offsets(&self.input(), true).expect("the broker answers");
        let output = self.read(&self.output());
        let outputs: Vec<_> = output.iter().map(|log| (log.partition, log.records.len() as i64)).collect();
        for &(partition, outputs) in &outputs {
            let offset = offsets.get(&partition).map_or(0, |(offset, _)| *offset);
            assert_eq!(outputs, offset, "partition {partition}: outputs and the offset are committed together");
        }
        count(&output)
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis() as i64
}

/// How many records there are.
pub fn count(logs: &[PartitionLog]) -> u64 {
    logs.iter().map(|log| log.records.len() as u64).sum()
}
