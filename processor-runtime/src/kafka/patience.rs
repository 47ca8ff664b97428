//! How long a client is waited for before another one takes its place. Short at first: one that has lost its way to the
//! brokers does not find it again, and each second of waiting delays records. Twice as long after each time, for the
//! cluster may just be slow; and short again as soon as there was an answer.

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

    /// There was an answer.
    pub(super) fn was_enough(&self) {
        self.now_ms.store(millis(self.first), Ordering::Relaxed);
    }

    /// There was none.
    pub(super) fn was_too_short(&self) {
        self.now_ms.store(millis((self.now() * 2).min(self.most)), Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_bound_while_nobody_answers() {
        let patience = Patience::new(Duration::from_secs(2), Duration::from_secs(7));
        let other = patience.clone();
        let grown: Vec<u64> = (0..4)
            .map(|_| {
                other.was_too_short();
                patience.now().as_secs()
            })
            .collect();
        assert_eq!(grown, [4, 7, 7, 7]);
        patience.was_enough();
        assert_eq!(other.now(), Duration::from_secs(2));
    }
}
