//! Testing a topology without a broker: [`TopologyTestDriver`].
//!
//! The driver keeps topics in memory and gives their records to real tasks, batch by batch: the tasks, the merging of
//! inputs, the overlays and the failure policies are those that run in production.

mod driver;
mod handles;
mod topics;
mod worker;

pub use driver::{DriverError, TopologyTestDriver};
pub use handles::{DeadLetter, Received, TestInput, TestOutput, TestStore};

use crate::ids::Timestamp;

/// A time so many seconds after 1970 began.
///
/// ```
/// use processor_core::testing::{millis, secs};
///
/// assert_eq!(secs(2), millis(2_000));
/// ```
pub const fn secs(seconds: i64) -> Timestamp {
    Timestamp::new(seconds * 1_000)
}

/// A time so many milliseconds after 1970 began.
///
/// ```
/// use processor_core::{ids::Timestamp, testing::millis};
///
/// assert_eq!(millis(7), Timestamp::new(7));
/// ```
pub const fn millis(milliseconds: i64) -> Timestamp {
    Timestamp::new(milliseconds)
}
