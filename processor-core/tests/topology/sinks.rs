//! Which topic and which partition an output goes to.

use processor_core::prelude::*;
use processor_core::testing::{TopologyTestDriver, secs};

use crate::driver_of;

fn places(driver: &TopologyTestDriver, sink: &str) -> Vec<(String, i32)> {
    let received = driver.output::<String, i64>(sink).received();
    received.into_iter().map(|received| (received.topic.to_string(), received.partition.get())).collect()
}

#[test]
fn a_sink_partitions_by_key_unless_it_is_told_otherwise() {
    let driver = driver_of(50, |topology| {
        let stream = topology.source("in", "in", (Utf8, JavaLong));
        stream.sink("by-key", "by-key", (Utf8, JavaLong));
        stream.sink("of-source", "of-source", (Utf8, JavaLong)).to_source_partition();
        stream
            .sink("chosen", "chosen", (Utf8, JavaLong))
            .to_partition(|record, partitions| (record.value as u32) % partitions);
    });
    driver.input::<String, i64>("in").partition(3).pipe_at(secs(1), "foobar", 57);
    assert_eq!(places(&driver, "by-key"), [("by-key".to_owned(), 16)]);
    assert_eq!(places(&driver, "of-source"), [("of-source".to_owned(), 3)]);
    assert_eq!(places(&driver, "chosen"), [("chosen".to_owned(), 7)]);
}

#[test]
fn a_sink_of_several_topics_writes_to_the_one_that_is_chosen() {
    let driver = driver_of(1, |topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .sink_to("out", ["small", "large"], (Utf8, JavaLong), |record| usize::from(record.value > 9));
    });
    let input = driver.input::<String, i64>("in");
    for value in [1, 10] {
        input.pipe_at(secs(1), "a", value);
    }
    let topics: Vec<_> = places(&driver, "out").into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["small", "large"]);
}

#[test]
fn a_topic_or_partition_that_is_not_there_fails_the_record() {
    let driver = driver_of(2, |topology| {
        let stream = topology.source("in", "in", (Utf8, JavaLong));
        stream.sink("out", "out", (Utf8, JavaLong)).to_partition(|_, partitions| partitions);
    });
    let failure =
        driver.input::<String, i64>("in").try_pipe_at(secs(1), "a", 0).expect_err("there is no such partition");
    let expected = "encoding failed in node 'out': partition 2 was chosen for the record, but the topic has 2";
    assert_eq!(failure.to_string(), expected);
    let driver = driver_of(1, |topology| {
        topology.source("in", "in", (Utf8, JavaLong)).sink_to("out", ["a", "b"], (Utf8, JavaLong), |_| 2);
    });
    let failure = driver.input::<String, i64>("in").try_pipe_at(secs(1), "a", 1).expect_err("there is no such topic");
    let expected = "encoding failed in node 'out': topic 2 was chosen for the record, but its topics are 0 to 1";
    assert_eq!(failure.to_string(), expected);
}
