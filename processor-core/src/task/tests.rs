//! A task over a map: what a record leaves behind when it succeeds, and that it leaves nothing when it fails (EO-9).

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::{OutputIndex, StoreIndex};
use crate::prelude::*;
use crate::record::TargetPartition;
use crate::store::memory::MemoryBase;

const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");

/// Adds up by key; fails, panics or swallows a failure on request, after having written and forwarded.
struct Sum;

impl Operator for Sum {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        let sum = ctx.store(&SUMS).update(&record.key, |sum| {
            *sum += record.value;
            *sum
        })?;
        let value = record.value;
        ctx.forward(record.with_value(sum))?;
        match value {
            -1 => Err(OperatorError::message("minus one is not allowed")),
            -2 => panic!("minus two"),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Bytes {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    offset: i64,
}

impl InputRecord for Bytes {
    fn key(&self) -> Option<&[u8]> {
        Some(&self.key)
    }
    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
    fn timestamp(&self) -> Option<Timestamp> {
        Some(Timestamp::new(self.timestamp))
    }
    fn offset(&self) -> Offset {
        Offset::new(self.offset)
    }
    fn visit_headers(&self, _visit: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

fn topology() -> ApplicationTopology {
    let mut topology = Topology::builder();
    topology
        .source("numbers", "in", (Utf8, JavaLong))
        .process("sum", || Sum)
        .with_store(&SUMS)
        .sink("sums", "out", (Utf8, JavaLong))
        .to_source_partition();
    named(topology)
}

fn named(topology: TopologyBuilder) -> ApplicationTopology {
    topology.build().and_then(|topology| topology.for_application("app")).expect("the topology is right")
}

fn task_of(topology: &ApplicationTopology, subtopology: &str) -> Task {
    let output_partitions = topology.outputs().iter().map(|_| 4).collect();
    let settings = TaskSettings { cache_bytes_max: 1 << 20, output_partitions };
    let mut task = topology.task(&TaskId::new(subtopology, Partition::new(3)), &settings);
    let from: Vec<_> = task.inputs().map(|input| (input, Offset::new(10))).collect();
    task.start(&from, None, Timestamp::new(1_000_000)).expect("operators open");
    task
}

fn started() -> Task {
    task_of(&topology(), "numbers")
}

fn record(offset: i64, key: &str, value: i64) -> Bytes {
    Bytes { key: key.into(), value: Some(value.to_be_bytes().to_vec()), timestamp: 1_000 + offset, offset }
}

fn done(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
}

fn batch(index: u32) -> BatchInfo {
    BatchInfo { id: BatchId::new(1), index, size: 9, now: Timestamp::new(1_000_000) }
}

fn state(task: &Task, base: &MemoryBase) -> Vec<(StoreIndex, Vec<u8>, Option<Vec<u8>>)> {
    let _ = base;
    let mut changes = ChangeSet::default();
    task.collect_changes(&mut changes).expect("integers can be encoded");
    changes.changes().map(|c| (c.store, c.key.to_vec(), c.value.map(<[u8]>::to_vec))).collect()
}

#[test]
fn outputs_keep_key_timestamp_and_partition() {
    let (mut task, base) = (started(), MemoryBase::default());
    done(&task.process(0, &record(10, "a", 2), batch(0), &base));
    let output = task.outbox().records().next().map(|o| (o.topic, o.partition, o.timestamp, o.key.map(<[u8]>::to_vec)));
    let expected =
        (OutputIndex::new(0), TargetPartition::Exactly(Partition::new(3)), Timestamp::new(1_010), Some(b"a".to_vec()));
    assert_eq!(output, Some(expected));
    assert_eq!(task.offsets().collect::<Vec<_>>(), [(InputIndex::new(0), Offset::new(11))]);
}

/// EO-9: error, panic and undecodable bytes leave no output, no write, no stream time and no offset.
#[test]
fn a_failed_record_leaves_nothing() {
    let (mut task, base) = (started(), MemoryBase::default());
    done(&task.process(0, &record(10, "a", 2), batch(0), &base));
    task.outbox().clear();
    let before = (state(&task, &base), task.stream_time(), task.offsets().collect::<Vec<_>>());
    let undecodable = Bytes { value: Some(vec![1, 2]), ..record(11, "a", 0) };
    let failures =
        [(record(11, "a", -1), "minus one"), (record(11, "b", -2), "minus two"), (undecodable, "2 bytes, not 8")];
    for (record, reason) in failures {
        let Outcome::Failed(failure) = task.process(0, &record, batch(1), &base) else { panic!("the record fails") };
        assert!(failure.to_string().contains(reason), "{failure}");
        assert!(task.outbox().is_empty());
        assert_eq!((state(&task, &base), task.stream_time(), task.offsets().collect::<Vec<_>>()), before);
    }
}

#[test]
fn an_abandoned_batch_leaves_the_task_where_it_was_committed() {
    let (mut task, mut base) = (started(), MemoryBase::default());
    done(&task.process(0, &record(10, "a", 2), batch(0), &base));
    task.outbox().clear();
    let mut changes = ChangeSet::default();
    task.collect_changes(&mut changes).expect("integers can be encoded");
    base.apply(&changes);
    task.applied();
    done(&task.process(0, &record(11, "a", 5), batch(0), &base));
    task.outbox().clear();
    assert!(task.has_uncommitted());
    task.abandon();
    assert!(!task.has_uncommitted());
    assert_eq!(task.stream_time(), Some(Timestamp::new(1_010)));
    done(&task.process(0, &record(11, "a", 5), batch(0), &base));
    let sum = task.outbox().records().next().and_then(|output| output.value.map(<[u8]>::to_vec));
    assert_eq!(sum, Some(7_i64.to_be_bytes().to_vec()), "2 as committed + 5, the abandoned 5 not counted");
}

#[test]
#[should_panic(expected = "EO-8")]
fn a_record_that_was_processed_is_refused() {
    let (mut task, base) = (started(), MemoryBase::default());
    let _ = task.process(0, &record(9, "a", 1), batch(0), &base);
}

#[test]
fn inputs_are_merged_lowest_timestamp_first() {
    let mut group = PartitionGroup::new(2);
    for (input, offset, timestamp) in [(0, 0, 5), (0, 1, 6), (1, 0, 1), (1, 1, 6)] {
        group.push(input, Bytes { timestamp, ..record(offset, "k", 0) });
    }
    let order: Vec<_> = std::iter::from_fn(|| group.pop(|_, record| Timestamp::new(record.timestamp)))
        .map(|(input, record)| (input, record.offset))
        .collect();
    assert_eq!(order, [(1, 0), (0, 0), (0, 1), (1, 1)]);
}

/// Sums by key and reports the sum of "k0" every 100 ms of stream time; the report's own count is in the store as well.
struct Reporting;

impl Operator for Reporting {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        ctx.schedule(Duration::from_millis(100), Clock::StreamTime);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        ctx.store(&SUMS).update(&record.key, |sum| *sum += record.value)?;
        if record.value % 5 == 0 {
            ctx.schedule(Duration::from_millis(record.value.unsigned_abs() + 30), Clock::StreamTime);
        }
        if record.value % 7 == 0 { Err(OperatorError::message("seven")) } else { ctx.forward(record) }
    }

    fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
        let sum = ctx.store(&SUMS).get(&"k0".to_owned())?.unwrap_or_default();
        ctx.store(&SUMS).update(&"reports".to_owned(), |count| *count += 1)?;
        ctx.forward(Record::new(format!("{:?}", punctuation.schedule), sum, punctuation.due))
    }
}

/// An output, as far as it matters here: sink, key, value and timestamp.
type Output = (Option<NodeIndex>, Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// Processes records in batches of three. Where `voids` says so, a batch is first abandoned after so many of its records.
fn reported(records: &[(u8, i8)], voids: &[Option<usize>]) -> (Vec<Output>, MemoryBase) {
    let mut topology = Topology::builder();
    topology.on_failure(FailurePolicy::dead_letter("failed"));
    let source = topology.source("numbers", "in", (Utf8, JavaLong));
    source.process("reporting", || Reporting).with_store(&SUMS).sink("out", "out", (Utf8, JavaLong));
    let mut task = task_of(&named(topology), "numbers");
    let (mut base, mut outputs) = (MemoryBase::default(), Vec::new());
    let records: Vec<_> = (10..).zip(records).collect();
    for (number, records) in records.chunks(3).enumerate() {
        let void = voids.get(number).copied().flatten().map(|after| after % (records.len() + 1));
        let passes = [void.map(|count| (count, false)), Some((records.len(), true))];
        for (count, commits) in passes.into_iter().flatten() {
            let mut sent = Vec::new();
            for (offset, (key, value)) in &records[..count] {
                let time = (offset - 10) * 40 + i64::from(*key);
                let record = Bytes { timestamp: time, ..record(*offset, &format!("k{}", key % 3), i64::from(*value)) };
                assert!(task.process(0, &record, batch(0), &base).is_past());
                sent.extend(task.outbox().records().map(|output| {
                    let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    (output.sink, bytes(output.key), bytes(output.value), output.timestamp.get())
                }));
                task.outbox().clear();
            }
            if !commits {
                task.abandon();
                continue;
            }
            let mut changes = ChangeSet::default();
            task.collect_changes(&mut changes).expect("integers can be encoded");
            base.apply(&changes);
            task.applied();
            outputs.append(&mut sent);
        }
    }
    (outputs, base)
}

proptest! {
    /// EO-7, EO-9: a batch that is abandoned and processed again comes to the same, schedules and dead letters included.
    #[test]
    fn a_batch_that_is_processed_again_comes_to_the_same(
        records in proptest::collection::vec((any::<u8>(), any::<i8>()), 1..40),
        voids in proptest::collection::vec(proptest::option::of(0..4_usize), 14),
    ) {
        let (outputs, base) = reported(&records, &voids);
        let (expected, expected_base) = reported(&records, &[]);
        prop_assert_eq!(outputs, expected);
        let sums = |base: &MemoryBase| base.decoded::<String, i64>(StoreIndex::new(0));
        prop_assert_eq!(sums(&base), sums(&expected_base));
    }
}
