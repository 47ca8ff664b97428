//! The real loop, rebalance, restore and transactions on a cluster and disks in memory: one thread, one seed, no Kafka.
//!
//! Workers take turns in an order that a seed decides; the seed also decides when a commit times out (and whether it
//! took effect), when a request comes late, when a worker dies inside a transaction or loses its newest state, when the
//! group rebalances. At the end everything is healed, and outputs, stores, changelogs and offsets must be what the
//! input says. A seed that fails prints itself: `PROCESSOR_SEED=<n>` runs it alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor_core::prelude::*;
use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::protocol::outcome::TxnErrorKind;
use processor_core::protocol::restore::StartRule;
use processor_core::topology::ApplicationTopology;
use processor_integration_tests::client::SplitMix64;
use processor_integration_tests::fake::{FakeClock, FakeCluster, FakeDirectory, FakeKafka, Fault};
use processor_runtime::config::{member, transactional_id};
use processor_runtime::kafka::{Kafka, Progress, TransactionalId, TransactionalProducer};
use processor_runtime::state::{Layout, StoreLayout};
use processor_runtime::stream_thread::{ChangelogTopic, StreamThread, ThreadPlan, producer_topics};
use processor_runtime::transaction::Clean;

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
const INPUT: &str = "in";
const OUTPUT: &str = "out";
const CHANGELOG: &str = "app-sums-changelog";
const PARTITIONS: i32 = 3;
const KEYS: u64 = 7;

/// Adds up by key; the output says which record it comes from.
struct Sum;

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
        let sum = ctx.store(&SUMS).update(&record.key, |sum| {
            *sum += record.value;
            *sum
        })?;
        let from = ctx.metadata().expect("a record is in process").offset.get();
        ctx.forward(record.with_value([from.to_be_bytes(), sum.to_be_bytes()].concat()))
    }
}

fn topology() -> ApplicationTopology {
    let mut topology = Topology::builder();
    topology
        .source("numbers", INPUT, (Utf8, JavaLong))
        .process("sum", || Sum)
        .with_store(&SUMS)
        .sink("sums", OUTPUT, (Utf8, Raw))
        .to_source_partition();
    topology.build().and_then(|topology| topology.for_application("app")).expect("the topology is right")
}

fn plan(worker: usize) -> ThreadPlan {
    let id = transactional_id("app", &format!("w{worker}"), 0);
    let changelog =
        ChangelogTopic { store: "sums".into(), topic: CHANGELOG.into(), delete_retention_ms: 24 * 60 * 60 * 1_000 };
    let store = StoreLayout { name: "sums".into(), changelog_topic_id: "changelog-1".to_owned() };
    let layout = Layout { stores: vec![store], cluster_id: "cluster-1".to_owned() };
    ThreadPlan {
        topology: topology(),
        output_partitions: [PARTITIONS as u32].into(),
        member: member(&format!("w{worker}"), false, 0, &id),
        transactional_id: id,
        changelogs: BTreeMap::from([("numbers".into(), vec![changelog])]),
        layouts: BTreeMap::from([("numbers".into(), layout)]),
        start_rule: StartRule::Earliest,
        batch: BatchBounds { records_start: 5, records_max: 40, turn_max: Duration::from_secs(1) },
        batch_bytes_max: 1 << 20,
        transaction_timeout: Duration::from_secs(10),
        rebalance_wait: Duration::from_secs(12),
        fence_after_rebuild: false,
        cache_bytes_max: 600,
        leave_on_stop: true,
    }
}

type Thread = StreamThread<FakeKafka, FakeDirectory, FakeClock>;

struct Worker {
    directory: FakeDirectory,
    thread: Option<Thread>,
}

/// A cluster, its workers, and what was produced.
struct World {
    cluster: FakeCluster,
    clock: FakeClock,
    workers: Vec<Worker>,
    produced: BTreeMap<i32, Vec<(String, i64)>>,
    faults: u64,
}

