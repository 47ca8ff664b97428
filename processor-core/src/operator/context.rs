//! What an operator sees of its task: where to forward, its stores, its schedules, where the record came from.

use std::time::Duration;

use super::Store;
use super::env::{Children, Failed, Recorded, Run, TaskEnv};
use crate::error::OperatorError;
use crate::ids::{NodeIndex, StoreIndex, TaskId, Timestamp};
use crate::record::{BatchInfo, Record, RecordMetadata};
use crate::store::{KeyValueStoreDef, StoreKey, StoreValue};
use crate::time::{Clock, ScheduleId, Schedules};

/// What an operator may do while it processes a record or a punctuation.
pub struct Context<'a, K, V> {
    pub(crate) env: &'a mut TaskEnv,
    pub(crate) run: Run<'a>,
    pub(crate) children: &'a mut Children<K, V>,
    pub(crate) stores: &'a [(&'static str, StoreIndex)],
    pub(crate) node: &'a str,
}

impl<K: Clone, V: Clone> Context<'_, K, V> {
    /// Hands a record to the nodes behind this one, which process it before this returns.
    ///
    /// # Errors
    /// A later node failed; return the error, the record has failed either way.
    pub fn forward(&mut self, record: Record<K, V>) -> Result<(), OperatorError> {
        self.children.forward(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }
}

impl<K, V> Context<'_, K, V> {
    /// Hands a record to one of the nodes behind this one.
    ///
    /// # Errors
    /// That node, or a later one, failed; return the error, the record has failed either way.
    ///
    /// # Panics
    /// If no node of that name is connected to this one; the panic stops the task, whatever the node's failure policy, and
    /// names both.
    pub fn forward_to(&mut self, child: &str, record: Record<K, V>) -> Result<(), OperatorError> {
        let Some(child) = self.children.named(child) else {
            let node = self.node;
            let message =
                format!("node '{node}' has no node '{child}' behind it: forward to one that is connected to it");
            Failed::miswired(&mut self.env.failure, &self.env.node, node, &message)
        };
        child.receive(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }

    /// Hands a record to the node that was connected as the `position`th, if there is one.
    pub(crate) fn forward_nth(&mut self, position: usize, record: Record<K, V>) -> Result<(), OperatorError> {
        let Some(child) = self.children.0.get_mut(position) else { return Ok(()) };
        child.receive(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }

    /// A store of this node.
    ///
    /// # Panics
    /// If the store was not given to the node with `with_store`; the panic stops the task, whatever the node's failure policy,
    /// and names both. So does using it with other types than it was given with.
    pub fn store<SK: StoreKey, SV: StoreValue>(&mut self, definition: &KeyValueStoreDef<SK, SV>) -> Store<'_, SK, SV> {
        let name = definition.name();
        let Some(&(_, index)) = self.stores.iter().find(|(known, _)| *known == name) else {
            let node = self.node;
            let message = format!("node '{node}' has no store '{name}': add .with_store(&…) behind its .process(…)");
            Failed::miswired(&mut self.env.failure, &self.env.node, node, &message)
        };
        Store::open(self.env, self.run.base, index, name, self.node)
    }

    /// Where the record in process came from; `None` in a wall-clock punctuation, which comes from no record.
    pub fn metadata(&self) -> Option<RecordMetadata<'_>> {
        let input = self.run.input?;
        let origin = &self.env.origin;
        Some(RecordMetadata { topic: &origin.topic, partition: origin.partition, offset: origin.offset, input })
    }

    /// The poll batch that the record belongs to.
    pub fn batch(&self) -> BatchInfo {
        self.env.origin.batch
    }

    /// The task.
    pub fn task(&self) -> &TaskId {
        &self.env.task
    }

    /// The highest timestamp this task has seen, the record in process included; `None` before the first record.
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.env.stream_time
    }

    /// Calls [`Operator::punctuate`](super::Operator::punctuate) of this node every so often, from the next multiple of
    /// `every` on. It is undone if the record fails, and gone when the task leaves the thread: schedules that shall be
    /// there again after a restart are made in [`Operator::open`](super::Operator::open).
    ///
    /// Less than a millisecond counts as one.
    pub fn schedule(&mut self, every: Duration, clock: Clock) -> ScheduleId {
        let now = match clock {
            Clock::StreamTime => self.env.stream_time,
            Clock::WallClock => Some(self.env.origin.batch.now),
        };
        self.env.schedules.add(self.env.node.get(), every, clock, now)
    }

    /// Ends a schedule of this node; nothing happens if it has ended.
    pub fn cancel(&mut self, schedule: ScheduleId) {
        self.env.schedules.cancel(self.env.node.get(), schedule);
    }

    /// Asks for the batch to end, and so to commit, behind the record in process.
    pub fn request_commit(&mut self) {
        self.env.commit_requested = true;
    }
}

impl<K, V> std::fmt::Debug for Context<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context of node {:?} in task {}", self.node, self.env.task)
    }
}

/// What an operator may do before its first record.
#[derive(Debug)]
pub struct OpenContext<'a> {
    pub(crate) task: &'a TaskId,
    pub(crate) schedules: &'a mut Schedules,
    pub(crate) node: NodeIndex,
}

impl OpenContext<'_> {
    /// The task.
    pub fn task(&self) -> &TaskId {
        self.task
    }

    /// Calls [`Operator::punctuate`](super::Operator::punctuate) of this node every so often. Stream-time punctuations
    /// are due at the multiples of `every`, whenever the task was started (EO-7).
    ///
    /// Less than a millisecond counts as one.
    pub fn schedule(&mut self, every: Duration, clock: Clock) -> ScheduleId {
        self.schedules.add(self.node, every, clock, None)
    }
}
