//! The tasks that run on a stream thread: where a polled record goes, and what a batch has done to each.
//!
//! It is the runtime's own, and no stable API.

mod merge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor_core::error::RecordFailure;
use processor_core::ids::{
    BatchId, ChangelogOffset, InputIndex, Offset, OutputIndex, Partition, StoreIndex, TaskId, Timestamp, TopicPartition,
};
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::store::{Base, BaseError};
use processor_core::task::{ChangeSet, PartitionGroup, Task};

pub use self::merge::IsAtEnd;
use self::merge::Merge;
use crate::kafka::{DeliveryTag, PolledRecord, TransactionalId};
use crate::restore::{ChangelogSource, Recovered};
use crate::seeded_bugs::{self, Rule};
use crate::state::{Permit, Positions, StateError, TaskState};
use crate::status::AtWork;
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
    /// When the record that is next may be tried again.
    waits_until: Option<Duration>,
    /// Records of the task were dropped: what comes is taken only once its inputs are read from where it stands.
    must_reread: bool,
    merge: Merge,
    /// What the batch wrote to the stores; filled at commit.
    pub changes: ChangeSet,
    /// What is observed of the batch: its first and its last record.
    pub span: Option<(Observed, Observed)>,
    /// Of each input, the timestamp of the batch's first record, and of a batch before it.
    processing: Vec<Option<Timestamp>>,
    processed: Vec<Option<Timestamp>>,
    /// What its operators are at.
    pub at_work: Arc<AtWork>,
    changelog_ends: Vec<Option<ChangelogOffset>>,
    committed_batch: BatchId,
    /// How many batches of the open transaction are over.
    batches_over: u64,
    /// What the next commit must write once more: see [`Recovered::written_over`].
    written_over: ChangeSet,
}

/// What is observed of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// How far its time was behind stream time.
    pub late_by: Duration,
}

impl<T: TaskState, R: PolledRecord> Running<T, R> {
    /// Puts a recovered task to work.
    pub fn new(
        recovered: Recovered<T>,
        inputs: Vec<(InputIndex, TopicPartition)>,
        changelogs: Vec<Option<(ChangelogSource, OutputIndex)>>,
    ) -> Self {
        let partitions = inputs.iter().map(|(_, partition)| partition.clone()).collect();
        let at_work = Arc::new(AtWork::new(&recovered.task, partitions));
        let of_inputs = vec![None; inputs.len()];
        Self {
            at_work,
            task: recovered.task,
            state: recovered.state,
            group: PartitionGroup::new(inputs.len()),
            waits_until: None,
            must_reread: false,
            merge: Merge::default(),
            inputs,
            changelogs,
            changes: ChangeSet::default(),
            span: None,
            processing: of_inputs.clone(),
            processed: of_inputs,
            changelog_ends: recovered.changelog_ends,
            committed_batch: recovered.batch,
            batches_over: 0,
            written_over: recovered.written_over,
        }
    }

    /// Whether there is something to commit. What is torn in the changelog does not wait for the next record: until it is
    /// written over, compaction may take the record that holds.
    pub fn has_uncommitted(&self) -> bool {
        self.task.has_uncommitted() || self.must_write_over()
    }

    /// Whether the changelog says something that is not so.
    pub fn must_write_over(&self) -> bool {
        !self.written_over.is_empty() && seeded_bugs::holds(Rule::TornIsWrittenOver)
    }

    /// Collects what must be written once more, and what the batch wrote to the stores; of the same key, the latter is last.
    ///
    /// # Errors
    /// A value cannot be encoded; the batch cannot commit.
    pub fn collect_changes(&mut self) -> Result<(), RecordFailure> {
        self.changes.clear();
        if self.must_write_over() {
            for change in self.written_over.changes() {
                self.changes.push(change.store, change.key, change.value);
            }
        }
        self.task.collect_changes(&mut self.changes)
    }

    /// The number of the batch that is being processed.
    pub fn batch(&self) -> BatchId {
        BatchId::new(self.committed_batch.get() + self.batches_over + 1)
    }

    /// The batch that was processed is over; its transaction may go on with another one. What a punctuation has written has the
    /// number of its batch, whether or not a record has it, too; of one that has left nothing nobody can tell.
    pub fn end_batch(&mut self) {
        if self.task.has_uncommitted() {
            self.batches_over += 1;
        }
    }

    /// The number of the last batch of the transaction. What has nothing but something to write over has one, too.
    fn last_batch(&self) -> BatchId {
        BatchId::new(self.committed_batch.get() + self.batches_over.max(1))
    }

    /// Observes the batch's first and last record, which the task has gone past.
    pub fn observe(&mut self, input: usize, record: &R, now: Timestamp) {
        let Some(timestamp) = record.timestamp() else { return };
        // Nobody knows the time of a record that cannot be decoded: it counts as being on time.
        let time = self.task.time_of(input, record, now).max(Timestamp::new(0));
        let stream_time = self.task.stream_time().filter(|_| time.get() > 0).unwrap_or(time);
        let late_by = u64::try_from(stream_time.get().saturating_sub(time.get())).unwrap_or(0);
        let late_by = Duration::from_millis(late_by);
        let last = Observed { timestamp, late_by };
        self.span = Some((self.span.map_or(last, |(first, _)| first), last));
    }