impl World {
    fn new(workers: usize) -> Self {
        let cluster = FakeCluster::new();
        for topic in [INPUT, OUTPUT, CHANGELOG] {
            cluster.create_topic(topic, PARTITIONS);
        }
        let workers = (0..workers).map(|_| Worker { directory: FakeDirectory::new(), thread: None });
        Self {
            cluster,
            clock: FakeClock::ticking(Duration::from_millis(1)),
            workers: workers.collect(),
            produced: BTreeMap::new(),
            faults: 0,
        }
    }

    fn produce(&mut self, partition: i32, key: &str, value: i64) {
        let of_partition = self.produced.entry(partition).or_default();
        let timestamp = 1_000 + of_partition.len() as i64;
        of_partition.push((key.to_owned(), value));
        self.cluster.produce(INPUT, partition, key.as_bytes(), &value.to_be_bytes(), timestamp);
    }

    fn start(&mut self, worker: usize) {
        let plan = plan(worker);
        let kafka = Arc::new(self.cluster.worker(&format!("w{worker}")));
        let mut producer = kafka.producer(&plan.transactional_id, &producer_topics(&plan)).expect("a new life");
        let mut asked = 0;
        while !matches!(producer.init(Duration::ZERO), Ok(Progress::Done)) {
            // Markers of an earlier life may be held back; a start waits for them as long as it takes.
            self.cluster.release_markers();
            asked += 1;
            assert!(asked < 100, "initialising never ends");
        }
        let directory = Arc::new(self.workers[worker].directory.clone());
        let thread = StreamThread::new(plan, kafka, directory, self.clock.clone(), Clean::initialised(producer));
        self.workers[worker].thread = Some(thread.expect("a new life"));
    }

    /// One turn of a worker; one that stops is dead, and must say why in words that the caller expects.
    fn turn(&mut self, worker: usize) -> Option<String> {
        self.clock.advance(Duration::from_millis(20));
        let thread = self.workers[worker].thread.as_mut()?;
        let ended = thread.turn().err()?;
        self.die(worker, 0);
        Some(ended.0)
    }

    /// `kill -9`, or, with batches lost, a power loss.
    fn die(&mut self, worker: usize, batches_lost: usize) {
        if self.workers[worker].thread.is_none() {
            return;
        }
        self.cluster.crash(&format!("w{worker}"));
        self.workers[worker].directory.crash(batches_lost);
        self.workers[worker].thread = None;
    }

    fn id(worker: usize) -> TransactionalId {
        plan(worker).transactional_id
    }

    fn is_done(&self) -> bool {
        let committed = self.cluster.committed();
        self.produced.iter().all(|(partition, records)| {
            let offset = committed.iter().find(|(tp, _)| &*tp.topic == INPUT && tp.partition.get() == *partition);
            offset.is_some_and(|(_, (offset, _))| offset.get() == records.len() as i64)
        })
    }

    /// Runs all living workers until everything is processed.
    fn finish(&mut self) {
        self.cluster.release_markers();
        for worker in 0..self.workers.len() {
            if self.workers[worker].thread.is_none() {
                self.expire(worker);
                self.start(worker);
            }
        }
        for _ in 0..4_000 {
            for worker in 0..self.workers.len() {
                if let Some(reason) = self.turn(worker) {
                    assert!(may_stop(&reason), "worker {worker} stopped: {reason}");
                    self.expire(worker);
                    self.start(worker);
                }
            }
            self.cluster.deliver_late_requests();
            self.cluster.release_markers();
            if self.is_done() && self.all_run() {
                return;
            }
        }
        let tasks: Vec<_> = self.workers.iter().map(|worker| worker.thread.as_ref().map(Thread::tasks)).collect();
        panic!("not done after healing: committed {:?}, tasks {tasks:?}", self.cluster.committed());
    }

    /// Whether every task runs somewhere: a restored store is complete only then.
    fn all_run(&self) -> bool {
        let tasks = self.workers.iter().filter_map(|worker| worker.thread.as_ref()).flat_map(Thread::tasks);
        tasks.filter(|(_, running)| *running).count() == PARTITIONS as usize
    }

