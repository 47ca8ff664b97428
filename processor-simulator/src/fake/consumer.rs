//! The group member of the fake: one thing happens in each poll.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{InputIndex, Offset, Partition, Timestamp, TopicPartition};
use processor_core::record::InputRecord;
use processor_runtime::kafka::{
    Answer, GroupConsumer, GroupEvent, GroupMetadata, KafkaError, KafkaErrorKind, Member, Membership, PolledRecord,
    Question, Ticket,
};

use super::cluster::Model;
use super::group::Standing;
use super::log::{Entry, Log, Outcome, Written};
use super::{Handle, kafka_error};

/// A record as it was polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeRecord {
    input: InputIndex,
    partition: Partition,
    offset: Offset,
    written: Written,
}

impl InputRecord for FakeRecord {
    fn key(&self) -> Option<&[u8]> {
        self.written.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.written.value.as_deref()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        Some(self.written.timestamp)
    }

    fn offset(&self) -> Offset {
        self.offset
    }

    fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self.written.headers {
            visit(name, value.as_deref());
        }
    }
}

impl PolledRecord for FakeRecord {
    fn input(&self) -> InputIndex {
        self.input
    }

    fn partition(&self) -> Partition {
        self.partition
    }
}

/// A place in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeMetadata(pub Membership);

impl GroupMetadata for FakeMetadata {
    fn membership(&self) -> Membership {
        self.0.clone()
    }
}

/// A member of the group.
///
/// In each poll one thing happens: it joins, or is told what it lost or owns, or gets records.
#[derive(Debug)]
pub struct FakeConsumer {
    handle: Handle,
    member: Member,
    inputs: Vec<Arc<str>>,
    member_id: Option<String>,
    /// It has lost its place, and never joins again.
    hangs: bool,
    /// The generation whose assignment was delivered and not taken back.
    owns: Option<i32>,
    fetching: BTreeMap<TopicPartition, i64>,
    /// Where the next poll begins, so that no partition starves.
    turn: usize,
    answers: VecDeque<Pending>,
    /// What was met inside a transaction: it opens the next poll.
    held_back: Option<GroupEvent>,
}

/// An answer under way.
#[derive(Debug)]
struct Pending {
    polls_left: usize,
    ticket: Ticket,
    answer: Result<Answer, KafkaError>,
}

impl FakeConsumer {
    pub(super) fn new(handle: Handle, member: Member, inputs: Vec<Arc<str>>) -> Self {
        Self {
            handle,
            member,
            inputs,
            member_id: None,
            hangs: false,
            owns: None,
            fetching: BTreeMap::new(),
            turn: 0,
            answers: VecDeque::new(),
            held_back: None,
        }
    }

    /// What the group has to say, if anything.
    fn follow_group(&mut self, model: &mut Model) -> Result<Followed, KafkaError> {
        if self.hangs {
            return Ok(Followed::Waits);
        }
        if model.brokers.is_group_away() {
            return Ok(if self.owns.is_some() { Followed::Reads } else { Followed::Waits });
        }
        let Some(id) = self.member_id.clone() else {
            self.member_id = Some(model.group.join(&self.member, &self.inputs));
            return Ok(Followed::Waits);
        };
        let standing = model.standing(&id);
        if self.owns.is_some() && model.overtaken.contains_key(&self.member.client_id) {
            match standing {
                Standing::MustRejoin => {
                    model.group.rejoin(&id);
                    return Ok(Followed::Reads);
                }
                Standing::Waiting => return Ok(Followed::Reads),
                Standing::Owns(generation, _) if self.owns != Some(generation) => {
                    let polls_left = model.overtaken.get_mut(&self.member.client_id).filter(|left| **left > 0);
                    if let Some(polls_left) = polls_left {
                        *polls_left -= 1;
                        return Ok(Followed::Reads);
                    }
                    model.overtaken.remove(&self.member.client_id);
                    return Ok(self.give_up(false));
                }
                Standing::Owns(..) | Standing::Unknown | Standing::Replaced => {}
            }
        }
        match standing {
            Standing::Replaced => Err(kafka_error(
                KafkaErrorKind::FencedInstance,
                format!("group.instance.id of {} is used by another member", self.member.client_id),
            )),
            Standing::Unknown => {
                self.member_id = None;
                self.hangs = model.hanging.remove(&self.member.client_id);
                Ok(self.give_up(true))
            }
            Standing::MustRejoin => {
                model.group.rejoin(&id);
                Ok(self.give_up(false))
            }
            Standing::Waiting => Ok(Followed::Waits),
            Standing::Owns(generation, _) if self.owns == Some(generation) => Ok(Followed::Reads),
            Standing::Owns(generation, partitions) => {
                assert!(self.owns.is_none(), "eager: what was owned is given up before anything is assigned");
                self.owns = Some(generation);
                model.group.tell(&id);
                let membership = Membership { generation, member_id: id };
                Ok(Followed::Told(GroupEvent::Assigned { partitions, membership }))
            }
        }
    }

