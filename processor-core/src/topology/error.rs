//! What `build()` and `for_application()` refuse, with the node and the remedy.

/// A topology that cannot run.
///
/// ```
/// use processor_core::prelude::*;
///
/// fn topology(window: usize) -> Result<Topology, TopologyError> {
///     if window == 0 {
///         return Err(TopologyError::Other("--window must be at least 1".to_owned()));
///     }
///     let mut topology = Topology::builder();
///     let _ = topology.source("readings", "readings", (Utf8, JavaDouble));
///     topology.build()
/// }
///
/// assert_eq!(topology(0).unwrap_err().to_string(), "--window must be at least 1");
/// let unconnected = topology(10).unwrap_err();
/// assert_eq!(unconnected, TopologyError::Unconnected("readings".to_owned()));
/// assert!(unconnected.to_string().contains("add an operator or a sink behind it"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// Two nodes have the same name.
    #[error("two nodes are named '{0}': give each node a name of its own, logs and dead letters name it")]
    DuplicateNode(String),
    /// Two sources read the same topic.
    #[error("sources '{0}' and '{1}' both read topic '{2}': use one source and connect both operators to it")]
    DuplicateInput(String, String, String),
    /// A name has a character that topics and directories do not take.
    #[error(
        "{what} '{name}' may hold only letters, digits, '.', '_' and '-', at most 200 of them, and at least one that is not '.'"
    )]
    IllegalName {
        /// Of what: a node, a store or a topic.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// One store name stands for two kinds of store.
    #[error("store '{0}' is defined twice with different types: use one constant for it")]
    StoreTypes(String),
    /// One store name stands for stores that are kept in different ways.
    #[error("store '{0}' is defined twice with different places, changelogs or formats: use one constant for it")]
    StoreSpecs(String),
    /// A setting of a store's changelog topic that cannot be.
    #[error("store '{store}' cannot set {setting} of its changelog topic: {why}")]
    StoreSetting {
        /// The store.
        store: &'static str,
        /// The setting's name.
        setting: &'static str,
        /// What is wrong with it, and the remedy.
        why: &'static str,
    },
    /// A node was given one store twice.
    #[error("node '{node}' is given store '{store}' twice: remove one .with_store(…)")]
    StoreTwice {
        /// The node.
        node: String,
        /// The store.
        store: String,
    },
    /// A source leads nowhere, or a node that only hands records on.
    #[error("nothing is connected to node '{0}': add an operator or a sink behind it, or remove it")]
    Unconnected(String),
    /// A source reads nothing, or a sink writes nowhere.
    #[error("node '{0}' has no topic: name at least one")]
    NoTopic(String),
    /// A sink or a source names one topic twice.
    #[error("node '{node}' names topic '{topic}' twice: name each once")]
    TopicTwice {
        /// The node.
        node: String,
        /// The topic.
        topic: String,
    },
    /// Streams of two builders were merged.
    #[error("'{0}' merges streams of two topologies: build both with one builder")]
    ForeignStream(String),
    /// A stream was merged with itself.
    #[error("stream '{0}' is merged with itself: every record would come twice; remove the merge")]
    MergedWithItself(String),
    /// A source was told twice where timestamps come from.
    #[error("source '{0}' is told twice where its timestamps come from: keep one")]
    TimestampsTwice(String),
    /// Dead letters would be read as input.
    #[error(
        "topic '{topic}' takes the dead letters of node '{node}' and is an input: they would fail again and again; use another topic"
    )]
    DeadLetterIsInput {
        /// The node whose policy names it.
        node: String,
        /// The topic.
        topic: String,
    },
    /// An internal topic without partitions.
    #[error("repartition '{0}' is given no partitions: give it at least one")]
    NoPartitions(String),
    /// There is no source.
    #[error("the topology has no source: add one with .source(name, topic, (key codec, value codec))")]
    Empty,
    /// More of something than the formats hold.
    #[error("the topology has {count} {what}; the most is {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// An internal topic's name is longer than Kafka takes.
    #[error("the name of topic '{topic}' has {bytes} bytes, and Kafka takes 249: shorten the application id or the repartition's name", bytes = topic.len())]
    TopicTooLong {
        /// The topic.
        topic: String,
    },
    /// An internal topic has the name of one that the topology reads or writes.
    #[error(
        "topic '{0}' is internal to the application, and also named by a source, a sink or a policy: give the other topic, or the repartition, another name"
    )]
    InternalTopicTaken(String),
    /// An application's own reason, such as an argument that makes no sense.
    #[error("{0}")]
    Other(String),
}