    fn expire(&self, worker: usize) {
        self.cluster.expire_session(&Self::id(worker).to_string());
    }

    /// The oracle: plain sums over what was produced. Every record has one output, in order (EO-6).
    fn verify(&self) {
        for (partition, records) in &self.produced {
            let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
            let expected = records.iter().zip(0_i64..).map(|((key, value), offset)| {
                let sum = sums.entry(key).or_default();
                *sum += value;
                (key.as_bytes().to_vec(), [offset.to_be_bytes(), sum.to_be_bytes()].concat())
            });
            let expected: Vec<_> = expected.collect();
            let outputs = self.cluster.read_committed(OUTPUT).into_iter();
            let outputs = outputs.filter(|(p, _, _)| p.get() == *partition);
            let outputs: Vec<_> =
                outputs.map(|(_, _, w)| (w.key.unwrap_or_default(), w.value.unwrap_or_default())).collect();
            assert_eq!(outputs.len(), expected.len(), "partition {partition}: outputs and inputs differ in number");
            assert_eq!(outputs, expected, "partition {partition}: outputs");
            let changelog =
                self.cluster.read_committed(CHANGELOG).into_iter().filter(|(p, _, _)| p.get() == *partition);
            let fold: BTreeMap<_, _> =
                changelog.map(|(_, _, w)| (w.key.unwrap_or_default(), w.value.unwrap_or_default())).collect();
            let folded: BTreeMap<_, _> = fold.iter().map(|(key, value)| (key.as_slice(), decode(value))).collect();
            let sums: BTreeMap<_, _> = sums.into_iter().map(|(key, sum)| (key.as_bytes(), sum)).collect();
            assert_eq!(folded, sums, "partition {partition}: changelog");
            self.verify_stores(*partition, &fold);
        }
    }

    /// EO-4: no store is ahead of its changelog. EO-10: what a query would read in the newest is what was committed.
    fn verify_stores(&self, partition: i32, fold: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let task = TaskId::new("numbers", Partition::new(partition));
        let end = self.cluster.high_watermark(CHANGELOG, partition);
        let mut newest = None;
        for worker in &self.workers {
            let Some((stores, positions)) = worker.directory.dump(&task) else { continue };
            assert!(
                positions.changelogs[0].is_none_or(|position| position.get() <= end),
                "EO-4: {positions:?} of {end}"
            );
            if newest.as_ref().is_none_or(|(batch, _)| positions.batch > *batch) {
                newest = Some((positions.batch, stores.into_values().next().unwrap_or_default()));
            }
        }
        let (batch, store) = newest.expect("somebody has the state");
        assert_eq!(&store, fold, "partition {partition}: store");
        let committed = self.cluster.committed();
        let (_, (_, metadata)) =
            committed.iter().find(|(tp, _)| &*tp.topic == INPUT && tp.partition.get() == partition).expect("committed");
        assert_eq!(
            OffsetMetadata::parse(metadata).expect("ours").batch,
            batch,
            "the newest store is of the last commit"
        );
    }
}

