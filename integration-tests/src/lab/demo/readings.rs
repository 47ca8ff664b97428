//! The demo's input: temperatures of sensors, produced at a steady pace while the workers run.
//!
//! The seed decides every key and value. Timestamps are milliseconds in a row that end about now, so that no two
//! readings share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use processor_simulator::SplitMix64;

use crate::client::{Deliveries, Pace, PacedProducer};
use crate::oracle::PartitionLog;

/// Readings share requests for so long.
const LINGER_MS: u64 = 5;

/// How values are written into the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// 8 bytes: a Java double.
    Binary,
    /// Decimal text.
    Text,
}

impl Format {
    /// As the worker's command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "text",
        }
    }

    fn encode(self, value: f64) -> Vec<u8> {
        match self {
            Self::Binary => value.to_be_bytes().to_vec(),
            Self::Text => value.to_string().into_bytes(),
        }
    }

    /// Rewrites values as the oracle reads them: 8 bytes. What is not a number stays as it is, and is then wrong.
    pub(super) fn into_binary(self, logs: &mut [PartitionLog]) {
        if self == Self::Binary {
            return;
        }
        for record in logs.iter_mut().flat_map(|log| &mut log.records) {
            let text = record.value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
            if let Some(number) = text.and_then(|text| text.parse::<f64>().ok()) {
                record.value = Some(number.to_be_bytes().to_vec());
            }
        }
    }
}

/// What to produce.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    /// Where to.
    pub(super) topic: String,
    /// How many partitions it has.
    pub(super) partitions: i32,
    /// Decides keys and values.
    pub(super) seed: u64,
    /// How many readings.
    pub(super) count: u64,
    /// Of how many sensors.
    pub(super) sensors: u64,
    /// How many a second.
    pub(super) rate: u64,
    /// How values are written.
    pub(super) format: Format,
}

/// A thread that produces. Dropping it makes it stop early.
#[derive(Debug)]
pub(super) struct Producing {
    stop: Arc<AtomicBool>,
    deliveries: Arc<Deliveries>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Producing {
    /// Starts to produce.
    ///
    /// # Errors
    /// The client or the thread cannot be made.
    pub(super) fn start(bootstrap: &str, readings: Readings) -> Result<Self> {
        let pace = Pace { rate: Some(readings.rate), linger_ms: LINGER_MS };
        let producer = PacedProducer::new(bootstrap, &readings.topic, readings.partitions, pace)?;
        let (stop, deliveries) = (Arc::new(AtomicBool::new(false)), producer.deliveries());
        let stopped = Arc::clone(&stop);
        let builder = thread::Builder::new().name("readings".to_owned());
        let thread = builder.spawn(move || readings.produce(producer, &stopped)).context("start the producer")?;
        Ok(Self { stop, deliveries, thread: Some(thread) })
    }

    /// How many readings the broker has acknowledged.
    pub(super) fn delivered(&self) -> u64 {
        self.deliveries.delivered()
    }

    /// Whether all are delivered.
    ///
    /// # Errors
    /// One could not be delivered.
    pub(super) fn is_done(&mut self) -> Result<bool> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let thread = self.thread.take().expect("it was just looked at");
            thread.join().map_err(|_| anyhow!("the producer panicked"))??;
        }
        Ok(self.thread.is_none())
    }
}

impl Drop for Producing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Readings {
    fn produce(&self, mut producer: PacedProducer, stop: &AtomicBool) -> Result<()> {
        let mut random = SplitMix64::new(self.seed);
        let first_timestamp = now_ms() - self.count as i64;
        for index in 0..self.count {
            if stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let (sensor, value) = reading(&mut random, self.sensors);
            let value = self.format.encode(value);
            producer.send(&format!("sensor-{sensor}"), &value, first_timestamp + index as i64)?;
        }
        producer.finish()
    }
}

/// A sensor has its own usual temperature, and deviates by up to 2.5 degrees; two decimals.
fn reading(random: &mut SplitMix64, sensors: u64) -> (u64, f64) {
    let sensor = random.below(sensors);
    let usual = 10.0 + (sensor % 20) as f64;
    let value = usual + (random.unit() - 0.5) * 5.0;
    (sensor, (value * 100.0).round() / 100.0)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::LogRecord;

    #[test]
    fn text_becomes_what_the_oracle_reads() {
        let value = Format::Text.encode(20.1);
        let record = LogRecord { value: Some(value), ..LogRecord::default() };
        let mut logs = [PartitionLog { partition: 0, records: vec![record] }];
        Format::Text.into_binary(&mut logs);
        assert_eq!(logs[0].records[0].value, Some(20.1_f64.to_be_bytes().to_vec()));
    }

    #[test]
    fn a_seed_gives_the_same_readings() {
        let readings = |seed| {
            let mut random = SplitMix64::new(seed);
            (0..100).map(|_| reading(&mut random, 10)).collect::<Vec<_>>()
        };
        assert_eq!(readings(7), readings(7));
        assert_ne!(readings(7), readings(8));
        assert!(readings(7).iter().all(|(sensor, value)| *sensor < 10 && (7.5..=21.5).contains(value)));
    }
}
