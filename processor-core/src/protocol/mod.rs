//! The decisions of the exactly-once protocol, as pure functions: what happened in, what to do out.

pub mod outcome;
