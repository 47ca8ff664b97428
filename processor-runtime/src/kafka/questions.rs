//! Questions to the cluster on the consumer's own connections, asked and answered without waiting.
//!
//! The committed offsets come from `OffsetFetch` with `require_stable` where that is asked for. librdkafka does not
//! repeat such a request by itself here: a partition whose offset is held by an open transaction comes back with
//! `UNSTABLE_OFFSET_COMMIT` of its own (`rdkafka_admin.c:7114-7116` passes `allow_retry` = false); it is answered with
//! [`Committed::Unstable`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{Offset, TopicPartition};
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::ffi::{Client, Code, Event, EventQueue, Fault, PartitionEntry, PartitionList, Spec, TopicHandle};
use super::{Answer, Committed, KafkaError, KafkaErrorKind, LogBounds, Question, Ticket};

/// How long the cluster may take over one question.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a topic's leaders may take to be asked for again. The thread waits for it, after a broker has changed.
const REFRESH_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a broker says to a client that knows an older or newer leader than it does. librdkafka's admin requests do not
/// drop what they know after these (`rdkafka_admin.c:4240`), and would be refused for minutes.
const STALE_LEADER: [Code; 2] =
    [Code::of(E::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH), Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH)];

type LogEnds = HashMap<TopicPartition, i64>;

/// A question that is not answered yet.
#[derive(Debug)]
enum Open {
    Committed {
        ticket: Ticket,
        partitions: Vec<TopicPartition>,
    },
    /// Two requests: the first answer is kept here.
    Bounds {
        ticket: Ticket,
        partitions: Vec<TopicPartition>,
        start: Option<LogEnds>,
        end: Option<LogEnds>,
    },
    Members {
        ticket: Ticket,
    },
}

/// The open questions of one client.
#[derive(Debug)]
pub(super) struct Questions {
    client: Arc<Client>,
    queue: EventQueue,
    group: String,
    open: HashMap<usize, Open>,
    /// Answers that need nobody: to questions about no partition.
    ready: Vec<(Ticket, Answer)>,
    last_number: usize,
    /// Topics of which the client knows an outdated leader.
    stale: BTreeSet<Arc<str>>,
}

impl Questions {
    pub(super) fn new(client: &Arc<Client>, group: &str) -> Self {
        Self {
            client: client.clone(),
            queue: EventQueue::new(client),
            group: group.to_owned(),
            open: HashMap::new(),
            ready: Vec::new(),
            last_number: 0,
            stale: BTreeSet::new(),
        }
    }

    /// Asks. The number that goes along is even for the first request of a question and odd for the second.
    pub(super) fn ask(&mut self, ticket: Ticket, question: &Question) {
        self.last_number += 2;
        let number = self.last_number;
        let open = match question {
            Question::Committed { partitions, .. } if partitions.is_empty() => {
                return self.ready.push((ticket, Answer::Committed(Vec::new())));
            }
            Question::Bounds { partitions } if partitions.is_empty() => {
                return self.ready.push((ticket, Answer::Bounds(Vec::new())));
            }
            Question::Committed { partitions, stable } => {
                let list = PartitionList::of(partitions.iter().map(|partition| (partition, 0)));
                self.queue.ask_committed(&self.group, &list, *stable, ANSWER_WAIT_MAX, number);
                Open::Committed { ticket, partitions: partitions.clone() }
            }
            Question::Bounds { partitions } => {
                self.queue.ask_log_offsets(partitions.iter(), Spec::Start, ANSWER_WAIT_MAX, number);
                self.queue.ask_log_offsets(partitions.iter(), Spec::End, ANSWER_WAIT_MAX, number + 1);
                Open::Bounds { ticket, partitions: partitions.clone(), start: None, end: None }
            }
            Question::Members => {
                self.queue.ask_members(&self.group, ANSWER_WAIT_MAX, number);
                Open::Members { ticket }
            }
        };
        self.open.insert(number, open);
    }

