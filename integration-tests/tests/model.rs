//! The model Kafka of the simulation against the real one: each scenario runs on both, through the same seam, and what it
//! sees must be the same, word for word. What the simulation proves is worth as much as its model.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use processor_core::ids::{ChangelogOffset, Offset, OutputIndex, Partition, Timestamp, TopicPartition};
use processor_core::record::{InputRecord, TargetPartition};
use processor_integration_tests::broker::shared;
use processor_runtime::kafka::admin::Admin;
use processor_runtime::kafka::cluster::{Cluster, ClusterSettings};
use processor_runtime::kafka::{
    Answer, ChangelogEvent, ChangelogReader, Committed, DeliveryTag, GroupConsumer, GroupEvent, GroupMetadata,
    Isolation, Kafka, Member, Membership, OffsetToCommit, ProducerRecord, Progress, Question, RecordHeaders,
    RecordNumber, Ticket, TransactionalId, TransactionalProducer, TxnError,
};
use processor_simulator::fake::FakeCluster;

/// Within this, everything that a scenario waits for has happened.
const SOON: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

/// A cluster, real or not, with one topic of two partitions, which is input, output and changelog.
struct Stage<K> {
    kafka: K,
    topic: Arc<str>,
}

/// What a scenario has seen, in its own words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen(Vec<String>);

impl Seen {
    fn note(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if let Some(found) = look()? {
            return Ok(found);
        }
    }
    bail!("not within {SOON:?}: {what}")
}

impl<K: Kafka> Stage<K> {
    fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), Partition::new(number))
    }

    /// A producer that is initialised, and has fenced its predecessor.
    fn producer(&self, id: &str) -> Result<K::Producer> {
        let id = TransactionalId(format!("{}|{id}", self.topic).into());
        let mut producer = self.kafka.producer(&id, std::slice::from_ref(&self.topic))?;
        until("to be initialised", || Ok((producer.init(STEP)? == Progress::Done).then_some(())))?;
        Ok(producer)
    }

    fn member(&self, name: &str) -> Result<K::Consumer> {
        let member = Member { client_id: format!("{}-{name}", self.topic), group_instance_id: None };
        Ok(self.kafka.consumer(&member, std::slice::from_ref(&self.topic))?)
    }

    /// What a new reader sees of partition 0 from its beginning to where it may go.
    fn read(&self, isolation: Isolation) -> Result<String> {
        let mut reader = self.kafka.changelog(&format!("{}-reader", self.topic), isolation)?;
        reader.read(&[(self.partition(0), ChangelogOffset::new(0))])?;
        let mut values = Vec::new();
        let end = until("the end", || {
            let mut end = None;
            reader.poll(STEP, &mut |event| {
                match event {
                    ChangelogEvent::Record { offset, value, .. } => {
                        let value = value.map_or("null".into(), String::from_utf8_lossy);
                        values.push(format!("{value}@{offset}"));
                    }
                    ChangelogEvent::End { position, .. } => end = Some(position),
                    ChangelogEvent::OutOfRange { .. } => values.push("out of range".to_owned()),
                }
                ControlFlow::Continue(())
            })?;
            Ok(end)
        })?;
        Ok(format!("{isolation:?}: [{}] to {end}", values.join(", ")))
    }

    /// The same, once a decided transaction is through.
    fn read_when_stable(&self, end: i64) -> Result<String> {
        let wanted = format!("to {end}");
        until(&wanted, || Ok(Some(self.read(Isolation::ReadCommitted)?).filter(|seen| seen.ends_with(&wanted))))
    }

    /// What is committed for partition 0.
    fn committed(&self, member: &mut K::Consumer, stable: bool) -> Result<String> {
        let question = Question::Committed { partitions: vec![self.partition(0)], stable };
        let Answer::Committed(committed) = ask(member, &question)? else { bail!("another answer") };
        ensure!(committed.len() == 1, "one partition was asked for: {committed:?}");
        Ok(match &committed[0].1 {
            Committed::At { offset, metadata } => format!("{offset} '{metadata}'"),
            Committed::Nothing => "nothing".to_owned(),
            Committed::Unstable => "unstable".to_owned(),
        })
    }

    fn stable(&self, member: &mut K::Consumer) -> Result<String> {
        until("stable offsets", || Ok(Some(self.committed(member, true)?).filter(|seen| seen != "unstable")))
    }
}

fn ask<C: GroupConsumer>(member: &mut C, question: &Question) -> Result<Answer> {
    member.ask(Ticket(1), question)?;
    let mut answers = Vec::new();
    until("an answer", || {
        member.poll(STEP, 100, 1 << 20, &mut Vec::new(), &mut Vec::new())?;
        member.answers(&mut answers);
        Ok(answers.pop().map(|(_, answer)| answer).transpose()?)
    })
}

/// Polls until the group has given partitions, or given others.
fn join<C: GroupConsumer>(member: &mut C) -> Result<(Vec<TopicPartition>, Membership)> {
    let mut events = Vec::new();
    until("an assignment", || {
        member.poll(STEP, 100, 1 << 20, &mut Vec::new(), &mut events)?;
        Ok(events.drain(..).rev().find_map(|event| match event {
            GroupEvent::Assigned { partitions, membership } => Some((partitions, membership)),
            GroupEvent::Revoked { .. } | GroupEvent::OutOfRange { .. } => None,
        }))
    })
}

