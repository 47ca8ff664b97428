//! Tasks: a sub-topology on one partition, and what a poll batch does to it.
//!
//! A task processes the records it is given, in order, over a [`Base`] it is lent. It knows nothing of Kafka or of disks;
//! the runtime takes its outputs and its change set, commits them, and tells it how that ended.

mod partition_group;

pub use partition_group::PartitionGroup;

pub use crate::store::{Change, ChangeSet};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{FailureKind, RecordFailure};
use crate::ids::{BatchId, InputIndex, Offset, Partition, StoreIndex, TaskId, Timestamp};
use crate::operator::{Origin, Recorded, TaskEnv};
use crate::record::{BatchInfo, InputRecord, Outbox};
use crate::store::{AnyOverlay, Base};
use crate::topology::{SourceNode, Topology};

impl Topology {
    /// Makes a task. `cache_bytes_max` bounds the cache of clean values of each of its stores.
    pub fn task(&self, id: &TaskId, cache_bytes_max: usize) -> Task {
        let subtopology = self.subtopology_of(id);
        let sources = subtopology.sources.iter().map(|&(input, node)| {
            let source = self.instantiate(node, subtopology).0.downcast::<Box<dyn SourceNode>>();
            (input, *source.expect("the builder registers only source nodes as sources"))
        });
        let stores = subtopology
            .store_makers
            .iter()
            .zip(0..)
            .map(|(maker, index)| maker.0(StoreIndex::new(index), cache_bytes_max));
        Task::new(id.clone(), self, sources.collect(), stores.collect())
    }
}

/// A running instance of a sub-topology.
pub struct Task {
    sources: Vec<Input>,
    env: TaskEnv,
    /// Stream time as of the last commit.
    committed_stream_time: Option<Timestamp>,
    opened: bool,
}

struct Input {
    index: InputIndex,
    topic: Arc<str>,
    source: Box<dyn SourceNode>,
    /// The next record to process, as committed and as of now; `None` before [`Task::start`].
    committed: Option<Offset>,
    next: Option<Offset>,
}

impl Task {
    pub(crate) fn new(
        id: TaskId,
        topology: &Topology,
        sources: Vec<(InputIndex, Box<dyn SourceNode>)>,
        stores: Vec<Box<dyn AnyOverlay>>,
    ) -> Self {
        let sources = sources.into_iter().map(|(index, source)| {
            let topic = topology.inputs()[index.slot()].clone();
            Input { index, topic, source, committed: None, next: None }
        });
        let batch = BatchInfo { id: BatchId::NONE, index: 0, size: 0 };
        let origin = Origin { topic: Arc::from(""), partition: id.partition, offset: Offset::new(0), batch };
        Self {
            sources: sources.collect(),
            env: TaskEnv { task: id, stores, outbox: Outbox::default(), stream_time: None, origin, failure: None },
            committed_stream_time: None,
            opened: false,
        }
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.env.task
    }

    /// The task's partition number.
    pub fn partition(&self) -> Partition {
        self.env.task.partition
    }

    /// The topics it reads, in the order of the sub-topology's inputs.
    pub fn inputs(&self) -> impl Iterator<Item = InputIndex> {
        self.sources.iter().map(|input| input.index)
    }

    /// How many stores it has.
    pub fn stores_len(&self) -> usize {
        self.env.stores.len()
    }

    /// Takes a position: what is committed for each input, and the stream time that was committed with it. Whatever
    /// was cached or uncommitted is forgotten. Operators are opened the first time.
    ///
    /// # Errors
    /// An operator's `open` failed.
    ///
    /// # Panics
    /// If an input of the task is missing from `committed`.
    pub fn start(
        &mut self,
        committed: &[(InputIndex, Offset)],
        stream_time: Option<Timestamp>,
    ) -> Result<(), RecordFailure> {
        for input in &mut self.sources {
            let found = committed.iter().find(|(index, _)| *index == input.index);
            let (_, offset) = found.expect("EO-12: a task starts with an absolute offset for every input");
            (input.committed, input.next) = (Some(*offset), Some(*offset));
        }
        self.env.stores.iter_mut().for_each(|store| store.forget());
        self.env.outbox.clear();
        self.env.stream_time = stream_time;
        self.committed_stream_time = stream_time;
        if !self.opened {
            self.opened = true;
            let opened = self.sources.iter_mut().try_for_each(|input| input.source.open(&mut self.env));
            if let Err(Recorded) = opened {
                return Err(self.take_failure());
            }
        }
        Ok(())
    }

