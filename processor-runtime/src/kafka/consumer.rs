//! The group member: the group decides what is owned, [`fetch`](Consumer::fetch) what is read.
//!
//! On assign the callback answers with an empty assignment, which leaves the member steady with nothing to read; later
//! `fetch` replaces the assignment by exactly the partitions wanted, at absolute offsets. So librdkafka never looks up a
//! committed offset by itself, which would restart a partition at the reset policy when a rebalance comes in between.
//!
//! Records are taken in batches from the consumer's own queue. That is sound with a rebalance callback set
//! (`rdkafka.c:4089-4094`; without one librdkafka would answer every rebalance with "unassign all"), and with
//! end-of-partition messages off (the batch call mistakes their offset for a record's).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use processor_core::ids::{InputIndex, Offset, Partition, Timestamp, TopicPartition};
use processor_core::record::InputRecord;

use super::advice::with_advice;
use super::cluster::GroupProtocol;
use super::faults::{Notice, is_outdated, notice};
use super::ffi::{Client, Code, Fault, Message, MessageQueue, NativeGroup, PartitionList, Rebalance};
use super::questions::{MakeClient, Questions};
use super::requests::Api;
use super::transient::Transient;
use super::{
    Answer, GroupConsumer, GroupEvent, GroupMetadata, KafkaError, KafkaErrorKind, Membership, PolledRecord, Question,
    Ticket,
};
use crate::status::Unstable;

/// The most that one batch takes from librdkafka's queue.
const TAKE_MAX: usize = 256;
/// How often `leave` looks whether the coordinator has answered.
const LEAVE_POLL: Duration = Duration::from_millis(10);
/// So often in a row nothing of a goodbye may be on its way.
const LOOKS_BEFORE_GONE: u32 = 5;

/// A member of the application's group.
pub struct Consumer {
    /// Both queues come before the client, which they hold on to.
    queue: MessageQueue,
    questions: Questions,
    client: Arc<Client>,
    inputs: Vec<Arc<str>>,
    /// The input behind a topic handle's address. Handles of partitions that are fetched stay alive, so an address means
    /// one topic until the next `fetch`, which empties this.
    inputs_by_key: Vec<(usize, InputIndex)>,
    /// How the group shares out partitions.
    protocol: GroupProtocol,
    /// The membership of the group's last word.
    assigned_under: Option<Membership>,
    /// What is owned by the group's last word; `None` between a revoke and the next assign.
    owned: Option<Vec<TopicPartition>>,
    /// What is fetched, and from where.
    fetched: HashMap<TopicPartition, Offset>,
    /// Events met behind records: they open the next poll.
    held_back: VecDeque<GroupEvent>,
    /// What went wrong inside a transaction: the next poll says so.
    failed: Option<KafkaError>,
    transient: Transient,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("client", &self.client).field("owned", &self.owned).finish_non_exhaustive()
    }
}

/// A polled record.
#[derive(Debug)]
pub struct ConsumedRecord {
    message: Message,
    input: InputIndex,
}

impl InputRecord for ConsumedRecord {
    fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    fn value(&self) -> Option<&[u8]> {
        self.message.value()
    }

    fn timestamp(&self) -> Option<Timestamp> {
        self.message.timestamp().map(Timestamp::new)
    }

    fn offset(&self) -> Offset {
        Offset::new(self.message.offset())
    }

    fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        self.message.visit_headers(visit);
    }
}

impl PolledRecord for ConsumedRecord {
    fn input(&self) -> InputIndex {
        self.input
    }

    fn partition(&self) -> Partition {
        Partition::new(self.message.partition())
    }
}

/// Proof of membership: what the broker is shown, and the membership that it proves.
#[derive(Debug)]
pub struct GroupProof {
    native: NativeGroup,
    membership: Membership,
}

impl GroupProof {
    pub(super) fn native(&self) -> &NativeGroup {
        &self.native
    }
}

