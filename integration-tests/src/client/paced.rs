//! A producer that hands records over at a steady pace, and knows how many of them have arrived.
//!
//! It is idempotent, and at the end waits for every acknowledgement: what was produced is in the topic. Once, as long as
//! no partition's leader changes at a bad moment: librdkafka may have to begin a new epoch then, with which it sends again
//! what it has not heard of, and the broker knows these records no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::partition_of;

/// Long enough for brokers to be killed and come back.
const DELIVERY_TIMEOUT: Duration = Duration::from_mins(5);
const QUEUE_FULL_POLL: Duration = Duration::from_millis(5);
/// Delivery reports are collected once in so many records.
const POLL_EVERY: u64 = 1_000;

/// How a [`PacedProducer`] goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Records a second; as fast as possible if absent.
    pub rate: Option<u64>,
    /// How long a record may wait for others to share a request with, in milliseconds.
    pub linger_ms: u64,
}

/// How many records were acknowledged so far, and how many will never be.
#[derive(Debug, Default)]
pub struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Deliveries {
    /// How many records were acknowledged so far.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }
}

/// Produces into one topic, each key into the partition that a Java producer would choose.
pub struct PacedProducer {
    producer: BaseProducer<Deliver>,
    deliveries: Arc<Deliveries>,
    topic: String,
    partitions: i32,
    rate: Option<u64>,
    started: Instant,
    sent: u64,
}

impl PacedProducer {
    /// A producer whose first record is due now.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(bootstrap: &str, topic: &str, partitions: i32, pace: Pace) -> Result<Self> {
        let deliveries = Arc::new(Deliveries::default());
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "workload")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("linger.ms", pace.linger_ms.to_string())
            .set("reconnect.backoff.max.ms", "1000")
            .create_with_context(Deliver(Arc::clone(&deliveries)));
        let producer = producer.with_context(|| format!("create a producer for {bootstrap}"))?;
        let (topic, rate, started) = (topic.to_owned(), pace.rate, Instant::now());
        Ok(Self { producer, deliveries, topic, partitions, rate, started, sent: 0 })
    }

    /// Counts acknowledgements, also for others to look at.
    pub fn deliveries(&self) -> Arc<Deliveries> {
        Arc::clone(&self.deliveries)
    }

    /// Waits until the next record is due and hands it over; when that was.
    ///
    /// # Errors
    /// The client refuses it, or its queue stays full for five minutes.
    pub fn send(&mut self, key: &str, value: &[u8], timestamp: i64) -> Result<Instant> {
        assert!(timestamp >= 1, "timestamp 0 would become the wall clock");
        self.pace();
        let handed_over = Instant::now();
        let record = BaseRecord::to(&self.topic)
            .key(key)
            .payload(value)
            .partition(partition_of(key.as_bytes(), self.partitions))
            .timestamp(timestamp);
        self.hand_over(record).with_context(|| format!("produce record {} to {}", self.sent, self.topic))?;
        if self.sent.is_multiple_of(POLL_EVERY) || self.rate.is_some() {
            self.producer.poll(Duration::ZERO);
        }
        self.sent += 1;
        Ok(handed_over)
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// One could not be delivered within five minutes.
    pub fn finish(self) -> Result<()> {
        self.producer.flush(DELIVERY_TIMEOUT).with_context(|| format!("deliver records to {}", self.topic))?;
        let (delivered, failed) = (self.deliveries.delivered(), self.deliveries.failed.load(Ordering::SeqCst));
        ensure!(
            (delivered, failed) == (self.sent, 0),
            "{delivered} of {} records were delivered to {}, {failed} failed",
            self.sent,
            self.topic
        );
        Ok(())
    }

    fn pace(&self) {
        let Some(rate) = self.rate else { return };
        let due = self.started + Duration::from_secs_f64(self.sent as f64 / rate as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }

    fn hand_over(&self, mut record: BaseRecord<'_, str, [u8]>) -> Result<()> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(QUEUE_FULL_POLL);
                    record = back;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

impl std::fmt::Debug for PacedProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacedProducer").field("topic", &self.topic).field("sent", &self.sent).finish_non_exhaustive()
    }
}

struct Deliver(Arc<Deliveries>);

impl ClientContext for Deliver {}

impl ProducerContext for Deliver {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let counter = if result.is_ok() { &self.0.delivered } else { &self.0.failed };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}
