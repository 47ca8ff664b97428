//! How long reads of committed state take: one in so many is timed, so that the others cost next to nothing.

use std::cell::Cell;
use std::ops::{Bound, ControlFlow};

use metrics::Histogram;
use processor_core::ids::StoreIndex;
use processor_core::store::{Base, BaseError, Found};

use crate::clock::Clock;

/// One read in so many is timed: looking at the clock twice costs about as much as a read that finds its block in memory.
const TIMED: u32 = 64;

/// Times reads.
#[derive(Debug)]
pub(super) struct StoreReads {
    reads: Cell<u32>,
    get: Histogram,
    range: Histogram,
}

impl StoreReads {
    pub(super) fn new(get: Histogram, range: Histogram) -> Self {
        Self { reads: Cell::new(0), get, range }
    }

    /// Times some of the reads of this state.
    pub(super) fn over<'a, C>(&'a self, base: &'a dyn Base, clock: &'a C) -> TimedBase<'a, C> {
        TimedBase { base, reads: self, clock }
    }

    fn is_due(&self) -> bool {
        let reads = self.reads.get().wrapping_add(1);
        self.reads.set(reads);
        reads.is_multiple_of(TIMED)
    }
}

/// Committed state, some of whose reads are timed.
pub(super) struct TimedBase<'a, C> {
    base: &'a dyn Base,
    reads: &'a StoreReads,
    clock: &'a C,
}

impl<C: Clock> TimedBase<'_, C> {
    fn timed<T>(&self, histogram: &Histogram, read: impl FnOnce() -> T) -> T {
        if !self.reads.is_due() {
            return read();
        }
        let began = self.clock.monotonic();
        let answer = read();
        histogram.record(self.clock.monotonic().saturating_sub(began));
        answer
    }
}

impl<C: Clock> Base for TimedBase<'_, C> {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        self.timed(&self.reads.get, || self.base.get(store, key, value))
    }

    fn get_many(&self, store: StoreIndex, keys: &[&[u8]], found: &mut Found<'_>) -> Result<(), BaseError> {
        self.base.get_many(store, keys, found)
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        self.timed(&self.reads.range, || self.base.range(store, from, to, reverse, visit))
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        self.base.approximate_len(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::metrics::{Gauges, Metrics};

    /// Every key has itself for its value.
    struct Mirror;

    impl Base for Mirror {
        fn get(&self, _store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
            value.extend(key);
            Ok(true)
        }

        fn range(
            &self,
            _store: StoreIndex,
            _from: Bound<&[u8]>,
            _to: Bound<&[u8]>,
            _reverse: bool,
            visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
        ) -> Result<(), BaseError> {
            let _ = visit(b"a", b"a"); // there is nothing behind it
            Ok(())
        }

        fn approximate_len(&self, _store: StoreIndex) -> Result<u64, BaseError> {
            Ok(1)
        }
    }

    #[test]
    fn one_read_in_so_many_is_timed_and_all_are_answered() {
        let metrics = Metrics::on();
        let [get, range] = metrics.thread(0).store_reads().expect("it measures");
        let reads = StoreReads::new(get, range);
        let (clock, store) = (SystemClock::default(), StoreIndex::new(0));
        for _ in 0..TIMED * 3 {
            let mut value = Vec::new();
            let found = reads.over(&Mirror, &clock).get(store, b"key", &mut value);
            assert!(found.is_ok_and(|found| found) && value == b"key");
        }
        for _ in 0..TIMED * 2 {
            let mut seen = 0;
            let ranged =
                reads.over(&Mirror, &clock).range(store, Bound::Unbounded, Bound::Unbounded, false, &mut |_, _| {
                    seen += 1;
                    ControlFlow::Continue(())
                });
            assert!(ranged.is_ok() && seen == 1);
        }
        metrics.upkeep();
        let page = metrics.render(&Gauges::default());
        for series in [
            "processor_store_op_seconds_count{thread=\"0\",op=\"get\"} 3",
            "processor_store_op_seconds_count{thread=\"0\",op=\"range\"} 2",
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
        }
    }
}
