//! The model of a cluster: logs, transaction coordinators, one consumer group, and the faults a test asked for.
//!
//! It keeps the rules that matter to exactly-once processing: a producer of an older epoch is refused everywhere; what a
//! transaction wrote becomes visible, and its offsets valid, only with its markers; an open transaction holds back
//! `read_committed` readers of its partitions and stable reads of its offsets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use processor_core::ids::{Offset, Partition, TopicPartition};
use processor_runtime::kafka::{Committed, LogBounds, Membership, PRODUCERS, TransactionalId, TxnErrorKind};

use crate::random::SplitMix64;

use super::brokers::Brokers;
use super::group::{Group, NotAMember, Standing};
use super::log::{Log, ProducerNumber, Written};

/// Something that goes wrong, once, when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next commit says it timed out, however often it is called. Whether it `took_effect` is for the broker to know.
    CommitTimesOut {
        /// Whether the transaction committed.
        took_effect: bool,
    },
    /// The next commit fails with this and has no effect.
    CommitFails(TxnErrorKind),
    /// The next commit succeeds, but a copy of its request is still under way: the producer is tainted. The copy
    /// arrives when [`FakeCluster::deliver_late_requests`](super::FakeCluster::deliver_late_requests) is called.
    CommitLeavesLateCopy,
    /// The next commit has no answer, and the brokers end its transaction both ways: committed in one changelog partition, aborted
    /// everywhere else, with its offsets. Kafka 4.3.1 can do so where a coordinator comes back with a decision that only it has.
    CommitTorn,
    /// The next commit is decided, but its markers are not written before
    /// [`FakeCluster::release_markers`](super::FakeCluster::release_markers) is called.
    CommitHoldsMarkers,
    /// The next `send` fails with this.
    SendFails(TxnErrorKind),
    /// The next numbered record is refused for what it is, which the drain tells.
    RecordRefused,
    /// The next `drain` fails with this; nothing is missing in the log.
    DrainFails(TxnErrorKind),
    /// The next `send_offsets` fails with this and has no effect.
    SendOffsetsFails(TxnErrorKind),
    /// The next `send_offsets` succeeds, but a copy of its request is still under way, as with `CommitLeavesLateCopy`.
    SendOffsetsLeavesLateCopy,
    /// The next `abort` fails with this and has no effect.
    AbortFails(TxnErrorKind),
    /// The next abort succeeds, but a copy of its request is still under way, as with `CommitLeavesLateCopy`.
    AbortLeavesLateCopy,
    /// The next `init` is not done before it was called this many times more.
    InitTakes(u32),
    /// The next `init` fails with this and has no effect.
    InitFails(TxnErrorKind),
}

/// What has happened to a cluster so far. What a test has asked for and what has come of it are not the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// How often faults have struck, by [`Fault::kind`].
    pub struck: BTreeMap<&'static str, u64>,
    /// How many rebalances of the group have come to an end.
    pub rebalances: u64,
    /// How many changelog records were read.
    pub replayed: u64,
    /// How many late copies of requests have arrived.
    pub late: u64,
    /// How many late ends of transactions have ended a later one.
    pub late_ends_taken: u64,
    /// How many late offsets were taken into a later transaction.
    pub late_offsets_taken: u64,
    /// How many brokers were lost.
    pub brokers_lost: u64,
}

/// The call that a fault waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Init,
    Send,
    /// A `send` of a numbered record.
    SendNumbered,
    Drain,
    SendOffsets,
    Commit,
    Abort,
}

impl Fault {
    /// What kind of fault it is, without its particulars.
    pub fn kind(self) -> &'static str {
        match self {
            Self::CommitTimesOut { took_effect: true } => "commit took effect unheard",
            Self::CommitTimesOut { took_effect: false } => "commit was never heard of",
            Self::CommitFails(_) => "commit failed",
            Self::CommitLeavesLateCopy => "commit left a late copy",
            Self::CommitTorn => "commit was torn by the brokers",
            Self::CommitHoldsMarkers => "commit held markers",
            Self::SendFails(_) => "send failed",
            Self::RecordRefused => "a record was refused",
            Self::DrainFails(_) => "drain failed",
            Self::SendOffsetsFails(_) => "send offsets failed",
            Self::SendOffsetsLeavesLateCopy => "send offsets left a late copy",
            Self::AbortFails(_) => "abort failed",
            Self::AbortLeavesLateCopy => "abort left a late copy",
            Self::InitTakes(_) => "init took long",
            Self::InitFails(_) => "init failed",
        }
    }

    fn strikes(self) -> Call {
        match self {
            Self::CommitTimesOut { .. }
            | Self::CommitFails(_)
            | Self::CommitLeavesLateCopy
            | Self::CommitTorn
            | Self::CommitHoldsMarkers => Call::Commit,
            Self::SendFails(_) => Call::Send,
            Self::RecordRefused => Call::SendNumbered,
            Self::DrainFails(_) => Call::Drain,
            Self::SendOffsetsFails(_) | Self::SendOffsetsLeavesLateCopy => Call::SendOffsets,
            Self::AbortFails(_) | Self::AbortLeavesLateCopy => Call::Abort,
            Self::InitTakes(_) | Self::InitFails(_) => Call::Init,
        }
    }
}