fn send<P: TransactionalProducer>(producer: &mut P, value: &str) -> Result<()> {
    Ok(sent(producer, value)?)
}

fn sent<P: TransactionalProducer>(producer: &mut P, value: &str) -> Result<(), TxnError> {
    producer.send(&ProducerRecord {
        topic: OutputIndex::new(0),
        partition: TargetPartition::Exactly(Partition::new(0)),
        timestamp: Timestamp::new(1),
        key: Some(b"k"),
        value: Some(value.as_bytes()),
        headers: RecordHeaders::None,
        tag: DeliveryTag(0),
        number: RecordNumber::NONE,
    })?;
    producer.drain(SOON)
}

fn offset<'a>(partition: &'a TopicPartition, next: i64, metadata: &'a str) -> [OffsetToCommit<'a>; 1] {
    [OffsetToCommit { partition, offset: Offset::new(next), metadata }]
}

/// An open transaction holds back readers of committed records; commit and abort let them go on, each behind its marker.
fn last_stable_offset<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut producer = stage.producer("a")?;
    let mut other = stage.producer("b")?;
    producer.begin()?;
    send(&mut producer, "one")?;
    seen.note(format!("delivered to {:?}", producer.delivered_end(DeliveryTag(0))));
    seen.note(stage.read(Isolation::ReadCommitted)?);
    seen.note(stage.read(Isolation::ReadUncommitted)?);
    other.begin()?;
    send(&mut other, "two")?;
    other.commit(SOON)?;
    seen.note(format!("behind an open one: {}", stage.read(Isolation::ReadCommitted)?));
    producer.abort(SOON)?;
    seen.note(stage.read_when_stable(4)?);
    producer.begin()?;
    send(&mut producer, "three")?;
    producer.commit(SOON)?;
    seen.note(stage.read_when_stable(6)?);
    seen.note(stage.read(Isolation::ReadUncommitted)?);
    Ok(seen)
}

/// Whoever initialises an id fences the one before, ends what that one left open, and is itself untouched by it.
fn fencing<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut zombie = stage.producer("a")?;
    zombie.begin()?;
    send(&mut zombie, "lost")?;
    let mut successor = stage.producer("a")?;
    seen.note(stage.read_when_stable(2)?);
    let refused = sent(&mut zombie, "late").and_then(|()| zombie.commit(SOON)).expect_err("it is fenced");
    seen.note(format!("the zombie is refused: {:?}", refused.kind));
    seen.note(format!("and can begin nothing: {}", zombie.begin().is_err()));
    successor.begin()?;
    send(&mut successor, "kept")?;
    successor.commit(SOON)?;
    let ends = stage.read_when_stable(4)?;
    seen.note(ends);
    Ok(seen)
}

/// Offsets count when their transaction has committed, and until it has ended whoever asks for stable ones is told to wait.
fn stable_offsets<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut member = stage.member("m")?;
    join(&mut member)?;
    let mut producer = stage.producer("a")?;
    let partition = stage.partition(0);
    seen.note(stage.committed(&mut member, true)?);
    for (next, commits) in [(1, true), (2, false), (3, true)] {
        producer.begin()?;
        send(&mut producer, "x")?;
        producer.send_offsets(&offset(&partition, next, "m"), &member.group_metadata()?, SOON)?;
        seen.note(format!("open: {}", stage.committed(&mut member, true)?));
        seen.note(format!("not waiting: {}", stage.committed(&mut member, false)?));
        if commits {
            producer.commit(SOON)?;
        } else {
            producer.abort(SOON)?;
        }
        seen.note(stage.stable(&mut member)?);
    }
    // A transaction that a dead producer has left holds offsets until its successor ends it.
    producer.begin()?;
    send(&mut producer, "x")?;
    producer.send_offsets(&offset(&partition, 9, "m"), &member.group_metadata()?, SOON)?;
    drop(producer);
    seen.note(stage.committed(&mut member, true)?);
    stage.producer("a")?;
    seen.note(stage.stable(&mut member)?);
    Ok(seen)
}

/// Two transactions of two producers, each with an offset of the same partition: the one that was written last counts, though
/// the other one is committed last.
fn offsets_in_turn<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut member = stage.member("m")?;
    join(&mut member)?;
    let (mut first, mut second) = (stage.producer("a")?, stage.producer("b")?);
    let partition = stage.partition(0);
    for (producer, next) in [(&mut first, 5), (&mut second, 6)] {
        producer.begin()?;
        send(producer, "x")?;
        producer.send_offsets(&offset(&partition, next, "m"), &member.group_metadata()?, SOON)?;
    }
    second.commit(SOON)?;
    seen.note(format!("the first is open: {}", stage.committed(&mut member, true)?));
    let counts = until("the second offset", || {
        Ok(Some(stage.committed(&mut member, false)?).filter(|committed| committed != "nothing"))
    })?;
    seen.note(format!("not waiting: {counts}"));
    first.commit(SOON)?;
    seen.note(stage.stable(&mut member)?);
    Ok(seen)
}

