//! A transaction from its records to the base: process → changelog → drain → offsets → commit → apply.
//!
//! It holds the poll batch that it begins with, and those that come while there is more to read and its price is not yet a
//! small part of its time.

use std::collections::BTreeMap;
use std::time::Duration;

use processor_core::ids::{Offset, TaskId, TopicPartition};
use processor_core::protocol::batch::TurnCost;
use processor_core::protocol::slow::AfterOutlasting;
use processor_core::record::TargetPartition;
use processor_core::task::Change;

use super::group::Place;
use super::pass::{Interrupted, Pace, Pass};
use super::passed_over::PassedOver;
use super::{Consumer, Footing, StreamThread, ThreadError};
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{
    DeliveryTag, GroupConsumer, GroupMetadata, Kafka, OffsetToCommit, PolledRecord, ProducerRecord, RecordHeaders,
    RecordNumber, TRANSACTIONAL_ID_HEADER, TxnError, TxnErrorKind,
};
use crate::metrics::Phase;
use crate::seeded_bugs::{self, Rule};
use crate::state::{StateDirectory, TaskState};
use crate::tasks::Running;
use crate::transaction::{self, CommitReceipt, Next, Open, Spent, Why};

/// How long a transaction waits for records that are known to be there, at most, and no longer than its records have taken: so a
/// trickle is committed at once. They may be on their way; or held back by another transaction, or by this one, and then they do
/// not come.
const MORE_WAIT: Duration = Duration::from_millis(5);
/// Tasks with several inputs hold back no more than this many records, and as many that they wait for: a record takes some
/// hundred bytes beside its key and value, of which `batch.bytes.max` knows nothing.
const HELD_RECORDS_MAX: usize = 100_000;

/// Batches that were processed, their outputs sent, nothing committed.
pub(super) struct Processed<P> {
    transaction: Open<P>,
    records: usize,
    took: Duration,
    passed_over: PassedOver,
    /// Why the thread stops once this is committed: a record could not be processed.
    failed: Option<ThreadError>,
}

/// What became of the records of a transaction.
#[derive(Default)]
struct Progressed {
    /// The tasks have gone past them.
    processed: usize,
    /// They are read again, or the thread stops before them.
    dropped: usize,
    /// The slot of the task that had the last record.
    last_task: Option<usize>,
    /// How long wall-clock punctuations took.
    punctuating: Duration,
    passed_over: PassedOver,
    commit_requested: bool,
    failed: Option<ThreadError>,
    /// Of the keys and values that waited when it began, or were polled for it since.
    bytes: usize,
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Processes what was polled; outputs go to the producer as they come.
    pub(super) fn process(&mut self) -> Result<Option<Processed<K::Producer>>, ThreadError> {
        let bytes = self.tasks.waiting_bytes() + bytes_of(&self.records);
        let mut progressed = Progressed { bytes, ..Progressed::default() };
        self.tasks.route_records(&mut self.records);
        let began = self.clock.monotonic();
        self.hold_back(began);
        let owes = self.tasks.iter().any(Running::must_write_over);
        let idle = self.tasks.nothing_is_ready() && !self.tasks.punctuation_is_due(self.clock.wall()) && !owes;
        if idle || self.producers.fence_is_due() || self.footing != Footing::Sound || began < self.try_at {
            return Ok(None);
        }
        let Some(producer) = self.take_ready() else { return Ok(None) };
        let waiting = self.tasks.waiting_len();
        let budget = transaction::budget(self.plan.transaction_timeout);
        let mut transaction = match producer.begin(&self.clock, budget) {
            Ok(transaction) => transaction,
            Err(broken) => return self.broken(&broken, waiting).map(|()| None),
        };
        let processed = self.process_batches(&mut transaction, began, began + budget / 2, &mut progressed);
        let waiting = progressed.processed + progressed.dropped + self.tasks.waiting_len();
        let ended = match processed {
            Ok(()) => {
                let Progressed { processed, dropped, last_task, punctuating, passed_over, failed, .. } = progressed;
                let took = self.clock.monotonic().saturating_sub(began);
                if took >= budget && self.tasks.iter().any(Running::has_uncommitted) {
                    let records = processed + dropped;
                    // Of a batch of one record, which nobody can make smaller.
                    let only = last_task.filter(|_| records == 1 && punctuating < took / 2);
                    return self.outlasted(transaction, records, only, took).map(|()| None);
                }
                return Ok(Some(Processed { transaction, records: processed, took, passed_over, failed }));
            }
            Err(Interrupted::Producer(error)) => return self.fail(transaction, &error, waiting).map(|()| None),
            Err(Interrupted::TooSlow(processed)) => {
                self.batch_size.gave_up(processed);
                let why = format!(
                    "its transaction would outlive its time after {processed} of {waiting} records; smaller batches from here"
                );
                transaction.abort(&self.clock, Why::Otherwise(why))
            }
            Err(Interrupted::Corrupt(task, failure)) => {
                let ended = transaction.abort(&self.clock, Why::Failed(failure.to_string()));
                self.ended(ended, waiting)?;
                return self.discard_and_recover(&task, &failure).map(|()| None);
            }
        };
        self.ended(ended, waiting).map(|()| None)
    }

