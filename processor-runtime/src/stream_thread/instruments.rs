//! What the thread shows of itself and measures: once a turn, never on the path of a record.

use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::Timestamp;

use super::store_reads::StoreReads;
use super::{StreamThread, Turn};
use crate::clock::Clock;
use crate::kafka::{GroupConsumer, Kafka};
use crate::metrics::{Metrics, Phase, ThreadMetrics};
use crate::state::{StateDirectory, TaskState};
use crate::status::{InputStatus, Snapshot, TaskStatus, ThreadState, ThreadStatus};
use crate::tasks::Running;

/// A snapshot is at most this old.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Where a thread records what it does, and shows where it stands.
#[derive(Debug)]
pub struct Instruments {
    /// What it records in.
    pub(super) metrics: ThreadMetrics,
    /// What times reads of committed state; `None` where nothing is measured.
    pub(super) store_reads: Option<StoreReads>,
    status: Arc<ThreadStatus>,
    lap_from: Duration,
    published_at: Option<Duration>,
    shown: (ThreadState, usize, usize),
}

impl Instruments {
    /// Records and shows there.
    pub fn new(metrics: ThreadMetrics, status: Arc<ThreadStatus>) -> Self {
        Self {
            store_reads: metrics.store_reads().map(|[get, range]| StoreReads::new(get, range)),
            metrics,
            status,
            lap_from: Duration::ZERO,
            published_at: None,
            shown: Default::default(),
        }
    }
}

impl Default for Instruments {
    fn default() -> Self {
        Self::new(Metrics::off().thread(0), Arc::new(ThreadStatus::new(0)))
    }
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Records and shows with these instruments from here.
    #[must_use]
    pub fn with_instruments(mut self, instruments: Instruments) -> Self {
        self.instruments = instruments;
        self.begin_lap();
        self
    }

    pub(super) fn begin_lap(&mut self) {
        self.instruments.lap_from = self.clock.monotonic();
    }

    /// The phase has ended that began with the lap before.
    pub(super) fn lap(&mut self, phase: Phase) {
        let now = self.clock.monotonic();
        let took = now.saturating_sub(self.instruments.lap_from);
        self.instruments.metrics.phase(phase, took);
        self.instruments.lap_from = now;
    }

    /// Other tasks run from here on.
    pub(super) fn show_at_work(&self) {
        self.instruments.status.runs(self.tasks.iter().map(|running| running.at_work.clone()));
    }

    /// A turn has ended, just now.
    pub(super) fn show_turn(&mut self, turn: &Turn) {
        let now = self.instruments.lap_from;
        self.instruments.status.turned(now);
        let shape = (self.state(turn), self.tasks.iter().count(), self.restorer.tasks().count());
        let is_fresh = self.instruments.published_at.is_some_and(|at| now < at + PUBLISH_EVERY);
        if !is_fresh || shape != self.instruments.shown {
            (self.instruments.published_at, self.instruments.shown) = (Some(now), shape);
            self.instruments.status.publish(self.snapshot(shape.0));
        }
    }

    /// The thread has ended: it owns nothing any more.
    pub(super) fn show_stopped(&self) {
        self.instruments.status.publish(Snapshot { state: ThreadState::Stopped, tasks: Vec::new() });
    }

    fn state(&self, turn: &Turn) -> ThreadState {
        if !self.is_member() {
            ThreadState::Rebalancing
        } else if turn.running || (self.tasks.is_empty() && self.restorer.is_idle()) {
            ThreadState::Running
        } else {
            ThreadState::Restoring
        }
    }

    fn snapshot(&self, state: ThreadState) -> Snapshot {
        let running = self.tasks.iter().map(|running| self.show_running(running));
        let restoring = self.restorer.progress(self.instruments.lap_from).map(|(id, restore)| TaskStatus {
            id: id.clone(),
            restoring: Some(restore),
            inputs: Vec::new(),
            state: None,
        });
        let mut tasks: Vec<_> = running.chain(restoring).collect();
        tasks.sort_by(|a, b| a.id.cmp(&b.id));
        Snapshot { state, tasks }
    }

    fn show_running(&self, running: &Running<S::Task, super::Polled<K>>) -> TaskStatus {
        let input = |((partition, position), processed): (_, &Option<Timestamp>)| InputStatus {
            end: self.consumer.known_end(&partition),
            unstable: self.consumer.unstable(&partition),
            processed: *processed,
            partition,
            position,
        };
        TaskStatus {
            id: running.task.id().clone(),
            restoring: None,
            inputs: running.positions().into_iter().zip(running.processed()).map(input).collect(),
            state: running.state.as_ref().and_then(TaskState::shared),
        }
    }
}
