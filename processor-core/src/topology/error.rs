//! What `build()` refuses, with the node and the remedy.

/// A topology that cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// Two nodes have the same name.
    #[error("two nodes are named '{0}': give each node its own name, state and metrics are kept under it")]
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
    /// A store is used by sub-topologies that share nothing else.
    #[error(
        "store '{0}' is used by nodes that are not connected with each other: state belongs to one task; give each its own store"
    )]
    StoreShared(String),
    /// A source leads nowhere.
    #[error("nothing is connected to node '{0}': add an operator or a sink behind it, or remove it")]
    Unconnected(String),
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
    /// An application's own reason, such as an argument that makes no sense.
    #[error("{0}")]
    Other(String),
}
