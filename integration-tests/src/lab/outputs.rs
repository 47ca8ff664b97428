//! A `read_committed` reader that watches an output topic grow: how many outputs are visible, and since when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const POLL_TIMEOUT: Duration = Duration::from_millis(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches until it is dropped.
pub struct Outputs {
    topic: String,
    partitions: i32,
    uncommitted: BaseConsumer,
    committed: Arc<BaseConsumer>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    visible: AtomicU64,
    awaited: Mutex<Awaited>,
}

/// Offsets that have not been seen yet, and when the last one was.
#[derive(Debug, Default)]
struct Awaited {
    offsets: BTreeMap<i32, i64>,
    reached: Option<Instant>,
    failed: Option<String>,
}

/// Where the partitions end at one moment.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Behind the last record of each, whatever became of it.
    pub high: BTreeMap<i32, i64>,
    /// The partitions in which a transaction is open.
    pub open: Vec<i32>,
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs").field("topic", &self.topic).field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Outputs {
    /// Starts at the beginning of a topic.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn watch(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        let committed = Arc::new(reader(bootstrap, "read_committed")?);
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        committed.assign(&all).with_context(|| format!("assign partitions of {topic}"))?;
        let shared = Arc::new(Shared::default());
        let uncommitted = reader(bootstrap, "read_uncommitted")?;
        let watch = Self { topic: topic.to_owned(), partitions, uncommitted, committed, shared };
        watch.ends()?; // connects both clients, so that a later question is answered at once
        let (consumer, shared) = (Arc::clone(&watch.committed), Arc::clone(&watch.shared));
        let builder = thread::Builder::new().name("outputs".to_owned());
        builder.spawn(move || shared.follow(&consumer)).context("start the reader of the outputs")?;
        Ok(watch)
    }

    /// How many outputs are visible.
    ///
    /// # Errors
    /// Reading has failed for good.
    pub fn visible(&self) -> Result<u64> {
        match &self.shared.awaited().failed {
            None => Ok(self.shared.visible.load(Ordering::SeqCst)),
            Some(error) => Err(anyhow!("read {}: {error}", self.topic)),
        }
    }

    /// Where the partitions end now.
    ///
    /// # Errors
    /// The cluster does not answer in time.
    pub fn ends(&self) -> Result<Ends> {
        let end = |consumer: &BaseConsumer, partition| -> Result<i64> {
            let ends = consumer.fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT);
            Ok(ends.with_context(|| format!("fetch the end of {}-{partition}", self.topic))?.1)
        };
        let (mut high, mut open) = (BTreeMap::new(), Vec::new());
        for partition in 0..self.partitions {
            let records = end(&self.uncommitted, partition)?;
            if end(&self.committed, partition)? < records {
                open.push(partition);
            }
            high.insert(partition, records);
        }
        Ok(Ends { high, open })
    }

    /// From now on waits for an output at or behind each of these offsets.
    pub fn await_offsets(&self, offsets: BTreeMap<i32, i64>) {
        let mut awaited = self.shared.awaited();
        (awaited.offsets, awaited.reached) = (offsets, None);
    }

    /// When the last of the awaited outputs became visible, once all are.
    pub fn reached(&self) -> Option<Instant> {
        let awaited = self.shared.awaited();
        awaited.reached.filter(|_| awaited.offsets.is_empty())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn awaited(&self) -> MutexGuard<'_, Awaited> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, consumer: &BaseConsumer) {
        while !self.stop.load(Ordering::SeqCst) {
            match consumer.poll(POLL_TIMEOUT) {
                None => {}
                Some(Ok(record)) => self.saw(record.partition(), record.offset()),
                // Lost connections heal; a fatal error does not.
                Some(Err(error)) if consumer.client().fatal_error().is_none() => tracing::debug!(%error, "reading"),
                Some(Err(error)) => {
                    self.awaited().failed = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn saw(&self, partition: i32, offset: i64) {
        let mut awaited = self.awaited();
        if awaited.offsets.get(&partition).is_some_and(|from| offset >= *from) {
            awaited.offsets.remove(&partition);
            awaited.reached = Some(Instant::now());
        }
        drop(awaited);
        // Counted last: whoever sees that all are visible also sees what was reached with the last of them.
        self.visible.fetch_add(1, Ordering::SeqCst);
    }
}

fn reader(bootstrap: &str, isolation: &str) -> Result<BaseConsumer> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "lab-outputs")
        .set("group.id", "lab-outputs")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .create();
    consumer.with_context(|| format!("create a reader for {bootstrap}"))
}
