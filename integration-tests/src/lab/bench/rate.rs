//! Rates: how fast a whole topic is averaged, by each subject on the same input and broker.
//!
//! A run begins with the input complete. Its rate is that of the steady state: the records between the first commit that
//! is seen and the last, over the time between the two, so that the start of a process and its joining of the group do
//! not count. CPU time is of the same stretch; memory is the process's peak, start included. The broker gets faster as it
//! warms up: so one run comes before the first round and does not count, and the order of the subjects changes from round to
//! round.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::figures::Spread;
use super::progress::{Committed, Progress, Visible};
use super::subject::{Job, Subject};
use super::work::Work;
use super::{Bench, TOPIC};
use crate::client::{Observer, create_topic, delete_topic};
use crate::lab::program::{Program, Running};
use crate::oracle::{PartitionLog, grouped};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Without any commit for so long, a run has failed.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long the hand-written loop and Kafka Streams collect for a transaction: what Kafka Streams has by itself.
const TRANSACTION_MS: u64 = 100;

/// What one run gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Run {
    pub(super) records_per_second: f64,
    pub(super) cpu_us_per_record: f64,
    pub(super) peak_mib: f64,
    /// From the start of the process to its first commit.
    pub(super) first_commit_seconds: f64,
    /// What other programs had of all cores meanwhile.
    pub(super) others_percent: f64,
}

/// All runs of a work: element `i` of each subject is of round `i`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rates {
    pub(super) work: Work,
    pub(super) runs: BTreeMap<Subject, Vec<Run>>,
}

impl Rates {
    /// A figure of a subject.
    pub(super) fn spread(&self, subject: Subject, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        self.runs.get(&subject).map(|runs| Spread::of(runs.iter().map(figure)))
    }

    /// The processor's figure over another subject's, of each round: what is compared is of the same minute.
    pub(super) fn ratio(&self, other: Subject, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        let (own, other) = (self.runs.get(&Subject::Processor)?, self.runs.get(&other)?);
        Some(Spread::of(own.iter().zip(other).map(|(own, other)| figure(own) / figure(other))))
    }

    /// The loop's rate over Kafka Streams': where that is small, something holds the loop back, and it is no limit.
    pub(super) fn loop_to_streams(&self) -> Option<f64> {
        let (limit, streams) = (self.runs.get(&Subject::HandLoop)?, self.runs.get(&Subject::KafkaStreams)?);
        let ratios =
            limit.iter().zip(streams).map(|(limit, streams)| limit.records_per_second / streams.records_per_second);
        Some(Spread::of(ratios).median)
    }
}

/// Measures all subjects, in every round.
pub(super) fn measure(bench: &Bench<'_>, work: Work, rounds: u32, subjects: &[Subject]) -> Result<Rates> {
    let topic = format!("{}-input", work.name);
    create_topic(bench.bootstrap, &topic, work.partitions, &TOPIC)?;
    bench.say(&format!("{}: producing {} records of {} keys", work.name, grouped(work.records), grouped(work.keys)));
    work.produce(bench.bootstrap, &topic)?;
    let input = Observer::new(bench.bootstrap, &topic)?.read_committed(&topic)?;
    // Before the clock runs: words are counted.
    let whole = Whole { steps: work.steps(&input), input };
    let mut rates = Rates { work, runs: BTreeMap::new() };
    let subjects: Vec<Subject> = subjects.iter().copied().filter(|subject| work.kind.is_done_by(*subject)).collect();
    if let (Some(&first), true) = (subjects.first(), subjects.len() > 1) {
        run(bench, work, first, "warm-up", &whole)?;
    }
    for round in 0..rounds {
        let turned = subjects.iter().cycle().skip(round as usize % subjects.len()).take(subjects.len());
        for &subject in turned {
            let run = run(bench, work, subject, &round.to_string(), &whole)?;
            rates.runs.entry(subject).or_default().push(run);
        }
    }
    Ok(rates)
}

/// All that is to be done.
struct Whole {
    input: Vec<PartitionLog>,
    steps: u64,
}

