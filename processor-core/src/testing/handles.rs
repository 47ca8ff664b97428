//! What a test holds of a driver: inputs, outputs, stores, dead letters.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use super::driver::Bench;
use super::topics::{Header, Stored};
use crate::error::RecordFailure;
use crate::ids::{Partition, StoreIndex, Timestamp};
use crate::record::{Record, TargetPartition};
use crate::store::{KeyRange, KeyScan, Overlay, StoreKey, StoreValue, ValueFormat};
use crate::topology::CodecPair;

/// The input of a source; see [`TopologyTestDriver::input`](super::TopologyTestDriver::input).
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, i64>("in");
/// input.pipe_at(secs(1), "ann", 5); // anything that converts into the types
/// input.try_pipe_bytes(Some(secs(2)), Some(b"ann"), Some(&[0, 0, 0, 0, 0, 0, 0, 6]))?;
/// assert_eq!(driver.output::<String, i64>("out").values(), [5, 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TestInput<K, V> {
    bench: Rc<RefCell<Bench>>,
    topic: Arc<str>,
    codecs: Arc<dyn CodecPair<K, V>>,
    partition: Option<Partition>,
    headers: Vec<Header>,
}

impl<K: 'static, V: 'static> TestInput<K, V> {
    pub(super) fn of(bench: &Rc<RefCell<Bench>>, name: &str) -> Self {
        let held = bench.borrow();
        let node = held.node(name, |draft| draft.source().is_some(), "source");
        let source = held.topology.nodes()[node.slot()].source().expect("the node was found among the sources");
        let codecs = source.codecs.typed().unwrap_or_else(|| panic!("source '{name}' reads other types"));
        let topic = Arc::from(source.topics[0].resolved(held.topology.application_id()));
        Self { bench: bench.clone(), topic, codecs: codecs.clone(), partition: None, headers: Vec::new() }
    }

    /// The same input, by another of the source's topics.
    ///
    /// A name that is none of the topology's topics panics when a record is piped in.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology
    ///     .source("in", ["eu", "us"], (Utf8, JavaLong))
    ///     .each("from", |record, ctx| {
    ///         let topic = ctx.metadata().expect("a record is in process").topic.to_owned();
    ///         ctx.forward(record.with_value(topic))
    ///     })
    ///     .sink("out", "out", (Utf8, Utf8));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").topic("us").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, String>("out").values(), ["us"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn topic(self, topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), ..self }
    }

    /// The same input, to this partition instead of the one that the key belongs to.
    ///
    /// A number that the topic does not have panics when a record is piped in.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong)).to_source_partition();
    /// let driver = TopologyTestDriver::with_partitions(&topology.build()?, 4)?; // its sink keeps the partition
    /// driver.input::<String, i64>("in").partition(3).pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").received()[0].partition.get(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn partition(self, partition: i32) -> Self {
        Self { partition: Some(Partition::new(partition)), ..self }
    }

    /// The same input, with a header on every record.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// readings
    ///     .each("unit", |reading, ctx| {
    ///         let unit = ctx.metadata().and_then(|from| from.header("unit")).flatten();
    ///         ctx.forward(reading.with_value(unit.unwrap_or_default()))
    ///     })
    ///     .sink("out", "out", (Utf8, Raw));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let in_fahrenheit = driver.input::<String, i64>("in").header("unit", b"F");
    /// in_fahrenheit.pipe_at(secs(1), "kitchen", 70);
    /// assert_eq!(driver.output::<String, Vec<u8>>("out").values(), [b"F"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), Some(value.to_vec())));
        self
    }

    /// Pipes a record in, with the driver's time of day as its timestamp.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe("ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").records()[0].timestamp, secs(0)); // no time has passed
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the record, or one that it leads to, stops a task.
    pub fn pipe(&self, key: impl Into<K>, value: impl Into<V>) {
        let now = self.bench.borrow().now;
        self.pipe_at(now, key, value);
    }

    /// Pipes a record in.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(7), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").records(), [Record::new("ann".to_owned(), 5, secs(7))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the record, or one that it leads to, stops a task.
    pub fn pipe_at(&self, timestamp: Timestamp, key: impl Into<K>, value: impl Into<V>) {
        if let Err(failure) = self.try_pipe_at(timestamp, key, value) {
            panic!("the task has stopped: {failure}");
        }
    }

    /// Pipes a record in.
    ///
    /// A record that a policy passes over is no error: see [`skipped`](super::TopologyTestDriver::skipped) and
    /// [`dead_letters`](super::TopologyTestDriver::dead_letters).
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, JavaLong)).map_values(|part| 100 / part).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let failure = driver.input::<String, i64>("in").try_pipe_at(secs(1), "ann", 0).unwrap_err();
    /// assert_eq!(failure.to_string(), "the operator panicked in node 'in-map-values': attempt to divide by zero");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The record, or one that it leads to, stops a task.
    ///
    /// # Panics
    /// If the source's codecs cannot write the record.
    pub fn try_pipe_at(
        &self,
        timestamp: Timestamp,
        key: impl Into<K>,
        value: impl Into<V>,
    ) -> Result<(), RecordFailure> {
        let encoded = self.codecs.encode(&key.into(), &value.into());
        let (key, value) = encoded.unwrap_or_else(|error| panic!("the record cannot be encoded: {error}"));
        self.try_pipe_bytes(Some(timestamp), key.as_deref(), value.as_deref())
    }

    /// Pipes bytes in as they are, such as ones that the codecs cannot read.
    ///
    /// Without a timestamp it is a record of message format 0.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let input = driver.input::<String, i64>("in");
    /// let failure = input.try_pipe_bytes(Some(secs(1)), Some(b"ann"), None).unwrap_err(); // a null
    /// assert!(failure.message.contains("null"), "{failure}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The record, or one that it leads to, stops a task.
    pub fn try_pipe_bytes(
        &self,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), RecordFailure> {
        let record = Stored {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            timestamp: timestamp.map(Timestamp::get),
            headers: self.headers.clone(),
        };
        let to = self.partition.map_or(TargetPartition::ByKey, TargetPartition::Exactly);
        self.bench.borrow_mut().pipe(&self.topic, to, record)
    }
}

