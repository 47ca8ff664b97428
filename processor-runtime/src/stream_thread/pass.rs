//! One batch on its way through the tasks: punctuations that are due, then the records that wait, task by task.

use std::time::Duration;

use processor_core::error::{FailureKind, RecordFailure};
use processor_core::ids::{Offset, TaskId, Timestamp};
use processor_core::record::BatchInfo;
use processor_core::store::Base;
use processor_core::task::Outcome;

use super::ThreadError;
use super::outputs::Outputs;
use super::passed_over::PassedOver;
use super::store_reads::StoreReads;
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{PolledRecord, TransactionalProducer, TxnError};
use crate::state::TaskState;
use crate::status::AtWork;
use crate::tasks::{IsAtEnd, NoStores, Running};
use crate::transaction::Open;

/// The clock is looked at after so many records at the most; sooner where records take long.
const CLOCK_STRIDE_MAX: usize = 64;
/// Records that took less than this together are quick: the clock is looked at half as often from there.
const CLOCK_STRIDE_QUICK: Duration = Duration::from_millis(1);

/// Why processing stopped in mid-batch.
pub(super) enum Interrupted {
    Producer(TxnError),
    /// After so many records.
    TooSlow(usize),
    Corrupt(TaskId, RecordFailure),
}

/// A batch being processed.
pub(super) struct Pass<'a, P, C> {
    pub(super) transaction: &'a mut Open<P>,
    pub(super) outputs: &'a mut Outputs,
    pub(super) clock: &'a C,
    pub(super) store_reads: Option<&'a StoreReads>,
    /// The time of day of the batch.
    pub(super) now: Timestamp,
    /// How many records it was to process when it began.
    pub(super) ready: usize,
    /// How many records it may have. More wait only where they were held back.
    pub(super) room: usize,
    /// Whether an input is known to have no more than was polled.
    pub(super) is_at_end: IsAtEnd<'a>,
    /// When the transaction must be on its way to the commit.
    pub(super) deadline: Duration,
    pub(super) pace: Pace,
    /// Records that the tasks have gone past.
    pub(super) processed: usize,
    /// The slot of the task that had the last of them.
    pub(super) last_task: Option<usize>,
    /// Records that were polled and are to be read again.
    pub(super) dropped: usize,
    /// How long wall-clock punctuations took.
    pub(super) punctuating: Duration,
    pub(super) passed_over: PassedOver,
    /// An operator has asked for a commit.
    pub(super) commit_requested: bool,
    pub(super) failed: Option<ThreadError>,
}

/// How often the clock is looked at: it costs as much as a quick record.
pub(super) struct Pace {
    stride: usize,
    look_at: usize,
    looked: Duration,
}

impl Pace {
    pub(super) fn from(now: Duration) -> Self {
        Self { stride: 1, look_at: 1, looked: now }
    }
}

