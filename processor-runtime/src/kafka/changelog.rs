//! The changelog reader: a consumer without a group membership, told where to read.
//!
//! It uses the poll of single messages: the batch call of librdkafka 2.12.1 mistakes an end-of-partition message for a
//! record and moves the position. The end that is reported is the fetch position itself (`rdkafka_fetcher.c:312-325`):
//! behind control records and aborted ones, and under `read_committed` at the first open transaction
//! (`rdkafka_fetcher.c:571-575`).

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{ChangelogOffset, Partition, TopicPartition};

use super::advice::with_advice;
use super::faults::{Notice, is_outdated, notice};
use super::ffi::{Client, Code, Fault, Message, MessageQueue, PartitionList};
use super::transient::Transient;
use super::{ChangelogEvent, ChangelogReader, KafkaError, TRANSACTIONAL_ID_HEADER};

/// Reads changelog partitions.
pub struct Changelog {
    queue: MessageQueue,
    client: Arc<Client>,
    /// The topic behind a handle's address; emptied by `read`, as in `consumer.rs`.
    topics_by_key: Vec<(usize, Arc<str>)>,
    read_from: HashMap<TopicPartition, ChangelogOffset>,
    header: CString,
    transient: Transient,
}

impl fmt::Debug for Changelog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Changelog").field(&self.client).finish()
    }
}

impl Changelog {
    /// Wraps a native consumer that has a `group.id` and never subscribes.
    pub(super) fn new(client: Arc<Client>) -> Result<Self, KafkaError> {
        let set_up = |fault: Fault| KafkaError::from_fault("cannot read changelogs", &fault);
        client.poll_serves_everything().map_err(set_up)?;
        Ok(Self {
            queue: MessageQueue::of(&client),
            client,
            topics_by_key: Vec::new(),
            read_from: HashMap::new(),
            header: CString::new(TRANSACTIONAL_ID_HEADER).expect("the header's name holds no zero byte"),
            transient: Transient::default(),
        })
    }

    /// The topic of a message that is about one.
    fn topic_of(&mut self, message: &Message) -> Arc<str> {
        let key = message.topic_key();
        if let Some((_, topic)) = self.topics_by_key.iter().find(|(known, _)| *known == key) {
            return topic.clone();
        }
        let topic: Arc<str> = message.topic().expect("records and ends have a topic").into();
        self.topics_by_key.push((key, topic.clone()));
        topic
    }

    fn meet(
        &mut self,
        message: &Message,
        visit: &mut dyn FnMut(ChangelogEvent<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, KafkaError> {
        if message.code() == Code::NONE {
            let topic = self.topic_of(message);
            return Ok(visit(ChangelogEvent::Record {
                topic: &topic,
                partition: Partition::new(message.partition()),
                offset: ChangelogOffset::new(message.offset()),
                key: message.key(),
                value: message.value(),
                transactional_id: message.header(&self.header),
            }));
        }
        match notice(message.code()) {
            Notice::End => {
                let topic = self.topic_of(message);
                let (partition, position) = (Partition::new(message.partition()), message.offset());
                let position = ChangelogOffset::new(position);
                Ok(visit(ChangelogEvent::End { topic: &topic, partition, position }))
            }
            Notice::OutOfRange => Ok(self.out_of_range(message, visit)),
            Notice::Transient => {
                self.transient.log(&self.client, message);
                Ok(ControlFlow::Continue(()))
            }
            Notice::Stop(kind) => {
                let (text, code) = (message.error_text(), message.code());
                let message = with_advice(format!("cannot read changelogs: {text} ({code})"), code);
                Err(KafkaError { kind, message })
            }
        }
    }

    /// Passes it on, unless it is about an earlier `read` (librdkafka gives such a message no version).
    fn out_of_range(
        &mut self,
        message: &Message,
        visit: &mut dyn FnMut(ChangelogEvent<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let topic = self.topic_of(message);
        let partition = Partition::new(message.partition());
        match self.read_from.get(&TopicPartition::new(topic.clone(), partition)) {
            Some(from) if !is_outdated(message.offset(), from.get()) => {
                visit(ChangelogEvent::OutOfRange { topic: &topic, partition })
            }
            Some(_) | None => ControlFlow::Continue(()),
        }
    }
}

impl ChangelogReader for Changelog {
    fn read(&mut self, positions: &[(TopicPartition, ChangelogOffset)]) -> Result<(), KafkaError> {
        for (partition, position) in positions {
            assert!(position.get() >= 0, "{partition} is read from an absolute offset, never from {position}");
        }
        let list = PartitionList::of(positions.iter().map(|(partition, position)| (partition, position.get())));
        self.topics_by_key.clear();
        self.read_from = positions.iter().cloned().collect();
        self.client.assign_exactly(&list).map_err(|fault| KafkaError::from_fault("cannot read changelogs", &fault))
    }

    fn poll(
        &mut self,
        wait: Duration,
        visit: &mut dyn FnMut(ChangelogEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), KafkaError> {
        let mut wait = wait;
        while let Some(message) = self.queue.wait(wait) {
            if self.meet(&message, visit)?.is_break() {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }
}
