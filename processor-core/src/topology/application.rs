//! A topology of one application: with the application's id, every topic has its name, and tasks can be made.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use super::check;
use super::draft::{Kind, TopicName};
use super::nodes::{Erased, SourceNode, Ways, Wiring};
use super::{SubTopology, Topology, TopologyError};
use crate::ids::{InputIndex, NodeIndex, OutputIndex, StoreIndex};

/// Kafka's bound on the name of a topic.
const TOPIC_BYTES_MAX: usize = 249;

/// A topology whose topics all have their names. Only such a one has tasks, so none can run without its application.
/// Cheap to clone; shared by all threads.
///
/// An application that is run with `processor_runtime::main` need not make one.
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut topology = Topology::builder();
/// topology
///     .source("orders", "orders", (JavaLong, Utf8))
///     .on_failure(FailurePolicy::dead_letter("orders-failed"))
///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
///     .sink("copy", "orders-by-customer", (Utf8, Utf8))
///     .to_source_partition();
/// let topology = topology.build()?.for_application("shop")?;
/// let names = |topics: &[std::sync::Arc<str>]| topics.iter().map(ToString::to_string).collect::<Vec<_>>();
/// assert_eq!(topology.application_id(), "shop");
/// assert_eq!(names(topology.inputs()), ["orders", "shop-by-customer-repartition"]);
/// assert_eq!(
///     names(topology.outputs()),
///     ["orders-by-customer", "orders-failed", "shop-by-customer-repartition"]
/// );
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone)]
pub struct ApplicationTopology {
    topology: Topology,
    names: Arc<Names>,
}

struct Names {
    application_id: String,
    inputs: Vec<Arc<str>>,
    outputs: Vec<Arc<str>>,
    internal: Vec<InternalTopic>,
}

/// A topic between two sub-topologies of an application. The application makes it, with `cleanup.policy=delete` and
/// `retention.ms=-1`: nothing of it may go before it is processed. What lies behind the committed offsets of the
/// application's group on it is purged.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::topology::InternalPartitions;
///
/// let mut topology = Topology::builder();
/// topology
///     .source("orders", "orders", (JavaLong, Utf8))
///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
///     .sink("copy", "orders-by-customer", (Utf8, Utf8));
/// let topology = topology.build()?.for_application("shop")?;
/// let internal = &topology.internal_topics()[0];
/// assert_eq!(&*internal.topic, "shop-by-customer-repartition");
/// assert_eq!(internal.topic, topology.inputs()[internal.input.slot()]);
/// assert_eq!(internal.topic, topology.outputs()[internal.output.slot()]);
/// assert_eq!(&*internal.read_by, "by-customer");
/// assert_eq!(internal.partitions, InternalPartitions::AsInputsOf("orders".into()));
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// `<application.id>-<name>-repartition`.
    pub topic: Arc<str>,
    /// Its place among the inputs.
    pub input: InputIndex,
    /// Its place among the outputs.
    pub output: OutputIndex,
    /// The sub-topology that reads it, whose committed offsets purge it.
    pub read_by: Arc<str>,
    /// How many partitions it is made with.
    pub partitions: InternalPartitions,
}

/// How many partitions an internal topic is made with.
///
/// [`Repartitioned::with_partitions`](super::Repartitioned::with_partitions) says another number.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::topology::InternalPartitions;
///
/// let mut topology = Topology::builder();
/// let orders = topology.source("orders", "orders", (JavaLong, Utf8));
/// let by_customer = orders.repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8));
/// by_customer.sink("copy", "copies", (Utf8, Utf8));
/// let topology = topology.build()?.for_application("shop")?;
/// let partitions = &topology.internal_topics()[0].partitions;
/// assert_eq!(*partitions, InternalPartitions::AsInputsOf("orders".into()));
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InternalPartitions {
    /// So many.
    Exactly(u32),
    /// As many as the inputs of the sub-topology of this name, which writes to it.
    AsInputsOf(Arc<str>),
}

impl Topology {
    /// Names the topics of the topology for an application.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// let words = topology.source("words", "words", (Utf8, Utf8));
    /// words.sink("copy", "shop-by-length-repartition", (Utf8, Utf8));
    /// words
    ///     .repartition("by-length", |word| word.value.len() as i64, (JavaLong, Utf8))
    ///     .sink("out", "out", (JavaLong, Utf8));
    /// let topology = topology.build()?;
    /// assert!(topology.for_application("other").is_ok());
    /// let taken = TopologyError::InternalTopicTaken("shop-by-length-repartition".to_owned());
    /// assert_eq!(topology.for_application("shop").err(), Some(taken));
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Errors
    /// The name of an internal topic is too long, or taken.
    pub fn for_application(&self, application_id: &str) -> Result<ApplicationTopology, TopologyError> {
        let resolve =
            |topics: &[TopicName]| topics.iter().map(|topic| Arc::from(topic.resolved(application_id))).collect();
        let (inputs, outputs): (Vec<Arc<str>>, Vec<Arc<str>>) = (resolve(&self.0.inputs), resolve(&self.0.outputs));
        let internal = internal_topics(self, application_id);
        let given = self.0.inputs.iter().chain(&self.0.outputs).filter_map(|topic| match topic {
            TopicName::Given(topic) => Some(topic.as_str()),
            TopicName::Repartition(_) => None,
        });
        let given: BTreeSet<&str> = given.collect();
        for InternalTopic { topic, .. } in &internal {
            if topic.len() > TOPIC_BYTES_MAX {
                return Err(TopologyError::TopicTooLong { topic: topic.to_string() });
            }
            if given.contains(&**topic) {
                return Err(TopologyError::InternalTopicTaken(topic.to_string()));
            }
        }
        let names = Names { application_id: application_id.to_owned(), inputs, outputs, internal };
        Ok(ApplicationTopology { topology: self.clone(), names: Arc::new(names) })
    }
}

