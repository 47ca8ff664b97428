//! What else the machine did while something was measured: a figure from a busy machine says little.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::interrupt::Interrupt;
use crate::lab::program::cpu_time;

/// More than this, and a figure is marked.
pub(super) const OTHERS_PERCENT_MAX: f64 = 10.0;
const QUIET_FOR: Duration = Duration::from_secs(1);
/// `/proc/stat` counts in steps of 10 ms.
const TICK_MS: u64 = 10;

/// The CPU times of the whole machine and of the processes that belong to the measurement, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Load {
    at: Instant,
    cores: usize,
    all: Duration,
    own: Vec<(u32, Duration)>,
}

impl Load {
    /// Now. A process that is gone is not looked at.
    pub(super) fn of(own: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let first = stat.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<u64> = first.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
        // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
        let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum();
        let own = own.iter().filter_map(|pid| Some((*pid, cpu_time(*pid).ok()?))).collect();
        let cores = stat.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        Ok(Self { at: Instant::now(), cores, all: Duration::from_millis(busy * TICK_MS), own })
    }

    /// How much of the machine other processes have had from then to now, in percent of all cores.
    pub(super) fn others_percent_since(&self, then: &Self) -> f64 {
        let before = |pid| then.own.iter().find(|(known, _)| *known == pid).map_or(Duration::ZERO, |(_, time)| *time);
        let own: Duration = self.own.iter().map(|(pid, time)| time.saturating_sub(before(*pid))).sum();
        let others = self.all.saturating_sub(then.all).saturating_sub(own);
        let available = self.at.duration_since(then.at).as_secs_f64() * self.cores as f64;
        100.0 * others.as_secs_f64() / available.max(f64::MIN_POSITIVE)
    }
}

/// Waits until others have left the machine alone for a second, or until the time is over; says what they last had.
pub(super) fn wait_for_quiet(own: &[u32], timeout: Duration, interrupt: &Interrupt) -> Result<f64> {
    let deadline = Instant::now() + timeout;
    loop {
        let before = Load::of(own)?;
        interrupt.wait_until(QUIET_FOR, || Ok(false))?;
        let others = Load::of(own)?.others_percent_since(&before);
        if others <= OTHERS_PERCENT_MAX || Instant::now() >= deadline {
            return Ok(others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_the_others() -> Result<()> {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let before = Load { at: now, cores: 2, all: second, own: vec![(7, second)] };
        let after = Load { at: now + 2 * second, cores: 2, all: 4 * second, own: vec![(7, 2 * second), (8, second)] };
        assert!((after.others_percent_since(&before) - 25.0).abs() < 1e-9, "1 s of 4 s");
        assert!(Load::of(&[std::process::id()])?.own.len() == 1);
        Ok(())
    }
}