fn run(bench: &Bench<'_>, work: Work, subject: Subject, round: &str, whole: &Whole) -> Result<Run> {
    let name = format!("{}-{}-{round}", work.name, subject.name());
    let job = Job {
        input: format!("{}-input", work.name),
        output: format!("{name}-output"),
        partitions: work.partitions,
        kind: work.kind,
        stores: work.stores,
        transaction_ms: TRANSACTION_MS,
        processor_options: work.processor_options.to_vec(),
        name,
    };
    create_topic(bench.bootstrap, &job.output, work.partitions, &TOPIC)?;
    let programs = (0..work.workers).map(|worker| job.program(bench, subject, worker));
    let programs = programs.collect::<Result<Vec<_>>>()?;
    let progress = if work.kind.is_done_with_its_input() {
        Progress::Committed(Committed::new(bench.bootstrap, &job.name, &job.input, work.partitions)?)
    } else {
        Progress::Visible(Visible::new(bench.bootstrap, &job.output, work.partitions)?)
    };
    progress.records()?; // finds the brokers before the clock runs
    bench.wait_for_quiet()?;
    let processes = programs.iter().map(Program::start).collect::<Result<Vec<_>>>()?;
    let run = watch(bench, whole.steps, &processes, &progress);
    let run = run.with_context(|| format!("{};{}", job.name, processes[0].log_tail()))?;
    processes.into_iter().try_for_each(|process| subject.end(process))?;
    let outputs = Observer::new(bench.bootstrap, &job.output)?.read_committed(&job.output)?;
    work.check(subject, &whole.input, &outputs).with_context(|| job.name.clone())?;
    delete_topic(bench.bootstrap, &job.output)?;
    bench.say(&format!(
        "{:<24} {:>9} records/s, {:.2} µs of CPU a record, {:.0} MiB at most, first commit after {:.1} s, others {:.0} %; checked",
        job.name,
        grouped(run.records_per_second as u64),
        run.cpu_us_per_record,
        run.peak_mib,
        run.first_commit_seconds,
        run.others_percent,
    ));
    Ok(run)
}

/// Looks at the progress until so many records are done.
fn watch(bench: &Bench<'_>, steps: u64, processes: &[Running], progress: &Progress) -> Result<Run> {
    let started = Instant::now();
    let pids: Vec<u32> = processes.iter().map(Running::pid).collect();
    let cpu = || processes.iter().map(|process| Ok(process.usage()?.cpu)).sum::<Result<Duration>>();
    let mut first = None;
    let (mut last_count, mut moved_at) = (0, started);
    loop {
        bench.interrupt.check()?;
        let (count, now) = (progress.records()?, Instant::now());
        if count > last_count {
            (last_count, moved_at) = (count, now);
            if first.is_none() {
                first = Some((count, now, cpu()?, bench.load(&pids)?));
            }
        }
        if count == steps {
            break;
        }
        if moved_at.elapsed() > STALL_TIMEOUT {
            bail!("no commit for {STALL_TIMEOUT:?}: {count} of {steps} records are committed");
        }
        thread::sleep(POLL_INTERVAL);
    }
    let last_cpu = cpu()?;
    let others = bench.load(&pids)?;
    let peaks = processes.iter().map(|process| Ok(process.usage()?.resident_bytes_max)).sum::<Result<u64>>()?;
    let (first_count, first_at, first_cpu, first_load) = first.context("all was committed before the run began")?;
    let records = (last_count - first_count) as f64;
    let time = moved_at.duration_since(first_at);
    if records == 0.0 || time < Duration::from_millis(100) {
        bail!("the run took {time:?} from first to last commit, too short to measure: use more records");
    }
    Ok(Run {
        records_per_second: records / time.as_secs_f64(),
        cpu_us_per_record: last_cpu.saturating_sub(first_cpu).as_secs_f64() * 1e6 / records,
        peak_mib: peaks as f64 / f64::from(1 << 20),
        first_commit_seconds: first_at.duration_since(started).as_secs_f64(),
        others_percent: others.others_percent_since(&first_load),
    })
}
