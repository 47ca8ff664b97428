//! `lab bench`: how fast the processor is, beside Kafka Streams and a loop written by hand, which is the limit.
//!
//! Everything is measured in one run against one broker, in processes of their own, and every output is checked by the
//! oracle: a wrong answer has no speed. Figures are compared as ratios within a round, for machines differ and change.

#![expect(clippy::print_stdout, reason = "this is a command line")]

mod chart;
mod figures;
mod guard;
pub mod hand_loop;
mod latency;
mod load;
mod progress;
mod rate;
mod reader;
mod report;
mod starts;
mod subject;
mod work;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, value_parser};

use self::latency::Candidate;
use self::load::{Load, OTHERS_PERCENT_MAX};
use self::report::Report;
use self::subject::{Subject, has_peer};
use self::work::{Kind, Work};
use super::interrupt::Interrupt;
use super::machine::Machine;
use crate::broker::{ClusterConfig, KafkaCluster};
use crate::oracle::grouped;

const WINDOW: usize = 10;
/// The workload's timestamps are in the past, where the broker's default of a week would delete them.
const TOPIC: [(&str, &str); 1] = [("retention.ms", "-1")];

/// State that fits into every cache.
const SMALL: Work = Work::average("small-state");
/// State that does not, with the memory that the processor may take for it.
const LARGE: Work = Work {
    records: 3_000_000,
    keys: 1_000_000,
    processor_options: &[("memory-budget", "256MiB")],
    ..Work::average("large-state")
};
/// Heavier operators than an average.
const HEAVIER: [Work; 3] = [
    Work { kind: Kind::JsonAverage, records: 1_000_000, ..Work::average("json") },
    Work { kind: Kind::Chain, records: 1_000_000, ..Work::average("chain") },
    Work { kind: Kind::Count, records: 500_000, ..Work::average("count") },
];
/// From the first, in one direction each.
const GROWTH: [Work; 11] = [
    Work::average("of-4-partitions"),
    Work { partitions: 16, ..Work::average("of-16-partitions") },
    Work { partitions: 64, ..Work::average("of-64-partitions") },
    Work { stores: 3, ..Work::average("of-3-stores") },
    Work { kind: Kind::Last, ..Work::average("of-8-bytes") },
    Work { kind: Kind::Last, value_bytes: 1 << 10, records: 500_000, ..Work::average("of-1-KiB") },
    Work { keys: 100_000, ..Work::average("of-100k-keys") },
    Work { keys: 1_000_000, ..Work::average("of-1M-keys") },
    Work { keys: 10_000_000, records: 10_000_000, ..Work::average("of-10M-keys") },
    Work { processor_options: &[("threads", "2")], ..Work::average("of-2-threads") },
    Work { workers: 3, ..Work::average("of-3-workers") },
];
/// Records a second.
const LATENCY_RATES: [u64; 3] = [1_000, 10_000, 50_000];
/// A quick run has so many times fewer records.
const QUICK: u64 = 5;
const QUICK_SECONDS: u64 = 5;

/// Measure throughput, memory and latency beside Kafka Streams and a loop written by hand.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A fifth of the records, one round, 5 s of latency at the lowest rate: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Measure these only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Also write the figures of all rounds to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also write the tables to this file, as Markdown, and a chart of the rates beside it.
    #[arg(long)]
    page: Option<PathBuf>,
    /// After a quick run, compare its ratios with those in this file, and fail if one has lost more than 20 %.
    #[arg(long, value_name = "FILE", requires = "quick")]
    guard: Option<PathBuf>,
    /// After a quick run, write its ratios to the file of --guard instead.
    #[arg(long, requires = "guard")]
    keep_ratios: bool,
    /// How often each rate is measured.
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each latency is measured.
    #[arg(long, default_value_t = 15, value_parser = value_parser!(u64).range(1..))]
    latency_seconds: u64,
    /// Before each measurement, wait up to so many seconds for other programs to leave the machine alone.
    #[arg(long, default_value_t = 10)]
    wait_quiet: u64,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Rate and memory with 10,000 keys.
    SmallState,
    /// Rate and memory with 1,000,000 keys.
    LargeState,
    /// Heavier operators: JSON, a chain of three, counting by way of an internal topic.
    Heavier,
    /// The processor alone: more partitions, stores, keys, threads and workers, larger values.
    Growth,
    /// Latency at steady rates.
    Latency,
    /// Restore, restart after kill -9, an idle start.
    Starts,
}

/// What the measurements need.
struct Bench<'a> {
    args: &'a BenchArgs,
    dir: &'a Path,
    bootstrap: &'a str,
    kafka_pid: u32,
    interrupt: &'a Interrupt,
    started: Instant,
}

