//! Records: as an operator sees them (typed) and as they come from and go to a topic (bytes).

use crate::ids::{Offset, OutputIndex, Partition, Timestamp};

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
}

/// Where the record in process came from.
#[derive(Clone, Copy, Debug)]
pub struct RecordMetadata<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
}

/// Which poll batch the record in process belongs to, and where it stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// The batch's number within its task; strictly increasing over committed batches.
    pub id: crate::ids::BatchId,
    /// The record's place among the task's records of this batch, from 0.
    pub index: u32,
    /// How many records of this task the batch holds. A batch commits whole; only one whose record failed ends before it.
    pub size: u32,
}

/// The partition an output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetPartition {
    /// The number of the partition that the input record came from.
    Exactly(Partition),
    /// Chosen by the hash of the key as Kafka's Java clients do (murmur2); without a key, any.
    ByKey,
}

/// An output record, encoded, borrowed from the [`Outbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRecord<'a> {
    /// The topic, as an index into the topology's outputs.
    pub topic: OutputIndex,
    /// The partition.
    pub partition: TargetPartition,
    /// The timestamp the record will carry.
    pub timestamp: Timestamp,
    /// The key's bytes; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// Where one output's bytes lie in the outbox's buffer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    topic: OutputIndex,
    partition: TargetPartition,
    timestamp: Timestamp,
    key: Option<(usize, usize)>,
    value: Option<(usize, usize)>,
}

/// The outputs of the record in process, held back until that record has succeeded.
///
/// One buffer serves all records: it is emptied, not freed, so the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Outbox {
    /// Adds an output; `encode_key` and `encode_value` append to the buffer and say whether there is a value at all.
    ///
    /// # Errors
    /// What an encoder returns; the outbox is then as it was before.
    pub fn push<E>(
        &mut self,
        topic: OutputIndex,
        partition: TargetPartition,
        timestamp: Timestamp,
        encode_key: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
        encode_value: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let encoded = Self::encode_into(&mut self.bytes, encode_key)
            .and_then(|key| Ok((key, Self::encode_into(&mut self.bytes, encode_value)?)));
        match encoded {
            Ok((key, value)) => {
                self.entries.push(Entry { topic, partition, timestamp, key, value });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    fn encode_into<E>(
        bytes: &mut Vec<u8>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<Option<(usize, usize)>, E> {
        let start = bytes.len();
        let present = encode(bytes)?;
        Ok(present.then_some((start, bytes.len())))
    }

    /// The outputs in the order they were forwarded.
    pub fn records(&self) -> impl Iterator<Item = OutputRecord<'_>> {
        self.entries.iter().map(|entry| OutputRecord {
            topic: entry.topic,
            partition: entry.partition,
            timestamp: entry.timestamp,
            key: entry.key.map(|(from, to)| &self.bytes[from..to]),
            value: entry.value.map(|(from, to)| &self.bytes[from..to]),
        })
    }

    /// How many outputs are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the outputs, after they were sent or because their record failed (EO-9).
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
