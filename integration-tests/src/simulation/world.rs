//! The world of a simulation: an application that adds up and counts by key, a cluster and disks in memory, workers that live and
//! die in it, and what must hold at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use processor_core::ids::{StoreIndex, TopicPartition};
use processor_core::prelude::*;
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::topology::ApplicationTopology;
use processor_runtime::config::{member, transactional_id};
use processor_runtime::failpoints::Failpoint;
use processor_runtime::kafka::{Kafka, TransactionalId};
use processor_runtime::state::{Layout, StoreLayout};
use processor_runtime::stream_thread::{ChangelogTopic, StreamThread, ThreadPlan, producer_topics};
use processor_runtime::transaction::{Initialised, Initialising};

use super::may_stop;
use super::strike::{self, Killed, Strike};
use crate::fake::log::Written;
use crate::fake::{Entries, FakeClock, FakeCluster, FakeDirectory, FakeKafka, thread_plan};

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts").in_memory().with_json_values();
/// A record with this value deletes the sum of its key.
pub(super) const FORGETS: i64 = -30;
/// Counts since it was last empty; under the empty key, the offset at which that was.
const LOCAL: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("local").without_changelog();
const INPUT: &str = "in";
pub(super) const OUTPUT: &str = "out";
/// The changelog topic.
pub const CHANGELOG: &str = "app-sums-changelog";
pub(super) const COUNTS_CHANGELOG: &str = "app-counts-changelog";
/// How many partitions every topic has.
pub const PARTITIONS: i32 = 3;
/// Every fault that was scripted and has not struck may cost the longest wait of the engine, `outside_wait`.
const TURNS_TO_HEAL_MAX: usize = 20_000;

/// Adds up and counts by key, in stores of every kind; the output says which record it comes from.
struct Sum;

/// Adds one and says how many that makes.
fn count(mut store: Store<'_, String, i64>, key: &String) -> Result<i64, StoreError> {
    store.update(key, |count| {
        *count += 1;
        *count
    })
}

impl Operator for Sum {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = Vec<u8>;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, Vec<u8>>,
    ) -> Result<(), OperatorError> {
        let mut sums = ctx.store(&SUMS);
        let sum = if record.value == FORGETS {
            sums.delete(&record.key);
            0
        } else {
            sums.update(&record.key, |sum| {
                *sum += record.value;
                *sum
            })?
        };
        let from = ctx.metadata().expect("a record is in process").offset.get();
        let counted = count(ctx.store(&COUNTS), &record.key)?;
        let local = count(ctx.store(&LOCAL), &record.key)?;
        let since = ctx.store(&LOCAL).modify(&String::new(), |since| *since.get_or_insert(from))?;
        ctx.forward(record.with_value([from, sum, counted, since, local].map(i64::to_be_bytes).concat()))
    }
}

fn topology() -> ApplicationTopology {
    let mut topology = Topology::builder();
    topology
        .source("numbers", INPUT, (Utf8, JavaLong))
        .process("sum", || Sum)
        .with_store(&SUMS)
        .with_store(&COUNTS)
        .with_store(&LOCAL)
        .sink("sums", OUTPUT, (Utf8, Raw))
        .to_source_partition();
    topology.build().and_then(|topology| topology.for_application("app")).expect("the topology is right")
}

fn plan(worker: usize, brokers: Brokers, members: Members) -> ThreadPlan {
    let changelog = |store: &str, topic: &str| {
        Some(ChangelogTopic { store: store.into(), topic: topic.into(), delete_retention_ms: 24 * 60 * 60 * 1_000 })
    };
    let changelogs = vec![changelog("sums", CHANGELOG), changelog("counts", COUNTS_CHANGELOG), None];
    let store = |name: &str, in_memory, topic_id: Option<&str>| StoreLayout {
        name: name.into(),
        in_memory,
        changelog_topic_id: topic_id.map(str::to_owned),
    };
    let stores = [store("sums", false, Some("id-1")), store("counts", true, Some("id-2")), store("local", false, None)];
    let layout = Layout { stores: stores.to_vec(), cluster_id: "cluster-1".to_owned() };
    let plan = thread_plan(&format!("w{worker}"), topology(), PARTITIONS as u32);
    let member = member(&format!("w{worker}"), members == Members::Static, 0, &plan.transactional_id, None);
    ThreadPlan {
        member,
        leave_on_stop: members == Members::Dynamic,
        changelogs: BTreeMap::from([("numbers".into(), changelogs)]),
        layouts: BTreeMap::from([("numbers".into(), layout)]),
        fence_after_rebuild: brokers == Brokers::VerifyNothing,
        ..plan
    }
}

