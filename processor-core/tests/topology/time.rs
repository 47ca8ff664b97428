//! Timestamps and punctuation.

use std::time::Duration;

use processor_core::prelude::*;
use processor_core::testing::{millis, secs};

use crate::driver;

const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");

/// Counts, and reports every so often what it has counted; fails at the key "bad".
struct Report {
    every: Duration,
    clock: Clock,
}

impl Operator for Report {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        ctx.schedule(self.every, self.clock);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        ctx.store(&COUNTS).update(&"all".to_owned(), |count| *count += 1)?;
        if record.key == "bad" { Err(OperatorError::message("bad")) } else { Ok(()) }
    }

    fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
        assert_eq!(ctx.metadata().is_some(), punctuation.clock == Clock::StreamTime);
        let count = ctx.store(&COUNTS).get(&"all".to_owned())?.unwrap_or_default();
        ctx.forward(Record::new(format!("{count}"), punctuation.due.get(), punctuation.now))
    }
}

fn reporting(every: Duration, clock: Clock) -> impl FnOnce(&mut TopologyBuilder) {
    move |topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .process("report", move || Report { every, clock })
            .with_store(&COUNTS)
            .on_failure(FailurePolicy::skip())
            .sink("out", "out", (Utf8, JavaLong));
    }
}

fn reports(driver: &processor_core::testing::TopologyTestDriver) -> Vec<(String, i64)> {
    driver.output::<String, i64>("out").records().into_iter().map(|record| (record.key, record.value)).collect()
}

fn report(count: &str, due: i64) -> (String, i64) {
    (count.to_owned(), due)
}

#[test]
fn stream_time_punctuation_fires_right_behind_the_record_that_moved_time_on() {
    let mut driver = driver(reporting(Duration::from_secs(10), Clock::StreamTime));
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(12), "a", 1);
    input.pipe_at(secs(19), "a", 1);
    assert_eq!(reports(&driver), []);
    input.pipe_at(secs(21), "a", 1);
    input.pipe_at(secs(15), "a", 1);
    assert_eq!(reports(&driver), [report("3", 20_000)]);
    driver.advance_wall_clock(Duration::from_secs(1_000)).expect("nothing is due");
    assert_eq!(reports(&driver), []);
    input.pipe_at(secs(59), "a", 1);
    assert_eq!(reports(&driver), [report("5", 50_000)], "two were missed, and one fires");
}

/// EO-7: schedules of `open` fall on the same times after a restart.
#[test]
fn a_restart_does_not_move_stream_time_schedules() {
    let mut driver = driver(reporting(Duration::from_secs(10), Clock::StreamTime));
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(12), "a", 1);
    driver.crash_and_restore().expect("it opens");
    input.pipe_at(secs(19), "a", 1);
    assert_eq!(reports(&driver), []);
    input.pipe_at(secs(20), "a", 1);
    driver.crash_and_restore().expect("it opens");
    input.pipe_at(secs(29), "a", 1);
    assert_eq!(reports(&driver), [report("3", 20_000)]);
}

#[test]
fn wall_clock_punctuation_fires_without_records() {
    let mut driver = driver(reporting(Duration::from_mins(1), Clock::WallClock));
    driver.advance_wall_clock(Duration::from_secs(59)).expect("nothing is due");
    assert_eq!(reports(&driver), []);
    driver.advance_wall_clock(Duration::from_secs(1)).expect("it reports");
    assert_eq!(reports(&driver), [report("0", 60_000)]);
    driver.input::<String, i64>("in").pipe("a", 1);
    driver.advance_wall_clock(Duration::from_secs(200)).expect("it reports");
    assert_eq!(reports(&driver), [report("1", 240_000)]);
}

/// EO-9: time that a failed record would have moved on stays, and so nothing fires.
#[test]
fn a_failed_record_moves_no_time_on() {
    let driver = driver(reporting(Duration::from_secs(10), Clock::StreamTime));
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(1), "a", 1);
    input.pipe_at(secs(100), "bad", 1);
    assert_eq!(reports(&driver), []);
    input.pipe_at(secs(10), "a", 1);
    assert_eq!(reports(&driver), [report("2", 10_000)]);
}

