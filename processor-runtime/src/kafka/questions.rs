//! Questions to the cluster, asked and answered without waiting.
//!
//! Leaders answer where logs begin and end: over the group member's connections, until these fail for longer than a leader
//! takes to move. The coordinator answers what is committed and who is in the group: over those of a client of its own
//! from the start, since a question that nobody answered can break its client (`ffi/admin.rs`, `COORDINATOR_WAIT`). Whenever
//! questions of a kind fail for too long, another client is made for that kind, and the one before is dropped with all
//! that it still waits for. librdkafka's admin requests can be stuck for as long as their client lives: they go on asking a
//! coordinator that has moved (only the transaction manager drops it from the cache that both use,
//! `rdkafka_txnmgr.c:1565`, and each look-up renews it, `rdkafka_coord.c:82`), a leader of an outdated epoch
//! (`rdkafka_admin.c:4240`), or a broker that was decommissioned.
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

/// Questions that have failed for so long are asked by another client, at first and at the most. An election is over sooner
/// than the first; with the second a long outage costs a client every eight seconds, since one without an answer counts as
/// failed when it is twice as old.
const STUCK_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

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

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leaders,
    Coordinator,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Leaders, Self::Coordinator];

    fn of(open: &Open) -> Self {
        match open {
            Open::Bounds { .. } => Self::Leaders,
            Open::Committed | Open::Members => Self::Coordinator,
        }
    }
}

/// How one kind of questions fares: the one can be stuck while the other works.
struct Line {
    /// Where they are asked; `None` before the first, and where no client could be made.
    queue: Option<EventQueue>,
    patience: Patience,
    /// When the first question was asked that failed, if none has been answered in full since.
    failing_since: Option<Instant>,
    /// A leader has said that it will never answer this client.
    outdated: bool,
    made_at: Option<Instant>,
}

impl Line {
    fn new(queue: Option<EventQueue>) -> Self {
        let patience = Patience::new(STUCK_AFTER[0], STUCK_AFTER[1]);
        Self { queue, patience, failing_since: None, outdated: false, made_at: None }
    }

    fn is_stuck(&self) -> bool {
        let is_new = self.made_at.is_some_and(|made_at| made_at.elapsed() < STUCK_AFTER[0]);
        self.outdated && !is_new || self.failing_since.is_some_and(|since| since.elapsed() >= self.patience.now())
    }

    /// A question without an answer has failed when it is as old as this.
    fn wait_max(&self) -> Duration {
        self.patience.now() * 2
    }
}

