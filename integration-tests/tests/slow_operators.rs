//! Operators that take long: named while they run, in smaller batches from then on, and stopped at what can never commit. On
//! one thread, with a clock that the operator moves.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use processor_core::prelude::*;
use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::slow::SlowLimits;
use processor_runtime::metrics::{Gauges, Metrics};
use processor_runtime::status::{ThreadStatus, Watcher};
use processor_runtime::stream_thread::{Instruments, StreamThread, ThreadPlan};
use processor_runtime::transaction;
use processor_simulator::fake::{FakeClock, FakeCluster, FakeDirectory, FakeKafka, initialised, thread_plan};

const IN: &str = "in";
const OUT: &str = "out";
const SECOND: Duration = Duration::from_secs(1);
/// Turns in which everything here comes to its end.
const TURNS_MAX: usize = 500;

type SharedWatcher = Arc<Mutex<Watcher<FakeClock>>>;

/// Takes as many seconds for a record as its value says, and the watcher looks after each.
#[derive(Clone)]
struct Crawl {
    clock: FakeClock,
    watcher: SharedWatcher,
    /// Takes no time any more.
    healed: Arc<AtomicBool>,
    /// It heals with the first record that takes any.
    heals: bool,
}

impl Operator for Crawl {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        if !self.healed.load(Ordering::Relaxed) {
            for _ in 0..record.value {
                self.clock.advance(SECOND);
                look(&self.watcher);
                self.healed.store(self.heals, Ordering::Relaxed);
            }
        }
        ctx.forward(record)
    }
}

fn look(watcher: &SharedWatcher) {
    watcher.lock().unwrap_or_else(PoisonError::into_inner).look();
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, words: &str) -> Vec<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("text");
        text.lines().filter(|line| line.contains(words)).map(ToOwned::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stage {
    cluster: FakeCluster,
    thread: StreamThread<FakeKafka, FakeDirectory, FakeClock>,
    watcher: SharedWatcher,
    status: Arc<ThreadStatus>,
    metrics: Metrics,
    log: Log,
    _logging: tracing::subscriber::DefaultGuard,
}

impl Stage {
    fn set(heals: bool, bounds: BatchBounds) -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let cluster = FakeCluster::new();
        cluster.create_topic(IN, 1);
        cluster.create_topic(OUT, 1);
        let clock = FakeClock::ticking(Duration::from_micros(1));
        let (metrics, status) = (Metrics::on(), Arc::new(ThreadStatus::new(0)));
        let timeout = 10 * SECOND;
        let limits =
            SlowLimits { transaction: transaction::budget(timeout), max_poll_interval: Duration::from_mins(5) };
        let of_thread = [(status.clone(), metrics.slow_records(0))];
        let watcher = Arc::new(Mutex::new(Watcher::new(of_thread, limits, clock.clone())));
        let crawl = Crawl { clock: clock.clone(), watcher: watcher.clone(), healed: Arc::default(), heals };
        let mut topology = Topology::builder();
        topology.source("numbers", IN, (Utf8, JavaLong)).process("crawl", move || crawl.clone()).sink(
            "passed",
            OUT,
            (Utf8, JavaLong),
        );
        let topology = topology.build().and_then(|topology| topology.for_application("app")).expect("it is right");
        let plan = thread_plan("one", topology, 1);
        // One poll is the whole batch.
        let plan = ThreadPlan { transaction_timeout: timeout, batch: bounds, poll_records_max: 1_000, ..plan };
        let kafka = Arc::new(cluster.worker("one"));
        let producers = initialised(&plan, &kafka, &clock);
        let thread =
            StreamThread::new(plan, kafka, Arc::new(FakeDirectory::new()), clock, producers).expect("it lives");
        let thread = thread.with_instruments(Instruments::new(metrics.thread(0), status.clone()));
        Self { cluster, thread, watcher, status, metrics, log, _logging: logging }
    }

    fn produce(&self, seconds: impl IntoIterator<Item = i64>) {
        for (number, seconds) in (1..).zip(seconds) {
            self.cluster.produce(IN, 0, b"key", &seconds.to_be_bytes(), number);
        }
    }

    fn outputs(&self) -> usize {
        self.cluster.read_committed(OUT).len()
    }

    /// Turns until so many outputs are visible. How many records each batch had.
    fn run(&mut self, outputs: usize) -> Vec<usize> {
        let mut batches = Vec::new();
        for _ in 0..TURNS_MAX {
            let turn = self.thread.turn().expect("it goes on");
            batches.extend((turn.committed > 0).then_some(turn.committed));
            if self.outputs() >= outputs {
                assert_eq!(self.outputs(), outputs, "each record once");
                return batches;
            }
        }
        panic!("{} of {outputs} outputs; its log:\n{}", self.outputs(), self.log.lines_with("").join("\n"));
    }

    fn slow_records(&self) -> String {
        let page = self.metrics.render(&Gauges::default());
        let line = page.lines().find(|line| line.starts_with("processor_slow_records_total"));
        line.expect("the series is there from the start").to_owned()
    }
}

