//! Questions to the cluster, asked and answered without waiting.
//!
//! Leaders answer where logs begin and end: over the group member's connections, until these fail for longer than a leader
//! takes to move. The coordinator answers what is committed and who is in the group: over those of a client of their own
//! from the start, since a question that was given up can break its client ([`COORDINATOR_WAIT`]). That client is made anew
//! whenever questions fail for too long, and leaders are asked by it, too, from then on. librdkafka's admin requests can be
//! stuck for as long as their client lives: they go on asking a coordinator that has moved (only the transaction manager
//! drops it from the cache that both use, `rdkafka_txnmgr.c:1565`, and each look-up renews it, `rdkafka_coord.c:82`), a
//! leader of an outdated epoch (`rdkafka_admin.c:4240`), or a broker that was decommissioned.
//!
//! [`COORDINATOR_WAIT`]: super::ffi
//!
//! The committed offsets come from `OffsetFetch` with `require_stable` where that is asked for. librdkafka does not
//! repeat such a request by itself here: a partition whose offset is held by an open transaction comes back with
//! `UNSTABLE_OFFSET_COMMIT` of its own (`rdkafka_admin.c:7114-7116` passes `allow_retry` = false); it is answered with
//! [`Committed::Unstable`].

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use processor_core::ids::{Offset, TopicPartition};
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::ffi::{Client, Code, Event, EventQueue, Fault, PartitionEntry, PartitionList, Spec};
use super::patience::Patience;
use super::{Answer, Committed, KafkaError, KafkaErrorKind, LogBounds, Question, Ticket};

/// How long leaders may take over one question at librdkafka.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Questions that have failed for so long are asked by another client, at first and at the most. An election is over sooner
/// than the first; with the second a long outage costs a new client a quarter of a minute.
const STUCK_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];
/// A question without an answer has failed when it is this many times as old.
const NO_ANSWER_AFTER: u32 = 2;

/// A leader that says this has been elected since, and the client that asked does not learn it.
const OUTDATED: Code = Code::of(E::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH);

type LogEnds = Found<(TopicPartition, i64)>;

/// Makes a client that can ask: a consumer, since librdkafka looks for the group's handle in it, that never joins.
pub(super) type MakeClient = Box<dyn Fn() -> Result<Arc<Client>, KafkaError> + Send>;

/// A question that is not answered yet.
#[derive(Debug)]
struct Asked {
    at: Instant,
    ticket: Ticket,
    open: Open,
    /// By the client of our own.
    by_own: bool,
}

#[derive(Debug)]
enum Open {
    Committed,
    /// Two requests: the first answer is kept here.
    Bounds {
        start: Option<LogEnds>,
        end: Option<LogEnds>,
    },
    Members,
}

/// The open questions of one group member.
pub(super) struct Questions {
    /// Of the group member.
    members: EventQueue,
    /// Of a client of our own, once there is one.
    own: Option<EventQueue>,
    make_own: MakeClient,
    /// Whether that one asks leaders, too.
    own_asks_leaders: bool,
    patience: Patience,
    group: String,
    open: HashMap<usize, Asked>,
    /// Answers that need nobody: to questions about no partition, and where nobody can be asked.
    ready: Vec<(Ticket, Result<Answer, KafkaError>)>,
    last_number: usize,
    /// When the first question was asked that failed, of those that leaders answer and of those that the coordinator does,
    /// if none of the same kind has been answered in full since: the one can be stuck while the other works.
    failing_since: FailingSince,
}

#[derive(Debug, Default)]
struct FailingSince {
    leaders: Option<Instant>,
    coordinator: Option<Instant>,
    /// A leader has said that it will never answer this client.
    outdated: bool,
}

impl FailingSince {
    fn of(&mut self, open: &Open) -> &mut Option<Instant> {
        match open {
            Open::Bounds { .. } => &mut self.leaders,
            Open::Committed | Open::Members => &mut self.coordinator,
        }
    }

    fn are_leaders_stuck(&self, after: Duration) -> bool {
        self.outdated || self.leaders.is_some_and(|since| since.elapsed() >= after)
    }

