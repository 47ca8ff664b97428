//! Records of a batch that were not processed, by their policy: some are named in the log, all are counted.

use std::collections::BTreeMap;

use crate::metrics::ThreadMetrics;

/// How many records of a batch that were passed over alike have a line of their own in the log.
const NAMED_MAX: u64 = 20;

/// How many records of a batch were passed over, by (what became of them, why).
#[derive(Debug, Default)]
pub(super) struct PassedOver(BTreeMap<(&'static str, &'static str), u64>);

impl PassedOver {
    /// Adds a record, and says whether the log is to name it: one line a record could be as much as the input.
    pub(super) fn add(&mut self, outcome: &'static str, kind: &'static str) -> bool {
        let count = self.0.entry((outcome, kind)).or_default();
        *count += 1;
        *count <= NAMED_MAX
    }

    /// The batch is committed: they count, and those without a name are told.
    pub(super) fn committed(self, metrics: &ThreadMetrics, records: usize) {
        for ((outcome, kind), count) in self.0 {
            metrics.passed_over(outcome, kind, count);
            if let Some(more @ 1..) = count.checked_sub(NAMED_MAX) {
                tracing::warn!(kind, "{more} more records of the batch are {outcome}, {records} were committed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_are_named_and_all_are_counted() {
        let mut passed_over = PassedOver::default();
        let named = (0..50).filter(|_| passed_over.add("skipped", "decode")).count();
        assert_eq!(named, 20);
        assert!(passed_over.add("dead-lettered", "decode") && passed_over.add("skipped", "process"), "others are, too");
        let counts: Vec<_> = passed_over.0.into_iter().collect();
        assert_eq!(
            counts,
            [(("dead-lettered", "decode"), 1), (("skipped", "decode"), 50), (("skipped", "process"), 1)]
        );
    }
}