type Thread = StreamThread<FakeKafka, FakeDirectory, FakeClock>;

#[derive(Debug)]
struct Worker {
    directory: FakeDirectory,
    thread: Option<Thread>,
    /// Where in its turn it is to die, if it is.
    strike: Option<Strike>,
    /// Its machine is lost for good: it never starts again.
    gone: bool,
}

/// What the brokers do with offsets that belong to no open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// They refuse them.
    Verify,
    /// They take them, as with `transaction.partition.verification.enable=false`. The workers know, and every producer of
    /// theirs begins with a fence transaction.
    VerifyNothing,
}

/// What the workers are to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Whoever starts is somebody new, and whoever stops leaves.
    Dynamic,
    /// They have names, and are expected back.
    Static,
}

/// A cluster, its workers, and what was produced.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: FakeCluster,
    clock: FakeClock,
    workers: Vec<Worker>,
    produced: BTreeMap<i32, Vec<(String, i64)>>,
    brokers: Brokers,
    members: Members,
    /// The group's offsets when they were last looked at.
    offsets: BTreeMap<TopicPartition, Offset>,
    /// How often a worker has died at each failpoint.
    pub struck: BTreeMap<Failpoint, u64>,
}

impl World {
    /// A world with so many workers, none of which runs yet.
    pub fn new(workers: usize, brokers: Brokers, members: Members) -> Self {
        let cluster = FakeCluster::new();
        if brokers != Brokers::Verify {
            cluster.verify_nothing();
        }
        for topic in [INPUT, OUTPUT, CHANGELOG, COUNTS_CHANGELOG] {
            cluster.create_topic(topic, PARTITIONS);
        }
        let worker = |_| Worker { directory: FakeDirectory::new(), thread: None, strike: None, gone: false };
        Self {
            cluster,
            clock: FakeClock::ticking(Duration::from_millis(1)),
            workers: (0..workers).map(worker).collect(),
            struck: BTreeMap::new(),
            produced: BTreeMap::new(),
            brokers,
            members,
            offsets: BTreeMap::new(),
        }
    }

    /// How many workers there are, running or not.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Whether a worker runs.
    pub fn runs(&self, worker: usize) -> bool {
        self.workers[worker].thread.is_some()
    }

    /// A worker's disk.
    pub fn directory(&self, worker: usize) -> &FakeDirectory {
        &self.workers[worker].directory
    }

    /// How many records a partition of the input holds.
    pub fn produced(&self, partition: i32) -> i64 {
        self.produced.get(&partition).map_or(0, |records| records.len() as i64)
    }

    /// Writes a record into the input.
    pub fn produce(&mut self, partition: i32, key: &str, value: i64) {
        let of_partition = self.produced.entry(partition).or_default();
        let timestamp = 1_000 + of_partition.len() as i64;
        of_partition.push((key.to_owned(), value));
        self.cluster.produce(INPUT, partition, key.as_bytes(), &value.to_be_bytes(), timestamp);
    }

    /// Starts a worker.
    pub fn start(&mut self, worker: usize) {
        let plan = plan(worker, self.brokers, self.members);
        let kafka = Arc::new(self.cluster.worker(&format!("w{worker}")));
        let producer = kafka.producer(&plan.transactional_id, &producer_topics(&plan)).expect("a new life");
        let mut initialising = Initialising::new(producer, &self.clock);
        let producer = loop {
            match initialising.step(&self.clock, Duration::ZERO, Duration::from_secs(100)).expect("a new life") {
                Initialised::Done(producer) => break producer,
                Initialised::Pending(same) => initialising = same,
                Initialised::GivenUp => panic!("initialising never ends"),
            }
            // Markers of an earlier life may be held back, or a broker away; a start waits as long as it takes.
            self.cluster.elect();
            self.cluster.release_markers();
        };
        let directory = Arc::new(self.workers[worker].directory.clone());
        let thread = StreamThread::new(plan, kafka, directory, self.clock.clone(), producer);
        self.workers[worker].thread = Some(thread.expect("a new life"));
    }