impl Bench<'_> {
    /// What everything has used that belongs to the measurement of these.
    fn load(&self, processes: &[u32]) -> Result<Load> {
        Load::of(&self.own(processes))
    }

    fn wait_for_quiet(&self) -> Result<()> {
        let timeout = Duration::from_secs(self.args.wait_quiet);
        let others = load::wait_for_quiet(&self.own(&[]), timeout, self.interrupt)?;
        if others > OTHERS_PERCENT_MAX {
            self.say(&format!("NOTE: other programs use {others:.0} % of this machine"));
        }
        Ok(())
    }

    fn own(&self, processes: &[u32]) -> Vec<u32> {
        [std::process::id(), self.kafka_pid].iter().chain(processes).copied().collect()
    }

    fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.started.elapsed().as_secs_f32());
    }
}

/// Runs `lab bench`, with `target` being the directory for run-time data.
///
/// # Errors
/// Something could not be measured, an output is wrong, or a target is missed.
pub fn run(args: &BenchArgs, target: &Path) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let target = std::path::absolute(target).with_context(|| format!("no path: {}", target.display()))?;
    let dir = target.join("bench");
    let _lock = claim(&dir)?;
    let machine = Machine::this();
    println!("{machine}");
    let started = Instant::now();
    let kafka = KafkaCluster::start(ClusterConfig::single(dir.join("kafka")))?;
    interrupt.check()?;
    let bootstrap = kafka.bootstrap_servers();
    let kafka_pid = kafka.pid(1).context("Kafka has ended")?;
    let bench = Bench { args, dir: &dir, bootstrap: &bootstrap, kafka_pid, interrupt: &interrupt, started };
    bench.say("Kafka is ready");
    if !has_peer() {
        bench.say("NOTE: Kafka Streams is not there, so nothing is compared with it: start the benchmark as ./x bench");
    }
    let mut report = Report::of(machine);
    for (part, work) in [(Part::SmallState, SMALL), (Part::LargeState, LARGE)] {
        if args.measures(part) {
            report.rates.push(bench.rates(work)?);
        }
    }
    if args.measures(Part::Heavier) {
        for work in HEAVIER {
            report.rates.push(bench.rates(work)?);
        }
    }
    if args.measures(Part::Growth) {
        for work in GROWTH {
            report.growth.push(rate::measure(&bench, bench.sized(work), 1, &[Subject::Processor])?);
        }
    }
    if args.measures(Part::Latency) {
        bench.latencies(&mut report)?;
    }
    if args.measures(Part::Starts) {
        let records = if args.quick { LARGE.records / QUICK } else { LARGE.records };
        report.starts = Some(starts::measure(&bench, records, if args.quick { 1 } else { args.rounds })?);
    }
    report.show(args.json.as_deref(), args.page.as_deref())?;
    match &args.guard {
        Some(kept) if args.keep_ratios => guard::keep(&report.ratios(), kept),
        Some(kept) => guard::compare(&report.ratios(), kept),
        // A quick run's figures are not to be quoted, and no target is theirs.
        None if args.quick => Ok(()),
        None => report.judge(),
    }
}

impl Bench<'_> {
    fn rates(&self, work: Work) -> Result<rate::Rates> {
        let subjects: Vec<Subject> = Subject::ALL.into_iter().filter(|subject| is_there(*subject)).collect();
        let rounds = if self.args.quick { 1 } else { self.args.rounds };
        rate::measure(self, self.sized(work), rounds, &subjects)
    }

    /// The work, or a part of it in a quick run.
    fn sized(&self, work: Work) -> Work {
        let records = if self.args.quick { work.records / QUICK } else { work.records };
        Work { records, ..work }
    }

    fn latencies(&self, report: &mut Report) -> Result<()> {
        let (rates, seconds) = if self.args.quick {
            (&LATENCY_RATES[..1], self.args.latency_seconds.min(QUICK_SECONDS))
        } else {
            (&LATENCY_RATES[..], self.args.latency_seconds)
        };
        for &rate in rates {
            self.say(&format!("latency at {} records/s for {seconds} s", grouped(rate)));
            for candidate in Candidate::ALL.into_iter().filter(|candidate| is_there(candidate.subject)) {
                report.latencies.push(latency::measure(self, candidate, rate, seconds)?);
            }
        }
        Ok(())
    }
}

fn is_there(subject: Subject) -> bool {
    subject != Subject::KafkaStreams || has_peer()
}

impl BenchArgs {
    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Empties the directory, which belongs to one run at a time.
fn claim(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another benchmark of this checkout runs: wait for it, or end it"),
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the benchmark's directory"),
    }
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let removed = match path.file_name() {
            Some(name) if name == "lock" => Ok(()),
            Some(_) | None if path.is_dir() => fs::remove_dir_all(&path),
            Some(_) | None => fs::remove_file(&path),
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(lock)
}
