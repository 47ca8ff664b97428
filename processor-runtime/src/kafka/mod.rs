//! Kafka, as the runtime needs it: the traits of the seam, with their contracts.
//!
//! It is the runtime's own, and no stable API, but for what a [`Config`](crate::config::Config) holds of it:
//! [`ClientProperties`](client_properties::ClientProperties) and [`GroupProtocol`](cluster::GroupProtocol).
//!
//! Everything above this module is written against these traits and takes them as type parameters, so that the same
//! loop, protocol and restore code runs on a real cluster ([`cluster`]) and on a model of one in a single thread.
//! This directory alone names rdkafka, and its module `ffi` alone holds unsafe code.
//!
//! None of the calls here may block longer than the `wait` it is given (plus what the operating system takes), because
//! the thread that makes them must return to [`GroupConsumer::poll`].

pub mod admin;
mod advice;
mod bounded;
pub mod changelog;
pub mod client_properties;
pub mod cluster;
pub mod consumer;
mod deliveries;
mod faults;
mod ffi;
pub mod owners;
mod patience;
pub mod producer;
mod properties;
mod questions;
pub mod records;
mod requests;
mod stable_ends;
mod transient;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{ChangelogOffset, InputIndex, Offset, OutputIndex, Partition, Timestamp, TopicPartition};
use processor_core::record::{Headers, InputRecord, TargetPartition};

use crate::status::Unstable;

/// A way to reach a cluster; makes the clients of a stream thread.
pub trait Kafka: Send + Sync + 'static {
    /// The group member that reads the inputs.
    type Consumer: GroupConsumer;
    /// The producer that holds the transactions.
    type Producer: TransactionalProducer<GroupMetadata = <Self::Consumer as GroupConsumer>::GroupMetadata>;
    /// The reader of changelogs.
    type Changelog: ChangelogReader;

    /// Makes a member of the application's group that is subscribed to `inputs`, in the order of [`InputIndex`].
    /// Nothing is joined before the first poll.
    fn consumer(&self, member: &Member, inputs: &[Arc<str>]) -> Result<Self::Consumer, KafkaError>;

    /// Makes a producer with this id, not yet initialised, whose [`OutputIndex`]es and changelogs are `topics`.
    fn producer(&self, id: &TransactionalId, topics: &[Arc<str>]) -> Result<Self::Producer, KafkaError>;

    /// Makes a changelog reader of the given isolation. `client_id` names it in the broker's logs.
    fn changelog(&self, client_id: &str, isolation: Isolation) -> Result<Self::Changelog, KafkaError>;
}

/// Who a stream thread is in the consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `client.id`: what the group shows of it, see [`ClientId`](processor_core::protocol::client_id::ClientId).
    pub client_id: String,
    /// `group.instance.id`, where the instance id was configured: the thread is then a static member.
    pub group_instance_id: Option<String>,
}

/// How many producers a thread has. They work in turn.
pub const PRODUCERS: usize = 2;

/// A `transactional.id`.
///
/// That of a thread's first producer stands for the thread: in its client id, in the metadata of the offsets that it commits,
/// and on the changelog records of its transactions. Whoever fences a thread fences [both](Self::of_both).
///
/// ```
/// use processor_runtime::config::transactional_id;
///
/// let ids = transactional_id("copier", "worker-1", 0).of_both().map(|id| id.to_string());
/// assert_eq!(ids, ["copier:worker-1:0", "copier:worker-1:0:b"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionalId(pub Arc<str>);

impl TransactionalId {
    /// Those of the thread that this one stands for.
    pub fn of_both(&self) -> [Self; PRODUCERS] {
        [self.clone(), Self(Arc::from(format!("{}:b", self.0)))]
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Only records of committed transactions, up to the first open one.
    ReadCommitted,
    /// All records.
    ReadUncommitted,
}

/// A member of the application's consumer group.
///
/// The group decides what is *owned*; [`fetch`](Self::fetch) decides what is *read*. Nothing is read before it is asked
/// for with an absolute offset, so no committed offset is ever looked up, and none reset, behind the runtime's back.
pub trait GroupConsumer {
    /// A polled record. It borrows nothing, and keeps its bytes until it is dropped.
    type Record: PolledRecord;
    /// Proof of membership to send along with offsets.
    type GroupMetadata: GroupMetadata;

