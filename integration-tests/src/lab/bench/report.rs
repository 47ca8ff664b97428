//! What was measured: as tables for people, as JSON, as a page, and held against the targets.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::chart;
use super::figures::Spread;
use super::guard::Ratios;
use super::latency::Latency;
use super::load::OTHERS_PERCENT_MAX;
use super::rate::{Rates, Run};
use super::starts::{Restore, Starts};
use super::subject::Subject;
use crate::lab::machine::Machine;
use crate::oracle::grouped;

/// Where the loop is not so many times as fast as Kafka Streams, something holds it back, and it is no limit.
const LOOP_TO_STREAMS_MIN: f64 = 2.9;

/// How everything was measured, for the page.
const SETTINGS: &str = "\
Written by `./x bench`. All programs run in turn on one broker and the same inputs, and every output is checked before its speed counts.
Figures are to be compared as ratios within a run: machines differ.

- the hand-written loop: one thread, state in a hash map, thin clients over the C API, a transaction of 100 ms with the outputs, one
  changelog record for each changed key, and the offsets; `fetch.queue.backoff.ms` 5, librdkafka's own queue sizes, no compression
- the processor: one stream thread, as it is out of the box but for `producer.compression.type=none`, which the others have, and
  `memory.budget` 256 MiB for the large state
- Kafka Streams: `exactly_once_v2`, one stream thread (on two cores more of them are slower), `commit.interval.ms` 100, for latency also 10 and 25,
  a cached RocksDB store with 64 MiB for the cache, `-Xmx1g`, everything else as it is by itself
- of `count` a record is a word, and one is done when a reader of the counts, which runs along, has seen its count
";

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    pub(super) rates: Vec<Rates>,
    /// Of the processor alone; each work is the first one with one thing changed.
    pub(super) growth: Vec<Rates>,
    pub(super) latencies: Vec<Latency>,
    pub(super) starts: Option<Starts>,
}

/// A figure that is to be reached.
#[derive(Clone, Debug, Serialize)]
struct Target {
    what: String,
    measured: f64,
    bound: f64,
    at_least: bool,
}

impl Target {
    fn holds(&self) -> bool {
        if self.at_least { self.measured >= self.bound } else { self.measured <= self.bound }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, measured, bound, at_least } = self;
        let (holds, than) =
            (if self.holds() { "pass" } else { "FAIL" }, if *at_least { "at least" } else { "at most" });
        write!(f, "{holds}  {what}: {measured:.2}, {than} {bound}")
    }
}

impl Report {
    pub(super) fn of(machine: Machine) -> Self {
        Self { machine, rates: Vec::new(), growth: Vec::new(), latencies: Vec::new(), starts: None }
    }

