//! What an operator sees of its task while a record passes: where to forward, its stores, where the record came from.

use std::sync::Arc;

use super::Store;
use crate::error::{FailureKind, OperatorError, RecordFailure};
use crate::ids::{Offset, Partition, StoreIndex, TaskId, Timestamp};
use crate::record::{BatchInfo, Outbox, Record, RecordMetadata};
use crate::store::{AnyOverlay, Base, KeyValueStoreDef, StoreKey, StoreValue};

/// The part of a task that its nodes share.
pub(crate) struct TaskEnv {
    pub(crate) task: TaskId,
    pub(crate) stores: Vec<Box<dyn AnyOverlay>>,
    pub(crate) outbox: Outbox,
    pub(crate) stream_time: Option<Timestamp>,
    pub(crate) origin: Origin,
    /// The first failure of the record in process; it counts even if an operator swallows the error.
    pub(crate) failure: Option<RecordFailure>,
}

/// Where the record in process came from.
pub(crate) struct Origin {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) batch: BatchInfo,
}

impl TaskEnv {
    /// Writes the record's failure down, unless an earlier one stands there.
    pub(crate) fn fail(&mut self, kind: FailureKind, node: &str, message: impl std::fmt::Display) -> Recorded {
        self.failure.get_or_insert_with(|| RecordFailure { kind, node: node.to_owned(), message: message.to_string() });
        Recorded
    }
}

/// The record has failed, and [`TaskEnv::failure`] says why.
#[derive(Debug)]
pub(crate) struct Recorded;

/// Whatever takes records of these types: an operator's node, or a sink's.
pub(crate) trait Receive<K, V> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, base: &dyn Base) -> Result<(), Recorded>;
    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded>;
    fn close(&mut self);
}

/// The nodes behind a node.
pub(crate) struct Children<K, V>(pub(crate) Vec<Box<dyn Receive<K, V>>>);

impl<K: Clone, V: Clone> Children<K, V> {
    /// Hands the record to every child, in the order in which they were connected.
    pub(crate) fn forward(&mut self, record: Record<K, V>, env: &mut TaskEnv, base: &dyn Base) -> Result<(), Recorded> {
        let Some((last, others)) = self.0.split_last_mut() else { return Ok(()) };
        for child in others {
            child.receive(record.clone(), env, base)?;
        }
        last.receive(record, env, base)
    }
}

impl<K, V> Children<K, V> {
    pub(crate) fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        self.0.iter_mut().try_for_each(|child| child.open(env))
    }

    pub(crate) fn close(&mut self) {
        self.0.iter_mut().for_each(|child| child.close());
    }
}

/// What an operator may do while it processes a record.
pub struct Context<'a, K, V> {
    pub(crate) env: &'a mut TaskEnv,
    pub(crate) base: &'a dyn Base,
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
        self.children.forward(record, self.env, self.base).map_err(|Recorded| OperatorError::recorded())
    }
}

impl<K, V> Context<'_, K, V> {
    /// A store of this node.
    ///
    /// # Panics
    /// If the store was not given to the node with `with_store`; the panic fails the record and names both.
    pub fn store<SK: StoreKey, SV: StoreValue>(&mut self, definition: &KeyValueStoreDef<SK, SV>) -> Store<'_, SK, SV> {
        let name = definition.name();
        let Some(&(_, index)) = self.stores.iter().find(|(known, _)| *known == name) else {
            panic!("node '{}' has no store '{name}': add .with_store(&…) behind its .process(…)", self.node);
        };
        Store::open(self.env, self.base, index, name, self.node)
    }

    /// Where the record in process came from.
    pub fn metadata(&self) -> RecordMetadata<'_> {
        let Origin { topic, partition, offset, .. } = &self.env.origin;
        RecordMetadata { topic, partition: *partition, offset: *offset }
    }

    /// The poll batch that the record belongs to.
    pub fn batch(&self) -> BatchInfo {
        self.env.origin.batch
    }

    /// The task.
    pub fn task(&self) -> &TaskId {
        &self.env.task
    }

    /// The highest timestamp this task has seen, the record in process included.
    pub fn stream_time(&self) -> Timestamp {
        self.env.stream_time.expect("EO-8: a record's timestamp enters stream time before it is processed")
    }
}

impl<K, V> std::fmt::Debug for Context<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context of node {:?} in task {}", self.node, self.env.task)
    }
}

/// What an operator may look at before its first record.
#[derive(Debug)]
pub struct OpenContext<'a> {
    pub(crate) task: &'a TaskId,
}

impl OpenContext<'_> {
    /// The task.
    pub fn task(&self) -> &TaskId {
        self.task
    }
}
