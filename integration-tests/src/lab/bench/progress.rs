//! How far a program has come with its work.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::reader;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// There is no coordinator just now.
const COORDINATOR: [RDKafkaErrorCode; 3] = [
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
];

/// What tells it.
pub(super) enum Progress {
    /// The group's committed offsets. The input has no transaction markers, so their sum is the number of records that were
    /// processed. Asking costs the broker one small request.
    Committed(Committed),
    /// The outputs that readers of committed records see, of a program that is not done when its input is.
    Visible(Visible),
}

impl Progress {
    /// How many records are done, or how many outputs can be seen.
    pub(super) fn records(&self) -> Result<u64> {
        match self {
            Self::Committed(committed) => committed.records(),
            Self::Visible(visible) => visible.records(),
        }
    }
}

/// Asks for one group's offsets.
pub(super) struct Committed {
    client: BaseConsumer,
    partitions: TopicPartitionList,
    known: Cell<u64>,
}

impl Committed {
    /// Of this group for this topic.
    pub(super) fn new(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Result<Self> {
        // Answers at once, also while a transaction is open.
        let client = reader::client(bootstrap, group, &[("isolation.level", "read_uncommitted")])?;
        Ok(Self { client, partitions: all(topic, partitions), known: Cell::default() })
    }

    /// How many records are committed as processed.
    pub(super) fn records(&self) -> Result<u64> {
        match self.client.committed_offsets(self.partitions.clone(), REQUEST_TIMEOUT) {
            Ok(committed) => {
                let offset =
                    |offset| if let Offset::Offset(offset) = offset { u64::try_from(offset).ok() } else { None };
                self.known.set(committed.elements().iter().filter_map(|element| offset(element.offset())).sum());
            }
            // A group that is new: its coordinator has yet to be found.
            Err(error) if error.rdkafka_error_code().is_some_and(|code| COORDINATOR.contains(&code)) => {}
            Err(error) => return Err(error).context("fetch committed offsets"),
        }
        Ok(self.known.get())
    }
}

/// Reads a topic along.
pub(super) struct Visible {
    consumer: BaseConsumer,
    seen: Cell<u64>,
}

impl Visible {
    /// Of this topic, from its beginning.
    pub(super) fn new(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        let consumer = reader::client(bootstrap, "bench-visible", &[])?;
        reader::read(&consumer, topic, 0..partitions, Offset::Beginning)?;
        Ok(Self { consumer, seen: Cell::default() })
    }

    fn records(&self) -> Result<u64> {
        while let Some(record) = self.consumer.poll(Duration::ZERO) {
            record.context("read the outputs")?;
            self.seen.set(self.seen.get() + 1);
        }
        Ok(self.seen.get())
    }
}

fn all(topic: &str, partitions: i32) -> TopicPartitionList {
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition(topic, partition);
    }
    all
}