#[test]
fn a_failing_punctuation_stops_the_task_whatever_the_policy() {
    struct Fails;
    impl Operator for Fails {
        type KeyIn = String;
        type ValueIn = i64;
        type KeyOut = String;
        type ValueOut = i64;

        fn process(
            &mut self,
            record: Record<String, i64>,
            ctx: &mut Context<'_, String, i64>,
        ) -> Result<(), OperatorError> {
            ctx.schedule(Duration::from_secs(1), Clock::StreamTime);
            ctx.forward(record)
        }

        fn punctuate(&mut self, _: Punctuation, _: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
            panic!("no report today")
        }
    }
    let driver = driver(|topology| {
        topology.on_failure(FailurePolicy::skip());
        topology.source("in", "in", (Utf8, JavaLong)).process("fails", || Fails).sink("out", "out", (Utf8, JavaLong));
    });
    let input = driver.input::<String, i64>("in");
    input.pipe_at(millis(500), "a", 1);
    let failure = input.try_pipe_at(secs(2), "a", 1).expect_err("the punctuation fails");
    assert_eq!(failure.to_string(), "a punctuation failed in node 'fails': no report today");
    assert_eq!(driver.output::<String, i64>("out").values(), [1], "the record goes with its punctuation");
}

#[test]
fn timestamps_come_from_the_record_the_value_or_the_clock() {
    let mut driver = driver(|topology| {
        topology.source("record", "record", (Utf8, JavaLong)).sink("of-record", "of-record", (Utf8, JavaLong));
        topology
            .source("value", "value", (Utf8, JavaLong))
            .timestamps_by(|_key, value| Some(Timestamp::new(*value)))
            .sink("of-value", "of-value", (Utf8, JavaLong));
        topology.source("clock", "clock", (Utf8, JavaLong)).wall_clock_timestamps().sink(
            "of-clock",
            "of-clock",
            (Utf8, JavaLong),
        );
    });
    driver.advance_wall_clock(Duration::from_secs(7)).expect("nothing is due");
    for (source, sink, expected) in
        [("record", "of-record", 1_000), ("value", "of-value", 42), ("clock", "of-clock", 7_000)]
    {
        driver.input::<String, i64>(source).pipe_at(secs(1), "a", 42);
        let timestamps = driver.output::<String, i64>(sink).records();
        assert_eq!(timestamps.iter().map(|record| record.timestamp.get()).collect::<Vec<_>>(), [expected], "{source}");
    }
}

#[test]
fn an_invalid_timestamp_meets_its_own_policy() {
    let driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .timestamps_by(|_key, value| (*value != 0).then_some(Timestamp::new(*value)))
            .on_invalid_timestamp(FailurePolicy::skip())
            .sink("out", "out", (Utf8, JavaLong));
        topology.source("strict", "strict", (Utf8, JavaLong)).sink("out-2", "out-2", (Utf8, JavaLong));
    });
    let input = driver.input::<String, i64>("in");
    for value in [0, -5, 5] {
        input.pipe_at(secs(1), "a", value);
    }
    assert_eq!(driver.output::<String, i64>("out").values(), [5]);
    assert_eq!(driver.skipped().len(), 2);
    let strict = driver.input::<String, i64>("strict");
    let failure = strict.try_pipe_bytes(None, Some(b"a"), Some(&[0; 8])).expect_err("the default is to stop");
    assert!(failure.to_string().starts_with("the timestamp is invalid in node 'strict'"), "{failure}");
}

/// A record waits in front of the driver's clock, so that both inputs hold records when the task goes on.
#[test]
fn inputs_are_merged_by_extracted_timestamps() {
    let mut driver = driver(|topology| {
        let by_value = |_key: &String, value: &i64| Some(Timestamp::new(*value));
        let one = topology.source("one", "one", (Utf8, JavaLong)).timestamps_by(by_value);
        let two = topology.source("two", "two", (Utf8, JavaLong)).timestamps_by(by_value);
        one.merge(&two)
            .each("first-fails", |record, ctx| {
                if ctx.batch().now < secs(1) { Err(OperatorError::message("not yet")) } else { ctx.forward(record) }
            })
            .on_failure(FailurePolicy::retry(1, Duration::from_secs(1)).then(FailurePolicy::fail()))
            .sink("out", "out", (Utf8, JavaLong));
    });
    for value in [5, 9] {
        driver.input::<String, i64>("one").pipe_at(secs(9), "a", value);
    }
    for value in [1, 7] {
        driver.input::<String, i64>("two").pipe_at(secs(1), "a", value);
    }
    driver.advance_wall_clock(Duration::from_secs(1)).expect("all succeed now");
    assert_eq!(driver.output::<String, i64>("out").values(), [1, 5, 7, 9]);
}
