//! Starts: how long until a worker is at work again, with all of its state to be restored, with its state on the disk after
//! `kill -9`, and with nothing to do.
//!
//! A restore is held against a consumer that only reads and counts the same changelog; a restart against one that only takes its
//! place in its group again, as the same static member, and gets its first record.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use processor_simulator::SplitMix64;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Serialize;

use super::progress::Committed;
use super::subject::{Job, Subject, has_peer};
use super::work::Kind;
use super::{Bench, TOPIC};
use crate::client::{Isolation, Observer, Pace, PacedProducer, Workload, create_topic, produce_readings};
use crate::http;
use crate::lab::program::{Program, Running};
use crate::oracle::grouped;

const PARTITIONS: i32 = 4;
const INPUT: &str = "starts-input";
const KEYS: u64 = 1_000_000;
/// Records a second while workers are killed.
const RATE: u64 = 1_000;
/// A start takes no longer than this, whoever starts.
const PATIENCE: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const IDLE_FOR: Duration = Duration::from_secs(10);
const RESTARTS: usize = 5;
/// The changelog of `moving-average`'s store.
const STORE: &str = "window";

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Starts {
    pub(super) restores: Vec<Restore>,
    /// Seconds from the start of the process to its first new output; of each restart.
    pub(super) restarts: Vec<f64>,
    /// Seconds from the making of a bare static consumer to its first record; of each.
    pub(super) rejoins: Vec<f64>,
    pub(super) idle: Option<Idle>,
}

/// A restore of everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Restore {
    pub(super) who: &'static str,
    pub(super) records: u64,
    /// From the start of the process until every task runs; of the consumer, until it has read the last record.
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

/// A worker that has nothing to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Idle {
    pub(super) ready_seconds: f64,
    pub(super) cpu_percent_of_a_core: f64,
}

/// Measures all of it.
pub(super) fn measure(bench: &Bench<'_>, records: u64, rounds: u32) -> Result<Starts> {
    let mut starts = Starts::default();
    create_topic(bench.bootstrap, INPUT, PARTITIONS, &TOPIC)?;
    bench.say(&format!("starts: producing {} records of {} keys", grouped(records), grouped(KEYS)));
    produce_readings(bench.bootstrap, &Workload { keys: KEYS, ..Workload::new(INPUT, records, PARTITIONS) })?;
    let processor = Candidate::new(bench, Subject::Processor)?;
    processor.process_all(bench, records)?;
    let streams = has_peer().then(|| Candidate::new(bench, Subject::KafkaStreams)).transpose()?;
    streams.iter().try_for_each(|streams| streams.process_all(bench, records))?;
    for _ in 0..rounds {
        starts.restores.push(processor.restore(bench)?);
        starts.restores.push(read_changelog(bench, &format!("{}-{STORE}-changelog", processor.job.name))?);
        if let Some(streams) = &streams {
            starts.restores.push(streams.restore(bench)?);
        }
    }
    (starts.restarts, starts.rejoins) = processor.restarts(bench)?;
    starts.idle = Some(idle(bench)?);
    Ok(starts)
}

/// A subject with its state.
struct Candidate {
    subject: Subject,
    job: Job,
    program: Program,
    /// Where the processor answers.
    http: String,
}

impl Candidate {
    fn new(bench: &Bench<'_>, subject: Subject) -> Result<Self> {
        Self::named(bench, subject, &format!("starts-{}", subject.name()), INPUT)
    }

    fn named(bench: &Bench<'_>, subject: Subject, name: &str, input: &str) -> Result<Self> {
        let output = format!("{name}-output");
        create_topic(bench.bootstrap, &output, PARTITIONS, &TOPIC)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let http = port.context("no free port")?.to_string();
        let job = Job {
            name: name.to_owned(),
            input: input.to_owned(),
            output,
            partitions: PARTITIONS,
            kind: Kind::Average,
            stores: 1,
            transaction_ms: 100,
            processor_options: vec![("memory-budget", "256MiB"), ("instance-id", "one")],
        };
        let mut program = job.program(bench, subject, 0)?;
        if subject == Subject::Processor {
            program.arguments.extend(["--http-listen".to_owned(), http.clone()]);
        }
        Ok(Self { subject, job, program, http })
    }

    /// Runs until everything is committed, and stops.
    fn process_all(&self, bench: &Bench<'_>, records: u64) -> Result<()> {
        let committed = Committed::new(bench.bootstrap, &self.job.name, &self.job.input, PARTITIONS)?;
        let process = self.program.start()?;
        bench.interrupt.wait_until(PATIENCE, || Ok(committed.records()? >= records))?;
        ensure!(committed.records()? >= records, "{} did not come to the end;{}", self.job.name, process.log_tail());
        process.terminate()?;
        // Kafka Streams ends with another code than 0 after SIGTERM, as every JVM.
        let ended = process.wait_for_success(Duration::from_secs(30));
        if self.subject == Subject::Processor { ended } else { Ok(()) }
    }

