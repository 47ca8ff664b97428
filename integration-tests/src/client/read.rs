//! Reads ranges of a topic, record by record, through failures of brokers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Isolation, PATIENCE, Watermarks, reader};
use crate::oracle::LogRecord;

const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Gives every record of the ranges to `take`, in order for each partition.
pub(super) fn read_ranges(
    bootstrap: &str,
    topic: &str,
    isolation: Isolation,
    ranges: &BTreeMap<i32, Watermarks>,
    mut take: impl FnMut(i32, LogRecord),
) -> Result<()> {
    let mut missing: BTreeMap<i32, Watermarks> = ranges
        .iter()
        .filter(|(_, range)| range.low < range.end)
        .map(|(partition, range)| (*partition, *range))
        .collect();
    let consumer = reader(bootstrap, isolation, "oracle-reader")?;
    assign(&consumer, topic, missing.iter().map(|(partition, range)| (*partition, range.low)))?;

    let mut waiting = Waiting::new(topic);
    while !missing.is_empty() {
        let Some(event) = waiting.next(&consumer)? else { continue };
        match event {
            Event::Record(partition, record) => {
                let Some(range) = missing.get(&partition) else { continue };
                let (offset, end) = (record.offset, range.end);
                if offset < end {
                    take(partition, record);
                }
                // The last offsets of a range may be markers or aborted records, which no reader gets: then the end of
                // the partition, or a record beyond the range, says that the range was read.
                if offset + 1 >= end {
                    missing.remove(&partition);
                }
            }
            Event::End(partition) => drop(missing.remove(&partition)),
        }
    }
    Ok(())
}

/// Assigns partitions at absolute offsets.
pub(super) fn assign(consumer: &BaseConsumer, topic: &str, starts: impl Iterator<Item = (i32, i64)>) -> Result<()> {
    let mut partitions = TopicPartitionList::new();
    for (partition, start) in starts {
        let added = partitions.add_partition_offset(topic, partition, Offset::Offset(start));
        added.with_context(|| format!("start {topic}-{partition} at {start}"))?;
    }
    consumer.assign(&partitions).with_context(|| format!("assign partitions of {topic}"))
}

/// What a reader of one topic gets.
pub(super) enum Event {
    /// A record of a partition.
    Record(i32, LogRecord),
    /// Everything that can be seen of a partition has been delivered.
    End(i32),
}

/// Polls through failures of brokers, for as long as something arrives now and then.
pub(super) struct Waiting<'a> {
    topic: &'a str,
    deadline: Instant,
    last_error: Option<KafkaError>,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(topic: &'a str) -> Self {
        Self { topic, deadline: Instant::now() + PATIENCE, last_error: None }
    }

    /// Waiting for nothing in particular is no failure.
    pub(super) fn idle(&mut self) {
        self.deadline = Instant::now() + PATIENCE;
    }

    /// The next event, or `None` if there was none for a moment.
    pub(super) fn next(&mut self, consumer: &BaseConsumer) -> Result<Option<Event>> {
        let event = match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => Event::Record(message.partition(), log_record(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Event::End(partition),
            Some(Err(error)) => {
                return if lasting(&error) {
                    Err(error).with_context(|| self.reading())
                } else {
                    self.failed(Some(error))
                };
            }
            None => return self.failed(None),
        };
        self.idle();
        Ok(Some(event))
    }

    fn failed(&mut self, error: Option<KafkaError>) -> Result<Option<Event>> {
        self.last_error = error.or(self.last_error.take());
        if Instant::now() < self.deadline {
            return Ok(None);
        }
        match self.last_error.take() {
            Some(error) => Err(error).with_context(|| format!("{}: nothing for {PATIENCE:?}", self.reading())),
            None => bail!("{}: nothing for {PATIENCE:?}", self.reading()),
        }
    }

    fn reading(&self) -> String {
        format!("read {}", self.topic)
    }
}

/// Errors that waiting does not heal.
fn lasting(error: &KafkaError) -> bool {
    let lasting = [
        RDKafkaErrorCode::AutoOffsetReset,
        RDKafkaErrorCode::OffsetOutOfRange,
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownPartition,
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::Fatal,
    ];
    error.rdkafka_error_code().is_some_and(|code| lasting.contains(&code))
}

fn log_record(message: &BorrowedMessage<'_>) -> LogRecord {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    LogRecord {
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
