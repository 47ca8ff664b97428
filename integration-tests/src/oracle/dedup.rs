//! The deduplication, computed again: per partition the first record of each id, while the id is remembered.
//!
//! Time is the highest timestamp of the partition so far. An id is remembered for so long from when it was first seen;
//! behind the first record at or after each full second, ids that are over are forgotten.

use std::collections::{BTreeMap, HashMap};

use super::alignment::{Place, align};
use super::state::{State, key_of_time_and_text, value_of_i64, value_of_nothing};
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog, by_partition};

/// How often ids are forgotten.
const FORGET_EVERY_MS: i64 = 1_000;

/// What the program should have made of one partition.
struct Expected<'a> {
    firsts: Vec<&'a LogRecord>,
    /// The ids that are stored at the end, and when each was seen.
    stored: HashMap<&'a [u8], i64>,
}

/// Checks that of the records exactly the first ones went on, as they came and in their order.
pub fn check_dedup(input: &[PartitionLog], output: &[PartitionLog], remember_ms: i64) -> Verdict {
    let mut verdict = Verdict::new("first records", "records");
    for (partition, records, found) in by_partition(input, output) {
        let firsts = expected(records, remember_ms).firsts;
        verdict.inputs += firsts.len() as u64;
        verdict.outputs += found.len() as u64;
        let causes: Vec<_> = firsts.iter().map(|record| identity(record)).collect();
        let effects: Vec<_> = found.iter().map(identity).collect();
        let (places, lost) = align(&causes, &effects);
        for (record, place) in found.iter().zip(places) {
            let at = format_args!("{partition}@{}", record.offset);
            let kind = match place {
                Place::InOrder(_) => continue,
                Place::OutOfOrder(_) => Kind::Reordered,
                Place::Doubled(_) => Kind::Doubled,
                Place::Unknown => Kind::Wrong,
            };
            verdict.violate(kind, at, || ("the first record of an id, in order".into(), record.key_text()));
        }
        for record in lost.into_iter().map(|lost| firsts[lost]) {
            let at = format_args!("input {partition}@{}", record.offset);
            verdict
                .violate(Kind::Lost, at, || (format!("the first record of {}", record.key_text()), "nothing".into()));
        }
    }
    verdict
}

/// The states that the input leads to: when each id was seen, and the ids by that time.
pub fn expected_dedup_states(input: &[PartitionLog], remember_ms: i64) -> [State; 2] {
    let (mut seen, mut by_time) = (State::new(), State::new());
    for log in input {
        for (id, at) in expected(&log.records, remember_ms).stored {
            seen.insert(id.to_vec(), value_of_i64(at));
            by_time.insert(key_of_time_and_text(at, id), value_of_nothing());
        }
    }
    [seen, by_time]
}

/// How often each id is there.
pub fn records_by_id(logs: &[PartitionLog]) -> BTreeMap<Vec<u8>, u64> {
    let mut records = BTreeMap::new();
    for record in logs.iter().flat_map(|log| &log.records) {
        *records.entry(record.key.clone().unwrap_or_default()).or_default() += 1;
    }
    records
}

fn expected(records: &[LogRecord], remember_ms: i64) -> Expected<'_> {
    let (mut firsts, mut stored) = (Vec::new(), HashMap::new());
    let (mut now, mut forget_at) = (i64::MIN, None);
    for record in records {
        now = now.max(record.timestamp);
        let id = record.key.as_deref().unwrap_or_default();
        if stored.get(id).is_none_or(|seen| now - seen >= remember_ms) {
            stored.insert(id, now);
            firsts.push(record);
        }
        let next = (now.div_euclid(FORGET_EVERY_MS) + 1) * FORGET_EVERY_MS;
        if forget_at.is_some_and(|due| due <= now) {
            stored.retain(|_, seen| now - *seen < remember_ms);
        }
        forget_at = Some(next);
    }
    Expected { firsts, stored }
}

fn identity(record: &LogRecord) -> (Option<&[u8]>, Option<&[u8]>, i64) {
    (record.key.as_deref(), record.value.as_deref(), record.timestamp)
}
