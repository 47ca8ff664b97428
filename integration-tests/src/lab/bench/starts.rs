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
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use serde::Serialize;
use serde_json::Value;

use super::progress::Committed;
use super::subject::{Job, Subject, has_peer};
use super::work::Kind;
use super::{Bench, TOPIC, reader};
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
    /// Seconds from the end of a second worker to the first new output of a partition that it had; of each visit.
    pub(super) moves: Vec<f64>,
    /// The same of bare consumers, to the first record.
    pub(super) bare_moves: Vec<f64>,
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
    (starts.restarts, starts.rejoins) = under_load(bench, || processor.restarts(bench))?;
    (starts.moves, starts.bare_moves) = under_load(bench, || processor.moves(bench))?;
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
        Self::of(bench, subject, job, 0)
    }

    fn of(bench: &Bench<'_>, subject: Subject, job: Job, worker: usize) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let http = port.context("no free port")?.to_string();
        let mut program = job.program(bench, subject, worker)?;
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
        let output = at_the_end(bench, &self.job.output, 0..PARTITIONS)?;
        let (mut restarts, mut rejoins) = (Vec::new(), Vec::new());
        let mut process = self.program.start()?;
        await_record(bench, &output)?;
        for _ in 0..RESTARTS {
            something_to_lose(bench)?;
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
            let consumer = bare(bench, "bench-bare", &[("group.instance.id", "one")])?;
            await_record(bench, &consumer)?;
            if number > 0 {
                rejoins.push(started.elapsed().as_secs_f64());
            }
            std::mem::forget(consumer);
        }
        Ok((restarts, rejoins))
    }

    /// A second worker comes and goes, again and again, under load: the partitions that it had are back where their state has
    /// stayed. Beside it, a second bare consumer does the same.
    fn moves(&self, bench: &Bench<'_>) -> Result<(Vec<f64>, Vec<f64>)> {
        let process = self.program.start()?;
        self.await_ready(bench, &process)?;
        let guest = Self::guest(bench, &self.job)?;
        let (mut moves, mut bare_moves) = (Vec::new(), Vec::new());
        for _ in 0..RESTARTS {
            let visit = guest.program.start()?;
            let mut partitions = Vec::new();
            bench.interrupt.wait_until(PATIENCE, || {
                partitions = guest.partitions_at_work().unwrap_or_default();
                Ok(!partitions.is_empty())
            })?;
            ensure!(!partitions.is_empty(), "a second worker gets no partition;{}", visit.log_tail());
            something_to_lose(bench)?;
            guest.subject.end(visit)?;
            let started = Instant::now();
            await_record(bench, &at_the_end(bench, &self.job.output, partitions)?)?;
            moves.push(started.elapsed().as_secs_f64());
            bench.say(&format!("moved away and back: first output after {:.2} s", started.elapsed().as_secs_f64()));
        }
        self.subject.end(process)?;
        let first = bare(bench, "bench-moves", &[("group.instance.id", "one")])?;
        await_record(bench, &first)?;
        for _ in 0..RESTARTS {
            let partitions = visited(bench, &first)?;
            let started = Instant::now();
            await_record_of(bench, &first, &partitions)?;
            bare_moves.push(started.elapsed().as_secs_f64());
        }
        Ok((moves, bare_moves))
    }

    /// The same application's second worker, which takes half of the partitions and leaves the group when it stops.
    fn guest(bench: &Bench<'_>, job: &Job) -> Result<Self> {
        let job = Job { processor_options: vec![("memory-budget", "256MiB")], ..job.clone() };
        Self::of(bench, Subject::Processor, job, 1)
    }

    /// Whose tasks run here.
    fn partitions_at_work(&self) -> Result<Vec<i32>> {
        let answer: Value = serde_json::from_str(&http::get(&self.http, "/tasks", &[])?.body).context("no JSON")?;
        let tasks = answer["tasks"].as_array().into_iter().flatten().filter(|task| task["state"] == "running");
        let inputs = tasks.flat_map(|task| task["inputs"].as_array().into_iter().flatten());
        Ok(inputs.filter_map(|input| input["partition"].as_i64()?.try_into().ok()).collect())
    }
}

/// A load for as long as something is measured.
fn under_load<T>(bench: &Bench<'_>, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let (stop, bootstrap) = (Arc::new(AtomicBool::new(false)), bench.bootstrap.to_owned());
    let stopped = Arc::clone(&stop);
    let load = thread::spawn(move || produce_until(&bootstrap, &stopped));
    let measured = measure();
    stop.store(true, Ordering::SeqCst);
    load.join().map_err(|_| anyhow!("the load panicked"))??;
    measured
}

/// Waits until a worker has done some work since it came.
fn something_to_lose(bench: &Bench<'_>) -> Result<()> {
    bench.interrupt.wait_until(Duration::from_secs(3), || Ok(false)).map(drop)
}

/// A second consumer joins the first one's group and leaves it. Returns the partitions that it had.
fn visited(bench: &Bench<'_>, first: &BaseConsumer) -> Result<Vec<i32>> {
    let second = bare(bench, "bench-moves", &[])?;
    let mut partitions = Vec::new();
    bench.interrupt.wait_until(PATIENCE, || {
        // Both have to poll for a rebalance to come to its end.
        first.poll(LOOK_EVERY);
        if let Some(Ok(_)) = second.poll(LOOK_EVERY) {
            let assigned = second.assignment().context("ask for the assignment")?;
            partitions = assigned.elements().iter().map(TopicPartitionListElem::partition).collect();
        }
        Ok(!partitions.is_empty())
    })?;
    ensure!(!partitions.is_empty(), "a second consumer gets no record");
    Ok(partitions)
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
    let consumer = reader::client(bench.bootstrap, "bench-changelog", &[("enable.partition.eof", "true")])?;
    reader::read(&consumer, topic, ends.keys().copied(), Offset::Beginning)?;
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

/// A member of a group, and nothing else.
fn bare(bench: &Bench<'_>, group: &str, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut all =
        vec![("auto.offset.reset", "latest"), ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
    all.extend(settings);
    let consumer = reader::client(bench.bootstrap, group, &all)?;
    consumer.subscribe(&[INPUT]).context("subscribe to the input")?;
    Ok(consumer)
}

/// A reader of what comes to these partitions from now on.
fn at_the_end(bench: &Bench<'_>, topic: &str, partitions: impl IntoIterator<Item = i32>) -> Result<BaseConsumer> {
    let consumer = reader::client(bench.bootstrap, "bench-output", &[])?;
    reader::read(&consumer, topic, partitions, Offset::End)?;
    Ok(consumer)
}

fn await_record(bench: &Bench<'_>, consumer: &BaseConsumer) -> Result<()> {
    await_record_of(bench, consumer, &(0..PARTITIONS).collect::<Vec<_>>())
}

fn await_record_of(bench: &Bench<'_>, consumer: &BaseConsumer, partitions: &[i32]) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        bench.interrupt.check()?;
        if let Some(Ok(record)) = consumer.poll(LOOK_EVERY)
            && partitions.contains(&record.partition())
        {
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
