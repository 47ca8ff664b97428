//! Names operators that take long while they still run: by whatever thread has nothing else to do.
//!
//! It looks several times a second. Operators that it finds at the same record again have been at it since; from a quarter
//! of a transaction's time on the log says so, then after twice as long, and so on, and at the end once more. Heartbeats go
//! on meanwhile, for they are librdkafka's.

use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use processor_core::protocol::slow::{Consequence, SlowLimits};

use super::{InHand, ThreadStatus};
use crate::clock::Clock;

/// Looks in the time that a transaction has: a share of it may pass unseen.
const LOOKS: u32 = 32;
const LOOK_EVERY_MIN: Duration = Duration::from_millis(20);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(250);

/// Watches the operators of all threads.
#[derive(Debug)]
pub struct Watcher<C> {
    threads: Vec<Watched>,
    limits: SlowLimits,
    clock: C,
}

struct Watched {
    status: Arc<ThreadStatus>,
    /// Counts what was spoken of.
    slow: Counter,
    seen: Option<Seen>,
}

/// What the operators of a thread were found at.
#[derive(Debug)]
struct Seen {
    what: InHand,
    since: Duration,
    /// How long it may take before it is spoken of (again).
    next: Duration,
    /// It was.
    spoken_of: bool,
}

impl<C: Clock> Watcher<C> {
    /// Watches these threads; each counter counts what is spoken of its thread.
    pub fn new(threads: impl IntoIterator<Item = (Arc<ThreadStatus>, Counter)>, limits: SlowLimits, clock: C) -> Self {
        let threads = threads.into_iter().map(|(status, slow)| Watched { status, slow, seen: None });
        Self { threads: threads.collect(), limits, clock }
    }

    /// How often to look.
    pub fn look_every(&self) -> Duration {
        (self.limits.transaction / LOOKS).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
    }

    /// Looks.
    pub fn look(&mut self) {
        let now = self.clock.monotonic();
        for thread in &mut self.threads {
            thread.look(&self.limits, now);
        }
    }
}

impl Watched {
    fn look(&mut self, limits: &SlowLimits, now: Duration) {
        let tasks = self.status.at_work();
        tasks.iter().for_each(|task| task.clock_falls_due());
        let found = tasks.iter().find_map(|task| task.in_hand());
        self.seen = match (self.seen.take(), found) {
            (Some(seen), Some(found)) if seen.what.is_same(&found) => Some(Seen { what: found, ..seen }),
            (before, found) => {
                if let Some(ended) = before {
                    ended.told(now);
                }
                found.map(|what| Seen { what, since: now, next: limits.spoken_of_after(), spoken_of: false })
            }
        };
        let busy = self.seen.as_mut().map_or(Duration::ZERO, |seen| {
            let busy = now.saturating_sub(seen.since);
            if busy >= seen.next {
                self.slow.increment(u64::from(!seen.spoken_of));
                seen.speak(busy, limits);
            }
            busy
        });
        self.status.operators_busy_for(busy);
    }
}

impl InHand {
    fn is_same(&self, other: &Self) -> bool {
        self.step == other.step && self.task == other.task
    }
}

impl Seen {
    fn speak(&mut self, busy: Duration, limits: &SlowLimits) {
        (self.spoken_of, self.next) = (true, busy * 2);
        let InHand { task, node, .. } = &self.what;
        let follows = follows(limits, busy);
        tracing::warn!(%task, node, "{} has been in process for {busy:.1?}: {follows}", self.what);
    }

    /// Its end was seen, at `now` at the latest.
    fn told(&self, now: Duration) {
        if self.spoken_of {
            let (InHand { task, .. }, took) = (&self.what, now.saturating_sub(self.since));
            tracing::warn!(%task, "{} is done after about {took:.1?}", self.what);
        }
    }
}

/// What will happen, and what to do about it.
fn follows(limits: &SlowLimits, busy: Duration) -> String {
    let SlowLimits { transaction, max_poll_interval } = limits;
    match limits.consequence(busy) {
        Consequence::CommitsWithin(left) => format!(
            "if it is not done within {left:.1?}, its transaction has outlived its time ({transaction:?}, four fifths of \
             transaction.timeout) and the batch is processed again, in smaller ones"
        ),
        Consequence::Aborts { moves_in } => format!(
            "its transaction has outlived its time ({transaction:?}), so it is aborted and the record processed again; if that takes as \
             long each time, the worker stops. Raise transaction.timeout, or let the operator give up sooner. In {moves_in:.1?} the group gives the \
             partitions to another worker (max.poll.interval)"
        ),
        Consequence::Moved => format!(
            "longer than max.poll.interval ({max_poll_interval:?}), so the group gives its partitions to another worker, which meets the same \
             record. Let the operator give up sooner, or raise transaction.timeout and max.poll.interval"
        ),
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("status", &self.status).field("seen", &self.seen).finish_non_exhaustive()
    }
}