    /// Tasks whose next record may not have been polled yet wait for it, unless there is no room for more.
    fn hold_back(&mut self, now: Duration) {
        let (records_max, bytes_max) = self.held_max();
        let is_full = self.tasks.waiting_len() >= records_max || self.tasks.waiting_bytes() >= bytes_max;
        let idle_max = if is_full { Duration::ZERO } else { self.plan.max_task_idle };
        let consumer = &self.consumer;
        self.tasks.hold_back(idle_max, now, &|partition, next| consumer.is_at_end(partition, next));
    }

    /// How much may wait while tasks are held back, records and bytes: one transaction's, and another of what they wait for.
    pub(super) fn held_max(&self) -> (usize, usize) {
        let records_max = self.plan.batch.records_max.min(HELD_RECORDS_MAX);
        (records_max.saturating_mul(2), self.plan.batch_bytes_max.saturating_mul(2))
    }

    /// All records of a batch are processed, and its transaction cannot commit any more: it is aborted. A batch of several
    /// comes back smaller. One record that takes too long each time would keep the thread at it for ever, in silence:
    /// the thread stops instead, and says what to do.
    fn outlasted(
        &mut self,
        transaction: Open<K::Producer>,
        records: usize,
        only: Option<usize>,
        took: Duration,
    ) -> Result<(), ThreadError> {
        self.batch_size.gave_up(records);
        let budget = transaction::budget(self.plan.transaction_timeout);
        let too_long =
            format!("took {took:.1?}, and its transaction had {budget:?} (four fifths of transaction.timeout)");
        if records > 1 {
            let why = format!("a batch of {records} records {too_long}; smaller batches from here");
            return self.ended(transaction.abort(&self.clock, Why::Otherwise(why)), records);
        }
        let by = match only {
            Some(slot) => self.tasks.iter().nth(slot),
            None => self.tasks.iter().find(|running| running.has_uncommitted()),
        };
        let by = by.expect("a task has something to commit");
        let (task, place) = (by.task.id().clone(), only.and_then(|_| by.at_work.last()));
        let what = match &place {
            Some((partition, offset)) => format!("{partition}@{offset}"),
            None => "a wall-clock punctuation".to_owned(),
        };
        let next = self.outlasted.once_more(place);
        let attempt = match next {
            AfterOutlasting::Again { attempt, of } => format!("attempt {attempt} of {of}"),
            AfterOutlasting::Stop { attempts } => format!("attempt {attempts}, the last"),
        };
        let why = format!("{what} of task {task} {too_long}; {attempt}");
        self.ended(transaction.abort(&self.clock, Why::Otherwise(why)), records)?;
        match next {
            AfterOutlasting::Again { .. } => Ok(()),
            AfterOutlasting::Stop { attempts } => Err(ThreadError(format!(
                "task {task} stopped at {what}: it {too_long}, {attempts} times. Nothing of it is committed. Raise \
                 transaction.timeout well above the time that it takes, and max.poll.interval above that; or let the operator give up \
                 sooner, with an error that its failure policy deals with; and start again"
            ))),
        }
    }

    /// Processes what waits, and what comes while the transaction goes on.
    fn process_batches(
        &mut self,
        transaction: &mut Open<K::Producer>,
        began: Duration,
        deadline: Duration,
        progressed: &mut Progressed,
    ) -> Result<(), Interrupted> {
        self.outputs.clear();
        loop {
            let before = progressed.processed + progressed.dropped;
            let waiting = self.tasks.waiting_len();
            self.process_tasks(transaction, deadline, progressed)?;
            let (gone, left) = (progressed.processed + progressed.dropped - before, self.tasks.waiting_len());
            assert!(
                gone + left == waiting,
                "EO-6: of {waiting} polled records {gone} were processed or are read again, and {left} wait"
            );
            if !self.takes_more(progressed, began) {
                return Ok(());
            }
        }
    }

