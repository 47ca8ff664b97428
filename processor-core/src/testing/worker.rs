//! A task at work: its records in batches, its commits, and its state back from the changelog after a crash.

use std::rc::Rc;
use std::sync::Arc;

use super::topics::{Logs, Polled, Stored};
use crate::error::RecordFailure;
use crate::ids::{BatchId, InputIndex, NodeIndex, Offset, OutputIndex, StoreIndex, TaskId, Timestamp};
use crate::record::{BatchInfo, TargetPartition};
use crate::store::memory::MemoryBase;
use crate::task::{ChangeSet, Outcome, PartitionGroup, Task, TaskSettings};
use crate::topology::ApplicationTopology;

/// What a committed batch has written to a topic.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) sink: Option<NodeIndex>,
    pub(super) topic: OutputIndex,
    pub(super) partition: TargetPartition,
    pub(super) record: Rc<Stored>,
    /// The input record that it comes from; `None` where it comes from a punctuation.
    from: Option<(usize, Offset)>,
}

/// What a step has come to.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Whether the task has gone on, so that there may be more to do.
    pub(super) moved: bool,
    pub(super) sent: Vec<Sent>,
    /// Records that were passed over without a dead letter.
    pub(super) skipped: Vec<RecordFailure>,
    pub(super) failed: Option<RecordFailure>,
}

/// An output that the broker is to refuse.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) sink: NodeIndex,
    pub(super) reason: String,
}

/// A change in a changelog.
type Change = (StoreIndex, Vec<u8>, Option<Vec<u8>>);

pub(super) struct Worker {
    id: TaskId,
    task: Task,
    group: PartitionGroup<Polled>,
    pub(super) base: MemoryBase,
    changelog: Vec<Change>,
    /// By store: whether what is written to it goes to the changelog.
    has_changelog: Vec<bool>,
    committed: Vec<(InputIndex, Offset)>,
    stream_time: Option<Timestamp>,
    batch: BatchId,
    /// A record of the task is to be tried again at this time.
    waits_until: Option<Timestamp>,
}

impl Worker {
    pub(super) fn start(
        topology: &ApplicationTopology,
        settings: &TaskSettings,
        id: TaskId,
        now: Timestamp,
    ) -> Result<Self, RecordFailure> {
        let task = topology.task(&id, settings);
        let specs = &topology.subtopology_of(&id).store_specs;
        let has_changelog = specs.iter().map(|spec| spec.changelog.is_some()).collect();
        let mut worker = Self {
            group: PartitionGroup::new(task.inputs().count()),
            committed: task.inputs().map(|input| (input, Offset::new(0))).collect(),
            id,
            task,
            base: MemoryBase::default(),
            changelog: Vec::new(),
            has_changelog,
            stream_time: None,
            batch: BatchId::NONE,
            waits_until: None,
        };
        worker.task.start(&worker.committed, worker.stream_time, now)?;
        Ok(worker)
    }

    /// Everything but what was committed is lost; the state comes back from the changelog.
    pub(super) fn restore(
        &mut self,
        topology: &ApplicationTopology,
        settings: &TaskSettings,
        now: Timestamp,
    ) -> Result<(), RecordFailure> {
        let mut changes = ChangeSet::default();
        self.changelog.iter().for_each(|(store, key, value)| changes.push(*store, key, value.as_deref()));
        self.base = MemoryBase::default();
        self.base.apply(&changes);
        self.task = topology.task(&self.id, settings);
        self.group.clear();
        self.waits_until = None;
        self.task.start(&self.committed, self.stream_time, now)
    }

    /// A clean stop, as far as the operators see it.
    pub(super) fn close(&mut self) {
        self.task.close();
    }

    pub(super) fn id(&self) -> &TaskId {
        &self.id
    }

