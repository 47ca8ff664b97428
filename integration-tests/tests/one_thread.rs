//! The real loop, rebalance, restore and transactions on a cluster and disks in memory: one thread, one seed, no Kafka.
//!
//! Workers take turns in an order that a seed decides; the seed also decides when a commit times out (and whether it
//! took effect), when a request comes late, when a worker dies inside a transaction or loses its newest state, when the
//! group rebalances. At the end everything is healed, and outputs, stores, changelogs and offsets must be what the
//! input says. A seed that fails prints itself: `PROCESSOR_SEED=<n>` runs it alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::OutputIndex;
use processor_core::prelude::*;
use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::protocol::outcome::TxnErrorKind;
use processor_core::protocol::restore::StartRule;
use processor_core::record::TargetPartition;
use processor_integration_tests::client::SplitMix64;
use processor_integration_tests::fake::{Entries, FakeClock, FakeCluster, FakeDirectory, FakeKafka, Fault};
use processor_runtime::config::{member, transactional_id};
use processor_runtime::kafka::{DeliveryTag, Kafka, ProducerRecord, Progress, TransactionalId, TransactionalProducer};
use processor_runtime::state::{Layout, StoreLayout};
use processor_runtime::stream_thread::{ChangelogTopic, StreamThread, ThreadPlan, producer_topics};
use processor_runtime::transaction::{Initialised, Initialising};

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts").in_memory().with_json_values();
/// Counts since it was last empty; under the empty key, the offset at which that was.
const LOCAL: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("local").without_changelog();
const INPUT: &str = "in";
const OUTPUT: &str = "out";
const CHANGELOG: &str = "app-sums-changelog";
const COUNTS_CHANGELOG: &str = "app-counts-changelog";
const PARTITIONS: i32 = 3;
const KEYS: u64 = 7;
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
        let sum = ctx.store(&SUMS).update(&record.key, |sum| {
            *sum += record.value;
            *sum
        })?;
        let from = ctx.metadata().offset.get();
        let counted = count(ctx.store(&COUNTS), &record.key)?;
        let local = count(ctx.store(&LOCAL), &record.key)?;
        let since = ctx.store(&LOCAL).modify(&String::new(), |since| *since.get_or_insert(from))?;
        ctx.forward(record.with_value([from, sum, counted, since, local].map(i64::to_be_bytes).concat()))
    }
}

fn topology() -> Topology {
    let mut topology = Topology::builder();
    topology
        .source("numbers", INPUT, (Utf8, JavaLong))
        .process("sum", || Sum)
        .with_store(&SUMS)
        .with_store(&COUNTS)
        .with_store(&LOCAL)
        .sink("sums", OUTPUT, (Utf8, Raw))
        .to_source_partition();
    topology.build().expect("the topology is right")
}

