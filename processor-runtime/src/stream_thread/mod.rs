//! The loop of a stream thread.
//!
//! It is the runtime's own, and no stable API.
//!
//! ```text
//! poll            no transaction is open here (EO-5); ownership changes here and nowhere else
//!  └ process      records in timestamp order per task; outputs go out while later records are processed
//!  └ commit       changelog → drain → offsets → commit
//!  └ apply        with the receipt only: values, positions and stream time as one change (EO-2, EO-3)
//! ```
//! The thread owns its consumer, its two producers, which work in turn, and its tasks; nothing is shared on the path of a record.

mod batch;
mod group;
mod instruments;
mod outputs;
mod ownership;
mod pass;
mod passed_over;
mod plan;
mod producer;
mod store_reads;

pub use instruments::Instruments;
pub use plan::{ChangelogTopic, ThreadPlan, producer_topics, producers};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use processor_core::ids::{Offset, TaskId, TopicPartition};
use processor_core::protocol::assignment::Inputs;
use processor_core::protocol::batch::BatchSize;
use processor_core::protocol::slow::Outlasted;

use self::group::Place;
use self::outputs::Outputs;
use self::producer::Producers;
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{GroupConsumer, GroupEvent, Kafka, PRODUCERS};
use crate::metrics::Phase;
use crate::restore::Restorer;
use crate::seeded_bugs::{self, Rule};
use crate::state::StateDirectory;
use crate::tasks::Tasks;
use crate::transaction::Clean;

/// Fences within [`FENCES_WITHIN`] that are put up with.
const FENCES_MAX: usize = 3;
/// Fences that follow each other so soon are one: whoever fences a thread fences both of its producers, and may come again
/// before or behind what replaces them.
const ONE_FENCE: Duration = Duration::from_secs(5);
/// The time in which fences are counted.
const FENCES_WITHIN: Duration = Duration::from_mins(5);
/// How long leaving the group may take.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Why a stream thread has stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ThreadError(pub String);

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Records that were processed and committed.
    pub committed: usize,
    /// Whether the thread has a task, and every task it has is running.
    pub running: bool,
    /// Whether the thread has its place in the group.
    pub member: bool,
}

type Consumer<K> = <K as Kafka>::Consumer;
type Polled<K> = <Consumer<K> as GroupConsumer>::Record;

/// One stream thread.
pub struct StreamThread<K: Kafka, S: StateDirectory, C> {
    plan: ThreadPlan,
    kafka: Arc<K>,
    directory: Arc<S>,
    clock: C,
    inputs: Vec<Inputs>,
    producer_topics: Vec<Arc<str>>,
    consumer: Consumer<K>,
    producers: Producers<K::Producer>,
    restorer: Restorer<K, S>,
    tasks: Tasks<S::Task, Polled<K>>,
    place: Place,
    footing: Footing,
    owned: BTreeSet<TopicPartition>,
    /// The inputs must be read from where the tasks stand.
    refetch: bool,
    /// No transaction begins before this time: the last one has failed.
    try_at: Duration,
    batch_size: BatchSize,
    /// The task that the next batch begins with: the last one was full before it came to it.
    first_task: usize,
    outlasted: Outlasted,
    fenced_at: Vec<Duration>,
    rejoined_at: Vec<Duration>,
    /// When a wait for a place in the group was last logged.
    reminded_at: Duration,
    outputs: Outputs,
    records: Vec<Polled<K>>,
    events: Vec<GroupEvent>,
    instruments: Instruments,
}

