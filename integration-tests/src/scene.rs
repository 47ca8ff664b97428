//! One application under test: its topics, its workers, and the proof at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use processor_core::ids::{Partition, TaskId};
use processor_runtime::state::{application_directory, read_task_offline};

use crate::broker;
use crate::client::{self, Workload, committed_offsets, create_topic, produce_ledger, read_committed};
use crate::oracle::{self, LedgerState};
use crate::worker::{Worker, WorkerConfig, await_condition};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How many partitions the topics have.
pub const PARTITIONS: i32 = 4;

/// One application under test: its topics, its workers' directories.
#[derive(Debug)]
pub struct Scene {
    /// The application id.
    pub name: String,
    /// How its workers reach the brokers.
    pub bootstrap: String,
    /// Where logs and state lie.
    pub dir: PathBuf,
    /// How many partitions its topics have.
    pub partitions: i32,
    /// How many records were produced.
    pub produced: u64,
}

impl Scene {
    /// On the broker that the tests of one binary share.
    pub fn new(name: &str) -> Self {
        Self::at(name, &broker::shared().bootstrap_servers())
    }

    /// On another broker.
    pub fn at(name: &str, bootstrap: &str) -> Self {
        let dir = broker::test_dir(name).expect("the target directory can be written");
        let scene =
            Self { name: name.to_owned(), bootstrap: bootstrap.to_owned(), dir, partitions: PARTITIONS, produced: 0 };
        for topic in [scene.input(), scene.output()] {
            create_topic(bootstrap, &topic, PARTITIONS, &[]).expect("the broker makes topics");
        }
        scene
    }

    /// The input topic.
    pub fn input(&self) -> String {
        format!("{}-in", self.name)
    }

    /// The output topic.
    pub fn output(&self) -> String {
        format!("{}-out", self.name)
    }

    /// The changelog topic.
    pub fn changelog(&self) -> String {
        format!("{}-accounts-changelog", self.name)
    }

    /// A worker's state directory.
    pub fn state_dir(&self, worker: &str) -> PathBuf {
        self.dir.join(worker)
    }

    /// The next records to produce.
    pub fn workload(&self, count: u64) -> Workload {
        Workload {
            seed: 7 + self.produced,
            keys: 500,
            base_timestamp: 1_000_000 + self.produced as i64,
            ..Workload::new(&self.input(), count, self.partitions)
        }
    }

    /// Produces records.
    pub fn produce(&mut self, count: u64) {
        produce_ledger(&self.bootstrap, &self.workload(count)).expect("the broker takes records");
        self.produced += count;
    }

    /// How to start a worker, without an instance id.
    pub fn worker(&self, worker: &str) -> WorkerConfig {
        WorkerConfig::new("ledger-worker", self.dir.join(format!("{worker}.log")))
            .with("bootstrap-servers", &self.bootstrap)
            .with("application-id", &self.name)
            .with("input", self.input())
            .with("output", self.output())
            .with("state-dir", self.state_dir(worker).display())
    }

    /// Starts a static member.
    pub fn start(&self, worker: &str) -> Worker {
        self.worker(worker).with("instance-id", worker).start().expect("the worker starts")
    }

    /// How many outputs are committed.
    pub fn outputs(&self) -> u64 {
        read_committed_count(&self.bootstrap, &self.output())
    }

    pub fn await_outputs(&self, count: u64, workers: &[&Worker]) {
        let outcome = await_condition("outputs", PATIENCE, || Ok(self.offsets_done() >= count));
        if let Err(error) = outcome {
            let logs: Vec<_> = workers.iter().map(|worker| worker.log_tail(25)).collect();
            panic!("{error:#}: {} of {count} processed; logs:\n{}", self.offsets_done(), logs.join("\n---\n"));
        }
    }

    /// How many records the committed offsets say are processed.
    pub fn offsets_done(&self) -> u64 {
        let offsets = committed_offsets(&self.bootstrap, &self.name, &self.input(), false).expect("the broker answers");
        offsets.values().map(|(offset, _)| u64::try_from(*offset).unwrap_or(0)).sum()
    }

    /// Three witnesses and the offsets: outputs, the fold of the changelog, the stores on disk.
    pub fn verify(&self, workers: &[&str]) {
        let input = read_committed(&self.bootstrap, &self.input()).expect("the input can be read");
        let output = read_committed(&self.bootstrap, &self.output()).expect("the output can be read");
        let verdict = oracle::check_ledger(&input, &output);
        assert!(verdict.is_ok(), "{verdict}");
        assert_eq!(verdict.inputs, self.produced, "{verdict}");
        let batches = oracle::check_batches(&output);
        assert!(batches.is_ok(), "{batches}");
        let expected = oracle::expected_ledger_state(&input);
        let changelog = read_committed(&self.bootstrap, &self.changelog()).expect("the changelog can be read");
        oracle::check_ledger_state(&expected, &oracle::fold_changelog(&changelog).expect("a changelog of accounts"))
            .assert_ok();
        let committed =
            committed_offsets(&self.bootstrap, &self.name, &self.input(), true).expect("the broker answers");
        let committed: BTreeMap<_, _> =
            committed.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect();
        oracle::check_offsets(&committed, &oracle::input_ends(&input)).assert_ok();
        if !workers.is_empty() {
            oracle::check_ledger_state(&expected, &self.stores(workers)).assert_ok();
        }
    }

    /// The newest copy of every task's store over all workers' directories, read from disk.
    pub fn stores(&self, workers: &[&str]) -> LedgerState {
        let mut newest: BTreeMap<i32, (u64, LedgerState)> = BTreeMap::new();
        for worker in workers {
            let dir = application_directory(&self.state_dir(worker), &self.name);
            for partition in 0..self.partitions {
                let task = TaskId::new("entries", Partition::new(partition));
                if !dir.join(task.to_string()).exists() {
                    continue;
                }
                let dump =
                    read_task_offline(&dir, &task).expect("the state can be read").expect("its directory exists");
                let state = oracle::decode_store(&dump.stores["accounts"].entries).expect("a store of accounts");
                let batch = dump.task.as_ref().map_or(0, |task| task.batch.get());
                if newest.get(&partition).is_none_or(|(known, _)| batch > *known) {
                    newest.insert(partition, (batch, state));
                }
            }
        }
        newest.into_values().flat_map(|(_, state)| state).collect()
    }
}

fn read_committed_count(bootstrap: &str, topic: &str) -> u64 {
    client::read_committed_so_far(bootstrap, topic)
        .expect("the output can be read")
        .iter()
        .map(|log| log.records.len() as u64)
        .sum()
}