fn decode(value: &[u8]) -> i64 {
    // Format 1, then bincode's zigzag varint; sums here stay below its one-byte bound or take the two-byte form.
    assert_eq!(value[0], 1);
    let zigzag = match value[1] {
        251 => u64::from(u16::from_le_bytes([value[2], value[3]])),
        252 => u64::from(u32::from_le_bytes([value[2], value[3], value[4], value[5]])),
        small => u64::from(small),
    };
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

/// One schedule: everything that may happen, in an order that only the seed decides.
fn run(seed: u64) -> Ended {
    let mut random = SplitMix64::new(seed);
    let mut world = World::new(1 + random.below(3) as usize);
    world.cluster.delay_answers(random.below(4) as usize);
    for worker in 0..world.workers.len() {
        world.start(worker);
    }
    for _ in 0..(100 + random.below(300)) {
        step(&mut world, &mut random);
    }
    world.finish();
    world.verify();
    let logs = [OUTPUT, CHANGELOG]
        .map(|topic| (0..PARTITIONS).map(|p| format!("{:?}", world.cluster.entries(topic, p))).collect());
    Ended { faults: world.faults, logs }
}

/// What a schedule has come to: everything that was ever written, aborted and control records included.
#[derive(PartialEq)]
struct Ended {
    faults: u64,
    logs: [Vec<String>; 2],
}

fn step(world: &mut World, random: &mut SplitMix64) {
    let worker = random.below(world.workers.len() as u64) as usize;
    let what = random.below(100);
    tracing::debug!(worker, what, "step");
    match what {
        0..30 => {
            for _ in 0..random.below(12) {
                let partition = random.below(PARTITIONS as u64) as i32;
                let (key, value) = (format!("k{}", random.below(KEYS)), random.below(100) as i64 - 30);
                world.produce(partition, &key, value);
            }
        }
        30..80 => {
            if let Some(reason) = world.turn(worker) {
                assert!(may_stop(&reason), "worker {worker} stopped: {reason}");
            }
        }
        80..90 => {
            world.faults += 1;
            let fault = any_fault(random);
            tracing::debug!(worker, ?fault, "scripted");
            world.cluster.script_for(&World::id(worker), fault);
        }
        90 => {
            world.cluster.deliver_late_requests();
        }
        91 => world.cluster.release_markers(),
        92 => world.cluster.rebalance(),
        93 => {
            world.faults += 1;
            world.expire(worker);
        }
        94 => {
            world.cluster.time_out_transaction(&World::id(worker));
        }
        95..98 => {
            world.faults += 1;
            let lost = random.below(3) as usize;
            world.die(worker, lost);
        }
        98 => {
            world.faults += 1;
            if world.workers[worker].thread.is_none() {
                world.workers[worker].directory.lose_all();
            } else {
                world.workers[worker].directory.refuse_writes_until_reopened();
            }
        }
        _ => {
            if world.workers[worker].thread.is_none() {
                world.expire(worker);
                world.start(worker);
            }
        }
    }
}

/// A worker may stop where it was fenced too often.
fn may_stop(reason: &str) -> bool {
    reason.contains("fenced")
}

fn any_fault(random: &mut SplitMix64) -> Fault {
    let kinds = [
        TxnErrorKind::Abortable,
        TxnErrorKind::Fatal,
        TxnErrorKind::Moved,
        TxnErrorKind::Retriable,
        TxnErrorKind::TimedOut,
    ];
    let kind = kinds[random.below(kinds.len() as u64) as usize];
    match random.below(10) {
        0 => Fault::CommitTimesOut { took_effect: true },
        1 => Fault::CommitTimesOut { took_effect: false },
        2 => Fault::CommitFails(kind),
        3 => Fault::CommitLeavesLateCopy,
        4 => Fault::CommitHoldsMarkers,
        5 => Fault::SendFails(kind),
        6 => Fault::DrainFails(kind),
        7 => Fault::SendOffsetsFails(kind),
        8 => Fault::AbortLeavesLateCopy,
        _ => Fault::AbortFails(TxnErrorKind::Fatal),
    }
}

#[test]
fn every_schedule_ends_exactly_once() {
    if let Ok(seed) = std::env::var("PROCESSOR_SEED") {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().without_time().init();
        run(seed.parse().expect("PROCESSOR_SEED is a number"));
        return;
    }
    let mut faults = 0;
    let mut failed = Vec::new();
    let schedules = 2_000;
    for seed in 0..schedules {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(ended) => faults += ended.faults,
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {schedules} schedules failed; run one alone with PROCESSOR_SEED={}: {failed:?}",
        failed.len(),
        failed[0]
    );
    assert!(faults > schedules, "the schedules must hurt: {faults} faults");
}

/// EO-7: the same records, state and time give the same writes, to the byte.
#[test]
fn a_schedule_that_runs_twice_writes_the_same_twice() {
    for seed in 0..50 {
        assert!(run(seed) == run(seed), "PROCESSOR_SEED={seed} came out differently the second time");
    }
}
