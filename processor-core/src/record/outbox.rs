//! What the record in process sends: outputs and dead letters, encoded, held back until that record is done with.

use std::ops::Range;

use super::InputRecord;
use crate::ids::{NodeIndex, OutputIndex, Partition, Timestamp};

/// The partition an output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetPartition {
    /// This one.
    Exactly(Partition),
    /// Chosen by the hash of the key as Kafka's Java clients do (murmur2); without a key, any.
    ByKey,
}

/// An output record, encoded, borrowed from the [`Outbox`].
#[derive(Clone, Copy, Debug)]
pub struct OutputRecord<'a> {
    /// The sink that wrote it; `None` for a dead letter.
    pub sink: Option<NodeIndex>,
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
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of an output record.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    entries: &'a [HeaderEntry],
}

impl<'a> Headers<'a> {
    /// Name and value of each, in order. A value may be null.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let bytes = self.bytes;
        self.entries.iter().map(move |entry| {
            let name = std::str::from_utf8(&bytes[entry.name.clone()]).expect("names are pushed as text");
            (name, entry.value.clone().map(|value| &bytes[value]))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[derive(Clone, Debug)]
struct HeaderEntry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// Where one output's bytes lie in the outbox's buffer.
#[derive(Clone, Debug)]
struct Entry {
    sink: Option<NodeIndex>,
    topic: OutputIndex,
    partition: TargetPartition,
    timestamp: Timestamp,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

/// The outputs of the record in process, held back until that record has succeeded.
///
/// One buffer serves all records: it is emptied, not freed, so the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    headers: Vec<HeaderEntry>,
    entries: Vec<Entry>,
}

/// Where an output goes, and from which sink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) sink: NodeIndex,
    pub(crate) topic: OutputIndex,
    pub(crate) partition: TargetPartition,
    pub(crate) timestamp: Timestamp,
}

impl Outbox {
    /// Adds an output; `encode_key` and `encode_value` append to the buffer and say whether there is a value at all.
    ///
    /// # Errors
    /// What an encoder returns; the outbox is then as it was before.
    pub(crate) fn push<E>(
        &mut self,
        to: Address,
        encode_key: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
        encode_value: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let encoded = Self::encode_into(&mut self.bytes, encode_key)
            .and_then(|key| Ok((key, Self::encode_into(&mut self.bytes, encode_value)?)));
        match encoded {
            Ok((key, value)) => {
                let Address { sink, topic, partition, timestamp } = to;
                let headers = self.headers.len()..self.headers.len();
                self.entries.push(Entry { sink: Some(sink), topic, partition, timestamp, key, value, headers });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Adds an input record as it is, with its own headers and these, which take the place of its own of the same names.
    pub(crate) fn push_original(
        &mut self,
        topic: OutputIndex,
        partition: TargetPartition,
        record: &dyn InputRecord,
        headers: &[(&str, &[u8])],
    ) {
        let key = record.key().map(|key| append(&mut self.bytes, key));
        let value = record.value().map(|value| append(&mut self.bytes, value));
        let first = self.headers.len();
        record.visit_headers(&mut |name, value| {
            if !headers.iter().any(|(ours, _)| *ours == name) {
                self.push_header(name, value);
            }
        });
        for (name, value) in headers {
            self.push_header(name, Some(value));
        }
        let headers = first..self.headers.len();
        let timestamp = record.timestamp().unwrap_or(Timestamp::new(0));
        self.entries.push(Entry { sink: None, topic, partition, timestamp, key, value, headers });
    }

    fn push_header(&mut self, name: &str, value: Option<&[u8]>) {
        let name = append(&mut self.bytes, name.as_bytes());
        let value = value.map(|value| append(&mut self.bytes, value));
        self.headers.push(HeaderEntry { name, value });
    }

    fn encode_into<E>(
        bytes: &mut Vec<u8>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<Option<Range<usize>>, E> {
        let start = bytes.len();
        let present = encode(bytes)?;
        Ok(present.then_some(start..bytes.len()))
    }

    /// The outputs in the order they were forwarded.
    pub fn records(&self) -> impl Iterator<Item = OutputRecord<'_>> {
        self.entries.iter().map(|entry| OutputRecord {
            sink: entry.sink,
            topic: entry.topic,
            partition: entry.partition,
            timestamp: entry.timestamp,
            key: entry.key.clone().map(|key| &self.bytes[key]),
            value: entry.value.clone().map(|value| &self.bytes[value]),
            headers: Headers { bytes: &self.bytes, entries: &self.headers[entry.headers.clone()] },
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
        self.headers.clear();
        self.entries.clear();
    }
}

fn append(bytes: &mut Vec<u8>, more: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(more);
    start..bytes.len()
}
