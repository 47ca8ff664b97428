//! Failing records: where a failure belongs, and what the policies do.

use std::time::Duration;

use processor_core::prelude::*;
use processor_core::task::dead_letter::{
    ERROR_BYTES_MAX, ERROR_HEADER, KIND_HEADER, NODE_HEADER, OFFSET_HEADER, PARTITION_HEADER, TASK_HEADER,
    TIMESTAMP_HEADER, TOPIC_HEADER,
};
use processor_core::testing::{TopologyTestDriver, secs};

use crate::{driver, driver_of};

const SEEN: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("seen");

/// Fails at zero, panics at one, after it has written and forwarded.
#[expect(clippy::needless_pass_by_value, reason = "an operator is given its records")]
fn picky(record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ctx.store(&SEEN).put(&record.key, record.value);
    ctx.forward(record.clone())?;
    match record.value {
        0 => Err(OperatorError::message("zero")),
        1 => panic!("one"),
        _ => Ok(()),
    }
}

fn picky_driver(policy: impl Into<Policy>) -> TopologyTestDriver {
    driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .process("picky", picky)
            .with_store(&SEEN)
            .on_failure(policy)
            .sink("out", "out", (Utf8, JavaLong));
    })
}

#[test]
fn skipped_records_leave_nothing_and_are_counted() {
    let driver = picky_driver(FailurePolicy::skip());
    let input = driver.input::<String, i64>("in");
    for value in [0, 2, 1] {
        input.pipe_at(secs(1), "a", value);
    }
    assert_eq!(driver.output::<String, i64>("out").values(), [2]);
    assert_eq!(driver.store(&SEEN).get(&"a".to_owned()), Some(2));
    let reasons: Vec<_> = driver.skipped().iter().map(ToString::to_string).collect();
    assert_eq!(reasons, ["the operator failed in node 'picky': zero", "the operator panicked in node 'picky': one"]);
}

#[test]
fn the_default_is_to_stop_at_the_record() {
    let driver = picky_driver(FailurePolicy::fail());
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(1), "a", 2);
    input.try_pipe_at(secs(1), "a", 0).expect_err("the record fails");
    input.try_pipe_at(secs(1), "a", 3).expect_err("the task stands before the record that failed");
    assert_eq!(driver.output::<String, i64>("out").values(), [2]);
}

#[test]
fn a_dead_letter_is_the_record_as_it_came_with_what_went_wrong() {
    let driver = driver_of(4, |topology| {
        topology.on_failure(FailurePolicy::dead_letter("failed"));
        topology.source("in", "in", (Utf8, JavaLong)).process("picky", picky).with_store(&SEEN);
    });
    let input = driver.input::<String, i64>("in").partition(2).header("trace", b"t").header(NODE_HEADER, b"older");
    input.pipe_at(secs(1), "a", 5);
    input.pipe_at(secs(2), "a", 0);
    input.try_pipe_bytes(Some(secs(3)), None, Some(b"x")).expect("it becomes a dead letter");
    let letters = driver.dead_letters();
    let headers = |letter: usize| {
        let names =
            [TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER, TIMESTAMP_HEADER, TASK_HEADER, NODE_HEADER, KIND_HEADER];
        names.map(|name| letters[letter].header(name).unwrap_or("absent"))
    };
    assert_eq!(letters.len(), 2);
    assert_eq!(headers(0), ["in", "2", "1", "2000", "in_2", "picky", "process"]);
    assert_eq!((letters[0].header("trace"), letters[0].header(ERROR_HEADER)), (Some("t"), Some("zero")));
    assert_eq!((&*letters[0].topic, letters[0].key.as_deref()), ("failed", Some(&b"a"[..])));
    assert_eq!(letters[0].value.as_deref(), Some(&[0; 8][..]));
    assert_eq!(headers(1), ["in", "2", "2", "3000", "in_2", "in", "decode"]);
    assert_eq!(letters[1].value.as_deref(), Some(&b"x"[..]));
}

#[test]
fn the_error_in_a_dead_letter_is_bounded() {
    let driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, Utf8))
            .each("verbose", |record: Record<String, String>, _: &mut Context<'_, String, String>| {
                Err(OperatorError::message(record.value))
            })
            .on_failure(FailurePolicy::dead_letter("failed"));
    });
    driver.input::<String, String>("in").pipe_at(secs(1), "a", "ä".repeat(5_000));
    let letters = driver.dead_letters();
    assert_eq!(letters[0].header(ERROR_HEADER).map(str::len), Some(ERROR_BYTES_MAX));
}

