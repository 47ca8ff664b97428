//! Topologies: which operators a record passes, from its input topics to the outputs.
//!
//! A topology is described with typed stream handles, checked by [`TopologyBuilder::build`], named for an application,
//! and then instantiated for every task. Names, never ordinals, reach topics and disk, so that adding an operator does not
//! move anybody's state.

mod application;
mod branch;
mod builder;
mod check;
mod codec_pair;
mod describe;
mod draft;
mod error;
mod layout;
mod nodes;
mod sink;
mod source;
mod stream;

pub use application::{ApplicationTopology, InternalPartitions, InternalTopic};
pub use branch::Branches;
pub use builder::{Topics, TopologyBuilder};
pub(crate) use codec_pair::CodecPair;
pub(crate) use draft::{Draft, TopicName};
pub use error::TopologyError;
pub(crate) use nodes::SourceNode;
pub use sink::Sink;
pub use source::Source;
pub use stream::{Processed, Repartitioned, Stream};

use std::sync::Arc;

use crate::error::FailureKind;
use crate::ids::{InputIndex, NodeIndex, OutputIndex, StoreIndex, TaskId};
use crate::protocol::failure::Policy;
use crate::store::{AnyOverlay, StoreJson, StoreSpec};

/// A checked topology. It can be looked at; [`for_application`](Self::for_application) makes one that can run. Cheap to
/// clone.
///
/// ```
/// use processor_core::prelude::*;
///
/// fn copies(input: &str) -> Result<Topology, TopologyError> {
///     let mut topology = Topology::builder();
///     topology.source("in", input, (Raw, Raw)).sink("out", "copies", (Raw, Raw));
///     topology.build()
/// }
///
/// let topology = copies("originals")?;
/// assert_eq!(&*topology.subtopologies()[0].name, "in");
/// assert!(topology.describe().contains("Source: in (topics: [originals])"));
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone)]
pub struct Topology(Arc<Parts>);

pub(crate) struct Parts {
    /// In order, as are the outputs.
    pub(crate) inputs: Vec<TopicName>,
    pub(crate) outputs: Vec<TopicName>,
    pub(crate) subtopologies: Vec<SubTopology>,
    pub(crate) nodes: Vec<Draft>,
    pub(crate) policy: Policy,
}

/// Operators that are connected with each other: the unit that becomes a task for every partition of its inputs.
///
/// ```
/// use processor_core::prelude::*;
///
/// const SEEN: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("seen").in_memory();
///
/// let mut topology = Topology::builder();
/// topology
///     .source("words", "words", (Utf8, Utf8))
///     .each("count", |word, ctx: &mut Context<'_, String, String>| {
///         ctx.store(&SEEN).update(&word.value, |count| *count += 1)?;
///         Ok(())
///     })
///     .with_store(&SEEN);
/// let topology = topology.build()?;
/// let part = &topology.subtopologies()[0];
/// assert_eq!((&*part.name, &*part.stores[0]), ("words", "seen"));
/// assert!(part.store_specs[0].in_memory && part.store_specs[0].changelog.is_some());
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SubTopology {
    /// The name of its alphabetically first source node.
    pub name: Arc<str>,
    /// The topics it reads; they must have the same number of partitions.
    pub inputs: Vec<InputIndex>,
    /// The names of its stores, in the order of [`StoreIndex`]: that of the nodes, and of their `with_store` calls.
    pub stores: Vec<Arc<str>>,
    /// Where each of its stores lives and what its changelog is like, in the same order.
    pub store_specs: Vec<StoreSpec>,
    pub(crate) store_makers: Vec<StoreMaker>,
    /// For each input, in their order, the source node that reads it.
    pub(crate) sources: Vec<(InputIndex, usize)>,
    pub(crate) nodes: Vec<usize>,
}

/// Makes a store's overlay: (its index in the task, the bound of its cache in bytes).
#[derive(Clone)]
pub(crate) struct StoreMaker(pub(crate) Arc<dyn Fn(StoreIndex, usize) -> Box<dyn AnyOverlay> + Send + Sync>);

impl std::fmt::Debug for StoreMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreMaker")
    }
}

