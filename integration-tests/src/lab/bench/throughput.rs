//! Throughput: how fast a whole topic is averaged, beside the hand-written loop on the same input and broker.
//!
//! A run begins with the input complete. Its rate is that of the steady state: the records between the first commit that
//! is seen and the last, over the time between the two, so that the start of a process and its joining of the group do
//! not count. CPU time is of the same stretch; memory is the process's peak, start included. The order of the two
//! changes from round to round, since the broker gets faster as it warms up.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::committed::Committed;
use super::subject::{Subject, hand_loop, moving_average};
use super::{Bench, TOPIC, WINDOW};
use crate::client::{Observer, Workload, create_topic, delete_topic, produce_readings};
use crate::lab::program::Running;
use crate::oracle::{PartitionLog, check_moving_average, grouped};

const INPUT: &str = "throughput-input";
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Without any commit for so long, a run has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the hand-written loop collects for a transaction.
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

/// All runs: element `i` of each is of round `i`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Throughput {
    pub(super) records: u64,
    pub(super) keys: u64,
    pub(super) partitions: i32,
    pub(super) hand_loop: Vec<Run>,
    pub(super) moving_average: Vec<Run>,
}

/// Measures both, in every round.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Throughput> {
    let args = bench.args;
    create_topic(bench.bootstrap, INPUT, args.partitions, &TOPIC)?;
    let workload = Workload { keys: args.keys, ..Workload::new(INPUT, args.records, args.partitions) };
    bench.say(&format!("producing {} records", grouped(args.records)));
    produce_readings(bench.bootstrap, &workload)?;
    let input = Observer::new(bench.bootstrap, INPUT)?.read_committed(INPUT)?;

    let (records, keys, partitions) = (args.records, args.keys, args.partitions);
    let mut result = Throughput { records, keys, partitions, ..Throughput::default() };
    for round in 0..args.rounds {
        let both = [Subject::HandLoop, Subject::MovingAverage];
        let order = if round % 2 == 0 { both } else { [both[1], both[0]] };
        for subject in order {
            let run = run(bench, subject, round, &input)?;
            match subject {
                Subject::HandLoop => result.hand_loop.push(run),
                Subject::MovingAverage => result.moving_average.push(run),
            }
        }
    }
    Ok(result)
}

fn run(bench: &Bench<'_>, subject: Subject, round: u32, input: &[PartitionLog]) -> Result<Run> {
    let group = format!("{}-{round}", subject.name());
    let output = format!("{group}-output");
    let partitions = bench.args.partitions;
    create_topic(bench.bootstrap, &output, partitions, &TOPIC)?;
    let program = match subject {
        Subject::HandLoop => hand_loop(bench, &group, INPUT, &output, TRANSACTION_MS)?,
        Subject::MovingAverage => moving_average(bench, &group, INPUT, &output)?,
    };
    let committed = Committed::new(bench.bootstrap, &group, INPUT, partitions)?;
    committed.records()?; // finds the coordinator before the clock runs
    bench.wait_for_quiet()?;
    let process = program.start()?;
    let run = watch(bench, &process, &committed).with_context(|| format!("{group};{}", process.log_tail()))?;
    subject.end(process)?;
    let outputs = Observer::new(bench.bootstrap, &output)?.read_committed(&output)?;
    let verdict = check_moving_average(input, &outputs, WINDOW);
    if !verdict.is_ok() || verdict.inputs != bench.args.records {
        bail!("{group} is wrong, so its speed means nothing: {verdict}");
    }
    delete_topic(bench.bootstrap, &output)?;
    bench.say(&format!(
        "{group:<17} {:>9} records/s, {:.2} µs of CPU a record, {:.0} MiB at most, first commit after {:.1} s, others {:.0} %; checked",
        grouped(run.records_per_second as u64),
        run.cpu_us_per_record,
        run.peak_mib,
        run.first_commit_seconds,
        run.others_percent,
    ));
    Ok(run)
}

/// Looks at the committed offsets until all records are done.
fn watch(bench: &Bench<'_>, process: &Running, committed: &Committed) -> Result<Run> {
    let started = Instant::now();
    let mut first = None;
    let (mut last_count, mut moved_at) = (0, started);
    loop {
        bench.interrupt.check()?;
        let (count, now) = (committed.records()?, Instant::now());
        if count > last_count {
            (last_count, moved_at) = (count, now);
            if first.is_none() {
                first = Some((count, now, process.usage()?.cpu, bench.load(Some(process.pid()))?));
            }
        }
        if count == bench.args.records {
            break;
        }
        if moved_at.elapsed() > STALL_TIMEOUT {
            bail!("no commit for {STALL_TIMEOUT:?}: {count} of {} records are committed", bench.args.records);
        }
        thread::sleep(POLL_INTERVAL);
    }
    let usage = process.usage()?;
    let others = bench.load(Some(process.pid()))?;
    let (first_count, first_at, first_cpu, first_load) = first.context("all was committed before the run began")?;
    let records = (last_count - first_count) as f64;
    let time = moved_at.duration_since(first_at);
    if records == 0.0 || time < Duration::from_millis(100) {
        bail!("the run took {time:?} from first to last commit, too short to measure: use more --records");
    }
    Ok(Run {
        records_per_second: records / time.as_secs_f64(),
        cpu_us_per_record: usage.cpu.saturating_sub(first_cpu).as_secs_f64() * 1e6 / records,
        peak_mib: usage.resident_bytes_max as f64 / f64::from(1 << 20),
        first_commit_seconds: first_at.duration_since(started).as_secs_f64(),
        others_percent: others.others_percent_since(&first_load),
    })
}