    fn is_stuck(&self, after: Duration) -> bool {
        self.are_leaders_stuck(after) || self.coordinator.is_some_and(|since| since.elapsed() >= after)
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("members", &self.members).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Questions {
    /// Asks leaders over the connections of `client`, and everything else by one that `make_own` makes.
    pub(super) fn new(client: &Arc<Client>, group: &str, make_own: MakeClient) -> Self {
        Self {
            members: EventQueue::new(client),
            own: None,
            make_own,
            own_asks_leaders: false,
            patience: Patience::new(STUCK_AFTER[0], STUCK_AFTER[1]),
            group: group.to_owned(),
            open: HashMap::new(),
            ready: Vec::new(),
            last_number: 0,
            failing_since: FailingSince::default(),
        }
    }

    /// Asks. The number that goes along is even for the first request of a question and odd for the second.
    pub(super) fn ask(&mut self, ticket: Ticket, question: &Question) {
        self.last_number += 2;
        let number = self.last_number;
        let by_own = self.own_asks_leaders || !matches!(question, Question::Bounds { .. });
        if by_own && self.own.is_none() {
            match (self.make_own)() {
                Ok(client) => self.own = Some(EventQueue::new(&client)),
                Err(error) => return self.ready.push((ticket, Err(error))),
            }
        }
        let queue = self.own.as_ref().filter(|_| by_own).unwrap_or(&self.members);
        let open = match question {
            Question::Committed { partitions, .. } if partitions.is_empty() => {
                return self.ready.push((ticket, Ok(Answer::Committed(Vec::new()))));
            }
            Question::Bounds { partitions } if partitions.is_empty() => {
                return self.ready.push((ticket, Ok(Answer::Bounds(Vec::new()))));
            }
            Question::Committed { partitions, stable } => {
                let list = PartitionList::of(partitions.iter().map(|partition| (partition, 0)));
                queue.ask_committed(&self.group, &list, *stable, number);
                Open::Committed
            }
            Question::Bounds { partitions } => {
                queue.ask_log_offsets(partitions.iter(), Spec::Start, ANSWER_WAIT_MAX, number);
                queue.ask_log_offsets(partitions.iter(), Spec::End, ANSWER_WAIT_MAX, number + 1);
                Open::Bounds { start: None, end: None }
            }
            Question::Members => {
                queue.ask_members(&self.group, number);
                Open::Members
            }
        };
        self.open.insert(number, Asked { at: Instant::now(), ticket, open, by_own });
    }

    /// Takes what has been answered.
    pub(super) fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        answers.append(&mut self.ready);
        while let Some(event) = self.next_event() {
            answers.extend(self.take(&event));
        }
        self.give_up_late_ones(answers);
        if self.failing_since.is_stuck(self.patience.now()) {
            self.ask_elsewhere(answers);
        }
    }

    fn next_event(&self) -> Option<Event> {
        let own = self.own.as_ref().and_then(|own| own.poll(Duration::ZERO));
        own.or_else(|| self.members.poll(Duration::ZERO))
    }

    /// What was not answered in time. Its answer may still come, and nobody waits for it.
    fn give_up_late_ones(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        let wait = self.patience.now() * NO_ANSWER_AFTER;
        let is_late = |asked: &Asked| asked.at.elapsed() >= wait;
        for (_, Asked { at, ticket, open, .. }) in self.open.extract_if(|_, asked| is_late(asked)) {
            self.failing_since.of(&open).get_or_insert(at);
            answers.push((ticket, Err(again(format!("no answer within {wait:?}")))));
        }
    }

    /// Another client asks from now on. What is open and was to be answered by the one before is to be asked again.
    fn ask_elsewhere(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        let client = match (self.make_own)() {
            Ok(client) => client,
            Err(error) => return tracing::warn!("no other client can be made to ask with: {error}"),
        };
        let after = self.patience.now();
        self.own_asks_leaders |= self.failing_since.are_leaders_stuck(after);
        tracing::info!(?client, "questions to the cluster have failed for {after:?}: another client asks");
        self.patience.was_too_short();
        self.failing_since = FailingSince::default();
        self.own = Some(EventQueue::new(&client));
        let own_asks_leaders = self.own_asks_leaders;
        let is_lost = |asked: &Asked| asked.by_own || own_asks_leaders && matches!(asked.open, Open::Bounds { .. });
        for (_, asked) in self.open.extract_if(|_, asked| is_lost(asked)) {
            answers.push((asked.ticket, Err(again("another client asks".to_owned()))));
        }
    }

    /// Takes one event; `None` where more is to come, or the other half of the question has failed already.
    fn take(&mut self, event: &Event) -> Option<(Ticket, Result<Answer, KafkaError>)> {
        let number = event.ticket() & !1;
        let is_second = event.ticket() & 1 == 1;
        let Asked { at, ticket, open, by_own } = self.open.remove(&number)?;
        if matches!(open, Open::Bounds { .. }) {
            let ends = event.log_offsets();
            self.failing_since.outdated |= ends.is_ok_and(|ends| ends.iter().any(|end| end.code == OUTDATED));
        }
        let failing_since = self.failing_since.of(&open);
        let answer = match open {
            Open::Committed => {
                let entries = event.committed().map_err(about_offsets);
                entries.and_then(committed).and_then(|found| found.told(at, failing_since, Answer::Committed))
            }
            Open::Members => members(event).inspect(|_| *failing_since = None),
            Open::Bounds { mut start, mut end } => {
                let half = event.log_offsets().map_err(about_logs).and_then(log_ends);
                match half.map(|half| *(if is_second { &mut end } else { &mut start }) = Some(half)) {
                    Err(error) => Err(error),
                    Ok(()) => match (start, end) {
                        (Some(start), Some(end)) => bounds(start, end).told(at, failing_since, Answer::Bounds),
                        (start, end) => {
                            self.open.insert(number, Asked { at, ticket, open: Open::Bounds { start, end }, by_own });
                            return None;
                        }
                    },
                }
            }
        };
        match &answer {
            Ok(_) => self.patience.was_enough(),
            Err(_) => drop(failing_since.get_or_insert(at)),
        }
        Some((ticket, answer))
    }
}

/// What was answered for each partition, and the first failure that passes by itself.
#[derive(Debug)]
struct Found<T> {
    answers: Vec<T>,
    failure: Option<KafkaError>,
}

impl<T> Found<T> {
    /// Sorts the answers of partitions.
    ///
    /// # Errors
    /// One failed in a way that does not pass.
    fn of(answers: impl Iterator<Item = Result<T, KafkaError>>) -> Result<Self, KafkaError> {
        let mut found = Self { answers: Vec::new(), failure: None };
        for answer in answers {
            match answer {
                Ok(answer) => found.answers.push(answer),
                Err(error) if error.kind == KafkaErrorKind::Retry => drop(found.failure.get_or_insert(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// An answer for the partitions that have one. Where none has, the answer is why.
    fn told(
        self,
        asked_at: Instant,
        failing_since: &mut Option<Instant>,
        answer: impl FnOnce(Vec<T>) -> Answer,
    ) -> Result<Answer, KafkaError> {
        match self.failure {
            None => *failing_since = None,
            Some(failure) if self.answers.is_empty() => return Err(failure),
            Some(failure) => {
                failing_since.get_or_insert(asked_at);
                tracing::debug!("{failure}");
            }
        }
        Ok(answer(self.answers))
    }
}

fn again(message: String) -> KafkaError {
    KafkaError { kind: KafkaErrorKind::Retry, message }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn about_offsets(fault: Fault) -> KafkaError {
    KafkaError::from_fault("cannot read the group's committed offsets", &fault)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn about_logs(fault: Fault) -> KafkaError {
    KafkaError::from_fault("cannot read where the logs begin and end", &fault)
}

fn about_partition(what: &str, partition: &TopicPartition, code: Code) -> KafkaError {
    KafkaError::from_fault(&format!("{what} {partition}"), &Fault::bare(code, code.text()))
}

fn committed(entries: Vec<PartitionEntry>) -> Result<Found<(TopicPartition, Committed)>, KafkaError> {
    Found::of(entries.into_iter().map(|entry| Ok((entry.partition.clone(), committed_entry(entry)?))))
}

/// One partition's committed offset; what is negative stands for "none" (-1 on the wire, -1001 at librdkafka).
pub(super) fn committed_entry(entry: PartitionEntry) -> Result<Committed, KafkaError> {
    if entry.code == Code::of(E::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT) {
        return Ok(Committed::Unstable);
    }
    if entry.code != Code::NONE {
        return Err(about_partition("cannot read the committed offset of", &entry.partition, entry.code));
    }
    if entry.offset < 0 {
        return Ok(Committed::Nothing);
    }
    Ok(Committed::At { offset: Offset::new(entry.offset), metadata: entry.metadata })
}

/// One end of each log.
fn log_ends(entries: Vec<PartitionEntry>) -> Result<Found<(TopicPartition, i64)>, KafkaError> {
    Found::of(entries.into_iter().map(|entry| {
        if entry.code != Code::NONE {
            return Err(about_partition("cannot read the ends of the log of", &entry.partition, entry.code));
        }
        if entry.offset < 0 {
            let message = format!("the cluster does not say where the log of {} ends", entry.partition);
            return Err(KafkaError { kind: KafkaErrorKind::Retry, message });
        }
        Ok((entry.partition, entry.offset))
    }))
}

/// Joins the two halves; a partition that one of them lacks is left out.
fn bounds(starts: LogEnds, ends: LogEnds) -> Found<(TopicPartition, LogBounds)> {
    let ends_of: HashMap<TopicPartition, i64> = ends.answers.into_iter().collect();
    let joined = starts.answers.into_iter().filter_map(|(partition, start)| {
        let end = *ends_of.get(&partition)?;
        Some((partition, LogBounds { start, end }))
    });
    Found { answers: joined.collect(), failure: starts.failure.or(ends.failure) }
}

/// The client ids of the group; a group that the cluster does not know has none.
fn members(event: &Event) -> Result<Answer, KafkaError> {
    match event.members() {
        Ok(members) => Ok(Answer::Members(members)),
        Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND) => {
            Ok(Answer::Members(Vec::new()))
        }
        Err(fault) => Err(KafkaError::from_fault("cannot read the group's members", &fault)),
    }
}

#[cfg(test)]
mod tests {
    use processor_core::ids::Partition;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("in", Partition::new(number))
    }

    fn entry(number: i32, offset: i64, code: Code) -> PartitionEntry {
        PartitionEntry { partition: partition(number), offset, metadata: "m".to_owned(), code }
    }

    #[test]
    fn each_partition_has_its_own_verdict() {
        let unstable = Code::of(E::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT);
        let moved = Code::of(E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR);
        let entries = vec![
            entry(0, 7, Code::NONE),
            entry(1, -1001, Code::NONE),
            entry(2, -1001, unstable),
            entry(3, -1001, moved),
        ];
        let found = committed(entries).expect("no partition failed for good");
        assert_eq!(
            found.answers[0],
            (partition(0), Committed::At { offset: Offset::new(7), metadata: "m".to_owned() })
        );
        assert_eq!(found.answers[1], (partition(1), Committed::Nothing));
        assert_eq!(found.answers[2], (partition(2), Committed::Unstable));
        assert_eq!(found.answers.len(), 3, "the partition that failed is asked for again");
        let failure = found.failure.expect("one failed");
        assert!(failure.kind == KafkaErrorKind::Retry && failure.message.contains("in-3"), "{failure}");
    }

    #[test]
    fn a_partition_that_fails_for_good_fails_the_answer() {
        let refused = Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        let error = committed(vec![entry(0, 7, Code::NONE), entry(1, -1001, refused)]).expect_err("a right is missing");
        assert_eq!(error.kind, KafkaErrorKind::Config);
        assert!(error.message.contains("in-1"), "{error}");
    }

    /// Offsets are asked for over and over while an open transaction holds one; that they are answered says nothing about
    /// the questions that go to leaders.
    #[test]
    fn what_the_coordinator_answers_does_not_hide_that_leaders_do_not() {
        let fenced = Code::of(E::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH);
        let unstable = Code::of(E::RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT);
        let long_ago = Instant::now().checked_sub(STUCK_AFTER[0]).expect("the machine is up for longer");
        let mut failing_since = FailingSince::default();
        let leaders = failing_since.of(&Open::Bounds { start: None, end: None });
        let ends = log_ends(vec![entry(0, -1, fenced)]).expect("it may pass");
        ends.told(long_ago, leaders, |_| Answer::Bounds(Vec::new())).expect_err("nothing was answered");
        leaders.get_or_insert(long_ago);
        let coordinator = failing_since.of(&Open::Committed);
        let offsets = committed(vec![entry(1, -1001, unstable)]).expect("it is answered");
        offsets.told(Instant::now(), coordinator, Answer::Committed).expect("it is answered");
        assert!(failing_since.is_stuck(STUCK_AFTER[0]));
        *failing_since.of(&Open::Bounds { start: None, end: None }) = None;
        assert!(!failing_since.is_stuck(STUCK_AFTER[0]));
    }

    #[test]
    fn a_log_without_a_leader_holds_up_no_other() {
        let leaderless = Code::of(E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        let starts = log_ends(vec![entry(0, 3, Code::NONE), entry(1, -1, leaderless)]).expect("it passes");
        let ends = log_ends(vec![entry(0, 9, Code::NONE), entry(1, 5, Code::NONE)]).expect("nothing failed");
        let joined = bounds(starts, ends);
        assert_eq!(joined.answers, [(partition(0), LogBounds { start: 3, end: 9 })]);
        assert!(joined.failure.is_some_and(|failure| failure.message.contains("in-1")));
    }
}
