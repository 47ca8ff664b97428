//! Newtypes for every number and name that could be confused with another one.
//!
//! An offset of an input topic and an offset of a changelog topic are both 64-bit integers, and mixing them up loses
//! data without a trace; so each has its own type and none converts into the other.

use std::fmt;
use std::sync::Arc;

/// Declares a transparent integer newtype with the conversions and the formatting that all of them share.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            ///
            /// ```
            #[doc = concat!("use processor_core::ids::", stringify!($name), ";")]
            ///
            #[doc = concat!("let seven = ", stringify!($name), "::new(7);")]
            /// assert_eq!(seven.to_string(), "7");
            /// ```
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The bare number, for the wire and for display.
            ///
            /// ```
            #[doc = concat!("use processor_core::ids::", stringify!($name), ";")]
            ///
            #[doc = concat!("let seven = ", stringify!($name), "::new(7);")]
            /// assert_eq!(seven.get().to_be_bytes().last(), Some(&7));
            /// ```
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A partition number of a topic, from 0.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(Partition::new(3).to_string(), "3");
    /// ```
    ///
    /// It is no other number:
    ///
    /// ```compile_fail
    /// # use processor_core::prelude::*;
    /// let task = TaskId::new("orders", Offset::new(3));
    /// ```
    Partition(i32)
);
number!(
    /// A position in an input partition: of a record, or (as a committed offset) of the next record to process.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let last = Offset::new(41); // of the last record that was processed
    /// assert_eq!(last.next().get(), 42); // what is committed then
    /// ```
    Offset(i64)
);
number!(
    /// A position in a changelog partition; as a bound it names the next record to read.
    ///
    /// ```
    /// use processor_core::ids::ChangelogOffset;
    ///
    /// assert!(ChangelogOffset::new(7) < ChangelogOffset::new(7).next());
    /// ```
    ChangelogOffset(i64)
);
number!(
    /// Milliseconds since 1970-01-01 UTC, as Kafka counts them. A record whose timestamp is negative fails.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// /// The full hour that a time belongs to.
    /// fn hour(time: Timestamp) -> Timestamp {
    ///     Timestamp::new(time.get() - time.get().rem_euclid(3_600_000))
    /// }
    ///
    /// assert_eq!(hour(Timestamp::new(3_600_123)), Timestamp::new(3_600_000));
    /// ```
    Timestamp(i64)
);
number!(
    /// Counts the committed transactions that touched a task; it never goes back (EO-8).
    ///
    /// ```
    /// use processor_core::ids::BatchId;
    ///
    /// assert_eq!(BatchId::NONE.next(), BatchId::new(1));
    /// ```
    BatchId(u64)
);
number!(
    /// Where an input topic stands in the topology's list of input topics.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology.source("in", ["b", "a"], (Utf8, Utf8)).sink("out", "out", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("app")?;
    /// let first = topology.subtopologies()[0].inputs[0];
    /// assert_eq!(&*topology.inputs()[first.slot()], "a"); // in alphabetical order
    /// # Ok::<(), TopologyError>(())
    /// ```
    InputIndex(u16)
);
number!(
    /// Where an output topic stands in the topology's list of output topics.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// let orders = topology.source("in", "orders", (Utf8, Utf8));
    /// orders.sink("copy", "copies", (Utf8, Utf8)).to_source_partition();
    /// let topology = topology.build()?.for_application("app")?;
    /// let part = &topology.subtopologies()[0];
    /// let (sink, output) = topology.sinks_to_source_partition(part).next().expect("there is one");
    /// assert_eq!((sink, &*topology.outputs()[output.slot()]), ("copy", "copies"));
    /// # Ok::<(), TopologyError>(())
    /// ```
    OutputIndex(u16)
);
number!(
    /// Where a node stands in the topology's list of nodes. Never written to a topic or to disk: names are.
    ///
    /// ```
    /// use processor_core::ids::NodeIndex;
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology.source("in", "orders", (Utf8, Utf8)).sink("copy", "copies", (Utf8, Utf8));
    /// assert_eq!(topology.build()?.node_name(NodeIndex::new(1)), "copy");
    /// # Ok::<(), TopologyError>(())
    /// ```
    NodeIndex(u16)
);
number!(
    /// Where a store stands in its task's list of stores. Never written to a topic or to disk: names are.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::prelude::*;
    ///
    /// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals");
    /// const LIMITS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("limits");
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "orders", (Utf8, JavaLong))
    ///     .each("check", |_, _: &mut Context<'_, String, i64>| Ok(()))
    ///     .with_store(&TOTALS)
    ///     .with_store(&LIMITS);
    /// let topology = topology.build()?;
    /// let limits = StoreIndex::new(1); // in the order in which operators are given them
    /// assert_eq!(&*topology.subtopologies()[0].stores[limits.slot()], "limits");
    /// # Ok::<(), TopologyError>(())
    /// ```
    StoreIndex(u16)
);

