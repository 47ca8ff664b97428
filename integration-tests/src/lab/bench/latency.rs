//! Latency: how long after a record was handed to a producer its average reaches a `read_committed` consumer, at a steady rate.
//!
//! Producer and consumer are threads of this process and read the same monotonic clock. A record's timestamp is its
//! number in the sequence; every subject hands timestamps on, so an average says whose it is. What producer and consumer
//! take themselves is part of the figure. The hand-written loop, with a transaction for each poll, says what Kafka's
//! transactions and the clients cost by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use processor_simulator::SplitMix64;
use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use serde::Serialize;

use super::figures::percentile;
use super::subject::{Job, Subject};
use super::work::Kind;
use super::{Bench, TOPIC, WINDOW, reader};
use crate::client::{Isolation, Observer, Pace, PacedProducer, create_topic};
use crate::lab::interrupt::Interrupt;
use crate::lab::program::Running;
use crate::oracle::{check_moving_average, grouped};

const KEYS: u64 = 1_000;
const PARTITIONS: i32 = 4;
/// Not counted: the subject joins its group, connects, and a JVM compiles what it runs.
const WARM_UP: Duration = Duration::from_secs(5);
const FIRST_TIMESTAMP: i64 = 1_700_000_000_000;
const LOST_AFTER: Duration = Duration::from_mins(1);
/// Up to this rate each record is sent at once; above it, those of a millisecond share a request.
const NO_LINGER_MAX: u64 = 1_000;

/// Whose latency is measured, and with which time for a transaction; the processor has no such setting.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Candidate {
    pub(super) subject: Subject,
    pub(super) transaction_ms: u64,
}

impl Candidate {
    /// All: Kafka Streams as it comes, and tuned.
    pub(super) const ALL: [Self; 5] = [
        Self { subject: Subject::HandLoop, transaction_ms: 0 },
        Self { subject: Subject::Processor, transaction_ms: 0 },
        Self { subject: Subject::KafkaStreams, transaction_ms: 100 },
        Self { subject: Subject::KafkaStreams, transaction_ms: 25 },
        Self { subject: Subject::KafkaStreams, transaction_ms: 10 },
    ];

    /// What people call it.
    pub(super) fn name(self) -> String {
        match self.subject {
            Subject::KafkaStreams => format!("{}-{}", self.subject.name(), self.transaction_ms),
            Subject::HandLoop | Subject::Processor => self.subject.name().to_owned(),
        }
    }
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) candidate: Candidate,
    pub(super) records_per_second: u64,
    pub(super) seconds: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) cpu_us_per_record: f64,
    /// At least so many: as many as have written to the partition to which most have.
    pub(super) transactions_per_second: f64,
    /// What other programs had of all cores meanwhile.
    pub(super) others_percent: f64,
}

/// Measures one at a steady rate.
pub(super) fn measure(bench: &Bench<'_>, candidate: Candidate, rate: u64, seconds: u64) -> Result<Latency> {
    let name = format!("latency-{rate}-{}", candidate.name());
    let job = Job {
        input: format!("{name}-input"),
        output: format!("{name}-output"),
        partitions: PARTITIONS,
        kind: Kind::Average,
        stores: 1,
        transaction_ms: candidate.transaction_ms,
        processor_options: Vec::new(),
        name,
    };
    for topic in [&job.input, &job.output] {
        create_topic(bench.bootstrap, topic, PARTITIONS, &TOPIC)?;
    }
    let program = job.program(bench, candidate.subject, 0)?;
    bench.wait_for_quiet()?;
    let process = program.start()?;
    let warm_up = rate * WARM_UP.as_secs();
    let load = bench.load(&[process.pid()])?;
    let steady = Steady { rate, warm_up, count: warm_up + rate * seconds };
    let mut latency = observe(bench, &job, &process, candidate, steady).with_context(|| process.log_tail())?;
    latency.others_percent = bench.load(&[process.pid()])?.others_percent_since(&load);
    candidate.subject.end(process)?;
    let kafka = Observer::new(bench.bootstrap, &job.name)?;
    let outputs = kafka.read_committed(&job.output)?;
    let verdict = check_moving_average(&kafka.read_committed(&job.input)?, &outputs, WINDOW);
    ensure!(verdict.is_ok(), "the averages are wrong, so their speed means nothing: {verdict}");
    let ends = kafka.watermarks(&job.output, Isolation::ReadUncommitted)?;
    let markers = outputs.iter().map(|log| ends[&log.partition].end - log.records.len() as i64).max().unwrap_or(0);
    latency.transactions_per_second = markers as f64 / (steady.count as f64 / rate as f64);
    let Latency { p50, p90, p99, max, others_percent, transactions_per_second, .. } = latency;
    bench.say(&format!(
        "{:<34} p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}; {transactions_per_second:.0} transactions/s, others \
         {others_percent:.0} %; checked",
        job.name
    ));
    Ok(latency)
}

