//! The log of one partition: records and markers at offsets, and which of the records a reader may see.

use std::collections::BTreeMap;

use processor_core::ids::Timestamp;

/// A record as a client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What became of the transaction that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It belongs to none.
    Plain,
    /// It is open.
    Open,
    /// It committed.
    Committed,
    /// It aborted.
    Aborted,
}

/// What stands at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Record {
        /// The record.
        written: Written,
        /// What became of its transaction.
        outcome: Outcome,
        /// The producer that wrote it; `None` outside transactions.
        producer: Option<ProducerNumber>,
    },
    /// The end of a transaction; no client sees it, but it has an offset.
    Marker {
        /// Whose transaction.
        producer: ProducerNumber,
        /// Whether it committed.
        commit: bool,
    },
}

/// The producer id that the broker gives to a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProducerNumber(pub i64);

/// The log of one partition.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The offset of the first entry.
    start: i64,
    entries: Vec<Entry>,
    /// Of each open transaction, the offset of its first record here.
    open: BTreeMap<ProducerNumber, i64>,
}

impl Log {
    /// The offset of the first entry that is still there.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The offset behind the last entry.
    pub fn high_watermark(&self) -> i64 {
        self.start + self.entries.len() as i64
    }

    /// The offset up to which no transaction is open.
    pub fn last_stable_offset(&self) -> i64 {
        self.open.values().copied().min().unwrap_or_else(|| self.high_watermark())
    }

    /// Appends a record; returns its offset.
    pub fn append(&mut self, written: Written, producer: Option<ProducerNumber>) -> i64 {
        let offset = self.high_watermark();
        let outcome = match producer {
            Some(producer) => {
                self.open.entry(producer).or_insert(offset);
                Outcome::Open
            }
            None => Outcome::Plain,
        };
        self.entries.push(Entry::Record { written, outcome, producer });
        offset
    }

    /// Ends a producer's transaction.
    pub fn mark(&mut self, producer: ProducerNumber, commit: bool) {
        if self.open.remove(&producer).is_some() {
            let decided = if commit { Outcome::Committed } else { Outcome::Aborted };
            for entry in &mut self.entries {
                match entry {
                    Entry::Record { outcome, producer: by, .. }
                        if *by == Some(producer) && *outcome == Outcome::Open =>
                    {
                        *outcome = decided;
                    }
                    Entry::Record { .. } | Entry::Marker { .. } => {}
                }
            }
        }
        self.entries.push(Entry::Marker { producer, commit });
    }

    /// Forgets what is before an offset, as retention does.
    pub fn delete_before(&mut self, offset: i64) {
        let offset = offset.clamp(self.start, self.last_stable_offset());
        self.entries.drain(..(offset - self.start) as usize);
        self.start = offset;
    }

    /// The entries with their offsets, from an offset on.
    pub fn from(&self, offset: i64) -> impl Iterator<Item = (i64, &Entry)> {
        let skip = (offset - self.start).max(0);
        (self.start + skip..).zip(self.entries.iter().skip(skip as usize))
    }
}
