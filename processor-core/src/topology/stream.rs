//! Streams: what may be done with the records behind a node.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Deref;

use super::branch::Branches;
use super::builder::{Topics, add_source};
use super::draft::{Kind, SharedGraph, StoreDraft, TopicName};
use super::sink::{Sink, add_sink};
use super::source::Source;
use super::{StoreMaker, TopologyError, nodes};
use crate::codec::Codec;
use crate::error::OperatorError;
use crate::operator::{Context, IntoOperator, Operator};
use crate::protocol::failure::Policy;
use crate::record::Record;
use crate::store::{AnyOverlay, KeyValueStoreDef, Overlay, StoreKey, StoreValue};

/// A stream of records of one key type and one value type.
///
/// The short forms (`map`, `filter` and so on) need no name: a node that is given none is named after the one before
/// it, `<before>-map`, a second one `<before>-map-2`. [`named`](Self::named) gives it another.
pub struct Stream<K, V> {
    pub(super) graph: SharedGraph,
    pub(super) node: usize,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Clone + 'static, V: Clone + 'static> Stream<K, V> {
    pub(super) fn new(graph: SharedGraph, node: usize) -> Self {
        Self { graph, node, types: PhantomData }
    }

    /// Passes every record through an operator: a factory that makes one for each task, or a function; see
    /// [`IntoOperator`].
    pub fn process<Marker, P>(
        &self,
        name: impl Into<String>,
        operator: P,
    ) -> Processed<<P::Operator as Operator>::KeyOut, <P::Operator as Operator>::ValueOut>
    where
        P: IntoOperator<K, V, Marker>,
        <P::Operator as Operator>::KeyOut: Clone + 'static,
        <P::Operator as Operator>::ValueOut: Clone + 'static,
    {
        Processed(self.add_operator(name.into(), operator.into_factory(), false))
    }

    /// Passes every record through a closure, whose argument types the compiler finds.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// const SEEN: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("seen");
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("words", "words", (Utf8, Utf8))
    ///     .each("first-only", |record, ctx| {
    ///         let times = ctx.store(&SEEN).update(&record.key, |times| {
    ///             *times += 1;
    ///             *times
    ///         })?;
    ///         if times == 1 { ctx.forward(record) } else { Ok(()) }
    ///     })
    ///     .with_store(&SEEN)
    ///     .sink("firsts", "firsts", (Utf8, Utf8));
    /// topology.build()?;
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn each<KOut, VOut>(
        &self,
        name: impl Into<String>,
        function: impl Fn(Record<K, V>, &mut Context<'_, KOut, VOut>) -> Result<(), OperatorError> + Send + Sync + 'static,
    ) -> Processed<KOut, VOut>
    where
        KOut: Clone + 'static,
        VOut: Clone + 'static,
    {
        self.process(name, function)
    }

    /// Makes another record of each.
    pub fn map<KOut: Clone + 'static, VOut: Clone + 'static>(
        &self,
        change: impl Fn(Record<K, V>) -> Record<KOut, VOut> + Send + Sync + 'static,
    ) -> Stream<KOut, VOut> {
        self.short_form("map", true, move |record, ctx| ctx.forward(change(record)))
    }

    /// Changes the value; key and timestamp stay.
    pub fn map_values<VOut: Clone + 'static>(
        &self,
        change: impl Fn(V) -> VOut + Send + Sync + 'static,
    ) -> Stream<K, VOut> {
        self.short_form("map-values", true, move |record: Record<K, V>, ctx| {
            let Record { key, value, timestamp } = record;
            ctx.forward(Record { key, value: change(value), timestamp })
        })
    }

    /// Keeps the records for which `keep` holds.
    #[must_use = "the stream goes on from here"]
    pub fn filter(&self, keep: impl Fn(&Record<K, V>) -> bool + Send + Sync + 'static) -> Stream<K, V> {
        self.short_form("filter", true, move |record, ctx| if keep(&record) { ctx.forward(record) } else { Ok(()) })
    }

    /// Makes any number of records of each.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("lines", "lines", (Utf8, Utf8))
    ///     .flat_map(|line| {
    ///         let words: Vec<_> = line.value.split(' ').map(|word| line.clone().with_value(word.to_owned())).collect();
    ///         words
    ///     })
    ///     .sink("words", "words", (Utf8, Utf8));
    /// topology.build()?;
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn flat_map<KOut: Clone + 'static, VOut: Clone + 'static, Out>(
        &self,
        change: impl Fn(Record<K, V>) -> Out + Send + Sync + 'static,
    ) -> Stream<KOut, VOut>
    where
        Out: IntoIterator<Item = Record<KOut, VOut>>,
    {
        self.short_form("flat-map", true, move |record, ctx| {
            change(record).into_iter().try_for_each(|record| ctx.forward(record))
        })
    }

    /// Looks at every record and hands it on. What it does beside that may happen more than once for a record, because a
    /// record is processed again after a crash.
    #[expect(clippy::return_self_not_must_use, reason = "looking may be all there is to do")]
    pub fn inspect(&self, look: impl Fn(&Record<K, V>) + Send + Sync + 'static) -> Stream<K, V> {
        self.short_form("inspect", false, move |record, ctx| {
            look(&record);
            ctx.forward(record)
        })
    }

    /// Splits the stream: a record goes along the first arm whose predicate holds.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// let mut by_amount = topology.source("orders", "orders", (Utf8, JavaLong)).branch();
    /// let large = by_amount.when("large", |order| order.value >= 1_000);
    /// let small = by_amount.otherwise("small");
    /// large.sink("to-review", "review", (Utf8, JavaLong));
    /// small.sink("to-ship", "ship", (Utf8, JavaLong));
    /// topology.build()?;
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn branch(&self) -> Branches<K, V> {
        Branches::behind(self)
    }

    /// Joins two streams into one that has the records of both, in the order in which the task processes them.
    #[must_use = "the stream goes on from here"]
    pub fn merge(&self, other: &Stream<K, V>) -> Stream<K, V> {
        let mut graph = self.graph.borrow_mut();
        let name = graph.name_behind(self.node, "merge");
        if !std::rc::Rc::ptr_eq(&self.graph, &other.graph) {
            graph.errors.push(TopologyError::ForeignStream(name));
            return Stream::new(self.graph.clone(), self.node);
        }
        if self.node == other.node {
            let name = graph.nodes[self.node].name.clone();
            graph.errors.push(TopologyError::MergedWithItself(name));
            return Stream::new(self.graph.clone(), self.node);
        }
        let kind = Kind::Process { make: Box::new(nodes::pass::<K, V>), only_forwards: true };
        let node = graph.add(name, kind, &[self.node, other.node]);
        Stream::new(self.graph.clone(), node)
    }

    /// Sends the records through an internal topic, `<application.id>-<name>-repartition`, to the task that their new key
    /// belongs to: all records of one key meet in one task from there on. The name is that of the stream's new source.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (JavaLong, Utf8))
    ///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
    ///     .sink("orders-by-customer", "orders-by-customer", (Utf8, Utf8));
    /// let topology = topology.build()?.for_application("shop")?;
    /// assert_eq!(&*topology.internal_topics()[0].topic, "shop-by-customer-repartition");
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn repartition<KOut, KC, VC>(
        &self,
        name: impl Into<String>,
        key: impl Fn(&Record<K, V>) -> KOut + Send + Sync + 'static,
        codecs: (KC, VC),
    ) -> Repartitioned<KOut, V>
    where
        KOut: Clone + 'static,
        KC: Codec<KOut>,
        VC: Codec<V>,
    {
        let name = name.into();
        let topic = vec![TopicName::Repartition(name.clone())];
        let keyed = self.add_operator(
            format!("{name}-key"),
            IntoOperator::into_factory(move |record: Record<K, V>, ctx: &mut Context<'_, KOut, V>| {
                let key = key(&record);
                ctx.forward(record.with_key(key))
            }),
            true,
        );
        add_sink(&keyed, format!("{name}-sink"), topic.clone(), codecs.clone());
        Repartitioned(add_source(&self.graph, name, topic, codecs))
    }