/// Why a broker refuses a transactional request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `INVALID_PRODUCER_EPOCH` or `PRODUCER_FENCED`.
    Fenced,
    /// `CONCURRENT_TRANSACTIONS`: the one before is not through yet.
    Concurrent,
    /// The transaction ended the other way, or there is none.
    InvalidState,
    /// The group does not accept the membership.
    Group(NotAMember),
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    UnknownPartition,
    /// Nobody leads the partition, or coordinates what was asked for: there is no answer.
    Away,
}

/// An epoch of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(i32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransactionState {
    Empty,
    Ongoing,
    /// Decided; the markers are not written yet.
    Ending {
        commit: bool,
    },
}

/// What the coordinator knows of a transactional id.
#[derive(Debug)]
struct Coordinator {
    producer: ProducerNumber,
    epoch: Epoch,
    state: TransactionState,
    partitions: BTreeSet<TopicPartition>,
    offsets: BTreeMap<TopicPartition, PendingOffset>,
    /// The newest epoch that the group's own coordinator has seen: it learns epochs from offsets and markers only.
    offsets_seen: Epoch,
    markers_held: bool,
}

/// An offset that counts when its transaction commits.
#[derive(Clone, Debug)]
struct PendingOffset {
    offset: Offset,
    metadata: String,
    /// The place of its record in the group's own partition.
    appended: u64,
}

/// A copy of a request that arrives later. The protocol that librdkafka speaks cannot tell it from a new one.
#[derive(Debug)]
struct Late {
    id: TransactionalId,
    epoch: Epoch,
    request: LateRequest,
}

#[derive(Debug)]
enum LateRequest {
    End { commit: bool },
    Offsets(Membership, Vec<(TopicPartition, Offset, String)>),
}

/// The cluster.
#[derive(Debug, Default)]
pub(super) struct Model {
    topics: BTreeMap<Arc<str>, Vec<Log>>,
    /// Topics whose records go elsewhere, and where.
    diverted: BTreeMap<Arc<str>, Arc<str>>,
    coordinators: BTreeMap<TransactionalId, Coordinator>,
    pub(super) group: Group,
    pub(super) brokers: Brokers,
    late: Vec<Late>,
    /// Whether offsets are taken without a look at the transaction (`transaction.partition.verification.enable=false`).
    pub(super) lenient: bool,
    /// How many times offsets were written to the group's own partition.
    appended: u64,
    /// Each for the producers of a thread, or for whichever producer comes.
    faults: VecDeque<(Option<[TransactionalId; PRODUCERS]>, Fault)>,
    /// Clients that will hang the next time they lose their place in the group.
    pub(super) hanging: BTreeSet<String>,
    /// Clients that go through their next rebalance before they tell of it, and so many polls before.
    pub(super) overtaken: BTreeMap<String, u32>,
    /// After how many polls a question is answered, at most and at least.
    pub(super) answer_delay: usize,
    pub(super) answer_delay_min: usize,
    /// How many questions were asked.
    pub(super) questions: u64,
    /// What has come of it all; the group counts its generations itself.
    pub(super) happened: Happened,
    /// How often each worker has crashed.
    pub(super) crashes: BTreeMap<Arc<str>, u64>,
}

impl Model {
    /// After how many polls the next question is answered: each after another time, and the same ones in every run.
    pub(super) fn next_answer_delay(&mut self) -> usize {
        self.questions += 1;
        let spread = (self.answer_delay - self.answer_delay_min) as u64 + 1;
        self.answer_delay_min + SplitMix64::new(self.questions).below(spread) as usize
    }

