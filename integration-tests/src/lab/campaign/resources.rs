//! O10: what workers hold. One that lives for long must not hold more and more.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// Far above what eight tasks need, and far below what a leak of one descriptor or one batch a turn reaches.
const DESCRIPTORS_MAX: u64 = 600;
const RESIDENT_MIB_MAX: u64 = 600;

/// The most that any worker held.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) samples: u64,
    pub(super) descriptors_max: u64,
    pub(super) resident_mib_max: u64,
}

/// Looks at the processes of a segment.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) held: Held,
    /// By process: the samples of its life.
    seen: BTreeMap<u32, u64>,
}

impl Resources {
    /// Looks at one process; what is wrong with it.
    pub(super) fn sample(&mut self, pid: u32) -> Result<(), String> {
        // It may be ending.
        let Some((descriptors, resident_mib)) = look(pid) else { return Ok(()) };
        *self.seen.entry(pid).or_default() += 1;
        self.held.samples += 1;
        self.held.descriptors_max = self.held.descriptors_max.max(descriptors);
        self.held.resident_mib_max = self.held.resident_mib_max.max(resident_mib);
        if descriptors > DESCRIPTORS_MAX || resident_mib > RESIDENT_MIB_MAX {
            return Err(format!(
                "O10: process {pid} holds {descriptors} descriptors (at most {DESCRIPTORS_MAX}) and {resident_mib} MiB \
                 (at most {RESIDENT_MIB_MAX}), at its sample {}",
                self.seen[&pid]
            ));
        }
        Ok(())
    }
}

impl Held {
    pub(super) fn absorb(&mut self, other: Self) {
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
        resources.sample(std::process::id()).expect("a test is small");
        assert!(resources.held.descriptors_max > 2 && resources.held.resident_mib_max > 0);
    }

    #[test]
    fn one_that_is_gone_is_not_counted() {
        let mut resources = Resources::default();
        resources.sample(u32::MAX).expect("there is nothing to say");
        assert_eq!(resources.held.samples, 0);
    }
}
