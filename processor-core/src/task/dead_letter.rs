//! Dead letters: a record that failed, as it came, with headers that say where it came from, where it failed and why.
//!
//! Whoever reads a topic of dead letters finds them by these names;
//! [`DeadLetter::header`](crate::testing::DeadLetter::header) has an example.

use crate::error::RecordFailure;
use crate::ids::OutputIndex;
use crate::operator::TaskEnv;
use crate::record::{InputRecord, TargetPartition};

/// The topic that the record came from.
pub const TOPIC_HEADER: &str = "processor-topic";
/// Its partition, in decimal.
pub const PARTITION_HEADER: &str = "processor-partition";
/// Its offset, in decimal.
pub const OFFSET_HEADER: &str = "processor-offset";
/// Its timestamp in milliseconds, in decimal; empty where it had none.
pub const TIMESTAMP_HEADER: &str = "processor-timestamp";
/// The task that it failed in.
pub const TASK_HEADER: &str = "processor-task";
/// The node that it failed in.
pub const NODE_HEADER: &str = "processor-node";
/// How it failed: [`FailureKind::word`](crate::error::FailureKind::word).
pub const KIND_HEADER: &str = "processor-kind";
/// What was said, at most [`ERROR_BYTES_MAX`] bytes of it.
pub const ERROR_HEADER: &str = "processor-error";

/// How many bytes of an error's text a dead letter carries.
pub const ERROR_BYTES_MAX: usize = 2_048;

/// Puts the dead letter of the record in process into the outbox: to the partition that its key belongs to; without a
/// key to the one with the number of its own, if the topic has it.
pub(super) fn push(env: &mut TaskEnv, topic: OutputIndex, record: &dyn InputRecord, failure: &RecordFailure) {
    let origin = &env.origin;
    let partition = origin.partition.to_string();
    let offset = origin.offset.to_string();
    let timestamp = record.timestamp().map(|timestamp| timestamp.to_string()).unwrap_or_default();
    let task = env.task.to_string();
    let headers: [(&str, &[u8]); 8] = [
        (TOPIC_HEADER, origin.topic.as_bytes()),
        (PARTITION_HEADER, partition.as_bytes()),
        (OFFSET_HEADER, offset.as_bytes()),
        (TIMESTAMP_HEADER, timestamp.as_bytes()),
        (TASK_HEADER, task.as_bytes()),
        (NODE_HEADER, failure.node.as_bytes()),
        (KIND_HEADER, failure.kind.word().as_bytes()),
        (ERROR_HEADER, bounded(&failure.message).as_bytes()),
    ];
    let same_number = origin.partition.get() < env.partitions_of(topic) as i32;
    let to = match record.key() {
        None if same_number => TargetPartition::Exactly(origin.partition),
        None | Some(_) => TargetPartition::ByKey,
    };
    env.outbox.push_original(topic, to, record, &headers);
}

fn bounded(message: &str) -> &str {
    &message[..message.floor_char_boundary(ERROR_BYTES_MAX)]
}