    /// One turn of a worker; one that stops is dead, and must say why in words that the caller expects. One that dies where
    /// it was to die says nothing.
    pub fn turn(&mut self, worker: usize) -> Option<String> {
        self.clock.advance(Duration::from_millis(20));
        let Worker { thread, strike, .. } = &mut self.workers[worker];
        let thread = thread.as_mut()?;
        let _entered = tracing::info_span!("worker", worker).entered();
        let ended = match strike::run(strike, || thread.turn()) {
            Ok(turned) => Some(turned.err()?.0),
            Err(Killed(point)) => {
                tracing::debug!("dies at {}", point.name());
                *self.struck.entry(point).or_default() += 1;
                None
            }
        };
        self.die(worker, 0);
        ended
    }

    /// Stops a worker, as SIGTERM does; it may be that it dies over it.
    pub fn stop(&mut self, worker: usize) {
        let Worker { thread, strike, .. } = &mut self.workers[worker];
        let Some(thread) = thread.take() else { return };
        match strike::run(strike, || thread.run(&AtomicBool::new(true), |_| {})) {
            Ok(stopped) => stopped.expect("O6: a worker that is told to stop has no reason not to"),
            Err(Killed(point)) => *self.struck.entry(point).or_default() += 1,
        }
        self.bury(worker, 0);
    }

    /// The worker is to die when it comes past a failpoint for the so-manieth time from now.
    pub fn strike(&mut self, worker: usize, at: Failpoint, passes: u32) {
        self.workers[worker].strike = Some(Strike { at, passes_left: passes });
    }

    /// The worker's machine is lost for good, with its disk. Not the last one.
    pub fn lose(&mut self, worker: usize) -> bool {
        let others = self.workers.iter().enumerate().any(|(other, it)| other != worker && !it.gone);
        if others && !self.workers[worker].gone {
            self.die(worker, 0);
            self.workers[worker].gone = true;
            return true;
        }
        false
    }

    /// What the workers are to the group.
    pub fn members(&self) -> Members {
        self.members
    }

    /// Damages a store that a worker has on disk; whether it has one.
    pub fn damage(&self, worker: usize, nth: usize) -> bool {
        let directory = &self.workers[worker].directory;
        let tasks = directory.tasks();
        let Some(task) = tasks.get(nth % tasks.len().max(1)) else { return false };
        directory.damage(task, StoreIndex::new(0));
        true
    }

    /// Whether the worker's machine is lost for good.
    pub fn is_gone(&self, worker: usize) -> bool {
        self.workers[worker].gone
    }

    /// `kill -9`, or, with batches lost, a power loss.
    pub fn die(&mut self, worker: usize, batches_lost: usize) {
        if self.workers[worker].thread.take().is_some() {
            self.bury(worker, batches_lost);
        }
    }

    /// Cuts the connections of a worker whose thread is no more.
    fn bury(&mut self, worker: usize, batches_lost: usize) {
        self.cluster.crash(&format!("w{worker}"));
        self.workers[worker].directory.crash(batches_lost);
        self.workers[worker].strike = None;
    }

    /// The transactional id of a worker, which is also its client id.
    pub fn id(worker: usize) -> TransactionalId {
        transactional_id("app", &format!("w{worker}"), 0)
    }

    /// Whether every record of the input is processed.
    pub fn is_done(&self) -> bool {
        let committed = self.cluster.committed();
        self.produced.iter().all(|(partition, records)| {
            let offset = committed.iter().find(|(tp, _)| &*tp.topic == INPUT && tp.partition.get() == *partition);
            offset.is_some_and(|(_, (offset, _))| offset.get() == records.len() as i64)
        })
    }

    /// Heals everything but what is lost for good, and runs all workers until everything is processed (O6).
    ///
    /// # Panics
    /// If that never comes.
    pub fn finish(&mut self) {
        self.cluster.elect();
        self.cluster.release_markers();
        self.cluster.delay_answers(0);
        for worker in 0..self.workers.len() {
            self.workers[worker].strike = None;
            if self.workers[worker].thread.is_none() {
                self.expire(worker);
                if !self.workers[worker].gone {
                    self.start(worker);
                }
            }
        }
        let alive: Vec<usize> = (0..self.workers.len()).filter(|worker| !self.workers[*worker].gone).collect();
        for _ in 0..TURNS_TO_HEAL_MAX {
            self.end_what_only_others_can();
            for &worker in &alive {
                if let Some(reason) = self.turn(worker) {
                    assert!(may_stop(&reason), "O6: worker {worker} stopped: {reason}");
                    self.expire(worker);
                    self.start(worker);
                }
            }
            self.cluster.deliver_late_requests();
            self.cluster.release_markers();
            self.watch_offsets();
            if self.is_done() && self.all_run() {
                return;
            }
        }
        let tasks: Vec<_> = self.workers.iter().map(|worker| worker.thread.as_ref().map(Thread::tasks)).collect();
        let open =
            self.cluster.open_transactions().into_iter().map(|id| (self.cluster.written_in_transaction(&id), id));
        let open: Vec<_> = open.collect();
        panic!("O6: not done after healing: {open:?} open, committed {:?}, tasks {tasks:?}", self.cluster.committed());
    }

