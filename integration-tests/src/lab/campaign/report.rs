//! What was done, of one code: kept after every segment, gone on with by the next run, and written for people.
//!
//! Faults and records count only when the segment that they belong to was verified.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::code;
use super::faults::Fault;
use super::resources::Held;
use super::strike::Struck;
use crate::lab::machine::Machine;
use crate::oracle::grouped;

/// So many outputs must have become visible since the last fault for one to count.
pub(super) const COMMITTED_MIN: u64 = 1_000;
const SLOW_NAMED_MAX: usize = 20;

/// The sum over all runs of one code.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// The commit of the first run, and whether the tree held more than it. Later ones may be of commits that change
    /// documents only.
    pub(super) commit: String,
    /// Where the last run was.
    machine: serde_json::Value,
    pub(super) seeds: Vec<u64>,
    pub(super) seconds: f64,
    pub(super) segments: u64,
    /// Records of the ledger and transfers of the bank.
    pub(super) records_verified: u64,
    pub(super) transfers_verified: u64,
    /// How often a worker of the bank was killed, beside the faults.
    pub(super) bank_kills: u64,
    pub(super) faults: BTreeMap<String, OfKind>,
    /// By fault: why the last run could not do it.
    pub(super) not_run: BTreeMap<String, String>,
    /// Segments that prove nothing, and why.
    pub(super) not_counted: Vec<String>,
    pub(super) violations: Vec<Violation>,
    /// Faults that were healed later than they must be.
    pub(super) slow: Vec<String>,
    pub(super) held: Held,
    /// The machine's load average over the last minute, at each fault: on a busy machine everything takes longer.
    pub(super) load_averages: Vec<f32>,
}

/// What was seen of one kind of fault.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct OfKind {
    pub(super) counted: u64,
    /// They missed, or the victim had nothing to lose.
    pub(super) missed: u64,
    bound_ms: u64,
    recovery_ms: Vec<u64>,
    /// The longest that any record was on its way meanwhile.
    delay_ms: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Violation {
    pub(super) segment: String,
    pub(super) seed: u64,
    pub(super) what: String,
    /// What had been done to the segment.
    pub(super) history: Vec<String>,
    /// Where its data are kept.
    pub(super) kept: String,
}

impl Tally {
    /// What was done by this commit before; nothing, if the last run was of another one or of a tree that was changed.
    pub(super) fn continued(directory: &Path) -> Result<Self> {
        let commit = code::commit()?;
        let file = directory.join("report.json");
        let known = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let same = known.filter(|known| code::is_same(&known.commit, &commit));
        let mut tally = same.unwrap_or(Self { commit, ..Self::default() });
        tally.machine = serde_json::to_value(Machine::this())?;
        tally.not_run.clear();
        Ok(tally)
    }

    /// Whether a fault counts: it hit somebody who had something, in the middle of work.
    pub(super) fn counts(struck: &Struck) -> bool {
        struck.hit && struck.owned > 0 && struck.before >= COMMITTED_MIN
    }

    /// Adds a segment that was verified.
    pub(super) fn add(&mut self, segment: &str, [records, transfers]: [u64; 2], struck: &[Struck], held: Held) {
        self.segments += 1;
        self.records_verified += records + transfers;
        self.transfers_verified += transfers;
        self.held.absorb(held);
        for struck in struck {
            let kind = self.faults.entry(struck.fault.name().to_owned()).or_default();
            kind.bound_ms = struck.fault.bound().as_millis() as u64;
            if !Self::counts(struck) {
                kind.missed += 1;
                continue;
            }
            kind.counted += 1;
            kind.recovery_ms.push(struck.recovery.as_millis() as u64);
            kind.delay_ms.push(struck.delay.as_millis() as u64);
            if struck.recovery > struck.fault.bound() {
                self.slow.push(format!("{segment}: {}", struck.line()));
            }
        }
    }

    /// How many faults count.
    pub(super) fn counted(&self) -> u64 {
        self.faults.values().map(|kind| kind.counted).sum()
    }

