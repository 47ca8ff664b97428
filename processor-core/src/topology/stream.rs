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
///
/// A stream can be used several times: every node that is connected to it gets every record. Its types are checked by
/// the compiler:
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut topology = Topology::builder();
/// let words = topology.source("words", "words", (Utf8, Utf8));
/// let long = words.filter(|word| word.value.len() > 3).named("long");
/// long.map_values(|word| word.to_uppercase()).sink("shouted", "shouted", (Utf8, Utf8));
/// words.map_values(|word| word.len() as i64).sink("lengths", "lengths", (Utf8, JavaLong));
/// let text = topology.build()?.describe();
/// for name in ["long", "long-map-values", "words-map-values"] {
///     assert!(text.contains(&format!("Processor: {name} ")), "{text}");
/// }
/// # Ok::<(), TopologyError>(())
/// ```
///
/// ```compile_fail
/// # use processor_core::prelude::*;
/// let mut topology = Topology::builder();
/// let numbers = topology.source::<String, i64, _, _>("in", "in", (Utf8, JavaLong));
/// numbers.sink("out", "out", (Utf8, JavaDouble)); // i64 is no f64
/// ```
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
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// /// Passes on what is at least `least`.
    /// struct AtLeast { least: i64 }
    ///
    /// impl Operator for AtLeast {
    ///     type KeyIn = String;
    ///     type ValueIn = i64;
    ///     type KeyOut = String;
    ///     type ValueOut = i64;
    ///
    ///     fn process(&mut self, record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ///         if record.value >= self.least { ctx.forward(record) } else { Ok(()) }
    ///     }
    /// }
    ///
    /// let least = 10;
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "in", (Utf8, JavaLong))
    ///     .process("at-least", move || AtLeast { least })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let input = driver.input::<String, i64>("in");
    /// input.pipe_at(secs(1), "a", 9);
    /// input.pipe_at(secs(2), "a", 10);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// A new key does not move the record to another task: to have all records of the new key in one place,
    /// [`repartition`](Self::repartition).
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// let by_size = stream.map(|order| {
    ///     let size = if order.value < 100 { "small" } else { "large" };
    ///     order.with_key(size.to_owned())
    /// });
    /// by_size.sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// input.pipe_at(secs(1), "ann", 250);
    /// assert_eq!(output.records(), [Record::new("large".to_owned(), 250, secs(1))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<KOut: Clone + 'static, VOut: Clone + 'static>(
        &self,
        change: impl Fn(Record<K, V>) -> Record<KOut, VOut> + Send + Sync + 'static,
    ) -> Stream<KOut, VOut> {
        self.short_form("map", true, move |record, ctx| ctx.forward(change(record)))
    }

    /// Changes the value; key and timestamp stay. Something must follow it: `build()` refuses a stream that ends here.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// stream.map_values(|cents| cents as f64 / 100.0).sink("out", "out", (Utf8, JavaDouble));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, f64>("out");
    /// input.pipe_at(secs(1), "ann", 250);
    /// assert_eq!(output.records(), [Record::new("ann".to_owned(), 2.5, secs(1))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// stream.filter(|order| order.value > 0).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// for amount in [3, 0, -2, 7] {
    ///     input.pipe_at(secs(1), "ann", amount);
    /// }
    /// assert_eq!(output.values(), [3, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// let largest = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    /// let seen = largest.clone();
    /// stream
    ///     .inspect(move |order| drop(seen.fetch_max(order.value, std::sync::atomic::Ordering::Relaxed)))
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// input.pipe_at(secs(1), "ann", 250);
    /// assert_eq!(largest.load(std::sync::atomic::Ordering::Relaxed), 250);
    /// assert_eq!(output.values(), [250]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// Both must come from one builder; a stream merged with itself is refused by `build()`.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// let large = stream.filter(|order| order.value >= 1_000).map_values(|amount| amount - 100); // a discount
    /// let small = stream.filter(|order| order.value < 1_000);
    /// large.merge(&small).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// for amount in [5, 1_500, 7] {
    ///     input.pipe_at(secs(1), "ann", amount);
    /// }
    /// assert_eq!(output.values(), [5, 1_400, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// The topic must exist: it is checked at start, and not made. A record without a key (of an
    /// [`Optional`](crate::codec::Optional) codec) goes to any partition.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// stream.sink("out", "totals", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// input.pipe_at(secs(1), "ann", 5);
    /// let received = output.received().remove(0);
    /// assert_eq!((&*received.topic, received.record.value), ("totals", 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sink<KC: Codec<K>, VC: Codec<V>>(
        &self,
        name: impl Into<String>,
        topic: impl Into<String>,
        codecs: (KC, VC),
    ) -> Sink<K, V> {
        add_sink(self, name.into(), vec![TopicName::Given(topic.into())], codecs)
    }

    /// Writes every record to one of these topics: `choose` says to which, counted from 0. They are listed so that they
    /// can be checked at start. A number that no topic has fails the record, of kind
    /// [`Encode`](crate::error::FailureKind::Encode).
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (Utf8, JavaLong))
    ///     .sink_to("by-amount", ["small", "large"], (Utf8, JavaLong), |order| usize::from(order.value >= 1_000));
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 2_500);
    /// assert_eq!(&*driver.output::<String, i64>("by-amount").received()[0].topic, "large");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
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
    ///
    /// `build()` refuses a name that another node has.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// stream.filter(|order| order.value > 0).named("only-real").sink("out", "out", (Utf8, JavaLong));
    /// let topology = topology.build()?;
    /// assert!(topology.describe().contains("Processor: only-real"));
    /// # let driver = TopologyTestDriver::new(topology)?;
    /// # let input = driver.input::<String, i64>("in");
    /// # let output = driver.output::<String, i64>("out");
    /// # drop((input, output));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the stream goes on from here"]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.graph.borrow_mut().nodes[self.node].name = name.into();
        self
    }

    /// What becomes of records that fail in the node that the stream comes from.
    ///
    /// Without this call the policy of the topology counts: see
    /// [`TopologyBuilder::on_failure`](super::TopologyBuilder::on_failure).
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, Utf8));
    /// stream
    ///     .map_values(|text: String| text.parse::<i64>().expect("a number"))
    ///     .on_failure(FailurePolicy::dead_letter("no-numbers")) // a panic is a failure, too
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # let input = driver.input::<String, String>("in");
    /// input.pipe_at(secs(1), "a", "seven");
    /// input.pipe_at(secs(2), "a", "8");
    /// assert_eq!(driver.output::<String, i64>("out").values(), [8]);
    /// assert_eq!(&*driver.dead_letters()[0].topic, "no-numbers");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