    fn give_up(&mut self, lost: bool) -> Followed {
        self.fetching.clear();
        match self.owns.take() {
            Some(_) => Followed::Told(GroupEvent::Revoked { lost }),
            None => Followed::Waits,
        }
    }

    /// Collects records of the fetched partitions, a partition at a time.
    fn collect(&mut self, model: &Model, limits: (usize, usize), records: &mut Vec<FakeRecord>) -> Option<GroupEvent> {
        let partitions: Vec<_> = self.fetching.keys().cloned().collect();
        let count = partitions.len();
        let (mut records_left, mut bytes_left) = limits;
        self.turn = self.turn.wrapping_add(1);
        for place in 0..count {
            let partition = &partitions[(self.turn + place) % count];
            if model.brokers.is_leaderless(partition) {
                continue;
            }
            let log = model.log(partition).expect("only known partitions are fetched");
            let position = self.fetching.get_mut(partition).expect("it is being fetched");
            if *position < log.start() || *position > log.high_watermark() {
                if !records.is_empty() {
                    // An event comes before the records of its poll, and these happened before it.
                    return None;
                }
                self.fetching.remove(partition);
                return Some(GroupEvent::OutOfRange {
                    partition: partition.clone(),
                    reason: "OFFSET_OUT_OF_RANGE".to_owned(),
                });
            }
            let input = self.inputs.iter().position(|topic| *topic == partition.topic).expect("an input is fetched");
            let input = InputIndex::new(u16::try_from(input).expect("inputs are few"));
            for (offset, written) in committed_from(log, *position) {
                if records_left == 0 || bytes_left == 0 {
                    return None;
                }
                records_left -= 1;
                let bytes = written.key.as_ref().map_or(0, Vec::len) + written.value.as_ref().map_or(0, Vec::len);
                bytes_left = bytes_left.saturating_sub(bytes);
                let (partition, offset) = (partition.partition, Offset::new(offset));
                records.push(FakeRecord { input, partition, offset, written: written.clone() });
                *position = offset.get() + 1;
            }
        }
        None
    }
}

fn answer(model: &Model, question: &Question) -> Result<Answer, KafkaError> {
    let nobody = || kafka_error(KafkaErrorKind::Retry, "a broker is away".to_owned());
    match question {
        Question::Committed { .. } | Question::Members if model.brokers.is_group_away() => Err(nobody()),
        Question::Committed { partitions, stable } => {
            let committed = |partition: &TopicPartition| (partition.clone(), model.committed(partition, *stable));
            Ok(Answer::Committed(partitions.iter().map(committed).collect()))
        }
        Question::Bounds { partitions } => {
            let bounds = |partition: &TopicPartition| {
                let unknown = || kafka_error(KafkaErrorKind::Config, format!("there is no partition {partition}"));
                Ok((partition.clone(), model.bounds(partition).ok_or_else(unknown)?))
            };
            // Logs without a leader hold up no other.
            let led: Vec<_> = partitions.iter().filter(|partition| !model.brokers.is_leaderless(partition)).collect();
            if led.is_empty() && !partitions.is_empty() {
                return Err(nobody());
            }
            led.into_iter().map(bounds).collect::<Result<_, _>>().map(Answer::Bounds)
        }
        Question::Members => Ok(Answer::Members(model.group.client_ids())),
    }
}

/// What came of a look at the group.
enum Followed {
    /// Something changed.
    Told(GroupEvent),
    /// A rebalance is under way.
    Waits,
    /// It owns what it owned.
    Reads,
}

