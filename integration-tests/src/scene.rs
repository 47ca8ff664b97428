//! One application under test: its topics, its workers, and the proof at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use processor_core::ids::{Partition, TaskId};
use processor_runtime::state::{application_directory, read_task_offline};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::broker;
use crate::client::{self, Workload, committed_offsets, create_topic, produce_ledger, read_committed};
use crate::oracle::{self, LedgerState, PartitionLog};
use crate::worker::{Worker, WorkerConfig, await_condition};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How many partitions the topics have.
pub const PARTITIONS: i32 = 4;

/// How long what is open in a frozen worker's partitions must stay as it is: whatever was on its way to the broker
/// when it was frozen, the end of the transaction included, has arrived by then.
const STANDSTILL: Duration = Duration::from_millis(250);
/// How often a worker is frozen until it is caught in a transaction.
const FREEZES_MAX: usize = 300;

/// One application under test: its topics, its workers' directories.
#[derive(Debug)]
pub struct Scene {
    /// The application id.
    pub name: String,
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
}

impl Scene {
    /// On the broker that the tests of one binary share.
    pub fn new(name: &str) -> Self {
        Self::at(name, &broker::shared().bootstrap_servers())
    }

    /// On another broker.
    pub fn at(name: &str, bootstrap: &str) -> Self {
        Self::behind(name, bootstrap, bootstrap)
    }

    /// On a broker that the workers reach through a proxy, and the test directly.
    pub fn behind(name: &str, bootstrap: &str, workers_bootstrap: &str) -> Self {
        let dir = broker::test_dir(name).expect("the target directory can be written");
        let scene = Self {
            name: name.to_owned(),
            bootstrap: bootstrap.to_owned(),
            workers_bootstrap: workers_bootstrap.to_owned(),
            dir,
            partitions: PARTITIONS,
            keys: 500,
            produced: 0,
        };
        for topic in [scene.input(), scene.output()] {
            // The workload's timestamps are of 1970: retention must not take its records away.
            create_topic(bootstrap, &topic, PARTITIONS, &[("retention.ms", "-1")]).expect("the broker makes topics");
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
            keys: self.keys,
            base_timestamp: 1_000_000 + self.produced as i64,
            ..Workload::new(&self.input(), count, self.partitions)
        }
    }

    /// Produces records.
    pub fn produce(&mut self, count: u64) {
        produce_ledger(&self.bootstrap, &self.workload(count)).expect("the broker takes records");
        self.produced += count;
    }

    /// Produces so many records a second, in the background, until it is told to finish.
    pub fn load(&self, rate: u64) -> Load {
        let (bootstrap, stop, first) = (self.bootstrap.clone(), Arc::new(AtomicBool::new(false)), self.produced);
        let mut workload = Workload { rate: Some(rate), ..self.workload(rate) };
        let stopped = stop.clone();
        let produce = move || {
            let mut produced = 0;
            while !stopped.load(Ordering::SeqCst) {
                produce_ledger(&bootstrap, &workload).expect("the broker takes records");
                produced += workload.count;
                workload.seed += workload.count;
                workload.base_timestamp += workload.count as i64;
            }
            produced
        };
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(produce).expect("a thread");
        Load { stop, first, thread: Some(thread) }
    }

    /// Freezes a worker inside an open transaction: a moment later, what it has written there is neither committed nor
    /// aborted, and stays so. Whoever is caught between two transactions is let go and frozen again.
    ///
    /// # Panics
    /// If it is never caught.
    pub fn freeze_in_transaction(&self, worker: &mut Worker) -> Caught {
        let looks = Looks::new(&self.bootstrap, [self.output(), self.changelog()]);
        for thaws in 0..FREEZES_MAX {
            let busy = await_condition("the worker to write in a transaction", PATIENCE, || {
                anyhow::ensure!(worker.is_alive(), "the worker has ended; its log ends:\n{}", worker.log_tail(30));
                Ok(!looks.open(&worker.assigned()).is_empty())
            });
            busy.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
            worker.freeze().expect("a worker that runs can be frozen");
            let open = looks.standing_open(&worker.assigned());
            if !open.is_empty() {
                return Caught { open, thaws };
            }
            worker.thaw().expect("a frozen worker can go on");
        }
        panic!("the worker was never inside a transaction; its log ends:\n{}", worker.log_tail(30));
    }

