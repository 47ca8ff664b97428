//! How long a client is waited for before another one takes its place. Short at first: one that has lost its way to the
//! brokers does not find it again, and each second of waiting delays records. Twice as long after each time, for the
//! cluster may just be slow; and twice what the last answer took, as soon as there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Clones share what they have learned.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    first: Duration,
    most: Duration,
    now_ms: Arc<AtomicU64>,
}

impl Patience {
    /// Between these two.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, now_ms: Arc::new(AtomicU64::new(millis(first))) }
    }

    /// How long now.
    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::Relaxed))
    }

    /// There was an answer, after this time.
    pub(super) fn was_enough(&self, took: Duration) {
        self.now_ms.store(millis((took * 2).clamp(self.first, self.most)), Ordering::Relaxed);
    }

    /// There was none, though it was this that was waited for. Whoever waited as long at the same time has learned the same.
    pub(super) fn was_too_short(&self, waited: Duration) {
        let longer = millis((waited * 2).min(self.most));
        let _ = self.now_ms.compare_exchange(millis(waited), longer, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_grows_to_its_bound_while_nobody_answers() {
        let patience = Patience::new(2 * SECOND, 7 * SECOND);
        let other = patience.clone();
        let grown: Vec<u64> = (0..4)
            .map(|_| {
                other.was_too_short(other.now());
                patience.now().as_secs()
            })
            .collect();
        assert_eq!(grown, [4, 7, 7, 7]);
        patience.was_too_short(2 * SECOND);
        assert_eq!(patience.now(), 7 * SECOND, "what was too short before says nothing new");
    }

    #[test]
    fn a_cluster_that_is_slow_and_answers_is_waited_for() {
        let patience = Patience::new(2 * SECOND, 7 * SECOND);
        patience.was_enough(3 * SECOND);
        assert_eq!(patience.now(), 6 * SECOND);
        patience.was_enough(SECOND / 100);
        assert_eq!(patience.now(), 2 * SECOND);
    }
}
