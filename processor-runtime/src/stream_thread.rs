//! The loop of a stream thread.
//!
//! ```text
//! poll            no transaction is open here (EO-5); ownership changes here and nowhere else
//!  └ process      records in timestamp order per task; outputs go out while later records are processed
//!  └ commit       changelog → drain → offsets → commit
//!  └ apply        with the receipt only: values, positions and stream time as one change (EO-2, EO-3)
//! ```
//! The thread owns its consumer, its producer and its tasks; nothing is shared on the path of a record.

mod outputs;
mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use processor_core::error::RecordFailure;
use processor_core::ids::{InputIndex, Offset, OutputIndex, TaskId, TopicPartition};
use processor_core::protocol::assignment::{self, Inputs, TaskAction};
use processor_core::protocol::batch::{BatchBounds, BatchSize, TurnCost};
use processor_core::protocol::restore::StartRule;
use processor_core::task::{Task, TaskSettings};
use processor_core::topology::ApplicationTopology;

use self::outputs::Outputs;
use self::pass::{Interrupted, Pace, Pass};
use crate::clock::Clock;
use crate::kafka::{
    DeliveryTag, GroupConsumer, GroupEvent, GroupMetadata, Kafka, KafkaErrorKind, Member, Membership, OffsetToCommit,
    ProducerRecord, Progress, RecordHeaders, RecordNumber, TRANSACTIONAL_ID_HEADER, TransactionalId,
    TransactionalProducer, TxnError, TxnErrorKind,
};
use crate::restore::{ChangelogSource, Recovery, RestoreErrorKind, Restorer, StepContext};
use crate::state::{Layout, StateDirectory};
use crate::tasks::{Running, Tasks};
use crate::transaction::{Broken, Clean, CommitReceipt, Ended, Next, Open, Why};

/// How long a turn waits for something to happen when there is nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long it waits while answers or changelog records are under way.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// How long one turn may spend on initialising a producer.
const INIT_SLICE: Duration = Duration::from_millis(100);
/// The clock is looked at after so many records at the most; sooner where records take long.
const CLOCK_STRIDE_MAX: usize = 64;
/// Records that took less than this together are quick: the clock is looked at half as often from there.
const CLOCK_STRIDE_QUICK: Duration = Duration::from_millis(1);
/// Consumers within [`FENCES_WITHIN`] that may be replaced after their session was lost.
const REJOINS_MAX: usize = 10;
/// Fences within [`FENCES_WITHIN`] that are put up with.
const FENCES_MAX: usize = 3;
/// The time in which fences are counted.
const FENCES_WITHIN: Duration = Duration::from_mins(5);

/// What a stream thread needs to know; the same for all threads of an application but for the identity.
#[derive(Clone, Debug)]
pub struct ThreadPlan {
    /// The topology.
    pub topology: ApplicationTopology,
    /// How many partitions each output topic has, in the topology's order.
    pub output_partitions: Arc<[u32]>,
    /// The thread's transactional id.
    pub transactional_id: TransactionalId,
    /// The thread's place in the group.
    pub member: Member,
    /// Per sub-topology: the changelog topic of each store with its `delete.retention.ms`.
    pub changelogs: BTreeMap<Arc<str>, Vec<ChangelogTopic>>,
    /// Per sub-topology with stores: what its tasks keep on disk.
    pub layouts: BTreeMap<Arc<str>, Layout>,
    /// Where inputs begin that have no committed offset.
    pub start_rule: StartRule,
    /// The bounds of a poll batch.
    pub batch: BatchBounds,
    /// The most bytes of keys and values in a poll batch.
    pub batch_bytes_max: usize,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
    /// How long a member that was told it is out of date waits for the rebalance before it recovers by itself.
    pub rebalance_wait: Duration,
    /// Whether the broker does not verify transactions (`transaction.partition.verification.enable=false`): then every
    /// producer that replaces a tainted one begins with a fence transaction, which keeps a late `TxnOffsetCommit` of its
    /// predecessor out.
    pub fence_after_rebuild: bool,
    /// The most bytes of clean values that each store of a task keeps decoded.
    pub cache_bytes_max: usize,
    /// Whether to leave the group when the thread stops: partitions move at once, instead of waiting for a restart.
    pub leave_on_stop: bool,
}

