//! A `read_committed` reader that knows since when each partition goes on again, and how late records were.
//!
//! Records carry the time at which they were produced, and so do their outputs. So a partition goes on again when an
//! output of a record that was produced after the strike is visible in it: nothing that was on its way counts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::load::now_ms;

const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// Reads until it is dropped.
pub(super) struct Visible(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    count: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The partitions that have not gone on since this time.
    waiting: BTreeSet<i32>,
    since: i64,
    /// When the last of them did.
    back_at: i64,
    /// The longest that a record was on its way, since it was last asked for.
    delay_ms_max: i64,
    failed: Option<String>,
}

impl fmt::Debug for Visible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Visible").field(&self.0).finish()
    }
}

impl Visible {
    /// Starts at the beginning of a topic.
    pub(super) fn watch(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "campaign-visible")
            .set("group.id", "campaign-visible")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .with_context(|| format!("create a reader for {bootstrap}"))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        consumer.assign(&all).with_context(|| format!("assign partitions of {topic}"))?;
        let shared = Arc::new(Shared::default());
        let following = Arc::clone(&shared);
        let builder = thread::Builder::new().name("campaign-visible".to_owned());
        builder.spawn(move || following.follow(&consumer)).context("start the reader of the outputs")?;
        Ok(Self(shared))
    }

    /// How many outputs are visible.
    pub(super) fn count(&self) -> Result<u64> {
        match &self.0.state().failed {
            None => Ok(self.0.count.load(Ordering::SeqCst)),
            Some(error) => Err(anyhow!("read the outputs: {error}")),
        }
    }

    /// From now on waits until each of these partitions shows an output of a record of this time or later.
    pub(super) fn expect(&self, partitions: &[i32], since: i64) {
        let mut state = self.0.state();
        state.waiting = partitions.iter().copied().collect();
        (state.since, state.back_at) = (since, since);
    }

    /// How long it took until the last of them did, once all have.
    pub(super) fn back_after(&self) -> Option<Duration> {
        let state = self.0.state();
        state.waiting.is_empty().then(|| Duration::from_millis((state.back_at - state.since).max(0) as u64))
    }

    /// The partitions that still do not go on.
    pub(super) fn waiting(&self) -> Vec<i32> {
        self.0.state().waiting.iter().copied().collect()
    }

    /// The longest that a record was on its way, of those that became visible since this was last asked.
    pub(super) fn take_delay(&self) -> Duration {
        Duration::from_millis(std::mem::take(&mut self.0.state().delay_ms_max).max(0) as u64)
    }
}

impl Drop for Visible {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, consumer: &BaseConsumer) {
        while !self.stop.load(Ordering::SeqCst) {
            match consumer.poll(POLL_TIMEOUT) {
                None => {}
                Some(Ok(record)) => self.saw(record.partition(), record.timestamp().to_millis().unwrap_or(0)),
                // Lost connections heal; a fatal error does not.
                Some(Err(error)) if consumer.client().fatal_error().is_none() => tracing::debug!(%error, "reading"),
                Some(Err(error)) => {
                    self.state().failed = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn saw(&self, partition: i32, produced_at: i64) {
        let now = now_ms();
        let mut state = self.state();
        state.delay_ms_max = state.delay_ms_max.max(now - produced_at);
        if produced_at >= state.since && state.waiting.remove(&partition) {
            state.back_at = now;
        }
        drop(state);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}
