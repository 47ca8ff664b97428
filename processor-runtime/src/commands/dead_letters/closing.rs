//! Replaying: each record back to where it came from, and the mark of its letter, in one transaction. Discarding is the same
//! without the record.
//!
//! 1. look which topics are concerned;
//! 2. initialise a producer with the application's id for replays: that ends what an earlier one left open, and keeps one
//!    that still runs from committing;
//! 3. only now read the marks: whatever an earlier one has committed is among them;
//! 4. send. Should the producer have to be replaced (EO-11), begin again at 2.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{OutputIndex, Timestamp, TopicPartition};
use processor_core::record::TargetPartition;
use serde_json::json;

use super::letter::{Closed, Letter, LetterId};
use super::topic::DeadLetterTopic;
use crate::clock::{Clock as _, SystemClock};
use crate::commands::{CommandError, output};
use crate::kafka::producer::Producer;
use crate::kafka::{
    DeliveryTag, Kafka as _, ProducerRecord, RecordHeaders, RecordNumber, TransactionalId, TransactionalProducer,
    TxnError,
};
use crate::transaction::{self, Clean, Ended, Initialised, Initialising, Next, Open};

/// The most letters of one transaction.
const LETTERS_MAX: usize = 500;
/// About how many bytes of keys and values one transaction carries.
const BYTES_MAX: usize = 4 << 20;
/// How long one call that initialises the producer may take.
const INIT_SLICE: Duration = Duration::from_millis(500);
/// How long initialising may take altogether.
const INIT_WAIT_MAX: Duration = Duration::from_mins(1);
/// How often the producer is replaced before a person should look at the brokers.
const PRODUCERS_MAX: usize = 10;

/// What was closed.
#[derive(Debug)]
pub(super) struct Outcome {
    how: Closed,
    by_topic: BTreeMap<Arc<str>, u64>,
    /// Those that were named and were closed before.
    before: BTreeMap<LetterId, Closed>,
}

impl Outcome {
    fn new(how: Closed) -> Self {
        Self { how, by_topic: BTreeMap::new(), before: BTreeMap::new() }
    }

    fn count(&mut self, letters: &[Letter]) {
        for letter in letters {
            *self.by_topic.entry(letter.origin.topic.clone()).or_default() += 1;
        }
    }

    /// Answers.
    pub(super) fn tell(&self, dry_run: bool, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
        let total: u64 = self.by_topic.values().sum();
        if as_json {
            let topics: BTreeMap<&str, u64> = self.by_topic.iter().map(|(topic, count)| (&**topic, *count)).collect();
            return output::json(
                out,
                &json!({
                    self.how.word(): if dry_run { 0 } else { total }, "letters": total, "by_topic": topics,
                    "before": self.before.iter().map(|(letter, how)| (letter.to_string(), how.word())).collect::<BTreeMap<_, _>>(),
                }),
            );
        }
        for (letter, how) in &self.before {
            writeln!(out, "{letter} was {} before", how.word())?;
        }
        let rows = self.by_topic.iter().map(|(topic, count)| vec![topic.to_string(), count.to_string()]).collect();
        output::table(out, &["TOPIC", "RECORDS"], rows)?;
        let word = self.how.word();
        Ok(if dry_run {
            writeln!(out, "{total} would be {word}; nothing was written")
        } else {
            writeln!(out, "{total} {word}")
        }?)
    }
}