    /// Shows everything, and keeps it where that is asked for.
    pub(super) fn show(&self, json: Option<&Path>, page: Option<&Path>) -> Result<()> {
        let tables = self.tables();
        println!("\n{tables}");
        if let Some(path) = json {
            let text = serde_json::to_vec_pretty(self).context("cannot write the figures as JSON")?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = page {
            let picture = path.with_extension("svg");
            let name = picture.file_name().unwrap_or_default().display();
            let targets: Vec<String> = self.targets().iter().map(|target| format!("- {target}")).collect();
            let page = format!(
                "# Benchmarks\n\n{SETTINGS}\nMeasured on {}.\n\n{}\n\n![rates]({name})\n\n{tables}## targets\n\n{}\n",
                jiff::Timestamp::now().strftime("%Y-%m-%d"),
                self.machine,
                targets.join("\n")
            );
            fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
            let chart = chart::of(&self.rates);
            fs::write(&picture, chart).with_context(|| format!("cannot write {}", picture.display()))?;
        }
        Ok(())
    }

    /// Fails if a target is missed.
    pub(super) fn judge(&self) -> Result<()> {
        let targets = self.targets();
        for target in &targets {
            println!("{target}");
        }
        let missed = targets.iter().filter(|target| !target.holds()).count();
        ensure!(missed == 0, "{missed} target(s) are missed");
        Ok(())
    }

    /// What the guard looks at: more is better.
    pub(super) fn ratios(&self) -> Ratios {
        let mut ratios = Ratios::new();
        for rates in &self.rates {
            for other in [Subject::HandLoop, Subject::KafkaStreams] {
                let (name, other_name) = (rates.work.name, other.name());
                if let Some(ratio) = rates.ratio(other, |run| run.records_per_second) {
                    ratios.insert(format!("{name}: rate to {other_name}"), ratio.median);
                }
                if let Some(ratio) = rates.ratio(other, |run| 1.0 / run.cpu_us_per_record) {
                    ratios.insert(format!("{name}: records a CPU second to {other_name}"), ratio.median);
                }
            }
        }
        ratios
    }

    /// What must not cost much: partitions, and sharing the work. Three stores are three times the work.
    fn growth_ratios(&self) -> Vec<(&'static str, f64, f64)> {
        let rate =
            |rates: &Rates| rates.spread(Subject::Processor, |run| run.records_per_second).map(|spread| spread.median);
        let Some(first) = self.growth.first().and_then(rate) else { return Vec::new() };
        let bounds = self.growth.iter().filter_map(|rates| {
            let bound = match rates.work.name {
                "of-16-partitions" | "of-64-partitions" => 0.85,
                "of-3-stores" => 0.85 / 3.0,
                "of-2-threads" | "of-3-workers" => 0.9,
                _ => return None,
            };
            Some((rates.work.name, rate(rates)? / first, bound))
        });
        bounds.collect()
    }

    fn tables(&self) -> String {
        let mut text = String::new();
        self.rates.iter().for_each(|rates| write_rates(&mut text, rates).expect("a string takes it"));
        if !self.growth.is_empty() {
            write_growth(&mut text, &self.growth).expect("a string takes it");
        }
        if !self.latencies.is_empty() {
            write_latencies(&mut text, &self.latencies).expect("a string takes it");
        }
        if let Some(starts) = &self.starts {
            write_starts(&mut text, starts).expect("a string takes it");
        }
        if let Some(most) = self.disturbance().filter(|most| *most > OTHERS_PERCENT_MAX) {
            write!(
                text,
                "NOTE: other programs had up to {most:.0} % of this machine meanwhile: do not quote these figures\n\n"
            )
            .expect("a string takes it");
        }
        text
    }

    /// What other programs have had of the machine, at most.
    fn disturbance(&self) -> Option<f64> {
        let rates = self.rates.iter().chain(&self.growth);
        let runs = rates.flat_map(|rates| rates.runs.values().flatten()).map(|run| run.others_percent);
        runs.chain(self.latencies.iter().map(|latency| latency.others_percent)).reduce(f64::max)
    }

    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut target = |what: String, measured: Option<f64>, bound: f64, at_least: bool| {
            targets.extend(measured.map(|measured| Target { what, measured, bound, at_least }));
        };
        for rates in &self.rates {
            let name = rates.work.name;
            let (of_loop, of_streams, cpu, peak) = match name {
                "small-state" => (0.9, 3.0, Some(1.25), Some(200.0)),
                "large-state" => (0.7, 2.5, None, Some(600.0)),
                _ => (0.0, 2.5, None, None),
            };
            let ratio = |other, figure: fn(&Run) -> f64| rates.ratio(other, figure).map(|spread| spread.median);
            let rate = |run: &Run| run.records_per_second;
            target(format!("{name}: loop to Kafka Streams"), rates.loop_to_streams(), LOOP_TO_STREAMS_MIN, true);
            target(format!("{name}: rate to the loop's"), ratio(Subject::HandLoop, rate), of_loop, true);
            target(format!("{name}: rate to Kafka Streams'"), ratio(Subject::KafkaStreams, rate), of_streams, true);
            if let Some(bound) = cpu {
                let measured = ratio(Subject::HandLoop, |run| run.cpu_us_per_record);
                target(format!("{name}: CPU a record to the loop's"), measured, bound, false);
            }
            if let Some(bound) = peak {
                let measured = rates.spread(Subject::Processor, |run| run.peak_mib).map(|spread| spread.max);
                target(format!("{name}: MiB of memory"), measured, bound, false);
            }
        }
        for (name, measured, bound) in self.growth_ratios() {
            target(format!("growth, {name}: rate to the first's"), Some(measured), bound, true);
        }
        for latency in self.latencies.iter().filter(|latency| latency.candidate.subject == Subject::Processor) {
            let (p50, p99) = match latency.records_per_second {
                1_000 => (15.0, 45.0),
                10_000 => (18.0, 50.0),
                _ => (35.0, 90.0),
            };
            let rate = grouped(latency.records_per_second);
            target(format!("latency at {rate}/s: p50 in ms"), Some(latency.p50), p50, false);
            target(format!("latency at {rate}/s: p99 in ms"), Some(latency.p99), p99, false);
        }
        if let Some(starts) = &self.starts {
            let rate = |who| {
                let of = starts.restores.iter().filter(|restore| restore.who == who);
                let rates: Vec<f64> = of.map(|restore| restore.records as f64 / restore.seconds).collect();
                (!rates.is_empty()).then(|| Spread::of(rates).median)
            };
            let cpu = |who| {
                let of = starts.restores.iter().filter(|restore| restore.who == who);
                let cpu: Vec<f64> = of.map(|restore| restore.cpu_seconds / restore.records.max(1) as f64).collect();
                (!cpu.is_empty()).then(|| Spread::of(cpu).median)
            };
            let ratio = |of: Option<f64>, to: Option<f64>| Some(of? / to?);
            let (own, streams) = (Subject::Processor.name(), Subject::KafkaStreams.name());
            target(
                "restore: rate to a bare consumer's".to_owned(),
                ratio(rate(own), rate("a bare consumer")),
                0.7,
                true,
            );
            target("restore: CPU to Kafka Streams'".to_owned(), ratio(cpu(own), cpu(streams)), 1.0 / 3.0, false);
            let median = |seconds: &[f64]| (!seconds.is_empty()).then(|| Spread::of(seconds.iter().copied()).median);
            let above = median(&starts.restarts).zip(median(&starts.rejoins)).map(|(restart, rejoin)| restart - rejoin);
            target("restart after kill -9: s above a bare consumer".to_owned(), above, 1.0, false);
            let above = median(&starts.moves).zip(median(&starts.bare_moves)).map(|(moved, bare)| moved - bare);
            target("moved away and back: s above a bare consumer".to_owned(), above, 1.0, false);
            target("idle: s until ready".to_owned(), starts.idle.map(|idle| idle.ready_seconds), 1.0, false);
            target("idle: % of a core".to_owned(), starts.idle.map(|idle| idle.cpu_percent_of_a_core), 1.0, false);
        }
        targets
    }
}