    pub(super) fn create_topic(&mut self, topic: &str, partitions: i32) {
        let logs = (0..partitions).map(|_| Log::default()).collect();
        let before = self.topics.insert(Arc::from(topic), logs);
        assert!(before.is_none(), "topic {topic} is made once");
    }

    /// From now on, what producers write to a topic goes to another one, which is made.
    pub(super) fn divert(&mut self, topic: &str, into: &str) {
        self.create_topic(into, self.partitions(topic));
        self.diverted.insert(topic.into(), into.into());
    }

    /// The names of all topics.
    pub(super) fn topics(&self) -> Vec<&str> {
        self.topics.keys().map(|topic| &**topic).collect()
    }

    pub(super) fn partitions(&self, topic: &str) -> i32 {
        self.topics.get(topic).map_or(0, |logs| logs.len() as i32)
    }

    pub(super) fn log(&self, partition: &TopicPartition) -> Option<&Log> {
        self.topics.get(&partition.topic)?.get(usize::try_from(partition.partition.get()).ok()?)
    }

    pub(super) fn log_mut(&mut self, partition: &TopicPartition) -> Option<&mut Log> {
        self.topics.get_mut(&partition.topic)?.get_mut(usize::try_from(partition.partition.get()).ok()?)
    }

    pub(super) fn partitions_of(&self, topic: &str) -> Vec<TopicPartition> {
        let topic: Arc<str> = Arc::from(topic);
        (0..self.partitions(&topic)).map(|number| TopicPartition::new(topic.clone(), Partition::new(number))).collect()
    }

    pub(super) fn bounds(&self, partition: &TopicPartition) -> Option<LogBounds> {
        self.log(partition).map(|log| LogBounds { start: log.start(), end: log.high_watermark() })
    }

    pub(super) fn standing(&mut self, member: &str) -> Standing {
        let topics = &self.topics;
        self.group.standing(member, |topic| topics.get(topic).map_or(0, |logs| logs.len() as i32))
    }

    pub(super) fn script(&mut self, ids: Option<[TransactionalId; PRODUCERS]>, fault: Fault) {
        self.faults.push_back((ids, fault));
    }

    pub(super) fn scripted(&self) -> usize {
        self.faults.len()
    }

    /// Takes the fault that strikes this call, if there is one.
    pub(super) fn strike(&mut self, id: &TransactionalId, call: Call) -> Option<Fault> {
        let strikes = |(of, fault): &(Option<[TransactionalId; PRODUCERS]>, Fault)| {
            fault.strikes() == call && of.as_ref().is_none_or(|of| of.contains(id))
        };
        let at = self.faults.iter().position(strikes)?;
        let (_, fault) = self.faults.remove(at)?;
        *self.happened.struck.entry(fault.kind()).or_default() += 1;
        Some(fault)
    }

    /// What the group has committed for a partition; with `stable`, not while that may change.
    pub(super) fn committed(&self, partition: &TopicPartition, stable: bool) -> Committed {
        if stable && self.coordinators.values().any(|coordinator| coordinator.offsets.contains_key(partition)) {
            return Committed::Unstable;
        }
        match self.group.committed(partition) {
            Some((offset, metadata)) => Committed::At { offset: *offset, metadata: metadata.clone() },
            None => Committed::Nothing,
        }
    }

    /// `InitProducerId`: fences every older producer of the id and ends what it left open.
    pub(super) fn init(&mut self, id: &TransactionalId) -> Result<Epoch, Refusal> {
        if self.brokers.lost_coordinator(id).is_some() {
            return Err(Refusal::Away);
        }
        let number = ProducerNumber(1000 + self.coordinators.len() as i64);
        let coordinator = self.coordinators.entry(id.clone()).or_insert_with(|| Coordinator::new(number));
        match coordinator.state {
            TransactionState::Empty => {
                coordinator.epoch.0 += 1;
                Ok(coordinator.epoch)
            }
            TransactionState::Ongoing => {
                // The old producer is fenced at once, and the abort is the coordinator's own.
                coordinator.epoch.0 += 1;
                self.decide(id, false, false);
                self.init(id)
            }
            TransactionState::Ending { .. } if coordinator.markers_held => Err(Refusal::Concurrent),
            TransactionState::Ending { .. } => unreachable!("markers that are not held are written at once"),
        }
    }

    /// The epoch that an id has come to.
    pub(super) fn epoch(&self, id: &TransactionalId) -> i32 {
        self.coordinators[id].epoch.0
    }

