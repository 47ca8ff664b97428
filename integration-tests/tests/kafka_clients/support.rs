//! What the tests of the clients share: names, topics, and waiting for something with a deadline.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use processor_core::ids::{Offset, OutputIndex, Partition, Timestamp, TopicPartition};
use processor_core::record::{InputRecord, TargetPartition};
use processor_integration_tests::broker::shared;
use processor_runtime::kafka::admin::Admin;
use processor_runtime::kafka::changelog::Changelog;
use processor_runtime::kafka::cluster::{Cluster, ClusterSettings};
use processor_runtime::kafka::consumer::{ConsumedRecord, Consumer};
use processor_runtime::kafka::producer::Producer;
use processor_runtime::kafka::{
    Answer, ChangelogEvent, ChangelogReader, DeliveryTag, GroupConsumer, GroupEvent, Isolation, Kafka, KafkaError,
    Member, Membership, OffsetToCommit, ProducerRecord, Progress, Question, RecordHeaders, RecordNumber, Ticket,
    TransactionalId, TransactionalProducer, TxnError,
};

/// Within this, everything that a test waits for has happened.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// One step of waiting.
pub(crate) const STEP: Duration = Duration::from_millis(20);

/// A test's own corner of the shared broker: an application with one topic.
pub(crate) struct Corner {
    pub(crate) cluster: Cluster,
    pub(crate) topic: Arc<str>,
    pub(crate) application: String,
}

impl Corner {
    /// Makes the topic.
    pub(crate) fn new(name: &str, partitions: usize) -> Result<Self> {
        Self::with(name, partitions, |_| ())
    }

    /// Makes the topic; `change` changes the settings.
    pub(crate) fn with(name: &str, partitions: usize, change: impl FnOnce(&mut ClusterSettings)) -> Result<Self> {
        Self::at(&shared().bootstrap_servers(), name, partitions, change)
    }

    /// The same on another cluster.
    pub(crate) fn at(
        bootstrap: &str,
        name: &str,
        partitions: usize,
        change: impl FnOnce(&mut ClusterSettings),
    ) -> Result<Self> {
        let mut settings = ClusterSettings::new(bootstrap, name);
        change(&mut settings);
        let topic: Arc<str> = format!("{name}-in").into();
        Admin::connect(&settings)?.create_topic(&topic, partitions, Some(1), &BTreeMap::new())?;
        Ok(Self { cluster: Cluster::new(settings)?, topic, application: name.to_owned() })
    }

    pub(crate) fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), Partition::new(number))
    }

    /// A member that is not static.
    pub(crate) fn consumer(&self, name: &str) -> Result<Consumer, KafkaError> {
        let member = Member { client_id: format!("{}-{name}", self.application), group_instance_id: None };
        self.cluster.consumer(&member, std::slice::from_ref(&self.topic))
    }

    pub(crate) fn static_consumer(&self, instance: &str) -> Result<Consumer, KafkaError> {
        let client_id = format!("{}-{instance}", self.application);
        let member = Member { client_id, group_instance_id: Some(instance.to_owned()) };
        self.cluster.consumer(&member, std::slice::from_ref(&self.topic))
    }

    pub(crate) fn id(&self, name: &str) -> TransactionalId {
        TransactionalId(format!("{}|{name}", self.application).into())
    }

    /// A producer that is initialised.
    pub(crate) fn producer(&self, name: &str) -> Result<Producer> {
        let mut producer = self.cluster.producer(&self.id(name), std::slice::from_ref(&self.topic))?;
        init(&mut producer)?;
        Ok(producer)
    }

    pub(crate) fn reader(&self, isolation: Isolation) -> Result<Changelog, KafkaError> {
        self.cluster.changelog(&format!("{}-reader", self.application), isolation)
    }

    /// Commits records `from..to` into partition `number`; record i has the value i as text.
    pub(crate) fn fill(&self, number: i32, from: usize, to: usize) -> Result<()> {
        let mut producer = self.producer("fill")?;
        producer.begin()?;
        for value in from..to {
            send(&mut producer, number, value.to_string().as_bytes())?;
        }
        producer.drain(SOON)?;
        producer.commit(SOON)?;
        Ok(())
    }
}

/// Initialises until it is done.
pub(crate) fn init(producer: &mut Producer) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if producer.init(Duration::from_millis(500))? == Progress::Done {
            return Ok(());
        }
    }
    bail!("the transactional id was not initialised within {SOON:?}")
}

