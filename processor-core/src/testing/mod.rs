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
pub const fn secs(seconds: i64) -> Timestamp {
    Timestamp::new(seconds * 1_000)
}

/// A time so many milliseconds after 1970 began.
pub const fn millis(milliseconds: i64) -> Timestamp {
    Timestamp::new(milliseconds)
}