    /// Appends a record of a transaction, and adds its partition to it.
    pub(super) fn produce(
        &mut self,
        id: &TransactionalId,
        epoch: Epoch,
        partition: &TopicPartition,
        written: Written,
    ) -> Result<i64, Refusal> {
        let elsewhere = self.diverted.get(&partition.topic);
        let elsewhere = elsewhere.map(|topic| TopicPartition::new(topic.clone(), partition.partition));
        let partition = elsewhere.as_ref().unwrap_or(partition);
        if self.log(partition).is_none() {
            return Err(Refusal::UnknownPartition);
        }
        if self.brokers.is_leaderless(partition) || self.brokers.lost_coordinator(id).is_some() {
            return Err(Refusal::Away);
        }
        let coordinator = self.ongoing(id, epoch)?;
        coordinator.partitions.insert(partition.clone());
        let producer = coordinator.producer;
        let log = self.log_mut(partition).expect("it was there a moment ago");
        Ok(log.append(written, Some(producer)))
    }

    /// Commits an offset outside of any transaction.
    pub(super) fn commit(&mut self, partition: TopicPartition, offset: Offset) {
        self.appended += 1;
        self.group.commit(partition, offset, String::new(), self.appended);
    }

    /// `TxnOffsetCommit`: the offsets count when the transaction commits.
    pub(super) fn add_offsets(
        &mut self,
        id: &TransactionalId,
        epoch: Epoch,
        membership: &Membership,
        offsets: Vec<(TopicPartition, Offset, String)>,
    ) -> Result<(), Refusal> {
        if self.brokers.is_group_away() || self.brokers.lost_coordinator(id).is_some() {
            return Err(Refusal::Away);
        }
        self.ongoing(id, epoch)?;
        self.group.check(membership).map_err(Refusal::Group)?;
        self.appended += 1;
        let appended = self.appended;
        self.ongoing(id, epoch)?.add(offsets, epoch, appended);
        Ok(())
    }

    /// `EndTxn`. A transaction to which nothing was added ends without the broker.
    pub(super) fn end(&mut self, id: &TransactionalId, epoch: Epoch, commit: bool, hold: bool) -> Result<(), Refusal> {
        if self.current(id, epoch)?.state == TransactionState::Empty {
            return Ok(());
        }
        match self.brokers.lost_coordinator(id) {
            None => {}
            Some(false) => return Err(Refusal::Away),
            // It is decided, and its markers wait for whoever is elected.
            Some(true) => return self.end_here(id, epoch, commit, true).and(Err(Refusal::Away)),
        }
        self.end_here(id, epoch, commit, hold)
    }

    fn end_here(&mut self, id: &TransactionalId, epoch: Epoch, commit: bool, hold: bool) -> Result<(), Refusal> {
        let coordinator = self.current(id, epoch)?;
        match coordinator.state {
            TransactionState::Empty => Ok(()),
            TransactionState::Ending { commit: decided } if decided == commit => Ok(()),
            TransactionState::Ending { .. } => Err(Refusal::InvalidState),
            TransactionState::Ongoing => {
                self.decide(id, commit, hold);
                Ok(())
            }
        }
    }

    /// Ends a transaction both ways: see [`Fault::CommitTorn`]. Not where a broker that would have to take part is away, nor
    /// where it is the first of a task: committed state without an offset is for a person to judge.
    pub(super) fn tear(&mut self, id: &TransactionalId, epoch: Epoch) -> Result<(), Refusal> {
        let Coordinator { producer, state, partitions, offsets, .. } = self.current(id, epoch)?;
        let is_ongoing = *state == TransactionState::Ongoing;
        let (producer, partitions, offsets) = (*producer, partitions.clone(), offsets.clone());
        let is_first = offsets.keys().any(|partition| self.group.committed(partition).is_none());
        let can_end = partitions.iter().map(Some).chain([None]).all(|partition| self.can_be_marked(id, partition));
        if !is_ongoing || is_first || !can_end {
            return Ok(());
        }
        let changelogs: Vec<_> =
            partitions.iter().filter(|partition| partition.topic.ends_with("-changelog")).collect();
        let committed = changelogs.get(epoch.0 as usize % changelogs.len().max(1)).copied();
        for partition in &partitions {
            let log = self.log_mut(partition).expect("only known partitions are added");
            log.mark(producer, Some(partition) == committed);
        }
        let coordinator = self.current(id, epoch)?;
        coordinator.partitions.clear();
        coordinator.offsets.clear();
        coordinator.state = TransactionState::Empty;
        Ok(())
    }