impl GroupMetadata for GroupProof {
    fn membership(&self) -> Membership {
        self.membership.clone()
    }
}

/// Whether a member is still the one that was assigned, where the broker raises its epoch without a word.
///
/// It does so when others come and go, and when it has heard what this member gave up. It does not while a revoke is not
/// answered, which only the thread that owns the client does; and a member that was thrown out, which begins again with an
/// epoch of its own, answers the loss of everything first. So a higher epoch of the same member goes with what it was assigned,
/// or with less of it that it knows of.
fn continues(assigned: &Membership, now: &Membership) -> bool {
    assigned.generation > 0 && now.generation >= assigned.generation && now.member_id == assigned.member_id
}

/// What one poll has collected so far.
struct Collected<'a> {
    records: &'a mut Vec<ConsumedRecord>,
    /// Records of earlier polls that were in the list already.
    before: usize,
    bytes: usize,
}

impl Consumer {
    /// Wraps a native consumer and subscribes it. `make_own` makes a client for questions that this one is not to ask.
    pub(super) fn new(
        client: Arc<Client>,
        group: &str,
        protocol: GroupProtocol,
        inputs: &[Arc<str>],
        make_own: MakeClient,
    ) -> Result<Self, KafkaError> {
        let set_up = |fault: Fault| KafkaError::from_fault(&format!("cannot join the group {group}"), &fault);
        client.poll_serves_everything().map_err(set_up)?;
        client.subscribe(inputs).map_err(set_up)?;
        Ok(Self {
            queue: MessageQueue::of(&client),
            questions: Questions::new(&client, group, make_own),
            client,
            inputs: inputs.to_vec(),
            inputs_by_key: Vec::new(),
            protocol,
            assigned_under: None,
            owned: None,
            fetched: HashMap::new(),
            held_back: VecDeque::new(),
            failed: None,
            transient: Transient::default(),
        })
    }

    /// The input of a record's topic.
    fn input_of(&mut self, message: &Message) -> InputIndex {
        let key = message.topic_key();
        if let Some((_, input)) = self.inputs_by_key.iter().find(|(known, _)| *known == key) {
            return *input;
        }
        let topic = message.topic().expect("a record has a topic");
        let index = self.inputs.iter().position(|input| **input == *topic).expect("only subscribed topics are fetched");
        let input = InputIndex::new(u16::try_from(index).expect("a topology has fewer than 2^16 inputs"));
        self.inputs_by_key.push((key, input));
        input
    }

    fn accept(&mut self, message: Message, collected: &mut Collected<'_>) -> Result<(), KafkaError> {
        if message.code() == Code::NONE {
            let input = self.input_of(&message);
            collected.bytes += message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
            collected.records.push(ConsumedRecord { message, input });
            return Ok(());
        }
        match notice(message.code()) {
            Notice::Transient => {
                self.transient.log(&self.client, &message);
                Ok(())
            }
            Notice::End => unreachable!("end-of-partition messages are off"),
            Notice::OutOfRange => {
                self.held_back.extend(self.out_of_range(&message));
                Ok(())
            }
            Notice::Stop(kind) => Err(self.ended(kind, &message)),
        }
    }

    /// The event for a message that says so, unless it is about an earlier `fetch`.
    fn out_of_range(&self, message: &Message) -> Option<GroupEvent> {
        let partition = TopicPartition::new(message.topic()?, Partition::new(message.partition()));
        let from = self.fetched.get(&partition)?;
        if is_outdated(message.offset(), from.get()) {
            tracing::debug!(client = ?self.client, %partition, "an answer to an earlier fetch is dropped");
            return None;
        }
        let reason = format!("{partition}@{}: {}", message.offset(), message.error_text());
        Some(GroupEvent::OutOfRange { partition, reason })
    }