#[test]
fn a_record_is_tried_again_and_those_behind_it_wait() {
    let mut driver = picky_driver(FailurePolicy::retry(2, Duration::from_secs(10)).then(FailurePolicy::skip()));
    let input = driver.input::<String, i64>("in");
    for value in [2, 0, 3] {
        input.pipe_at(secs(1), "a", value);
    }
    assert_eq!(driver.output::<String, i64>("out").values(), [2]);
    for (seconds, expected) in [(9, &[][..]), (1, &[]), (19, &[]), (1, &[3])] {
        driver.advance_wall_clock(Duration::from_secs(seconds)).expect("it is skipped in the end");
        assert_eq!(driver.output::<String, i64>("out").values(), expected);
    }
    assert_eq!(driver.skipped().len(), 1);
}

#[test]
fn a_record_that_succeeds_when_tried_again_is_processed_once() {
    let mut driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .each("moody", |record, ctx| {
                ctx.store(&SEEN).update(&record.key, |sum| *sum += record.value)?;
                if ctx.batch().now < secs(5) { Err(OperatorError::message("not now")) } else { ctx.forward(record) }
            })
            .with_store(&SEEN)
            .on_failure(FailurePolicy::retry(3, Duration::from_secs(3)).then(FailurePolicy::fail()))
            .sink("out", "out", (Utf8, JavaLong));
    });
    driver.input::<String, i64>("in").pipe_at(secs(1), "a", 7);
    driver.advance_wall_clock(Duration::from_secs(3)).expect("it is tried again");
    driver.advance_wall_clock(Duration::from_secs(6)).expect("it succeeds");
    assert_eq!(driver.output::<String, i64>("out").values(), [7]);
    assert_eq!(driver.store(&SEEN).get(&"a".to_owned()), Some(7));
}

/// The batch is abandoned and processed again with the verdict; the records beside the condemned one come once.
#[test]
fn a_record_whose_output_is_refused_meets_the_policy_of_the_sink() {
    let mut driver = driver(|topology| {
        topology.on_failure(FailurePolicy::skip());
        topology
            .source("in", "in", (Utf8, JavaLong))
            .process("picky", picky)
            .with_store(&SEEN)
            .sink("out", "out", (Utf8, JavaLong))
            .on_failure(FailurePolicy::dead_letter("failed"));
    });
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(1), "a", 2);
    driver.refuse_next("out", "the record is larger than max.message.bytes");
    input.pipe_at(secs(1), "a", 3);
    input.pipe_at(secs(1), "a", 4);
    assert_eq!(driver.output::<String, i64>("out").values(), [2, 4]);
    let letters = driver.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].header(NODE_HEADER), letters[0].header(KIND_HEADER)), (Some("out"), Some("produce")));
    assert_eq!(letters[0].header(ERROR_HEADER), Some("the record is larger than max.message.bytes"));
}

#[test]
fn each_failure_meets_the_policy_of_the_node_it_happens_in() {
    let driver = driver(|topology| {
        topology.on_failure(FailurePolicy::dead_letter("by-default"));
        let source =
            topology.source("in", "in", (Utf8, JavaLong)).on_failure(FailurePolicy::dead_letter("undecodable"));
        source
            .process("picky", picky)
            .with_store(&SEEN)
            .on_failure(FailurePolicy::dead_letter("picked"))
            .map_values(|value| if value == 5 { panic!("five") } else { value })
            .sink("out", "out", (Utf8, JavaLong));
    });
    let input = driver.input::<String, i64>("in");
    input.try_pipe_bytes(Some(secs(1)), Some(b"a"), Some(b"?")).expect("it becomes a dead letter");
    for value in [0, 1, 5, 6] {
        input.pipe_at(secs(1), "a", value);
    }
    let topics: Vec<_> = driver.dead_letters().iter().map(|letter| letter.topic.to_string()).collect();
    assert_eq!(topics, ["undecodable", "picked", "picked", "by-default"]);
    assert_eq!(driver.output::<String, i64>("out").values(), [6]);
}

/// JSON has no infinity, and the `null` in its place could not be read back: nothing of the batch is left.
#[test]
fn a_stored_value_that_cannot_be_encoded_stops_the_task_and_leaves_nothing() {
    const LAST: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("last").with_json_values();
    let driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaDouble))
            .each("keep", |record, ctx| {
                ctx.store(&LAST).put(&record.key, record.value);
                ctx.forward(record)
            })
            .with_store(&LAST)
            .sink("out", "out", (Utf8, JavaDouble));
    });
    let input = driver.input::<String, f64>("in");
    input.pipe_at(secs(1), "a", 1.0);
    let failure = input.try_pipe_at(secs(2), "a", f64::INFINITY).expect_err("it cannot be written");
    assert!(failure.to_string().contains("a store's value"), "{failure}");
    assert_eq!(driver.output::<String, f64>("out").values(), [1.0]);
    assert_eq!(driver.store(&LAST).get(&"a".to_owned()), Some(1.0));
}