    /// Takes in another batch for the open transaction, if there is more to read and room for it.
    fn takes_more(&mut self, progressed: &mut Progressed, began: Duration) -> bool {
        let room = self.batch_size.records_max().saturating_sub(progressed.processed);
        let bytes_room = self.plan.batch_bytes_max.saturating_sub(progressed.bytes);
        let is_over = progressed.dropped > 0 || progressed.failed.is_some() || progressed.commit_requested;
        let is_large = self.tasks.uncached_bytes() >= self.plan.batch_bytes_max;
        if room == 0 || bytes_room == 0 || is_large || is_over || !self.tasks.nothing_waits() {
            return false;
        }
        let took = self.clock.monotonic().saturating_sub(began);
        // The commit needs the rest of the turn.
        if took * 4 > self.plan.batch.turn_max * 3 {
            return false;
        }
        let records_max = room.min(self.plan.poll_records_max);
        let may_come = self.consumer.poll_more(Duration::ZERO, records_max, bytes_room, &mut self.records);
        let wait = MORE_WAIT.min(took);
        let may_wait = wait >= Duration::from_millis(1) && took * 4 <= self.plan.batch.turn_max;
        if self.records.is_empty() && may_come && may_wait {
            let is_at_end = |partition: &TopicPartition, next| self.consumer.is_at_end(partition, next);
            if !self.tasks.are_at_their_ends(&is_at_end) {
                self.consumer.poll_more(wait, records_max, bytes_room, &mut self.records);
            }
        }
        if self.records.is_empty() {
            return false;
        }
        progressed.bytes += bytes_of(&self.records);
        self.tasks.route_records(&mut self.records);
        self.hold_back(self.clock.monotonic());
        !self.tasks.nothing_is_ready()
    }

    /// Processes task by task, each task's records in the order of their time.
    fn process_tasks(
        &mut self,
        transaction: &mut Open<K::Producer>,
        deadline: Duration,
        progressed: &mut Progressed,
    ) -> Result<(), Interrupted> {
        let room = self.batch_size.records_max();
        let Progressed { processed, dropped, last_task, punctuating, passed_over, bytes, .. } =
            std::mem::take(progressed);
        let mut pass = Pass {
            transaction,
            outputs: &mut self.outputs,
            clock: &self.clock,
            store_reads: self.instruments.store_reads.as_ref(),
            now: self.clock.wall(),
            ready: processed + self.tasks.ready_len().min(room.saturating_sub(processed)),
            room,
            is_at_end: &|partition, next| self.consumer.is_at_end(partition, next),
            deadline,
            pace: Pace::from(self.clock.monotonic()),
            processed,
            last_task,
            dropped,
            punctuating,
            passed_over,
            commit_requested: false,
            failed: None,
        };
        let mut first_left = None;
        let mut passed = Ok(());
        for (slot, running) in self.tasks.iter_mut_from(self.first_task) {
            if pass.is_full() {
                first_left.get_or_insert(slot);
            }
            passed = pass.task(slot, running);
            if passed.is_err() {
                break;
            }
        }
        let Pass { processed, dropped, last_task, punctuating, passed_over, commit_requested, failed, .. } = pass;
        *progressed =
            Progressed { processed, dropped, last_task, punctuating, passed_over, commit_requested, failed, bytes };
        self.first_task = first_left.unwrap_or(0);
        self.refetch |= dropped > 0;
        passed
    }

