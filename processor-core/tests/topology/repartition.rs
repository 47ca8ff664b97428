//! Internal topics: records meet by their new key, and the topics have names once the application has one.

use processor_core::prelude::*;
use processor_core::testing::{TopologyTestDriver, secs};
use processor_core::topology::{InternalPartitions, InternalTopic};

const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");

fn topology() -> Topology {
    let mut topology = Topology::builder();
    topology
        .source("lines", "lines", (JavaLong, Utf8))
        .flat_map(|line| {
            let word = |word: &str| line.clone().with_value(word.to_owned());
            line.value.split(' ').map(word).collect::<Vec<_>>()
        })
        .repartition("by-word", |word| word.value.clone(), (Utf8, Utf8))
        .with_partitions(8)
        .each("count", |record, ctx| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(Record::new(record.key, count, record.timestamp))
        })
        .with_store(&COUNTS)
        .sink("out", "out", (Utf8, JavaLong));
    topology.build().expect("the topology is right")
}

#[test]
fn records_of_one_key_meet_in_one_task() {
    let driver = TopologyTestDriver::with_partitions(&topology(), 3).expect("it opens");
    for partition in 0..3 {
        driver.input::<i64, String>("lines").partition(partition).pipe_at(secs(1), 1, "to be or not to be");
    }
    let mut entries = driver.store(&COUNTS).entries();
    entries.sort();
    let expected = [("be", 6), ("not", 3), ("or", 3), ("to", 6)].map(|(word, count)| (word.to_owned(), count));
    assert_eq!(entries, expected);
    assert_eq!(driver.output::<String, i64>("out").values().len(), 18);
}

#[test]
fn an_internal_topic_belongs_to_its_application() {
    let topology = topology().for_application("shop").expect("the names fit");
    let internal = topology.internal_topics();
    assert_eq!(internal.len(), 1);
    let InternalTopic { topic, input, output, read_by, partitions } = &internal[0];
    assert_eq!(&**topic, "shop-by-word-repartition");
    assert_eq!((&topology.inputs()[input.slot()], &topology.outputs()[output.slot()]), (topic, topic));
    assert_eq!((&**read_by, partitions), ("by-word", &InternalPartitions::Exactly(8)));
}

#[test]
fn an_internal_topic_is_as_wide_as_what_writes_to_it() {
    let mut topology = Topology::builder();
    topology
        .source("in", "in", (Utf8, Utf8))
        .repartition("first", |record| record.value.clone(), (Utf8, Utf8))
        .repartition("again", |record| record.value.clone(), (Utf8, Utf8))
        .sink("out", "out", (Utf8, Utf8));
    let topology = topology.build().and_then(|topology| topology.for_application("app")).expect("it is right");
    let partitions = topology.internal_partitions(|topic| (topic == "in").then_some(5));
    assert_eq!(partitions, [Some(5), Some(5)]);
    assert_eq!(topology.internal_partitions(|_| None), [None, None]);
}

#[test]
fn a_topic_of_the_same_name_and_a_name_too_long_are_refused() {
    let mut clashing = Topology::builder();
    clashing
        .source("in", "app-x-repartition", (Utf8, Utf8))
        .repartition("x", |record| record.value.clone(), (Utf8, Utf8))
        .sink("out", "out", (Utf8, Utf8));
    let clashing = clashing.build().expect("without an application nothing clashes");
    assert_eq!(
        clashing.for_application("app").err(),
        Some(TopologyError::InternalTopicTaken("app-x-repartition".to_owned()))
    );
    assert!(clashing.for_application("another").is_ok());
    let long = "a".repeat(240);
    assert!(matches!(topology().for_application(&long).err(), Some(TopologyError::TopicTooLong { .. })));
}
