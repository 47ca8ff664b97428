//! The oracle for any topology: what one worker makes of the same inputs when nothing goes wrong.
//!
//! An internal topic is an input like others: the reference reads what the schedule has committed there, in that order, for the
//! order in which several tasks write is nobody's promise. What the reference itself writes to it goes elsewhere, and is compared.

use std::sync::Arc;

use processor_core::ids::TopicPartition;

use crate::fake::log::Written;
use crate::world::{Brokers, Members, World};

/// A schedule has some thousand records at the most, of which a turn takes some.
const TURNS_MAX: usize = 20_000;

/// O1, O2, O3: outputs, stores and offsets are those of a run without faults. Of an output partition the records are compared
/// and not their order.
///
/// # Panics
/// If something differs.
pub(crate) fn verify(world: &World, partitions: u32) {
    let topology = world.topology();
    let mut reference = World::new(topology.clone(), partitions, 1, Brokers::Verify, Members::Dynamic);
    for topic in topology.inputs() {
        reference.cluster.copy_topic(&world.cluster, topic);
    }
    for internal in topology.internal_topics() {
        reference.cluster.divert(&internal.topic, &diverted(&internal.topic));
    }
    reference.start(0);
    for _ in 0..TURNS_MAX {
        if reference.is_done() && reference.all_run() {
            break;
        }
        let stopped = reference.turn(0);
        assert_eq!(stopped, None, "the worker stopped, and nothing had gone wrong");
    }
    assert!(reference.is_done(), "the worker does not come to the end of its inputs, and nothing had gone wrong");
    for topic in topology.outputs() {
        let is_internal = topology.internal_topics().iter().any(|internal| internal.topic == *topic);
        let expected_in = if is_internal { diverted(topic).into() } else { topic.clone() };
        for partition in world.partitions_of(topic) {
            let expected = TopicPartition::new(expected_in.clone(), partition.partition);
            compare(&partition, records(world, &partition), records(&reference, &expected));
        }
    }
    for changelog in world.changelogs() {
        for partition in world.partitions_of(&changelog) {
            let fold = |of: &World| of.fold(&changelog, partition.partition);
            assert_eq!(fold(world), fold(&reference), "O2: {partition} is not what a run without faults writes");
        }
    }
    for (partition, (offset, _)) in reference.cluster.committed() {
        let found = world.cluster.committed().get(&partition).map(|(offset, _)| *offset);
        assert_eq!(found, Some(offset), "O3: {partition}: the committed offset is not that of a run without faults");
    }
}

fn diverted(topic: &Arc<str>) -> String {
    format!("{topic}-of-the-reference")
}

/// What a `read_committed` reader sees of a partition, in an order of its own.
fn records(world: &World, partition: &TopicPartition) -> Vec<Written> {
    let visible = world.cluster.read_committed(&partition.topic).into_iter();
    let mut records: Vec<_> =
        visible.filter(|(of, _, _)| *of == partition.partition).map(|(_, _, written)| written).collect();
    records.sort();
    records
}

/// O1: both hold the same records, as often. Both are sorted.
fn compare(partition: &TopicPartition, found: Vec<Written>, expected: Vec<Written>) {
    let (mut surplus, mut missing) = (Vec::new(), Vec::new());
    let (mut found, mut expected) = (found.into_iter().peekable(), expected.into_iter().peekable());
    loop {
        match (found.peek(), expected.peek()) {
            (Some(one), Some(other)) if one == other => {
                found.next();
                expected.next();
            }
            (Some(one), Some(other)) if one < other => surplus.extend(found.next()),
            (Some(_), None) => surplus.extend(found.next()),
            (_, Some(_)) => missing.extend(expected.next()),
            (None, None) => break,
        }
    }
    assert!(
        surplus.is_empty() && missing.is_empty(),
        "O1: {partition}: {} record(s) too many, the first {:?}; {} missing, the first {:?}",
        surplus.len(),
        surplus.first(),
        missing.len(),
        missing.first()
    );
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use processor_core::ids::{Partition, Timestamp};

    use super::*;

    fn record(value: u8) -> Written {
        Written { key: None, value: Some(vec![value]), timestamp: Timestamp::new(1), headers: Vec::new() }
    }

    #[test]
    fn what_is_too_many_and_what_is_missing_is_told() {
        let compared = |found: &[u8], expected: &[u8]| {
            let of = |values: &[u8]| values.iter().copied().map(record).collect::<Vec<_>>();
            let (found, expected) = (of(found), of(expected));
            catch_unwind(|| compare(&TopicPartition::new("out", Partition::new(2)), found, expected))
                .map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
        };
        assert_eq!(compared(&[1, 1, 2], &[1, 1, 2]), Ok(()));
        let doubled = compared(&[1, 2, 2], &[1, 2]).expect_err("a record is there twice");
        assert!(doubled.starts_with("O1: out-2: 1 record(s) too many") && doubled.contains("0 missing"), "{doubled}");
        let lost = compared(&[1, 4], &[1, 2, 3, 4]).expect_err("two are lost");
        assert!(lost.contains("0 record(s) too many") && lost.contains("2 missing"), "{lost}");
    }
}
