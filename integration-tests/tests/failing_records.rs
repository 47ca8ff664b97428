//! Records that fail, wait or are refused, and punctuations, in the real loop on a cluster in memory: what the policies
//! promise holds for what readers of committed records see.

use std::sync::Arc;
use std::time::Duration;

use processor_core::prelude::*;
use processor_core::task::dead_letter::{ERROR_HEADER, KIND_HEADER, NODE_HEADER, OFFSET_HEADER};
use processor_runtime::stream_thread::StreamThread;
use processor_simulator::fake::{FakeClock, FakeCluster, FakeDirectory, FakeKafka, Fault, initialised, thread_plan};

const INPUT: &str = "in";
const PARTITIONS: i32 = 2;
/// More turns than anything here takes.
const TURNS_MAX: usize = 500;

/// A topology on one worker.
struct Stage {
    cluster: FakeCluster,
    clock: FakeClock,
    thread: StreamThread<FakeKafka, FakeDirectory, FakeClock>,
}

impl Stage {
    fn new(build: impl FnOnce(&mut TopologyBuilder)) -> Self {
        let mut topology = Topology::builder();
        build(&mut topology);
        let topology = topology.build().and_then(|topology| topology.for_application("app")).expect("it is right");
        let cluster = FakeCluster::new();
        for topic in topology.inputs().iter().chain(topology.outputs()) {
            cluster.create_topic(topic, PARTITIONS);
        }
        let plan = thread_plan("w", topology, PARTITIONS as u32);
        let kafka = Arc::new(cluster.worker("w"));
        let clock = FakeClock::ticking(Duration::from_micros(10));
        let producers = initialised(&plan, &kafka, &clock);
        let directory = Arc::new(FakeDirectory::new());
        let thread = StreamThread::new(plan, kafka, directory, clock.clone(), producers);
        Self { cluster, clock, thread: thread.expect("the worker lives") }
    }

    fn produce(&self, partition: i32, value: i64) {
        self.cluster.produce(INPUT, partition, b"k", &value.to_be_bytes(), 1_000 + value);
    }

    fn turn(&mut self) {
        self.thread.turn().expect("the worker goes on");
    }

    /// Turns until the condition holds, without moving the clock but for what its reading takes.
    #[track_caller]
    fn turn_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if holds(self) {
                return;
            }
            self.turn();
        }
        panic!("after {TURNS_MAX} turns not yet: {what}; committed {:?}", self.cluster.committed());
    }

    fn offset(&self, partition: i32) -> i64 {
        let committed = self.cluster.committed();
        let of = committed.iter().find(|(tp, _)| &*tp.topic == INPUT && tp.partition.get() == partition);
        of.map_or(-1, |(_, (offset, _))| offset.get())
    }

    /// Values of a topic's partition.
    fn values(&self, topic: &str, partition: i32) -> Vec<i64> {
        let records = self.cluster.read_committed(topic).into_iter().filter(|(p, _, _)| p.get() == partition);
        let value = |value: Option<Vec<u8>>| i64::from_be_bytes(value.unwrap_or_default().try_into().unwrap_or([0; 8]));
        records.map(|(_, _, written)| value(written.value)).collect()
    }

    /// The values of these headers on every record of a topic.
    fn headers(&self, topic: &str, names: &[&str]) -> Vec<Vec<String>> {
        let records = self.cluster.read_committed(topic).into_iter();
        let text = |headers: &[(String, Option<Vec<u8>>)], name: &str| {
            let found = headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone());
            String::from_utf8(found.unwrap_or_default()).expect("headers of ours are text")
        };
        records.map(|(_, _, written)| names.iter().map(|name| text(&written.headers, name)).collect()).collect()
    }
}

/// Passes records on; zero fails.
fn picky(record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    if record.value == 0 {
        ctx.forward(record)?;
        return Err(OperatorError::message("zero"));
    }
    ctx.forward(record)
}

fn picky_with(policy: impl Into<Policy>) -> impl FnOnce(&mut TopologyBuilder) {
    move |topology| {
        topology
            .source("in", INPUT, (Utf8, JavaLong))
            .process("picky", picky)
            .on_failure(policy)
            .sink("out", "out", (Utf8, JavaLong))
            .to_source_partition()
            .on_failure(FailurePolicy::dead_letter("failed"));
    }
}

/// EO-6, EO-9: what is passed over leaves its dead letter and its offset, and nothing else.
#[test]
fn a_dead_letter_is_committed_with_the_offset_that_passes_it() {
    let mut stage = Stage::new(picky_with(FailurePolicy::dead_letter("failed")));
    for value in [1, 0, 2] {
        stage.produce(0, value);
    }
    stage.turn_until("all are processed", |stage| stage.offset(0) == 3);
    assert_eq!(stage.values("out", 0), [1, 2]);
    let letters = stage.headers("failed", &[OFFSET_HEADER, NODE_HEADER, KIND_HEADER, ERROR_HEADER]);
    assert_eq!(letters, [["1", "picky", "process", "zero"]]);
}

