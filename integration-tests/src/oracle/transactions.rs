//! O8: each transaction is whole in the brokers' own files, and a task's transactions follow one another.
//!
//! A reader sees records; it does not see who wrote them, nor which transaction they are of. The files say both. For each
//! task of the ledger (input partition, output partition and changelog partition have one number) they say three series:
//! what committed transactions wrote of outputs, of the changelog, and of offsets. Those must be the same transactions: the
//! n-th of each is of the same producer, at the same epoch, and the offset moves by as much as there are outputs. A
//! transaction that was cut, between topics, between tasks, between data and offsets, or that ran beside another one of the
//! same task, leaves a series that does not fit the others.
//!
//! What it cannot see: the files do not name the transactions of one producer within an epoch, so two of them that traded
//! their changes for each other's would fit. Then a state would be no past of the input, which O2 finds.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::{Kind, Verdict};
use crate::broker::{RawBatch, RawDecision, RawKind, RawLog, RawOffset};

/// What one transaction has written in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    producer: (i64, i16),
    /// The offset of its first record,
    from: i64,
    /// the one behind its last record,
    last: i64,
    /// and the one behind its marker.
    to: i64,
    records: u64,
}

/// What the files of a task's partitions say.
#[derive(Clone, Copy, Debug)]
pub struct TaskFiles<'a> {
    /// The partition that the task reads, and writes.
    pub partition: i32,
    /// Of the output topic.
    pub output: &'a RawLog,
    /// Of the changelog.
    pub changelog: &'a RawLog,
}

/// Checks the transactions of a group that reads `input` and commits its offsets in this partition of
/// `__consumer_offsets`.
pub fn check_transactions(group: &str, input: &str, offsets: &RawLog, tasks: &[TaskFiles<'_>]) -> Verdict {
    let mut verdict = Verdict::new("transactions of tasks", "records in them");
    let by_partition = moves(&mut verdict, group, input, offsets);
    for task in tasks {
        let outputs = committed(&mut verdict, &format!("output {}", task.partition), task.output);
        let changes = committed(&mut verdict, &format!("changelog {}", task.partition), task.changelog);
        let moved = by_partition.get(&task.partition).map_or(&[][..], Vec::as_slice);
        verdict.inputs += moved.len() as u64;
        verdict.outputs += outputs.iter().map(|part| part.records).sum::<u64>();
        check_apart(&mut verdict, task.partition, &outputs);
        let longest = moved.len().max(outputs.len()).max(changes.len());
        for at in 0..longest {
            let series = (moved.get(at), outputs.get(at), changes.get(at));
            if let (Some(moved), Some(output), Some(change)) = series
                && (moved.producer, moved.by) == (output.producer, output.records as i64)
                && moved.producer == change.producer
            {
                continue;
            }
            let place = format!("transaction {at} of task {}", task.partition);
            verdict.violate(Kind::Torn, place, || {
                (
                    "an offset that moves by as many as there are outputs, and a change, of one producer".to_owned(),
                    format!("offset {:?}, outputs {:?}, changes {:?}", series.0, series.1, series.2),
                )
            });
            break; // everything behind it is shifted
        }
    }
    verdict
}

/// An offset that a transaction has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    producer: (i64, i16),
    by: i64,
}

/// How the committed transactions moved the offset of each partition; fences, which commit it as it stands, move nothing.
fn moves(verdict: &mut Verdict, group: &str, input: &str, offsets: &RawLog) -> BTreeMap<i32, Vec<Move>> {
    let mut moves: BTreeMap<i32, Vec<Move>> = BTreeMap::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    // Of the same producer's transactions the last one that begins before an offset has written it; it was committed if its
    // end is known. They count in the order in which they were written, whichever marker comes first: the group's coordinator
    // never takes an older offset for a newer one (Kafka's OffsetMetadataManager compares the offsets of their records).
    let parts = committed(verdict, "__consumer_offsets", offsets);
    let begun: BTreeMap<(i64, i64), &Part> = parts.iter().map(|part| ((part.producer.0, part.from), part)).collect();
    let mut written: BTreeMap<i64, (&Part, &RawOffset)> = BTreeMap::new();
    for offset in offsets.offsets.iter().filter(|offset| (&*offset.group, &*offset.topic) == (group, input)) {
        let of = begun.range((offset.producer.0, i64::MIN)..=(offset.producer.0, offset.at)).next_back();
        if let Some((_, part)) = of.filter(|(_, part)| offset.at < part.to) {
            written.insert(offset.at, (part, offset));
        }
    }
    for (part, offset) in written.into_values() {
        let before = last.insert(offset.partition, offset.offset).unwrap_or(0);
        let by = offset.offset - before;
        if by < 0 {
            let place = format!("the offset of {}", offset.partition);
            verdict.violate(Kind::Reordered, place, || (format!("{before} or more"), offset.offset.to_string()));
        }
        if by != 0 {
            moves.entry(offset.partition).or_default().push(Move { producer: part.producer, by });
        }
    }
    moves
}

