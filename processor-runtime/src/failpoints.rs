//! Named places in the turn of a stream thread where a test can strike: kill the worker, or make it wait. Only with the
//! feature `failpoints`; otherwise passing one is nothing.
//!
//! There is one in every gap between two steps whose effects lie in different places: that is where a crash leaves one
//! without the other.

listed! {
    /// A place where a test can strike, in the order of a turn. The text is what a crash there leaves.
    pub enum Failpoint;
    AfterPoll = "after-poll", "records were polled, and none is processed";
    MidProcess = "mid-process", "a record was processed and its outputs were sent; others of the batch wait";
    AfterProcess = "after-process", "all records of the batch were processed";
    AfterChangelog = "after-changelog", "the changelog was sent; nobody knows whether it has arrived";
    AfterDrain = "after-drain", "every record was acknowledged; the offsets were not sent";
    AfterOffsets = "after-offsets", "the offsets are in the transaction; the commit was not asked for";
    AfterCommit = "after-commit", "the commit was answered; nothing of it is in the state";
    MidApply = "mid-apply", "the state of one task has the batch; that of others may not";
    AfterApply = "after-apply", "the state of every task has the batch";
    AfterAbort = "after-abort", "the transaction was aborted; the batch was not given up";
    AfterRebuild = "after-rebuild", "a new producer was initialised, and the old one fenced with it";
    InRevoke = "in-revoke", "partitions were taken away; their tasks were not told";
    InRestore = "in-restore", "the replay is planned; what is to be wiped is not";
    BetweenRestoreBatches = "between-restore-batches", "a part of the changelog was replayed into the state";
    BeforePosition = "before-position", "the replay is through; the position of the commit is not in the state";
    AfterRestore = "after-restore", "the task is restored; it has not run";
    InClose = "in-close", "the tasks are closed; the group was not left";
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