    /// Who died for good in a transaction without a changelog record has named itself nowhere, unless it had committed
    /// before: the broker's time-out ends that transaction. Late offsets of it, taken by brokers that verify nothing, hang
    /// until a person ends them.
    fn end_what_only_others_can(&self) {
        for worker in (0..self.workers.len()).filter(|worker| self.workers[*worker].gone) {
            let id = Self::id(worker);
            let written = self.cluster.written_in_transaction(&id);
            if !written.iter().any(|partition| [CHANGELOG, COUNTS_CHANGELOG].contains(&&*partition.topic)) {
                self.cluster.time_out_transaction(&id);
            }
            if self.brokers == Brokers::VerifyNothing {
                self.cluster.abort_hanging(&id);
            }
        }
    }

    /// Whether every task runs, and at one worker only: a restored store is complete only then.
    pub fn all_run(&self) -> bool {
        let tasks = self.workers.iter().filter_map(|worker| worker.thread.as_ref()).flat_map(Thread::tasks);
        let running: Vec<TaskId> = tasks.filter(|(_, running)| *running).map(|(task, _)| task).collect();
        running.len() == PARTITIONS as usize && running.iter().collect::<BTreeSet<_>>().len() == running.len()
    }

    /// O3: no committed offset goes back between two looks.
    ///
    /// # Panics
    /// If one does.
    pub fn watch_offsets(&mut self) {
        for (partition, (offset, _)) in self.cluster.committed() {
            let before = self.offsets.insert(partition.clone(), offset);
            assert!(
                before.is_none_or(|before| before <= offset),
                "O3: {partition}: offset {offset} comes after {before:?}"
            );
        }
    }

    /// Ends the session of a worker.
    pub fn expire(&self, worker: usize) {
        self.cluster.expire_session(&Self::id(worker).to_string());
    }

    /// The oracle: plain sums over what was produced. Every record has one output, in order (EO-6).
    ///
    /// # Panics
    /// If something else is there.
    pub fn verify(&self) {
        let open = self.cluster.open_transactions();
        assert!(open.is_empty(), "O7: transactions stay open: {open:?}");
        for (partition, records) in &self.produced {
            let (mut sums, mut counts) = (BTreeMap::<&str, i64>::new(), BTreeMap::<&str, i64>::new());
            let expected = records.iter().zip(0_i64..).map(|((key, value), offset)| {
                let count = counts.entry(key).or_default();
                *count += 1;
                let sum = if *value == FORGETS {
                    sums.remove(key.as_str());
                    0
                } else {
                    let sum = sums.entry(key).or_default();
                    *sum += value;
                    *sum
                };
                (key.as_str(), [offset, sum, *count])
            });
            let expected: Vec<_> = expected.collect();
            let outputs = self.outputs(*partition);
            assert_eq!(outputs.len(), expected.len(), "O1: partition {partition}: outputs and inputs differ in number");
            for ((key, [offset, sum, count, since, local]), expected) in outputs.iter().zip(expected) {
                assert_eq!((key.as_str(), [*offset, *sum, *count]), expected, "O1: partition {partition}: outputs");
                assert!(
                    (0..=*offset).contains(since),
                    "O2: partition {partition}@{offset}: the local store is of {since}"
                );
                let seen = &records[*since as usize..=*offset as usize];
                let seen = seen.iter().filter(|(of, _)| of == key).count() as i64;
                assert_eq!(*local, seen, "O2: partition {partition}@{offset}: the local store is exact since {since}");
            }
            let by_bytes = |map: BTreeMap<&str, i64>| map.into_iter().map(|(key, n)| (key.into(), n)).collect();
            let (sums, counts): (BTreeMap<Vec<u8>, _>, BTreeMap<_, _>) = (by_bytes(sums), by_bytes(counts));
            let decoded = |fold: &Entries| fold.iter().map(|(key, value)| (key.clone(), decode(value))).collect();
            let (sums_fold, counts_fold) = (self.fold(CHANGELOG, *partition), self.fold(COUNTS_CHANGELOG, *partition));
            assert_eq!(sums, decoded(&sums_fold), "O2: partition {partition}: changelog of sums");
            assert_eq!(counts, decoded(&counts_fold), "O2: partition {partition}: changelog of counts");
            self.verify_stores(*partition, &sums_fold);
            self.verify_memory(*partition, &counts_fold);
        }
    }

