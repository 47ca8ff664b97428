//! A view of a cluster from outside: where partitions end, which transactions are open, what a group has committed, what
//! stands in a topic. It joins no group, commits nothing and disturbs nobody.
//!
//! The clients are made once, so that a test may ask as often as it likes: a new client costs a thread, a connection and
//! a look-up of the coordinator.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::read::read_ranges;
use super::{Isolation, PATIENCE, REQUEST_TIMEOUT, reader};
use crate::oracle::{LogRecord, PartitionLog};

const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The offsets a partition spans for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset.
    pub low: i64,
    /// Behind the last: the last stable offset for `read_committed`, the high watermark for `read_uncommitted`.
    pub end: i64,
}

/// Records of whatever became of their transactions: not evidence of what was committed, so a type of its own.
#[derive(Clone, Debug)]
pub struct Uncommitted(pub Vec<PartitionLog>);

/// Looks at one cluster, and at the offsets of one group.
pub struct Observer {
    bootstrap: String,
    group: String,
    committed: BaseConsumer,
    uncommitted: BaseConsumer,
}

impl Observer {
    /// An observer of this group, which need not exist.
    ///
    /// # Errors
    /// The clients cannot be made.
    pub fn new(bootstrap: &str, group: &str) -> Result<Self> {
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            group: group.to_owned(),
            committed: reader(bootstrap, Isolation::ReadCommitted, group)?,
            uncommitted: reader(bootstrap, Isolation::ReadUncommitted, group)?,
        })
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// There is no such topic, or the cluster does not answer in time.
    pub fn partition_count(&self, topic: &str) -> Result<i32> {
        let metadata = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT).context("fetch metadata")?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map_or(0, |found| found.partitions().len());
        ensure!(partitions > 0, "topic {topic} does not exist");
        i32::try_from(partitions).context("a topic has fewer partitions than that")
    }

    /// The watermarks of every partition.
    ///
    /// # Errors
    /// There is no such topic, or the cluster does not answer in time.
    pub fn watermarks(&self, topic: &str, isolation: Isolation) -> Result<BTreeMap<i32, Watermarks>> {
        let partitions = 0..self.partition_count(topic)?;
        partitions.map(|partition| Ok((partition, self.partition_watermarks(topic, partition, isolation)?))).collect()
    }

    /// The watermarks of one partition. Asks again while it has no leader.
    ///
    /// # Errors
    /// The cluster does not answer in time.
    pub fn partition_watermarks(&self, topic: &str, partition: i32, isolation: Isolation) -> Result<Watermarks> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.with(isolation).fetch_watermarks(topic, partition, REQUEST_TIMEOUT) {
                Ok((low, end)) => return Ok(Watermarks { low, end }),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("fetch the watermarks of {topic}-{partition}"));
                }
                Err(_) => thread::sleep(RETRY_INTERVAL),
            }
        }
    }

    /// The partitions in which a transaction is open: their last stable offset is below their high watermark.
    ///
    /// # Errors
    /// There is no such topic, or the cluster does not answer in time.
    pub fn open_transactions(&self, topic: &str) -> Result<Vec<i32>> {
        // The high watermark is asked first: records that are written and committed between the questions raise only the
        // second answer, so what is found here was open at the first.
        let high = self.watermarks(topic, Isolation::ReadUncommitted)?;
        let stable = self.watermarks(topic, Isolation::ReadCommitted)?;
        let open =
            high.iter().filter(|(partition, high)| stable.get(partition).is_none_or(|stable| stable.end < high.end));
        Ok(open.map(|(partition, _)| *partition).collect())
    }

    /// Waits until no transaction is open.
    ///
    /// # Errors
    /// One is still open after two minutes; the message names its partitions.
    pub fn wait_no_open_transactions(&self, topic: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let open = self.open_transactions(topic)?;
            if open.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("transactions are still open in partitions {open:?} of {topic} after {PATIENCE:?}");
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// What the group has committed for a topic: offset and metadata of each partition that has an offset.
    ///
    /// With `require_stable` it waits while a transaction with offsets for a partition is open.
    ///
    /// # Errors
    /// There is no such topic, the cluster does not answer, or an offset stays unstable.
    pub fn committed_offsets(&self, topic: &str, require_stable: bool) -> Result<BTreeMap<i32, (i64, String)>> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, self.partition_count(topic)? - 1);
        let (isolation, patience) = if require_stable {
            (Isolation::ReadCommitted, PATIENCE)
        } else {
            (Isolation::ReadUncommitted, REQUEST_TIMEOUT)
        };
        let committed = self.with(isolation).committed_offsets(partitions, patience);
        let committed = committed.with_context(|| format!("fetch the offsets of group {} for {topic}", self.group))?;

        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            let place = || format!("the offset of group {} for {topic}-{}", self.group, element.partition());
            element.error().with_context(place)?;
            match element.offset() {
                Offset::Offset(offset) => {
                    drop(offsets.insert(element.partition(), (offset, element.metadata().to_owned())));
                }
                Offset::Invalid => {}
                Offset::Beginning | Offset::End | Offset::Stored | Offset::OffsetTail(_) => {
                    bail!("{} is not a number: {:?}", place(), element.offset());
                }
            }
        }
        Ok(offsets)
    }

    /// Waits until no transaction is open and reads every committed record.
    ///
    /// # Errors
    /// A transaction stays open, there is no such topic, or reading makes no progress for two minutes.
    pub fn read_committed(&self, topic: &str) -> Result<Vec<PartitionLog>> {
        self.wait_no_open_transactions(topic)?;
        self.read_committed_so_far(topic)
    }

    /// Reads every committed record up to the last stable offsets of now, which an open transaction holds back.
    ///
    /// # Errors
    /// There is no such topic, or reading makes no progress for two minutes.
    pub fn read_committed_so_far(&self, topic: &str) -> Result<Vec<PartitionLog>> {
        self.read(topic, Isolation::ReadCommitted)
    }

    /// Reads every record up to the high watermarks of now, aborted ones and those of open transactions included.
    ///
    /// # Errors
    /// There is no such topic, or reading makes no progress for two minutes.
    pub fn read_uncommitted(&self, topic: &str) -> Result<Uncommitted> {
        self.read(topic, Isolation::ReadUncommitted).map(Uncommitted)
    }

    fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<PartitionLog>> {
        let ranges = self.watermarks(topic, isolation)?;
        let mut logs: BTreeMap<i32, Vec<LogRecord>> = ranges.keys().map(|partition| (*partition, Vec::new())).collect();
        read_ranges(&self.bootstrap, topic, isolation, &ranges, |partition, record| {
            logs.entry(partition).or_default().push(record);
        })?;
        Ok(logs.into_iter().map(|(partition, records)| PartitionLog { partition, records }).collect())
    }

    fn with(&self, isolation: Isolation) -> &BaseConsumer {
        match isolation {
            Isolation::ReadCommitted => &self.committed,
            Isolation::ReadUncommitted => &self.uncommitted,
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("bootstrap", &self.bootstrap)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
