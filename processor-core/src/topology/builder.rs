//! The typed builder. A stream handle carries its key and value types, so that an operator or a sink of other types
//! does not compile; what the compiler cannot see, [`TopologyBuilder::build`] refuses.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::nodes::{self, SinkPartition};
use super::{Erased, Node, Parts, StoreMaker, SubTopology, Topology, TopologyError, Wiring};
use crate::codec::Codec;
use crate::ids::{InputIndex, OutputIndex};
use crate::operator::Operator;
use crate::store::{AnyOverlay, KeyValueStoreDef, Overlay, StoreKey, StoreSpec, StoreValue, StoreView};

/// The most stores a sub-topology may have: their changelog ends travel in the offset metadata, which has a bound.
const STORES_MAX: usize = 16;
/// The longest name of a node, a store or a topic; Kafka's bound for topics is 249.
const NAME_BYTES_MAX: usize = 200;

/// Builds a [`Topology`].
///
/// ```
/// use processor_core::prelude::*;
///
/// # struct Double;
/// # impl Operator for Double {
/// #     type KeyIn = String; type ValueIn = f64; type KeyOut = String; type ValueOut = f64;
/// #     fn process(&mut self, record: Record<String, f64>, ctx: &mut Context<'_, String, f64>) -> Result<(), OperatorError> {
/// #         let double = record.value * 2.0;
/// #         ctx.forward(record.with_value(double))
/// #     }
/// # }
/// let mut topology = Topology::builder();
/// topology
///     .source("readings", "readings", (Utf8, JavaDouble))
///     .process("double", || Double)
///     .sink("doubled", "doubled", (Utf8, JavaDouble))
///     .to_source_partition();
/// let topology = topology.build()?;
/// assert_eq!(&*topology.subtopologies()[0].name, "readings");
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Debug, Default)]
pub struct TopologyBuilder {
    graph: Rc<RefCell<Graph>>,
}

#[derive(Default)]
struct Graph {
    nodes: Vec<Draft>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.name)).finish()
    }
}

/// A node as it was described so far.
struct Draft {
    name: String,
    kind: Kind,
    children: Vec<usize>,
    stores: Vec<StoreDraft>,
}

enum Kind {
    Source {
        topic: String,
        make: Box<dyn Fn(Wiring) -> Erased + Send + Sync>,
    },
    Process {
        make: Box<dyn Fn(Wiring) -> Erased + Send + Sync>,
    },
    Sink {
        topic: String,
        partition: SinkPartition,
        make: Arc<dyn Fn(Wiring, OutputIndex, SinkPartition) -> Erased + Send + Sync>,
    },
}

struct StoreDraft {
    name: &'static str,
    types: (TypeId, TypeId),
    /// Or the setting that cannot be, and why.
    spec: Result<StoreSpec, (&'static str, &'static str)>,
    maker: StoreMaker,
    view: StoreView,
}

impl TopologyBuilder {
    /// Reads a topic. The name is the node's, and the first source's name is the sub-topology's: it stays the same for
    /// the life of the application's state.
    pub fn source<K, V, KC, VC>(
        &mut self,
        name: impl Into<String>,
        topic: impl Into<String>,
        (key, value): (KC, VC),
    ) -> Stream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
        KC: Codec<K>,
        VC: Codec<V>,
    {
        let make = Box::new(move |wiring| nodes::source::<K, V, KC, VC>(wiring, key.clone(), value.clone()));
        let node = add(&self.graph, name.into(), Kind::Source { topic: topic.into(), make }, None);
        Stream { graph: self.graph.clone(), node, types: PhantomData }
    }

    /// Checks the topology.
    ///
    /// # Errors
    /// The first thing that is wrong, with the node and the remedy.
    pub fn build(self) -> Result<Topology, TopologyError> {
        build(self.graph.take().nodes)
    }
}

fn add(graph: &RefCell<Graph>, name: String, kind: Kind, parent: Option<usize>) -> usize {
    let nodes = &mut graph.borrow_mut().nodes;
    let node = nodes.len();
    nodes.push(Draft { name, kind, children: Vec::new(), stores: Vec::new() });
    if let Some(parent) = parent {
        nodes[parent].children.push(node);
    }
    node
}