    /// Writes every record to a topic, to the partition that the key's hash names (murmur2, as Kafka's Java clients do)
    /// unless the sink is told otherwise.
    pub fn sink<KC: Codec<K>, VC: Codec<V>>(
        &self,
        name: impl Into<String>,
        topic: impl Into<String>,
        codecs: (KC, VC),
    ) -> Sink<K, V> {
        add_sink(self, name.into(), vec![TopicName::Given(topic.into())], codecs)
    }

    /// Writes every record to one of these topics: `choose` says to which, counted from 0. They are listed so that they
    /// can be checked at start.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (Utf8, JavaLong))
    ///     .sink_to("by-amount", ["small", "large"], (Utf8, JavaLong), |order| usize::from(order.value >= 1_000));
    /// topology.build()?;
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn sink_to<KC: Codec<K>, VC: Codec<V>>(
        &self,
        name: impl Into<String>,
        topics: impl Topics,
        codecs: (KC, VC),
        choose: impl Fn(&Record<K, V>) -> usize + Send + Sync + 'static,
    ) -> Sink<K, V> {
        let topics = topics.names().into_iter().map(TopicName::Given).collect();
        add_sink(self, name.into(), topics, codecs).choosing(choose)
    }

    /// Gives the node that the stream comes from another name.
    #[must_use = "the stream goes on from here"]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.graph.borrow_mut().nodes[self.node].name = name.into();
        self
    }

    /// What becomes of records that fail in the node that the stream comes from.
    #[expect(clippy::return_self_not_must_use, reason = "nothing need be connected to an operator")]
    pub fn on_failure(self, policy: impl Into<Policy>) -> Self {
        self.graph.borrow_mut().nodes[self.node].policy = Some(policy.into());
        self
    }

    fn short_form<KOut: Clone + 'static, VOut: Clone + 'static>(
        &self,
        what: &str,
        only_forwards: bool,
        function: impl Fn(Record<K, V>, &mut Context<'_, KOut, VOut>) -> Result<(), OperatorError> + Send + Sync + 'static,
    ) -> Stream<KOut, VOut> {
        let name = self.graph.borrow().name_behind(self.node, what);
        self.add_operator(name, function.into_factory(), only_forwards)
    }

    pub(super) fn add_operator<O: Operator>(
        &self,
        name: String,
        factory: impl Fn() -> O + Send + Sync + 'static,
        only_forwards: bool,
    ) -> Stream<O::KeyOut, O::ValueOut>
    where
        O::KeyOut: Clone + 'static,
        O::ValueOut: Clone + 'static,
    {
        let make = Box::new(move |wiring| nodes::process(wiring, factory()));
        let node = self.graph.borrow_mut().add(name, Kind::Process { make, only_forwards }, &[self.node]);
        Stream::new(self.graph.clone(), node)
    }
}