    /// The error that ends this client. For a fatal one, librdkafka keeps the true code elsewhere.
    fn ended(&self, kind: KafkaErrorKind, message: &Message) -> KafkaError {
        if let Some(fatal) = self.client.fatal_error() {
            return fatal_consumer_error(&fatal);
        }
        let (text, code) = (message.error_text(), message.code());
        KafkaError { kind, message: with_advice(format!("{text} ({code})"), code) }
    }

    /// Collects what is there until an event, an error or a limit ends it.
    fn collect(
        &mut self,
        wait: Duration,
        records_max: usize,
        bytes_max: usize,
        collected: &mut Collected<'_>,
    ) -> Result<(), KafkaError> {
        if let Some(first) = self.queue.wait(wait) {
            self.accept(first, collected)?;
        }
        let mut batch = Vec::with_capacity(TAKE_MAX);
        while !self.has_event() {
            let taken = collected.records.len() - collected.before;
            let room = room(taken, collected.bytes, records_max, bytes_max);
            if room == 0 || self.queue.take(room, |message| batch.push(message)) == 0 {
                break;
            }
            for message in batch.drain(..) {
                self.accept(message, collected)?;
            }
        }
        Ok(())
    }

    fn has_event(&self) -> bool {
        !self.held_back.is_empty() || self.client.has_rebalances() || self.client.owes_answer()
    }

    /// Takes the group's decisions into the books and gives them out as events. True: an ownership ended.
    fn rebalance(&mut self, events: &mut Vec<GroupEvent>) -> bool {
        let mut ownership_ended = false;
        for rebalance in self.client.take_rebalances() {
            // Whatever is fetched was owned before; the callback has replaced librdkafka's assignment already.
            self.fetched.clear();
            events.push(match rebalance {
                Rebalance::Assigned { partitions, membership } => {
                    self.owned = Some(partitions.clone());
                    self.assigned_under = Some(membership.clone());
                    GroupEvent::Assigned { partitions, membership }
                }
                Rebalance::Revoked { lost } => {
                    ownership_ended = true;
                    self.owned = None;
                    self.assigned_under = None;
                    GroupEvent::Revoked { lost }
                }
            });
        }
        ownership_ended
    }

    /// The request that says goodbye.
    fn goodbye(&self) -> Api {
        match self.protocol {
            GroupProtocol::Classic => Api::LeaveGroup,
            GroupProtocol::Consumer => Api::ConsumerGroupHeartbeat,
        }
    }

    /// How many times a goodbye of this member was answered or given up.
    fn goodbyes(&self) -> u64 {
        self.client.callbacks().requests().times_over(self.goodbye())
    }

    /// Serves the group until the goodbye was answered or given up. Where the broker assigns, that is a heartbeat like others,
    /// and sent when the client has forgotten its epoch; so nothing may have come for a while.
    fn await_goodbye(&mut self, goodbyes_before: u64, deadline: Instant) -> Result<(), KafkaError> {
        let (mut records, mut events) = (Vec::new(), Vec::new());
        let (mut over, mut looks) = (goodbyes_before, 0);
        loop {
            let before = std::mem::replace(&mut over, self.goodbyes());
            let is_classic = self.protocol == GroupProtocol::Classic;
            let looks_gone = over != goodbyes_before && (is_classic || self.client.has_left());
            looks = if looks_gone && (looks == 0 || over == before) { looks + 1 } else { 0 };
            if looks >= if is_classic { 1 } else { LOOKS_BEFORE_GONE } {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message = "the group's coordinator did not answer: the partitions move when the session times out";
                return Err(KafkaError { kind: KafkaErrorKind::Retry, message: message.to_owned() });
            }
            self.poll(LEAVE_POLL, TAKE_MAX, usize::MAX, &mut records, &mut events)?;
            records.clear();
            events.clear();
        }
    }
}