fn bounds(records_start: usize) -> BatchBounds {
    BatchBounds { records_start, records_max: 1_000, turn_max: Duration::from_millis(150) }
}

#[test]
fn a_record_is_named_with_its_node_while_it_is_in_process_and_when_it_is_done() {
    let mut stage = Stage::set(false, bounds(1));
    stage.produce([0, 0, 7, 0]);
    assert!(stage.slow_records().ends_with(" 0"));
    stage.run(4);
    look(&stage.watcher);
    let named = stage.log.lines_with("in-0@2 has been in process for");
    // The first look is a second after the beginning; then after 2 s and 4 s.
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named[0].contains("WARN") && named[0].contains("for 2.0s") && named[1].contains("for 4.0s"), "{named:?}");
    for words in ["node=\"crawl\"", "task=numbers_0", "if it is not done within 6.0s", "transaction.timeout"] {
        assert!(named[0].contains(words), "no {words} in {}", named[0]);
    }
    let done = stage.log.lines_with("in-0@2 is done after about 6.");
    assert_eq!(done.len(), 1, "{:?}", stage.log.lines_with(""));
    assert!(stage.slow_records().ends_with(" 1"), "{}", stage.slow_records());
    assert_eq!(stage.status.operators_busy(), Duration::ZERO);
}

#[test]
fn what_will_happen_is_said_as_time_goes_by() {
    let mut stage = Stage::set(true, bounds(5));
    stage.produce([600]);
    // Healed by the first second, but the loop goes on to the last.
    stage.run(1);
    let named = stage.log.lines_with("in-0@0 has been in process for");
    let says = |line: &String| {
        ["if it is not done within", "let the operator give up sooner. In", "longer than max.poll.interval"]
            .iter()
            .position(|words| line.contains(words))
    };
    let said: Vec<_> = named.iter().map(says).collect();
    let expected = [0, 0, 1, 1, 1, 1, 1, 1, 2].map(Some);
    assert_eq!(said, expected, "2, 4, 8, 16, 32, 64, 128, 256, 512 s: {named:?}");
}

#[test]
fn behind_a_slow_record_batches_are_small_until_records_are_quick_again() {
    let mut stage = Stage::set(false, bounds(20));
    stage.produce([0; 20].into_iter().chain([3; 6]).chain([0; 200]));
    let batches = stage.run(226);
    let ends = batches.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    let with_slow: Vec<_> = batches.iter().zip(ends).filter(|(size, end)| *end > 20 && *end - *size < 26).collect();
    assert_eq!(with_slow.len(), 6, "one record each: {batches:?}");
    assert!(batches.iter().skip(8).any(|&size| size > 8), "they grow again: {batches:?}");
}

#[test]
fn a_batch_whose_records_become_slow_is_given_up_in_time() {
    let mut stage = Stage::set(false, bounds(1_000));
    stage.produce([0; 150].into_iter().chain([1; 20]).chain([0; 400]));
    stage.run(570);
    let given_up = stage.log.lines_with("its transaction would outlive its time");
    let after: Vec<usize> = given_up
        .iter()
        .filter_map(|line| {
            let (_, behind) = line.split_once("after ")?;
            behind.split_whitespace().next()?.parse().ok()
        })
        .collect();
    // Half of the 8 s: it was looked at the clock within a second, though 64 quick records may pass without a look.
    assert!(after.first().is_some_and(|&records| (153..=156).contains(&records)), "{given_up:?}");
}

#[test]
fn a_record_that_always_outlasts_its_transaction_stops_the_worker_and_names_what_to_raise() {
    let mut stage = Stage::set(false, bounds(5));
    stage.produce([0, 0, 0, 9, 0]);
    let stopped = (0..TURNS_MAX).find_map(|_| stage.thread.turn().err()).expect("it does not try for ever").to_string();
    for words in ["numbers_0 stopped at in-0@3", ", 3 times. Nothing", "transaction.timeout", "max.poll.interval"] {
        assert!(stopped.contains(words), "no '{words}' in {stopped}");
    }
    assert_eq!(stage.outputs(), 3, "what is before it is committed, and nothing of it");
    let (_, (offset, _)) = stage.cluster.committed().pop_first().expect("something was committed");
    assert_eq!(offset, Offset::new(3));
    assert_eq!(stage.log.lines_with("in-0@3 of task numbers_0 took 9").len(), 3);
    assert_eq!(stage.cluster.open_transactions(), []);
}

#[test]
fn a_record_that_outlasts_its_transaction_once_is_processed_again_and_leaves_its_results_once() {
    let mut stage = Stage::set(true, bounds(1));
    stage.produce([30, 0, 9]);
    stage.run(3);
    assert_eq!(stage.log.lines_with("in-0@0 of task numbers_0 took 30").len(), 1);
    assert_eq!(stage.log.lines_with("transaction aborted").len(), 1, "{:?}", stage.log.lines_with(""));
}
