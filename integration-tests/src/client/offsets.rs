//! Where partitions end, which transactions are open, what a group has committed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Isolation, PATIENCE, REQUEST_TIMEOUT, partition_count, reader};

const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The offsets a partition spans for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset.
    pub low: i64,
    /// Behind the last: the last stable offset for `read_committed`, the high watermark for `read_uncommitted`.
    pub end: i64,
}

/// The watermarks of every partition.
///
/// # Errors
/// There is no such topic, or the cluster does not answer in time.
pub fn watermarks(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<BTreeMap<i32, Watermarks>> {
    let partitions = partition_count(bootstrap, topic)?;
    let consumer = reader(bootstrap, isolation, "oracle-watermarks")?;
    (0..partitions).map(|partition| Ok((partition, partition_watermarks(&consumer, topic, partition)?))).collect()
}

/// Asks again while a partition has no leader.
fn partition_watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<Watermarks> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT) {
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
pub fn open_transactions(bootstrap: &str, topic: &str) -> Result<Vec<i32>> {
    // The high watermark is asked first: records that are written and committed between the questions raise only the
    // second answer, so what is found here was open at the first.
    let high = watermarks(bootstrap, topic, Isolation::ReadUncommitted)?;
    let stable = watermarks(bootstrap, topic, Isolation::ReadCommitted)?;
    let open = high.iter().filter(|(partition, high)| stable.get(partition).is_none_or(|stable| stable.end < high.end));
    Ok(open.map(|(partition, _)| *partition).collect())
}

/// Waits until no transaction is open.
///
/// # Errors
/// One is still open after two minutes; the message names its partitions.
pub fn wait_no_open_transactions(bootstrap: &str, topic: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = open_transactions(bootstrap, topic)?;
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("transactions are still open in partitions {open:?} of {topic} after {PATIENCE:?}");
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// What a group has committed for a topic: offset and metadata of each partition that has an offset.
///
/// With `require_stable` it waits while a transaction with offsets for a partition is open.
///
/// # Errors
/// There is no such topic, the cluster does not answer, or an offset stays unstable.
pub fn committed_offsets(
    bootstrap: &str,
    group: &str,
    topic: &str,
    require_stable: bool,
) -> Result<BTreeMap<i32, (i64, String)>> {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(topic, 0, partition_count(bootstrap, topic)? - 1);
    let isolation = if require_stable { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let consumer = reader(bootstrap, isolation, group)?;
    let committed = consumer.committed_offsets(partitions, PATIENCE);
    let committed = committed.with_context(|| format!("fetch the offsets of group {group} for {topic}"))?;

    let mut offsets = BTreeMap::new();
    for element in committed.elements() {
        let place = || format!("the offset of group {group} for {topic}-{}", element.partition());
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