/// Closes these letters, or all if there is none of them, that are open.
pub(super) fn close(
    topic: &DeadLetterTopic,
    letters: &[LetterId],
    how: Closed,
    dry_run: bool,
) -> Result<Outcome, CommandError> {
    let wanted: BTreeSet<LetterId> = letters.iter().copied().collect();
    let is_wanted = |id: &LetterId| wanted.is_empty() || wanted.contains(id);
    let before = topic.scan()?;
    let mut outcome = Outcome::new(how);
    let (mut concerned, mut missing) = (BTreeSet::new(), wanted.clone());
    topic.letters(&before, |letter| {
        missing.remove(&letter.id());
        let id = letter.id();
        match before.closed(&id) {
            None if is_wanted(&id) => {
                concerned.insert(letter.origin.clone());
                outcome.count(std::slice::from_ref(&letter));
            }
            Some(how) if wanted.contains(&id) => drop(outcome.before.insert(id, how)),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(missing) = missing.first() {
        return Err(topic.no_letter(missing));
    }
    if how == Closed::Replayed {
        require(topic, &concerned)?;
    }
    if dry_run || concerned.is_empty() {
        return Ok(outcome);
    }
    let mut outcome = Outcome { before: outcome.before, ..Outcome::new(how) };
    let mut closing = Closing::new(topic, before.origins(), how);
    for _ in 0..PRODUCERS_MAX {
        if closing.attempt(&is_wanted, &mut outcome)? {
            return Ok(outcome);
        }
    }
    Err(CommandError::Failed(format!(
        "the connection to the brokers broke {PRODUCERS_MAX} times; what was {} is marked. Look at the brokers, then run it again for the rest",
        how.word()
    )))
}

/// Requires that all these partitions are there.
fn require(topic: &DeadLetterTopic, origins: &BTreeSet<TopicPartition>) -> Result<(), CommandError> {
    let mut counts: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for origin in origins {
        if !counts.contains_key(&*origin.topic) {
            let count = topic.admin().topic_shape(&origin.topic)?.map(|found| found.partitions);
            counts.insert(&origin.topic, count);
        }
        let is_there = |count: usize| usize::try_from(origin.partition.get()).is_ok_and(|number| number < count);
        if !counts[&*origin.topic].is_some_and(is_there) {
            return Err(CommandError::Failed(format!(
                "letters came from {origin}, which is not there any more: nothing was replayed; choose others with --letter"
            )));
        }
    }
    Ok(())
}

struct Closing<'a> {
    topic: &'a DeadLetterTopic,
    how: Closed,
    /// The producer's topics: that of the dead letters, then those that letters came from.
    topics: Vec<Arc<str>>,
    clock: SystemClock,
    id: TransactionalId,
}

impl<'a> Closing<'a> {
    fn new(topic: &'a DeadLetterTopic, origins: &BTreeSet<TopicPartition>, how: Closed) -> Self {
        let origins: BTreeSet<&Arc<str>> = origins.iter().map(|origin| &origin.topic).collect();
        let topics = [topic.name()].into_iter().chain(origins).cloned().collect();
        // No worker has an id of two parts.
        let id = TransactionalId(format!("{}:replay", topic.cluster().settings().application_id).into());
        Self { topic, how, topics, clock: SystemClock::default(), id }
    }

    /// Closes what is open. `false`: the producer must be replaced, and something may be left.
    fn attempt(&mut self, is_wanted: &impl Fn(&LetterId) -> bool, outcome: &mut Outcome) -> Result<bool, CommandError> {
        let mut producer = Some(self.initialised()?);
        let scan = self.topic.scan()?;
        let (mut batch, mut bytes): (Vec<Letter>, usize) = (Vec::new(), 0);
        self.topic.letters(&scan, |letter| {
            let id = letter.id();
            // A topic that was not known when the producer was made is of a letter that has come since.
            let is_known = self.output(&letter.origin.topic).is_some();
            if producer.is_none() || !is_wanted(&id) || scan.closed(&id).is_some() || !is_known {
                return Ok(());
            }
            bytes += letter.key().map_or(0, <[u8]>::len) + letter.value().map_or(0, <[u8]>::len);
            batch.push(letter);
            if batch.len() >= LETTERS_MAX || bytes >= BYTES_MAX {
                producer = producer.take().map(|producer| self.commit(producer, &batch)).transpose()?.flatten();
                outcome.count(&batch);
                batch.clear();
                bytes = 0;
            }
            Ok(())
        })?;
        match producer {
            None => Ok(false),
            Some(_) if batch.is_empty() => Ok(true),
            Some(producer) => {
                self.commit(producer, &batch)?;
                outcome.count(&batch);
                Ok(true)
            }
        }
    }

    fn initialised(&self) -> Result<Clean<Producer>, CommandError> {
        let failed =
            |why: &str| CommandError::Failed(format!("transactions of '{}' cannot be initialised: {why}", self.id));
        let mut initialising = Initialising::new(self.topic.cluster().producer(&self.id, &self.topics)?, &self.clock);
        loop {
            match initialising.step(&self.clock, INIT_SLICE, INIT_WAIT_MAX) {
                Ok(Initialised::Done(producer)) => return Ok(producer),
                Ok(Initialised::Pending(same)) => initialising = same,
                Ok(Initialised::GivenUp) => {
                    return Err(failed("no transaction coordinator answers; are all brokers up?"));
                }
                Err(error) => {
                    return Err(failed(&error.to_string()));
                }
            }
        }
    }

    /// One transaction. `None`: it is committed, and the producer must be replaced.
    fn commit(&self, producer: Clean<Producer>, letters: &[Letter]) -> Result<Option<Clean<Producer>>, CommandError> {
        let budget = transaction::budget(self.topic.cluster().settings().transaction_timeout);
        let mut open = match producer.begin(&self.clock, budget) {
            Ok(open) => open,
            Err(broken) => return Err(cut_short(&broken.reason, broken.fenced)),
        };
        for letter in letters {
            if let Err(error) = self.send(&mut open, letter) {
                return Err(ended(open.fail(&self.clock, &error)));
            }
        }
        let prepared = open.prepare_without_offsets(&self.clock).map_err(ended)?;
        match prepared.commit(&self.clock) {
            Ok((_receipt, Next::Clean(producer))) => Ok(Some(producer)),
            Ok((_receipt, Next::Spent(_))) => Ok(None),
            Err(broken) => Err(cut_short(&broken.reason, broken.fenced)),
        }
    }

    fn send<P: TransactionalProducer>(&self, open: &mut Open<P>, letter: &Letter) -> Result<(), TxnError> {
        let now = self.clock.wall();
        if self.how == Closed::Replayed {
            self.send_back(open, letter, now)?;
        }
        self.mark(open, letter.id(), now)
    }

    fn send_back<P: TransactionalProducer>(
        &self,
        open: &mut Open<P>,
        letter: &Letter,
        now: Timestamp,
    ) -> Result<(), TxnError> {
        let headers = letter.headers();
        open.send(&ProducerRecord {
            topic: self.output(&letter.origin.topic).expect("letters of other topics were left out"),
            partition: TargetPartition::Exactly(letter.origin.partition),
            timestamp: letter.timestamp().unwrap_or(now),
            key: letter.key(),
            value: letter.value(),
            headers: RecordHeaders::Read(&headers),
            tag: DeliveryTag::UNTRACKED,
            number: RecordNumber::NONE,
        })
    }

    /// Says, beside a letter, how it was closed.
    fn mark<P: TransactionalProducer>(
        &self,
        open: &mut Open<P>,
        letter: LetterId,
        now: Timestamp,
    ) -> Result<(), TxnError> {
        let (header, offset) = (self.how.header(), letter.offset.to_string());
        open.send(&ProducerRecord {
            topic: OutputIndex::new(0),
            partition: TargetPartition::Exactly(letter.partition),
            timestamp: now,
            // A key of its own, and a value that is not null: compaction keeps it.
            key: Some(format!("{header}-{letter}").as_bytes()),
            value: Some(b""),
            headers: RecordHeaders::One(header, offset.as_bytes()),
            tag: DeliveryTag::UNTRACKED,
            number: RecordNumber::NONE,
        })
    }

    fn output(&self, topic: &str) -> Option<OutputIndex> {
        // The first is the dead-letter topic, which a letter may have come from, too.
        let place = self.topics.iter().position(|known| **known == *topic)?;
        u16::try_from(place).ok().map(OutputIndex::new)
    }
}

fn ended<P>(ended: Ended<P>) -> CommandError {
    match ended {
        Ended::Aborted { why, .. } => cut_short(&why.to_string(), false),
        Ended::Broken(broken) => cut_short(&broken.reason, broken.fenced),
    }
}

fn cut_short(reason: &str, fenced: bool) -> CommandError {
    let what = if fenced { "another replay of this application has taken over" } else { "it was cut short" };
    CommandError::Failed(format!(
        "{what} ({reason}): what was done before is marked; run it again for the rest, and no letter is closed twice"
    ))
}