/// The open questions of one group member.
pub(super) struct Questions {
    leaders: Line,
    coordinator: Line,
    make_client: MakeClient,
    group: String,
    open: HashMap<usize, Asked>,
    ready: Vec<(Ticket, Result<Answer, KafkaError>)>,
    last_number: usize,
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("group", &self.group).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Questions {
    /// Asks leaders over the connections of `client`, and everything else by one that `make_client` makes.
    pub(super) fn new(client: &Arc<Client>, group: &str, make_client: MakeClient) -> Self {
        Self {
            leaders: Line::new(Some(EventQueue::new(client))),
            coordinator: Line::new(None),
            make_client,
            group: group.to_owned(),
            open: HashMap::new(),
            ready: Vec::new(),
            last_number: 0,
        }
    }

    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Leaders => &mut self.leaders,
            Kind::Coordinator => &mut self.coordinator,
        }
    }

    /// Asks. The number that goes along is even for the first request of a question and odd for the second.
    pub(super) fn ask(&mut self, ticket: Ticket, question: &Question) {
        let (open, kind) = match question {
            Question::Committed { partitions, .. } if partitions.is_empty() => {
                return self.ready.push((ticket, Ok(Answer::Committed(Vec::new()))));
            }
            Question::Bounds { partitions } if partitions.is_empty() => {
                return self.ready.push((ticket, Ok(Answer::Bounds(Vec::new()))));
            }
            Question::Committed { .. } => (Open::Committed, Kind::Coordinator),
            Question::Members => (Open::Members, Kind::Coordinator),
            Question::Bounds { .. } => (Open::Bounds { start: None, end: None }, Kind::Leaders),
        };
        if self.line(kind).queue.is_none()
            && let Err(error) = self.make(kind)
        {
            return self.ready.push((ticket, Err(error)));
        }
        self.last_number += 2;
        let (number, group) = (self.last_number, self.group.clone());
        let Line { queue, patience, .. } = self.line(kind);
        let queue = queue.as_ref().expect("it was made if it was not there");
        match question {
            Question::Committed { partitions, stable } => {
                let list = PartitionList::of(partitions.iter().map(|partition| (partition, 0)));
                queue.ask_committed(&group, &list, *stable, number);
            }
            Question::Members => queue.ask_members(&group, number),
            Question::Bounds { partitions } => {
                // A leader that does not answer in time holds up no other: each has this long, and all are waited for.
                let wait = patience.now();
                queue.ask_log_offsets(partitions.iter(), Spec::Start, wait, number);
                queue.ask_log_offsets(partitions.iter(), Spec::End, wait, number + 1);
            }
        }
        self.open.insert(number, Asked { at: Instant::now(), ticket, open });
    }

    /// Takes what has been answered.
    pub(super) fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        self.serve();
        answers.append(&mut self.ready);
    }

    /// Collects answers, gives up what has none, and replaces clients that are of no use. To be called all the time, also
    /// where nobody waits for an answer any more: a question to a coordinator must not grow old.
    pub(super) fn serve(&mut self) {
        if self.open.is_empty() && Kind::ALL.iter().all(|kind| self.line(*kind).failing_since.is_none()) {
            return;
        }
        while let Some(event) = self.next_event() {
            let answered = self.take(&event);
            self.ready.extend(answered);
        }
        for kind in Kind::ALL {
            self.give_up_late_ones(kind);
            if self.line(kind).is_stuck() {
                self.ask_elsewhere(kind);
            }
        }
    }

    fn next_event(&self) -> Option<Event> {
        let mut queues = [&self.leaders, &self.coordinator].into_iter().filter_map(|line| line.queue.as_ref());
        queues.find_map(|queue| queue.poll(Duration::ZERO))
    }

    /// What was not answered in time. Its answer may still come, and nobody waits for it.
    fn give_up_late_ones(&mut self, kind: Kind) {
        let wait = self.line(kind).wait_max();
        let is_late = |asked: &Asked| Kind::of(&asked.open) == kind && asked.at.elapsed() >= wait;
        let late: Vec<Asked> = self.open.extract_if(|_, asked| is_late(asked)).map(|(_, asked)| asked).collect();
        for Asked { at, ticket, .. } in late {
            self.line(kind).failing_since.get_or_insert(at);
            self.ready.push((ticket, Err(again(format!("no answer within {wait:?}")))));
        }
    }

    /// Another client asks from now on. What is open is to be asked again.
    fn ask_elsewhere(&mut self, kind: Kind) {
        let line = self.line(kind);
        let waited = line.patience.now();
        line.patience.was_too_short(waited);
        (line.failing_since, line.outdated) = (None, false);
        match self.make(kind) {
            Ok(client) => tracing::info!(?client, "questions to the cluster fail: another client asks"),
            Err(error) => tracing::warn!("questions to the cluster fail, and no other client can be made: {error}"),
        }
        let lost = self.open.extract_if(|_, asked| Kind::of(&asked.open) == kind);
        self.ready.extend(lost.map(|(_, asked)| (asked.ticket, Err(again("another client asks".to_owned())))));
    }

    /// Makes a client for one kind, in place of the one before. Without it there is none: the one before has failed.
    fn make(&mut self, kind: Kind) -> Result<Arc<Client>, KafkaError> {
        let made = (self.make_client)().map_err(|error| again(error.message));
        let line = self.line(kind);
        line.made_at = Some(Instant::now());
        line.queue = made.as_ref().ok().map(EventQueue::new);
        made
    }

    /// Takes one event; `None` where more is to come, or nobody waits for it any more.
    fn take(&mut self, event: &Event) -> Option<(Ticket, Result<Answer, KafkaError>)> {
        let number = event.ticket() & !1;
        let is_second = event.ticket() & 1 == 1;
        let Asked { at, ticket, open } = self.open.remove(&number)?;
        let line = self.line(Kind::of(&open));
        let answer = match open {
            Open::Committed => {
                let entries = event.committed().map_err(about_offsets);
                entries.and_then(committed).and_then(|found| found.told(at, line, Answer::Committed))
            }
            Open::Members => members(event).inspect(|_| line.answered(at)),
            Open::Bounds { mut start, mut end } => {
                let half = event.log_offsets().map_err(about_logs);
                let is_outdated = |ends: &Vec<PartitionEntry>| ends.iter().any(|end| end.code == OUTDATED);
                line.outdated |= half.as_ref().is_ok_and(is_outdated);
                let half = half.and_then(log_ends);
                match half.map(|half| *(if is_second { &mut end } else { &mut start }) = Some(half)) {
                    Err(error) => Err(error),
                    Ok(()) => match (start, end) {
                        (Some(start), Some(end)) => bounds(start, end).told(at, line, Answer::Bounds),
                        (start, end) => {
                            self.open.insert(number, Asked { at, ticket, open: Open::Bounds { start, end } });
                            return None;
                        }
                    },
                }
            }
        };
        if answer.is_err() {
            line.failing_since.get_or_insert(at);
        }
        Some((ticket, answer))
    }
}

