//! A poll batch from its records to the base: process → changelog → drain → offsets → commit → apply.

use std::collections::BTreeMap;
use std::time::Duration;

use processor_core::error::{FailureKind, RecordFailure};
use processor_core::ids::{Offset, TaskId, TopicPartition};
use processor_core::protocol::batch::TurnCost;
use processor_core::record::{BatchInfo, InputRecord, Outbox, TargetPartition};
use processor_core::store::Base;

use super::group::Place;
use super::{Consumer, Footing, StreamThread, ThreadError};
use crate::clock::Clock;
use crate::kafka::{
    DeliveryTag, GroupConsumer, GroupMetadata, Kafka, OffsetToCommit, ProducerRecord, TRANSACTIONAL_ID_HEADER,
    TransactionalProducer, TxnError, TxnErrorKind,
};
use crate::metrics::Phase;
use crate::state::StateDirectory;
use crate::tasks::{NoStores, Running};
use crate::transaction::{CommitReceipt, Open, Why};

/// The clock is looked at after so many records at the most; sooner where records take long.
const CLOCK_STRIDE_MAX: usize = 64;
/// Records that took less than this together are quick: the clock is looked at half as often from there.
const CLOCK_STRIDE_QUICK: Duration = Duration::from_millis(1);

/// A batch that was processed, its outputs sent, nothing committed.
pub(super) struct Processed<P> {
    transaction: Open<P>,
    records: usize,
    took: Duration,
    /// Why the thread stops once this is committed: a record could not be processed.
    failed: Option<ThreadError>,
}

/// What became of a batch's records.
#[derive(Default)]
struct Count {
    processed: usize,
    /// Not processed, and not read again: the record that failed, and those of its task behind it.
    dropped: usize,
    failed: Option<ThreadError>,
}

/// Why processing stopped in mid-batch.
enum Interrupted {
    Producer(TxnError),
    /// After so many records.
    TooSlow(usize),
    Corrupt(TaskId, RecordFailure),
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Processes what was polled; outputs go to the producer as they come.
    pub(super) fn process(&mut self) -> Result<Option<Processed<K::Producer>>, ThreadError> {
        self.tasks.route_records(&mut self.records);
        let began = self.clock.monotonic();
        if self.tasks.nothing_waits() || self.footing != Footing::Sound || began < self.try_at {
            return Ok(None);
        }
        if self.fence_due {
            return self.fence_late_offsets().map(|()| None);
        }
        let Some(producer) = self.take_ready() else { return Ok(None) };
        let waiting = self.tasks.iter().map(|running| running.group.len()).sum::<usize>();
        let budget = self.plan.transaction_timeout * 4 / 5;
        let mut transaction = match producer.begin(&self.clock, budget) {
            Ok(transaction) => transaction,
            Err(broken) => return self.broken(&broken, waiting).map(|()| None),
        };
        let ended = match self.process_tasks(&mut transaction, waiting, began + budget / 2) {
            Ok(Count { processed, dropped, failed }) => {
                assert!(dropped == 0 || failed.is_some(), "EO-6: only behind a record that failed is anything dropped");
                assert_eq!(processed + dropped, waiting, "EO-6: every record that was polled is accounted for");
                let took = self.clock.monotonic().saturating_sub(began);
                return Ok(Some(Processed { transaction, records: processed, took, failed }));
            }
            Err(Interrupted::Producer(error)) => transaction.fail(&self.clock, &error),
            Err(Interrupted::TooSlow(processed)) => {
                self.batch_size.gave_up(processed);
                let why = format!(
                    "its transaction would outlive its time after {processed} of {waiting} records; smaller batches from here"
                );
                transaction.abort(&self.clock, Why::TooSlow(why))
            }
            Err(Interrupted::Corrupt(task, failure)) => {
                let ended = transaction.abort(&self.clock, Why::Failed(failure.to_string()));
                self.ended(ended, waiting)?;
                return self.discard_and_recover(&task, &failure).map(|()| None);
            }
        };
        self.ended(ended, waiting).map(|()| None)
    }