#[test]
fn the_default_stops_the_worker_and_names_the_record() {
    let mut stage = Stage::new(picky_with(FailurePolicy::fail()));
    for value in [1, 0, 2] {
        stage.produce(0, value);
    }
    let stopped = (0..TURNS_MAX).find_map(|_| stage.thread.turn().err()).expect("the record stops it");
    assert!(stopped.0.contains("stopped at in-0@1") && stopped.0.contains("zero"), "{stopped}");
    assert_eq!((stage.offset(0), stage.values("out", 0)), (1, vec![1]));
}

/// The batch ends before the record that waits, its task is not read meanwhile, and others go on.
#[test]
fn a_record_that_is_tried_again_holds_back_its_task_and_no_other() {
    let mut stage = Stage::new(picky_with(FailurePolicy::retry(2, Duration::from_mins(1)).then(FailurePolicy::skip())));
    for value in [1, 0, 2] {
        stage.produce(0, value);
    }
    stage.turn_until("the record has failed", |stage| stage.offset(0) == 1);
    stage.produce(0, 3);
    stage.produce(1, 7);
    stage.turn_until("the other task goes on", |stage| stage.offset(1) == 1);
    for _ in 0..20 {
        stage.turn();
    }
    assert_eq!((stage.offset(0), stage.values("out", 0)), (1, vec![1]));
    stage.clock.advance(Duration::from_secs(61));
    for _ in 0..20 {
        stage.turn();
    }
    assert_eq!(stage.offset(0), 1, "the second wait is twice as long");
    stage.clock.advance(Duration::from_secs(121));
    stage.turn_until("the record is skipped", |stage| stage.offset(0) == 4);
    assert_eq!((stage.values("out", 0), stage.values("out", 1)), (vec![1, 2, 3], vec![7]));
}

/// A produce failure found at the drain: the batch is processed again with the verdict of the sink's policy.
#[test]
fn a_record_whose_output_is_refused_becomes_a_dead_letter() {
    let mut stage = Stage::new(picky_with(FailurePolicy::skip()));
    stage.turn_until("the task runs", |stage| !stage.thread.tasks().is_empty());
    stage.cluster.script(Fault::RecordRefused);
    for value in [5, 6, 7] {
        stage.produce(0, value);
    }
    stage.turn_until("all are processed", |stage| stage.offset(0) == 3);
    assert_eq!(stage.values("out", 0), [6, 7]);
    let letters = stage.headers("failed", &[OFFSET_HEADER, NODE_HEADER, KIND_HEADER, ERROR_HEADER]);
    assert_eq!(letters, [["0", "out", "produce", "the record is too large for the topic"]]);
}

struct Ticks;

impl Operator for Ticks {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        ctx.schedule(Duration::from_mins(1), Clock::WallClock);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        if record.value == 1 {
            ctx.request_commit();
        }
        ctx.forward(record.with_value(ctx.batch().id.get() as i64))
    }

    fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
        ctx.forward(Record::new("tick".to_owned(), -1, punctuation.due))
    }
}

fn ticking(topology: &mut TopologyBuilder) {
    topology
        .source("in", INPUT, (Utf8, JavaLong))
        .process("ticks", || Ticks)
        .sink("out", "out", (Utf8, JavaLong))
        .to_source_partition();
}

/// EO-12: a task that only punctuated commits the offset that it stands at.
#[test]
fn a_punctuation_without_records_is_committed() {
    let mut stage = Stage::new(ticking);
    stage.turn_until("the tasks run", |stage| stage.thread.tasks().iter().filter(|(_, runs)| *runs).count() == 2);
    assert_eq!(stage.offset(0), -1);
    stage.clock.advance(Duration::from_secs(61));
    stage.turn_until("it has fired", |stage| stage.values("out", 0) == [-1]);
    assert_eq!((stage.offset(0), stage.offset(1)), (0, 0));
    for _ in 0..20 {
        stage.turn();
    }
    assert_eq!(stage.values("out", 0), [-1], "it is due once a minute");
}

#[test]
fn a_requested_commit_ends_the_batch_and_the_rest_follows() {
    let mut stage = Stage::new(ticking);
    for value in [0, 1, 2, 3] {
        stage.produce(0, value);
    }
    stage.turn_until("all are processed", |stage| stage.offset(0) == 4);
    assert_eq!(stage.values("out", 0), [1, 1, 2, 2]);
}
