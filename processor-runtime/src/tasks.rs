//! The tasks that run on a stream thread: where a polled record goes, and what a batch has done to each.

use std::collections::BTreeMap;

use processor_core::ids::{
    BatchId, ChangelogOffset, InputIndex, Offset, OutputIndex, Partition, StoreIndex, TaskId, Timestamp, TopicPartition,
};
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::store::{Base, BaseError};
use processor_core::task::{ChangeSet, PartitionGroup, Task};

use crate::kafka::{DeliveryTag, PolledRecord, TransactionalId};
use crate::restore::{ChangelogSource, Recovered};
use crate::state::{Permit, Positions, StateError, TaskState};
use crate::transaction::CommitReceipt;

/// A task that processes.
#[derive(Debug)]
pub struct Running<T, R> {
    /// The task.
    pub task: Task,
    /// Its state; `None` without stores.
    pub state: Option<T>,
    /// The partitions it reads.
    pub inputs: Vec<(InputIndex, TopicPartition)>,
    /// The changelogs of its stores, and the producer's index of each topic; `None` for a store without one.
    pub changelogs: Vec<Option<(ChangelogSource, OutputIndex)>>,
    /// Records that were polled and not yet processed.
    pub group: PartitionGroup<R>,
    /// What the batch wrote to the stores; filled at commit.
    pub changes: ChangeSet,
    /// The timestamps of the batch's first and last record.
    pub span: Option<(Timestamp, Timestamp)>,
    changelog_ends: Vec<Option<ChangelogOffset>>,
    committed_batch: BatchId,
}

impl<T: TaskState, R: PolledRecord> Running<T, R> {
    /// Puts a recovered task to work.
    pub fn new(
        recovered: Recovered<T>,
        inputs: Vec<(InputIndex, TopicPartition)>,
        changelogs: Vec<Option<(ChangelogSource, OutputIndex)>>,
    ) -> Self {
        Self {
            task: recovered.task,
            state: recovered.state,
            group: PartitionGroup::new(inputs.len()),
            inputs,
            changelogs,
            changes: ChangeSet::default(),
            span: None,
            changelog_ends: recovered.changelog_ends,
            committed_batch: recovered.batch,
        }
    }

    /// The number of the batch that is being processed.
    pub fn batch(&self) -> BatchId {
        self.committed_batch.next()
    }

    /// Remembers the timestamp of the batch's first and last record.
    pub fn note_timestamp(&mut self, timestamp: Option<Timestamp>) {
        if let Some(last) = timestamp {
            self.span = Some((self.span.map_or(last, |(first, _)| first), last));
        }
    }

    /// The metadata of the commit, with the changelog ends that `delivered` knows.
    pub fn metadata(
        &self,
        id: &TransactionalId,
        tag: u16,
        delivered: impl Fn(DeliveryTag) -> Option<i64>,
    ) -> OffsetMetadata {
        let ends = self.ends(tag, delivered);
        let stores = self.changelogs.iter().zip(ends);
        OffsetMetadata {
            batch: self.batch(),
            stream_time: self.task.stream_time(),
            transactional_id: id.0.clone(),
            changelog_ends: stores.filter_map(|(log, end)| Some((log.as_ref()?.0.store.clone(), end?))).collect(),
        }
    }

    /// The changelog ends behind this batch: of the stores it wrote, from `tag` on, and of the others as they were.
    fn ends(&self, tag: u16, delivered: impl Fn(DeliveryTag) -> Option<i64>) -> Vec<Option<ChangelogOffset>> {
        let known = self.changelog_ends.iter().zip(tag..);
        known.map(|(&known, tag)| delivered(DeliveryTag(tag)).map(ChangelogOffset::new).or(known)).collect()
    }

    /// Turns the committed overlay into the new base.
    ///
    /// # Errors
    /// The base is as it was, and takes no write before it is opened again: the task must be recovered.
    pub fn apply(&mut self, receipt: &CommitReceipt, tag: u16, now: Timestamp) -> Result<(), StateError> {
        let ends = self.ends(tag, |tag| receipt.delivered_end(tag));
        self.committed_batch = self.committed_batch.next();
        if let Some(state) = &mut self.state {
            let positions = Positions {
                changelogs: ends.clone(),
                stream_time: self.task.stream_time(),
                batch: self.committed_batch,
                written_at: now,
            };
            let written = state.apply(Permit::committed(receipt), &self.changes, &positions);
            self.changes.clear();
            written?;
            assert!(state.positions() == &positions, "EO-3: positions change together with the values");
        }
        self.changelog_ends = ends;
        self.task.applied();
        Ok(())
    }