    /// Serves the group and collects records.
    ///
    /// Waits at most `wait` for something to happen, then takes what is there without waiting further, up to
    /// `records_max` records and about `bytes_max` bytes of keys and values.
    ///
    /// # Contract
    /// - Events are in the order they happened, and all of them happened before the first of the records: an event
    ///   ends the collecting of records, and records of an ownership that ended are not returned.
    /// - Records of one partition come in offset order, from the offset last given to `fetch`.
    /// - This is the only call during which ownership changes.
    ///
    /// # Errors
    /// Only what ends the client's life (kind `Fatal`, `FencedInstance`) or needs a person (`Config`); what passes by
    /// itself, such as a lost connection, is logged and retried inside.
    fn poll(
        &mut self,
        wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<Self::Record>,
        events: &mut Vec<GroupEvent>,
    ) -> Result<(), KafkaError>;

    /// Collects more records inside a transaction: what is there, or what comes within `wait`. `false`: nothing more comes
    /// before the next [`poll`](Self::poll), however long one waits.
    ///
    /// # Contract
    /// - Ownership does not change, and the group gets no answer: what it decides, and what goes wrong, comes with the next
    ///   `poll`. Nothing more is collected from when it is known.
    /// - Records are as those of `poll`.
    fn poll_more(
        &mut self,
        wait: Duration,
        records_max: usize,
        bytes_max: usize,
        records: &mut Vec<Self::Record>,
    ) -> bool;

    /// Reads exactly these partitions, each from this absolute offset; what is not named is not read. Records that were
    /// fetched before and not yet polled are dropped.
    fn fetch(&mut self, positions: &[(TopicPartition, Offset)]) -> Result<(), KafkaError>;

    /// Asks something of the cluster without waiting. Answers come from [`answers`](Self::answers), in any order.
    fn ask(&mut self, ticket: Ticket, question: &Question) -> Result<(), KafkaError>;

    /// Takes the answers that have arrived. Never waits.
    fn answers(&mut self, answers: &mut Vec<(Ticket, Result<Answer, KafkaError>)>);

    /// The membership as the group coordinator knows it now.
    fn group_metadata(&self) -> Result<Self::GroupMetadata, KafkaError>;

    /// The end of an input partition (high watermark) as of the last fetch; asks nobody. `None`: not known.
    fn known_end(&self, _partition: &TopicPartition) -> Option<Offset> {
        None
    }

    /// Whether all that the log of an input partition was known to hold when it was last fetched has been polled, by a task
    /// that stands at `next`: markers and aborted records count as polled, an open transaction as more to come. Asks nobody.
    fn is_at_end(&self, partition: &TopicPartition, next: Offset) -> bool;

    /// What an open transaction holds back of an input partition, as of a few seconds ago; asks nobody. `None`: not known,
    /// or not asked for when the member was made.
    fn unstable(&self, _partition: &TopicPartition) -> Option<Unstable> {
        None
    }

    /// Leaves the group on purpose, so that partitions move at once. Waits at most `wait`. Without this call a static
    /// member keeps its partitions until its session times out.
    fn leave(&mut self, wait: Duration) -> Result<(), KafkaError>;
}

/// A polled record knows where it comes from.
pub trait PolledRecord: InputRecord {
    /// The input topic, as given to [`Kafka::consumer`].
    fn input(&self) -> InputIndex;
    /// The partition.
    fn partition(&self) -> Partition;
}

/// Proof of membership (`generation` and `member_id`) that the broker checks in `TxnOffsetCommit`.
pub trait GroupMetadata {
    /// The membership it proves.
    fn membership(&self) -> Membership;
}

/// A place in the group: of one generation, under one member id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The generation; negative means: not a member.
    pub generation: i32,
    /// The member id; empty means: not a member.
    pub member_id: String,
}