/// The records that a `read_committed` reader sees from an offset on.
pub(super) fn committed_from(log: &Log, offset: i64) -> impl Iterator<Item = (i64, &Written)> {
    let end = log.last_stable_offset();
    log.from(offset).take_while(move |(offset, _)| *offset < end).filter_map(|(offset, entry)| match entry {
        Entry::Record { written, outcome: Outcome::Plain | Outcome::Committed, .. } => Some((offset, written)),
        Entry::Record { outcome: Outcome::Open | Outcome::Aborted, .. } | Entry::Marker { .. } => None,
    })
}

impl GroupConsumer for FakeConsumer {
    type Record = FakeRecord;
    type GroupMetadata = FakeMetadata;

    fn poll(
        &mut self,
        _wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<FakeRecord>,
        events: &mut Vec<GroupEvent>,
    ) -> Result<(), KafkaError> {
        let shared = self.handle.alive()?;
        let mut model = shared.lock();
        for pending in &mut self.answers {
            pending.polls_left = pending.polls_left.saturating_sub(1);
        }
        match self.follow_group(&mut model)? {
            Followed::Told(event) => {
                self.held_back = None;
                events.push(event);
            }
            Followed::Waits => {}
            Followed::Reads if self.held_back.is_some() => events.extend(self.held_back.take()),
            Followed::Reads => events.extend(self.collect(&model, (records_max, bytes_max), records)),
        }
        Ok(())
    }

    fn poll_more(
        &mut self,
        _wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<FakeRecord>,
    ) -> bool {
        let Ok(shared) = self.handle.alive() else { return false };
        let mut model = shared.lock();
        let (Some(id), Some(generation)) = (&self.member_id, self.owns) else { return false };
        let has_moved = !matches!(model.standing(id), Standing::Owns(now, _) if now == generation);
        // Some hear of it at once, and say it with the next poll; the others read on as if nothing were.
        if self.held_back.is_some() || has_moved && self.turn.is_multiple_of(2) {
            return false;
        }
        self.held_back = self.collect(&model, (records_max, bytes_max), records);
        self.held_back.is_none()
    }

    fn fetch(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), KafkaError> {
        let shared = self.handle.alive()?;
        let model = shared.lock();
        for (partition, offset) in positions {
            assert!(offset.get() >= 0, "{partition} is fetched from an absolute offset, never from {offset}");
            assert!(model.log(partition).is_some(), "{partition} is fetched and does not exist");
        }
        self.held_back = None;
        self.fetching = positions.iter().map(|(partition, offset)| (partition.clone(), offset.get())).collect();
        Ok(())
    }

    fn ask(&mut self, ticket: Ticket, question: &Question) -> Result<(), KafkaError> {
        let shared = self.handle.alive()?;
        let mut model = shared.lock();
        let answer = answer(&model, question);
        self.answers.push_back(Pending { polls_left: model.next_answer_delay(), ticket, answer });
        Ok(())
    }

    fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        let (arrived, under_way) = self.answers.drain(..).partition(|pending: &Pending| pending.polls_left == 0);
        self.answers = under_way;
        let arrived: VecDeque<Pending> = arrived;
        answers.extend(arrived.into_iter().map(|pending| (pending.ticket, pending.answer)));
    }

    fn group_metadata(&self) -> Result<FakeMetadata, KafkaError> {
        let shared = self.handle.alive()?;
        let mut model = shared.lock();
        let member_id = self.member_id.clone().unwrap_or_default();
        let generation = match (self.owns, model.standing(&member_id)) {
            (Some(_), Standing::Owns(generation, _)) => generation,
            (owns, _) => owns.unwrap_or(-1),
        };
        Ok(FakeMetadata(Membership { generation, member_id }))
    }

    fn is_at_end(&self, partition: &TopicPartition, next: Offset) -> bool {
        let Ok(shared) = self.handle.alive() else { return false };
        let model = shared.lock();
        let polled = self.fetching.get(partition).map_or(next.get(), |&position| position.max(next.get()));
        // As at the client, which knows the high watermark: what an open transaction has written is still to come.
        let all = |log: &Log| {
            log.last_stable_offset() == log.high_watermark() && committed_from(log, polled).next().is_none()
        };
        model.log(partition).is_some_and(all)
    }

    fn leave(&mut self, _wait: Duration) -> Result<(), KafkaError> {
        let shared = self.handle.alive()?;
        if let Some(id) = self.member_id.take() {
            shared.lock().group.remove(&id);
        }
        self.owns = None;
        self.fetching.clear();
        Ok(())
    }
}