/// A record for partition `partition` of the first topic.
pub(crate) fn record(partition: i32, value: &[u8]) -> ProducerRecord<'_> {
    ProducerRecord {
        topic: OutputIndex::new(0),
        partition: TargetPartition::Exactly(Partition::new(partition)),
        timestamp: Timestamp::new(1),
        key: Some(b"k"),
        value: Some(value),
        headers: RecordHeaders::None,
        number: RecordNumber::NONE,
        tag: DeliveryTag::UNTRACKED,
    }
}

pub(crate) fn send(producer: &mut Producer, partition: i32, value: &[u8]) -> Result<(), TxnError> {
    producer.send(&record(partition, value))
}

/// Polls until `done` says so, handing it everything.
pub(crate) fn poll_until(
    consumer: &mut Consumer,
    what: &str,
    mut done: impl FnMut(&[ConsumedRecord], &[GroupEvent]) -> bool,
) -> Result<(Vec<ConsumedRecord>, Vec<GroupEvent>)> {
    let (mut records, mut events) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + SOON;
    while !done(&records, &events) {
        ensure!(Instant::now() < deadline, "{what}: not within {SOON:?}; events: {events:?}");
        consumer.poll(STEP, 10_000, usize::MAX, &mut records, &mut events)?;
    }
    Ok((records, events))
}

/// Polls until the group has given partitions; returns them and the membership.
pub(crate) fn join(consumer: &mut Consumer) -> Result<(Vec<TopicPartition>, Membership)> {
    let assigned = |events: &[GroupEvent]| events.iter().rev().find_map(assignment);
    let (records, events) = poll_until(consumer, "an assignment", |_, events| assigned(events).is_some())?;
    ensure!(records.is_empty(), "nothing is read before it is asked for");
    Ok(assigned(&events).expect("the loop ended with it"))
}

pub(crate) fn assignment(event: &GroupEvent) -> Option<(Vec<TopicPartition>, Membership)> {
    match event {
        GroupEvent::Assigned { partitions, membership } => Some((partitions.clone(), membership.clone())),
        GroupEvent::Revoked { .. } | GroupEvent::OutOfRange { .. } => None,
    }
}

/// Fetches partition 0 only, from here.
pub(crate) fn fetch_from(consumer: &mut Consumer, corner: &Corner, offset: i64) -> Result<(), KafkaError> {
    consumer.fetch(&[(corner.partition(0), Offset::new(offset))])
}

pub(crate) fn offsets(records: &[ConsumedRecord]) -> Vec<i64> {
    records.iter().map(|record| record.offset().get()).collect()
}

/// Asks, and waits for the answer.
pub(crate) fn ask(consumer: &mut Consumer, question: &Question) -> Result<Answer> {
    consumer.ask(Ticket(1), question)?;
    let deadline = Instant::now() + SOON;
    let (mut answers, mut events) = (Vec::new(), Vec::new());
    while Instant::now() < deadline {
        consumer.answers(&mut answers);
        if let Some((ticket, answer)) = answers.pop() {
            ensure!(ticket == Ticket(1), "an answer carries the number of its question");
            return Ok(answer?);
        }
        consumer.poll(Duration::from_millis(5), 1, usize::MAX, &mut Vec::new(), &mut events)?;
    }
    bail!("no answer to {question:?} within {SOON:?}")
}

/// Offsets to commit: one partition.
pub(crate) fn offset_of<'a>(partition: &'a TopicPartition, offset: i64, metadata: &'a str) -> OffsetToCommit<'a> {
    OffsetToCommit { partition, offset: Offset::new(offset), metadata }
}

/// What a changelog reader met: values with offsets, and the last end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) records: Vec<(i64, String)>,
    pub(crate) transactional_ids: Vec<Option<String>>,
    pub(crate) end: Option<i64>,
    pub(crate) out_of_range: bool,
}

impl Met {
    fn take(&mut self, event: &ChangelogEvent<'_>) {
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match event {
            ChangelogEvent::Record { offset, value, transactional_id, .. } => {
                self.records.push((offset.get(), value.map_or_else(|| "null".to_owned(), words)));
                self.transactional_ids.push(transactional_id.map(words));
            }
            ChangelogEvent::End { position, .. } => self.end = Some(position.get()),
            ChangelogEvent::OutOfRange { .. } => self.out_of_range = true,
        }
    }
}

/// Reads until `done`.
pub(crate) fn read_until(reader: &mut Changelog, what: &str, done: impl Fn(&Met) -> bool) -> Result<Met> {
    let mut met = Met::default();
    let deadline = Instant::now() + SOON;
    while !done(&met) {
        ensure!(Instant::now() < deadline, "{what}: not within {SOON:?}; met {met:?}");
        reader.poll(STEP, &mut |event| {
            met.take(&event);
            ControlFlow::Continue(())
        })?;
    }
    Ok(met)
}
