//! Topics in memory: a log for each partition, and what was written where.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::ids::{Offset, Partition, Timestamp};
use crate::partition;
use crate::record::{InputRecord, OutputRecord, TargetPartition};

/// A header: its name, and its value, which may be null.
pub(super) type Header = (String, Option<Vec<u8>>);

/// A record as it lies in a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: Option<i64>,
    pub(super) headers: Vec<Header>,
}

impl From<OutputRecord<'_>> for Stored {
    fn from(output: OutputRecord<'_>) -> Self {
        let headers = output.headers.iter().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
        Self {
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
            timestamp: Some(output.timestamp.get()),
            headers: headers.collect(),
        }
    }
}

/// A record as it is polled.
#[derive(Clone, Debug)]
pub(super) struct Polled {
    record: Rc<Stored>,
    offset: Offset,
}

impl InputRecord for Polled {
    fn key(&self) -> Option<&[u8]> {
        self.record.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.record.value.as_deref()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        self.record.timestamp.map(Timestamp::new)
    }

    fn offset(&self) -> Offset {
        self.offset
    }

    fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.record.headers.iter().for_each(|(name, value)| visit(name, value.as_deref()));
    }
}

/// All topics of a driver.
#[derive(Debug, Default)]
pub(super) struct Logs {
    partitions: BTreeMap<Arc<str>, Vec<Vec<Rc<Stored>>>>,
}

impl Logs {
    pub(super) fn create(&mut self, topic: Arc<str>, partitions: u32) {
        self.partitions.entry(topic).or_insert_with(|| vec![Vec::new(); partitions as usize]);
    }

    pub(super) fn partitions_of(&self, topic: &str) -> Option<u32> {
        self.partitions.get(topic).map(|partitions| partitions.len() as u32)
    }

    /// Appends a record and says to which partition.
    ///
    /// # Panics
    /// If the topic has no such partition.
    pub(super) fn append(&mut self, topic: &str, to: TargetPartition, record: Rc<Stored>) -> Partition {
        let partitions = self.partitions.get_mut(topic);
        let partitions = partitions.unwrap_or_else(|| panic!("'{topic}' is none of the topology's topics"));
        let count = partitions.len() as u32;
        let partition = match to {
            TargetPartition::Exactly(partition) => partition,
            TargetPartition::ByKey => {
                record.key.as_deref().map_or(Partition::new(0), |key| partition::of_key(key, count))
            }
        };
        let log = partitions.get_mut(partition.get() as usize);
        let log = log.unwrap_or_else(|| panic!("topic '{topic}' has {count} partitions, and no partition {partition}"));
        log.push(record);
        partition
    }

    /// The records of a partition from an offset on.
    pub(super) fn read(&self, topic: &str, partition: Partition, from: Offset) -> impl Iterator<Item = Polled> {
        let log = &self.partitions[topic][partition.get() as usize];
        let from = from.get() as usize;
        log.iter()
            .enumerate()
            .skip(from)
            .map(|(offset, record)| Polled { record: record.clone(), offset: Offset::new(offset as i64) })
    }
}
