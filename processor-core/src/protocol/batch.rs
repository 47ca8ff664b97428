//! How many records the next transaction may have.
//!
//! A transaction has a price that does not depend on its records. With little load it holds what is there, and is
//! committed at once. Under load it grows until that price is a small part of the turn, and shrinks when a turn
//! takes longer than its budget.

use std::time::Duration;

/// The bounds of a transaction.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
/// # let ms = Duration::from_millis;
/// let bounds = BatchBounds { records_start: 100, records_max: 250, turn_max: ms(200) };
/// let mut size = BatchSize::new(bounds);
/// let full = |records| TurnCost { records, process: ms(1), commit: ms(10) };
/// let grown = [100, 200, 250].map(|records| {
///     size.learn(&full(records));
///     size.records_max()
/// });
/// assert_eq!(grown, [200, 250, 250]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// How many records the first one may have.
    pub records_start: usize,
    /// Never more than this.
    pub records_max: usize,
    /// How long a turn may take before batches shrink; well under the transaction time-out.
    pub turn_max: Duration,
}

/// Adapts the number of records that a transaction may have.
///
/// ```
/// # use std::time::Duration;
/// use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
///
/// # let ms = Duration::from_millis;
/// let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
/// let mut size = BatchSize::new(bounds);
/// // A trickle: what is there is committed at once, and the batch need not be larger.
/// size.learn(&TurnCost { records: 3, process: ms(1), commit: ms(10) });
/// assert_eq!(size.records_max(), 100);
/// // Load: the batch was full, and the commit most of the turn.
/// size.learn(&TurnCost { records: 100, process: ms(1), commit: ms(10) });
/// assert_eq!(size.records_max(), 200);
/// // Slow records: the turn took twice as long as it may.
/// size.learn(&TurnCost { records: 200, process: ms(400), commit: ms(0) });
/// assert_eq!(size.records_max(), 100);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    bounds: BatchBounds,
    records: usize,
}

/// What a turn cost.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
/// # let ms = Duration::from_millis;
/// # let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
/// # let mut size = BatchSize::new(bounds);
/// let cost = TurnCost { records: 100, process: ms(30), commit: ms(10) };
/// assert!(cost.commit * 8 > cost.process + cost.commit); // more than an eighth of the turn
/// size.learn(&cost);
/// assert_eq!(size.records_max(), 200);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TurnCost {
    /// How many records it processed.
    pub records: usize,
    /// How long it took to process them.
    pub process: Duration,
    /// How long it took to drain, send the offsets, commit and apply.
    pub commit: Duration,
}

/// The commit's part of a turn above which a full batch grows: one part in this many.
const COMMIT_SHARE: u32 = 8;

impl BatchSize {
    /// Starts with the first batch's size.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
    /// # let ms = Duration::from_millis;
    /// let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
    /// assert_eq!(BatchSize::new(bounds).records_max(), 100);
    /// ```
    ///
    /// # Panics
    /// If `records_start` is 0, or more than `records_max`.
    pub fn new(bounds: BatchBounds) -> Self {
        assert!(0 < bounds.records_start && bounds.records_start <= bounds.records_max, "batch bounds are ordered");
        Self { bounds, records: bounds.records_start }
    }

    /// How many records the next one may have.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
    /// # let ms = Duration::from_millis;
    /// # let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
    /// let size = BatchSize::new(bounds);
    /// let mut log = 0..250; // what waits in the topic
    /// let batch: Vec<_> = log.by_ref().take(size.records_max()).collect();
    /// assert_eq!((batch.len(), log.len()), (100, 150));
    /// ```
    pub fn records_max(&self) -> usize {
        self.records
    }

    /// Learns from a turn.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
    /// # let ms = Duration::from_millis;
    /// # let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
    /// # let mut size = BatchSize::new(bounds);
    /// // A turn twice as long would be over its budget, so a full batch grows by an eighth only.
    /// size.learn(&TurnCost { records: 100, process: ms(80), commit: ms(40) });
    /// assert_eq!(size.records_max(), 112);
    /// // The commit is a small part of the turn: it is large enough.
    /// size.learn(&TurnCost { records: 112, process: ms(150), commit: ms(10) });
    /// assert_eq!(size.records_max(), 112);
    /// ```
    pub fn learn(&mut self, cost: &TurnCost) {
        let turn = cost.process + cost.commit;
        let was_full = cost.records >= self.records;
        if turn > self.bounds.turn_max {
            let fitting = self.bounds.turn_max.as_secs_f64() / turn.as_secs_f64();
            let fitting = (cost.records as f64 * fitting) as usize;
            // A commit that is slow by itself gets no shorter with fewer records than a first batch has.
            let commit_is_slow = cost.process < self.bounds.turn_max;
            self.records = if commit_is_slow { fitting.max(self.first()) } else { fitting };
        } else if was_full && cost.commit * COMMIT_SHARE > turn {
            let doubled = turn * 2 <= self.bounds.turn_max;
            self.records = if doubled { self.records * 2 } else { self.records + self.records / 8 };
        }
        self.records = self.records.clamp(1, self.bounds.records_max);
    }

