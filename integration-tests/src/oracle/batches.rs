//! O4: of a transaction's outputs, a reader sees all or none.
//!
//! Each ledger output says which batch it belongs to, its place in it and the batch's size. On a partition the members
//! of a batch stand together, from 0 to size - 1, and batch ids rise. Whenever a `read_committed` reader has reached
//! the end of what it may see, the last batch is complete.
//!
//! A batch is of one task and one partition, while a transaction holds the batches of all tasks of a thread. What is cut
//! *between* partitions is not seen here, and cannot be: outputs do not say which transaction they belong to, and Kafka
//! gives a reader no order between partitions. What it would do is seen by O1 to O3: a batch whose offsets did not
//! commit with it is written twice, and one whose offsets did without it is lost.

use std::collections::BTreeMap;

use super::ledger::LedgerEntry;
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog};

/// Checks the batches of a log that was read to its end.
pub fn check_batches(output: &[PartitionLog]) -> Verdict {
    let mut tracker = BatchTracker::default();
    for log in output {
        log.records.iter().for_each(|record| tracker.record(log.partition, record));
        tracker.end(log.partition);
    }
    tracker.into_verdict()
}

/// Follows batches while they are read: feed it every record, and every end that the reader reaches.
#[derive(Debug)]
pub struct BatchTracker {
    partitions: BTreeMap<i32, Last>,
    ends: u64,
    verdict: Verdict,
}

/// The last record of a partition.
#[derive(Clone, Copy, Debug)]
struct Last {
    offset: i64,
    entry: LedgerEntry,
    /// Whether the end behind it was reached.
    at_end: bool,
}

impl Default for BatchTracker {
    fn default() -> Self {
        Self { partitions: BTreeMap::new(), ends: 0, verdict: Verdict::new("batches", "balances") }
    }
}

impl BatchTracker {
    /// The next record of a partition.
    pub fn record(&mut self, partition: i32, record: &LogRecord) {
        self.verdict.outputs += 1;
        let at = format_args!("{partition}@{}", record.offset);
        let Some(entry) = record.value.as_deref().and_then(LedgerEntry::decode) else {
            let found = || ("a ledger entry".into(), format!("{:?}", record.value));
            return self.verdict.violate(Kind::Wrong, at, found);
        };
        if entry.batch_index == 0 {
            self.verdict.inputs += 1;
        }
        let last = self.partitions.insert(partition, Last { offset: record.offset, entry, at_end: false });
        if let Some(expected) = broken_rule(last.map(|last| last.entry), entry) {
            let found = || (expected, describe(&entry));
            self.verdict.violate(Kind::Torn, at, found);
        }
    }

    /// The reader has reached the end of what it may see of a partition: its last batch must be complete.
    pub fn end(&mut self, partition: i32) {
        let Some(last) = self.partitions.get_mut(&partition) else { return };
        self.ends += u64::from(!last.at_end);
        last.at_end = true;
        if !complete(last.entry) {
            let found = || ("the rest of the batch before the end".into(), describe(&last.entry));
            self.verdict.violate(
                Kind::Torn,
                format_args!("the end of {partition} behind offset {}", last.offset),
                found,
            );
        }
    }

    /// How often an end was reached behind a record that was new: nothing can be torn at the end of an empty partition,
    /// and the same end seen again shows nothing more.
    pub fn ends(&self) -> u64 {
        self.ends
    }

    /// What has been found so far.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What was found.
    pub fn into_verdict(self) -> Verdict {
        self.verdict
    }
}

/// What should have followed `last`, if `entry` should not.
fn broken_rule(last: Option<LedgerEntry>, entry: LedgerEntry) -> Option<String> {
    if entry.batch_index >= entry.batch_size {
        return Some("an index below the batch's size".to_owned());
    }
    match last {
        Some(last) if !complete(last) => {
            let continues = (entry.batch_id, entry.batch_size) == (last.batch_id, last.batch_size);
            let in_step = last.batch_index.checked_add(1) == Some(entry.batch_index);
            (!continues || !in_step).then(|| format!("the batch to go on behind {}", describe(&last)))
        }
        Some(last) if entry.batch_id <= last.batch_id => Some(format!("a batch above {}", last.batch_id)),
        Some(_) | None => (entry.batch_index != 0).then(|| "a batch to start with index 0".to_owned()),
    }
}

fn complete(entry: LedgerEntry) -> bool {
    entry.batch_index.checked_add(1) == Some(entry.batch_size)
}

fn describe(entry: &LedgerEntry) -> String {
    format!("batch {}, member {} of {}", entry.batch_id, entry.batch_index, entry.batch_size)
}