    /// Takes what has been answered.
    pub(super) fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>) {
        answers.extend(self.ready.drain(..).map(|(ticket, answer)| (ticket, Ok(answer))));
        while let Some(event) = self.queue.poll(Duration::ZERO) {
            answers.extend(self.take(&event));
        }
        for topic in std::mem::take(&mut self.stale) {
            TopicHandle::new(&self.client, &topic).refresh(REFRESH_WAIT_MAX);
        }
    }

    /// Takes one event; `None` where more is to come, or the other half of the question has failed already.
    fn take(&mut self, event: &Event) -> Option<(Ticket, Result<Answer, KafkaError>)> {
        let number = event.ticket() & !1;
        let is_second = event.ticket() & 1 == 1;
        match self.open.remove(&number)? {
            Open::Committed { ticket, partitions } => {
                let answer = event.committed().map_err(about_offsets);
                Some((ticket, answer.and_then(|entries| committed(&partitions, entries)).map(Answer::Committed)))
            }
            Open::Members { ticket } => Some((ticket, members(event))),
            Open::Bounds { ticket, partitions, mut start, mut end } => {
                let entries = event.log_offsets().map_err(about_logs);
                let stale = entries.iter().flatten().filter(|entry| STALE_LEADER.contains(&entry.code));
                self.stale.extend(stale.map(|entry| entry.partition.topic.clone()));
                let half = match entries.and_then(log_ends) {
                    Ok(half) => half,
                    Err(error) => return Some((ticket, Err(error))),
                };
                *(if is_second { &mut end } else { &mut start }) = Some(half);
                if let (Some(start), Some(end)) = (&start, &end) {
                    return Some((ticket, bounds(&partitions, start, end).map(Answer::Bounds)));
                }
                self.open.insert(number, Open::Bounds { ticket, partitions, start, end });
                None
            }
        }
    }
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

fn missing(partition: &TopicPartition) -> KafkaError {
    let message = format!("the cluster's answer does not speak of {partition}");
    KafkaError { kind: KafkaErrorKind::Retry, message }
}

/// Brings an `OffsetFetch` answer into the order of the question.
fn committed(
    asked: &[TopicPartition],
    entries: Vec<PartitionEntry>,
) -> Result<Vec<(TopicPartition, Committed)>, KafkaError> {
    let mut found: HashMap<TopicPartition, PartitionEntry> =
        entries.into_iter().map(|entry| (entry.partition.clone(), entry)).collect();
    let answer = |partition: &TopicPartition| {
        let entry = found.remove(partition).ok_or_else(|| missing(partition))?;
        Ok((partition.clone(), committed_entry(entry)?))
    };
    asked.iter().map(answer).collect()
}

/// One partition's committed offset; what is negative stands for "none" (-1 on the wire, -1001 at librdkafka).
fn committed_entry(entry: PartitionEntry) -> Result<Committed, KafkaError> {
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

fn log_ends(entries: Vec<PartitionEntry>) -> Result<LogEnds, KafkaError> {
    let end = |entry: PartitionEntry| {
        if entry.code != Code::NONE {
            return Err(about_partition("cannot read the ends of the log of", &entry.partition, entry.code));
        }
        if entry.offset < 0 {
            return Err(missing(&entry.partition));
        }
        Ok((entry.partition, entry.offset))
    };
    entries.into_iter().map(end).collect()
}

/// Joins the two halves.
fn bounds(
    asked: &[TopicPartition],
    starts: &LogEnds,
    ends: &LogEnds,
) -> Result<Vec<(TopicPartition, LogBounds)>, KafkaError> {
    let answer = |partition: &TopicPartition| {
        let of = |half: &LogEnds| half.get(partition).copied().ok_or_else(|| missing(partition));
        Ok((partition.clone(), LogBounds { start: of(starts)?, end: of(ends)? }))
    };
    asked.iter().map(answer).collect()
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
        let asked = [partition(2), partition(0), partition(1)];
        let entries = vec![entry(0, 7, Code::NONE), entry(1, -1001, Code::NONE), entry(2, -1001, unstable)];
        let answer = committed(&asked, entries).expect("no partition failed");
        assert_eq!(answer[0], (partition(2), Committed::Unstable));
        assert_eq!(answer[1], (partition(0), Committed::At { offset: Offset::new(7), metadata: "m".to_owned() }));
        assert_eq!(answer[2], (partition(1), Committed::Nothing));
    }

    #[test]
    fn a_partition_that_failed_fails_the_answer() {
        let moved = Code::of(E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR);
        let error = committed(&[partition(0)], vec![entry(0, -1001, moved)]).expect_err("the partition failed");
        assert_eq!(error.kind, KafkaErrorKind::Retry);
        assert!(error.message.contains("in-0"), "{error}");
    }

    #[test]
    fn an_answer_holds_every_partition_that_was_asked_for() {
        let error =
            committed(&[partition(0), partition(1)], vec![entry(0, 7, Code::NONE)]).expect_err("one is missing");
        assert!(error.message.contains("in-1"), "{error}");
        let (starts, ends) = (LogEnds::from([(partition(0), 3)]), LogEnds::from([(partition(0), 9)]));
        assert!(bounds(&[partition(1)], &starts, &ends).is_err());
        let joined = bounds(&[partition(0)], &starts, &ends).expect("both halves know it");
        assert_eq!(joined, [(partition(0), LogBounds { start: 3, end: 9 })]);
    }
}
