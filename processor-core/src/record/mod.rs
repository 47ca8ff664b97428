//! Records: as an operator sees them (typed) and as they come from and go to a topic (bytes).

mod outbox;

pub(crate) use outbox::Address;
pub use outbox::{Headers, Outbox, OutputRecord, TargetPartition};

use crate::ids::{Offset, Partition, Timestamp};

/// A record between two operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<K, V> {
    /// What the record is about; records of one key are processed in order.
    pub key: K,
    /// What it says.
    pub value: V,
    /// Event time; outputs keep the timestamp of the record they come from unless the operator sets another.
    pub timestamp: Timestamp,
}

impl<K, V> Record<K, V> {
    /// Makes a record.
    pub fn new(key: K, value: V, timestamp: Timestamp) -> Self {
        Self { key, value, timestamp }
    }

    /// The same key and timestamp with another value.
    pub fn with_value<W>(self, value: W) -> Record<K, W> {
        Record { key: self.key, value, timestamp: self.timestamp }
    }

    /// The same value and timestamp with another key.
    pub fn with_key<L>(self, key: L) -> Record<L, V> {
        Record { key, value: self.value, timestamp: self.timestamp }
    }
}

/// A record as it was polled from an input topic.
///
/// # Contract
/// The bytes do not change while the record lives, and `offset` strictly increases within a partition (EO-8).
pub trait InputRecord {
    /// The key's bytes; `None` is Kafka's null.
    fn key(&self) -> Option<&[u8]>;
    /// The value's bytes; `None` is Kafka's null.
    fn value(&self) -> Option<&[u8]>;
    /// The record's timestamp; `None` where the broker has none (message format 0).
    fn timestamp(&self) -> Option<Timestamp>;
    /// Where the record stands in its partition.
    fn offset(&self) -> Offset;
    /// Visits the record's headers in their order: name, and value, which may be null.
    fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>));
}

/// Where the record in process came from.
#[derive(Clone, Copy)]
pub struct RecordMetadata<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    pub(crate) input: &'a dyn InputRecord,
}

impl RecordMetadata<'_> {
    /// The timestamp that the record carries, which need not be the one it is processed with.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.input.timestamp()
    }

    /// Visits the record's headers in their order: name, and value, which may be null.
    pub fn visit_headers(&self, mut visit: impl FnMut(&str, Option<&[u8]>)) {
        self.input.visit_headers(&mut visit);
    }

    /// Whether the record has a header of this name, and the value of the last one.
    pub fn header(&self, name: &str) -> Option<Option<Vec<u8>>> {
        let mut found = None;
        self.input.visit_headers(&mut |known, value| {
            if known == name {
                found = Some(value.map(<[u8]>::to_vec));
            }
        });
        found
    }
}

impl std::fmt::Debug for RecordMetadata<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

/// Which poll batch the record in process belongs to, and where it stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// The batch's number within its task; strictly increasing over committed batches.
    pub id: crate::ids::BatchId,
    /// The record's place among the task's records of this batch, from 0.
    pub index: u32,
    /// How many records of this task the batch holds. It commits whole, unless a record fails, is to be tried again or asks
    /// for the commit, or one of several inputs runs empty that has more: then it ends there.
    pub size: u32,
    /// The time of day when the batch was begun. It is part of the batch's input (EO-7): the only clock that a topology
    /// can see.
    pub now: Timestamp,
}