    /// Remembers a copy of an `EndTxn` that will arrive later.
    pub(super) fn leave_late_end(&mut self, id: &TransactionalId, epoch: Epoch, commit: bool) {
        self.late.push(Late { id: id.clone(), epoch, request: LateRequest::End { commit } });
    }

    /// Remembers a copy of a `TxnOffsetCommit` that will arrive later.
    pub(super) fn leave_late_offsets(
        &mut self,
        id: &TransactionalId,
        epoch: Epoch,
        membership: Membership,
        offsets: Vec<(TopicPartition, Offset, String)>,
    ) {
        self.late.push(Late { id: id.clone(), epoch, request: LateRequest::Offsets(membership, offsets) });
    }

    /// Lets late copies arrive; returns how many had an effect.
    pub(super) fn deliver_late(&mut self) -> usize {
        let late = std::mem::take(&mut self.late);
        self.happened.late += late.len() as u64;
        late.into_iter().filter(|late| self.take_late(late)).count()
    }

    fn take_late(&mut self, late: &Late) -> bool {
        let coordinator = self.coordinators.get_mut(&late.id).expect("an epoch comes from `init`");
        let ongoing = coordinator.epoch == late.epoch && coordinator.state == TransactionState::Ongoing;
        match &late.request {
            LateRequest::End { commit } if ongoing => {
                self.happened.late_ends_taken += 1;
                self.end_here(&late.id, late.epoch, *commit, false).expect("an ongoing transaction can end");
                true
            }
            LateRequest::Offsets(membership, offsets)
                if self.group.check(membership).is_ok()
                    && (ongoing || self.lenient && late.epoch >= coordinator.offsets_seen) =>
            {
                self.happened.late_offsets_taken += 1;
                self.appended += 1;
                coordinator.add(offsets.clone(), late.epoch, self.appended);
                true
            }
            LateRequest::End { .. } | LateRequest::Offsets(..) => false,
        }
    }