    /// A batch was given up after so many of its records, because it took too long for its transaction.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
    /// # let ms = Duration::from_millis;
    /// # let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
    /// # let mut size = BatchSize::new(bounds);
    /// size.gave_up(41); // of 100, when the transaction's time was over
    /// assert_eq!(size.records_max(), 20);
    /// ```
    pub fn gave_up(&mut self, processed: usize) {
        self.records = (processed / 2).clamp(1, self.bounds.records_max);
    }

    /// The transaction of a batch of so many records has failed: if it was too large for what the brokers can take just
    /// now, the same again would fail again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
    /// # let ms = Duration::from_millis;
    /// # let bounds = BatchBounds { records_start: 100, records_max: 10_000, turn_max: ms(200) };
    /// # let mut size = BatchSize::new(bounds);
    /// # for records in [100, 200, 400] {
    /// #     size.learn(&TurnCost { records, process: ms(1), commit: ms(10) });
    /// # }
    /// assert_eq!(size.records_max(), 800);
    /// size.failed(800);
    /// assert_eq!(size.records_max(), 400);
    /// size.failed(4); // a small one did not fail for its size
    /// assert_eq!(size.records_max(), 100);
    /// ```
    pub fn failed(&mut self, records: usize) {
        self.records = (records / 2).max(self.first()).min(self.bounds.records_max);
    }

    /// What a first batch has, or less where batches have shrunk below it.
    fn first(&self) -> usize {
        self.bounds.records_start.min(self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: BatchBounds =
        BatchBounds { records_start: 100, records_max: 100_000, turn_max: Duration::from_millis(200) };

    /// A world where a record costs 2 µs and a commit 10 ms, and this many records are always there.
    fn settle(available: usize) -> usize {
        let mut size = BatchSize::new(BOUNDS);
        for _ in 0..200 {
            let records = available.min(size.records_max());
            let process = Duration::from_nanos(2_000 * records as u64);
            size.learn(&TurnCost { records, process, commit: Duration::from_millis(10) });
        }
        size.records_max()
    }

    #[test]
    fn under_load_the_commit_becomes_a_small_part_of_the_turn() {
        let records = settle(usize::MAX);
        let process = Duration::from_nanos(2_000 * records as u64);
        assert!(process >= Duration::from_millis(60), "{records} records");
        assert!(process <= BOUNDS.turn_max, "{records} records");
    }

    #[test]
    fn a_trickle_never_waits_for_more() {
        assert_eq!(settle(5), BOUNDS.records_start);
    }

    #[test]
    fn a_turn_over_its_budget_shrinks_the_batch() {
        let mut size = BatchSize::new(BOUNDS);
        size.records = 50_000;
        size.learn(&TurnCost { records: 50_000, process: Duration::from_secs(4), commit: Duration::ZERO });
        assert_eq!(size.records_max(), 2_500);
    }

    #[test]
    fn a_slow_commit_does_not_make_small_batches_smaller() {
        let mut size = BatchSize::new(BOUNDS);
        size.learn(&TurnCost { records: 3, process: Duration::from_millis(1), commit: Duration::from_secs(4) });
        assert_eq!(size.records_max(), BOUNDS.records_start);
    }

    #[test]
    fn a_batch_whose_transaction_failed_comes_back_smaller() {
        let mut size = BatchSize::new(BOUNDS);
        size.records = 50_000;
        size.failed(50_000);
        assert_eq!(size.records_max(), 25_000);
        size.failed(4);
        assert_eq!(size.records_max(), BOUNDS.records_start, "a small one did not fail for its size");
    }

    #[test]
    fn slow_records_end_up_in_batches_of_one() {
        let mut size = BatchSize::new(BOUNDS);
        for _ in 0..20 {
            let records = size.records_max();
            size.learn(&TurnCost { records, process: Duration::from_secs(records as u64), commit: Duration::ZERO });
        }
        assert_eq!(size.records_max(), 1);
        size.gave_up(1);
        assert_eq!(size.records_max(), 1);
    }
}
