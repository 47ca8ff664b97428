//! What the record in process sends: outputs and dead letters, encoded, held back until that record is done with.

use std::ops::Range;

use super::InputRecord;
use crate::ids::{NodeIndex, OutputIndex, Partition, Timestamp};

/// The partition an output goes to.
///
/// ```
/// use processor_core::partition;
/// use processor_core::prelude::*;
/// use processor_core::record::TargetPartition;
///
/// fn partition_of(target: TargetPartition, key: &[u8], partitions: u32) -> Partition {
///     match target {
///         TargetPartition::Exactly(partition) => partition,
///         TargetPartition::ByKey => partition::of_key(key, partitions),
///     }
/// }
///
/// assert_eq!(partition_of(TargetPartition::Exactly(Partition::new(3)), b"ann", 8).get(), 3);
/// assert_eq!(partition_of(TargetPartition::ByKey, b"ann", 8).get(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetPartition {
    /// This one.
    Exactly(Partition),
    /// Chosen by the hash of the key as Kafka's Java clients do (murmur2); without a key, any.
    ByKey,
}

/// An output record, encoded, borrowed from the [`Outbox`].
///
/// ```
#[doc = include_str!("example_task.txt")]
/// // The task copies readings; one that is no number is a dead letter.
/// task.process(0, &reading(0, "21"), batch, &NoStores);
/// let copy = task.outbox().records().next().expect("the sink has written it");
/// assert_eq!((copy.key, copy.value), (Some(&b"kitchen"[..]), Some(&21_i64.to_be_bytes()[..])));
/// assert_eq!(copy.sink.map(|sink| topology.node_name(sink)), Some("copy"));
/// assert_eq!(&*topology.outputs()[copy.topic.slot()], "copies");
/// assert_eq!((copy.partition, copy.timestamp), (TargetPartition::ByKey, secs(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
#[doc = include_str!("example_task.txt")]
/// // The task copies readings; one that is no number is a dead letter.
/// task.process(0, &reading(0, "warm"), batch, &NoStores);
/// let letter = task.outbox().records().next().expect("the dead letter");
/// let kind = letter.headers.iter().find(|(name, _)| *name == "processor-kind");
/// assert_eq!(kind, Some(("processor-kind", Some(&b"decode"[..]))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    entries: &'a [HeaderEntry],
}

impl<'a> Headers<'a> {
    /// Name and value of each, in order. A value may be null.
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// task.process(0, &reading(0, "warm"), batch, &NoStores);
    /// let letter = task.outbox().records().next().expect("the dead letter");
    /// let names: Vec<&str> = letter.headers.iter().map(|(name, _)| name).collect();
    /// assert_eq!(names[..2], ["trace", "processor-topic"]); // its own first
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let bytes = self.bytes;
        self.entries.iter().map(move |entry| {
            let name = std::str::from_utf8(&bytes[entry.name.clone()]).expect("names are pushed as text");
            (name, entry.value.clone().map(|value| &bytes[value]))
        })
    }

    /// How many there are.
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// task.process(0, &reading(0, "warm"), batch, &NoStores);
    /// let letter = task.outbox().records().next().expect("the dead letter");
    /// assert_eq!(letter.headers.len(), 1 + 8); // that of the reading, and why it failed
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// task.process(0, &reading(0, "21"), batch, &NoStores);
    /// let copy = task.outbox().records().next().expect("the sink has written it");
    /// assert!(copy.headers.is_empty()); // a sink writes none
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
///
/// ```
#[doc = include_str!("example_task.txt")]
/// // The task copies readings; one that is no number is a dead letter.
/// let mut sent = Vec::new();
/// for reading in [reading(0, "21"), reading(1, "warm")] {
///     task.process(0, &reading, batch, &NoStores);
///     sent.extend(task.outbox().records().map(|output| output.value.map(<[u8]>::to_vec)));
///     task.outbox().clear();
/// }
/// assert_eq!(sent, [Some(21_i64.to_be_bytes().to_vec()), Some(b"warm".to_vec())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// task.process(0, &reading(0, "21"), batch, &NoStores);
    /// for output in task.outbox().records() {
    ///     assert_eq!(&*topology.outputs()[output.topic.slot()], "copies"); // here it is sent
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// task.process(0, &reading(0, "21"), batch, &NoStores);
    /// assert_eq!(task.outbox().len(), 1); // there is one sink
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is held.
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// assert!(task.outbox().is_empty()); // so the next record may be processed
    /// task.process(0, &reading(0, "21"), batch, &NoStores);
    /// assert!(!task.outbox().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets the outputs, after they were sent or because their record failed (EO-9).
    ///
    /// ```
    #[doc = include_str!("example_task.txt")]
    /// // The task copies readings; one that is no number is a dead letter.
    /// for offset in 0..3 {
    ///     task.process(0, &reading(offset, "21"), batch, &NoStores);
    ///     assert_eq!(task.outbox().len(), 1); // of this record only
    ///     task.outbox().clear();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