    /// Writes all markers that were held back.
    pub(super) fn release_markers(&mut self) {
        let held = self.coordinators.iter().filter(|(id, coordinator)| {
            let mut partitions = coordinator.partitions.iter();
            coordinator.markers_held
                && partitions.all(|partition| self.can_be_marked(id, Some(partition)))
                && self.can_be_marked(id, None)
        });
        for id in held.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.write_markers(&id);
        }
    }

    /// Writes one of the markers that are held back, of a partition or of the group's offsets: they come in any order.
    pub(super) fn release_marker(&mut self, nth: usize) {
        let held = self.coordinators.iter().filter(|(_, coordinator)| coordinator.markers_held);
        let mut markers: Vec<(TransactionalId, Option<TopicPartition>)> = Vec::new();
        for (id, coordinator) in held {
            markers.extend(coordinator.partitions.iter().map(|partition| (id.clone(), Some(partition.clone()))));
            markers.extend((!coordinator.offsets.is_empty()).then(|| (id.clone(), None)));
        }
        markers.retain(|(id, partition)| self.can_be_marked(id, partition.as_ref()));
        if markers.is_empty() {
            return;
        }
        let (id, partition) = markers.swap_remove(nth % markers.len());
        match partition {
            Some(partition) => self.write_marker(&id, &partition),
            None => self.write_offsets(&id),
        }
        let coordinator = &self.coordinators[&id];
        if coordinator.partitions.is_empty() && coordinator.offsets.is_empty() {
            self.write_markers(&id);
        }
    }

    /// The coordinator's own abort, when `transaction.timeout.ms` is over: it bumps the epoch, so the producer finds out.
    pub(super) fn time_out(&mut self, id: &TransactionalId) -> bool {
        let Some(coordinator) = self.coordinators.get_mut(id) else { return false };
        if coordinator.state != TransactionState::Ongoing {
            return false;
        }
        coordinator.epoch.0 += 1;
        self.decide(id, false, false);
        true
    }

    /// A person ends what hangs: offsets that a cluster which verifies nothing has taken outside of any transaction.
    pub(super) fn abort_hanging(&mut self, id: &TransactionalId) {
        let coordinator = self.coordinators.get_mut(id);
        if let Some(coordinator) = coordinator.filter(|coordinator| coordinator.state == TransactionState::Empty) {
            coordinator.offsets.clear();
        }
    }

    /// The ids whose transaction is open or not through.
    pub(super) fn open_transactions(&self) -> Vec<TransactionalId> {
        let open = self.coordinators.iter().filter(|(_, coordinator)| coordinator.state != TransactionState::Empty);
        open.map(|(id, _)| id.clone()).collect()
    }

    /// The partitions in which a transactional id has written since its last transaction was through.
    pub(super) fn partitions_written(&self, id: &TransactionalId) -> Vec<TopicPartition> {
        let coordinator = self.coordinators.get(id);
        coordinator.map(|coordinator| coordinator.partitions.iter().cloned().collect()).unwrap_or_default()
    }

    /// Decides a transaction. Its markers are written at once, unless they are to wait, or have to: for a leader, or for the
    /// group's coordinator.
    fn decide(&mut self, id: &TransactionalId, commit: bool, hold: bool) {
        let coordinator = self.coordinators.get_mut(id).expect("a transaction that is decided is known");
        coordinator.state = TransactionState::Ending { commit };
        let waits = coordinator.partitions.iter().any(|partition| self.brokers.is_leaderless(partition))
            || !coordinator.offsets.is_empty() && self.brokers.is_group_away();
        coordinator.markers_held = hold || waits;
        if !coordinator.markers_held {
            self.write_markers(id);
        }
    }

    /// Whether nothing keeps the coordinator from writing these markers.
    fn can_be_marked(&self, id: &TransactionalId, partition: Option<&TopicPartition>) -> bool {
        let is_away = match partition {
            Some(partition) => self.brokers.is_leaderless(partition),
            None => self.brokers.is_group_away(),
        };
        !is_away && self.brokers.lost_coordinator(id).is_none()
    }

    fn write_markers(&mut self, id: &TransactionalId) {
        for partition in self.coordinators[id].partitions.clone() {
            self.write_marker(id, &partition);
        }
        self.write_offsets(id);
        let coordinator = self.coordinators.get_mut(id).expect("markers are of a known transaction");
        coordinator.state = TransactionState::Empty;
        coordinator.markers_held = false;
    }

    fn write_marker(&mut self, id: &TransactionalId, partition: &TopicPartition) {
        let coordinator = self.coordinators.get_mut(id).expect("markers are of a known transaction");
        let (producer, commit) = (coordinator.producer, coordinator.decision());
        coordinator.partitions.remove(partition);
        self.log_mut(partition).expect("only known partitions are added").mark(producer, commit);
    }

    /// The marker in the group's own partition: the offsets count from here, or are gone.
    fn write_offsets(&mut self, id: &TransactionalId) {
        let coordinator = self.coordinators.get_mut(id).expect("markers are of a known transaction");
        let commit = coordinator.decision();
        let offsets = std::mem::take(&mut coordinator.offsets);
        if !offsets.is_empty() {
            coordinator.offsets_seen = coordinator.epoch;
        }
        for (partition, PendingOffset { offset, metadata, appended }) in offsets.into_iter().filter(|_| commit) {
            self.group.commit(partition, offset, metadata, appended);
        }
    }

    fn current(&mut self, id: &TransactionalId, epoch: Epoch) -> Result<&mut Coordinator, Refusal> {
        let coordinator = self.coordinators.get_mut(id).expect("an epoch comes from `init`");
        if coordinator.epoch == epoch { Ok(coordinator) } else { Err(Refusal::Fenced) }
    }

    fn ongoing(&mut self, id: &TransactionalId, epoch: Epoch) -> Result<&mut Coordinator, Refusal> {
        let coordinator = self.current(id, epoch)?;
        match coordinator.state {
            TransactionState::Empty => coordinator.state = TransactionState::Ongoing,
            TransactionState::Ongoing => {}
            TransactionState::Ending { .. } => return Err(Refusal::Concurrent),
        }
        Ok(coordinator)
    }
}

impl Coordinator {
    fn new(producer: ProducerNumber) -> Self {
        Self {
            producer,
            epoch: Epoch(-1),
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            offsets: BTreeMap::new(),
            offsets_seen: Epoch(-1),
            markers_held: false,
        }
    }

    /// Whether its transaction commits.
    fn decision(&self) -> bool {
        let TransactionState::Ending { commit } = self.state else { panic!("markers follow a decision") };
        commit
    }

    /// Offsets that count when the transaction commits.
    fn add(&mut self, offsets: Vec<(TopicPartition, Offset, String)>, epoch: Epoch, appended: u64) {
        let pending = |(partition, offset, metadata)| (partition, PendingOffset { offset, metadata, appended });
        self.offsets.extend(offsets.into_iter().map(pending));
        self.offsets_seen = epoch;
    }
}
