//! Several sources into one operator, several operators on one stream, and which of them belong together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use processor_core::prelude::*;
use processor_core::testing::secs;

use crate::driver;

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");

fn sum(record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    let sum = ctx.store(&SUMS).update(&record.key, |sum| {
        *sum += record.value;
        *sum
    })?;
    ctx.forward(record.with_value(sum))
}

#[test]
fn merged_streams_meet_in_one_operator_with_one_state() {
    let driver = driver(|topology| {
        let one = topology.source("one", "one", (Utf8, JavaLong));
        let two = topology.source("two", ["two", "three"], (Utf8, JavaLong));
        one.merge(&two).process("sum", sum).with_store(&SUMS).sink("out", "out", (Utf8, JavaLong));
    });
    driver.input::<String, i64>("one").pipe_at(secs(1), "a", 1);
    driver.input::<String, i64>("two").pipe_at(secs(2), "a", 2);
    driver.input::<String, i64>("two").topic("three").pipe_at(secs(3), "a", 4);
    assert_eq!(driver.output::<String, i64>("out").values(), [1, 3, 7]);
}

#[test]
fn every_node_behind_a_stream_sees_every_record_in_the_order_of_connection() {
    let driver = driver(|topology| {
        let stream = topology.source("in", "in", (Utf8, JavaLong));
        let tenfold = stream.map_values(|value| value * 10);
        let doubled = stream.map_values(|value| value * 2);
        tenfold.merge(&doubled).sink("out", "out", (Utf8, JavaLong));
    });
    driver.input::<String, i64>("in").pipe_at(secs(1), "a", 3);
    assert_eq!(driver.output::<String, i64>("out").values(), [30, 6]);
}

struct Counted(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Operator for Counted {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        ctx.forward(record)
    }

    fn close(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_node_with_several_parents_is_opened_and_closed_once() {
    let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut topology = Topology::builder();
    let one = topology.source("one", "one", (Utf8, JavaLong));
    let two = topology.source("two", "two", (Utf8, JavaLong));
    let three = topology.source("three", "three", (Utf8, JavaLong));
    let (o, c) = (opened.clone(), closed.clone());
    one.merge(&two).merge(&three).process("counted", move || Counted(o.clone(), c.clone())).sink(
        "out",
        "out",
        (Utf8, JavaLong),
    );
    let topology = topology.build().and_then(|topology| topology.for_application("app")).expect("it is right");
    let settings = processor_core::task::TaskSettings { cache_bytes_max: 0, output_partitions: [1].into() };
    let mut task = topology.task(&TaskId::new("one", Partition::new(0)), &settings);
    let from: Vec<_> = task.inputs().map(|input| (input, Offset::new(0))).collect();
    assert_eq!(from.len(), 3);
    task.start(&from, None, secs(0)).expect("it opens");
    task.start(&from, None, secs(0)).expect("it is open");
    task.close();
    assert_eq!((opened.load(Ordering::Relaxed), closed.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn nodes_belong_together_that_are_connected_or_share_a_store() {
    let mut topology = Topology::builder();
    topology.source("zebra", "z", (Utf8, JavaLong)).process("sum-z", sum).with_store(&SUMS);
    topology.source("ant", "a", (Utf8, JavaLong)).process("sum-a", sum).with_store(&SUMS);
    topology.source("bee", "b", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    let topology = topology.build().expect("it is right");
    let found: Vec<_> = topology.subtopologies().iter().map(|part| (&*part.name, part.inputs.len())).collect();
    assert_eq!(found, [("ant", 2), ("bee", 1)]);
}

#[test]
fn nodes_of_different_sources_share_a_stores_values() {
    let driver = driver(|topology| {
        topology.source("left", "left", (Utf8, JavaLong)).process("sum-left", sum).with_store(&SUMS);
        topology.source("right", "right", (Utf8, JavaLong)).process("sum-right", sum).with_store(&SUMS);
    });
    driver.input::<String, i64>("left").pipe_at(secs(1), "a", 1);
    driver.input::<String, i64>("right").pipe_at(secs(1), "a", 2);
    assert_eq!(driver.store(&SUMS).get(&"a".to_owned()), Some(3));
}