    /// Restores everything, from nothing.
    fn restore(&self, bench: &Bench<'_>) -> Result<Restore> {
        let state = bench.dir.join("state").join(format!("{}-0", self.job.name));
        fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
        fs::write(&self.program.log, "").with_context(|| format!("cannot empty {}", self.program.log.display()))?;
        bench.wait_for_quiet()?;
        let started = Instant::now();
        let process = self.program.start()?;
        self.await_ready(bench, &process)?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), process.usage()?.cpu.as_secs_f64());
        let records = match self.subject {
            Subject::KafkaStreams => self.restored_by_its_log()?,
            Subject::Processor | Subject::HandLoop => {
                changelog_len(bench, &format!("{}-{STORE}-changelog", self.job.name))?
            }
        };
        self.subject.end(process)?;
        let restore = Restore { who: self.subject.name(), records, seconds, cpu_seconds: cpu };
        tell(bench, &restore);
        Ok(restore)
    }

    fn await_ready(&self, bench: &Bench<'_>, process: &Running) -> Result<()> {
        let is_ready = || match self.subject {
            Subject::Processor => Ok(http::get(&self.http, "/readyz", &[]).is_ok_and(|answer| answer.status == 200)),
            Subject::KafkaStreams | Subject::HandLoop => {
                let log = fs::read_to_string(&self.program.log).unwrap_or_default();
                Ok(log.lines().any(|line| line == "running"))
            }
        };
        let ready = bench.interrupt.wait_until(PATIENCE, is_ready)?;
        ensure!(ready, "{} is not ready after {PATIENCE:?};{}", self.job.name, process.log_tail());
        Ok(())
    }

    fn restored_by_its_log(&self) -> Result<u64> {
        let log = fs::read_to_string(&self.program.log).context("the log is gone")?;
        let restored = log.lines().filter_map(|line| line.strip_prefix("restored ")?.parse::<u64>().ok());
        Ok(restored.sum())
    }

    /// Kills and starts it, again and again, under load; beside it, a bare consumer takes its place again.
    fn restarts(&self, bench: &Bench<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
        let (stop, bootstrap) = (Arc::new(AtomicBool::new(false)), bench.bootstrap.to_owned());
        let stopped = Arc::clone(&stop);
        let load = thread::spawn(move || produce_until(&bootstrap, &stopped));
        let measured = self.restart_under_load(bench);
        stop.store(true, Ordering::SeqCst);
        load.join().map_err(|_| anyhow!("the load panicked"))??;
        measured
    }

    fn restart_under_load(&self, bench: &Bench<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
        let output = at_the_end(bench, &self.job.output)?;
        let (mut restarts, mut rejoins) = (Vec::new(), Vec::new());
        let mut process = self.program.start()?;
        await_record(bench, &output)?;
        for _ in 0..RESTARTS {
            bench.interrupt.wait_until(Duration::from_secs(3), || Ok(false))?; // there is something to have lost
            process.kill()?;
            drain(&output);
            let started = Instant::now();
            process = self.program.start()?;
            await_record(bench, &output)?;
            restarts.push(started.elapsed().as_secs_f64());
            bench.say(&format!("restart after kill -9: first output after {:.2} s", started.elapsed().as_secs_f64()));
        }
        self.subject.end(process)?;
        // The first takes a place in a new group; each other one takes over from the one before, which is never told.
        for number in 0..=RESTARTS {
            let started = Instant::now();
            let consumer = bare(bench)?;
            await_record(bench, &consumer)?;
            if number > 0 {
                rejoins.push(started.elapsed().as_secs_f64());
            }
            std::mem::forget(consumer);
        }
        Ok((restarts, rejoins))
    }
}

fn tell(bench: &Bench<'_>, restore: &Restore) {
    let Restore { who, records, seconds, cpu_seconds } = restore;
    bench.say(&format!(
        "restore by {who:<14} {} records in {seconds:.2} s, {} a second, {cpu_seconds:.1} s of CPU",
        grouped(*records),
        grouped((*records as f64 / seconds) as u64)
    ));
}

fn changelog_len(bench: &Bench<'_>, topic: &str) -> Result<u64> {
    let ends = Observer::new(bench.bootstrap, "bench")?.watermarks(topic, Isolation::ReadCommitted)?;
    Ok(ends.values().map(|range| u64::try_from(range.end - range.low).unwrap_or(0)).sum())
}