    /// Changelog, drain, offsets, commit, apply. Returns how many records were committed.
    pub(super) fn commit(&mut self, processed: Processed<K::Producer>) -> Result<usize, ThreadError> {
        let Processed { mut transaction, records, took, passed_over, failed } = processed;
        let began = self.clock.monotonic();
        failpoints::at(Failpoint::AfterProcess);
        let sent = self.send_changelog(&mut transaction);
        failpoints::at(Failpoint::AfterChangelog);
        let drained = |transaction: &mut Open<K::Producer>| {
            if seeded_bugs::holds(Rule::DrainedBeforeOffsets) { transaction.drain(&self.clock) } else { Ok(()) }
        };
        let tags = match sent.and_then(|tags| drained(&mut transaction).map(|()| tags)) {
            Ok(tags) => tags,
            Err(error) => return self.fail(transaction, &error, records).map(|()| 0),
        };
        failpoints::at(Failpoint::AfterDrain);
        self.lap(Phase::Changelog);
        if tags.is_empty() {
            // The only record of the batch failed, or a punctuation was due; neither has left anything.
            let ended = transaction.abort(&self.clock, Why::Empty);
            self.ended(ended, records)?;
            return failed.map_or(Ok(0), Err);
        }
        let group = match self.checked_membership() {
            Ok(group) => group,
            Err(why) => return self.ended(transaction.abort(&self.clock, why), records).map(|()| 0),
        };
        let positions = self.offsets_to_commit(&tags, &transaction);
        let offsets: Vec<_> = positions
            .iter()
            .map(|(partition, offset, metadata)| OffsetToCommit { partition, offset: *offset, metadata })
            .collect();
        let prepared = match transaction.prepare(&self.clock, &offsets, &group) {
            Ok(prepared) => prepared,
            Err(ended) => return self.ended(ended, records).map(|()| 0),
        };
        self.lap(Phase::Offsets);
        failpoints::at(Failpoint::AfterOffsets);
        let too_early = prepared.forged_receipt(Rule::AppliedAfterCommit);
        let unanswered = prepared.forged_receipt(Rule::SilenceIsNotACommit);
        if let Some(forged) = &too_early {
            self.apply(forged, &tags);
        }
        let receipt = match prepared.commit(&self.clock) {
            Ok((receipt, next)) => {
                self.set_producer(next);
                receipt
            }
            Err(broken) => match unanswered {
                None => return self.broken(&broken, records).map(|()| 0),
                Some(forged) => {
                    self.set_producer(Next::Spent(Spent::Silent));
                    forged
                }
            },
        };
        failpoints::at(Failpoint::AfterCommit);
        self.lap(Phase::Commit);
        if too_early.is_none() {
            self.apply(&receipt, &tags);
        }
        failpoints::at(Failpoint::AfterApply);
        self.lap(Phase::Apply);
        self.outlasted.committed();
        let commit = self.clock.monotonic().saturating_sub(began);
        self.instruments.metrics.committed(records, took, commit);
        passed_over.committed(&self.instruments.metrics, records);
        tracing::debug!(records, process = ?took, commit = ?commit, "committed");
        self.batch_size.learn(&TurnCost { records, process: took, commit });
        failed.map_or(Ok(records), Err)
    }

    /// Ends the transaction after an error. If the broker has refused an output for what it is, the record that the output
    /// comes from is condemned: when it is processed again, its policy says what becomes of it.
    fn fail(&mut self, transaction: Open<K::Producer>, error: &TxnError, records: usize) -> Result<(), ThreadError> {
        let refused = transaction.refused();
        let origin = refused.as_ref().and_then(|refused| self.outputs.origin(refused.number));
        let (Some(refused), Some(origin)) = (refused, origin) else {
            let ended = transaction.fail(&self.clock, error);
            return self.ended(ended, records);
        };
        let running = self.tasks.iter_mut().nth(origin.task).expect("tasks do not come and go in a transaction");
        running.task.condemn(origin.input, origin.offset, origin.sink, &refused.reason);
        let ended = transaction.abort(&self.clock, Why::Otherwise(refused.reason));
        self.ended(ended, records)
    }