    /// Requires that what stood open when workers were frozen was written, and was never committed.
    pub fn assert_aborted(&self, caught: &[Caught]) {
        for topic in [self.output(), self.changelog()] {
            let ranges = || caught.iter().flat_map(|caught| &caught.open).filter(|range| range.topic == topic);
            if ranges().next().is_none() {
                continue;
            }
            let committed = read_committed(&self.bootstrap, &topic).expect("the topic can be read");
            let written = client::read_uncommitted(&self.bootstrap, &topic).expect("the topic can be read").0;
            for range in ranges() {
                assert!(range.count(&written) > 0, "nothing was written in {range:?}");
                assert_eq!(range.count(&committed), 0, "{range:?} was open and is committed");
            }
        }
    }

    /// How to start a worker, without an instance id.
    pub fn worker(&self, worker: &str) -> WorkerConfig {
        WorkerConfig::new("ledger-worker", self.dir.join(format!("{worker}.log")))
            .with("bootstrap-servers", &self.workers_bootstrap)
            .with("application-id", &self.name)
            .with("input", self.input())
            .with("output", self.output())
            .with("state-dir", self.state_dir(worker).display())
    }

    /// Starts a static member.
    pub fn start(&self, worker: &str) -> Worker {
        self.worker(worker).with("instance-id", worker).start().expect("the worker starts")
    }

    /// Sets the group's offsets of the input, as `kafka-consumer-groups --reset-offsets` does: without metadata.
    pub fn set_offsets(&self, offsets: &BTreeMap<i32, i64>) {
        self.set_offsets_with(offsets, "");
    }

    /// Sets the group's offsets of the input, all with this metadata.
    pub fn set_offsets_with(&self, offsets: &BTreeMap<i32, i64>, metadata: &str) {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap).set("group.id", &self.name);
        let outsider: BaseConsumer = settings.create().expect("the settings are sound");
        let group = outsider.group_metadata().expect("it has a group id");
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap).set("transactional.id", format!("{}-reset", self.name));
        let producer: BaseProducer = settings.create().expect("the settings are sound");
        producer.init_transactions(PATIENCE).expect("the broker answers");
        producer.begin_transaction().expect("it is initialised");
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            let added = list.add_partition_offset(&self.input(), partition, Offset::Offset(offset));
            added.expect("an offset is not negative");
            if !metadata.is_empty() {
                list.find_partition(&self.input(), partition).expect("it was added").set_metadata(metadata);
            }
        }
        producer.send_offsets_to_transaction(&list, &group, PATIENCE).expect("the broker takes offsets");
        producer.commit_transaction(PATIENCE).expect("the broker commits");
    }

    /// How many outputs are committed.
    pub fn outputs(&self) -> u64 {
        read_committed_count(&self.bootstrap, &self.output())
    }

    /// Waits until as many records are processed; shows the workers' logs where that takes too long.
    pub fn await_outputs(&self, count: u64, workers: &[&Worker]) {
        let outcome = await_condition("outputs", PATIENCE, || Ok(self.asked_offsets().is_ok_and(|done| done >= count)));
        if let Err(error) = outcome {
            let logs: Vec<_> = workers.iter().map(|worker| worker.log_tail(25)).collect();
            panic!("{error:#}: {} of {count} processed; logs:\n{}", self.offsets_done(), logs.join("\n---\n"));
        }
    }

    /// How many records the committed offsets say are processed.
    pub fn offsets_done(&self) -> u64 {
        self.asked_offsets().expect("the broker answers")
    }

    fn asked_offsets(&self) -> anyhow::Result<u64> {
        let offsets = committed_offsets(&self.bootstrap, &self.name, &self.input(), false)?;
        Ok(offsets.values().map(|(offset, _)| u64::try_from(*offset).unwrap_or(0)).sum())
    }

    /// Takes what is in the input for what was produced. A broker that dies between writing a record and acknowledging it
    /// can make the load's own producer write it again: then the input holds it twice, and both count.
    ///
    /// # Panics
    /// If the input holds less than was acknowledged.
    pub fn count_input(&mut self) {
        let input = read_committed(&self.bootstrap, &self.input()).expect("the input can be read");
        let records = input.iter().map(|log| log.records.len() as u64).sum();
        assert!(records >= self.produced, "{records} records are in the input, {} were acknowledged", self.produced);
        self.produced = records;
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

/// Records that are produced in the background.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// How many had been produced before it began.
    first: u64,
    thread: Option<JoinHandle<u64>>,
}

