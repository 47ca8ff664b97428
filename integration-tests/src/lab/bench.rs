//! `lab bench`: how fast the processor is, beside what a loop written by hand can do at best on the same machine.
//!
//! Everything is measured in one run against one broker, in processes of their own, and every output is checked by the
//! oracle: a wrong answer has no speed. The targets are those of the project's plan for this stage.

#![expect(clippy::print_stdout, reason = "this is a command line")]

mod committed;
mod figures;
pub mod hand_loop;
mod latency;
mod load;
mod subject;
mod throughput;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;

use self::figures::Spread;
use self::latency::Latency;
use self::load::{Load, OTHERS_PERCENT_MAX};
use self::subject::Subject;
use self::throughput::{Run, Throughput};
use super::interrupt::Interrupt;
use super::machine::Machine;
use crate::broker::{ClusterConfig, KafkaCluster};
use crate::oracle::grouped;

const WINDOW: usize = 10;
/// The workload's timestamps are in the past, where the broker's default of a week would delete them.
const TOPIC: [(&str, &str); 1] = [("retention.ms", "-1")];

const RATE_PERCENT_MIN: f64 = 40.0;
const PEAK_MIB_MAX: f64 = 300.0;
const MEDIAN_MS_MAX: f64 = 25.0;

/// Measure throughput, memory and latency of `moving-average` beside a loop written by hand.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A fifth of the records, one round, 5 s of latency: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Measure this only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Also write the figures of all rounds to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many records the throughput is measured with.
    #[arg(long, default_value_t = 2_000_000, value_parser = value_parser!(u64).range(1..))]
    records: u64,
    /// Of how many keys.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..))]
    keys: u64,
    /// In how many partitions.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(i32).range(1..))]
    partitions: i32,
    /// How often the throughput is measured.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long the latency is measured.
    #[arg(long, default_value_t = 15, value_parser = value_parser!(u64).range(1..))]
    latency_seconds: u64,
    /// Before each measurement, wait up to so many seconds for other programs to leave the machine alone.
    #[arg(long, default_value_t = 10)]
    wait_quiet: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Throughput,
    Latency,
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
    /// What everything has used that belongs to the measurement of `process`.
    fn load(&self, process: Option<u32>) -> Result<Load> {
        Load::of(&self.own(process))
    }

    fn wait_for_quiet(&self) -> Result<()> {
        let timeout = Duration::from_secs(self.args.wait_quiet);
        let others = load::wait_for_quiet(&self.own(None), timeout, self.interrupt)?;
        if others > OTHERS_PERCENT_MAX {
            self.say(&format!("NOTE: other programs use {others:.0} % of this machine"));
        }
        Ok(())
    }

    fn own(&self, process: Option<u32>) -> Vec<u32> {
        [Some(std::process::id()), Some(self.kafka_pid), process].into_iter().flatten().collect()
    }

    fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.started.elapsed().as_secs_f32());
    }
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    throughput: Option<Throughput>,
    latency: Option<Latencies>,
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latencies {
    hand_loop: Latency,
    moving_average: Latency,
}

#[derive(Clone, Debug, Serialize)]
struct Target {
    what: &'static str,
    measured: f64,
    bound: f64,
    holds: bool,
}

/// Runs `lab bench`, with `target` being the directory for run-time data.
///
/// # Errors
/// Something could not be measured, an output is wrong, or a target is missed.
pub fn run(args: &BenchArgs, target: &Path) -> Result<()> {
    let mut chosen = args.clone();
    if args.quick {
        (chosen.records, chosen.rounds, chosen.latency_seconds) = (args.records / 5, 1, args.latency_seconds.min(5));
    }
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
    let bench = Bench { args: &chosen, dir: &dir, bootstrap: &bootstrap, kafka_pid, interrupt: &interrupt, started };
    bench.say("Kafka is ready");
    let throughput = chosen.measures(Part::Throughput).then(|| throughput::measure(&bench)).transpose()?;
    let latency = chosen.measures(Part::Latency).then(|| measure_latency(&bench)).transpose()?;
    let targets = targets(throughput.as_ref(), latency.as_ref());
    conclude(&Report { machine, throughput, latency, targets }, args.json.as_deref())
}

fn measure_latency(bench: &Bench<'_>) -> Result<Latencies> {
    bench.say(&format!("latency at {} records/s for {} s", grouped(latency::RATE), bench.args.latency_seconds));
    let hand_loop = latency::measure(bench, Subject::HandLoop)?;
    let moving_average = latency::measure(bench, Subject::MovingAverage)?;
    Ok(Latencies { hand_loop, moving_average })
}