impl Offset {
    /// The offset of the next record.
    ///
    /// ```
    /// use processor_core::ids::Offset;
    ///
    /// let processed = Offset::new(41);
    /// assert_eq!(processed.next(), Offset::new(42)); // what is committed for it
    /// ```
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ChangelogOffset {
    /// The position behind this record.
    ///
    /// ```
    /// use processor_core::ids::ChangelogOffset;
    ///
    /// let restored = ChangelogOffset::new(41); // the last record that was read
    /// assert_eq!(restored.next(), ChangelogOffset::new(42)); // where reading goes on
    /// ```
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BatchId {
    /// The id before the first batch.
    ///
    /// ```
    /// use processor_core::ids::BatchId;
    ///
    /// assert!(BatchId::NONE < BatchId::new(1), "the first batch is number 1");
    /// ```
    pub const NONE: Self = Self(0);

    /// The id of the batch after this one.
    ///
    /// ```
    /// use processor_core::ids::BatchId;
    ///
    /// let committed = BatchId::new(41);
    /// assert_eq!(committed.next(), BatchId::new(42));
    /// ```
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl InputIndex {
    /// The index as a list position.
    ///
    /// ```
    /// use processor_core::ids::InputIndex;
    ///
    /// let inputs = ["orders", "payments"];
    /// assert_eq!(inputs[InputIndex::new(1).slot()], "payments");
    /// ```
    pub fn slot(self) -> usize {
        usize::from(self.0)
    }
}

impl OutputIndex {
    /// The index as a list position.
    ///
    /// ```
    /// use processor_core::ids::OutputIndex;
    ///
    /// let outputs = ["accepted", "refused"];
    /// assert_eq!(outputs[OutputIndex::new(1).slot()], "refused");
    /// ```
    pub fn slot(self) -> usize {
        usize::from(self.0)
    }
}

impl NodeIndex {
    /// The index as a list position.
    ///
    /// ```
    /// use processor_core::ids::NodeIndex;
    ///
    /// let nodes = ["orders", "check", "accepted"];
    /// assert_eq!(nodes[NodeIndex::new(1).slot()], "check");
    /// ```
    pub fn slot(self) -> usize {
        usize::from(self.0)
    }
}

impl StoreIndex {
    /// The index as a list position.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    ///
    /// let stores = ["limits", "totals"];
    /// assert_eq!(stores[StoreIndex::new(1).slot()], "totals");
    /// ```
    pub fn slot(self) -> usize {
        usize::from(self.0)
    }
}

/// A partition of a topic.
///
/// ```
/// use processor_core::ids::{Partition, TopicPartition};
///
/// assert_eq!(TopicPartition::new("orders", Partition::new(3)).to_string(), "orders-3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: Partition,
}

impl TopicPartition {
    /// Names a partition of a topic.
    ///
    /// ```
    /// use processor_core::ids::{Partition, TopicPartition};
    ///
    /// let partition = TopicPartition::new("orders", Partition::new(3));
    /// assert_eq!((&*partition.topic, partition.partition.get()), ("orders", 3));
    /// ```
    pub fn new(topic: impl Into<Arc<str>>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A task: one sub-topology on one partition number of its input topics.
///
/// The sub-topology carries the name of its alphabetically first source node, so adding an operator elsewhere moves
/// neither state directories nor changelog topics. As text, and as the name of its state directory, it reads
/// `<sub-topology>_<partition>`; the part behind the last underscore is always the partition.
///
/// ```
/// use processor_core::prelude::*;
///
/// let task = TaskId::new("by_customer", Partition::new(3));
/// assert_eq!(task.to_string(), "by_customer_3");
/// assert!(task < TaskId::new("by_customer", Partition::new(10)), "in the order of the numbers");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The name of the sub-topology.
    pub subtopology: Arc<str>,
    /// The partition number shared by all inputs of the task.
    pub partition: Partition,
}

impl TaskId {
    /// Names a task.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let task = TaskId::new("by_customer", Partition::new(3));
    /// assert_eq!((&*task.subtopology, task.partition.get()), ("by_customer", 3));
    /// ```
    pub fn new(subtopology: impl Into<Arc<str>>, partition: Partition) -> Self {
        Self { subtopology: subtopology.into(), partition }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}