    /// Processes one record. On success its outputs are in [`outbox`](Self::outbox) and its writes in the overlay; on
    /// failure it has left nothing (EO-9).
    ///
    /// # Errors
    /// Why the record failed.
    ///
    /// # Panics
    /// If the record is not behind the one before it in its partition (EO-8).
    pub fn process(
        &mut self,
        input: usize,
        record: &dyn InputRecord,
        batch: BatchInfo,
        base: &dyn Base,
    ) -> Result<(), RecordFailure> {
        let offset = record.offset();
        let Self { sources, env, .. } = self;
        let Input { topic, source, next, .. } = &mut sources[input];
        let expected = next.expect("a task is started before it processes");
        assert!(offset >= expected, "EO-8: {topic}-{}@{offset} came after {expected} was due", env.task.partition);
        assert!(env.outbox.is_empty(), "EO-6: the outputs of the record before were sent");
        let Some(timestamp) = record.timestamp() else {
            env.fail(FailureKind::Decode, topic, "the record has no timestamp (message format 0)");
            return Err(self.take_failure());
        };
        let stream_time_before = env.stream_time;
        env.stream_time = env.stream_time.max(Some(timestamp));
        if !Arc::ptr_eq(&env.origin.topic, topic) {
            env.origin.topic = topic.clone();
        }
        (env.origin.offset, env.origin.batch) = (offset, batch);
        env.stores.iter_mut().for_each(|store| store.begin_record());
        let processed = catch_unwind(AssertUnwindSafe(|| source.process(record, timestamp, env, base)));
        if let Err(panic) = &processed {
            env.fail(FailureKind::Panic, &env.origin.topic.clone(), panic_message(panic.as_ref()));
        }
        if env.failure.is_some() || !matches!(processed, Ok(Ok(()))) {
            env.stores.iter_mut().for_each(|store| store.roll_back_record());
            env.outbox.clear();
            env.stream_time = stream_time_before;
            return Err(self.take_failure());
        }
        *next = Some(offset.next());
        Ok(())
    }

    /// The outputs of the last record; the runtime sends and clears them.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.env.outbox
    }

    /// Whether the task has processed anything, or written a store, since it was last committed.
    pub fn has_uncommitted(&self) -> bool {
        let moved = self.sources.iter().any(|input| input.next != input.committed);
        moved || self.env.stores.iter().any(|store| store.dirty_len() > 0)
    }

    /// Appends what the batch wrote to the stores.
    ///
    /// # Errors
    /// A value cannot be encoded; the batch cannot commit.
    pub fn collect_changes(&self, changes: &mut ChangeSet) -> Result<(), RecordFailure> {
        self.env.stores.iter().try_for_each(|store| store.collect(changes)).map_err(|error| RecordFailure {
            kind: FailureKind::Encode,
            node: self.env.task.subtopology.to_string(),
            message: format!("a store's value: {error}"),
        })
    }

    /// The offset to commit for every input of the task (EO-12): last processed + 1, or what was committed before.
    pub fn offsets(&self) -> impl Iterator<Item = (InputIndex, Offset)> {
        self.sources.iter().map(|input| (input.index, input.next.expect("a task is started before it commits")))
    }

    /// The highest timestamp seen, uncommitted records included.
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.env.stream_time
    }

    /// The batch is committed and in the base.
    pub fn applied(&mut self) {
        assert!(self.env.stream_time >= self.committed_stream_time, "EO-8: stream time never goes back");
        self.committed_stream_time = self.env.stream_time;
        self.sources.iter_mut().for_each(|input| input.committed = input.next);
        self.env.stores.iter_mut().for_each(|store| store.applied());
    }

    /// The batch is void: the task stands where it was committed.
    pub fn abandon(&mut self) {
        self.env.outbox.clear();
        self.env.stream_time = self.committed_stream_time;
        self.sources.iter_mut().for_each(|input| input.next = input.committed);
        self.env.stores.iter_mut().for_each(|store| store.abandon());
    }

    /// Closes the operators.
    pub fn close(&mut self) {
        if self.opened {
            self.sources.iter_mut().for_each(|input| input.source.close());
        }
    }

    fn take_failure(&mut self) -> RecordFailure {
        self.env.failure.take().expect("a failure is written down before it is returned")
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.id())
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