/// A stream of records of one key type and one value type.
#[derive(Debug)]
pub struct Stream<K, V> {
    graph: Rc<RefCell<Graph>>,
    node: usize,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Clone + 'static, V: Clone + 'static> Stream<K, V> {
    /// Passes every record through an operator; `factory` makes one for each task.
    pub fn process<O>(
        &self,
        name: impl Into<String>,
        factory: impl Fn() -> O + Send + Sync + 'static,
    ) -> Processed<O::KeyOut, O::ValueOut>
    where
        O: Operator<KeyIn = K, ValueIn = V>,
    {
        let make = Box::new(move |wiring| nodes::process(wiring, factory()));
        let node = add(&self.graph, name.into(), Kind::Process { make }, Some(self.node));
        Processed(Stream { graph: self.graph.clone(), node, types: PhantomData })
    }

    /// Writes every record to a topic, to the partition that the key's hash names (murmur2, as Kafka's Java clients do).
    pub fn sink<KC: Codec<K>, VC: Codec<V>>(
        &self,
        name: impl Into<String>,
        topic: impl Into<String>,
        (key, value): (KC, VC),
    ) -> Sink {
        let make = Arc::new(move |wiring, topic, partition| {
            nodes::sink::<K, V, KC, VC>(wiring, topic, partition, key.clone(), value.clone())
        });
        let kind = Kind::Sink { topic: topic.into(), partition: SinkPartition::ByKey, make };
        Sink { node: add(&self.graph, name.into(), kind, Some(self.node)), graph: self.graph.clone() }
    }
}

/// The stream behind an operator, which can be given stores.
#[derive(Debug)]
pub struct Processed<K, V>(Stream<K, V>);

impl<K, V> Processed<K, V> {
    /// Gives the operator a store: in RocksDB, with a changelog topic `<application.id>-<store>-changelog`, unless its
    /// definition says otherwise.
    #[must_use = "the stream goes on from here"]
    pub fn with_store<SK: StoreKey, SV: StoreValue>(self, definition: &KeyValueStoreDef<SK, SV>) -> Self {
        let values = definition.values();
        let maker = StoreMaker(Arc::new(move |index, cache_bytes_max| {
            Box::new(Overlay::<SK, SV>::new(index, values, cache_bytes_max)) as Box<dyn AnyOverlay>
        }));
        let (name, spec) = (definition.name(), definition.spec());
        let types = (TypeId::of::<SK>(), TypeId::of::<SV>());
        let store = StoreDraft { name, types, spec, maker, view: StoreView::of::<SK, SV>() };
        self.0.graph.borrow_mut().nodes[self.0.node].stores.push(store);
        self
    }
}

impl<K, V> Deref for Processed<K, V> {
    type Target = Stream<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A sink, for what can be said about it.
#[derive(Debug)]
pub struct Sink {
    graph: Rc<RefCell<Graph>>,
    node: usize,
}

impl Sink {
    /// Writes to the partition with the number that the input record came from. The topic needs as many partitions.
    pub fn to_source_partition(self) {
        if let Kind::Sink { partition, .. } = &mut self.graph.borrow_mut().nodes[self.node].kind {
            *partition = SinkPartition::OfSource;
        }
    }
}

fn build(drafts: Vec<Draft>) -> Result<Topology, TopologyError> {
    check_names(&drafts)?;
    check_connections(&drafts)?;
    let inputs = check_inputs(&drafts)?;
    let outputs = outputs_of(&drafts);
    bounded("input topics", inputs.len(), usize::from(u16::MAX))?;
    bounded("output topics", outputs.len(), usize::from(u16::MAX) / 2)?;
    let subtopologies = subtopologies_of(&drafts, &inputs)?;
    let nodes = drafts.into_iter().map(|draft| node_of(draft, &outputs)).collect();
    Ok(Topology::new(Parts { inputs, outputs, subtopologies, nodes }))
}

fn check_names(drafts: &[Draft]) -> Result<(), TopologyError> {
    let mut seen = std::collections::BTreeSet::new();
    for draft in drafts {
        check_name("a node's name", &draft.name)?;
        if !seen.insert(&draft.name) {
            return Err(TopologyError::DuplicateNode(draft.name.clone()));
        }
        draft.stores.iter().try_for_each(|store| check_name("a store's name", store.name))?;
        match &draft.kind {
            Kind::Source { topic, .. } | Kind::Sink { topic, .. } => check_name("a topic's name", topic)?,
            Kind::Process { .. } => {}
        }
    }
    Ok(())
}

fn check_name(what: &'static str, name: &str) -> Result<(), TopologyError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= NAME_BYTES_MAX && name.chars().all(legal) && name.chars().any(|c| c != '.') {
        Ok(())
    } else {
        Err(TopologyError::IllegalName { what, name: name.to_owned() })
    }
}

fn check_connections(drafts: &[Draft]) -> Result<(), TopologyError> {
    let dangling = drafts.iter().find(|draft| matches!(draft.kind, Kind::Source { .. }) && draft.children.is_empty());
    dangling.map_or(Ok(()), |draft| Err(TopologyError::Unconnected(draft.name.clone())))
}

fn check_inputs(drafts: &[Draft]) -> Result<Vec<Arc<str>>, TopologyError> {
    let mut by_topic: BTreeMap<&str, &str> = BTreeMap::new();
    for draft in drafts {
        if let Kind::Source { topic, .. } = &draft.kind
            && let Some(other) = by_topic.insert(topic, &draft.name)
        {
            return Err(TopologyError::DuplicateInput(other.to_owned(), draft.name.clone(), topic.clone()));
        }
    }
    if by_topic.is_empty() {
        return Err(TopologyError::Empty);
    }
    Ok(by_topic.into_keys().map(Arc::from).collect())
}

fn outputs_of(drafts: &[Draft]) -> Vec<Arc<str>> {
    let topics = drafts.iter().filter_map(|draft| match &draft.kind {
        Kind::Sink { topic, .. } => Some(topic.as_str()),
        Kind::Source { .. } | Kind::Process { .. } => None,
    });
    let topics: std::collections::BTreeSet<&str> = topics.collect();
    topics.into_iter().map(Arc::from).collect()
}

fn bounded(what: &'static str, count: usize, most: usize) -> Result<(), TopologyError> {
    if count <= most { Ok(()) } else { Err(TopologyError::TooMany { what, count, most }) }
}

/// Sources and what is reachable from them; sources that share a store belong together.
fn subtopologies_of(drafts: &[Draft], inputs: &[Arc<str>]) -> Result<Vec<SubTopology>, TopologyError> {
    let mut owner: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (root, draft) in drafts.iter().enumerate() {
        let Kind::Source { topic, .. } = &draft.kind else { continue };
        let input = inputs.binary_search_by(|known| (**known).cmp(topic)).expect("inputs holds every source's topic");
        let input = InputIndex::new(u16::try_from(input).expect("build() bounds the number of inputs"));
        let mut subtopology = SubTopology {
            name: Arc::from(draft.name.as_str()),
            inputs: vec![input],
            stores: Vec::new(),
            store_specs: Vec::new(),
            store_makers: Vec::new(),
            store_views: Vec::new(),
            sources: vec![(input, root)],
        };
        collect_stores(drafts, root, root, &mut owner, &mut subtopology, &mut Vec::new())?;
        bounded("stores in one sub-topology", subtopology.stores.len(), STORES_MAX)?;
        found.push(subtopology);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn collect_stores(
    drafts: &[Draft],
    root: usize,
    node: usize,
    owner: &mut BTreeMap<&'static str, usize>,
    subtopology: &mut SubTopology,
    types: &mut Vec<(TypeId, TypeId)>,
) -> Result<(), TopologyError> {
    for store in &drafts[node].stores {
        if *owner.entry(store.name).or_insert(root) != root {
            return Err(TopologyError::StoreShared(store.name.to_owned()));
        }
        let spec = store.spec.clone().map_err(|(setting, why)| TopologyError::StoreSetting {
            store: store.name,
            setting,
            why,
        })?;
        match subtopology.stores.iter().position(|known| &**known == store.name) {
            Some(known) if types[known] != store.types => return Err(TopologyError::StoreTypes(store.name.to_owned())),
            Some(known) if subtopology.store_specs[known] != spec => {
                return Err(TopologyError::StoreSpecs(store.name.to_owned()));
            }
            Some(_) => {}
            None => {
                subtopology.stores.push(Arc::from(store.name));
                subtopology.store_specs.push(spec);
                subtopology.store_makers.push(store.maker.clone());
                subtopology.store_views.push(store.view);
                types.push(store.types);
            }
        }
    }
    drafts[node].children.iter().try_for_each(|&child| collect_stores(drafts, root, child, owner, subtopology, types))
}

fn node_of(draft: Draft, outputs: &[Arc<str>]) -> Node {
    let instantiate: Box<dyn Fn(Wiring) -> Erased + Send + Sync> = match draft.kind {
        Kind::Source { make, .. } | Kind::Process { make } => make,
        Kind::Sink { topic, partition, make } => {
            let output =
                outputs.binary_search_by(|known| (**known).cmp(&topic)).expect("outputs holds every sink's topic");
            let output = OutputIndex::new(u16::try_from(output).expect("build() bounds the number of outputs"));
            Box::new(move |wiring| make(wiring, output, partition))
        }
    };
    let stores = draft.stores.iter().map(|store| store.name).collect();
    Node { name: Arc::from(draft.name), children: draft.children, stores, instantiate }
}