fn write_rates(text: &mut String, rates: &Rates) -> fmt::Result {
    let work = rates.work;
    let rounds = rates.runs.values().map(Vec::len).max().unwrap_or(0);
    writeln!(text, "## {}\n", work.name)?;
    writeln!(
        text,
        "{} records, {} keys, {} partitions; median (least to most) of {rounds} round(s); ratios are the medians of those within each \
         round.\n",
        grouped(work.records),
        grouped(work.keys),
        work.partitions
    )?;
    writeln!(text, "| | records/s | the processor's is | CPU µs a record | peak MiB |\n|---|---|---|---|---|")?;
    for subject in Subject::ALL.into_iter().filter(|subject| rates.runs.contains_key(subject)) {
        let cell = |figure: fn(&Run) -> f64, show: &dyn Fn(f64) -> String| {
            let spread = rates.spread(subject, figure).expect("it was measured");
            let Spread { min, median, max } = spread;
            format!("{} ({} to {})", show(median), show(min), show(max))
        };
        let ratio = rates.ratio(subject, |run| run.records_per_second).map_or(1.0, |ratio| ratio.median);
        writeln!(
            text,
            "| {} | {} | {ratio:.2} of it | {} | {} |",
            subject.name(),
            cell(|run| run.records_per_second, &|rate| grouped(rate as u64)),
            cell(|run| run.cpu_us_per_record, &|cpu| format!("{cpu:.2}")),
            cell(|run| run.peak_mib, &|peak| format!("{peak:.0}"))
        )?;
    }
    writeln!(text)
}

