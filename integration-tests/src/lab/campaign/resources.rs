//! O10: what workers hold. One that lives for long must not hold more and more.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// Far above what eight tasks need, and far below what a leak of one descriptor or one batch a turn reaches.
const DESCRIPTORS_MAX: u64 = 600;
const RESIDENT_MIB_MAX: u64 = 600;

/// A process that lives for less says nothing about growth: its caches and memtables fill.
const GROWTH_SECONDS_MIN: f64 = 60.0;

/// The most that any worker held, and what those that lived for long have grown by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) samples: u64,
    pub(super) descriptors_max: u64,
    pub(super) resident_mib_max: u64,
    /// Of each process that lived for a minute or longer: MiB and descriptors a minute, over the second half of its life.
    pub(super) growth_a_minute: Vec<[f64; 2]>,
}

/// Looks at the processes of a segment.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) held: Held,
    /// By process: the samples of its life, as seconds, MiB, descriptors.
    seen: BTreeMap<u32, Vec<[f64; 3]>>,
}

impl Resources {
    /// Looks at one process; what is wrong with it.
    pub(super) fn sample(&mut self, pid: u32, seconds: f64) -> Result<(), String> {
        // It may be ending.
        let Some((descriptors, resident_mib)) = look(pid) else { return Ok(()) };
        let samples = self.seen.entry(pid).or_default();
        samples.push([seconds, resident_mib as f64, descriptors as f64]);
        let number = samples.len();
        self.held.samples += 1;
        self.held.descriptors_max = self.held.descriptors_max.max(descriptors);
        self.held.resident_mib_max = self.held.resident_mib_max.max(resident_mib);
        if descriptors > DESCRIPTORS_MAX || resident_mib > RESIDENT_MIB_MAX {
            return Err(format!(
                "O10: process {pid} holds {descriptors} descriptors (at most {DESCRIPTORS_MAX}) and {resident_mib} MiB \
                 (at most {RESIDENT_MIB_MAX}), at its sample {number}"
            ));
        }
        Ok(())
    }
}

impl Resources {
    /// What was held, over all processes.
    pub(super) fn held(&self) -> Held {
        let grown = self.seen.values().filter_map(|samples| growth(samples)).collect();
        Held { growth_a_minute: grown, ..self.held.clone() }
    }
}

/// MiB and descriptors a minute over the second half of a life, if that is long enough: the slope of the line that lies
/// closest to the samples.
fn growth(samples: &[[f64; 3]]) -> Option<[f64; 2]> {
    let half = &samples[samples.len() / 2..];
    let (first, last) = (half.first()?, half.last()?);
    if last[0] - first[0] < GROWTH_SECONDS_MIN / 2.0 || half.len() < 3 {
        return None;
    }
    let mean = |of: usize| half.iter().map(|sample| sample[of]).sum::<f64>() / half.len() as f64;
    let time = mean(0);
    let slope = |of: usize| {
        let value = mean(of);
        let both: f64 = half.iter().map(|sample| (sample[0] - time) * (sample[of] - value)).sum();
        both / half.iter().map(|sample| (sample[0] - time).powi(2)).sum::<f64>() * 60.0
    };
    Some([slope(1), slope(2)])
}

impl Held {
    pub(super) fn absorb(&mut self, other: Self) {
        self.growth_a_minute.extend(other.growth_a_minute);
        self.samples += other.samples;
        self.descriptors_max = self.descriptors_max.max(other.descriptors_max);
        self.resident_mib_max = self.resident_mib_max.max(other.resident_mib_max);
    }
}

fn look(pid: u32) -> Option<(u64, u64)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
    Some((descriptors, kibibytes / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something_and_not_too_much() {
        let mut resources = Resources::default();
        resources.sample(std::process::id(), 0.0).expect("a test is small");
        assert!(resources.held.descriptors_max > 2 && resources.held.resident_mib_max > 0);
    }

    #[test]
    fn one_that_is_gone_is_not_counted() {
        let mut resources = Resources::default();
        resources.sample(u32::MAX, 0.0).expect("there is nothing to say");
        assert_eq!(resources.held.samples, 0);
    }

    #[test]
    fn growth_is_told_of_what_lived_long_enough() {
        let grows = |minutes: u32| -> Vec<[f64; 3]> {
            (0..minutes * 6).map(|at| [f64::from(at) * 10.0, 40.0 + f64::from(at) * 0.5, 100.0]).collect()
        };
        assert_eq!(growth(&grows(1)), None);
        let [mib, descriptors] = growth(&grows(4)).expect("it lived for four minutes");
        assert!((mib - 3.0).abs() < 1e-9 && descriptors.abs() < 1e-9, "{mib}, {descriptors}");
    }
}