fn internal_topics(topology: &Topology, application_id: &str) -> Vec<InternalTopic> {
    let mut found = Vec::new();
    for (writer, draft) in topology.0.nodes.iter().enumerate() {
        let topics = draft.sink().map_or(&[][..], |sink| &sink.topics);
        for name in topics.iter().filter(|topic| matches!(topic, TopicName::Repartition(_))) {
            let place = |topics: &[TopicName]| {
                let place = topics.binary_search(name).expect("an internal topic is written and read");
                u16::try_from(place).expect("build() bounds the number of topics")
            };
            let input = InputIndex::new(place(&topology.0.inputs));
            let (reader, source) = topology.reader_of(input);
            let partitions = topology.0.nodes[source].source().and_then(|source| source.partitions);
            let written_by = topology.part_of(writer).name.clone();
            found.push(InternalTopic {
                topic: Arc::from(name.resolved(application_id)),
                input,
                output: OutputIndex::new(place(&topology.0.outputs)),
                read_by: reader.name.clone(),
                partitions: partitions.map_or(InternalPartitions::AsInputsOf(written_by), InternalPartitions::Exactly),
            });
        }
    }
    found
}

impl ApplicationTopology {
    /// The application's id.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology.source("in", "orders", (Utf8, Utf8)).sink("copy", "copies", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(topology.application_id(), "shop");
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn application_id(&self) -> &str {
        &self.names.application_id
    }

    /// The input topics, in the order of [`InputIndex`].
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// let orders = topology.source("in", ["orders-us", "orders-eu"], (Utf8, Utf8));
    /// orders.sink("copy", "copies", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(topology.inputs(), ["orders-eu".into(), "orders-us".into()]);
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn inputs(&self) -> &[Arc<str>] {
        &self.names.inputs
    }

