//! A clock that a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use processor_core::ids::Timestamp;
use processor_runtime::clock::Clock;

/// What the wall clock shows at the start: some day in 2026.
const WALL_AT_START_MS: u64 = 1_790_000_000_000;

/// A clock that a test moves, and that moves by a little whenever it is read: a call that is repeated until its time is
/// up comes to an end. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct FakeClock {
    elapsed_us: Arc<AtomicU64>,
    tick_us: u64,
}

impl FakeClock {
    /// A clock that moves by `tick` whenever it is read.
    pub fn ticking(tick: Duration) -> Self {
        Self { elapsed_us: Arc::default(), tick_us: tick.as_micros() as u64 }
    }

    /// Moves it.
    pub fn advance(&self, by: Duration) {
        self.elapsed_us.fetch_add(by.as_micros() as u64, Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn monotonic(&self) -> Duration {
        let before = self.elapsed_us.fetch_add(self.tick_us, Ordering::Relaxed);
        Duration::from_micros(before + self.tick_us)
    }

    fn wall(&self) -> Timestamp {
        let elapsed_ms = self.elapsed_us.load(Ordering::Relaxed) / 1000;
        Timestamp::new((WALL_AT_START_MS + elapsed_ms) as i64)
    }
}
