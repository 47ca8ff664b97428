//! Dead letters: a record that failed, as it came, with headers that say where it came from, where it failed and why.
//!
//! Whoever reads a topic of dead letters finds them by these names;
//! [`DeadLetter::header`](crate::testing::DeadLetter::header) has an example.

use crate::error::RecordFailure;
use crate::ids::OutputIndex;
use crate::operator::TaskEnv;
use crate::record::{InputRecord, TargetPartition};

/// The topic that the record came from.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::TOPIC_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(TOPIC_HEADER), Some("numbers"));
/// ```
pub const TOPIC_HEADER: &str = "processor-topic";

/// Its partition, in decimal.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::PARTITION_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(PARTITION_HEADER), Some("0"));
/// ```
pub const PARTITION_HEADER: &str = "processor-partition";

/// Its offset, in decimal.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::OFFSET_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(OFFSET_HEADER), Some("1")); // the second record of its partition
/// ```
pub const OFFSET_HEADER: &str = "processor-offset";

/// Its timestamp in milliseconds, in decimal; empty where it had none.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::TIMESTAMP_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(TIMESTAMP_HEADER), Some("2000")); // two seconds
/// ```
pub const TIMESTAMP_HEADER: &str = "processor-timestamp";

/// The task that it failed in.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::TASK_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(TASK_HEADER), Some("numbers_0")); // sub-topology and partition
/// ```
pub const TASK_HEADER: &str = "processor-task";

/// The node that it failed in.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::NODE_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(NODE_HEADER), Some("sum"));
/// ```
pub const NODE_HEADER: &str = "processor-node";

/// How it failed: [`FailureKind::word`](crate::error::FailureKind::word).
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::error::FailureKind;
/// use processor_core::task::dead_letter::KIND_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// let word = letter.header(KIND_HEADER);
/// let kind = FailureKind::WITH_POLICY.into_iter().find(|kind| Some(kind.word()) == word);
/// assert_eq!(kind, Some(FailureKind::Process));
/// ```
pub const KIND_HEADER: &str = "processor-kind";

/// What was said, at most [`ERROR_BYTES_MAX`] bytes of it.
///
/// ```
#[doc = include_str!("example.txt")]
/// use processor_core::task::dead_letter::ERROR_HEADER;
///
/// let letter = dead_letter_of(-1); // the operator "sum" takes no negative numbers
/// assert_eq!(letter.header(ERROR_HEADER), Some("-1 is negative"));
/// ```
pub const ERROR_HEADER: &str = "processor-error";

/// How many bytes of an error's text a dead letter carries at most; no character is cut in two.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// use processor_core::task::dead_letter::{ERROR_BYTES_MAX, ERROR_HEADER};
///
/// # let mut topology = Topology::builder();
/// # topology.on_failure(FailurePolicy::dead_letter("failed"));
/// # let source = topology.source("in", "in", (Utf8, Utf8));
/// source.each("refuse", |record, _: &mut Context<'_, String, String>| {
///     Err(OperatorError::message(record.value))
/// });
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// driver.input::<String, String>("in").pipe_at(secs(1), "ann", "€".repeat(5_000));
/// let letter = driver.dead_letters().remove(0);
/// let bytes = letter.header(ERROR_HEADER).map(str::len);
/// assert_eq!((bytes, ERROR_BYTES_MAX), (Some(2_046), 2_048)); // whole characters
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
