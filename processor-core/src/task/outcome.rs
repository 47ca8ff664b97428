//! What became of a record.

use std::time::Duration;

use crate::error::RecordFailure;

/// What [`Task::process`](super::Task::process) has done with a record. Unless it is done, the record has left nothing
/// but what is said here (EO-9).
///
/// ```
#[doc = include_str!("example.txt")]
/// # let retry = FailurePolicy::retry(1, Duration::from_secs(2)).then(FailurePolicy::skip());
/// # let (mut task, base) = (started(retry), State::default());
/// let text = |outcome| match outcome {
///     Outcome::Done => "its outputs are sent".to_owned(),
///     Outcome::Skipped(failure) => format!("counted: {failure}"),
///     Outcome::DeadLettered(failure) => format!("counted, its letter is sent: {failure}"),
///     Outcome::Again { after, failure } => format!("again in {after:?}: {failure}"),
///     Outcome::Failed(failure) => format!("the task stops: {failure}"),
/// };
/// // The policy is to retry once, and then to skip.
/// let negative = polled(10, "ann", -1);
/// let texts = [0, 1].map(|index| text(task.process(0, &negative, batch(index), &base)));
/// assert_eq!(texts[0], "again in 2s: the operator failed in node 'sum': -1 is negative");
/// assert_eq!(texts[1], "counted: the operator failed in node 'sum': -1 is negative");
/// ```
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
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let mut skipping = started(FailurePolicy::skip());
    /// # let mut failing = started(FailurePolicy::fail());
    /// # let base = State::default();
    /// let negative = polled(10, "ann", -1);
    /// assert!(skipping.process(0, &negative, batch(0), &base).is_past());
    /// assert!(!failing.process(0, &negative, batch(0), &base).is_past());
    /// ```
    pub fn is_past(&self) -> bool {
        match self {
            Self::Done | Self::Skipped(_) | Self::DeadLettered(_) => true,
            Self::Again { .. } | Self::Failed(_) => false,
        }
    }
}