    /// Processes task by task, each task's records in the order of their time.
    fn process_tasks(
        &mut self,
        transaction: &mut Open<K::Producer>,
        waiting: usize,
        deadline: Duration,
    ) -> Result<Count, Interrupted> {
        let mut count = Count::default();
        let (mut stride, mut look_at, mut looked) = (1, 1, self.clock.monotonic());
        for running in self.tasks.iter_mut() {
            let size = u32::try_from(running.group.len()).expect("batches are bounded");
            let mut info = BatchInfo { id: running.batch(), index: 0, size };
            while let Some((input, record)) = running.group.pop() {
                if info.index == 0 || running.group.is_empty() {
                    running.note_timestamp(record.timestamp());
                }
                let base: &dyn Base = match &running.state {
                    Some(state) => state,
                    None => &NoStores,
                };
                if let Err(failure) = running.task.process(input, &record, info, base) {
                    if failure.kind == (FailureKind::State { corrupt: true }) {
                        return Err(Interrupted::Corrupt(running.task.id().clone(), failure));
                    }
                    let partition = &running.inputs[input].1;
                    let stopped = stopped(running.task.id(), partition, record.offset(), &failure);
                    count.failed.get_or_insert(stopped);
                    count.dropped += 1 + running.group.len();
                    running.group.clear();
                    break;
                }
                send_outputs(running.task.outbox(), transaction).map_err(Interrupted::Producer)?;
                count.processed += 1;
                info.index += 1;
                if count.processed < look_at {
                    continue;
                }
                let now = self.clock.monotonic();
                if now >= deadline && count.processed < waiting {
                    return Err(Interrupted::TooSlow(count.processed));
                }
                let quick = now.saturating_sub(looked) < CLOCK_STRIDE_QUICK;
                stride = if quick { (stride * 2).min(CLOCK_STRIDE_MAX) } else { 1 };
                (look_at, looked) = (count.processed + stride, now);
            }
        }
        Ok(count)
    }

    /// Changelog, drain, offsets, commit, apply. Returns how many records were committed.
    pub(super) fn commit(&mut self, processed: Processed<K::Producer>) -> Result<usize, ThreadError> {
        let Processed { mut transaction, records, took, failed } = processed;
        let began = self.clock.monotonic();
        let sent = self.send_changelog(&mut transaction);
        let tags = match sent.and_then(|tags| transaction.drain(&self.clock).map(|()| tags)) {
            Ok(tags) => tags,
            Err(error) => return self.ended(transaction.fail(&self.clock, &error), records).map(|()| 0),
        };
        self.lap(Phase::Changelog);
        if let (Some(failed), true) = (&failed, tags.is_empty()) {
            // The only record of the batch failed, and has left nothing.
            let ended = transaction.abort(&self.clock, Why::Failed("nothing to commit".to_owned()));
            self.ended(ended, records)?;
            return Err(failed.clone());
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
        let receipt = match prepared.commit(&self.clock) {
            Ok((receipt, next)) => {
                self.set_producer(next);
                receipt
            }
            Err(broken) => return self.broken(&broken, records).map(|()| 0),
        };
        self.lap(Phase::Commit);
        self.apply(&receipt, &tags);
        self.lap(Phase::Apply);
        let commit = self.clock.monotonic().saturating_sub(began);
        self.instruments.metrics.committed(records, commit);
        tracing::debug!(records, process = ?took, commit = ?commit, "committed");
        self.batch_size.learn(&TurnCost { records, process: took, commit });
        failed.map_or(Ok(records), Err)
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
            let timestamp = running.task.stream_time().expect("a task that wrote has processed a record");
            for change in running.changes.changes() {
                let Some((source, topic)) = &running.changelogs[change.store.slot()] else { continue };
                let is_first = std::mem::replace(&mut first[change.store.slot()], false);
                let id = self.plan.transactional_id.0.as_bytes();
                transaction.send(&ProducerRecord {
                    topic: *topic,
                    partition: TargetPartition::Exactly(source.partition.partition),
                    timestamp,
                    key: Some(change.key),
                    value: change.value,
                    header: is_first.then_some((TRANSACTIONAL_ID_HEADER, id)),
                    tag: DeliveryTag(first_tag + change.store.get()),
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

    /// Turns what was committed into the new base, with the receipt alone (EO-2).
    fn apply(&mut self, receipt: &CommitReceipt, tags: &BTreeMap<TaskId, u16>) {
        let now = self.clock.wall();
        let mut unwritten = Vec::new();
        for running in self.tasks.iter_mut() {
            let Some(&tag) = tags.get(running.task.id()) else { continue };
            if let Some((first, last)) = running.span.take() {
                self.instruments.metrics.visible(first, last, now);
            }
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
}

fn send_outputs<P: TransactionalProducer>(outbox: &mut Outbox, transaction: &mut Open<P>) -> Result<(), TxnError> {
    for output in outbox.records() {
        transaction.send(&ProducerRecord {
            topic: output.topic,
            partition: output.partition,
            timestamp: output.timestamp,
            key: output.key,
            value: output.value,
            header: None,
            tag: DeliveryTag::UNTRACKED,
        })?;
    }
    outbox.clear();
    Ok(())
}

/// Why a thread stops at a record, and what a person can do.
fn stopped(task: &TaskId, partition: &TopicPartition, offset: Offset, failure: &RecordFailure) -> ThreadError {
    let remedy = match failure.kind {
        FailureKind::State { .. } => {
            "Look at the disk (space, rights, open files) and start again; removing the task's directory restores its state from the changelog"
        }
        FailureKind::Decode | FailureKind::Process | FailureKind::Panic | FailureKind::Encode => {
            "Mend the operator, or set the group's offset behind the record with kafka-consumer-groups --reset-offsets, and start again"
        }
    };
    ThreadError(format!(
        "task {task} stopped at {partition}@{offset}: {failure}. Everything before this record is committed; nothing of it is. {remedy}"
    ))
}
