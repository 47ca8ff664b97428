//! Named places in the turn of a stream thread where a test can strike: kill the worker, or make it wait. Only with the
//! feature `failpoints`; otherwise nothing of them is compiled.
//!
//! There is one in every gap between two steps whose effects lie in different places: that is where a crash leaves one
//! without the other.

/// A place where a test can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failpoint {
    /// Records were polled, and none is processed.
    AfterPoll,
    /// A record was processed and its outputs were sent; others of the batch wait.
    MidProcess,
    /// All records of the batch were processed.
    AfterProcess,
    /// The changelog was sent; nobody knows whether it has arrived.
    AfterChangelog,
    /// Every record was acknowledged; the offsets were not sent.
    AfterDrain,
    /// The offsets are in the transaction; the commit was not asked for.
    AfterOffsets,
    /// The commit was answered; nothing of it is in the state.
    AfterCommit,
    /// The state of one task has the batch; that of others may not.
    MidApply,
    /// The state of every task has the batch.
    AfterApply,
    /// The transaction was aborted; the batch was not given up.
    AfterAbort,
    /// A new producer was initialised, and the old one fenced with it.
    AfterRebuild,
    /// Partitions were taken away or given; their tasks were not told.
    InRevoke,
    /// The state of a task is open and the replay is planned; what is to be wiped is not.
    InRestore,
    /// A part of the changelog was replayed into the state.
    BetweenRestoreBatches,
    /// The replay is through; the position of the commit is not in the state.
    BeforePosition,
    /// The task is restored; it has not run.
    AfterRestore,
    /// The tasks are closed; the group was not left.
    InClose,
}

impl Failpoint {
    /// All of them, in the order of a turn.
    pub const ALL: [Self; 17] = [
        Self::AfterPoll,
        Self::MidProcess,
        Self::AfterProcess,
        Self::AfterChangelog,
        Self::AfterDrain,
        Self::AfterOffsets,
        Self::AfterCommit,
        Self::MidApply,
        Self::AfterApply,
        Self::AfterAbort,
        Self::AfterRebuild,
        Self::InRevoke,
        Self::InRestore,
        Self::BetweenRestoreBatches,
        Self::BeforePosition,
        Self::AfterRestore,
        Self::InClose,
    ];

    /// Its name on the command line and in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfterPoll => "after-poll",
            Self::MidProcess => "mid-process",
            Self::AfterProcess => "after-process",
            Self::AfterChangelog => "after-changelog",
            Self::AfterDrain => "after-drain",
            Self::AfterOffsets => "after-offsets",
            Self::AfterCommit => "after-commit",
            Self::MidApply => "mid-apply",
            Self::AfterApply => "after-apply",
            Self::AfterAbort => "after-abort",
            Self::AfterRebuild => "after-rebuild",
            Self::InRevoke => "in-revoke",
            Self::InRestore => "in-restore",
            Self::BetweenRestoreBatches => "between-restore-batches",
            Self::BeforePosition => "before-position",
            Self::AfterRestore => "after-restore",
            Self::InClose => "in-close",
        }
    }

    /// What is done there and what is not: what a crash in this place leaves.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::AfterPoll => "records were polled, and none is processed",
            Self::MidProcess => "a record was processed and its outputs were sent; others of the batch wait",
            Self::AfterProcess => "all records of the batch were processed",
            Self::AfterChangelog => "the changelog was sent; nobody knows whether it has arrived",
            Self::AfterDrain => "every record was acknowledged; the offsets were not sent",
            Self::AfterOffsets => "the offsets are in the transaction; the commit was not asked for",
            Self::AfterCommit => "the commit was answered; nothing of it is in the state",
            Self::MidApply => "the state of one task has the batch; that of others may not",
            Self::AfterApply => "the state of every task has the batch",
            Self::AfterAbort => "the transaction was aborted; the batch was not given up",
            Self::AfterRebuild => "a new producer was initialised, and the old one fenced with it",
            Self::InRevoke => "partitions were taken away or given; their tasks were not told",
            Self::InRestore => "the replay is planned; what is to be wiped is not",
            Self::BetweenRestoreBatches => "a part of the changelog was replayed into the state",
            Self::BeforePosition => "the replay is through; the position of the commit is not in the state",
            Self::AfterRestore => "the task is restored; it has not run",
            Self::InClose => "the tasks are closed; the group was not left",
        }
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Failpoint;

    type Strike = Box<dyn Fn(Failpoint)>;
    type StrikeAnywhere = Box<dyn Fn(Failpoint) + Send + Sync>;

    /// So that a place where nobody strikes costs a load and nothing else.
    static ARMED: AtomicBool = AtomicBool::new(false);
    static EVERYWHERE: OnceLock<StrikeAnywhere> = OnceLock::new();

    thread_local! {
        static HERE: RefCell<Option<Strike>> = const { RefCell::new(None) };
    }

    /// Calls `strike` wherever this thread comes past a failpoint, from now on.
    pub fn strike_on_this_thread(strike: impl Fn(Failpoint) + 'static) {
        HERE.set(Some(Box::new(strike)));
        ARMED.store(true, Ordering::Relaxed);
    }

    /// Calls `strike` wherever a thread of this process comes past a failpoint, from now on.
    ///
    /// # Panics
    /// If it is called twice.
    pub fn strike_everywhere(strike: impl Fn(Failpoint) + Send + Sync + 'static) {
        assert!(EVERYWHERE.set(Box::new(strike)).is_ok(), "a process is told once where to strike");
        ARMED.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn at(point: Failpoint) {
        if ARMED.load(Ordering::Relaxed) {
            strike(point);
        }
    }

    #[cold]
    fn strike(point: Failpoint) {
        HERE.with_borrow(|here| here.iter().for_each(|strike| strike(point)));
        EVERYWHERE.get().into_iter().for_each(|strike| strike(point));
    }
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::at;
#[cfg(feature = "failpoints")]
pub use armed::{strike_everywhere, strike_on_this_thread};

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) const fn at(_: Failpoint) {}
