//! Time, as the runtime reads it: one monotonic clock for budgets, one wall clock for ages.
//!
//! It is the runtime's own, and no stable API.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use processor_core::ids::Timestamp;

/// Tells the time; a test or a simulation supplies its own.
///
/// ```
/// use std::time::Duration;
///
/// use processor_core::ids::Timestamp;
/// use processor_runtime::clock::Clock;
///
/// /// Stands still: for a test.
/// struct Noon;
///
/// impl Clock for Noon {
///     fn monotonic(&self) -> Duration {
///         Duration::ZERO
///     }
///     fn wall(&self) -> Timestamp {
///         Timestamp::new(43_200_000)
///     }
/// }
///
/// assert_eq!(Noon.wall().get(), 12 * 60 * 60 * 1_000);
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    ///
    /// ```
    /// use processor_runtime::clock::{Clock, SystemClock};
    ///
    /// let clock = SystemClock::default();
    /// let before = clock.monotonic();
    /// assert!(clock.monotonic() >= before);
    /// ```
    fn monotonic(&self) -> Duration;

    /// The wall clock, in milliseconds since 1970; may jump.
    ///
    /// ```
    /// use processor_core::ids::Timestamp;
    /// use processor_runtime::clock::{Clock, SystemClock};
    ///
    /// assert!(SystemClock::default().wall() > Timestamp::new(1_700_000_000_000)); // November 2023
    /// ```
    fn wall(&self) -> Timestamp;
}

/// The operating system's clocks. The monotonic one begins at zero when it is made.
///
/// ```
/// use std::time::Duration;
///
/// use processor_runtime::clock::{Clock, SystemClock};
///
/// let clock = SystemClock::default();
/// let copy = clock; // the same clock
/// assert!(copy.monotonic() <= clock.monotonic());
/// assert!(clock.monotonic() < Duration::from_secs(3_600));
/// ```
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