    /// Sends the last value of every key that the batch wrote. Returns, for each task that has something to commit, the
    /// tag of its first store.
    fn send_changelog(&mut self, transaction: &mut Open<K::Producer>) -> Result<BTreeMap<TaskId, u16>, TxnError> {
        let mut tags = BTreeMap::new();
        let mut next_tag = 0;
        for running in self.tasks.iter_mut().filter(|running| running.has_uncommitted()) {
            let first_tag = next_tag;
            next_tag += u16::try_from(running.changelogs.len()).expect("build() bounds the number of stores");
            tags.insert(running.task.id().clone(), first_tag);
            running.collect_changes().map_err(|failure| TxnError {
                kind: TxnErrorKind::Refused,
                call: "encode",
                code: "ENCODE".to_owned(),
                message: format!("task {}: {failure}", running.task.id()),
            })?;
            let mut first = vec![true; running.changelogs.len()];
            // A punctuation may write before the first record has come.
            let timestamp = running.task.stream_time().unwrap_or_else(|| self.clock.wall());
            for change in running.changes.changes() {
                let Some((source, topic)) = &running.changelogs[change.store.slot()] else { continue };
                if is_left_out(running, &change) {
                    continue;
                }
                let is_first = std::mem::replace(&mut first[change.store.slot()], false);
                let id = self.plan.transactional_id.0.as_bytes();
                transaction.send(&ProducerRecord {
                    topic: *topic,
                    partition: TargetPartition::Exactly(source.partition.partition),
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
    pub(super) fn checked_membership(&self) -> Result<<Consumer<K> as GroupConsumer>::GroupMetadata, Why> {
        let group = self.consumer.group_metadata().map_err(|error| Why::Moved(error.message))?;
        let now = group.membership();
        match &self.place {
            Place::Inside(assigned) if *assigned == now && now.is_checked() => Ok(group),
            Place::Inside(_) if now.is_checked() && !seeded_bugs::holds(Rule::MembershipIsOfTheAssignment) => Ok(group),
            Place::Inside(assigned) => {
                Err(Why::Moved(format!("assigned under {assigned:?}, but the member is {now:?}")))
            }
            Place::Outside(_) | Place::Lost(_) => {
                Err(Why::Moved(format!("assigned nothing, but the member is {now:?}")))
            }
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
            if !offsets.is_empty() && !seeded_bugs::holds(Rule::EveryTaskHasItsOffsets) {
                break;
            }
            let metadata = running.metadata(&self.plan.transactional_id, tag, |tag| transaction.delivered_end(tag));
            let mut text = String::new();
            metadata.write(&mut text);
            let owned = running.inputs.iter().all(|(_, partition)| self.owned.contains(partition));
            assert!(owned, "EO-12: offsets are committed for owned partitions only, task {}", running.task.id());
            offsets
                .extend(running.positions().into_iter().map(|(partition, offset)| (partition, offset, text.clone())));
        }
        if !seeded_bugs::holds(Rule::OffsetIsOfTheNextRecord) {
            for (_, offset, _) in &mut offsets {
                *offset = Offset::new((offset.get() - 1).max(0));
            }
        }
        offsets
    }

    /// Turns what was committed into the new base, with the receipt alone (EO-2).
    fn apply(&mut self, receipt: &CommitReceipt, tags: &BTreeMap<TaskId, u16>) {
        let now = self.clock.wall();
        let mut unwritten = Vec::new();
        for running in self.tasks.iter_mut() {
            let Some(&tag) = tags.get(running.task.id()) else { continue };
            if let Some((first, last)) = running.span.take() {
                self.instruments.metrics.visible(first.timestamp, last.timestamp, now);
                self.instruments.metrics.late(first.late_by);
                self.instruments.metrics.late(last.late_by);
            }
            if let Err(error) = running.apply(receipt, tag, now) {
                tracing::error!(task = %running.task.id(), "the committed batch is restored from the changelog instead: {error}");
                unwritten.push(running.task.id().clone());
            }
            failpoints::at(Failpoint::MidApply);
        }
        for task in unwritten {
            self.open_anew(&task);
        }
    }

    /// Tasks of which something could not be written in the meantime, whether or not there are records for them.
    pub(super) fn open_what_failed_anew(&mut self) {
        let failed = |running: &Running<S::Task, _>| {
            let failed = running.state.as_ref().and_then(TaskState::failed)?;
            Some((running.task.id().clone(), failed))
        };
        let failed: Vec<_> = self.tasks.iter().filter_map(failed).collect();
        for (task, failed) in failed {
            tracing::error!(%task, "what was committed is restored from the changelog instead: {failed}");
            self.open_anew(&task);
        }
    }

    /// The state takes no more writes: it is opened again, and what it lacks comes from the changelog.
    fn open_anew(&mut self, task: &TaskId) {
        let Running { task, state, .. } = self.tasks.remove(task).expect("it ran a moment ago");
        drop(state);
        self.begin_recovery(task, None);
        self.refetch = true;
    }
}

/// How many bytes of keys and values records have.
fn bytes_of<R: PolledRecord>(records: &[R]) -> usize {
    let size = |record: &R| record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
    records.iter().map(size).sum()
}

/// Whether a test has seen to it that a change does not reach the changelog.
fn is_left_out<T, R>(running: &Running<T, R>, change: &Change<'_>) -> bool {
    let has_changelog = |change: &Change<'_>| running.changelogs[change.store.slot()].is_some();
    let is_last = || {
        let last = running.changes.changes().filter(has_changelog).last();
        last.is_some_and(|last| (last.store, last.key) == (change.store, change.key))
    };
    !seeded_bugs::holds(Rule::DeletionsAreWritten) && change.value.is_none()
        || !seeded_bugs::holds(Rule::EveryChangeIsWritten) && is_last()
}