impl<K, V> std::fmt::Debug for Stream<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?})", self.graph.borrow().nodes[self.node].name)
    }
}

/// The stream behind an operator, which can be given stores.
pub struct Processed<K, V>(Stream<K, V>);

impl<K: Clone + 'static, V: Clone + 'static> Processed<K, V> {
    /// Gives the operator a store: in RocksDB, with a changelog topic `<application.id>-<store>-changelog`. Nodes that are
    /// given the same store share it, and belong to one sub-topology.
    #[expect(clippy::return_self_not_must_use, reason = "nothing need be connected to an operator")]
    pub fn with_store<SK: StoreKey, SV: StoreValue>(self, definition: &KeyValueStoreDef<SK, SV>) -> Self {
        let values = definition.values();
        let maker = StoreMaker(std::sync::Arc::new(move |index, cache_bytes_max| {
            Box::new(Overlay::<SK, SV>::new(index, values, cache_bytes_max)) as Box<dyn AnyOverlay>
        }));
        let (name, spec) = (definition.name(), definition.spec());
        let types = (TypeId::of::<SK>(), TypeId::of::<SV>());
        let store = StoreDraft { name, types, spec, maker };
        self.0.graph.borrow_mut().nodes[self.0.node].stores.push(store);
        self
    }

    /// What becomes of records that fail in the operator, by error or panic.
    #[expect(clippy::return_self_not_must_use, reason = "nothing need be connected to an operator")]
    pub fn on_failure(self, policy: impl Into<Policy>) -> Self {
        Self(self.0.on_failure(policy))
    }
}

impl<K, V> Deref for Processed<K, V> {
    type Target = Stream<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<K, V> std::fmt::Debug for Processed<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0, f)
    }
}

/// The stream behind an internal topic, which can be told how many partitions that shall have.
#[derive(Debug)]
pub struct Repartitioned<K, V>(Source<K, V>);

impl<K: Clone + 'static, V: Clone + 'static> Repartitioned<K, V> {
    /// How many partitions, and so tasks, there are from here on; without this call as many as the sub-topology has that
    /// writes to the topic.
    #[must_use = "the stream goes on from here"]
    pub fn with_partitions(self, partitions: u32) -> Self {
        self.0.partitions(partitions);
        self
    }

    /// What becomes of records that cannot be decoded.
    #[must_use = "the stream goes on from here"]
    pub fn on_failure(self, policy: impl Into<Policy>) -> Self {
        Self(self.0.on_failure(policy))
    }
}

impl<K, V> Deref for Repartitioned<K, V> {
    type Target = Stream<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