/// Whether what the running tasks hold can be built upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Footing {
    /// It can.
    Sound,
    /// The group has moved on, so we were told at this time; the rebalance decides what follows.
    Moved(Duration),
    /// Nobody knows whether the last transaction committed: every task must be recovered, once there are producers.
    InDoubt,
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Makes a thread. Its [producers] are initialised: all transactional ids of a process are, before any of its threads
    /// subscribes.
    ///
    /// # Errors
    /// The group member cannot be made.
    pub fn new(
        plan: ThreadPlan,
        kafka: Arc<K>,
        directory: Arc<S>,
        clock: C,
        producers: [Clean<K::Producer>; PRODUCERS],
    ) -> Result<Self, ThreadError> {
        let consumer =
            kafka.consumer(&plan.member, plan.topology.inputs()).map_err(|error| ThreadError(error.message))?;
        let inputs = plan.topology.subtopologies().iter().map(|subtopology| Inputs {
            subtopology: subtopology.name.clone(),
            topics: subtopology.inputs.iter().map(|input| plan.topology.inputs()[input.slot()].clone()).collect(),
        });
        Ok(Self {
            inputs: inputs.collect(),
            producer_topics: producer_topics(&plan),
            restorer: Restorer::new(plan.transactional_id.clone(), plan.start_rule, plan.layouts.clone()),
            batch_size: BatchSize::new(plan.batch),
            first_task: 0,
            outlasted: Outlasted::default(),
            consumer,
            producers: Producers::new(producers, plan.fence_after_rebuild && seeded_bugs::holds(Rule::FenceComesFirst)),
            kafka,
            directory,
            place: Place::Outside(clock.monotonic()),
            reminded_at: clock.monotonic(),
            clock,
            tasks: Tasks::default(),
            footing: Footing::Sound,
            owned: BTreeSet::new(),
            refetch: false,
            try_at: Duration::ZERO,
            fenced_at: Vec::new(),
            rejoined_at: Vec::new(),
            outputs: Outputs::default(),
            records: Vec::new(),
            events: Vec::new(),
            instruments: Instruments::default(),
            plan,
        })
    }

    /// Turns until `stop` is set or a turn fails, then closes everything that a clean stop closes.
    ///
    /// # Errors
    /// Why the thread cannot go on. Its open transaction is aborted, and nothing is lost.
    pub fn run(mut self, stop: &AtomicBool, mut each_turn: impl FnMut(Turn)) -> Result<(), ThreadError> {
        let mut ended = Ok(());
        while ended.is_ok() && !stop.load(Ordering::Relaxed) {
            ended = self.turn().map(&mut each_turn);
        }
        self.stop();
        ended
    }

    /// One turn. No transaction is open when it begins and none when it ends (EO-5).
    ///
    /// # Errors
    /// Why the thread cannot go on.
    pub fn turn(&mut self) -> Result<Turn, ThreadError> {
        self.poll()?;
        failpoints::at(Failpoint::AfterPoll);
        self.lap(Phase::Poll);
        self.follow_group()?;
        self.recover()?;
        self.lap(Phase::Recover);
        let processed = self.process()?;
        self.lap(Phase::Process);
        let committed = match processed {
            Some(processed) => self.commit(processed)?,
            None => 0,
        };
        self.open_what_failed_anew();
        self.fetch_where_tasks_stand()?;
        self.lap(Phase::Other);
        let turn = Turn { committed, running: self.is_running(), member: self.is_member() };
        self.show_turn(&turn);
        Ok(turn)
    }

    /// The tasks that this thread holds, each with whether it runs (or is being recovered).
    pub fn tasks(&self) -> Vec<(TaskId, bool)> {
        let sound = self.footing != Footing::InDoubt;
        let running = self.tasks.iter().map(|running| (running.task.id().clone(), sound));
        running.chain(self.restorer.tasks().map(|task| (task.clone(), false))).collect()
    }

    fn is_running(&self) -> bool {
        !self.tasks.is_empty() && self.restorer.is_idle() && self.is_ready()
    }

    fn is_ready(&self) -> bool {
        self.producers.are_ready() && self.footing != Footing::InDoubt
    }

    /// Closes operators and stores, and leaves the group where that moves the partitions sooner.
    fn stop(mut self) {
        self.show_stopped();
        self.suspend_all();
        failpoints::at(Failpoint::InClose);
        if self.plan.leave_on_stop
            && let Err(error) = self.consumer.leave(LEAVE_WAIT)
        {
            tracing::warn!("leaving the group failed, its partitions move when the session times out: {error}");
        }
    }
}

fn listed(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn listed_positions(positions: &[(TopicPartition, Offset)]) -> String {
    positions.iter().map(|(partition, offset)| format!("{partition}@{offset}")).collect::<Vec<_>>().join(", ")
}

impl<K: Kafka, S: StateDirectory, C> std::fmt::Debug for StreamThread<K, S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamThread").field("transactional_id", &self.plan.transactional_id).finish_non_exhaustive()
    }
}