impl<K, V> std::fmt::Debug for TestInput<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestInput({:?})", self.topic)
    }
}

/// A record that a sink has written.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", 5);
/// let received = driver.output::<String, i64>("out").received().remove(0);
/// assert_eq!((&*received.topic, received.partition.get(), received.record.value), ("out", 0, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Received<K, V> {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Partition,
    /// The record.
    pub record: Record<K, V>,
}

/// The output of a sink; see [`TopologyTestDriver::output`](super::TopologyTestDriver::output). Each record is read
/// once.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let (input, output) = (driver.input::<String, i64>("in"), driver.output::<String, i64>("out"));
/// input.pipe_at(secs(1), "ann", 5);
/// assert_eq!(output.received().len(), 1); // with topic and partition
/// input.pipe_at(secs(2), "bob", 6);
/// assert_eq!(output.records(), [Record::new("bob".to_owned(), 6, secs(2))]);
/// input.pipe_at(secs(3), "eve", 7);
/// assert_eq!(output.values(), [7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TestOutput<K, V> {
    bench: Rc<RefCell<Bench>>,
    sink: crate::ids::NodeIndex,
    codecs: Arc<dyn CodecPair<K, V>>,
}

impl<K: 'static, V: 'static> TestOutput<K, V> {
    pub(super) fn of(bench: &Rc<RefCell<Bench>>, name: &str) -> Self {
        let held = bench.borrow();
        let sink = held.node(name, |draft| draft.sink().is_some(), "sink");
        let draft = held.topology.nodes()[sink.slot()].sink().expect("the node was found among the sinks");
        let codecs = draft.codecs.typed().unwrap_or_else(|| panic!("sink '{name}' writes other types"));
        Self { bench: bench.clone(), sink, codecs: codecs.clone() }
    }

