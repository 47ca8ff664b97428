//! What a load has produced, beside what the brokers have acknowledged.

use std::collections::HashSet;

use super::PartitionLog;
use super::verdict::{Kind, Verdict};

/// Everything that was acknowledged is in the input, and nothing else; more than once, perhaps: an idempotent producer that
/// begins a new epoch sends again what it has not heard of, and that may be there already.
///
/// No two records that were produced may be alike: by that a repeated one is known. The input is what its log says, so what
/// is there twice is processed twice.
pub fn check_input(input: &[PartitionLog], acknowledged: u64) -> Verdict {
    let mut verdict = Verdict::new("acknowledged", "there");
    verdict.inputs = acknowledged;
    let mut distinct = 0;
    for log in input {
        let mut seen = HashSet::new();
        for record in &log.records {
            verdict.outputs += 1;
            let is_new = seen.insert((record.timestamp, &record.key, &record.value, &record.headers));
            distinct += u64::from(is_new);
        }
    }
    let kind = match distinct {
        _ if distinct < acknowledged => Kind::Lost,
        _ if distinct > acknowledged => Kind::Wrong,
        _ => return verdict,
    };
    let repeated = verdict.outputs - distinct;
    let found = || (format!("{acknowledged} different records"), format!("{distinct}, and {repeated} repeated"));
    verdict.violate(kind, format_args!("the input"), found);
    verdict
}
