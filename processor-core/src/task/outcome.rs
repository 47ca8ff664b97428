//! What became of a record.

use std::time::Duration;

use crate::error::RecordFailure;

/// What [`Task::process`](super::Task::process) has done with a record. Unless it is done, the record has left nothing
/// but what is said here (EO-9).
#[derive(Clone, Debug)]
#[must_use = "a record that failed needs counting, waiting or stopping"]
pub enum Outcome {
    /// It was processed: its outputs are in the outbox, its writes in the overlay.
    Done,
    /// It failed and was passed over, as its policy says; count it.
    Skipped(RecordFailure),
    /// It failed and was passed over, and its dead letter is in the outbox; count it.
    DeadLettered(RecordFailure),
    /// It failed and is to be processed again after this time: the batch ends before it.
    Again {
        /// How long to wait.
        after: Duration,
        /// Why it failed.
        failure: RecordFailure,
    },
    /// It failed and the task stops: the batch ends before it.
    Failed(RecordFailure),
}

impl Outcome {
    /// Whether the task has gone past the record.
    pub fn is_past(&self) -> bool {
        match self {
            Self::Done | Self::Skipped(_) | Self::DeadLettered(_) => true,
            Self::Again { .. } | Self::Failed(_) => false,
        }
    }
}