fn plan(worker: usize) -> ThreadPlan {
    let id = transactional_id("app", &format!("w{worker}"), 0);
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
    ThreadPlan {
        topology: topology(),
        member: member(&format!("w{worker}"), false, 0, &id),
        transactional_id: id,
        changelogs: BTreeMap::from([("numbers".into(), changelogs)]),
        layouts: BTreeMap::from([("numbers".into(), layout)]),
        start_rule: StartRule::Earliest,
        batch: BatchBounds { records_start: 5, records_max: 40, turn_max: Duration::from_secs(1) },
        batch_bytes_max: 1 << 20,
        transaction_timeout: Duration::from_secs(10),
        rebalance_wait: Duration::from_secs(12),
        lost_wait: Duration::from_secs(22),
        outside_wait: Duration::from_mins(1),
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
        for topic in [INPUT, OUTPUT, CHANGELOG, COUNTS_CHANGELOG] {
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
        let producer = kafka.producer(&plan.transactional_id, &producer_topics(&plan)).expect("a new life");
        let mut initialising = Initialising::new(producer, &self.clock);
        let producer = loop {
            match initialising.step(&self.clock, Duration::ZERO, Duration::from_secs(100)).expect("a new life") {
                Initialised::Done(producer) => break producer,
                Initialised::Pending(same) => initialising = same,
                Initialised::GivenUp => panic!("initialising never ends"),
            }
            // Markers of an earlier life may be held back; a start waits for them as long as it takes.
            self.cluster.release_markers();
        };
        let directory = Arc::new(self.workers[worker].directory.clone());
        let thread = StreamThread::new(plan, kafka, directory, self.clock.clone(), producer);
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
        for _ in 0..TURNS_TO_HEAL_MAX {
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
            let (mut sums, mut counts) = (BTreeMap::<&str, i64>::new(), BTreeMap::<&str, i64>::new());
            let expected = records.iter().zip(0_i64..).map(|((key, value), offset)| {
                let (sum, count) = (sums.entry(key).or_default(), counts.entry(key).or_default());
                *sum += value;
                *count += 1;
                (key.as_str(), [offset, *sum, *count])
            });
            let expected: Vec<_> = expected.collect();
            let outputs = self.outputs(*partition);
            assert_eq!(outputs.len(), expected.len(), "partition {partition}: outputs and inputs differ in number");
            for ((key, [offset, sum, count, since, local]), expected) in outputs.iter().zip(expected) {
                assert_eq!((key.as_str(), [*offset, *sum, *count]), expected, "partition {partition}: outputs");
                let seen = &records[*since as usize..=*offset as usize];
                let seen = seen.iter().filter(|(of, _)| of == key).count() as i64;
                assert_eq!(*local, seen, "partition {partition}@{offset}: the local store is exact since {since}");
            }
            let by_bytes = |map: BTreeMap<&str, i64>| map.into_iter().map(|(key, n)| (key.into(), n)).collect();
            let (sums, counts): (BTreeMap<Vec<u8>, _>, BTreeMap<_, _>) = (by_bytes(sums), by_bytes(counts));
            let decoded = |fold: &Entries| fold.iter().map(|(key, value)| (key.clone(), decode(value))).collect();
            let (sums_fold, counts_fold) = (self.fold(CHANGELOG, *partition), self.fold(COUNTS_CHANGELOG, *partition));
            assert_eq!(sums, decoded(&sums_fold), "partition {partition}: changelog of sums");
            assert_eq!(counts, decoded(&counts_fold), "partition {partition}: changelog of counts");
            self.verify_stores(*partition, &sums_fold);
            self.verify_memory(*partition, &counts_fold);
        }
    }

    /// What was written for each record of a partition: key; offset, sum, count, and since when the local store counts what.
    fn outputs(&self, partition: i32) -> Vec<(String, [i64; 5])> {
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
        records.map(|(_, _, w)| (w.key.unwrap_or_default(), w.value.unwrap_or_default())).collect()
    }

    /// Whoever runs the task has all of the changelog in memory.
    fn verify_memory(&self, partition: i32, fold: &Entries) {
        let task = TaskId::new("numbers", Partition::new(partition));
        let runs = |worker: &&Worker| {
            let tasks = worker.thread.as_ref().map(Thread::tasks).unwrap_or_default();
            tasks.into_iter().any(|(running, _)| running == task)
        };
        let owner = self.workers.iter().find(runs).expect("every task runs somewhere");
        let (stores, _) = owner.directory.dump(&task).expect("its state is open");
        assert_eq!(&stores["counts"], fold, "partition {partition}: store in memory");
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
    let logs = [OUTPUT, CHANGELOG, COUNTS_CHANGELOG]
        .map(|topic| (0..PARTITIONS).map(|p| format!("{:?}", world.cluster.entries(topic, p))).collect());
    Ended { faults: world.faults, logs }
}

/// What a schedule has come to: everything that was ever written, aborted and control records included.
#[derive(PartialEq)]
struct Ended {
    faults: u64,
    logs: [Vec<String>; 3],
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
        95 => {
            world.faults += 1;
            world.cluster.hang_member(&World::id(worker).to_string());
        }
        96..98 => {
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

/// A client that has lost its place and never says anything again is replaced, and everything goes on.
#[test]
fn a_member_that_hangs_is_replaced() {
    let mut world = World::new(1);
    world.start(0);
    world.produce(0, "a", 1);
    while !world.is_done() {
        assert_eq!(world.turn(0), None);
    }
    world.cluster.hang_member(&World::id(0).to_string());
    world.produce(1, "b", 2);
    world.finish();
    world.verify();
}

/// A transaction of nobody known hangs in a changelog whose partition moves. The successor waits, and may fence the owner
/// before it, in case that one is dead: once, for a second time would end nothing, and who is fenced again and again stops.
#[test]
fn a_living_owner_is_not_fenced_until_it_stops() {
    let mut world = World::new(2);
    world.start(0);
    for partition in 0..PARTITIONS {
        world.produce(partition, "a", 1);
    }
    while !world.is_done() {
        assert_eq!(world.turn(0), None);
    }
    let nobody = TransactionalId("nobody".into());
    let mut hanging = world.cluster.worker("nobody").producer(&nobody, &[CHANGELOG.into()]).expect("a new life");
    assert_eq!(hanging.init(Duration::ZERO).expect("nobody else has the id"), Progress::Done);
    hanging.begin().expect("it is initialised");
    let last = ProducerRecord {
        topic: OutputIndex::new(0),
        partition: TargetPartition::Exactly(Partition::new(PARTITIONS - 1)),
        timestamp: Timestamp::new(1),
        key: Some(b"x"),
        value: None,
        header: None,
        tag: DeliveryTag::UNTRACKED,
    };
    hanging.send(&last).expect("the log takes it");
    world.start(1);
    for turn in 0..3_000 {
        if turn % 10 == 0 {
            world.produce(0, "b", 1);
        }
        assert_eq!(world.turn(0), None);
        assert_eq!(world.turn(1), None);
    }
    let epoch = world.cluster.epoch(&World::id(0));
    assert!(epoch <= 3, "started, fenced and started again make three epochs, and there are {epoch}");
    assert!(!world.all_run(), "the last partition's task waits for the transaction that hangs");
    hanging.abort(Duration::ZERO).expect("it ends");
    world.finish();
    world.verify();
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

/// A store without a changelog goes on where it is exactly what was committed, and begins empty where it is not.
#[test]
fn a_store_without_a_changelog_is_exact_or_empty() {
    let mut world = World::new(2);
    world.start(0);
    let produce = |world: &mut World| {
        let records = world.produced.get(&0).map_or(0, Vec::len) as i64;
        (0..3).for_each(|_| world.produce(0, "k", 1));
        records
    };
    let run = |world: &mut World, worker| {
        (0..200).for_each(|_| assert_eq!(world.turn(worker), None, "worker {worker} goes on"));
        assert!(world.is_done(), "everything is processed");
        let (_, [_, _, _, since, _]) = world.outputs(0).last().cloned().expect("something was written");
        since
    };
    let restart = |world: &mut World, worker, batches_lost| {
        world.die(worker, batches_lost);
        world.expire(worker);
        world.start(worker);
    };
    produce(&mut world);
    assert_eq!(run(&mut world, 0), 0);
    restart(&mut world, 0, 0);
    produce(&mut world);
    assert_eq!(run(&mut world, 0), 0, "after kill -9 it goes on");
    restart(&mut world, 0, 1);
    let lost_at = produce(&mut world);
    assert_eq!(run(&mut world, 0), lost_at, "after the loss of a batch it begins empty");
    world.die(0, 0);
    world.expire(0);
    world.start(1);
    let moved_at = produce(&mut world);
    assert_eq!(run(&mut world, 1), moved_at, "elsewhere it begins empty");
    world.die(1, 0);
    world.expire(1);
    world.start(0);
    let back_at = produce(&mut world);
    assert_eq!(run(&mut world, 0), back_at, "coming back, what was left there is too old");
    world.verify();
}

/// EO-7: the same records, state and time give the same writes, to the byte.
#[test]
fn a_schedule_that_runs_twice_writes_the_same_twice() {
    for seed in 0..50 {
        assert!(run(seed) == run(seed), "PROCESSOR_SEED={seed} came out differently the second time");
    }
}