fn fatal_consumer_error(fatal: &Fault) -> KafkaError {
    let kind = match notice(fatal.code) {
        Notice::Stop(kind) => kind,
        Notice::Transient | Notice::End | Notice::OutOfRange => KafkaErrorKind::Fatal,
    };
    KafkaError { kind, message: with_advice(format!("{} ({})", fatal.message, fatal.code), fatal.code) }
}

/// How many more records to take: the rest of the count, and no more than the bytes left would hold at the size of the
/// records so far. 0: enough.
fn room(taken: usize, bytes: usize, records_max: usize, bytes_max: usize) -> usize {
    if bytes >= bytes_max {
        return 0;
    }
    let by_bytes = bytes.checked_div(taken).map_or(1, |size| ((bytes_max - bytes) / size.max(1)).saturating_add(1));
    records_max.saturating_sub(taken).min(by_bytes).min(TAKE_MAX)
}

impl GroupConsumer for Consumer {
    type Record = ConsumedRecord;
    type GroupMetadata = GroupProof;

    fn poll(
        &mut self,
        wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<ConsumedRecord>,
        events: &mut Vec<GroupEvent>,
    ) -> Result<(), KafkaError> {
        self.questions.serve();
        self.client.defer_group(false); // also where a panic has left it
        self.client.answer_group();
        if self.client.has_rebalances() {
            self.held_back.clear();
        }
        // Events that were held back count as having happened now: there is nothing to wait for.
        let opening: Vec<GroupEvent> = self.held_back.drain(..).collect();
        let wait = if opening.is_empty() && !self.client.has_rebalances() { wait } else { Duration::ZERO };
        events.extend(opening);
        assert!(records_max > 0, "a poll without room for a record would wait for nothing");
        let before = records.len();
        let mut collected = Collected { records, before, bytes: 0 };
        let result = match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.collect(wait, records_max, bytes_max, &mut collected),
        };
        let had_records = collected.records.len() > before;
        if self.client.has_rebalances() {
            // What was met before the rebalance is about an ownership that ended or had not begun.
            self.held_back.clear();
            if self.rebalance(events) {
                records.truncate(before);
            }
        } else if !had_records {
            events.extend(self.held_back.drain(..));
        }
        // librdkafka says it once, in a message that can be lost between a rebalance and the record behind it
        // (`rdkafka_queue.c:803-813`).
        match self.client.fatal_error() {
            Some(fatal) if result.is_ok() => Err(fatal_consumer_error(&fatal)),
            Some(_) | None => result,
        }
    }

    fn poll_more(
        &mut self,
        wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<ConsumedRecord>,
    ) -> bool {
        if self.has_event() || self.failed.is_some() {
            return false;
        }
        let before = records.len();
        let mut collected = Collected { records, before, bytes: 0 };
        self.client.defer_group(true);
        let result = self.collect(wait, records_max, bytes_max, &mut collected);
        self.client.defer_group(false);
        self.failed = result.err();
        !self.has_event() && self.failed.is_none()
    }

    fn fetch(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), KafkaError> {
        let owned = self.owned.as_deref().unwrap_or_default();
        for (partition, offset) in positions {
            assert!(owned.contains(partition), "only owned partitions are fetched, and {partition} is not");
            assert!(offset.get() >= 0, "{partition} is fetched from an absolute offset, never from {offset}");
        }
        if self.client.owes_answer() {
            return Ok(()); // it would be taken for the answer; what that leaves is fetched anew
        }
        self.held_back.clear();
        self.inputs_by_key.clear();
        if positions.is_empty() && self.fetched.is_empty() {
            return Ok(()); // nor is an answer given to a rebalance that was not served yet
        }
        self.fetched = positions.iter().cloned().collect();
        let offsets = positions.iter().map(|(partition, offset)| (partition, offset.get()));
        let fetching = match self.protocol {
            GroupProtocol::Classic => self.client.assign_exactly(&PartitionList::of(offsets)),
            GroupProtocol::Consumer => {
                let positions: Vec<_> = offsets.map(|(partition, offset)| (partition.clone(), offset)).collect();
                self.client.fetch_exactly(owned, &positions)
            }
        };
        fetching.map_err(|fault| KafkaError::from_fault("cannot fetch the inputs", &fault))
    }

    fn ask(&mut self, ticket: Ticket, question: &Question) -> Result<(), KafkaError> {
        self.questions.ask(ticket, question);
        Ok(())
    }

    fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        self.questions.answers(answers);
    }

    fn group_metadata(&self) -> Result<GroupProof, KafkaError> {
        let unknown = |fault: Fault| KafkaError::from_fault("cannot read the group's membership", &fault);
        let native = self.client.group().map_err(unknown)?;
        let now = native.membership();
        let membership = match (&self.protocol, &self.assigned_under) {
            (GroupProtocol::Consumer, Some(assigned)) if continues(assigned, now) => assigned.clone(),
            (GroupProtocol::Classic | GroupProtocol::Consumer, _) => now.clone(),
        };
        Ok(GroupProof { native, membership })
    }

    fn known_end(&self, partition: &TopicPartition) -> Option<Offset> {
        self.client.known_end(partition).map(Offset::new)
    }

    fn is_at_end(&self, partition: &TopicPartition, next: Offset) -> bool {
        let polled = self.client.polled_to(partition).map_or(next, |polled| next.max(Offset::new(polled)));
        self.known_end(partition).is_some_and(|end| end <= polled)
    }

    fn unstable(&self, partition: &TopicPartition) -> Option<Unstable> {
        self.client.callbacks().stable_ends().unstable(partition, Instant::now())
    }

    fn leave(&mut self, wait: Duration) -> Result<(), KafkaError> {
        let started = Instant::now();
        let is_known = self.client.group().is_ok_and(|group| !group.membership().member_id.is_empty());
        let goodbyes_before = self.goodbyes();
        let leaving = |fault: Fault| KafkaError::from_fault("cannot leave the group", &fault);
        self.client.unsubscribe().map_err(leaving)?;
        if is_known { self.await_goodbye(goodbyes_before, started + wait) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Membership, continues, room};

    #[test]
    fn a_higher_epoch_of_the_same_member_goes_with_what_it_was_assigned() {
        let of = |generation, id: &str| Membership { generation, member_id: id.to_owned() };
        assert!(continues(&of(3, "m"), &of(3, "m")));
        assert!(continues(&of(3, "m"), &of(7, "m")));
        for (assigned, now) in [
            (of(3, "m"), of(2, "m")),
            (of(3, "m"), of(0, "m")),  // thrown out
            (of(3, "m"), of(-1, "m")), // as above
            (of(3, "m"), of(4, "n")),
            (of(0, "m"), of(1, "m")), // never assigned
        ] {
            assert!(!continues(&assigned, &now), "{assigned:?} {now:?}");
        }
    }

    #[test]
    fn the_first_batch_is_small_where_nothing_is_known_of_the_records_size() {
        assert_eq!(room(0, 0, 1_000, 1 << 20), 1);
    }

    #[test]
    fn small_records_are_taken_by_the_batch() {
        assert_eq!(room(1, 8, 1_000, 1 << 20), super::TAKE_MAX);
    }

    #[test]
    fn large_records_stop_near_the_limit() {
        assert_eq!(room(10, 10_000_000, 1_000, 16_000_000), 7);
        assert_eq!(room(16, 16_000_000, 1_000, 16_000_000), 0);
    }

    #[test]
    fn the_count_is_never_exceeded() {
        assert_eq!(room(990, 7_920, 1_000, 1 << 20), 10);
        assert_eq!(room(1_000, 8_000, 1_000, 1 << 20), 0);
    }

    #[test]
    fn records_without_bytes_are_bounded_by_count() {
        assert_eq!(room(5, 0, 1_000, 1 << 20), super::TAKE_MAX);
    }
}
