//! What a worker shows of itself: each stream thread publishes a small snapshot, whoever wants looks at the last one.
//!
//! It is the runtime's own, and no stable API.
//!
//! A thread publishes when the set or the state of its tasks changes, and once a second; that it turns, it says every turn
//! with one atomic store. So nothing here is on the path of a record, and no reader can make a thread wait for longer than
//! it takes to clone an `Arc`.

mod at_work;
mod watcher;

pub use at_work::{AllAtWork, AtWork, InHand};
pub use watcher::Watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use processor_core::ids::{Offset, TaskId, Timestamp, TopicPartition};
use processor_core::store::Base;

use crate::clock::Clock;

/// All that a worker shows.
#[derive(Debug)]
pub struct WorkerStatus<C> {
    threads: Vec<Arc<ThreadStatus>>,
    clock: C,
    /// How long a turn may take before the thread counts as hanging.
    turn_max: Duration,
    tasks_in_all: OnceLock<Vec<TaskId>>,
    retention: OnceLock<BTreeMap<Arc<str>, Duration>>,
}

/// What one stream thread shows.
#[derive(Debug)]
pub struct ThreadStatus {
    /// The thread's number, from 0.
    pub number: usize,
    /// When it last turned, in milliseconds of the worker's clock, plus 1; 0: not yet.
    turned_at: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    at_work: Mutex<AllAtWork>,
    /// For how long its operators have been at one thing, in milliseconds, as the watcher has found.
    operators_busy: AtomicU64,
}

/// A thread at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Where the thread is.
    pub state: ThreadState,
    /// The tasks that it was assigned, by id.
    pub tasks: Vec<TaskStatus>,
}

/// Where a stream thread is. The order is the distance from running, the farthest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadState {
    /// It has ended.
    Stopped,
    /// It has not turned yet: the worker checks topics, or waits for brokers.
    #[default]
    Starting,
    /// It has no place in the group, or waits for the group to settle.
    Rebalancing,
    /// Some of its tasks do not run yet.
    Restoring,
    /// All tasks that it was assigned run; these may be none.
    Running,
}

impl ThreadState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Starting, Self::Rebalancing, Self::Restoring, Self::Running];

    /// Its name on pages and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Rebalancing => "rebalancing",
            Self::Restoring => "restoring",
            Self::Running => "running",
        }
    }
}

/// A task at one moment.
#[derive(Clone)]
pub struct TaskStatus {
    /// The task.
    pub id: TaskId,
    /// Whether it runs; `Some` says what it still waits for.
    pub restoring: Option<RestoreStatus>,
    /// What it reads; empty while it restores.
    pub inputs: Vec<InputStatus>,
    /// Its committed state (EO-10); `None` while it restores, and for a task without stores.
    pub state: Option<Arc<dyn Base + Send + Sync>>,
}

impl fmt::Debug for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskStatus").field("id", &self.id).field("restoring", &self.restoring).finish_non_exhaustive()
    }
}

/// How far a restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreStatus {
    /// Changelog records that were read.
    pub replayed: u64,
    /// Changelog offsets that are left, at most; `None`: not known yet.
    pub remaining: Option<u64>,
    /// About how long it takes for what is left, at the rate so far; `None`: not known yet, or it waits.
    pub time_left: Option<Duration>,
    /// What it waits for.
    pub waits_for: &'static str,
}

/// How far an input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputStatus {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record to process; everything before it is committed.
    pub position: Offset,
    /// The end of the partition (high watermark), as of the last fetch; `None`: nothing was fetched yet.
    pub end: Option<Offset>,
    /// What open transactions hold back of it; `None`: not known.
    pub unstable: Option<Unstable>,
    /// The timestamp of a record that was processed lately, so that what waits is about as old; `None`: none was yet.
    pub processed: Option<Timestamp>,
}

/// What open transactions hold back of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unstable {
    /// Offsets between the last stable one and the end.
    pub records: u64,
    /// For how long the last stable offset has stood where it is, below the end.
    pub stands_for: Duration,
    /// Whether the client has read all of the log and handed it out: what is between the position and the end is no record.
    pub drained: bool,
}

impl InputStatus {
    /// How long retention lets the record alone that is next, as far as time decides it; `None`: nothing waits, or it is not
    /// known how old it is.
    pub fn time_to_loss(&self, retention: Duration, now: Timestamp) -> Option<Duration> {
        if self.lag()? == 0 || self.unstable.is_some_and(|unstable| unstable.drained) {
            return None;
        }
        let age = u64::try_from(now.get().saturating_sub(self.processed?.get())).unwrap_or(0);
        Some(retention.saturating_sub(Duration::from_millis(age)))
    }

    /// Offsets between the position and the end.
    pub fn lag(&self) -> Option<u64> {
        self.end.map(|end| u64::try_from(end.get() - self.position.get()).unwrap_or(0))
    }
}

