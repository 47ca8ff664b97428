//! What to do when a transactional call does not say yes: "When commit does not say yes" of `ARCHITECTURE.md` as one pure
//! function.
//!
//! The runtime sorts a client's error into a [`TxnErrorKind`], says in which [`Phase`] it came and whether the producer
//! is tainted, and executes the [`Step`] it is told. Nothing here knows a client or a broker.

/// An error of a transactional call, by what the protocol may conclude from it.
///
/// ```
/// use processor_core::protocol::outcome::{Phase, Step, TxnErrorKind, after_error};
///
/// let step = |kind| after_error(Phase::BeforeCommit, kind, true);
/// assert_eq!(step(TxnErrorKind::Retriable), Step::Again);
/// assert_eq!(step(TxnErrorKind::Abortable), Step::AbortAndRewind);
/// assert_eq!(step(TxnErrorKind::Moved), Step::AbortAndPoll);
/// assert_eq!(step(TxnErrorKind::Refused), Step::Stop);
/// assert_eq!(step(TxnErrorKind::Fenced), Step::Rebuild { fenced: true });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnErrorKind {
    /// The call did not end within its time; it may still.
    TimedOut,
    /// Passes by itself; the same call may be made again.
    Retriable,
    /// The transaction must be aborted; the producer lives (`txn_requires_abort`).
    Abortable,
    /// The group has moved on: `ILLEGAL_GENERATION`, `UNKNOWN_MEMBER_ID`.
    Moved,
    /// Another live member uses the same `group.instance.id`: `FENCED_INSTANCE_ID`.
    FencedInstance,
    /// A newer producer has the same transactional id, or the broker timed the transaction out.
    Fenced,
    /// The producer is beyond use, or the error carries no flag at all.
    Fatal,
    /// The broker refuses for a reason that a person must mend: rights, a record too large for the topic.
    Refused,
}

/// How far the transaction had come.
///
/// ```
/// # use processor_core::protocol::outcome::{Phase, Step, TxnErrorKind, after_error};
/// let step = |phase| after_error(phase, TxnErrorKind::Abortable, true);
/// assert_eq!(step(Phase::BeforeCommit), Step::AbortAndRewind);
/// // It may have committed: nobody knows, so nothing is aborted and nothing applied.
/// assert_eq!(step(Phase::Committing), Step::Rebuild { fenced: false });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `EndTxn` was not sent: the transaction can only abort.
    BeforeCommit,
    /// `commit` was called: only its `Ok` is an answer.
    Committing,
    /// `abort` was called.
    Aborting,
}

/// What the stream thread does next with the transaction.
///
/// ```
/// # use processor_core::protocol::outcome::{Phase, Step, TxnErrorKind, after_error};
/// let goes_on_with_this_producer = |step| match step {
///     Step::Again | Step::AbortAndRewind | Step::AbortAndPoll => true,
///     Step::Rebuild { .. } | Step::Stop => false,
/// };
/// let step = |time_left| after_error(Phase::Committing, TxnErrorKind::TimedOut, time_left);
/// assert!(goes_on_with_this_producer(step(true)));
/// assert!(!goes_on_with_this_producer(step(false)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the same call again while time is left.
    Again,
    /// Abort, drop the overlay, rewind every input to its committed offset.
    AbortAndRewind,
    /// Abort, drop the overlay, and poll: the rebalance decides what is owned.
    AbortAndPoll,
    /// New producer with the same id; restore every owned partition from its changelog. Never abort, never apply.
    Rebuild {
        /// Whether it counts towards "more than three fences by others in five minutes".
        fenced: bool,
    },
    /// Stop the stream thread: a person must act.
    Stop,
}