fn write_growth(text: &mut String, growth: &[Rates]) -> fmt::Result {
    writeln!(text, "## growth\n")?;
    writeln!(
        text,
        "The processor alone, once each: a moving average, or the last value kept, with one thing changed at a time.\n"
    )?;
    writeln!(text, "| | records | records/s | values MiB/s | CPU µs a record | peak MiB |\n|---|---|---|---|---|---|")?;
    for rates in growth {
        let Some(run) = rates.runs.get(&Subject::Processor).and_then(|runs| runs.first()) else { continue };
        let Run { records_per_second, cpu_us_per_record, peak_mib, .. } = run;
        let mib = records_per_second * rates.work.value_bytes as f64 / f64::from(1 << 20);
        let (name, records, rate) = (rates.work.name, grouped(rates.work.records), grouped(*records_per_second as u64));
        writeln!(text, "| {name} | {records} | {rate} | {mib:.0} | {cpu_us_per_record:.2} | {peak_mib:.0} |")?;
    }
    writeln!(text)
}

fn write_latencies(text: &mut String, latencies: &[Latency]) -> fmt::Result {
    writeln!(text, "## latency\n")?;
    writeln!(
        text,
        "End to end, in ms: from a record's being handed to a producer to its average in a `read_committed` consumer.\n"
    )?;
    writeln!(
        text,
        "| records/s | | p50 | p90 | p99 | max | transactions/s | CPU µs a record |\n|---|---|---|---|---|---|---|---|"
    )?;
    for latency in latencies {
        let Latency { candidate, records_per_second, p50, p90, p99, max, .. } = latency;
        let Latency { transactions_per_second, cpu_us_per_record, .. } = latency;
        writeln!(
            text,
            "| {} | {} | {p50:.1} | {p90:.1} | {p99:.1} | {max:.1} | {transactions_per_second:.0} | {cpu_us_per_record:.0} |",
            grouped(*records_per_second),
            candidate.name()
        )?;
    }
    writeln!(text)
}

fn write_starts(text: &mut String, starts: &Starts) -> fmt::Result {
    writeln!(text, "## starts\n")?;
    writeln!(text, "Restore of all state, from nothing, until every task runs.\n")?;
    writeln!(text, "| | records | s | records/s | CPU s |\n|---|---|---|---|---|")?;
    for Restore { who, records, seconds, cpu_seconds } in &starts.restores {
        let rate = grouped((*records as f64 / seconds) as u64);
        writeln!(text, "| {who} | {} | {seconds:.2} | {rate} | {cpu_seconds:.1} |", grouped(*records))?;
    }
    let listed = |seconds: &[f64]| seconds.iter().map(|second| format!("{second:.2}")).collect::<Vec<_>>().join(", ");
    writeln!(
        text,
        "\nRestart after `kill -9` under 1,000 records/s, until the first new output: {} s.",
        listed(&starts.restarts)
    )?;
    writeln!(text, "A bare static consumer, until its first record: {} s.", listed(&starts.rejoins))?;
    writeln!(
        text,
        "\nA second worker came and went: from its end to the first new output of a partition that it had: {} s.",
        listed(&starts.moves)
    )?;
    writeln!(text, "The same of two bare consumers, to the first record: {} s.\n", listed(&starts.bare_moves))?;
    if let Some(idle) = starts.idle {
        let (ready, cpu) = (idle.ready_seconds, idle.cpu_percent_of_a_core);
        writeln!(text, "An idle worker: ready after {ready:.2} s, then {cpu:.1} % of a core.")?;
    }
    writeln!(text)
}
