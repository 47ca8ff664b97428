//! What tests and the demo do to a real Kafka: make topics, produce the workloads, read what is visible.
//!
//! Built on rdkafka without tokio: blocking calls, each with a time limit. Reading never commits and never joins a
//! group, so it disturbs nobody. `fetch_watermarks` means the last stable offset under `read_committed` and the high
//! watermark under `read_uncommitted`; the difference is how open transactions are seen.

mod admin;
mod live;
mod observer;
mod paced;
mod read;
mod workload;

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;

pub use self::admin::{alter_topic, block_on, create_topic, delete_topic, describe_topic};
pub use self::live::ConcurrentReader;
pub use self::observer::{Observer, Uncommitted, Watermarks};
pub use self::paced::{Deliveries, Pace, PacedProducer};
pub use self::workload::{
    Workload, partition_of, produce_json_readings, produce_ledger, produce_lines, produce_orders, produce_readings,
    produce_transfers, produce_values,
};

/// One request to a healthy or recovering cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Waiting for a cluster to get somewhere: elections, transaction time-outs.
const PATIENCE: Duration = Duration::from_mins(2);

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Records of committed transactions and of none, up to the last stable offset.
    ReadCommitted,
    /// All records, aborted ones and those of open transactions included, up to the high watermark.
    ReadUncommitted,
}

impl Isolation {
    fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// A consumer for `assign` only: it tells ends, starts where it is told or fails, and commits nothing.
fn reader(bootstrap: &str, isolation: Isolation, group: &str) -> Result<BaseConsumer> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "oracle")
        .set("group.id", group)
        .set("isolation.level", isolation.as_str())
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .create();
    consumer.with_context(|| format!("create a reader for {bootstrap}"))
}