    /// The batch is void.
    pub fn abandon(&mut self) {
        self.group.clear();
        self.changes.clear();
        self.span = None;
        self.task.abandon();
    }

    /// Where each input is to be read from.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        let offsets = self.task.offsets().map(|(_, offset)| offset);
        self.inputs.iter().map(|(_, partition)| partition.clone()).zip(offsets).collect()
    }
}

/// The running tasks of a thread.
#[derive(Debug)]
pub struct Tasks<T, R> {
    running: Vec<Running<T, R>>,
    /// (input, partition) to (task, the input's place in the task).
    routes: BTreeMap<(InputIndex, Partition), (usize, usize)>,
}

impl<T, R> Default for Tasks<T, R> {
    fn default() -> Self {
        Self { running: Vec::new(), routes: BTreeMap::new() }
    }
}

impl<T: TaskState, R: PolledRecord> Tasks<T, R> {
    /// Adds a task.
    pub fn insert(&mut self, running: Running<T, R>) {
        self.running.push(running);
        self.running.sort_by(|a, b| a.task.id().cmp(b.task.id()));
        self.route();
    }

    /// Takes a task out.
    pub fn remove(&mut self, task: &TaskId) -> Option<Running<T, R>> {
        let at = self.running.iter().position(|running| running.task.id() == task)?;
        let removed = self.running.remove(at);
        self.route();
        Some(removed)
    }

    /// Takes all tasks out.
    pub fn take_all(&mut self) -> Vec<Running<T, R>> {
        self.routes.clear();
        std::mem::take(&mut self.running)
    }

    fn route(&mut self) {
        let of_task = |(slot, running): (usize, &Running<T, R>)| {
            let inputs = running.inputs.iter().enumerate();
            inputs.map(|(place, (input, partition))| ((*input, partition.partition), (slot, place))).collect::<Vec<_>>()
        };
        self.routes = self.running.iter().enumerate().flat_map(of_task).collect();
    }

    /// Gives polled records to their tasks.
    ///
    /// # Panics
    /// If a record is of a partition that no running task reads: nothing else is fetched (EO-6).
    pub fn route_records(&mut self, records: &mut Vec<R>) {
        let mut last = None;
        for record in records.drain(..) {
            let of = (record.input(), record.partition());
            let (slot, place) = match last {
                Some((known, to)) if known == of => to,
                _ => self.routes.get(&of).copied().unwrap_or_else(|| {
                    panic!("EO-6: a record of input {} partition {} was polled, but no task reads it", of.0, of.1)
                }),
            };
            last = Some((of, (slot, place)));
            self.running[slot].group.push(place, record);
        }
    }

    /// The running tasks, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Running<T, R>> {
        self.running.iter()
    }

    /// The running tasks, by id.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Running<T, R>> {
        self.running.iter_mut()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether no record waits to be processed.
    pub fn nothing_waits(&self) -> bool {
        self.running.iter().all(|running| running.group.is_empty())
    }

    /// Where every input of every running task is to be read from.
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        self.running.iter().flat_map(Running::positions).collect()
    }
}

/// The base of a task without stores.
#[derive(Clone, Copy, Debug)]
pub struct NoStores;

impl Base for NoStores {
    fn get(&self, store: StoreIndex, _key: &[u8], _value: &mut Vec<u8>) -> Result<bool, BaseError> {
        panic!("a task without stores was asked for store {store}")
    }

    fn range(
        &self,
        store: StoreIndex,
        _from: std::ops::Bound<&[u8]>,
        _to: std::ops::Bound<&[u8]>,
        _reverse: bool,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> std::ops::ControlFlow<()>,
    ) -> Result<(), BaseError> {
        panic!("a task without stores was asked for store {store}")
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        panic!("a task without stores was asked for store {store}")
    }
}