impl Line {
    /// A question was answered in full.
    fn answered(&mut self, asked_at: Instant) {
        self.failing_since = None;
        self.patience.was_enough(asked_at.elapsed());
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
        line: &mut Line,
        answer: impl FnOnce(Vec<T>) -> Answer,
    ) -> Result<Answer, KafkaError> {
        match self.failure {
            None => line.answered(asked_at),
            Some(failure) if self.answers.is_empty() => return Err(failure),
            Some(failure) => {
                line.failing_since.get_or_insert(asked_at);
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

    fn long_ago() -> Instant {
        Instant::now().checked_sub(STUCK_AFTER[0]).expect("the machine is up for longer")
    }

    #[test]
    fn a_line_is_stuck_when_it_fails_for_long_and_not_when_it_was_answered() {
        let mut line = Line::new(None);
        let leaderless = Code::of(E::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        let some = || log_ends(vec![entry(0, 3, Code::NONE), entry(1, -1, leaderless)]).expect("it passes");
        some().told(long_ago(), &mut line, |_| Answer::Bounds(Vec::new())).expect("one is answered");
        assert!(line.is_stuck(), "a part of the answer does not hide that the other part is missing");
        line.patience.was_too_short(STUCK_AFTER[0]);
        assert!(!line.is_stuck(), "the next client has more time");
        some().told(Instant::now(), &mut line, |_| Answer::Bounds(Vec::new())).expect("one is answered");
        assert_eq!(line.patience.now(), STUCK_AFTER[0] * 2, "nor does it make the next client's time short again");
        let all = log_ends(vec![entry(0, 3, Code::NONE)]).expect("nothing failed");
        all.told(Instant::now(), &mut line, |_| Answer::Bounds(Vec::new())).expect("all are answered");
        assert_eq!((line.failing_since, line.patience.now()), (None, STUCK_AFTER[0]));
    }

    #[test]
    fn a_client_that_no_leader_will_answer_is_replaced_at_once_but_not_again_and_again() {
        let mut line = Line::new(None);
        line.outdated = true;
        assert!(line.is_stuck());
        line.made_at = Some(Instant::now());
        assert!(!line.is_stuck());
        line.made_at = Some(long_ago());
        assert!(line.is_stuck());
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