/// Records a second, and how many of them: the first are not counted.
#[derive(Clone, Copy, Debug)]
struct Steady {
    rate: u64,
    warm_up: u64,
    count: u64,
}

fn observe(bench: &Bench<'_>, job: &Job, process: &Running, candidate: Candidate, steady: Steady) -> Result<Latency> {
    let consumer = reader::client(bench.bootstrap, "bench-latency", &[("auto.offset.reset", "error")])?;
    reader::read(&consumer, &job.output, 0..PARTITIONS, Offset::Offset(0))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (bootstrap, topic, stopped) = (bench.bootstrap.to_owned(), job.input.clone(), Arc::clone(&stop));
    let producing = thread::spawn(move || produce(&bootstrap, &topic, steady, &stopped));
    let received = receive(&consumer, bench.interrupt, process, steady);
    stop.store(true, Ordering::SeqCst);
    let sent = producing.join().map_err(|_| anyhow!("the producer panicked"))?;
    let (received, cpu) = received?;
    let sent = sent?;

    let first = usize::try_from(steady.warm_up).context("the warm-up is short")?;
    let pairs = sent.iter().zip(&received).skip(first);
    let mut millis: Vec<f64> = pairs.map(|(from, to)| to.duration_since(*from).as_secs_f64() * 1e3).collect();
    millis.sort_by(f64::total_cmp);
    Ok(Latency {
        candidate,
        records_per_second: steady.rate,
        seconds: (steady.count - steady.warm_up) / steady.rate,
        p50: percentile(&millis, 50.0),
        p90: percentile(&millis, 90.0),
        p99: percentile(&millis, 99.0),
        max: percentile(&millis, 100.0),
        cpu_us_per_record: cpu.as_secs_f64() * 1e6 / millis.len() as f64,
        transactions_per_second: 0.0,
        others_percent: 0.0,
    })
}

/// When each record was handed over.
fn produce(bootstrap: &str, topic: &str, steady: Steady, stop: &AtomicBool) -> Result<Vec<Instant>> {
    let pace = Pace { rate: Some(steady.rate), linger_ms: u64::from(steady.rate > NO_LINGER_MAX) };
    let mut producer = PacedProducer::new(bootstrap, topic, PARTITIONS, pace)?;
    let mut random = SplitMix64::new(1);
    let mut sent = Vec::new();
    for index in 0..steady.count {
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
    steady: Steady,
) -> Result<(Vec<Instant>, Duration)> {
    let Steady { warm_up, count, .. } = steady;
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
        ensure!(
            moved_at.elapsed() < LOST_AFTER,
            "{} of {} averages did not come for {LOST_AFTER:?}",
            grouped(missing),
            grouped(count)
        );
    }
    let cpu = process.usage()?.cpu.saturating_sub(cpu_before.unwrap_or_default());
    Ok((arrived.into_iter().flatten().collect(), cpu))
}