impl<P: TransactionalProducer, C: Clock> Pass<'_, P, C> {
    /// Punctuates a task and processes its records, until none waits or the batch must end for it.
    pub(super) fn task<T: TaskState, R: PolledRecord>(
        &mut self,
        slot: usize,
        running: &mut Running<T, R>,
    ) -> Result<(), Interrupted> {
        let size = running.group.len().min(self.room.saturating_sub(self.processed));
        let size = u32::try_from(size).expect("batches are bounded");
        let mut info = BatchInfo { id: running.batch(), index: 0, size, now: self.now };
        let punctuates = running.task.next_wall_clock().is_some_and(|due| due <= self.now);
        if punctuates && let Err(failure) = self.punctuate(running, info) {
            return self.stop(running, None, failure);
        }
        self.outputs.send(&mut running.task, None, self.transaction).map_err(Interrupted::Producer)?;
        // The records of this pass go with it: schedules that are always due would let none pass.
        self.commit_requested |= punctuates && running.task.take_commit_request();
        if !running.is_held() {
            self.read_ahead(running, size as usize);
        }
        let mut last = None;
        while !running.is_held()
            && !self.is_full()
            && let Some((input, record)) = running.next_record(self.now, self.is_at_end)
        {
            let place = (input, record.offset());
            running.at_work.begin(Some(place));
            let base = base(running.state.as_ref());
            let outcome = match self.store_reads {
                Some(reads) => running.task.process(input, &record, info, &reads.over(base, self.clock)),
                None => running.task.process(input, &record, info, base),
            };
            running.at_work.end();
            running.note_age(input, &record);
            match outcome {
                Outcome::Done => {}
                Outcome::Skipped(failure) => self.pass_over(running, place, &failure, "skipped"),
                Outcome::DeadLettered(failure) => self.pass_over(running, place, &failure, "dead-lettered"),
                Outcome::Again { after, failure } => {
                    let (partition, offset) = (&running.inputs[input].1, record.offset());
                    tracing::warn!(task = %running.task.id(), "{partition}@{offset} is tried again in {after:?}: {failure}");
                    self.dropped += 1 + running.group.len();
                    running.wait_until(self.clock.monotonic() + after);
                    break;
                }
                Outcome::Failed(failure) => {
                    self.dropped += 1;
                    if info.index > 0 || punctuates {
                        running.end_batch();
                    }
                    return self.stop(running, Some(place), failure);
                }
            }
            let from = Some((slot, input, record.offset()));
            self.outputs.send(&mut running.task, from, self.transaction).map_err(Interrupted::Producer)?;
            if info.index == 0 {
                running.observe(input, &record, self.now);
            }
            last = Some((input, record));
            self.processed += 1;
            failpoints::at(Failpoint::MidProcess);
            info.index += 1;
            if running.task.take_commit_request() {
                self.commit_requested = true;
                break;
            }
            if self.is_late(&running.at_work) && self.processed + self.dropped < self.ready {
                return Err(Interrupted::TooSlow(self.processed));
            }
        }
        if info.index > 0 || punctuates {
            running.end_batch();
        }
        if info.index > 0 {
            self.last_task = Some(slot);
        }
        if info.index > 1
            && let Some((input, record)) = &last
        {
            running.observe(*input, record, self.now);
        }
        Ok(())
    }

    /// Looks the keys up that the records which wait will look up, if that is worth it.
    fn read_ahead<T: TaskState, R: PolledRecord>(&self, running: &mut Running<T, R>, of_each_max: usize) {
        let Running { task, state, group, at_work, .. } = running;
        // A disk that takes its time holds up the record that comes first.
        let mut waiting = group.waiting(of_each_max).peekable();
        let Some((input, first)) = waiting.peek() else { return };
        at_work.begin(Some((*input, first.offset())));
        let base = base(state.as_ref());
        match self.store_reads {
            Some(reads) => task.read_ahead(waiting, &reads.over(base, self.clock)),
            None => task.read_ahead(waiting, base),
        }
        at_work.end();
    }

    /// Whether the batch has as many records as it may have.
    pub(super) fn is_full(&self) -> bool {
        self.processed >= self.room
    }

    /// Fires the wall-clock schedules that are due.
    fn punctuate<T: TaskState, R: PolledRecord>(
        &mut self,
        running: &mut Running<T, R>,
        info: BatchInfo,
    ) -> Result<(), RecordFailure> {
        let began = self.clock.monotonic();
        running.at_work.begin(None);
        let punctuated = running.task.punctuate(info, base(running.state.as_ref()));
        running.at_work.end();
        self.punctuating += self.clock.monotonic().saturating_sub(began);
        punctuated.map(drop)
    }

    /// The task stops: what is before the failure is committed. Damaged state is not the record's fault.
    fn stop<T: TaskState, R: PolledRecord>(
        &mut self,
        running: &mut Running<T, R>,
        place: Option<(usize, Offset)>,
        failure: RecordFailure,
    ) -> Result<(), Interrupted> {
        if failure.kind == (FailureKind::State { corrupt: true }) {
            return Err(Interrupted::Corrupt(running.task.id().clone(), failure));
        }
        let place = place.map(|(input, offset)| format!("{}@{offset}", running.inputs[input].1));
        self.failed.get_or_insert_with(|| stopped(running.task.id(), place.as_deref(), &failure));
        self.dropped += running.group.len();
        running.group.clear();
        Ok(())
    }

    fn pass_over<T: TaskState, R: PolledRecord>(
        &mut self,
        running: &Running<T, R>,
        (input, offset): (usize, Offset),
        failure: &RecordFailure,
        outcome: &'static str,
    ) {
        let partition = &running.inputs[input].1;
        let (task, kind) = (running.task.id(), failure.kind.word());
        // Before the commit, so that no record is passed over unsaid; said again where the batch is repeated.
        if self.passed_over.add(outcome, kind) {
            tracing::warn!(%task, kind, node = failure.node, "{partition}@{offset} is {outcome} with its batch: {failure}");
        }
    }

    /// The clock is looked at sooner than so often where records have become slow: the watcher says that time has passed.
    fn is_late(&mut self, at_work: &AtWork) -> bool {
        let pace = &mut self.pace;
        if self.processed < pace.look_at && !at_work.clock_is_due() {
            return false;
        }
        let now = self.clock.monotonic();
        let quick = now.saturating_sub(pace.looked) < CLOCK_STRIDE_QUICK;
        pace.stride = if quick { (pace.stride * 2).min(CLOCK_STRIDE_MAX) } else { 1 };
        (pace.look_at, pace.looked) = (self.processed + pace.stride, now);
        now >= self.deadline
    }
}

fn base<T: TaskState>(state: Option<&T>) -> &dyn Base {
    match state {
        Some(state) => state,
        None => &NoStores,
    }
}

fn stopped(task: &TaskId, place: Option<&str>, failure: &RecordFailure) -> ThreadError {
    let is_of_state = matches!(failure.kind, FailureKind::State { .. });
    ThreadError(match place {
        Some(place) if is_of_state => format!(
            "task {task} stopped at {place}: {failure}. Everything before this record is committed; nothing of it is. Look at the disk \
             (space, rights, open files) and start again; removing the task's directory restores its state from the changelog"
        ),
        Some(place) => format!(
            "task {task} stopped at {place}: {failure}. Everything before this record is committed; nothing of it is. Mend the \
             operator, give it a failure policy, or set the group's offset behind the record with kafka-consumer-groups \
             --reset-offsets, and start again"
        ),
        None => {
            format!("task {task} stopped: {failure}. Nothing of it is committed. Mend the operator and start again")
        }
    })
}
