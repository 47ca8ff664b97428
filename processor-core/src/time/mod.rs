//! Time: what timestamp a record has, and what is due when.
//!
//! No clock is read here. Stream time is the highest timestamp a task has seen; wall-clock time is what the runtime
//! supplies with a batch (EO-7).
//!
//! [`Context::schedule`](crate::operator::Context::schedule) and [`Operator::open`](crate::operator::Operator::open) show
//! schedules at work.

mod schedule;
mod timestamps;

pub use schedule::{Clock, Punctuation, ScheduleId};
pub(crate) use schedule::{Due, Schedules};
pub(crate) use timestamps::Timestamps;