/// What brokers have committed of transactions that they have aborted: the offsets of markers that commit something in a partition
/// though no coordinator has a decision that says so, and behind which the marker of the abort stands. Brokers write them where
/// one comes back with a decision that it alone has, acts on it, and loses it to whoever leads after it. All brokers have one clock.
pub fn torn_by_brokers(decisions: &[RawDecision], topic: &str, partition: i32, log: &RawLog) -> Vec<i64> {
    let place = (topic.to_owned(), partition);
    let mut decided: BTreeMap<(i64, i16), Vec<i64>> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.partitions.contains(&place)) {
        decided.entry(decision.producer).or_default().push(decision.at_ms);
    }
    for times in decided.values_mut() {
        times.sort_unstable();
    }
    let (mut written, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let (mut suspects, mut torn) = (BTreeMap::new(), Vec::new());
    for RawBatch { offset, producer, at_ms, kind, .. } in &log.batches {
        match kind {
            RawKind::Plain => {}
            RawKind::InTransaction => {
                written.insert(producer.0);
                suspects.remove(&producer.0);
            }
            RawKind::Marker { committed } => {
                let times = decided.get(producer).map_or(&[][..], Vec::as_slice);
                let decided = times[..times.partition_point(|time| time <= at_ms)].last();
                let is_new = *committed && decided.is_some_and(|decided| ended.insert((*producer, *decided)));
                if !written.remove(&producer.0) {
                    // It ends nothing: the one before it was sent twice, or should have been this one.
                    let suspect = suspects.remove(&producer.0);
                    torn.extend(suspect.filter(|_| !committed));
                } else if *committed && !is_new {
                    suspects.insert(producer.0, *offset);
                }
            }
        }
    }
    torn
}

/// What committed transactions have written in a partition, in the order of their first records.
fn committed(verdict: &mut Verdict, place: &str, log: &RawLog) -> Vec<Part> {
    let mut open: BTreeMap<i64, Part> = BTreeMap::new();
    let mut committed = Vec::new();
    for RawBatch { offset, records, producer, kind, .. } in &log.batches {
        match kind {
            RawKind::Plain => {}
            RawKind::InTransaction => {
                let part = open.entry(producer.0);
                let new = Part { producer: *producer, from: *offset, last: *offset, to: *offset, records: 0 };
                let part = part.or_insert(new);
                part.records += records;
                part.last = offset + *records as i64;
                if part.producer != *producer {
                    let found = || (format!("the end of what {:?} wrote", part.producer), format!("{producer:?}"));
                    verdict.violate(Kind::Torn, format_args!("{place}@{offset}"), found);
                }
            }
            RawKind::Marker { committed: is_committed } => {
                let Some(part) = open.remove(&producer.0) else { continue };
                if *is_committed {
                    committed.push(Part { to: offset + 1, ..part });
                }
            }
        }
    }
    for part in open.into_values() {
        verdict.violate(Kind::Torn, place, || ("the end of a transaction".to_owned(), format!("{part:?} is open")));
    }
    committed.sort_by_key(|part| part.from);
    committed
}

/// Two transactions of one task never run at once: the later one would not know what the earlier one has made of the state.
/// The marker of the earlier one may come late: it was decided before, and its offset was there to be read.
fn check_apart(verdict: &mut Verdict, partition: i32, parts: &[Part]) {
    for pair in parts.windows(2) {
        if let [first, second] = pair
            && second.from < first.last
        {
            let place = format!("output {partition}@{}", second.from);
            verdict.violate(Kind::Reordered, place, || (format!("{first:?} to be over before"), format!("{second:?}")));
        }
    }
}
