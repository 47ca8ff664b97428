//! How far a group has come, by its committed offsets.
//!
//! The input has no transaction markers, so the sum of the offsets is the number of records that were processed. Asking
//! costs the broker one small request.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for one group's offsets.
pub(super) struct Committed {
    client: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Committed {
    /// Of this group for this topic.
    pub(super) fn new(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Result<Self> {
        let mut all = TopicPartitionList::new();
        all.add_partition_range(topic, 0, partitions - 1);
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", "bench-committed")
            .set("group.id", group)
            .set("isolation.level", "read_uncommitted") // answers at once, also while a transaction is open
            .set("enable.auto.commit", "false")
            .create()
            .with_context(|| format!("create a client for {bootstrap}"))?;
        Ok(Self { client, partitions: all })
    }

    /// How many records are committed as processed.
    pub(super) fn records(&self) -> Result<u64> {
        let committed = self.client.committed_offsets(self.partitions.clone(), REQUEST_TIMEOUT);
        let committed = committed.context("fetch committed offsets")?;
        let offset = |offset| if let Offset::Offset(offset) = offset { u64::try_from(offset).ok() } else { None };
        Ok(committed.elements().iter().filter_map(|element| offset(element.offset())).sum())
    }
}
