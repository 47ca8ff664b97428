//! What the thread owns: tasks that come are recovered, tasks that go are suspended, tasks that are ready run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use processor_core::error::RecordFailure;
use processor_core::ids::{InputIndex, OutputIndex, TaskId, TopicPartition};
use processor_core::protocol::assignment::{self, TaskAction};
use processor_core::task::{Task, TaskSettings};

use super::{ChangelogTopic, Footing, StreamThread, ThreadError, listed, listed_positions};
use crate::clock::Clock;
use crate::kafka::{GroupConsumer, Kafka};
use crate::restore::{ChangelogSource, Recovery, RestoreErrorKind, StepContext};
use crate::state::StateDirectory;
use crate::tasks::Running;

/// How long a step of restoring waits for changelog records where nothing else is to be done.
const RESTORE_WAIT: Duration = Duration::from_millis(1);

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Ownership has changed: what goes is suspended, what is owned now is recovered, whether it was held or not.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) {
        self.footing = Footing::Sound;
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

    /// Suspends everything; the thread ends.
    pub(super) fn suspend_all(&mut self) {
        for (task, state) in self.take_all_tasks().into_values() {
            self.suspend(task, state);
        }
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

    pub(super) fn begin_recovery(&mut self, task: Task, state: Option<S::Task>) {
        let inputs = self.inputs_of(&task);
        let changelogs = self.changelogs_of(task.id()).into_iter().map(|log| log.map(|(source, _)| source)).collect();
        let stores = self.plan.topology.subtopology_of(task.id()).stores.clone();
        self.restorer.begin(Recovery::new(task, inputs, stores, changelogs, state));
    }

    fn inputs_of(&self, task: &Task) -> Vec<(InputIndex, TopicPartition)> {
        let topics = self.plan.topology.inputs();
        let partition = |input: InputIndex| TopicPartition::new(topics[input.slot()].clone(), task.partition());
        task.inputs().map(|input| (input, partition(input))).collect()
    }

    fn changelogs_of(&self, task: &TaskId) -> Vec<Option<(ChangelogSource, OutputIndex)>> {
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
        topics.iter().map(|changelog| changelog.as_ref().map(of_topic)).collect()
    }

    /// One bounded step of everything that must be mended before records can be processed.
    pub(super) fn recover(&mut self) -> Result<(), ThreadError> {
        self.initialise_producers()?;
        self.fence_late_offsets()?;
        if let Footing::Moved(since) = self.footing
            && self.clock.monotonic() >= since + self.plan.rebalance_wait
            && self.is_member()
        {
            tracing::warn!("the group said it had moved on, but no rebalance came: recovering what is owned");
            self.footing = Footing::InDoubt;
        }
        if self.footing == Footing::InDoubt && self.is_member() && self.producers.are_ready() {
            self.footing = Footing::Sound;
            for (task, state) in self.take_all_tasks().into_values() {
                self.begin_recovery(task, state);
            }
        }
        self.restore()
    }

    fn restore(&mut self) -> Result<(), ThreadError> {
        let wait = if self.tasks.is_empty() { RESTORE_WAIT } else { Duration::ZERO };
        let mut ctx = StepContext {
            kafka: &*self.kafka,
            consumer: &mut self.consumer,
            directory: &*self.directory,
            clock: &self.clock,
            wait,
        };
        let recovered = match self.restorer.step(&mut ctx) {
            Ok(recovered) => recovered,
            Err(error) if error.kind == RestoreErrorKind::FencedInstance => return self.rejoin_or_stop(&error.message),
            Err(error) => return Err(ThreadError(error.message)),
        };
        self.instruments.metrics.restored.increment(self.restorer.take_replayed());
        for recovered in recovered {
            let id = recovered.task.id().clone();
            let replayed = recovered.records_replayed;
            let inputs = self.inputs_of(&recovered.task);
            let running = Running::new(recovered, inputs, self.changelogs_of(&id));
            tracing::info!(task = %id, from = %listed_positions(&running.positions()), replayed, "running");
            self.tasks.insert(running);
            self.show_at_work();
            self.refetch = true;
        }
        Ok(())
    }

    /// A task's local state is damaged: it begins from nothing.
    pub(super) fn discard_and_recover(&mut self, task: &TaskId, failure: &RecordFailure) -> Result<(), ThreadError> {
        let Some(running) = self.tasks.remove(task) else { return Ok(()) };
        tracing::warn!(%task, "local state is discarded and restored in full: {failure}");
        if let Some(state) = running.state {
            self.directory.discard(state).map_err(|error| ThreadError(error.message))?;
        }
        self.begin_recovery(running.task, None);
        Ok(())
    }

    /// Reads on from where the tasks stand, when that is not where the consumer is. At once: whoever has just been restored,
    /// or whose record is due again, does not wait for what others have before them.
    pub(super) fn fetch_where_tasks_stand(&mut self) -> Result<(), ThreadError> {
        self.refetch |= self.tasks.end_waits(self.clock.monotonic());
        if !self.refetch {
            return Ok(());
        }
        self.refetch = false;
        let positions = if self.footing == Footing::Sound { self.tasks.reread() } else { Vec::new() };
        self.consumer.fetch(&positions).map_err(|error| ThreadError(error.message))
    }
}