impl ThreadStatus {
    /// Of the thread with this number.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            turned_at: AtomicU64::new(0),
            snapshot: Mutex::default(),
            at_work: Mutex::new(Arc::from([])),
            operators_busy: AtomicU64::new(0),
        }
    }

    /// The thread has turned.
    pub fn turned(&self, now: Duration) {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1);
        self.turned_at.store(millis + 1, Ordering::Relaxed);
    }

    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// The last snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These tasks run on the thread from here on.
    pub fn runs(&self, tasks: impl Iterator<Item = Arc<AtWork>>) {
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) = tasks.collect();
    }

    /// What the operators of its tasks are at.
    fn at_work(&self) -> AllAtWork {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn operators_busy_for(&self, busy: Duration) {
        self.operators_busy.store(u64::try_from(busy.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long its operators have been at one record or one punctuation, as far as the watcher has seen.
    pub fn operators_busy(&self) -> Duration {
        Duration::from_millis(self.operators_busy.load(Ordering::Relaxed))
    }

    /// When it last turned.
    pub fn turned_at(&self) -> Option<Duration> {
        self.turned_at.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

impl<C: Clock> WorkerStatus<C> {
    /// Of a worker with so many threads, which all read this clock.
    pub fn new(threads: usize, clock: C, turn_max: Duration) -> Self {
        let threads = (0..threads).map(|number| Arc::new(ThreadStatus::new(number))).collect();
        Self { threads, clock, turn_max, tasks_in_all: OnceLock::new(), retention: OnceLock::new() }
    }

    /// The threads, by number.
    pub fn threads(&self) -> &[Arc<ThreadStatus>] {
        &self.threads
    }

    /// Says which tasks the application has, on all workers together.
    pub fn know_tasks(&self, tasks: Vec<TaskId>) {
        self.tasks_in_all.get_or_init(|| tasks);
    }

    /// The tasks that the application has, on all workers together; empty until the topics are known.
    pub fn tasks_in_all(&self) -> &[TaskId] {
        self.tasks_in_all.get().map_or(&[], Vec::as_slice)
    }

    /// Says for how long the topics keep records, of those that delete by time.
    pub fn know_retention(&self, retention: BTreeMap<Arc<str>, Duration>) {
        self.retention.get_or_init(|| retention);
    }

    /// How long retention lets the record alone that is next of an input: see [`InputStatus::time_to_loss`].
    pub fn time_to_loss(&self, input: &InputStatus) -> Option<Duration> {
        let retention = self.retention.get()?.get(&input.partition.topic)?;
        input.time_to_loss(*retention, self.clock.wall())
    }

    /// The state of the thread that is farthest from running.
    pub fn state(&self) -> ThreadState {
        self.threads.iter().map(|thread| thread.snapshot().state).min().unwrap_or_default()
    }

    /// How long ago a thread has turned; `None`: it has not begun.
    pub fn turn_age(&self, thread: &ThreadStatus) -> Option<Duration> {
        thread.turned_at().map(|at| self.clock.monotonic().saturating_sub(at))
    }

    /// The threads that have not turned for longer than a turn may take, and since when.
    pub fn hanging(&self) -> Vec<(usize, Duration)> {
        let ages = self.threads.iter().filter_map(|thread| Some((thread.number, self.turn_age(thread)?)));
        ages.filter(|(_, age)| *age > self.turn_max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Hand(Arc<AtomicU64>);

    impl Clock for Hand {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn wall(&self) -> Timestamp {
            Timestamp::new(0)
        }
    }

    #[test]
    fn a_thread_hangs_when_it_has_begun_and_not_turned_for_too_long() {
        let hand = Hand(Arc::new(AtomicU64::new(0)));
        let worker = WorkerStatus::new(2, hand.clone(), Duration::from_secs(30));
        hand.0.store(100, Ordering::Relaxed);
        assert_eq!(worker.hanging(), [], "a start that waits for brokers does not hang");
        worker.threads()[1].turned(Duration::from_secs(100));
        hand.0.store(130, Ordering::Relaxed);
        assert_eq!(worker.hanging(), []);
        hand.0.store(131, Ordering::Relaxed);
        assert_eq!(worker.hanging(), [(1, Duration::from_secs(31))]);
    }

    #[test]
    fn the_worker_is_as_far_as_its_last_thread() {
        let worker = WorkerStatus::new(2, Hand(Arc::default()), Duration::ZERO);
        assert_eq!(worker.state(), ThreadState::Starting);
        let publish = |thread: usize, state| worker.threads()[thread].publish(Snapshot { state, tasks: Vec::new() });
        publish(0, ThreadState::Running);
        assert_eq!(worker.state(), ThreadState::Starting);
        publish(1, ThreadState::Restoring);
        assert_eq!(worker.state(), ThreadState::Restoring);
    }

    #[test]
    fn an_end_that_is_older_than_the_position_is_no_lag() {
        let partition = TopicPartition::new("in", processor_core::ids::Partition::new(0));
        let input = |end: Option<i64>| InputStatus {
            partition: partition.clone(),
            position: Offset::new(5),
            end: end.map(Offset::new),
            unstable: None,
            processed: None,
        };
        assert_eq!([None, Some(3), Some(9)].map(|end| input(end).lag()), [None, Some(0), Some(4)]);
    }

    #[test]
    fn what_waits_is_lost_when_retention_has_passed_since_its_timestamp() {
        let day = Duration::from_hours(24);
        let left_if = |drained: bool, end: i64, processed: Option<i64>, hours: i64| {
            let input = InputStatus {
                partition: TopicPartition::new("in", processor_core::ids::Partition::new(0)),
                position: Offset::new(5),
                end: Some(Offset::new(end)),
                unstable: Some(Unstable { drained, ..Unstable::default() }),
                processed: processed.map(Timestamp::new),
            };
            input.time_to_loss(day, Timestamp::new(1_000 + hours * 3_600_000)).map(|left| left.as_secs() / 3_600)
        };
        let left = |end, processed, hours| left_if(false, end, processed, hours);
        assert_eq!(left_if(true, 9, Some(1_000), 20), None, "only markers of transactions are left");
        assert_eq!(left(9, Some(1_000), 20), Some(4));
        assert_eq!(left(9, Some(1_000), 30), Some(0), "any moment");
        assert_eq!(left(5, Some(1_000), 20), None, "nothing waits");
        assert_eq!(left(9, None, 20), None, "nobody knows how old it is");
        assert_eq!(left(9, Some(2_000), 0), Some(24), "from the future");
    }
}
