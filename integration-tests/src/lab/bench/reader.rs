//! Clients that read, and do nothing else.

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A client of this group, which sees what is committed unless it is told otherwise.
pub(super) fn client(bootstrap: &str, group: &str, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", group)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().with_context(|| format!("create a client for {bootstrap}"))
}

/// Reads these partitions from there.
pub(super) fn read(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    from: Offset,
) -> Result<()> {
    let mut all = TopicPartitionList::new();
    for partition in partitions {
        all.add_partition_offset(topic, partition, from).context("a place to read from")?;
    }
    consumer.assign(&all).with_context(|| format!("read {topic}"))
}
