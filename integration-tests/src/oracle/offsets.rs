//! O3: committed offsets never go back, and end where the input ends.

use std::collections::BTreeMap;

use super::PartitionLog;
use super::verdict::{Kind, Verdict};

/// Where the committed offset of each partition must end: behind its last record.
pub fn input_ends(input: &[PartitionLog]) -> BTreeMap<i32, i64> {
    input.iter().map(|log| (log.partition, log.records.last().map_or(0, |record| record.offset + 1))).collect()
}

/// Compares committed offsets with the input's ends. An input partition without records needs no offset.
pub fn check_offsets(committed: &BTreeMap<i32, i64>, input_end: &BTreeMap<i32, i64>) -> Verdict {
    let mut verdict = Verdict::new("partitions", "committed offsets");
    verdict.inputs = input_end.len() as u64;
    verdict.outputs = committed.len() as u64;
    for (partition, end) in input_end {
        let found = committed.get(partition);
        let kind = match found {
            Some(found) if found == end => continue,
            None if *end == 0 => continue,
            Some(found) if found > end => Kind::Wrong,
            Some(_) | None => Kind::Lost,
        };
        verdict.violate(kind, format_args!("partition {partition}"), || (end.to_string(), describe(found)));
    }
    for (partition, found) in committed.iter().filter(|(partition, _)| !input_end.contains_key(*partition)) {
        verdict.violate(Kind::Wrong, format_args!("partition {partition}"), || ("no offset".into(), found.to_string()));
    }
    verdict
}

/// Checks observations of the same group, in the order they were made: no offset goes back or disappears.
pub fn check_offsets_monotone<'a>(observations: impl IntoIterator<Item = &'a BTreeMap<i32, i64>>) -> Verdict {
    let mut verdict = Verdict::new("observations", "offsets");
    let mut highest: BTreeMap<i32, i64> = BTreeMap::new();
    for observation in observations {
        verdict.inputs += 1;
        verdict.outputs += observation.len() as u64;
        for (partition, before) in &highest {
            let now = observation.get(partition);
            if now.is_none_or(|now| now < before) {
                let at = format_args!("partition {partition} in observation {}", verdict.inputs).to_string();
                verdict.violate(Kind::Reordered, at, || (format!("{before} or more"), describe(now)));
            }
        }
        for (partition, now) in observation {
            let before = highest.entry(*partition).or_insert(*now);
            *before = (*before).max(*now);
        }
    }
    verdict
}

fn describe(offset: Option<&i64>) -> String {
    offset.map_or_else(|| "none".to_owned(), ToString::to_string)
}
