//! Rules of the protocol that a test may switch off, one at a time, to show that they are needed and that the oracles
//! see what happens without them. Only with the feature `seeded-bugs`; otherwise every rule is a constant `true`.

/// A rule that can be switched off, named after what holds while it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A transaction that failed is aborted. Off: it is committed, as if there were none.
    FailedBatchIsAborted,
    /// EO-1: offsets are committed with the outputs. Off: in a transaction of their own, behind them.
    OffsetsGoWithOutputs,
    /// EO-1: every task of a transaction has its offsets in it. Off: only the first.
    EveryTaskHasItsOffsets,
    /// EO-6: the offset that is committed is that of the next record. Off: that of the last one.
    OffsetIsOfTheNextRecord,
    /// EO-6: what an aborted batch had read is read again. Off: processing goes on behind it.
    AbortedBatchIsReadAgain,
    /// EO-2: a batch is applied when it is committed. Off: a moment before.
    AppliedAfterCommit,
    /// EO-2: a commit without an answer proves nothing. Off: it is taken for committed.
    SilenceIsNotACommit,
    /// EO-2: a commit without an answer is looked up. Off: it is taken for aborted.
    SilenceIsNotAnAbort,
    /// EO-3: every change is in the changelog. Off: the last of a batch is not.
    EveryChangeIsWritten,
    /// EO-3: a deletion is in the changelog. Off: it is not.
    DeletionsAreWritten,
    /// EO-3: every record is acknowledged before offsets are sent. Off: nothing is waited for.
    DrainedBeforeOffsets,
    /// EO-4: state is restored from committed records. Off: from all.
    RestoredReadCommitted,
    /// EO-4: an offset that an open transaction holds is waited for. Off: the one before is taken.
    StableOffsetsOnly,
    /// EO-4: answers to questions of an assignment that is over are of no use. Off: a position asked for by a zombie is
    /// taken.
    LateAnswersAreIgnored,
    /// A store without a changelog begins empty where it is not what was committed last. Off: as it is.
    LocalStoreIsExactOrEmpty,
    /// EO-11: a tainted producer is replaced before the next transaction. Off: it goes on.
    TaintedProducerIsReplaced,
    /// EO-11: where the broker verifies nothing, a producer begins with a fence transaction. Off: it does not.
    FenceComesFirst,
    /// EO-12: offsets are committed under the membership that the tasks were assigned under. Off: under any.
    MembershipIsOfTheAssignment,
    /// Whoever died inside a transaction is fenced by its successor. Off: the time-out is waited for.
    DeadOwnerIsFenced,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::FailedBatchIsAborted,
        Self::OffsetsGoWithOutputs,
        Self::EveryTaskHasItsOffsets,
        Self::OffsetIsOfTheNextRecord,
        Self::AbortedBatchIsReadAgain,
        Self::AppliedAfterCommit,
        Self::SilenceIsNotACommit,
        Self::SilenceIsNotAnAbort,
        Self::EveryChangeIsWritten,
        Self::DeletionsAreWritten,
        Self::DrainedBeforeOffsets,
        Self::RestoredReadCommitted,
        Self::StableOffsetsOnly,
        Self::LateAnswersAreIgnored,
        Self::LocalStoreIsExactOrEmpty,
        Self::TaintedProducerIsReplaced,
        Self::FenceComesFirst,
        Self::MembershipIsOfTheAssignment,
        Self::DeadOwnerIsFenced,
    ];

    /// Its name on the command line and in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailedBatchIsAborted => "failed-batch-is-aborted",
            Self::OffsetsGoWithOutputs => "offsets-go-with-outputs",
            Self::EveryTaskHasItsOffsets => "every-task-has-its-offsets",
            Self::OffsetIsOfTheNextRecord => "offset-is-of-the-next-record",
            Self::AbortedBatchIsReadAgain => "aborted-batch-is-read-again",
            Self::AppliedAfterCommit => "applied-after-commit",
            Self::SilenceIsNotACommit => "silence-is-not-a-commit",
            Self::SilenceIsNotAnAbort => "silence-is-not-an-abort",
            Self::EveryChangeIsWritten => "every-change-is-written",
            Self::DeletionsAreWritten => "deletions-are-written",
            Self::DrainedBeforeOffsets => "drained-before-offsets",
            Self::RestoredReadCommitted => "restored-read-committed",
            Self::StableOffsetsOnly => "stable-offsets-only",
            Self::LateAnswersAreIgnored => "late-answers-are-ignored",
            Self::LocalStoreIsExactOrEmpty => "local-store-is-exact-or-empty",
            Self::TaintedProducerIsReplaced => "tainted-producer-is-replaced",
            Self::FenceComesFirst => "fence-comes-first",
            Self::MembershipIsOfTheAssignment => "membership-is-of-the-assignment",
            Self::DeadOwnerIsFenced => "dead-owner-is-fenced",
        }
    }

    /// What is done instead while it is off.
    pub fn bug(self) -> &'static str {
        match self {
            Self::FailedBatchIsAborted => "what fails is committed, as if there were no transaction",
            Self::OffsetsGoWithOutputs => "offsets are committed in a transaction of their own, behind the outputs",
            Self::EveryTaskHasItsOffsets => "of several tasks only the first has its offsets in the transaction",
            Self::OffsetIsOfTheNextRecord => "the offset of the last record is committed, not that of the next",
            Self::AbortedBatchIsReadAgain => "processing goes on behind a batch that was aborted",
            Self::AppliedAfterCommit => "the state is written before the commit",
            Self::SilenceIsNotACommit => "a commit without an answer is taken for committed",
            Self::SilenceIsNotAnAbort => "a commit without an answer is taken for aborted",
            Self::EveryChangeIsWritten => "the last change of a batch is not in the changelog",
            Self::DeletionsAreWritten => "deletions are not in the changelog",
            Self::DrainedBeforeOffsets => "offsets are sent before the records are acknowledged",
            Self::RestoredReadCommitted => "state is restored from uncommitted records too",
            Self::StableOffsetsOnly => "an offset is taken that an open transaction is about to replace",
            Self::LateAnswersAreIgnored => "a position that was asked for under another assignment is taken",
            Self::LocalStoreIsExactOrEmpty => "a store without a changelog is kept though it is not what was committed",
            Self::TaintedProducerIsReplaced => "a producer with a request that may arrive late goes on",
            Self::FenceComesFirst => "no fence transaction where the broker verifies nothing",
            Self::MembershipIsOfTheAssignment => "offsets are committed under any membership",
            Self::DeadOwnerIsFenced => "whoever died inside a transaction is left to the time-out",
        }
    }
}

#[cfg(feature = "seeded-bugs")]
mod switches {
    use super::Rule;
    use std::sync::atomic::{AtomicU32, Ordering};

    static OFF: AtomicU32 = AtomicU32::new(0);

    /// Switches a rule off in this process, for good.
    pub fn switch_off(rule: Rule) {
        OFF.fetch_or(1 << rule as u32, Ordering::Relaxed);
    }

    /// Whether the rule holds.
    pub(crate) fn holds(rule: Rule) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << rule as u32) == 0
    }
}

#[cfg(feature = "seeded-bugs")]
pub(crate) use switches::holds;
#[cfg(feature = "seeded-bugs")]
pub use switches::switch_off;

/// Whether the rule holds.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn holds(_rule: Rule) -> bool {
    true
}