impl Membership {
    /// Of nobody: what a client holds that never joined.
    pub fn none() -> Self {
        Self { generation: -1, member_id: String::new() }
    }

    /// Whether the broker would check it at all: `(-1, "")` is accepted for any live group and fences nothing.
    pub fn is_checked(&self) -> bool {
        self.generation >= 0 && !self.member_id.is_empty()
    }
}

/// A change that the group, or a partition's log, made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// These partitions, and only these, are owned from now on (eager protocol: the whole list). None is fetched yet.
    Assigned {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// The membership that goes with them.
        membership: Membership,
    },
    /// Nothing is owned any more, and nothing is fetched. `lost`: others may own it already.
    Revoked {
        /// Whether the group took the partitions away without waiting for this member.
        lost: bool,
    },
    /// The log has no record at the fetched offset: retention deleted input that was not processed, or the topic was
    /// deleted and made again.
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// What the client said.
        reason: String,
    },
}

/// Numbers a question; answers to numbers of an earlier assignment are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Something to ask the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The group's committed offsets. `stable`: not while a transaction that holds an offset of the partition is open
    /// (`require_stable`); such a partition is answered with [`Committed::Unstable`].
    Committed {
        /// Of these partitions.
        partitions: Vec<TopicPartition>,
        /// Whether open transactions count.
        stable: bool,
    },
    /// Where these logs begin and end for a `ReadUncommitted` reader (log start, high watermark).
    Bounds {
        /// Of these partitions.
        partitions: Vec<TopicPartition>,
    },
    /// The client ids of the group's members.
    Members,
}

/// An answer. A partition of the question that it does not hold could not be answered now, and may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Committed`].
    Committed(Vec<(TopicPartition, Committed)>),
    /// To [`Question::Bounds`].
    Bounds(Vec<(TopicPartition, LogBounds)>),
    /// To [`Question::Members`].
    Members(Vec<String>),
}

/// What the group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// This offset, with this metadata.
    At {
        /// The next record to process.
        offset: Offset,
        /// The string that was committed with it.
        metadata: String,
    },
    /// Nothing.
    Nothing,
    /// A transaction that holds an offset of this partition is open: ask again.
    Unstable,
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// The offset of the first record still there.
    pub start: i64,
    /// The offset behind the last record (high watermark).
    pub end: i64,
}

/// A producer with a transactional id.
///
/// The order of calls is `init` until [`Progress::Done`], then any number of `begin` → `send`… → `drain` →
/// `send_offsets` → `commit`, or `abort` instead of the rest. `transaction/` holds the types that keep this order.
pub trait TransactionalProducer {
    /// What [`GroupConsumer::group_metadata`] gives.
    type GroupMetadata: GroupMetadata;

    /// Initialises transactions: fences every older producer with this id, aborts or completes what it left open.
    /// May be called again, and again, until it is done.
    fn init(&mut self, wait: Duration) -> Result<Progress, TxnError>;

    /// Begins a transaction; local. Forgets the deliveries and the taint of the one before.
    fn begin(&mut self) -> Result<(), TxnError>;

