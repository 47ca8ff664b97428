//! The stream behind a source, which can be told where its records' timestamps come from.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::draft::{Kind, SharedGraph};
use super::stream::Stream;
use crate::ids::Timestamp;
use crate::protocol::failure::Policy;
use crate::time::Timestamps;

/// Set at most once, while the topology is built, and read when tasks are made.
pub(super) struct TimestampsSlot<K, V>(Arc<OnceLock<Timestamps<K, V>>>);

impl<K, V> TimestampsSlot<K, V> {
    pub(super) fn get(&self) -> Option<&Timestamps<K, V>> {
        self.0.get()
    }
}

impl<K, V> Clone for TimestampsSlot<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for TimestampsSlot<K, V> {
    fn default() -> Self {
        Self(Arc::new(OnceLock::new()))
    }
}

/// The stream of a source. Unless it is told otherwise, its records have the timestamps they carry.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// let mut topology = Topology::builder();
/// topology
///     .source("clicks", "clicks", (Utf8, JavaLong))
///     .on_failure(FailurePolicy::dead_letter("clicks-failed"))
///     .filter(|click| click.value > 0) // all that a stream can do
///     .sink("copy", "copy", (Utf8, JavaLong));
/// let driver = TopologyTestDriver::new(topology.build()?)?;
/// driver.input::<String, i64>("clicks").pipe_at(secs(7), "ann", 1);
/// assert_eq!(driver.output::<String, i64>("copy").records()[0].timestamp, secs(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is connected to the source yet"]
pub struct Source<K, V> {
    stream: Stream<K, V>,
    timestamps: TimestampsSlot<K, V>,
}

impl<K: Clone + 'static, V: Clone + 'static> Source<K, V> {
    pub(super) fn new(graph: SharedGraph, node: usize, timestamps: TimestampsSlot<K, V>) -> Self {
        Self { stream: Stream::new(graph, node), timestamps }
    }

    /// Takes the timestamp from key and value; `None`, or a time before 1970, is invalid. `build()` refuses a source that is
    /// told twice where its timestamps come from.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("clicks", "clicks", (Utf8, JavaLong))
    ///     .timestamps_by(|_user, clicked_at| Some(Timestamp::new(*clicked_at)))
    ///     .on_invalid_timestamp(FailurePolicy::skip())
    ///     .sink("copy", "copy", (Utf8, JavaLong));
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("clicks").pipe_at(secs(9), "ann", 4_000);
    /// assert_eq!(driver.output::<String, i64>("copy").records()[0].timestamp, secs(4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timestamps_by(self, extractor: impl Fn(&K, &V) -> Option<Timestamp> + Send + Sync + 'static) -> Self {
        self.timestamps(Timestamps::Extracted(Arc::new(extractor)))
    }

    /// Takes the time of the batch that the record is processed in. A record that is processed again, after a crash, may
    /// then have another timestamp.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, JavaLong)).wall_clock_timestamps().sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(std::time::Duration::from_secs(60))?;
    /// driver.input::<String, i64>("in").pipe_at(secs(7), "a", 1);
    /// assert_eq!(driver.output::<String, i64>("out").records()[0].timestamp, secs(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wall_clock_timestamps(self) -> Self {
        self.timestamps(Timestamps::WallClock)
    }

    fn timestamps(self, timestamps: Timestamps<K, V>) -> Self {
        if self.timestamps.0.set(timestamps).is_err() {
            let mut graph = self.stream.graph.borrow_mut();
            let name = graph.nodes[self.stream.node].name.clone();
            graph.errors.push(super::TopologyError::TimestampsTwice(name));
        }
        self
    }

    /// What becomes of records whose timestamp is invalid; without this call what becomes of undecodable ones.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology
    ///     .source("clicks", "clicks", (Utf8, JavaLong))
    ///     .timestamps_by(|_user, clicked_at| (*clicked_at > 0).then(|| Timestamp::new(*clicked_at)))
    ///     .on_failure(FailurePolicy::fail())
    ///     .on_invalid_timestamp(FailurePolicy::dead_letter("clicks-without-time"))
    ///     .sink("copy", "copy", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("clicks").pipe_at(secs(1), "ann", 0);
    /// assert_eq!(&*driver.dead_letters()[0].topic, "clicks-without-time");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_invalid_timestamp(self, policy: impl Into<Policy>) -> Self {
        if let Kind::Source(source) = &mut self.stream.graph.borrow_mut().nodes[self.stream.node].kind {
            source.invalid_timestamps = Some(policy.into());
        }
        self
    }

    /// What becomes of records that cannot be decoded.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology
    ///     .source("amounts", "amounts", (Utf8, JavaLong))
    ///     .on_failure(FailurePolicy::dead_letter("amounts-failed"))
    ///     .sink("copy", "copy", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("amounts").try_pipe_bytes(Some(secs(1)), Some(b"ann"), Some(b"7"))?;
    /// let letter = driver.dead_letters().remove(0);
    /// assert_eq!((letter.value.as_deref(), letter.header("processor-kind")), (Some(&b"7"[..]), Some("decode")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_failure(self, policy: impl Into<Policy>) -> Self {
        Self { stream: self.stream.on_failure(policy), ..self }
    }

    /// How many partitions the internal topic shall have; without this call as many as what writes to it reads.
    pub(super) fn partitions(&self, partitions: u32) {
        if let Kind::Source(source) = &mut self.stream.graph.borrow_mut().nodes[self.stream.node].kind {
            source.partitions = Some(partitions);
        }
    }
}

impl<K, V> Deref for Source<K, V> {
    type Target = Stream<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.stream
    }
}

impl<K, V> std::fmt::Debug for Source<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({:?})", self.stream)
    }
}
