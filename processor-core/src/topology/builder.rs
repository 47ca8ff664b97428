//! The typed builder. A stream handle carries its key and value types, so that an operator or a sink of other types
//! does not compile; what the compiler cannot see, [`TopologyBuilder::build`] refuses.

use super::draft::{Kind, SharedGraph, SourceDraft, TopicName};
use super::source::Source;
use super::{Topology, TopologyError, check, nodes};
use crate::codec::Codec;
use crate::protocol::failure::Policy;
use crate::time::Timestamps;
use crate::topology::codec_pair::AnyCodecPair;

/// Builds a [`Topology`].
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut topology = Topology::builder();
/// let inside = topology.source("inside", ["kitchen", "cellar"], (Utf8, JavaDouble));
/// let outside = topology.source("outside", "garden", (Utf8, JavaDouble));
/// inside
///     .merge(&outside)
///     .filter(|reading| reading.value.is_finite())
///     .map_values(|celsius| celsius * 1.8 + 32.0)
///     .sink("fahrenheit", "fahrenheit", (Utf8, JavaDouble));
/// let topology = topology.build()?;
/// assert_eq!(&*topology.subtopologies()[0].name, "inside");
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Debug, Default)]
pub struct TopologyBuilder {
    pub(super) graph: SharedGraph,
}

impl TopologyBuilder {
    /// Reads topics. The name is the node's; the alphabetically first source's name is the sub-topology's, and stays the
    /// same for the life of the application's state.
    ///
    /// All topics that one sub-topology reads need the same number of partitions, which is checked at start.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", ["orders-eu", "orders-us"], (Utf8, JavaLong))
    ///     .sink("all", "orders-all", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let orders = driver.input::<String, i64>("orders");
    /// orders.pipe_at(secs(1), "ann", 5); // by the first topic
    /// orders.topic("orders-us").pipe_at(secs(2), "bob", 7);
    /// assert_eq!(driver.output::<String, i64>("all").values(), [5, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn source<K, V, KC, VC>(
        &mut self,
        name: impl Into<String>,
        topics: impl Topics,
        codecs: (KC, VC),
    ) -> Source<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
        KC: Codec<K>,
        VC: Codec<V>,
    {
        let topics = topics.names().into_iter().map(TopicName::Given).collect();
        add_source(&self.graph, name.into(), topics, codecs)
    }

    /// What becomes of records that fail in a node without a policy of its own. Without this call the task stops.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::skip());
    /// topology.source("amounts", "amounts", (Utf8, DecimalText)).sink("copy", "copy", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let amounts = driver.input::<String, i64>("amounts");
    /// amounts.try_pipe_bytes(Some(secs(1)), Some(b"ann"), Some(b"seven"))?;
    /// amounts.pipe_at(secs(2), "ann", 8);
    /// assert_eq!(driver.output::<String, i64>("copy").values(), [8]);
    /// assert_eq!(driver.skipped().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_failure(&mut self, policy: impl Into<Policy>) {
        self.graph.borrow_mut().policy = policy.into();
    }

    /// Checks the topology. Its streams are of no more use: connecting anything to one panics.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// let words = topology.source("words", "words", (Utf8, Utf8));
    /// words.sink("copy", "one", (Utf8, Utf8));
    /// words.sink("copy", "two", (Utf8, Utf8));
    /// assert_eq!(topology.build().err(), Some(TopologyError::DuplicateNode("copy".to_owned())));
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong, with the node and the remedy.
    pub fn build(self) -> Result<Topology, TopologyError> {
        check::checked(self.graph.take())
    }
}

pub(super) fn add_source<K, V, KC, VC>(
    graph: &SharedGraph,
    name: String,
    topics: Vec<TopicName>,
    codecs: (KC, VC),
) -> Source<K, V>
where
    K: Clone + 'static,
    V: Clone + 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let pair = AnyCodecPair::new::<K, V>(codecs.0.clone(), codecs.1.clone());
    let timestamps = super::source::TimestampsSlot::<K, V>::default();
    let slot = timestamps.clone();
    let make = Box::new(move |wiring| {
        let timestamps = slot.get().cloned().unwrap_or(Timestamps::OfRecord);
        nodes::source(wiring, codecs.clone(), timestamps)
    });
    let draft = SourceDraft { topics, codecs: pair, invalid_timestamps: None, partitions: None, make };
    let node = graph.borrow_mut().add(name, Kind::Source(draft), &[]);
    Source::new(graph.clone(), node, timestamps)
}

/// One topic or several: `"a"`, `["a", "b"]`, a `Vec` of names.
///
/// `build()` refuses none at all, and one that is named twice.
///
/// ```
/// use processor_core::prelude::*;
///
/// fn copies(inputs: &[String]) -> Result<Topology, TopologyError> {
///     let mut topology = Topology::builder();
///     topology.source("in", inputs, (Raw, Raw)).sink("out", "copies", (Raw, Raw));
///     topology.build()
/// }
///
/// assert!(copies(&["a".to_owned(), "b".to_owned()]).is_ok());
/// assert_eq!(copies(&[]).err(), Some(TopologyError::NoTopic("in".to_owned())));
/// ```
pub trait Topics {
    /// Their names.
    ///
    /// ```
    /// use processor_core::topology::Topics;
    ///
    /// assert_eq!("orders".names(), ["orders"]);
    /// assert_eq!(["orders-eu", "orders-us"].names(), ["orders-eu", "orders-us"]);
    /// ```
    fn names(self) -> Vec<String>;
}

impl Topics for &str {
    fn names(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Topics for String {
    fn names(self) -> Vec<String> {
        vec![self]
    }
}

impl Topics for &String {
    fn names(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<T: Into<String>, const N: usize> Topics for [T; N] {
    fn names(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Into<String>> Topics for Vec<T> {
    fn names(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<T: Clone + Into<String>> Topics for &[T] {
    fn names(self) -> Vec<String> {
        self.iter().cloned().map(Into::into).collect()
    }
}