    /// What was written since the output was last read, with topic and partition.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "kitchen", 21);
    /// let received = driver.output::<String, i64>("out").received();
    /// assert_eq!((&*received[0].topic, received[0].partition.get()), ("out", 0));
    /// assert_eq!(received[0].record, Record::new("kitchen".to_owned(), 21, secs(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the sink's codecs cannot read what they have written.
    pub fn received(&self) -> Vec<Received<K, V>> {
        let mut bench = self.bench.borrow_mut();
        let taken = bench.take_unread(|sent| sent.sink == Some(self.sink));
        let read = |(sent, partition): (super::worker::Sent, Partition)| {
            let record = &sent.record;
            let decoded = self.codecs.decode(record.key.as_deref(), record.value.as_deref());
            let (key, value) = decoded.unwrap_or_else(|error| panic!("an output cannot be read back: {error}"));
            let timestamp = Timestamp::new(record.timestamp.expect("outputs have a timestamp"));
            let topic = bench.topology.outputs()[sent.topic.slot()].clone();
            Received { topic, partition, record: Record::new(key, value, timestamp) }
        };
        taken.into_iter().map(read).collect()
    }

    /// The records that were written since the output was last read, without topic and partition.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "kitchen", 21);
    /// let output = driver.output::<String, i64>("out");
    /// assert_eq!(output.records(), [Record::new("kitchen".to_owned(), 21, secs(1))]);
    /// assert!(output.records().is_empty()); // each is read once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn records(&self) -> Vec<Record<K, V>> {
        self.received().into_iter().map(|received| received.record).collect()
    }

    /// The values of the records that were written since the output was last read.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let input = driver.input::<String, i64>("in");
    /// input.pipe_at(secs(1), "kitchen", 21);
    /// input.pipe_at(secs(2), "cellar", 12);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [21, 12]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn values(&self) -> Vec<V> {
        self.records().into_iter().map(|record| record.value).collect()
    }
}

impl<K, V> std::fmt::Debug for TestOutput<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestOutput({:?})", self.bench.borrow().topology.node_name(self.sink))
    }
}