/// Reads a changelog as fast as the client can, and does nothing with it.
fn read_changelog(bench: &Bench<'_>, topic: &str) -> Result<Restore> {
    bench.wait_for_quiet()?;
    let ends = Observer::new(bench.bootstrap, "bench")?.watermarks(topic, Isolation::ReadCommitted)?;
    let before = crate::lab::program::cpu_time(std::process::id())?;
    let started = Instant::now();
    let consumer = consumer(bench, "bench-changelog", &[])?;
    let mut all = TopicPartitionList::new();
    for partition in ends.keys() {
        all.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&all).context("assign the changelog")?;
    let (mut records, mut at_end) = (0, 0);
    while at_end < ends.len() {
        bench.interrupt.check()?;
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_)) => records += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => at_end += 1,
            Some(Err(_)) | None => {}
        }
        ensure!(started.elapsed() < PATIENCE, "the changelog {topic} is not read after {PATIENCE:?}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = crate::lab::program::cpu_time(std::process::id())?.saturating_sub(before).as_secs_f64();
    let restore = Restore { who: "a bare consumer", records, seconds, cpu_seconds: cpu };
    tell(bench, &restore);
    Ok(restore)
}

/// A steady load, with times that begin where the first records have theirs.
fn produce_until(bootstrap: &str, stop: &AtomicBool) -> Result<()> {
    let pace = Pace { rate: Some(RATE), linger_ms: 0 };
    let mut producer = PacedProducer::new(bootstrap, INPUT, PARTITIONS, pace)?;
    let mut random = SplitMix64::new(2);
    let mut timestamp = Workload::new(INPUT, 0, PARTITIONS).base_timestamp;
    while !stop.load(Ordering::SeqCst) {
        let key = format!("sensor-{}", random.below(KEYS));
        producer.send(&key, &(random.unit() * 100.0).to_be_bytes(), timestamp)?;
        timestamp += 1;
    }
    producer.finish()
}

fn idle(bench: &Bench<'_>) -> Result<Idle> {
    let input = "idle-input";
    create_topic(bench.bootstrap, input, PARTITIONS, &TOPIC)?;
    let candidate = Candidate::named(bench, Subject::Processor, "idle-processor", input)?;
    bench.wait_for_quiet()?;
    let started = Instant::now();
    let process = candidate.program.start()?;
    candidate.await_ready(bench, &process)?;
    let ready_seconds = started.elapsed().as_secs_f64();
    let before = process.usage()?.cpu;
    bench.interrupt.wait_until(IDLE_FOR, || Ok(false))?;
    let used = process.usage()?.cpu.saturating_sub(before);
    candidate.subject.end(process)?;
    let cpu_percent_of_a_core = 100.0 * used.as_secs_f64() / IDLE_FOR.as_secs_f64();
    bench.say(&format!("idle: ready after {ready_seconds:.2} s, then {cpu_percent_of_a_core:.1} % of a core"));
    Ok(Idle { ready_seconds, cpu_percent_of_a_core })
}

fn consumer(bench: &Bench<'_>, group: &str, more: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bench.bootstrap)
        .set("client.id", group)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "latest")
        .set("fetch.queue.backoff.ms", "5");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config.create().with_context(|| format!("create a consumer for {}", bench.bootstrap))
}

/// A member of a group with a name, and nothing else.
fn bare(bench: &Bench<'_>) -> Result<BaseConsumer> {
    let consumer = consumer(bench, "bench-bare", &[("group.instance.id", "one"), ("session.timeout.ms", "6000")])?;
    consumer.subscribe(&[INPUT]).context("subscribe to the input")?;
    Ok(consumer)
}

/// A reader of what comes from now on.
fn at_the_end(bench: &Bench<'_>, topic: &str) -> Result<BaseConsumer> {
    let consumer = consumer(bench, "bench-output", &[])?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::End)?;
    }
    consumer.assign(&all).context("assign the output")?;
    Ok(consumer)
}

fn await_record(bench: &Bench<'_>, consumer: &BaseConsumer) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        bench.interrupt.check()?;
        if let Some(Ok(record)) = consumer.poll(LOOK_EVERY) {
            ensure!(record.offset() >= 0, "a record has an offset");
            return Ok(());
        }
    }
    Err(anyhow!("no record for {PATIENCE:?}"))
}

/// Takes what has arrived already.
fn drain(consumer: &BaseConsumer) {
    let mut nothing_since = Instant::now();
    while nothing_since.elapsed() < Duration::from_millis(200) {
        if matches!(consumer.poll(LOOK_EVERY), Some(Ok(_))) {
            nothing_since = Instant::now();
        }
    }
}