    /// Remembers how old the first record of each input is.
    pub fn note_age(&mut self, input: usize, record: &R) {
        if self.processing[input].is_none() {
            self.processing[input] = record.timestamp();
        }
    }

    /// Of each input, the timestamp of a record that was processed in the last batch that had one of it.
    pub fn processed(&self) -> &[Option<Timestamp>] {
        &self.processed
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
            batch: self.last_batch(),
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
    /// The base takes no write before it is opened again: the task must be recovered.
    pub fn apply(&mut self, receipt: &CommitReceipt, tag: u16, now: Timestamp) -> Result<(), StateError> {
        let ends = self.ends(tag, |tag| receipt.delivered_end(tag));
        (self.committed_batch, self.batches_over) = (self.last_batch(), 0);
        if let Some(state) = &mut self.state {
            // What was never written has no position.
            let stored = state.positions().changelogs.iter().zip(&self.changelog_ends).zip(&ends);
            let contained = |((stored, before), end): ((&Option<_>, &Option<_>), &Option<ChangelogOffset>)| {
                end.filter(|_| stored.is_some() || before != end)
            };
            let positions = Positions {
                changelogs: stored.map(contained).collect(),
                stream_time: self.task.stream_time(),
                batch: self.committed_batch,
                written_at: now,
            };
            let written = state.apply(Permit::committed(receipt), &self.changes, &positions);
            self.changes.clear();
            written?;
            assert!(state.positions() == &positions, "EO-3: positions change together with the values");
        }
        for (processed, processing) in self.processed.iter_mut().zip(&mut self.processing) {
            *processed = processing.take().or(*processed);
        }
        self.changelog_ends = ends;
        self.written_over.clear();
        self.task.applied();
        Ok(())
    }

    /// Takes the record that is next in time; none where that may be one that was not polled yet.
    pub fn next_record(&mut self, now: Timestamp, is_at_end: IsAtEnd<'_>) -> Option<(usize, R)> {
        if self.inputs.len() > 1 && self.runs_empty(is_at_end) {
            return None;
        }
        let Self { group, task, .. } = self;
        group.pop(|input, record| task.time_of(input, record, now))
    }

    /// The record that is next is tried again at this time; what waits behind it is read again then.
    pub fn wait_until(&mut self, until: Duration) {
        self.group.clear();
        self.waits_until = Some(until);
        self.must_reread = true;
    }

    /// Whether a record is to be tried again later, so that nothing of the task is read.
    pub fn waits(&self) -> bool {
        self.waits_until.is_some()
    }

    /// The batch is void.
    pub fn abandon(&mut self) {
        self.group.clear();
        self.changes.clear();
        self.batches_over = 0;
        self.span = None;
        self.processing.fill(None);
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
            let running = &mut self.running[slot];
            if !running.must_reread {
                running.group.push(place, record);
            }
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

    /// The running tasks with their slots, from this one on and round to it again.
    pub fn iter_mut_from(&mut self, first: usize) -> impl Iterator<Item = (usize, &mut Running<T, R>)> {
        let first = first.min(self.running.len());
        let (before, from) = self.running.split_at_mut(first);
        let from = from.iter_mut().enumerate().map(move |(place, running)| (first + place, running));
        from.chain(before.iter_mut().enumerate())
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether no record waits to be processed.
    pub fn nothing_waits(&self) -> bool {
        self.running.iter().all(|running| running.group.is_empty())
    }

    /// How many records wait to be processed.
    pub fn waiting_len(&self) -> usize {
        self.running.iter().map(|running| running.group.len()).sum()
    }

    /// Whether a wall-clock schedule of a task is due.
    pub fn punctuation_is_due(&self, now: Timestamp) -> bool {
        self.running.iter().filter_map(|running| running.task.next_wall_clock()).any(|due| due <= now)
    }

    /// Ends the waits that are over, and says whether there were any.
    pub fn end_waits(&mut self, now: Duration) -> bool {
        let mut ended = false;
        for running in &mut self.running {
            ended |= running.waits_until.take_if(|until| *until <= now).is_some();
        }
        ended
    }

    /// Where the inputs are to be read from of every task that does not wait. They are read from there now, so what waits
    /// is dropped: it comes again.
    pub fn reread(&mut self) -> Vec<(TopicPartition, Offset)> {
        let mut positions = Vec::new();
        for running in self.running.iter_mut().filter(|running| !running.waits()) {
            running.must_reread = false;
            running.group.clear();
            positions.extend(running.positions());
        }
        positions
    }

    /// How many bytes the stores of all tasks have in memory beyond what their caches may keep, about.
    pub fn uncached_bytes(&self) -> usize {
        self.running.iter().map(|running| running.task.uncached_bytes()).sum()
    }

    /// Whether the inputs of all tasks that have had a batch in the open transaction are at their ends, as `is_at_end` knows. Of
    /// the others nobody asks: with a thousand partitions and a trickle, asking would take longer than the batch.
    pub fn are_at_their_ends(&self, is_at_end: IsAtEnd<'_>) -> bool {
        self.running.iter().filter(|running| running.batches_over > 0).all(|running| {
            let mut inputs = running.inputs.iter().zip(running.task.offsets());
            inputs.all(|((_, partition), (_, next))| is_at_end(partition, next))
        })
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