    /// Punctuates by the wall clock and commits.
    pub(super) fn punctuate(&mut self, now: Timestamp) -> Step {
        let batch = self.info(now, 0);
        let mut step = Step::default();
        match self.task.punctuate(batch, &self.base) {
            Ok(_) => self.take_outputs(None, &mut step.sent),
            Err(failure) => step.failed = Some(failure),
        }
        self.commit(&mut step);
        step
    }

    /// Processes one batch of what its inputs hold, and commits it; where the broker refuses an output, abandons it.
    pub(super) fn process(
        &mut self,
        inputs: &[Arc<str>],
        logs: &Logs,
        now: Timestamp,
        refusal: &mut Option<Refusal>,
    ) -> Step {
        if self.waits_until.is_some_and(|until| now < until) {
            return Step::default();
        }
        self.waits_until = None;
        for (place, (input, from)) in self.task.offsets().enumerate() {
            let records = logs.read(&inputs[input.slot()], self.id.partition, from);
            records.for_each(|record| self.group.push(place, record));
        }
        let mut step = self.process_batch(now);
        self.group.clear();
        let refused = refusal.take_if(|refusal| step.sent.iter().any(|sent| sent.sink == Some(refusal.sink)));
        if let Some(Refusal { sink, reason }) = refused {
            let sent = step.sent.iter().find(|sent| sent.sink == Some(sink));
            let (input, offset) = sent.and_then(|sent| sent.from).expect("records were processed, nothing punctuated");
            self.task.abandon();
            self.task.condemn(input, offset, sink, &reason);
            return Step { moved: true, ..Step::default() };
        }
        step.moved |= self.task.has_uncommitted();
        self.commit(&mut step);
        step
    }

    fn process_batch(&mut self, now: Timestamp) -> Step {
        let mut step = Step::default();
        let size = u32::try_from(self.group.len()).expect("a test has fewer records");
        let mut info = self.info(now, size);
        while let Some((input, record)) = self.group.pop(|input, record| self.task.time_of(input, record, now)) {
            match self.task.process(input, &record, info, &self.base) {
                Outcome::Done | Outcome::DeadLettered(_) => {}
                Outcome::Skipped(failure) => step.skipped.push(failure),
                Outcome::Again { after, .. } => {
                    let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                    self.waits_until = Some(Timestamp::new(now.get().saturating_add(after)));
                    break;
                }
                Outcome::Failed(failure) => {
                    step.failed = Some(failure);
                    break;
                }
            }
            let from = (input, crate::record::InputRecord::offset(&record));
            self.take_outputs(Some(from), &mut step.sent);
            info.index += 1;
            if self.task.take_commit_request() {
                step.moved = true;
                break;
            }
        }
        step
    }

    fn info(&self, now: Timestamp, size: u32) -> BatchInfo {
        BatchInfo { id: self.batch.next(), index: 0, size, now }
    }

    fn take_outputs(&mut self, from: Option<(usize, Offset)>, sent: &mut Vec<Sent>) {
        sent.extend(self.task.outbox().records().map(|output| Sent {
            sink: output.sink,
            topic: output.topic,
            partition: output.partition,
            record: Rc::new(Stored::from(output)),
            from,
        }));
        self.task.outbox().clear();
    }

    /// Commits the step, unless a store's value cannot be encoded: nothing of it is left then, and the task stops.
    fn commit(&mut self, step: &mut Step) {
        if !self.task.has_uncommitted() {
            return;
        }
        let mut changes = ChangeSet::default();
        if let Err(failure) = self.task.collect_changes(&mut changes) {
            self.task.abandon();
            *step = Step { failed: Some(failure), ..Step::default() };
            return;
        }
        let written = changes.changes().filter(|change| self.has_changelog[change.store.slot()]);
        self.changelog
            .extend(written.map(|change| (change.store, change.key.to_vec(), change.value.map(<[u8]>::to_vec))));
        self.base.apply(&changes);
        self.committed = self.task.offsets().collect();
        self.stream_time = self.task.stream_time();
        self.batch = self.batch.next();
        self.task.applied();
    }
}