    /// Hands over one record; copies its bytes. Waits only while the client's queue is full.
    fn send(&mut self, record: &ProducerRecord<'_>) -> Result<(), TxnError>;

    /// Waits until every record sent so far is acknowledged or has failed.
    ///
    /// # Errors
    /// `TimedOut` while some are outstanding; `Abortable` (or worse) with the first failed record's place and cause.
    fn drain(&mut self, wait: Duration) -> Result<(), TxnError>;

    /// The offset behind the last record delivered under this tag since `begin`; exact after `drain` said `Ok`.
    fn delivered_end(&self, tag: DeliveryTag) -> Option<i64>;

    /// The first numbered record since `begin` that was refused for what it is.
    fn refused(&self) -> Option<RefusedRecord>;

    /// Adds the offsets to the transaction. May be repeated with the same arguments after `Retriable` or `TimedOut`.
    /// Where the client itself does not come back in time, the answer is `Fatal`: the producer must not be used again.
    fn send_offsets(
        &mut self,
        offsets: &[OffsetToCommit<'_>],
        group: &Self::GroupMetadata,
        wait: Duration,
    ) -> Result<(), TxnError>;

    /// Commits. On `Ok`, outputs, changelog and offsets are visible together, each partition as its marker is written.
    /// After any error the outcome is unknown, and the producer must not be used again.
    fn commit(&mut self, wait: Duration) -> Result<(), TxnError>;

    /// Aborts. On `Ok` nothing of the transaction is or becomes visible to `ReadCommitted` readers.
    fn abort(&mut self, wait: Duration) -> Result<(), TxnError>;

    /// The requests of this producer that may still arrive at a broker late (EO-11).
    fn taint(&self) -> Taint;
}

/// Whether a resumable call has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again.
    Pending,
    /// Done.
    Done,
}

/// A record for the producer.
#[derive(Clone, Copy, Debug)]
pub struct ProducerRecord<'a> {
    /// The topic, as an index into the topics given to [`Kafka::producer`].
    pub topic: OutputIndex,
    /// The partition.
    pub partition: TargetPartition,
    /// The timestamp; at least 1, since librdkafka takes 0 for "now".
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: RecordHeaders<'a>,
    /// Under which tag the delivery is remembered.
    pub tag: DeliveryTag,
    /// Which record this is, so that the broker's refusal of it has a name.
    pub number: RecordNumber,
}

/// Numbers the records of a transaction whose refusal can be put down to an input record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordNumber(pub u32);

impl RecordNumber {
    /// For records whose refusal nobody can be blamed for.
    pub const NONE: Self = Self(0);
}

/// A record that was refused for what it is, such as too large: it would be refused again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Which one.
    pub number: RecordNumber,
    /// Where and why, for people.
    pub reason: String,
}

/// The headers of a record for the producer.
#[derive(Clone, Copy, Debug, Default)]
pub enum RecordHeaders<'a> {
    /// None, which costs nothing.
    #[default]
    None,
    /// One.
    One(&'a str, &'a [u8]),
    /// Those of an output.
    Of(Headers<'a>),
    /// Those of a record that was read.
    Read(&'a [Header]),
}

/// A header of a record that was read: its name, and its value, which may be null.
pub type Header = (String, Option<Vec<u8>>);

impl<'a> RecordHeaders<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Of(headers) => headers.len(),
            Self::Read(headers) => headers.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits them in order: name, and value, which may be null.
    pub fn visit(&self, mut visit: impl FnMut(&'a str, Option<&'a [u8]>)) {
        match self {
            Self::None => {}
            Self::One(name, value) => visit(name, Some(value)),
            Self::Of(headers) => {
                for (name, value) in headers.iter() {
                    visit(name, value);
                }
            }
            Self::Read(headers) => headers.iter().for_each(|(name, value)| visit(name, value.as_deref())),
        }
    }
}

/// Groups deliveries whose end offset is wanted. Tags are small numbers from 0: they index a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryTag(pub u16);

impl DeliveryTag {
    /// For records whose offset nobody asks for.
    pub const UNTRACKED: Self = Self(u16::MAX);
}

/// An offset that goes into a transaction. Always absolute: librdkafka sends nothing for one that is not, and says OK.
#[derive(Clone, Debug)]
pub struct OffsetToCommit<'a> {
    /// The input partition.
    pub partition: &'a TopicPartition,
    /// The next record to process.
    pub offset: Offset,
    /// What travels with it; under 1,024 bytes.
    pub metadata: &'a str,
}