impl BenchArgs {
    fn measures(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
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

fn targets(throughput: Option<&Throughput>, latency: Option<&Latencies>) -> Vec<Target> {
    let mut targets = Vec::new();
    if let Some(throughput) = throughput {
        let percent = Spread::of(ratios(throughput)).median;
        let peak = Spread::of(throughput.moving_average.iter().map(|run| run.peak_mib)).max;
        targets.push(Target {
            what: "percent of the loop's rate, at least",
            measured: percent,
            bound: RATE_PERCENT_MIN,
            holds: percent >= RATE_PERCENT_MIN,
        });
        targets.push(Target {
            what: "MiB of memory, at most",
            measured: peak,
            bound: PEAK_MIB_MAX,
            holds: peak <= PEAK_MIB_MAX,
        });
    }
    if let Some(latency) = latency {
        targets.push(Target {
            what: "ms median latency, at most",
            measured: latency.moving_average.p50,
            bound: MEDIAN_MS_MAX,
            holds: latency.moving_average.p50 <= MEDIAN_MS_MAX,
        });
    }
    targets
}

/// The processor's rate in percent of the loop's, of each round.
fn ratios(throughput: &Throughput) -> impl Iterator<Item = f64> {
    let rounds = throughput.moving_average.iter().zip(&throughput.hand_loop);
    rounds.map(|(own, limit)| 100.0 * own.records_per_second / limit.records_per_second)
}

fn conclude(report: &Report, json: Option<&Path>) -> Result<()> {
    if let Some(throughput) = &report.throughput {
        print_throughput(throughput);
    }
    if let Some(latency) = &report.latency {
        print_latency(latency);
    }
    print_disturbance(report);
    println!();
    for Target { what, measured, bound, holds } in &report.targets {
        println!("{}  {measured:.1} {what} {bound:.0}", if *holds { "pass" } else { "FAIL" });
    }
    if let Some(path) = json {
        let text = serde_json::to_vec_pretty(report).context("cannot write the figures as JSON")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(report.targets.iter().all(|target| target.holds), "a target is missed");
    Ok(())
}

/// Says when the figures are of a busy machine.
fn print_disturbance(report: &Report) {
    let runs = report.throughput.iter().flat_map(|both| both.hand_loop.iter().chain(&both.moving_average));
    let latencies = report.latency.iter().flat_map(|both| [both.hand_loop, both.moving_average]);
    let others = runs.map(|run| run.others_percent).chain(latencies.map(|latency| latency.others_percent));
    let most = others.fold(0.0, f64::max);
    if most > OTHERS_PERCENT_MAX {
        println!("\nNOTE: other programs had up to {most:.0} % of this machine meanwhile: do not quote these figures");
    }
}

fn print_throughput(throughput: &Throughput) {
    let Throughput { records, keys, partitions, hand_loop, moving_average } = throughput;
    let (records, keys, rounds) = (grouped(*records), grouped(*keys), hand_loop.len());
    println!(
        "\n{records} records of 8 bytes, {keys} keys, {partitions} partitions; min, median, max of {rounds} round(s)"
    );
    println!("  {:<18} {:>31}   {:>19}   {:>17}", "", "records/s", "CPU µs a record", "peak MiB");
    for (name, runs) in [("hand-written loop", hand_loop), ("moving-average", moving_average)] {
        let spread = |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(figure));
        let rate = spread(|run| run.records_per_second);
        let [min, median, max] = [rate.min, rate.median, rate.max].map(|rate| grouped(rate as u64));
        let (cpu, peak) = (spread(|run| run.cpu_us_per_record), spread(|run| run.peak_mib));
        println!(
            "  {name:<18} {min:>9}  {median:>9}  {max:>9}   {:>5.2}  {:>5.2}  {:>5.2}   {:>4.0}   {:>4.0}   {:>4.0}",
            cpu.min, cpu.median, cpu.max, peak.min, peak.median, peak.max
        );
    }
    let percent: Vec<String> = ratios(throughput).map(|ratio| format!("{ratio:.0} %")).collect();
    println!("  rate of moving-average in each round: {} of the loop's", percent.join(", "));
}

fn print_latency(latency: &Latencies) {
    let Latency { records_per_second, seconds, .. } = latency.moving_average;
    println!("\nend-to-end latency at {} records/s over {seconds} s, in ms", grouped(records_per_second));
    println!("  {:<18} {:>8} {:>8} {:>8} {:>8}   CPU µs a record", "", "p50", "p90", "p99", "max");
    let both = [("hand-written loop", latency.hand_loop), ("moving-average", latency.moving_average)];
    for (name, Latency { p50, p90, p99, max, cpu_us_per_record, .. }) in both {
        println!("  {name:<18} {p50:>8.1} {p90:>8.1} {p99:>8.1} {max:>8.1}   {cpu_us_per_record:>15.0}");
    }
}
