//! Time, as the runtime reads it: one monotonic clock for budgets, one wall clock for ages.
//!
//! It is the runtime's own, and no stable API.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use processor_core::ids::Timestamp;

/// Tells the time; a test or a simulation supplies its own.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;

    /// The wall clock; may jump.
    fn wall(&self) -> Timestamp;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::new(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}
