//! What a load has produced, beside what the brokers have acknowledged.

use std::collections::HashSet;

use super::PartitionLog;
use super::verdict::{Kind, Verdict};

/// Nothing that was acknowledged is missing from the input, and what is there beyond it repeats another record: an
/// idempotent producer that begins a new epoch sends again what it has not heard of, and that may be there already.
///
/// The input is what its log says, so a repeated record is processed as often as it is there.
pub fn check_input(input: &[PartitionLog], acknowledged: u64) -> Verdict {
    let mut verdict = Verdict::new("acknowledged", "there");
    verdict.inputs = acknowledged;
    let mut repeats = 0;
    for log in input {
        let mut seen = HashSet::new();
        for record in &log.records {
            verdict.outputs += 1;
            let is_new = seen.insert((record.timestamp, &record.key, &record.value, &record.headers));
            repeats += u64::from(!is_new);
        }
    }
    let there = verdict.outputs;
    let kind = match there {
        _ if there < acknowledged => Kind::Lost,
        _ if there > acknowledged + repeats => Kind::Wrong,
        _ => return verdict,
    };
    let expected = || (format!("{acknowledged}, and up to {repeats} that are repeated"), there.to_string());
    verdict.violate(kind, format_args!("the input"), expected);
    verdict
}