///
/// ```
/// use processor_core::prelude::*;
///
/// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals");
///
/// let mut topology = Topology::builder();
/// topology
///     .source("payments", "payments", (Utf8, JavaLong))
///     .each("total", |payment, ctx| {
///         let total = ctx.store(&TOTALS).update(&payment.key, |total| {
///             *total += payment.value;
///             *total
///         })?;
///         ctx.forward(payment.with_value(total))
///     })
///     .with_store(&TOTALS)
///     .on_failure(FailurePolicy::dead_letter("payments-failed"))
///     .filter(|total| total.value > 100) // all that a stream can do
///     .sink("large", "large", (Utf8, JavaLong));
/// topology.build()?;
/// # Ok::<(), TopologyError>(())
/// ```
pub struct Processed<K, V>(Stream<K, V>);

impl<K: Clone + 'static, V: Clone + 'static> Processed<K, V> {
    /// Gives the operator a store: in RocksDB, with a changelog topic `<application.id>-<store>-changelog`. Nodes that are
    /// given the same store share it, and belong to one sub-topology.
    ///
    /// A sub-topology can have 16 stores at most.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// const LIMITS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("limits");
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("limits", "limits", (Utf8, JavaLong))
    ///     .each("set-limit", |limit, ctx: &mut Context<'_, String, i64>| {
    ///         ctx.store(&LIMITS).put(&limit.key, limit.value);
    ///         Ok(())
    ///     })
    ///     .with_store(&LIMITS);
    /// topology
    ///     .source("orders", "orders", (Utf8, JavaLong))
    ///     .each("check", |order, ctx| {
    ///         let limit = ctx.store(&LIMITS).get(&order.key)?.unwrap_or(0);
    ///         if order.value <= limit { ctx.forward(order) } else { Ok(()) }
    ///     })
    ///     .with_store(&LIMITS)
    ///     .sink("accepted", "accepted", (Utf8, JavaLong));
    /// let topology = topology.build()?;
    /// assert_eq!(topology.subtopologies().len(), 1, "the store joins the two");
    /// # Ok::<(), TopologyError>(())
    /// ```
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
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let stream = topology.source("in", "in", (Utf8, JavaLong));
    /// stream
    ///     .each("positive", |order, ctx| {
    ///         ctx.forward(order.clone())?; // taken back when the record fails
    ///         if order.value < 0 { Err(OperatorError::message("a negative amount")) } else { Ok(()) }
    ///     })
    ///     .on_failure(FailurePolicy::skip())
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let orders = driver.input::<String, i64>("in");
    /// orders.pipe_at(secs(1), "ann", -5);
    /// orders.pipe_at(secs(2), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [5]);
    /// assert_eq!(driver.skipped()[0].message, "a negative amount");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::topology::InternalPartitions;
///
/// let mut topology = Topology::builder();
/// topology
///     .source("orders", "orders", (JavaLong, Utf8))
///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
///     .with_partitions(12)
///     .on_failure(FailurePolicy::skip())
///     .sink("orders-by-customer", "orders-by-customer", (Utf8, Utf8));
/// let topology = topology.build()?.for_application("shop")?;
/// assert_eq!(topology.internal_topics()[0].partitions, InternalPartitions::Exactly(12));
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Debug)]
pub struct Repartitioned<K, V>(Source<K, V>);

impl<K: Clone + 'static, V: Clone + 'static> Repartitioned<K, V> {
    /// How many partitions, and so tasks, there are from here on; without this call as many as the sub-topology has that
    /// writes to the topic.
    ///
    /// At least one. Once the topic is there the number stays: a start that finds another one is refused, because keys
    /// would move to tasks without their state.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "in", (Utf8, Utf8))
    ///     .repartition("by-length", |word| word.value.len() as i64, (JavaLong, Utf8))
    ///     .with_partitions(0)
    ///     .sink("out", "out", (JavaLong, Utf8));
    /// assert_eq!(topology.build().err(), Some(TopologyError::NoPartitions("by-length".to_owned())));
    /// ```
    #[must_use = "the stream goes on from here"]
    pub fn with_partitions(self, partitions: u32) -> Self {
        self.0.partitions(partitions);
        self
    }

    /// What becomes of records that cannot be decoded.
    ///
    /// Nobody but this application should write to the topic: then there are such records only where the codecs were changed
    /// while records lay in it.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (JavaLong, Utf8));
    /// orders
    ///     .repartition("by-customer", |order| order.value.clone(), (Utf8, Utf8))
    ///     .on_failure(FailurePolicy::skip())
    ///     .sink("copy", "copies", (Utf8, Utf8));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let internal = driver.input::<String, String>("by-customer"); // past its writer
    /// internal.try_pipe_bytes(Some(secs(1)), Some(b"ann"), Some(b"\xff"))?; // no UTF-8
    /// assert_eq!(driver.skipped()[0].node, "by-customer");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