/// A changelog topic.
#[derive(Clone, Debug)]
pub struct ChangelogTopic {
    /// The store it belongs to.
    pub store: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

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
    producer: ProducerSlot<K::Producer>,
    restorer: Restorer<K, S>,
    tasks: Tasks<S::Task, Polled<K>>,
    place: Place,
    rejoined_at: Vec<Duration>,
    owned: BTreeSet<TopicPartition>,
    /// The group has moved on, so we were told at this time; the rebalance decides what follows.
    moved_at: Option<Duration>,
    /// What every running task holds is in doubt: recover all, once there is a producer.
    recover_all: bool,
    /// The inputs must be read from where the tasks stand.
    refetch: bool,
    /// The next transaction must be a fence transaction.
    fence_due: bool,
    batch_size: BatchSize,
    fenced_at: Vec<Duration>,
    outputs: Outputs,
    records: Vec<Polled<K>>,
    events: Vec<GroupEvent>,
    failed: Option<ThreadError>,
}

/// Where the thread stands in the group.
enum Place {
    /// Not in it yet, or between two generations.
    Outside,
    /// The group took everything away without asking, and has not given anything since.
    Lost,
    /// In it, with what it was assigned under this membership.
    Inside(Membership),
}

enum ProducerSlot<P> {
    /// Since this time.
    Initialising(P, Duration),
    Ready(Clean<P>),
    /// Gone; a new one must be made.
    Missing,
}

