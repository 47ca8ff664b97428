//! Rules of the protocol that a test may switch off, one at a time, to show that they are needed and that the oracles
//! see what happens without them. Only with the feature `seeded-bugs`; otherwise every rule is a constant `true`.

listed! {
    /// A rule that can be switched off, named after what holds while it is on. The text is what is done while it is off.
    pub enum Rule;
    FailedBatchIsAborted = "failed-batch-is-aborted", "what fails is committed, as if there were no transaction";
    OffsetsGoWithOutputs = "offsets-go-with-outputs", "offsets are committed in a transaction of their own, behind the outputs (EO-1)";
    EveryTaskHasItsOffsets = "every-task-has-its-offsets", "of several tasks only the first has its offsets in the transaction (EO-1)";
    OffsetIsOfTheNextRecord = "offset-is-of-the-next-record", "the offset of the last record is committed, not that of the next (EO-6)";
    AbortedBatchIsReadAgain = "aborted-batch-is-read-again", "processing goes on behind a batch that was aborted (EO-6)";
    AppliedAfterCommit = "applied-after-commit", "the state is written before the commit (EO-2)";
    SilenceIsNotACommit = "silence-is-not-a-commit", "a commit without an answer is taken for committed (EO-2)";
    SilenceIsNotAnAbort = "silence-is-not-an-abort", "a commit without an answer is taken for aborted (EO-2)";
    EveryChangeIsWritten = "every-change-is-written", "the last change of a batch is not in the changelog (EO-3)";
    DeletionsAreWritten = "deletions-are-written", "deletions are not in the changelog (EO-3)";
    DrainedBeforeOffsets = "drained-before-offsets", "offsets are sent before the records are acknowledged (EO-3)";
    RestoredReadCommitted = "restored-read-committed", "state is restored from uncommitted records too (EO-4)";
    StableOffsetsOnly = "stable-offsets-only", "an offset is taken that an open transaction is about to replace (EO-4)";
    NamedEndIsTheEnd = "named-end-is-the-end", "what is committed behind the end that the last commit names is taken (EO-4)";
    TornIsWrittenOver = "torn-is-written-over", "what the brokers have committed of a transaction that they aborted stays in the changelog (EO-4)";
    LateAnswersAreIgnored = "late-answers-are-ignored", "a position that was asked for under another assignment is taken (EO-4)";
    LocalStoreIsExactOrEmpty = "local-store-is-exact-or-empty", "a store without a changelog is kept though it is not what was committed";
    TaintedProducerIsReplaced = "tainted-producer-is-replaced", "a producer with a request that may arrive late goes on (EO-11)";
    FenceComesFirst = "fence-comes-first", "no fence transaction where the broker verifies nothing (EO-11)";
    MembershipIsOfTheAssignment = "membership-is-of-the-assignment", "offsets are committed under any membership (EO-12)";
    DeadOwnerIsFenced = "dead-owner-is-fenced", "whoever died inside a transaction is left to the time-out";
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
