//! What a stream topology means: operators, typed stores, codecs, time, and the decisions of the exactly-once protocol.
//!
//! Nothing here does I/O, reads a clock, starts a thread or depends on the order of a hash map: processing is a
//! function of the records, the committed state and the supplied time (EO-7).

pub mod codec;
pub mod error;
pub mod ids;
pub mod operator;
pub mod partition;
pub mod prelude;
pub mod protocol;
pub mod record;
pub mod store;
pub mod task;
pub mod testing;
pub mod time;
pub mod topology;
