//! A reader that watches batches while they are written: O4, live.
//!
//! It reads `read_committed` and, whenever it reaches the end of what may be seen of a partition (the last stable
//! offset), requires that the last batch is complete. A torn transaction can heal a moment later, so reading the topic
//! afterwards is not enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::BaseConsumer;

use super::read::{Event, Waiting, assign, read_ranges};
use super::{Isolation, Observer, Watermarks, reader};
use crate::oracle::{BatchTracker, Verdict};

const GROUP: &str = "oracle-live";

/// A thread that reads until [`finish`](Self::finish).
#[derive(Debug)]
pub struct ConcurrentReader {
    bootstrap: String,
    topic: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Reading>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    ends: AtomicU64,
}

#[derive(Debug, Default)]
struct Reading {
    tracker: BatchTracker,
    /// Behind the last record of each partition.
    next: BTreeMap<i32, i64>,
}

impl ConcurrentReader {
    /// Starts a reader at the beginning of a topic of ledger outputs.
    ///
    /// # Errors
    /// There is no such topic, or the cluster does not answer in time.
    pub fn start(bootstrap: &str, topic: &str) -> Result<Self> {
        let starts = Observer::new(bootstrap, GROUP)?.watermarks(topic, Isolation::ReadCommitted)?;
        let next: BTreeMap<i32, i64> = starts.iter().map(|(partition, range)| (*partition, range.low)).collect();
        let consumer = reader(bootstrap, Isolation::ReadCommitted, GROUP)?;
        assign(&consumer, topic, next.clone().into_iter())?;
        let reading = Reading { tracker: BatchTracker::default(), next };

        let shared = Arc::new(Shared::default());
        let (watched, name) = (Arc::clone(&shared), topic.to_owned());
        let builder = thread::Builder::new().name(GROUP.to_owned());
        let thread =
            builder.spawn(move || reading.follow(&consumer, &name, &watched)).context("start the live reader")?;
        Ok(Self { bootstrap: bootstrap.to_owned(), topic: topic.to_owned(), shared, thread: Some(thread) })
    }

    /// How often it has reached an end behind a record that was new, and has looked whether the last batch is complete.
    pub fn ends(&self) -> u64 {
        self.shared.ends.load(Ordering::SeqCst)
    }

    /// Reads what is left to the last stable offsets of now, and says what was found. How much that shows is for
    /// [`ends`](Self::ends) to say.
    ///
    /// # Errors
    /// Reading failed at some time.
    pub fn finish(mut self) -> Result<Verdict> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("finish consumes the reader, so its thread is taken once");
        let reading = thread.join().map_err(|_| anyhow!("the live reader panicked"))??;
        reading.complete(&self.bootstrap, &self.topic)
    }
}

impl Drop for ConcurrentReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Reading {
    fn follow(mut self, consumer: &BaseConsumer, topic: &str, shared: &Shared) -> Result<Self> {
        let mut waiting = Waiting::new(topic);
        while !shared.stop.load(Ordering::SeqCst) {
            match waiting.next(consumer)? {
                Some(event) => self.event(event),
                None => waiting.idle(),
            }
            shared.ends.store(self.tracker.ends(), Ordering::SeqCst);
        }
        Ok(self)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Record(partition, record) => {
                self.next.insert(partition, record.offset + 1);
                self.tracker.record(partition, &record);
            }
            Event::End(partition) => self.tracker.end(partition),
        }
    }

    fn complete(mut self, bootstrap: &str, topic: &str) -> Result<Verdict> {
        let ends = Observer::new(bootstrap, GROUP)?.watermarks(topic, Isolation::ReadCommitted)?;
        let behind = |(partition, range): (&i32, &Watermarks)| {
            let low = self.next.get(partition).copied().unwrap_or(range.low);
            (*partition, Watermarks { low, end: range.end })
        };
        let rest: BTreeMap<i32, Watermarks> = ends.iter().map(behind).collect();
        read_ranges(bootstrap, topic, Isolation::ReadCommitted, &rest, |partition, record| {
            self.tracker.record(partition, &record);
        })?;
        for partition in ends.keys() {
            self.tracker.end(*partition);
        }
        Ok(self.tracker.into_verdict())
    }
}