impl SubTopology {
    /// How to show what is in a store.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::ids::StoreIndex;
    /// # use processor_core::store::ValueFormat;
    /// # const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals");
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("in", "in", (Utf8, JavaLong))
    /// #     .each("total", |_, _: &mut Context<'_, String, i64>| Ok(()))
    /// #     .with_store(&TOTALS); // from String to i64
    /// # let topology = topology.build()?;
    /// let json = topology.subtopologies()[0].store_json(StoreIndex::new(0));
    /// let mut stored = Vec::new();
    /// ValueFormat::Bincode.encode(&-7_i64, &mut stored)?;
    /// assert_eq!((json.key(b"ann")?.as_str(), json.value(&stored)?.as_i64()), (Some("ann"), Some(-7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If it has no such store.
    pub fn store_json(&self, store: StoreIndex) -> StoreJson {
        (self.store_makers[store.slot()].0)(store, 0).json()
    }
}

impl Topology {
    /// Starts a topology.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology.source("in", "orders", (Utf8, Utf8)).sink("copy", "copies", (Utf8, Utf8));
    /// assert!(topology.build().is_ok());
    /// ```
    pub fn builder() -> TopologyBuilder {
        TopologyBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The sub-topologies, by name.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (JavaLong, Utf8))
    ///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8)) // another task from here on
    ///     .sink("out", "out", (Utf8, Utf8));
    /// let topology = topology.build()?;
    /// let names: Vec<&str> = topology.subtopologies().iter().map(|part| &*part.name).collect();
    /// assert_eq!(names, ["by-customer", "orders"]);
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn subtopologies(&self) -> &[SubTopology] {
        &self.0.subtopologies
    }

    /// The sub-topology that a task belongs to.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # let mut topology = Topology::builder();
    /// # topology.source("orders", "orders", (Utf8, Utf8)).sink("out", "out", (Utf8, Utf8));
    /// # let topology = topology.build()?;
    /// let task = TaskId::new("orders", Partition::new(3));
    /// assert_eq!(topology.subtopology_of(&task).inputs.len(), 1);
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Panics
    /// If the task is not of this topology.
    pub fn subtopology_of(&self, task: &TaskId) -> &SubTopology {
        let found = self.0.subtopologies.iter().find(|subtopology| subtopology.name == task.subtopology);
        found.unwrap_or_else(|| panic!("task {task} is not of this topology"))
    }

    /// The name of a node.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::ids::NodeIndex;
    /// # let mut topology = Topology::builder();
    /// # topology.source("orders", "orders", (Utf8, Utf8)).sink("out", "out", (Utf8, Utf8));
    /// # let topology = topology.build()?;
    /// assert_eq!(topology.node_name(NodeIndex::new(0)), "orders"); // in the order in which they were added
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node_name(&self, node: NodeIndex) -> &str {
        &self.0.nodes[node.slot()].name
    }

    pub(crate) fn nodes(&self) -> &[Draft] {
        &self.0.nodes
    }

    /// What becomes of records that fail in a node in this way.
    pub(crate) fn policy(&self, node: NodeIndex, kind: FailureKind) -> &Policy {
        let draft = &self.0.nodes[node.slot()];
        let of_timestamps = draft.source().and_then(|source| source.invalid_timestamps.as_ref());
        let special = of_timestamps.filter(|_| kind == FailureKind::Timestamp);
        special.or(draft.policy.as_ref()).unwrap_or(&self.0.policy)
    }

    /// The sub-topology that reads an input, and the source node that does.
    fn reader_of(&self, input: InputIndex) -> (&SubTopology, usize) {
        let source = |part: &SubTopology| part.sources.iter().find(|(of, _)| *of == input).map(|&(_, node)| node);
        let mut readers = self.0.subtopologies.iter().filter_map(|part| Some((part, source(part)?)));
        readers.next().expect("every input is read by a source")
    }

    /// Where a sink's topics are among the outputs.
    fn outputs_of(&self, topics: &[TopicName]) -> Vec<OutputIndex> {
        let place = |topic| self.0.outputs.binary_search(topic).expect("outputs holds every sink's topics");
        let index = |place| OutputIndex::new(u16::try_from(place).expect("build() bounds the number of outputs"));
        topics.iter().map(|topic| index(place(topic))).collect()
    }

    /// The sub-topology that a node is in.
    fn part_of(&self, node: usize) -> &SubTopology {
        let mut parts = self.0.subtopologies.iter();
        parts.find(|part| part.nodes.contains(&node)).expect("every node is in a sub-topology")
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.subtopologies).finish()
    }
}
