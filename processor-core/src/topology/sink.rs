//! Sinks: where records leave the topology, and to which partition.

use std::sync::Arc;

use super::codec_pair::AnyCodecPair;
use super::draft::{Kind, SharedGraph, SinkDraft, TopicName};
use super::nodes::{self, Erased, Partitioning, SinkWiring, Targets};
use super::stream::Stream;
use crate::codec::Codec;
use crate::protocol::failure::Policy;
use crate::record::Record;

/// Makes the node of a sink whose codecs it knows.
type Make<K, V> = Arc<dyn Fn(SinkWiring<K, V>) -> Erased + Send + Sync>;

/// A sink, for what can be said about it.
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut topology = Topology::builder();
/// topology
///     .source("readings", "readings", (Utf8, JavaDouble))
///     .sink("copy", "copy", (Utf8, DecimalText))
///     .to_source_partition()
///     .on_failure(FailurePolicy::dead_letter("not-written"));
/// topology.build()?;
/// # Ok::<(), TopologyError>(())
/// ```
pub struct Sink<K, V> {
    graph: SharedGraph,
    node: usize,
    make: Make<K, V>,
    targets: Targets<K, V>,
    partitioning: Partitioning<K, V>,
}

pub(super) fn add_sink<K, V, KC, VC>(
    stream: &Stream<K, V>,
    name: String,
    topics: Vec<TopicName>,
    codecs: (KC, VC),
) -> Sink<K, V>
where
    K: Clone + 'static,
    V: Clone + 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let pair = AnyCodecPair::new::<K, V>(codecs.0.clone(), codecs.1.clone());
    let make: Make<K, V> = Arc::new(move |wiring| nodes::sink(wiring, codecs.clone()));
    let (targets, partitioning) = (Targets::First, Partitioning::ByKey);
    let maker = maker(make.clone(), targets.clone(), partitioning.clone());
    let draft = SinkDraft { topics, to_source_partition: false, codecs: pair, make: maker };
    let node = stream.graph.borrow_mut().add(name, Kind::Sink(draft), &[stream.node]);
    Sink { graph: stream.graph.clone(), node, make, targets, partitioning }
}

#[expect(clippy::return_self_not_must_use, reason = "a sink is the end of a stream")]
impl<K: Clone + 'static, V: Clone + 'static> Sink<K, V> {
    /// Writes to the partition with the number of the task's, which is that of the input record. The topic needs at least as
    /// many partitions as the inputs, which is checked at start.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong)).to_source_partition();
    /// let driver = TopologyTestDriver::with_partitions(&topology.build()?, 4)?;
    /// driver.input::<String, i64>("in").partition(3).pipe_at(secs(1), "whatever its hash", 1);
    /// assert_eq!(driver.output::<String, i64>("out").received()[0].partition, Partition::new(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_source_partition(self) -> Self {
        self.changed(|sink| sink.partitioning = Partitioning::OfSource)
    }

    /// Writes to the partition that `choose` names, which is told how many the topic has. A partition that the topic does not
    /// have fails the record, of kind [`Encode`](crate::error::FailureKind::Encode).
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("orders", "orders", (JavaLong, Utf8))
    ///     .sink("copy", "copy", (JavaLong, Utf8))
    ///     .to_partition(|order, partitions| (order.key.unsigned_abs() % u64::from(partitions)) as u32);
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// let driver = TopologyTestDriver::with_partitions(&topology.build()?, 4)?;
    /// driver.input::<i64, String>("orders").pipe_at(secs(1), 11, "tea");
    /// assert_eq!(driver.output::<i64, String>("copy").received()[0].partition, Partition::new(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_partition(self, choose: impl Fn(&Record<K, V>, u32) -> u32 + Send + Sync + 'static) -> Self {
        self.changed(|sink| sink.partitioning = Partitioning::Chosen(Arc::new(choose)))
    }

    /// What becomes of records that the sink cannot encode or the broker does not take.
    ///
    /// The dead letter is the input record that the output was made of.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "in", (Utf8, Utf8))
    ///     .sink("out", "out", (Utf8, Utf8))
    ///     .on_failure(FailurePolicy::dead_letter("too-large"));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.refuse_next("out", "the record is larger than max.message.bytes");
    /// driver.input::<String, String>("in").pipe_at(secs(1), "a", "a long text");
    /// assert_eq!(driver.output::<String, String>("out").values(), [""; 0]);
    /// assert_eq!(driver.dead_letters()[0].value.as_deref(), Some(&b"a long text"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_failure(self, policy: impl Into<Policy>) -> Self {
        self.graph.borrow_mut().nodes[self.node].policy = Some(policy.into());
        self
    }

    pub(super) fn choosing(self, choose: impl Fn(&Record<K, V>) -> usize + Send + Sync + 'static) -> Self {
        self.changed(|sink| sink.targets = Targets::Chosen(Arc::new(choose)))
    }

    fn changed(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        if let Kind::Sink(draft) = &mut self.graph.borrow_mut().nodes[self.node].kind {
            draft.make = maker(self.make.clone(), self.targets.clone(), self.partitioning.clone());
            draft.to_source_partition = matches!(self.partitioning, Partitioning::OfSource);
        }
        self
    }
}

fn maker<K: 'static, V: 'static>(
    make: Make<K, V>,
    targets: Targets<K, V>,
    partitioning: Partitioning<K, V>,
) -> Box<dyn Fn(nodes::Wiring, Vec<crate::ids::OutputIndex>) -> Erased + Send + Sync> {
    Box::new(move |node, outputs| {
        make(SinkWiring { node, outputs, targets: targets.clone(), partitioning: partitioning.clone() })
    })
}

impl<K, V> std::fmt::Debug for Sink<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sink({:?})", self.graph.borrow().nodes[self.node].name)
    }
}
