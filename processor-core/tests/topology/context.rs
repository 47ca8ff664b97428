//! What an operator can see and do through its context.

use std::sync::{Arc, Mutex};

use processor_core::prelude::*;
use processor_core::testing::{TopologyTestDriver, secs};

use crate::{driver, driver_of};

#[test]
fn metadata_says_where_a_record_comes_from_with_its_headers() {
    let driver = driver_of(3, |topology| {
        topology
            .source("in", "readings", (Utf8, JavaLong))
            .each("where", |record, ctx| {
                let from = ctx.metadata().expect("a record is in process");
                let mut headers = Vec::new();
                from.visit_headers(|name, value| headers.push(format!("{name}={value:?}")));
                let trace = from.header("trace").flatten();
                let text = format!("{from:?} {headers:?} {trace:?} {} {:?}", ctx.task(), ctx.stream_time());
                ctx.forward(record.with_value(text))
            })
            .sink("out", "out", (Utf8, Utf8));
    });
    let input = driver.input::<String, i64>("in").partition(2).header("trace", b"1").header("trace", b"2");
    input.pipe_at(secs(1), "a", 1);
    let expected = r#"readings-2@0 ["trace=Some([49])", "trace=Some([50])"] Some([50]) in_2 Some(Timestamp(1000))"#;
    assert_eq!(driver.output::<String, String>("out").values(), [expected]);
}

#[test]
fn a_record_can_be_forwarded_to_one_node_by_name() {
    let driver = driver(|topology| {
        let split = topology.source("in", "in", (Utf8, JavaLong)).each("split", |record, ctx| {
            let to = if record.value < 0 { "negative" } else { "positive" };
            ctx.forward_to(to, record)
        });
        split.sink("negative", "negative", (Utf8, JavaLong));
        split.sink("positive", "positive", (Utf8, JavaLong));
    });
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(1), "a", -1);
    input.pipe_at(secs(2), "a", 1);
    assert_eq!(driver.output::<String, i64>("negative").values(), [-1]);
    assert_eq!(driver.output::<String, i64>("positive").values(), [1]);
}

/// Every record would meet it, so no policy passes it over: an application whose records all become dead letters looks
/// healthy.
#[test]
fn what_the_topology_does_not_give_stops_the_task_whatever_the_policy() {
    const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    const OTHER_TYPES: KeyValueStoreDef<String, String> = KeyValueStoreDef::new("counts");
    let letters = || FailurePolicy::retry(2, std::time::Duration::from_secs(1)).then(FailurePolicy::dead_letter("bad"));
    let failure = |driver: &TopologyTestDriver| {
        let failure = driver.input::<String, i64>("in").try_pipe_at(secs(1), "a", 1).expect_err("the task stops");
        assert_eq!(driver.dead_letters().len(), 0);
        failure.to_string()
    };
    let forgotten = driver(|topology| {
        let stream = topology.source("in", "in", (Utf8, JavaLong));
        let count = stream.each("count", |record, ctx| {
            ctx.store(&COUNTS).put(&record.key, 1);
            ctx.forward(record)
        });
        count.on_failure(letters()).sink("out", "out", (Utf8, JavaLong));
    });
    let said = failure(&forgotten);
    assert!(said.contains("node 'count' has no store 'counts': add .with_store"), "{said}");
    let mistaken = driver(|topology| {
        let stream = topology.source("in", "in", (Utf8, JavaLong));
        let count = stream.each("count", |record, ctx| {
            ctx.store(&OTHER_TYPES).put(&record.key, "one".to_owned());
            ctx.forward(record)
        });
        count.with_store(&COUNTS).on_failure(letters()).sink("out", "out", (Utf8, JavaLong));
    });
    let said = failure(&mistaken);
    assert!(said.contains("uses store 'counts' as one from") && said.contains("with other types"), "{said}");
}

#[test]
fn forwarding_to_a_node_that_is_not_there_fails_the_record_and_names_both() {
    let driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .each("split", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
                ctx.forward_to("nowhere", record)
            })
            .sink("out", "out", (Utf8, JavaLong));
    });
    let failure = driver.input::<String, i64>("in").try_pipe_at(secs(1), "a", 1).expect_err("it fails");
    assert!(failure.to_string().contains("node 'split' has no node 'nowhere' behind it"), "{failure}");
}

/// The batch ends behind the record that asks: the one after it is in the next batch.
#[test]
fn a_requested_commit_ends_the_batch_behind_the_record() {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = batches.clone();
    let mut driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .each("ask", move |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
                if record.value == 0 && ctx.batch().now < secs(1) {
                    return Err(OperatorError::message("not yet"));
                }
                seen.lock().expect("no test panics with it").push((record.value, ctx.batch().id.get()));
                if record.value == 1 {
                    ctx.request_commit();
                }
                Ok(())
            })
            .on_failure(FailurePolicy::retry(1, std::time::Duration::from_secs(1)).then(FailurePolicy::fail()));
    });
    let input = driver.input::<String, i64>("in");
    for value in 0..4 {
        input.pipe_at(secs(1), "a", value);
    }
    driver.advance_wall_clock(std::time::Duration::from_secs(1)).expect("the record succeeds now");
    assert_eq!(*batches.lock().expect("no test panics with it"), [(0, 1), (1, 1), (2, 2), (3, 2)]);
}