/// Decides what follows an error. `time_left`: whether the transaction's time budget allows the same call again.
///
/// ```
/// # use processor_core::protocol::outcome::{Phase, Step, TxnErrorKind, after_error};
/// // The offsets were not taken in time.
/// let step = |time_left| after_error(Phase::BeforeCommit, TxnErrorKind::TimedOut, time_left);
/// assert_eq!(step(true), Step::Again);
/// assert_eq!(step(false), Step::AbortAndRewind);
/// ```
pub const fn after_error(phase: Phase, kind: TxnErrorKind, time_left: bool) -> Step {
    match (phase, kind) {
        (Phase::BeforeCommit, TxnErrorKind::Retriable | TxnErrorKind::TimedOut) if time_left => Step::Again,
        (Phase::BeforeCommit, TxnErrorKind::Retriable | TxnErrorKind::TimedOut | TxnErrorKind::Abortable) => {
            Step::AbortAndRewind
        }
        (Phase::BeforeCommit, TxnErrorKind::Moved) => Step::AbortAndPoll,
        (Phase::BeforeCommit, TxnErrorKind::FencedInstance | TxnErrorKind::Refused) => Step::Stop,
        // librdkafka's commit and abort are resumable: the same call continues the same request.
        (Phase::Committing | Phase::Aborting, TxnErrorKind::Retriable | TxnErrorKind::TimedOut) if time_left => {
            Step::Again
        }
        (_, TxnErrorKind::Fenced) => Step::Rebuild { fenced: true },
        // Once EndTxn(commit) may have been sent, "abortable" is no answer any more: the outcome is unknown.
        (
            Phase::Committing | Phase::Aborting,
            TxnErrorKind::Retriable
            | TxnErrorKind::TimedOut
            | TxnErrorKind::Abortable
            | TxnErrorKind::Moved
            | TxnErrorKind::FencedInstance
            | TxnErrorKind::Fatal
            | TxnErrorKind::Refused,
        )
        | (Phase::BeforeCommit, TxnErrorKind::Fatal) => Step::Rebuild { fenced: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TxnErrorKind::{Abortable, Fatal, Fenced, FencedInstance, Moved, Refused, Retriable, TimedOut};

    /// Architecture 2.2, line by line: (phase, kind, with time left, without).
    #[test]
    fn every_outcome_has_its_step() {
        use Phase::{Aborting, BeforeCommit, Committing};
        let rebuild = Step::Rebuild { fenced: false };
        let fenced = Step::Rebuild { fenced: true };
        let table = [
            (BeforeCommit, TimedOut, Step::Again, Step::AbortAndRewind),
            (BeforeCommit, Retriable, Step::Again, Step::AbortAndRewind),
            (BeforeCommit, Abortable, Step::AbortAndRewind, Step::AbortAndRewind),
            (BeforeCommit, Moved, Step::AbortAndPoll, Step::AbortAndPoll),
            (BeforeCommit, FencedInstance, Step::Stop, Step::Stop),
            (BeforeCommit, Refused, Step::Stop, Step::Stop),
            (BeforeCommit, Fenced, fenced, fenced),
            (BeforeCommit, Fatal, rebuild, rebuild),
            (Committing, TimedOut, Step::Again, rebuild),
            (Committing, Retriable, Step::Again, rebuild),
            (Committing, Abortable, rebuild, rebuild),
            (Committing, Moved, rebuild, rebuild),
            (Committing, FencedInstance, rebuild, rebuild),
            (Committing, Refused, rebuild, rebuild),
            (Committing, Fenced, fenced, fenced),
            (Committing, Fatal, rebuild, rebuild),
            (Aborting, TimedOut, Step::Again, rebuild),
            (Aborting, Retriable, Step::Again, rebuild),
            (Aborting, Abortable, rebuild, rebuild),
            (Aborting, Moved, rebuild, rebuild),
            (Aborting, FencedInstance, rebuild, rebuild),
            (Aborting, Refused, rebuild, rebuild),
            (Aborting, Fenced, fenced, fenced),
            (Aborting, Fatal, rebuild, rebuild),
        ];
        for (phase, kind, with_time, without) in table {
            assert_eq!(after_error(phase, kind, true), with_time, "{phase:?} {kind:?} with time left");
            assert_eq!(after_error(phase, kind, false), without, "{phase:?} {kind:?} without time left");
        }
    }

    /// Once a commit was called, nothing but its Ok is an answer: no step aborts.
    #[test]
    fn an_unknown_commit_is_never_aborted() {
        for kind in [TimedOut, Retriable, Abortable, Moved, FencedInstance, Fenced, Fatal, Refused] {
            for time_left in [true, false] {
                let step = after_error(Phase::Committing, kind, time_left);
                assert!(matches!(step, Step::Again | Step::Rebuild { .. }), "{kind:?}: {step:?}");
            }
        }
    }
}