    /// The output topics, those of dead letters among them, in the order of [`OutputIndex`].
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::dead_letter("failed"));
    /// topology.source("in", "orders", (Utf8, Utf8)).sink("copy", "copies", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(topology.outputs(), ["copies".into(), "failed".into()]);
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn outputs(&self) -> &[Arc<str>] {
        &self.names.outputs
    }

    /// Those of them that get dead letters.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (Utf8, Utf8))
    ///     .on_failure(FailurePolicy::dead_letter("orders-failed"))
    ///     .sink("out", "checked-orders", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(topology.dead_letter_topics(), ["orders-failed"].into());
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn dead_letter_topics(&self) -> BTreeSet<&str> {
        check::dead_letter_topics(&self.topology.0.nodes, &self.topology.0.policy).map(|(_, topic)| topic).collect()
    }

    /// The topics that the application makes for itself, beside changelogs.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// let orders = topology.source("orders", "orders", (JavaLong, Utf8));
    /// orders
    ///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
    ///     .sink("copy", "copies", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(&*topology.internal_topics()[0].topic, "shop-by-customer-repartition");
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn internal_topics(&self) -> &[InternalTopic] {
        &self.names.internal
    }

    /// Whether the application makes a topic for itself, beside changelogs.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("orders", "orders", (JavaLong, Utf8))
    /// #     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
    /// #     .sink("copy", "orders-by-customer", (Utf8, Utf8));
    /// # let topology = topology.build()?.for_application("shop")?;
    /// assert!(topology.is_internal("shop-by-customer-repartition") && !topology.is_internal("orders"));
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn is_internal(&self, topic: &str) -> bool {
        self.names.internal.iter().any(|internal| *internal.topic == *topic)
    }

    /// How many partitions each internal topic needs, in the order of [`internal_topics`](Self::internal_topics), given
    /// those of the topics that are there; `None` where nothing tells it.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("orders", "orders", (JavaLong, Utf8))
    /// #     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
    /// #     .sink("copy", "orders-by-customer", (Utf8, Utf8));
    /// # let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(topology.internal_partitions(|topic| (topic == "orders").then_some(6)), [Some(6)]);
    /// assert_eq!(topology.internal_partitions(|_| None), [None]);
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn internal_partitions(&self, partitions_of: impl Fn(&str) -> Option<u32>) -> Vec<Option<u32>> {
        let mut known: BTreeMap<InputIndex, u32> = BTreeMap::new();
        for (topic, input) in self.inputs().iter().zip(0..) {
            known.extend(partitions_of(topic).map(|count| (InputIndex::new(input), count)));
        }
        // A topic may be as wide as one that is itself internal: each round settles at least one more.
        for _ in 0..self.internal_topics().len() {
            for internal in self.internal_topics() {
                let count = match &internal.partitions {
                    InternalPartitions::Exactly(count) => Some(*count),
                    InternalPartitions::AsInputsOf(name) => {
                        let writer = self.subtopologies().iter().find(|part| part.name == *name);
                        let inputs = writer.map_or(&[][..], |writer| &writer.inputs);
                        inputs.iter().find_map(|input| known.get(input).copied())
                    }
                };
                if let Some(count) = count {
                    known.entry(internal.input).or_insert(count);
                }
            }
        }
        self.internal_topics().iter().map(|internal| known.get(&internal.input).copied()).collect()
    }

    /// The sinks of a sub-topology that write to the partition with the number of the task's, once for each topic that they
    /// write to: that one needs at least as many partitions as there are tasks.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, Utf8)).sink("copy", "copies", (Utf8, Utf8)).to_source_partition();
    /// let topology = topology.build()?.for_application("copier")?;
    /// for (sink, output) in topology.sinks_to_source_partition(&topology.subtopologies()[0]) {
    ///     assert_eq!((sink, &*topology.outputs()[output.slot()]), ("copy", "copies"));
    /// }
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn sinks_to_source_partition<'a>(
        &'a self,
        part: &'a SubTopology,
    ) -> impl Iterator<Item = (&'a str, OutputIndex)> {
        let drafts = part.nodes.iter().map(move |&node| &self.topology.0.nodes[node]);
        drafts.flat_map(move |draft| {
            let topics = draft.sink().filter(|sink| sink.to_source_partition).map_or(&[][..], |sink| &sink.topics);
            self.topology.outputs_of(topics).into_iter().map(|output| (draft.name.as_str(), output))
        })
    }

    pub(crate) fn output_index(&self, given: &str) -> Option<OutputIndex> {
        let place = self.names.outputs.iter().position(|topic| **topic == *given)?;
        Some(OutputIndex::new(u16::try_from(place).expect("build() bounds the number of outputs")))
    }

    /// Makes the sources of a task, and behind them its nodes: for each source node its inputs.
    pub(crate) fn instantiate(&self, part: &SubTopology) -> Vec<(Box<dyn SourceNode>, Vec<InputIndex>)> {
        let mut instances = Instances { topology: &self.topology, part, shared: BTreeMap::new() };
        let mut by_node: BTreeMap<usize, Vec<InputIndex>> = BTreeMap::new();
        for &(input, node) in &part.sources {
            by_node.entry(node).or_default().push(input);
        }
        by_node.into_iter().map(|(node, inputs)| (instances.source(node), inputs)).collect()
    }
}

impl Deref for ApplicationTopology {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.topology
    }
}

impl std::fmt::Debug for ApplicationTopology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.topology, self.names.application_id)
    }
}

/// The nodes of one task, as they are made.
struct Instances<'a> {
    topology: &'a Topology,
    part: &'a SubTopology,
    /// Nodes with several parents that were made for the first of them.
    shared: BTreeMap<usize, Ways>,
}

impl Instances<'_> {
    fn source(&mut self, node: usize) -> Box<dyn SourceNode> {
        let wiring = self.wiring(node);
        let source = self.topology.0.nodes[node].source().expect("a sub-topology's sources are source nodes");
        (source.make)(wiring)
    }

    fn node(&mut self, node: usize) -> Erased {
        if let Some(ways) = self.shared.get_mut(&node) {
            return ways();
        }
        let wiring = self.wiring(node);
        let draft = &self.topology.0.nodes[node];
        let made = match &draft.kind {
            Kind::Process { make, .. } => make(wiring),
            Kind::Sink(sink) => (sink.make)(wiring, self.topology.outputs_of(&sink.topics)),
            Kind::Source(_) => unreachable!("no handle puts a source behind a node"),
        };
        if draft.parents.len() < 2 {
            return made;
        }
        let mut ways = made.ways();
        let first = ways();
        self.shared.insert(node, ways);
        first
    }

    fn wiring(&mut self, node: usize) -> Wiring {
        let draft = &self.topology.0.nodes[node];
        let stores = draft.stores.iter().map(|store| {
            let slot = self.part.stores.iter().position(|known| **known == *store.name);
            let slot = slot.expect("a node's stores are stores of its sub-topology");
            (store.name, StoreIndex::new(u16::try_from(slot).expect("build() bounds the number of stores")))
        });
        Wiring {
            index: NodeIndex::new(u16::try_from(node).expect("build() bounds the number of nodes")),
            name: Arc::from(draft.name.as_str()),
            stores: stores.collect(),
            children: draft.children.iter().map(|&child| self.node(child)).collect(),
        }
    }
}