/// A membership of an older generation, or of a member that has left, commits nothing.
fn generations<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut first = stage.member("m1")?;
    let (all, old) = join(&mut first)?;
    let old_proof = first.group_metadata()?;
    seen.note(format!("alone: {} partitions, proof as assigned: {}", all.len(), old_proof.membership() == old));
    let mut second = stage.member("m2")?;
    let mut shares = BTreeMap::new();
    until("a rebalance", || {
        for (name, member) in [("first", &mut first), ("second", &mut second)] {
            let mut events = Vec::new();
            member.poll(STEP, 100, 1 << 20, &mut Vec::new(), &mut events)?;
            for event in events {
                if let GroupEvent::Assigned { partitions, membership } = event {
                    shares.insert(name, (partitions.len(), membership.generation));
                }
            }
        }
        let both = shares.len() == 2 && shares.values().all(|(_, generation)| *generation > old.generation);
        Ok(both.then_some(()))
    })?;
    seen.note(format!("shares: {:?}", shares.values().map(|(partitions, _)| partitions).collect::<Vec<_>>()));
    let partition = stage.partition(0);
    let mut producer = stage.producer("a")?;
    producer.begin()?;
    send(&mut producer, "x")?;
    let refused = producer.send_offsets(&offset(&partition, 5, ""), &old_proof, SOON).expect_err("an old generation");
    seen.note(format!("an old generation: {:?}", refused.kind));
    producer.abort(SOON)?;
    let gone = second.group_metadata()?;
    second.leave(SOON)?;
    producer.begin()?;
    send(&mut producer, "x")?;
    let refused = producer.send_offsets(&offset(&partition, 6, ""), &gone, SOON).expect_err("nobody any more");
    seen.note(format!("a member that has left: {:?}", refused.kind));
    producer.abort(SOON)?;
    seen.note(stage.stable(&mut first)?);
    Ok(seen)
}

/// What a member polls: committed records in order from where it was told, and the log's end.
fn polling<K: Kafka>(stage: &Stage<K>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut producer = stage.producer("a")?;
    for (value, commits) in [("one", true), ("two", false), ("three", true)] {
        producer.begin()?;
        send(&mut producer, value)?;
        if commits { producer.commit(SOON)? } else { producer.abort(SOON)? }
    }
    stage.read_when_stable(6)?;
    let mut member = stage.member("m")?;
    join(&mut member)?;
    for from in [0, 1, 4] {
        member.fetch(&[(stage.partition(0), Offset::new(from))])?;
        let mut polled = Vec::new();
        until("the end", || {
            member.poll(STEP, 100, 1 << 20, &mut polled, &mut Vec::new())?;
            let next =
                polled.last().map_or(from, |last: &<K::Consumer as GroupConsumer>::Record| last.offset().get() + 1);
            Ok(member.is_at_end(&stage.partition(0), Offset::new(next)).then_some(()))
        })?;
        let polled: Vec<i64> = polled.iter().map(|record| record.offset().get()).collect();
        seen.note(format!("from {from}: {polled:?}"));
    }
    let Answer::Bounds(bounds) = ask(&mut member, &Question::Bounds { partitions: vec![stage.partition(0)] })? else {
        bail!("another answer")
    };
    seen.note(format!("bounds: {:?}", bounds[0].1));
    Ok(seen)
}

fn modelled(name: &str) -> Stage<impl Kafka> {
    let (cluster, topic) = (FakeCluster::new(), format!("model-{name}"));
    cluster.create_topic(&topic, 2);
    Stage { kafka: cluster.worker("w"), topic: topic.into() }
}

fn real(name: &str) -> Result<Stage<Cluster>> {
    let topic: Arc<str> = format!("model-{name}").into();
    let settings = ClusterSettings::new(shared().bootstrap_servers(), format!("model-{name}"));
    Admin::connect(&settings)?.create_topic(&topic, 2, Some(1), &BTreeMap::new())?;
    Ok(Stage { kafka: Cluster::new(settings)?, topic })
}

/// Runs a scenario on both.
macro_rules! on_both {
    ($($scenario:ident: $test:ident),* $(,)?) => {$(
        #[test]
        fn $test() -> Result<()> {
            let name = stringify!($scenario);
            let (model, kafka) = ($scenario(&modelled(name))?, $scenario(&real(name)?)?);
            ensure!(model == kafka, "the model says\n  {}\nand Kafka\n  {}", model.0.join("\n  "), kafka.0.join("\n  "));
            eprintln!("{name}: both say\n  {}", kafka.0.join("\n  "));
            Ok(())
        }
    )*};
}

on_both! {
    last_stable_offset: an_open_transaction_holds_readers_back,
    fencing: whoever_initialises_an_id_fences_the_one_before,
    stable_offsets: offsets_of_an_open_transaction_are_unstable,
    offsets_in_turn: of_two_offsets_the_one_that_was_written_last_counts,
    generations: an_old_membership_commits_nothing,
    polling: a_member_polls_what_is_committed,
}