    /// What was written for each record of a partition: key; offset, sum, count, and since when the local store counts what.
    pub fn outputs(&self, partition: i32) -> Vec<(String, [i64; 5])> {
        let outputs = self.cluster.read_committed(OUTPUT).into_iter().filter(|(p, _, _)| p.get() == partition);
        let decoded = outputs.map(|(_, _, written)| {
            let key = String::from_utf8(written.key.unwrap_or_default()).expect("the sink writes UTF-8");
            let value = written.value.unwrap_or_default();
            let (numbers, rest) = value.as_chunks::<8>();
            assert!(rest.is_empty(), "the sink writes whole numbers");
            let numbers: Vec<_> = numbers.iter().map(|bytes| i64::from_be_bytes(*bytes)).collect();
            (key, numbers.try_into().expect("the sink writes five numbers"))
        });
        decoded.collect()
    }

    /// The last value of every key of a changelog partition.
    fn fold(&self, changelog: &str, partition: i32) -> Entries {
        let records = self.cluster.read_committed(changelog).into_iter().filter(|(p, _, _)| p.get() == partition);
        let mut fold = Entries::new();
        for (_, _, Written { key, value, .. }) in records {
            let key = key.expect("changelogs have keys");
            match value {
                Some(value) => drop(fold.insert(key, value)),
                None => drop(fold.remove(&key)),
            }
        }
        fold
    }

    /// Whoever runs the task has all of the changelog in memory.
    fn verify_memory(&self, partition: i32, fold: &Entries) {
        let task = TaskId::new("numbers", Partition::new(partition));
        let runs = |worker: &&Worker| {
            let tasks = worker.thread.as_ref().map(Thread::tasks).unwrap_or_default();
            tasks.into_iter().any(|(of, runs)| of == task && runs)
        };
        let owner = self.workers.iter().find(runs).expect("O6: every task runs somewhere");
        let (stores, _) = owner.directory.dump(&task).expect("its state is open");
        assert_eq!(&stores["counts"], fold, "O2: partition {partition}: store in memory");
    }

    /// EO-4: no store is ahead of its changelog. EO-10: what a query would read in the newest is what was committed.
    fn verify_stores(&self, partition: i32, fold: &Entries) {
        let task = TaskId::new("numbers", Partition::new(partition));
        let ends = [CHANGELOG, COUNTS_CHANGELOG].map(|topic| self.cluster.high_watermark(topic, partition));
        let mut newest = None;
        for worker in &self.workers {
            let Some((stores, positions)) = worker.directory.dump(&task) else { continue };
            let within = positions.changelogs.iter().zip(ends);
            let within = within.map(|(position, end)| position.is_none_or(|position| position.get() <= end));
            assert!(within.into_iter().all(|within| within), "EO-4: {positions:?} of {ends:?}");
            if newest.as_ref().is_none_or(|(batch, _)| positions.batch > *batch) {
                newest = Some((positions.batch, stores["sums"].clone()));
            }
        }
        let (batch, store) = newest.expect("O2: somebody has the state");
        assert_eq!(&store, fold, "O2: partition {partition}: store");
        let committed = self.cluster.committed();
        let (_, (_, metadata)) = committed
            .iter()
            .find(|(tp, _)| &*tp.topic == INPUT && tp.partition.get() == partition)
            .expect("O3: something is committed");
        assert_eq!(
            OffsetMetadata::parse(metadata).expect("ours").batch,
            batch,
            "O2: the newest store is of the last commit"
        );
    }
}

fn decode(value: &[u8]) -> i64 {
    if value[0] == b' ' {
        return std::str::from_utf8(value)
            .ok()
            .and_then(|json| json.trim_start().parse().ok())
            .expect("JSON of a number");
    }
    // Format 1, then bincode's zigzag varint; sums here stay below its one-byte bound or take the two-byte form.
    assert_eq!(value[0], 1);
    let zigzag = match value[1] {
        251 => u64::from(u16::from_le_bytes([value[2], value[3]])),
        252 => u64::from(u32::from_le_bytes([value[2], value[3], value[4], value[5]])),
        small => u64::from(small),
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}