impl Load {
    /// Ends it, and counts what it has produced.
    pub fn finish(mut self, scene: &mut Scene) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("finish consumes the load, so its thread is taken once");
        assert_eq!(scene.produced, self.first, "nothing else is produced meanwhile");
        scene.produced += thread.join().expect("the load was produced");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A worker that was frozen inside a transaction.
#[derive(Debug)]
pub struct Caught {
    /// What it had written, neither committed nor aborted.
    pub open: Vec<OpenRange>,
    /// How often it was frozen before, between two transactions, and let go.
    pub thaws: usize,
}

/// Looks at the ends of partitions, quickly: a transaction must not be over before the look is.
struct Looks {
    topics: [String; 2],
    /// Reads to the high watermark, and to the last stable offset.
    readers: [BaseConsumer; 2],
}

impl Looks {
    fn new(bootstrap: &str, topics: [String; 2]) -> Self {
        let reader = |isolation: &str| {
            let created = ClientConfig::new()
                .set("bootstrap.servers", bootstrap)
                .set("group.id", "looks")
                .set("isolation.level", isolation)
                .create();
            created.expect("the settings are sound")
        };
        Self { topics, readers: ["read_uncommitted", "read_committed"].map(reader) }
    }

    /// What is open in these partitions. The high watermark is asked first: what is committed between the questions is
    /// not taken for open.
    fn open(&self, partitions: &[i32]) -> Vec<OpenRange> {
        let mut open = Vec::new();
        for topic in &self.topics {
            for &partition in partitions {
                let end =
                    |reader: &BaseConsumer| reader.fetch_watermarks(topic, partition, PATIENCE).map(|(_, end)| end);
                let ends = self.readers.each_ref().map(|reader| end(reader).expect("the broker answers"));
                let [to, from] = ends;
                if from < to {
                    open.push(OpenRange { topic: topic.clone(), partition, from, to });
                }
            }
        }
        open
    }

    /// What is open in these partitions, if it stays as it is. Only their owner writes there.
    fn standing_open(&self, partitions: &[i32]) -> Vec<OpenRange> {
        let deadline = Instant::now() + PATIENCE;
        let (mut open, mut since) = (self.open(partitions), Instant::now());
        while !open.is_empty() && since.elapsed() < STANDSTILL {
            let now = self.open(partitions);
            if now != open {
                (open, since) = (now, Instant::now());
            }
            assert!(Instant::now() < deadline, "a frozen worker still writes: {open:?}");
        }
        open
    }
}

/// The offsets from the last stable one to the high watermark of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The last stable offset: where the oldest open transaction begins.
    pub from: i64,
    to: i64,
}

impl OpenRange {
    fn count(&self, logs: &[PartitionLog]) -> usize {
        let records = logs.iter().filter(|log| log.partition == self.partition).flat_map(|log| &log.records);
        records.filter(|record| (self.from..self.to).contains(&record.offset)).count()
    }
}

fn read_committed_count(bootstrap: &str, topic: &str) -> u64 {
    client::read_committed_so_far(bootstrap, topic)
        .expect("the output can be read")
        .iter()
        .map(|log| log.records.len() as u64)
        .sum()
}