/// A batch that was processed, its outputs sent, nothing committed.
struct Processed<P> {
    transaction: Open<P>,
    records: usize,
    took: Duration,
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Makes a thread. `producer` has been initialised with the thread's transactional id: all ids of a process are,
    /// before any of its threads subscribes.
    ///
    /// # Errors
    /// The group member cannot be made.
    pub fn new(
        plan: ThreadPlan,
        kafka: Arc<K>,
        directory: Arc<S>,
        clock: C,
        producer: Clean<K::Producer>,
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
            consumer,
            producer: ProducerSlot::Ready(producer),
            kafka,
            directory,
            clock,
            tasks: Tasks::default(),
            place: Place::Outside,
            rejoined_at: Vec::new(),
            owned: BTreeSet::new(),
            moved_at: None,
            recover_all: false,
            refetch: false,
            fence_due: plan.fence_after_rebuild,
            fenced_at: Vec::new(),
            outputs: Outputs::default(),
            records: Vec::new(),
            events: Vec::new(),
            failed: None,
            plan,
        })
    }

    /// Turns until `stop` is set, then closes everything that a clean stop closes.
    ///
    /// # Errors
    /// Why the thread cannot go on. Its open transaction is aborted, and nothing is lost.
    pub fn run(mut self, stop: &AtomicBool, mut each_turn: impl FnMut(Turn)) -> Result<(), ThreadError> {
        while !stop.load(Ordering::Relaxed) {
            let turn = self.turn()?;
            each_turn(turn);
        }
        self.stop();
        Ok(())
    }

    /// One turn. No transaction is open when it begins and none when it ends (EO-5).
    ///
    /// # Errors
    /// Why the thread cannot go on.
    pub fn turn(&mut self) -> Result<Turn, ThreadError> {
        self.poll()?;
        self.follow_group()?;
        self.recover()?;
        let committed = match self.process()? {
            Some(processed) => self.commit(processed)?,
            None => 0,
        };
        self.fetch_where_tasks_stand()?;
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(Turn { committed, running: self.is_running() }),
        }
    }

    /// The tasks that this thread holds, each with whether it runs (or is being recovered).
    pub fn tasks(&self) -> Vec<(TaskId, bool)> {
        let running = self.tasks.iter().map(|running| (running.task.id().clone(), !self.recover_all));
        running.chain(self.restorer.tasks().map(|task| (task.clone(), false))).collect()
    }

    fn is_running(&self) -> bool {
        !self.tasks.is_empty() && self.restorer.is_idle() && self.is_ready()
    }

    fn is_member(&self) -> bool {
        matches!(self.place, Place::Inside(_))
    }

    fn is_ready(&self) -> bool {
        matches!(self.producer, ProducerSlot::Ready(_)) && !self.recover_all
    }

    fn poll(&mut self) -> Result<(), ThreadError> {
        // Records wait where an operator has asked for a commit before them.
        let busy = !self.restorer.is_idle() || !self.is_ready() || !self.tasks.nothing_waits();
        let wait = if busy { BUSY_WAIT } else { IDLE_WAIT };
        let can_process = self.is_ready() && !self.tasks.is_empty() && self.tasks.nothing_waits();
        // What cannot be processed yet should stay with the consumer, but a poll has room for one record at least.
        let records_max = if can_process { self.batch_size.records_max() } else { 1 };
        let polled =
            self.consumer.poll(wait, records_max, self.plan.batch_bytes_max, &mut self.records, &mut self.events);
        match polled {
            Ok(()) => Ok(()),
            Err(error) if error.kind == KafkaErrorKind::FencedInstance => self.rejoin_or_stop(&error.message),
            Err(error) => Err(ThreadError(error.message)),
        }
    }

    /// The broker says that our `group.instance.id` belongs to somebody else. That is a twin, unless our own session had
    /// just been lost: then librdkafka has gone on with heartbeats under no member id, and the broker takes us for our
    /// own twin. That client is of no use any more; a new one joins in our place.
    fn rejoin_or_stop(&mut self, reason: &str) -> Result<(), ThreadError> {
        let lost_now = self.events.iter().any(|event| matches!(event, GroupEvent::Revoked { lost: true }));
        let now = self.clock.monotonic();
        self.rejoined_at.retain(|&at| now < at + FENCES_WITHIN);
        let lost = lost_now || matches!(self.place, Place::Lost);
        if !lost || self.rejoined_at.len() >= REJOINS_MAX {
            return Err(self.instance_used_twice(reason));
        }
        tracing::warn!("the session was lost, and with it the place in the group: joining again ({reason})");
        self.rejoined_at.push(now);
        self.events.clear();
        self.records.clear();
        self.place = Place::Lost;
        self.assign(&[]);
        let consumer = self.kafka.consumer(&self.plan.member, self.plan.topology.inputs());
        self.consumer = consumer.map_err(|error| ThreadError(error.message))?;
        Ok(())
    }

    /// Carries out what the group has decided.
    fn follow_group(&mut self) -> Result<(), ThreadError> {
        for event in std::mem::take(&mut self.events) {
            match event {
                GroupEvent::Assigned { partitions, membership } => {
                    tracing::info!(generation = membership.generation, partitions = %listed(&partitions), "assigned");
                    self.place = Place::Inside(membership);
                    self.assign(&partitions);
                }
                GroupEvent::Revoked { lost } => {
                    tracing::info!(lost, "revoked");
                    self.place = if lost { Place::Lost } else { Place::Outside };
                    self.assign(&[]);
                }
                GroupEvent::OutOfRange { partition, reason } => {
                    return Err(ThreadError(format!(
                        "{partition}: {reason}: the record that is next to process is not there any more. Input was lost: retention \
                         deleted it before it was processed, or the topic was made again. Raise retention.ms above the longest downtime; \
                         to go on without the lost records set the group's offset with kafka-consumer-groups --reset-offsets"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Ownership has changed: what goes is suspended, what is owned now is recovered, whether it was held or not.
    fn assign(&mut self, partitions: &[TopicPartition]) {
        self.moved_at = None;
        self.recover_all = false;
        self.refetch = false;
        self.owned = partitions.iter().cloned().collect();
        let mut held = self.take_all_tasks();
        let ids: BTreeSet<TaskId> = held.keys().cloned().collect();
        for action in assignment::diff(&ids, partitions, &self.inputs) {
            match action {
                TaskAction::Suspend(task) => {
                    let (task, state) = held.remove(&task).expect("only held tasks are suspended");
                    self.suspend(task, state);
                }
                TaskAction::Recover(id) => {
                    let (task, state) = held.remove(&id).unwrap_or_else(|| (self.new_task(&id), None));
                    self.begin_recovery(task, state);
                }
                TaskAction::Incomplete { task, missing } => {
                    tracing::error!(%task, missing = %listed(&missing), "the assignor gave this thread only a part of a task's inputs, so the \
                        task does not run: its input topics must have the same number of partitions");
                }
            }
        }
        assert!(held.is_empty(), "every held task is suspended or recovered");
    }

    fn take_all_tasks(&mut self) -> BTreeMap<TaskId, (Task, Option<S::Task>)> {
        let recovering = self.restorer.abandon().into_iter().map(Recovery::into_parts);
        let running = self.tasks.take_all().into_iter().map(|running| (running.task, running.state));
        recovering.chain(running).map(|(task, state)| (task.id().clone(), (task, state))).collect()
    }

    fn new_task(&self, id: &TaskId) -> Task {
        let settings = TaskSettings {
            cache_bytes_max: self.plan.cache_bytes_max,
            output_partitions: self.plan.output_partitions.clone(),
        };
        self.plan.topology.task(id, &settings)
    }

    fn suspend(&self, mut task: Task, state: Option<S::Task>) {
        task.close();
        if let Some(state) = state {
            self.directory.park(state);
        }
    }

    fn begin_recovery(&mut self, task: Task, state: Option<S::Task>) {
        let inputs = self.inputs_of(&task);
        let changelogs = self.changelogs_of(task.id()).into_iter().map(|(source, _)| source).collect();
        self.restorer.begin(Recovery::new(task, inputs, changelogs, state));
    }

    fn inputs_of(&self, task: &Task) -> Vec<(InputIndex, TopicPartition)> {
        let topics = self.plan.topology.inputs();
        let partition = |input: InputIndex| TopicPartition::new(topics[input.slot()].clone(), task.partition());
        task.inputs().map(|input| (input, partition(input))).collect()
    }

    fn changelogs_of(&self, task: &TaskId) -> Vec<(ChangelogSource, OutputIndex)> {
        let Some(topics) = self.plan.changelogs.get(&task.subtopology) else { return Vec::new() };
        let of_topic = |changelog: &ChangelogTopic| {
            let index = self.producer_topics.iter().position(|topic| *topic == changelog.topic);
            let index = index.expect("the producer's topics hold every changelog");
            let source = ChangelogSource {
                store: changelog.store.clone(),
                partition: TopicPartition::new(changelog.topic.clone(), task.partition),
                delete_retention_ms: changelog.delete_retention_ms,
            };
            (source, OutputIndex::new(u16::try_from(index).expect("build() bounds the number of topics")))
        };
        topics.iter().map(of_topic).collect()
    }

    /// One bounded step of everything that must be mended before records can be processed.
    fn recover(&mut self) -> Result<(), ThreadError> {
        self.initialise_producer()?;
        let now = self.clock.monotonic();
        if let Some(moved_at) = self.moved_at
            && now >= moved_at + self.plan.rebalance_wait
            && self.is_member()
        {
            tracing::warn!("the group said it had moved on, but no rebalance came: recovering what is owned");
            self.moved_at = None;
            self.recover_all = true;
        }
        if self.recover_all && self.is_member() && matches!(self.producer, ProducerSlot::Ready(_)) {
            self.recover_all = false;
            for (task, state) in self.take_all_tasks().into_values() {
                self.begin_recovery(task, state);
            }
        }
        self.restore()
    }

    /// A producer that is gone is replaced by one with the same id; initialising it ends whatever the old one left.
    fn initialise_producer(&mut self) -> Result<(), ThreadError> {
        let now = self.clock.monotonic();
        let (mut producer, since) = match std::mem::replace(&mut self.producer, ProducerSlot::Missing) {
            ProducerSlot::Ready(clean) => {
                self.producer = ProducerSlot::Ready(clean);
                return Ok(());
            }
            ProducerSlot::Initialising(producer, since) => (producer, since),
            ProducerSlot::Missing => {
                let made = self.kafka.producer(&self.plan.transactional_id, &self.producer_topics);
                (made.map_err(|error| ThreadError(error.message))?, now)
            }
        };
        match producer.init(INIT_SLICE) {
            Ok(Progress::Done) => {
                self.producer = ProducerSlot::Ready(Clean::initialised(producer));
                self.fence_due = self.plan.fence_after_rebuild;
            }
            Ok(Progress::Pending) if now.saturating_sub(since) > self.plan.transaction_timeout => {
                // Whatever its client waits for, a new one looks for the coordinator afresh.
                tracing::warn!(
                    "initialising transactions has not ended in {:?}: a new producer tries",
                    self.plan.transaction_timeout
                );
            }
            Ok(Progress::Pending) => self.producer = ProducerSlot::Initialising(producer, since),
            Err(error) if error.kind == TxnErrorKind::Refused => return Err(self.refused(&error.to_string())),
            Err(error) if error.kind == TxnErrorKind::Fenced => self.count_fence(&error.to_string())?,
            Err(error) => tracing::warn!("initialising transactions failed, trying again: {error}"),
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), ThreadError> {
        let wait = if self.tasks.is_empty() { BUSY_WAIT } else { Duration::ZERO };
        let mut ctx = StepContext {
            kafka: &*self.kafka,
            consumer: &mut self.consumer,
            directory: &*self.directory,
            clock: &self.clock,
            wait,
        };
        let recovered = match self.restorer.step(&mut ctx) {
            Ok(recovered) => recovered,
            Err(error) if error.kind == RestoreErrorKind::FencedInstance => {
                return Err(self.instance_used_twice(&error.message));
            }
            Err(error) => return Err(ThreadError(error.message)),
        };
        for recovered in recovered {
            let id = recovered.task.id().clone();
            let replayed = recovered.records_replayed;
            let inputs = self.inputs_of(&recovered.task);
            let running = Running::new(recovered, inputs, self.changelogs_of(&id));
            tracing::info!(task = %id, from = %listed_positions(&running.positions()), replayed, "running");
            self.tasks.insert(running);
            self.refetch = true;
        }
        Ok(())
    }

    /// Processes what was polled; outputs go to the producer as they come.
    fn process(&mut self) -> Result<Option<Processed<K::Producer>>, ThreadError> {
        self.tasks.route_records(&mut self.records);
        let idle = self.tasks.nothing_waits() && !self.tasks.punctuation_is_due(self.clock.wall());
        if idle || !self.is_ready() || self.moved_at.is_some() {
            return Ok(None);
        }
        if self.fence_due {
            return self.fence_late_offsets().map(|()| None);
        }
        let waiting = self.tasks.waiting_len();
        let began = self.clock.monotonic();
        let budget = self.plan.transaction_timeout * 4 / 5;
        let ProducerSlot::Ready(producer) = std::mem::replace(&mut self.producer, ProducerSlot::Missing) else {
            unreachable!("is_ready has just said so");
        };
        let mut transaction = match producer.begin(&self.clock, budget) {
            Ok(transaction) => transaction,
            Err(broken) => return self.broken(&broken).map(|()| None),
        };
        match self.process_tasks(&mut transaction, began + self.plan.transaction_timeout * 2 / 5) {
            Ok(Progressed { processed: records, dropped }) => {
                let left = self.tasks.waiting_len();
                assert!(
                    records + dropped + left == waiting,
                    "EO-6: of {waiting} polled records {records} were processed, {dropped} are read again and {left} wait"
                );
                let took = self.clock.monotonic().saturating_sub(began);
                Ok(Some(Processed { transaction, records, took }))
            }
            Err(Interrupted::Producer(error)) => self.fail(transaction, &error).map(|()| None),
            Err(Interrupted::TooSlow(processed)) => {
                self.batch_size.gave_up(processed);
                let why = format!(
                    "its transaction would outlive its time after {processed} of {waiting} records; smaller batches from here"
                );
                let ended = transaction.abort(&self.clock, Why::Failed(why));
                self.ended(ended).map(|()| None)
            }
            Err(Interrupted::Corrupt(task, failure)) => {
                let ended = transaction.abort(&self.clock, Why::Failed(failure.to_string()));
                self.ended(ended)?;
                self.discard_and_recover(&task, &failure).map(|()| None)
            }
        }
    }

    /// Where the broker does not verify transactions, a late `TxnOffsetCommit` of the producer's predecessor would be
    /// taken into its successor's first transaction. So the first one carries the offsets as they are committed, and
    /// aborts: from then on the coordinator knows the new epoch and refuses the old one.
    fn fence_late_offsets(&mut self) -> Result<(), ThreadError> {
        let ProducerSlot::Ready(producer) = std::mem::replace(&mut self.producer, ProducerSlot::Missing) else {
            unreachable!("is_ready has just said so");
        };
        let transaction = match producer.begin(&self.clock, self.plan.transaction_timeout * 4 / 5) {
            Ok(transaction) => transaction,
            Err(broken) => return self.broken(&broken),
        };
        let group = match self.checked_membership() {
            Ok(group) => group,
            Err(why) => return self.ended(transaction.abort(&self.clock, why)),
        };
        let positions = self.tasks.positions();
        let offset = |(partition, offset)| OffsetToCommit { partition, offset, metadata: "" };
        let offsets: Vec<_> = positions.iter().map(|(partition, at)| (partition, *at)).map(offset).collect();
        match transaction.prepare(&self.clock, &offsets, &group) {
            Ok(prepared) => {
                self.fence_due = false;
                self.ended(prepared.abort(&self.clock, Why::Fence))
            }
            Err(ended) => self.ended(ended),
        }
    }

    fn process_tasks(
        &mut self,
        transaction: &mut Open<K::Producer>,
        deadline: Duration,
    ) -> Result<Progressed, Interrupted> {
        self.outputs.clear();
        let mut pass = Pass {
            transaction,
            outputs: &mut self.outputs,
            clock: &self.clock,
            now: self.clock.wall(),
            deadline,
            pace: Pace::from(self.clock.monotonic()),
            processed: 0,
            dropped: 0,
            failed: None,
        };
        for (slot, running) in self.tasks.iter_mut().enumerate() {
            pass.task(slot, running)?;
        }
        let Pass { processed, dropped, failed, .. } = pass;
        self.failed = failed;
        self.refetch |= dropped > 0;
        Ok(Progressed { processed, dropped })
    }

    /// Changelog, drain, offsets, commit, apply. Returns how many records were committed.
    fn commit(&mut self, processed: Processed<K::Producer>) -> Result<usize, ThreadError> {
        let Processed { mut transaction, records, took } = processed;
        let began = self.clock.monotonic();
        let sent = self.send_changelog(&mut transaction);
        let tags = match sent.and_then(|tags| transaction.drain(&self.clock).map(|()| tags)) {
            Ok(tags) if tags.is_empty() => {
                let ended = transaction.abort(&self.clock, Why::Empty);
                return self.ended(ended).map(|()| 0);
            }
            Ok(tags) => tags,
            Err(error) => return self.fail(transaction, &error).map(|()| 0),
        };
        let group = match self.checked_membership() {
            Ok(group) => group,
            Err(why) => {
                let ended = transaction.abort(&self.clock, why);
                return self.ended(ended).map(|()| 0);
            }
        };
        let positions = self.offsets_to_commit(&tags, &transaction);
        let offsets: Vec<_> = positions
            .iter()
            .map(|(partition, offset, metadata)| OffsetToCommit { partition, offset: *offset, metadata })
            .collect();
        let prepared = match transaction.prepare(&self.clock, &offsets, &group) {
            Ok(prepared) => prepared,
            Err(ended) => return self.ended(ended).map(|()| 0),
        };
        let receipt = match prepared.commit(&self.clock) {
            Ok((receipt, next)) => {
                self.set_producer(next);
                receipt
            }
            Err(broken) => return self.broken(&broken).map(|()| 0),
        };
        self.apply(&receipt, &tags);
        let commit = self.clock.monotonic().saturating_sub(began);
        tracing::debug!(records, process = ?took, commit = ?commit, "committed");
        self.batch_size.learn(&TurnCost { records, process: took, commit });
        Ok(records)
    }

    /// Ends the transaction after an error. If the broker has refused an output for what it is, the record that the output
    /// comes from is condemned: when it is processed again, its policy says what becomes of it.
    fn fail(&mut self, transaction: Open<K::Producer>, error: &TxnError) -> Result<(), ThreadError> {
        let refused = transaction.refused();
        let origin = refused.as_ref().and_then(|refused| self.outputs.origin(refused.number));
        let (Some(refused), Some(origin)) = (refused, origin) else {
            let ended = transaction.fail(&self.clock, error);
            return self.ended(ended);
        };
        let running = self.tasks.iter_mut().nth(origin.task).expect("tasks do not come and go in a transaction");
        running.task.condemn(origin.input, origin.offset, origin.sink, &refused.reason);
        let ended = transaction.abort(&self.clock, Why::Failed(refused.reason));
        self.ended(ended)
    }

    /// Sends the last value of every key that the batch wrote. Returns, for each task that has something to commit, the
    /// tag of its first store.
    fn send_changelog(&mut self, transaction: &mut Open<K::Producer>) -> Result<BTreeMap<TaskId, u16>, TxnError> {
        let mut tags = BTreeMap::new();
        let mut next_tag = 0;
        for running in self.tasks.iter_mut().filter(|running| running.task.has_uncommitted()) {
            let first_tag = next_tag;
            next_tag += u16::try_from(running.changelogs.len()).expect("build() bounds the number of stores");
            tags.insert(running.task.id().clone(), first_tag);
            running.changes.clear();
            running.task.collect_changes(&mut running.changes).map_err(|failure| TxnError {
                kind: TxnErrorKind::Refused,
                call: "encode",
                code: "ENCODE".to_owned(),
                message: format!("task {}: {failure}", running.task.id()),
            })?;
            let mut first = vec![true; running.changelogs.len()];
            // A punctuation may write before the first record has come.
            let timestamp = running.task.stream_time().unwrap_or_else(|| self.clock.wall());
            for change in running.changes.changes() {
                let (source, topic) = &running.changelogs[change.store.slot()];
                let is_first = std::mem::replace(&mut first[change.store.slot()], false);
                let id = self.plan.transactional_id.0.as_bytes();
                transaction.send(&ProducerRecord {
                    topic: *topic,
                    partition: processor_core::record::TargetPartition::Exactly(source.partition.partition),
                    timestamp,
                    key: Some(change.key),
                    value: change.value,
                    headers: if is_first {
                        RecordHeaders::One(TRANSACTIONAL_ID_HEADER, id)
                    } else {
                        RecordHeaders::None
                    },
                    tag: DeliveryTag(first_tag + change.store.get()),
                    number: RecordNumber::NONE,
                })?;
            }
        }
        Ok(tags)
    }

    /// EO-12: the membership that goes with the offsets is the one that the tasks were assigned under.
    fn checked_membership(&self) -> Result<<Consumer<K> as GroupConsumer>::GroupMetadata, Why> {
        let group = self.consumer.group_metadata().map_err(|error| Why::Moved(error.message))?;
        let now = group.membership();
        match &self.place {
            Place::Inside(assigned) if *assigned == now && now.is_checked() => Ok(group),
            Place::Inside(assigned) => {
                Err(Why::Moved(format!("assigned under {assigned:?}, but the member is {now:?}")))
            }
            Place::Outside | Place::Lost => Err(Why::Moved(format!("assigned nothing, but the member is {now:?}"))),
        }
    }

    /// Of every task that did anything, the absolute offset of every input (EO-12), with the task's metadata.
    fn offsets_to_commit(
        &self,
        tags: &BTreeMap<TaskId, u16>,
        transaction: &Open<K::Producer>,
    ) -> Vec<(TopicPartition, Offset, String)> {
        let mut offsets = Vec::new();
        for running in self.tasks.iter() {
            let Some(&tag) = tags.get(running.task.id()) else { continue };
            let metadata = running.metadata(&self.plan.transactional_id, tag, |tag| transaction.delivered_end(tag));
            let mut text = String::new();
            metadata.write(&mut text);
            let owned = running.inputs.iter().all(|(_, partition)| self.owned.contains(partition));
            assert!(owned, "EO-12: offsets are committed for owned partitions only, task {}", running.task.id());
            offsets
                .extend(running.positions().into_iter().map(|(partition, offset)| (partition, offset, text.clone())));
        }
        offsets
    }

    fn apply(&mut self, receipt: &CommitReceipt, tags: &BTreeMap<TaskId, u16>) {
        let now = self.clock.wall();
        let mut unwritten = Vec::new();
        for running in self.tasks.iter_mut() {
            let Some(&tag) = tags.get(running.task.id()) else { continue };
            if let Err(error) = running.apply(receipt, tag, now) {
                tracing::error!(task = %running.task.id(), "the committed batch is restored from the changelog instead: {error}");
                unwritten.push(running.task.id().clone());
            }
        }
        for task in unwritten {
            let Running { task, state, .. } = self.tasks.remove(&task).expect("it ran a moment ago");
            drop(state); // it is opened again, and what it lacks comes from the changelog
            self.begin_recovery(task, None);
            self.refetch = true;
        }
    }

    /// A transaction has ended without a commit.
    fn ended(&mut self, ended: Ended<K::Producer>) -> Result<(), ThreadError> {
        let (why, next) = match ended {
            Ended::Aborted { why, next } => (why, next),
            Ended::Broken(broken) => return self.broken(&broken),
        };
        self.set_producer(next);
        if why == Why::Empty {
            // No task holds anything of it, so there is nothing to abandon.
            return Ok(());
        }
        self.abandon_batch();
        match why {
            Why::Empty => {}
            Why::Fence => tracing::debug!("fence transaction done"),
            Why::Failed(reason) => tracing::warn!("transaction aborted, its records are processed again: {reason}"),
            Why::Moved(reason) => {
                tracing::info!("transaction aborted, waiting for the rebalance: {reason}");
                self.moved_at = Some(self.clock.monotonic());
            }
            Why::FencedInstance(reason) => return Err(self.instance_used_twice(&reason)),
            Why::Refused(reason) => return Err(self.refused(&reason)),
        }
        Ok(())
    }

    /// The producer is gone, and perhaps nobody knows how its transaction ended: the changelog does.
    fn broken(&mut self, broken: &Broken) -> Result<(), ThreadError> {
        tracing::warn!(fenced = broken.fenced, "the producer is replaced and every task recovered: {}", broken.reason);
        self.producer = ProducerSlot::Missing;
        self.abandon_batch();
        self.recover_all = true;
        if broken.fenced { self.count_fence(&broken.reason) } else { Ok(()) }
    }

    /// The batch is void: what was polled is read again, from where the tasks stood before it.
    fn abandon_batch(&mut self) {
        self.tasks.iter_mut().for_each(Running::abandon);
        self.failed = None;
        self.refetch = true;
    }

    fn set_producer(&mut self, next: Next<K::Producer>) {
        self.producer = match next {
            Next::Clean(producer) => ProducerSlot::Ready(producer),
            Next::Tainted(taint) => {
                tracing::warn!(?taint, "a request may still arrive late: the producer is replaced (EO-11)");
                ProducerSlot::Missing
            }
        };
    }

    fn count_fence(&mut self, reason: &str) -> Result<(), ThreadError> {
        let now = self.clock.monotonic();
        self.fenced_at.retain(|&at| now < at + FENCES_WITHIN);
        self.fenced_at.push(now);
        if self.fenced_at.len() <= FENCES_MAX {
            return Ok(());
        }
        let id = &self.plan.transactional_id;
        Err(ThreadError(format!(
            "the transactional id '{id}' was fenced {} times in five minutes ({reason}): another process uses it (is the same instance id \
             given to two workers?), or transactions take longer than transaction.timeout.ms",
            self.fenced_at.len()
        )))
    }

    fn discard_and_recover(&mut self, task: &TaskId, failure: &RecordFailure) -> Result<(), ThreadError> {
        let Some(running) = self.tasks.remove(task) else { return Ok(()) };
        tracing::warn!(%task, "local state is discarded and restored in full: {failure}");
        if let Some(state) = running.state {
            self.directory.discard(state).map_err(|error| ThreadError(error.message))?;
        }
        self.begin_recovery(running.task, None);
        Ok(())
    }

    /// Reads on from where the tasks stand, when that is not where the consumer is.
    fn fetch_where_tasks_stand(&mut self) -> Result<(), ThreadError> {
        self.refetch |= self.tasks.end_waits(self.clock.monotonic());
        if !self.refetch || !self.tasks.nothing_waits() {
            return Ok(());
        }
        self.refetch = false;
        let readable = !self.recover_all && self.moved_at.is_none();
        let positions = if readable { self.tasks.reread() } else { Vec::new() };
        self.consumer.fetch(&positions).map_err(|error| ThreadError(error.message))
    }

    /// A clean stop: the last batch is committed, operators and stores are closed.
    fn stop(mut self) {
        for (task, state) in self.take_all_tasks().into_values() {
            self.suspend(task, state);
        }
        if self.plan.leave_on_stop
            && let Err(error) = self.consumer.leave(Duration::from_secs(5))
        {
            tracing::warn!("leaving the group failed, its partitions move when the session times out: {error}");
        }
    }

    fn instance_used_twice(&self, reason: &str) -> ThreadError {
        let id = self.plan.member.group_instance_id.as_deref().unwrap_or("none");
        ThreadError(format!(
            "the group.instance.id '{id}' is used by another live worker, so this one stops ({reason}): give every worker its own --instance-id"
        ))
    }

    fn refused(&self, reason: &str) -> ThreadError {
        ThreadError(format!(
            "the broker refuses what transactional id '{}' asks for, and trying again will not help: {reason}",
            self.plan.transactional_id
        ))
    }
}

/// What became of the records of a batch.
struct Progressed {
    /// The tasks have gone past them.
    processed: usize,
    /// They are read again.
    dropped: usize,
}

/// All topics that a thread's producer writes: the outputs, in the topology's order, then the changelogs.
pub fn producer_topics(plan: &ThreadPlan) -> Vec<Arc<str>> {
    let changelogs = plan.changelogs.values().flatten().map(|changelog| changelog.topic.clone());
    plan.topology.outputs().iter().cloned().chain(changelogs).collect()
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
