//! Reads a topic as it is, with headers and all, for commands: a consumer without a membership, told where to read.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{Offset, Partition, Timestamp, TopicPartition};

use super::faults::{Notice, notice};
use super::ffi::{Client, Code, Fault, Message, MessageQueue, PartitionList};
use super::properties::Role;
use super::transient::Transient;
use super::{Header, Isolation, KafkaError, KafkaErrorKind};
use crate::kafka::cluster::Cluster;

/// Reads the committed records of a topic.
pub struct Records {
    /// Before the client, which it holds on to.
    queue: MessageQueue,
    client: Arc<Client>,
    transient: Transient,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Records").field(&self.client).finish()
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Option<Timestamp>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
}

impl StoredRecord {
    /// The value of the last header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let last = self.headers.iter().rev().find(|(known, _)| known == name);
        last.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok())
    }
}

/// What a reader met.
#[derive(Clone, Debug)]
pub enum RecordEvent {
    /// A record.
    Record(StoredRecord),
    /// Everything that is committed below this position was read; behind control records and aborted ones.
    End(Partition, Offset),
}

impl Records {
    /// Makes a reader. `client_id` names it in the brokers' logs.
    pub fn new(cluster: &Cluster, client_id: &str) -> Result<Self, KafkaError> {
        let client = cluster.client(Role::Changelog { client_id, isolation: Isolation::ReadCommitted })?;
        client
            .poll_serves_everything()
            .map_err(|fault: Fault| KafkaError::from_fault("cannot read records", &fault))?;
        Ok(Self { queue: MessageQueue::of(&client), client, transient: Transient::default() })
    }

    /// Reads exactly these partitions, each from this offset.
    pub fn read(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), KafkaError> {
        let list = PartitionList::of(positions.iter().map(|(partition, offset)| (partition, offset.get())));
        self.client.assign_exactly(&list).map_err(|fault| KafkaError::from_fault("cannot read records", &fault))
    }

    /// Calls `visit` for what has arrived, until it breaks; waits at most `wait` for the first.
    ///
    /// # Errors
    /// Only what does not pass by itself.
    pub fn poll(
        &mut self,
        mut wait: Duration,
        visit: &mut dyn FnMut(RecordEvent) -> ControlFlow<()>,
    ) -> Result<(), KafkaError> {
        while let Some(message) = self.queue.wait(wait) {
            if let Some(event) = self.event(&message)?
                && visit(event).is_break()
            {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn event(&mut self, message: &Message) -> Result<Option<RecordEvent>, KafkaError> {
        if message.code() == Code::NONE {
            return Ok(Some(RecordEvent::Record(stored(message))));
        }
        match notice(message.code()) {
            Notice::End => {
                Ok(Some(RecordEvent::End(Partition::new(message.partition()), Offset::new(message.offset()))))
            }
            Notice::Transient => {
                self.transient.log(&self.client, message);
                Ok(None)
            }
            Notice::OutOfRange => {
                let text = format!("records were deleted while they were read ({}); try again", message.error_text());
                Err(KafkaError { kind: KafkaErrorKind::Retry, message: text })
            }
            Notice::Stop(kind) => {
                let text = format!("cannot read records: {} ({})", message.error_text(), message.code());
                Err(KafkaError { kind, message: text })
            }
        }
    }
}

fn stored(message: &Message) -> StoredRecord {
    let mut headers = Vec::new();
    message.visit_headers(&mut |name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
    StoredRecord {
        partition: Partition::new(message.partition()),
        offset: Offset::new(message.offset()),
        timestamp: message.timestamp().map(Timestamp::new),
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers,
    }
}