/// Requests of a producer since `begin` that failed in transport or have no answer.
///
/// librdkafka speaks a transaction protocol in which the broker cannot tell a late copy of such a request from a new
/// one of the next transaction; so a tainted producer is not used for another transaction (EO-11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Of `AddPartitionsToTxn`, `AddOffsetsToTxn`, `TxnOffsetCommit` or `EndTxn`: the first one's name.
    pub control: Option<&'static str>,
    /// Whether a `Produce` is among them, or a record was refused by its broker (which leaves a gap in the sequence numbers
    /// that fails the next transaction). It matters where the transaction does not commit.
    pub produce: bool,
}

impl Taint {
    /// The request's name; "none" without a taint.
    pub fn api(&self) -> &'static str {
        match self.control {
            Some(control) => control,
            None if self.produce => "Produce",
            None => "none",
        }
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.api())
    }
}

/// Reads changelog partitions from given positions, in one isolation.
pub trait ChangelogReader {
    /// Reads exactly these partitions, each from this position; what is not named is not read.
    fn read(&mut self, positions: &[(TopicPartition, ChangelogOffset)]) -> Result<(), KafkaError>;

    /// Calls `visit` for what has arrived, until it breaks; waits at most `wait` for the first.
    ///
    /// # Errors
    /// Only what does not pass by itself.
    fn poll(
        &mut self,
        wait: Duration,
        visit: &mut dyn FnMut(ChangelogEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), KafkaError>;
}

/// What a changelog reader met.
#[derive(Clone, Debug)]
pub enum ChangelogEvent<'a> {
    /// A record.
    Record {
        /// Of this topic,
        topic: &'a str,
        /// this partition,
        partition: Partition,
        /// at this offset.
        offset: ChangelogOffset,
        /// The key.
        key: Option<&'a [u8]>,
        /// The value; `None` is a tombstone.
        value: Option<&'a [u8]>,
        /// The transactional id in the header [`TRANSACTIONAL_ID_HEADER`], where the record has it.
        transactional_id: Option<&'a [u8]>,
    },
    /// The reader stands at the end that its isolation lets it see; control records and aborted ones are behind it.
    End {
        /// Of this topic,
        topic: &'a str,
        /// this partition.
        partition: Partition,
        /// The next offset to read.
        position: ChangelogOffset,
    },
    /// The log has nothing at the position that was asked for.
    OutOfRange {
        /// Of this topic,
        topic: &'a str,
        /// this partition.
        partition: Partition,
    },
}

impl ChangelogEvent<'_> {
    /// How many bytes of keys and values it carries.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Record { key, value, .. } => key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len),
            Self::End { .. } | Self::OutOfRange { .. } => 0,
        }
    }
}

/// The header on the first changelog record of a transaction; its value is the transactional id. A reader that is
/// blocked by an open transaction learns from it whom to fence.
pub const TRANSACTIONAL_ID_HEADER: &str = "processor-transactional-id";

/// An error of a client outside transactions. Its kind is what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct KafkaError {
    /// What to do.
    pub kind: KafkaErrorKind,
    /// What happened, where, and what to do next.
    pub message: String,
}

/// What to do about a [`KafkaError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaErrorKind {
    /// Passes by itself: try again.
    Retry,
    /// A person must change a setting, a topic or a right.
    Config,
    /// Another live member uses the same `group.instance.id`: stop.
    FencedInstance,
    /// The client is beyond use: stop.
    Fatal,
}

/// An error of a transactional call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call}: {message} ({code})")]
pub struct TxnError {
    /// The flags and the code, sorted into what the protocol decides by.
    pub kind: TxnErrorKind,
    /// The call that failed.
    pub call: &'static str,
    /// The error's name at Kafka or librdkafka, such as `INVALID_PRODUCER_EPOCH`.
    pub code: String,
    /// The client's own words.
    pub message: String,
}

pub use processor_core::protocol::outcome::TxnErrorKind;