    /// Writes `report.json` and `report.md`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, bytes: &[u8]| -> Result<()> {
            let (beside, file) = (directory.join(format!("{name}.new")), directory.join(name));
            fs::write(&beside, bytes).with_context(|| format!("cannot write {}", beside.display()))?;
            fs::rename(&beside, &file).with_context(|| format!("cannot write {}", file.display()))
        };
        put("report.json", &serde_json::to_vec_pretty(self)?)?;
        put("report.md", self.markdown().as_bytes())
    }

    /// The report for people.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes it");
        let minutes = Duration::from_secs_f64(self.seconds).as_secs() / 60;
        line(format_args!(
            "# Campaign\n\nCommit {}; {} faults that count, {} records verified in {} segments, {} violation(s); {minutes} min, \
             seeds {:?}.\n\n{}\n",
            self.commit,
            grouped(self.counted()),
            grouped(self.records_verified),
            self.segments,
            self.violations.len(),
            self.seeds,
            self.machine,
        ));
        line(format_args!(
            "Of the records {} are transfers of the bank, whose workers were killed {} times beside all this.\n",
            grouped(self.transfers_verified),
            grouped(self.bank_kills)
        ));
        line(format_args!(
            "Seconds. Recovery: from the strike (from its end for pauses, storms, partitions, full disks and brokers-down) \
             until each partition of the victim shows an output of a record produced after it. Delay: the longest that any \
             record of any partition was on its way.\n"
        ));
        line(format_args!(
            "| fault | counted | missed | recovery p50 | p99 | max | bound | over it | delay p50 | p99 |\n|---|---|---|---|---|---|---|---|---|---|"
        ));
        for fault in Fault::ALL {
            let Some(kind) = self.faults.get(fault.name()) else { continue };
            let over = kind.recovery_ms.iter().filter(|time| **time > kind.bound_ms).count();
            line(format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {over} | {} | {} |",
                fault.name(),
                kind.counted,
                kind.missed,
                percentile(&kind.recovery_ms, 50),
                percentile(&kind.recovery_ms, 99),
                percentile(&kind.recovery_ms, 100),
                seconds(kind.bound_ms),
                percentile(&kind.delay_ms, 50),
                percentile(&kind.delay_ms, 99),
            ));
        }
        line(format_args!(
            "\nWorkers held at most {} descriptors and {} MiB, in {} samples.",
            self.held.descriptors_max,
            self.held.resident_mib_max,
            grouped(self.held.samples)
        ));
        let growth = |of: usize| {
            let mut grown: Vec<f64> = self.held.growth_a_minute.iter().map(|growth| growth[of]).collect();
            grown.sort_unstable_by(f64::total_cmp);
            let at = |percent: usize| grown.get((grown.len() * percent).div_ceil(100).saturating_sub(1));
            let tell = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            format!("p50 {}, p90 {}", tell(at(50)), tell(at(90)))
        };
        line(format_args!(
            "\nGrowth a minute over the second half of their lives, of {} that lived for a minute or longer: {} MiB; {} descriptors.",
            self.held.growth_a_minute.len(),
            growth(0),
            growth(1)
        ));
        for (fault, why) in &self.not_run {
            line(format_args!("\nNot run: {fault}: {why}."));
        }
        for why in &self.not_counted {
            line(format_args!("\nNot counted: {why}."));
        }
        for slow in self.slow.iter().take(SLOW_NAMED_MAX) {
            line(format_args!("\nSlow: {slow}."));
        }
        for violation in &self.violations {
            line(format_args!(
                "\n## Violation in {} (seed {})\n\n{}\n\nIts data are in {}. What was done to it:\n",
                violation.segment, violation.seed, violation.what, violation.kept
            ));
            violation.history.iter().for_each(|struck| line(format_args!("- {struck}")));
        }
        line(format_args!("\nThe faults:\n"));
        for fault in Fault::ALL {
            line(format_args!("- {}: {}", fault.name(), fault.meaning()));
        }
        text
    }
}

impl Struck {
    /// In one line.
    pub(super) fn line(&self) -> String {
        let note = if Tally::counts(self) { "" } else { "; does not count" };
        let late = if self.recovery > self.fault.bound() { "; over its bound" } else { "" };
        format!(
            "{} {}: {} partition(s), back after {:.1} s, records up to {:.1} s late{late}{note}",
            self.fault.name(),
            self.victim,
            self.owned,
            self.recovery.as_secs_f32(),
            self.delay.as_secs_f32()
        )
    }
}

/// The value that so many of a hundred do not exceed, in seconds.
fn percentile(values_ms: &[u64], percent: usize) -> String {
    let mut sorted = values_ms.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or_else(|| "-".to_owned(), |value| seconds(*value))
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1}", milliseconds as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(before: u64, hit: bool, seconds: u64) -> Struck {
        Struck {
            fault: Fault::WorkerKill,
            victim: "one".to_owned(),
            owned: 3,
            before,
            recovery: Duration::from_secs(seconds),
            delay: Duration::from_secs(seconds),
            hit,
        }
    }

    #[test]
    fn only_what_hit_in_the_middle_of_work_counts() {
        let mut tally = Tally::default();
        let nobody = Struck { owned: 0, ..struck(5_000, true, 1) };
        tally.add(
            "s",
            [9, 1],
            &[struck(5_000, true, 1), struck(999, true, 1), struck(5_000, false, 1), nobody],
            Held::default(),
        );
        assert_eq!((tally.counted(), tally.faults["worker-kill"].missed, tally.records_verified), (1, 3, 10));
    }

    #[test]
    fn what_is_over_its_bound_is_named() {
        let mut tally = Tally::default();
        tally.add("s", [9, 1], &[struck(5_000, true, 1), struck(5_000, true, 9)], Held::default());
        assert_eq!(tally.slow.len(), 1);
        assert!(
            tally.markdown().contains("| worker-kill | 2 | 0 | 1.0 | 9.0 | 9.0 | 3.0 | 1 |"),
            "{}",
            tally.markdown()
        );
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let values: Vec<u64> = (1..=100).map(|value| value * 1_000).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), ("50.0".to_owned(), "99.0".to_owned()));
        assert_eq!(percentile(&[], 50), "-");
    }
}