/// A store over all tasks that have it; see [`TopologyTestDriver::store`](super::TopologyTestDriver::store).
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # const LAST: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("last");
/// # let mut topology = Topology::builder();
/// # topology
/// #     .source("in", "in", (Utf8, JavaLong))
/// #     .each("keep", |record, ctx: &mut Context<'_, String, i64>| Ok(ctx.store(&LAST).put(&record.key, record.value)))
/// #     .with_store(&LAST);
/// let driver = TopologyTestDriver::with_partitions(&topology.build()?, 2)?;
/// // An operator keeps the last value of each key in LAST.
/// for (partition, key, value) in [(1, "ann", 5), (0, "bob", 6), (1, "ann", 7)] {
///     driver.input::<String, i64>("in").partition(partition).pipe_at(secs(1), key, value);
/// }
/// let last = driver.store(&LAST);
/// assert_eq!(last.get(&"ann".to_owned()), Some(7));
/// assert_eq!(last.entries(), [("bob".to_owned(), 6), ("ann".to_owned(), 7)]); // partition 0 first
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TestStore<K, V> {
    bench: Rc<RefCell<Bench>>,
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: StoreKey, V: StoreValue> TestStore<K, V> {
    pub(super) fn of(bench: &Rc<RefCell<Bench>>, name: &'static str) -> Self {
        let parts = bench.borrow();
        let mut stores = parts.topology.subtopologies().iter().flat_map(|part| &part.stores);
        assert!(stores.any(|store| **store == *name), "no node has store '{name}': add .with_store(&…)");
        Self { bench: bench.clone(), name, types: PhantomData }
    }

    /// The committed value of a key.
    ///
    /// If several tasks have one, that of the first.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const LAST: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("last");
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings
    /// #     .each("keep", |reading, ctx: &mut Context<'_, String, i64>| {
    /// #         ctx.store(&LAST).put(&reading.key, reading.value);
    /// #         Ok(())
    /// #     })
    /// #     .with_store(&LAST);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// // An operator keeps the last reading of each sensor in LAST.
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "kitchen", 21);
    /// assert_eq!(driver.store(&LAST).get(&"kitchen".to_owned()), Some(21));
    /// assert_eq!(driver.store(&LAST).get(&"cellar".to_owned()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, key: &K) -> Option<V> {
        let mut found = None;
        self.read(|overlay, base| {
            let value = overlay.get(base, key).expect("a store in memory holds what was written");
            found = found.take().or_else(|| value.cloned());
        });
        found
    }

    /// All committed entries in the order of their keys, task by task.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const LAST: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("last");
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings
    /// #     .each("keep", |reading, ctx: &mut Context<'_, String, i64>| {
    /// #         ctx.store(&LAST).put(&reading.key, reading.value);
    /// #         Ok(())
    /// #     })
    /// #     .with_store(&LAST);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// // An operator keeps the last reading of each sensor in LAST.
    /// for (sensor, celsius) in [("kitchen", 21), ("cellar", 12)] {
    ///     driver.input::<String, i64>("in").pipe_at(secs(1), sensor, celsius);
    /// }
    /// let entries = driver.store(&LAST).entries();
    /// assert_eq!(entries, [("cellar".to_owned(), 12), ("kitchen".to_owned(), 21)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entries(&self) -> Vec<(K, V)> {
        let mut entries = Vec::new();
        self.read(|overlay, base| {
            let mut visit = |key, value| {
                entries.push((key, value));
                ControlFlow::Continue(())
            };
            let all = KeyScan { range: KeyRange::all(), reverse: false, limit: usize::MAX };
            overlay.scan(base, &all, &mut visit).expect("a store in memory holds what was written");
        });
        entries
    }

    fn read(&self, mut read: impl FnMut(&mut Overlay<K, V>, &dyn crate::store::Base)) {
        let bench = self.bench.borrow();
        for worker in &bench.workers {
            let part = bench.topology.subtopology_of(worker.id());
            if let Some(slot) = part.stores.iter().position(|store| **store == *self.name) {
                let index = StoreIndex::new(u16::try_from(slot).expect("build() bounds the number of stores"));
                read(&mut Overlay::new(index, ValueFormat::default(), 0), &worker.base);
            }
        }
    }
}

impl<K, V> std::fmt::Debug for TestStore<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestStore({:?})", self.name)
    }
}

/// A record that failed and was sent to a dead-letter topic.
///
/// [`TopologyTestDriver::dead_letters`](super::TopologyTestDriver::dead_letters) gives them.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// topology.on_failure(FailurePolicy::dead_letter("failed"));
/// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, i64>("in");
/// input.try_pipe_bytes(Some(secs(1)), Some(b"kitchen"), Some(b"warm"))?; // not 8 bytes
/// let letter = driver.dead_letters().remove(0);
/// assert_eq!(&*letter.topic, "failed");
/// assert_eq!((letter.key.unwrap(), letter.value.unwrap()), (b"kitchen".into(), b"warm".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic.
    pub topic: Arc<str>,
    /// The record's key, as it came.
    pub key: Option<Vec<u8>>,
    /// Its value, as it came.
    pub value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

impl DeadLetter {
    pub(super) fn new(topic: Arc<str>, record: &Stored) -> Self {
        let Stored { key, value, headers, .. } = record.clone();
        Self { topic, key, value, headers }
    }

    /// The value of a header as text; the names of those that say why the record failed are in
    /// [`dead_letter`](crate::task::dead_letter).
    ///
    /// `None`: it has none, or its value is null or not UTF-8.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_core::task::dead_letter::{KIND_HEADER, NODE_HEADER};
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.on_failure(FailurePolicy::dead_letter("failed"));
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").header("trace", b"7f3a").try_pipe_bytes(Some(secs(1)), None, Some(b"?"))?;
    /// let letter = driver.dead_letters().remove(0);
    /// assert_eq!((letter.header(KIND_HEADER), letter.header(NODE_HEADER)), (Some("decode"), Some("in")));
    /// assert_eq!(letter.header("trace"), Some("7f3a")); // the record's own are there, too
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(found.1.as_deref()?).ok()
    }
}
