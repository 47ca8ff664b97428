//! What can go wrong with a record, said so that a person can act on it.

use std::error::Error;
use std::fmt;

/// An error that an operator returns. Any error converts into it with `?`.
///
/// What follows (stop, skip, retry, dead letter) is the topology's policy, not the operator's code.
///
/// ```
/// use processor_core::prelude::*;
///
/// fn parse(record: Record<String, String>, ctx: &mut Context<'_, String, u32>) -> Result<(), OperatorError> {
///     let value: u32 = record.value.trim().parse()?; // any error
///     if value > 100 {
///         return Err(OperatorError::message(format_args!("{value} is more than 100 %")));
///     }
///     ctx.forward(record.with_value(value))
/// }
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, Utf8)).process("parse", parse).sink("out", "out", (Utf8, DecimalText));
/// # topology.on_failure(FailurePolicy::skip());
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, String>("in");
/// for value in ["7", "x", "101"] {
///     input.pipe_at(secs(1), "a", value);
/// }
/// assert_eq!(driver.output::<String, u32>("out").values(), [7]);
/// let said: Vec<_> = driver.skipped().into_iter().map(|failure| failure.message).collect();
/// assert_eq!(said, ["invalid digit found in string", "101 is more than 100 %"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OperatorError(Cause);

enum Cause {
    User(Box<dyn Error + Send + Sync>),
    /// The failure is already written down in the task: an operator further down or a store failed.
    Recorded,
}

impl OperatorError {
    /// An error made of words.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// fn checked(percent: u32) -> Result<u32, OperatorError> {
    ///     if percent > 100 {
    ///         return Err(OperatorError::message(format_args!("{percent} is more than 100 %")));
    ///     }
    ///     Ok(percent)
    /// }
    ///
    /// assert_eq!(checked(101).unwrap_err().to_string(), "101 is more than 100 %");
    /// ```
    pub fn message(message: impl fmt::Display) -> Self {
        Self(Cause::User(message.to_string().into()))
    }

    pub(crate) fn recorded() -> Self {
        Self(Cause::Recorded)
    }

    /// The user's error; `None` where the failure was written down before.
    pub(crate) fn into_user(self) -> Option<Box<dyn Error + Send + Sync>> {
        match self.0 {
            Cause::User(error) => Some(error),
            Cause::Recorded => None,
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for OperatorError {
    fn from(error: E) -> Self {
        Self(Cause::User(Box::new(error)))
    }
}

impl fmt::Debug for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::User(error) => write!(f, "{error}"),
            Cause::Recorded => f.write_str("a later operator or a store failed"),
        }
    }
}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Bytes that a codec cannot read, or a value it cannot write.
///
/// ```
/// use processor_core::prelude::*;
///
/// let decoded: Result<i64, CodecError> = DecimalText.decode(Some(b"seven"));
/// let said = "'seven' is not a whole number that 64 bits hold, such as -42";
/// assert_eq!(decoded, Err(CodecError::new(said)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

impl CodecError {
    /// Says what was wrong.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// fn percent(text: &str) -> Result<u8, CodecError> {
    ///     text.parse().map_err(|_| CodecError::new(format_args!("'{text}' is no percentage")))
    /// }
    ///
    /// assert_eq!(percent("7"), Ok(7));
    /// assert_eq!(percent("much").unwrap_err().to_string(), "'much' is no percentage");
    /// ```
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// Why a record could not be processed. The runtime adds where it stood (topic-partition@offset).
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::error::FailureKind;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// let mut topology = Topology::builder();
/// topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
/// let driver = TopologyTestDriver::new(topology.build()?)?;
/// let failure = driver.input::<String, i64>("in").try_pipe_bytes(Some(secs(1)), None, None).unwrap_err();
/// assert_eq!((failure.kind, &*failure.node), (FailureKind::Decode, "in"));
/// assert!(failure.to_string().starts_with("decoding failed in node 'in': the key: it is null"), "{failure}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind} in node '{node}': {message}")]
pub struct RecordFailure {
    /// What kind of failure, and so whose fault.
    pub kind: FailureKind,
    /// The name of the node.
    pub node: String,
    /// What the codec, the operator or the store said.
    pub message: String,
}

/// What kind of failure a [`RecordFailure`] is.
///
/// ```
/// use processor_core::error::FailureKind;
///
/// // A failure that is not the record's fault stops the task, whatever its policy.
/// assert!(FailureKind::WITH_POLICY.contains(&FailureKind::Panic));
/// assert!(!FailureKind::WITH_POLICY.contains(&FailureKind::Wiring));
/// assert_eq!(FailureKind::Produce.word(), "produce"); // in dead letters and metrics
/// assert_eq!(FailureKind::Produce.to_string(), "writing the output failed"); // in messages
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The record's bytes are not what the source's codec reads.
    Decode,
    /// The operator returned an error.
    Process,
    /// The operator panicked.
    Panic,
    /// The record has no timestamp that time could go by.
    Timestamp,
    /// An output or a store value could not be encoded, or a sink was told to write to a place that is not there.
    Encode,
    /// The broker refused an output for what it is, such as too large.
    Produce,
    /// A punctuation failed, so there is no record to blame.
    Punctuate,
    /// The operator asked for a store or a node that the topology does not give it: the next record would ask again, so no
    /// policy applies.
    Wiring,
    /// Local state could not be read: not the record's fault.
    State {
        /// Whether the stored bytes are damaged, so that the task's state must be wiped and restored.
        corrupt: bool,
    },
}

impl FailureKind {
    /// The kinds whose failures a policy decides about. Of the others none is the record's fault, and the task stops.
    ///
    /// ```
    /// use processor_core::error::FailureKind;
    ///
    /// let unreadable = FailureKind::State { corrupt: true };
    /// assert!(FailureKind::WITH_POLICY.contains(&FailureKind::Decode)); // it may be skipped
    /// assert!(!FailureKind::WITH_POLICY.contains(&unreadable)); // not the record's fault
    /// ```
    pub const WITH_POLICY: [Self; 6] =
        [Self::Decode, Self::Process, Self::Panic, Self::Timestamp, Self::Encode, Self::Produce];

    /// One word for it, as dead letters and metrics carry it.
    ///
    /// ```
    /// use processor_core::error::FailureKind;
    ///
    /// let words = FailureKind::WITH_POLICY.map(FailureKind::word);
    /// assert_eq!(words, ["decode", "process", "panic", "timestamp", "encode", "produce"]);
    /// ```
    pub fn word(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Process => "process",
            Self::Panic => "panic",
            Self::Timestamp => "timestamp",
            Self::Encode => "encode",
            Self::Produce => "produce",
            Self::Punctuate => "punctuate",
            Self::Wiring => "wiring",
            Self::State { .. } => "state",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode => "decoding failed",
            Self::Process => "the operator failed",
            Self::Panic => "the operator panicked",
            Self::Timestamp => "the timestamp is invalid",
            Self::Encode => "encoding failed",
            Self::Produce => "writing the output failed",
            Self::Punctuate => "a punctuation failed",
            Self::Wiring => "the topology does not fit the operator",
            Self::State { corrupt: false } => "reading state failed",
            Self::State { corrupt: true } => "local state is damaged",
        })
    }
}
