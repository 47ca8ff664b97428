//! The oracle for any topology: what each task makes of the same inputs when nothing goes wrong.
//!
//! Tasks share nothing, so each runs alone, with what the schedule has left in its inputs. An internal topic is an input like others:
//! it is read as the schedule has committed it, for the order in which several tasks write is nobody's promise. What a task itself
//! writes to a topic that is read goes elsewhere, and is compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use processor_core::ids::{Offset, TaskId, TopicPartition};

use crate::fake::log::{Entry, Outcome, Written};
use crate::world::{Brokers, Members, World};

/// O1, O2, O3: outputs, changelogs and offsets are those of tasks to which nothing happens. In a partition to which several tasks
/// write, what each has written is in its order.
///
/// # Panics
/// If something differs.
pub(crate) fn verify(world: &World) {
    let mut expected: BTreeMap<TopicPartition, Vec<Vec<Written>>> = BTreeMap::new();
    for task in world.tasks() {
        let reference = run_alone(world, &task);
        for topic in world.topology().outputs() {
            for partition in world.partitions_of(topic) {
                let elsewhere = TopicPartition::new(written_to(world, topic), partition.partition);
                expected.entry(partition).or_default().push(written(&reference, &elsewhere));
            }
        }
        compare_state(world, &reference, &task);
    }
    for (partition, by_task) in expected {
        compare(&partition, &written(world, &partition), &by_task);
    }
}

/// A world in which one task only has records, and has processed them.
fn run_alone(world: &World, task: &TaskId) -> World {
    let topology = world.topology();
    let partitions = |topic: &str| world.cluster.partitions(topic).unsigned_abs();
    let mut alone = World::new(topology.clone(), partitions, 1, Brokers::Verify, Members::Dynamic);
    for topic in topology.outputs() {
        let elsewhere = written_to(world, topic);
        if elsewhere != *topic {
            alone.cluster.divert(topic, &elsewhere);
        }
    }
    for input in &topology.subtopology_of(task).inputs {
        let partition = TopicPartition::new(topology.inputs()[input.slot()].clone(), task.partition);
        alone.cluster.copy_partition(&world.cluster, &partition);
    }
    alone.finish();
    alone
}

/// Where what is written to an output goes in the reference: elsewhere, if it is read, too.
fn written_to(world: &World, topic: &Arc<str>) -> Arc<str> {
    if world.topology().inputs().contains(topic) { format!("{topic}-of-the-reference").into() } else { topic.clone() }
}

/// What the application has committed in a partition.
fn written(world: &World, partition: &TopicPartition) -> Vec<Written> {
    let entries = world.cluster.entries_of(partition).into_iter();
    let committed = entries.filter_map(|(_, entry)| match entry {
        Entry::Record { written, outcome: Outcome::Committed, .. } => Some(written),
        Entry::Record { .. } | Entry::Marker { .. } => None,
    });
    committed.collect()
}

fn compare_state(world: &World, reference: &World, task: &TaskId) {
    let part = world.topology().subtopology_of(task);
    for changelog in part.store_specs.iter().filter_map(|spec| world.changelog(spec)) {
        let [found, expected] = [world, reference].map(|of| of.fold(&changelog, task.partition));
        let differs = |key: &&Vec<u8>| found.get(*key) != expected.get(*key);
        if let Some(key) = found.keys().chain(expected.keys()).find(differs) {
            panic!(
                "O2: {changelog}-{} is not what a run without faults leaves: the key {} has {}, and should have {}",
                task.partition,
                shown(Some(key)),
                shown(found.get(key)),
                shown(expected.get(key))
            );
        }
    }
    let [found, expected] = [world, reference].map(|of| of.cluster.committed());
    for input in &part.inputs {
        let partition = TopicPartition::new(world.topology().inputs()[input.slot()].clone(), task.partition);
        let [found, expected] =
            [&found, &expected].map(|of| of.get(&partition).map_or(Offset::new(0), |(offset, _)| *offset));
        assert_eq!(found, expected, "O3: {partition}: the committed offset is not that of a run without faults");
    }
}

/// O1: a partition holds what its tasks write, as often (left), and of each in its order (right).
fn compare(partition: &TopicPartition, found: &[Written], by_task: &[Vec<Written>]) {
    let mut left: BTreeMap<&Written, i64> = BTreeMap::new();
    for record in found {
        *left.entry(record).or_default() += 1;
    }
    for record in by_task.iter().flatten() {
        *left.entry(record).or_default() -= 1;
    }
    let count =
        |is_it: fn(i64) -> bool| left.values().filter(|times| is_it(**times)).map(|times| times.abs()).sum::<i64>();
    let (surplus, missing) = (count(|times| times > 0), count(|times| times < 0));
    if let Some((first, _)) = left.iter().find(|(_, times)| **times != 0) {
        panic!(
            "O1: {partition} is not what a run without faults writes: {surplus} record(s) too many, {missing} missing, such as the key {} with \
             the value {} at {} ms",
            shown(first.key.as_ref()),
            shown(first.value.as_ref()),
            first.timestamp
        );
    }
    for of_task in by_task {
        let mut rest = found.iter();
        let out_of_order = of_task.iter().find(|record| !rest.any(|found| found == *record));
        if let Some(Written { key, value, .. }) = out_of_order {
            panic!(
                "O1: {partition}: a task has written in another order than without faults: the key {} with the value {} comes too early",
                shown(key.as_ref()),
                shown(value.as_ref())
            );
        }
    }
}

fn shown(bytes: Option<&Vec<u8>>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use processor_core::ids::{Partition, Timestamp};

    use super::*;

    #[test]
    fn what_is_too_many_what_is_missing_and_what_is_out_of_order_is_told() {
        let of = |values: &[u8]| -> Vec<Written> {
            let record = |value| Written {
                key: None,
                value: Some(vec![value]),
                timestamp: Timestamp::new(1),
                headers: Vec::new(),
            };
            values.iter().copied().map(record).collect()
        };
        let compared = |found: &str, by_task: &[&str]| {
            let (found, by_task) =
                (of(found.as_bytes()), by_task.iter().map(|task| of(task.as_bytes())).collect::<Vec<_>>());
            catch_unwind(|| compare(&TopicPartition::new("out", Partition::new(2)), &found, &by_task))
                .map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
        };
        for right in ["", "aab", "aabxy", "xaayb", "xyaab"] {
            let by_task = if right.contains('x') { &["aab", "", "xy"][..] } else { &[right][..] };
            assert_eq!(compared(right, by_task), Ok(()), "{right}");
        }
        let said = |found, by_task: &[&str]| compared(found, by_task).expect_err("it is wrong");
        assert!(
            said("abb", &["ab"])
                .contains("O1: out-2 is not what a run without faults writes: 1 record(s) too many, 0 missing")
        );
        assert!(
            said("ad", &["ab", "cd"])
                .contains("0 record(s) too many, 2 missing, such as the key null with the value \"b\"")
        );
        assert!(
            said("xbya", &["ab", "xy"]).contains("the value \"b\" comes too early"),
            "{}",
            said("xbya", &["ab", "xy"])
        );
    }
}
