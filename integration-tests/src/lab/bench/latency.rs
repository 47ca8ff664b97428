//! Latency: how long after a record was handed to a producer its average reaches a `read_committed` consumer.
//!
//! Producer and consumer are threads of this process and read the same monotonic clock. A record's timestamp is its
//! number in the sequence; the processor hands timestamps on, so an average says whose it is. What producer and consumer
//! take themselves is part of the figure. The hand-written loop, with a transaction for each poll, says what Kafka's
//! transactions and the clients cost by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use processor_simulator::SplitMix64;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Serialize;

use super::figures::percentile;
use super::subject::{Subject, hand_loop, moving_average};
use super::{Bench, TOPIC, WINDOW};
use crate::client::{Observer, Pace, PacedProducer, create_topic};
use crate::lab::interrupt::Interrupt;
use crate::lab::program::Running;
use crate::oracle::check_moving_average;

/// Records a second.
pub(super) const RATE: u64 = 1_000;
const KEYS: u64 = 1_000;
/// Not counted: the worker joins its group and connects.
const WARM_UP: Duration = Duration::from_secs(5);
const FIRST_TIMESTAMP: i64 = 1_700_000_000_000;
const LOST_AFTER: Duration = Duration::from_secs(30);

/// In milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) records_per_second: u64,
    pub(super) seconds: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) cpu_us_per_record: f64,
    /// What other programs had of all cores meanwhile.
    pub(super) others_percent: f64,
}

/// Measures one of the two at a steady rate.
pub(super) fn measure(bench: &Bench<'_>, subject: Subject) -> Result<Latency> {
    let topics = &Topics::of(subject);
    for topic in [&topics.input, &topics.output] {
        create_topic(bench.bootstrap, topic, bench.args.partitions, &TOPIC)?;
    }
    let program = match subject {
        Subject::HandLoop => hand_loop(bench, &topics.group, &topics.input, &topics.output, 0)?,
        Subject::MovingAverage => moving_average(bench, &topics.group, &topics.input, &topics.output)?,
    };
    bench.wait_for_quiet()?;
    let process = program.start()?;
    let warm_up = RATE * WARM_UP.as_secs();
    let count = warm_up + RATE * bench.args.latency_seconds;
    let load = bench.load(Some(process.pid()))?;
    let mut result = observe(bench, topics, &process, warm_up, count).with_context(|| process.log_tail())?;
    result.others_percent = bench.load(Some(process.pid()))?.others_percent_since(&load);
    subject.end(process)?;
    let kafka = Observer::new(bench.bootstrap, &topics.group)?;
    let verdict =
        check_moving_average(&kafka.read_committed(&topics.input)?, &kafka.read_committed(&topics.output)?, WINDOW);
    ensure!(verdict.is_ok(), "the averages are wrong, so their speed means nothing: {verdict}");
    let Latency { p50, p90, p99, max, others_percent, .. } = result;
    bench.say(&format!(
        "{:<22} p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}, others {others_percent:.0} %; checked",
        topics.group
    ));
    Ok(result)
}

struct Topics {
    group: String,
    input: String,
    output: String,
}

impl Topics {
    fn of(subject: Subject) -> Self {
        let group = format!("latency-{}", subject.name());
        Self { input: format!("{group}-input"), output: format!("{group}-output"), group }
    }
}

fn observe(bench: &Bench<'_>, topics: &Topics, process: &Running, warm_up: u64, count: u64) -> Result<Latency> {
    let consumer = consumer(bench.bootstrap, &topics.output, bench.args.partitions)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (bootstrap, topic, stopped) = (bench.bootstrap.to_owned(), topics.input.clone(), Arc::clone(&stop));
    let partitions = bench.args.partitions;
    let producing = thread::spawn(move || produce(&bootstrap, &topic, partitions, count, &stopped));
    let received = receive(&consumer, bench.interrupt, process, warm_up, count);
    stop.store(true, Ordering::SeqCst);
    let sent = producing.join().map_err(|_| anyhow!("the producer panicked"))?;
    let (received, cpu) = received?;
    let sent = sent?;

    let first = usize::try_from(warm_up).context("the warm-up is short")?;
    let pairs = sent.iter().zip(&received).skip(first);
    let mut millis: Vec<f64> = pairs.map(|(from, to)| to.duration_since(*from).as_secs_f64() * 1e3).collect();
    millis.sort_by(f64::total_cmp);
    Ok(Latency {
        records_per_second: RATE,
        seconds: bench.args.latency_seconds,
        p50: percentile(&millis, 50.0),
        p90: percentile(&millis, 90.0),
        p99: percentile(&millis, 99.0),
        max: percentile(&millis, 100.0),
        cpu_us_per_record: cpu.as_secs_f64() * 1e6 / millis.len() as f64,
        others_percent: 0.0,
    })
}

/// When each record was handed over.
fn produce(bootstrap: &str, topic: &str, partitions: i32, count: u64, stop: &AtomicBool) -> Result<Vec<Instant>> {
    let pace = Pace { rate: Some(RATE), linger_ms: 0 };
    let mut producer = PacedProducer::new(bootstrap, topic, partitions, pace)?;
    let mut random = SplitMix64::new(1);
    let mut sent = Vec::new();
    for index in 0..count {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("sensor-{}", random.below(KEYS));
        let value = (random.unit() * 100.0).to_be_bytes();
        sent.push(producer.send(&key, &value, FIRST_TIMESTAMP + index as i64)?);
    }
    producer.finish()?;
    Ok(sent)
}

/// When each average arrived, and what CPU time the process took for those that count.
fn receive(
    consumer: &BaseConsumer,
    interrupt: &Interrupt,
    process: &Running,
    warm_up: u64,
    count: u64,
) -> Result<(Vec<Instant>, Duration)> {
    let mut arrived: Vec<Option<Instant>> = vec![None; usize::try_from(count).context("few enough for memory")?];
    let (mut missing, mut moved_at) = (count, Instant::now());
    let mut cpu_before = None;
    while missing > 0 {
        interrupt.check()?;
        match consumer.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                let now = Instant::now();
                let index =
                    message.timestamp().to_millis().and_then(|time| usize::try_from(time - FIRST_TIMESTAMP).ok());
                let place = index.and_then(|index| arrived.get_mut(index));
                let place = place.context("an average has a timestamp of no reading")?;
                ensure!(place.replace(now).is_none(), "an average arrived twice");
                (missing, moved_at) = (missing - 1, now);
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => bail!("read the averages: {code}"),
            Some(Err(_)) | None => {}
        }
        if cpu_before.is_none() && count - missing >= warm_up {
            cpu_before = Some(process.usage()?.cpu);
        }
        ensure!(moved_at.elapsed() < LOST_AFTER, "{missing} of {count} averages did not come for {LOST_AFTER:?}");
    }
    let cpu = process.usage()?.cpu.saturating_sub(cpu_before.unwrap_or_default());
    Ok((arrived.into_iter().flatten().collect(), cpu))
}

fn consumer(bootstrap: &str, topic: &str, partitions: i32) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "bench-latency")
        .set("group.id", "bench-latency")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .with_context(|| format!("create a consumer for {bootstrap}"))?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&all).context("assign the output's partitions")?;
    Ok(consumer)
}
