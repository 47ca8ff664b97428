//! The driver: topics, tasks, and a clock that only the test moves.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::handles::{DeadLetter, TestInput, TestOutput, TestStore};
use super::topics::{Logs, Stored};
use super::worker::{Refusal, Sent, Step, Worker};
use crate::error::RecordFailure;
use crate::ids::{NodeIndex, Partition, TaskId, Timestamp};
use crate::record::TargetPartition;
use crate::store::{KeyValueStoreDef, StoreKey, StoreValue};
use crate::task::TaskSettings;
use crate::topology::{ApplicationTopology, Topology, TopologyError};

/// The application that the driver runs a topology as: its internal topics begin with this name.
const APPLICATION_ID: &str = "test";
/// How many bytes of clean values each store keeps decoded: few, so that tests go to the base.
const CACHE_BYTES_MAX: usize = 4_096;

/// Runs a topology on topics in memory. Every record that is piped in is processed and committed at once, along with
/// what it leads to in other sub-topologies.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// const WINDOW: KeyValueStoreDef<String, Vec<f64>> = KeyValueStoreDef::new("window");
///
/// let mut topology = Topology::builder();
/// topology
///     .source("readings", "readings", (Utf8, JavaDouble))
///     .each("average", |record, ctx| {
///         let mean = ctx.store(&WINDOW).update(&record.key, |window| {
///             window.push(record.value);
///             window.iter().sum::<f64>() / window.len() as f64
///         })?;
///         ctx.forward(record.with_value(mean))
///     })
///     .with_store(&WINDOW)
///     .sink("averages", "averages", (Utf8, JavaDouble));
///
/// let mut driver = TopologyTestDriver::new(topology.build()?)?;
/// let readings = driver.input::<String, f64>("readings");
/// readings.pipe_at(secs(1), "a", 1.0);
/// readings.pipe_at(secs(2), "a", 3.0);
/// assert_eq!(driver.output::<String, f64>("averages").values(), [1.0, 2.0]);
///
/// driver.crash_and_restore()?;
/// assert_eq!(driver.store(&WINDOW).get(&"a".to_owned()), Some(vec![1.0, 3.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TopologyTestDriver {
    bench: Rc<RefCell<Bench>>,
}

/// A topology cannot be driven, or has stopped.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{DriverError, TopologyTestDriver};
///
/// struct Broken;
///
/// impl Operator for Broken {
///     # type KeyIn = String;
///     # type ValueIn = String;
///     # type KeyOut = String;
///     # type ValueOut = String;
///     fn open(&mut self, _: &mut OpenContext<'_>) -> Result<(), OperatorError> {
///         Err(OperatorError::message("no model to load"))
///     }
///     # fn process(&mut self, _: Record<String, String>, _: &mut Context<'_, String, String>) -> Result<(), OperatorError> {
///     #     Ok(())
///     # }
/// }
///
/// let mut topology = Topology::builder();
/// topology.source("in", "in", (Utf8, Utf8)).process("broken", || Broken);
/// match TopologyTestDriver::new(topology.build()?) {
///     Err(DriverError::Failed(failure)) => assert_eq!(failure.message, "open: no model to load"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum DriverError {
    /// The topology does not fit an application.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A task stopped: an operator could not be opened, or a record or a punctuation failed.
    #[error(transparent)]
    Failed(#[from] RecordFailure),
}

pub(super) struct Bench {
    pub(super) topology: ApplicationTopology,
    settings: TaskSettings,
    pub(super) logs: Logs,
    pub(super) workers: Vec<Worker>,
    pub(super) now: Timestamp,
    /// Everything that was written, in order, and what the test has not yet read of it.
    pub(super) unread: Vec<(Sent, Partition)>,
    skipped: Vec<RecordFailure>,
    refusal: Option<Refusal>,
}

impl TopologyTestDriver {
    /// Runs a topology whose topics have one partition each.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// let mut topology = Topology::builder();
    /// topology.source("in", "readings", (Utf8, JavaLong)).sink("out", "copies", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "kitchen", 21);
    /// assert_eq!(driver.output::<String, i64>("out").received()[0].partition.get(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topology does not fit an application, or an operator cannot be opened.
    #[expect(clippy::needless_pass_by_value, reason = "what `build()` returns goes straight in")]
    pub fn new(topology: Topology) -> Result<Self, DriverError> {
        Self::with_partitions(&topology, 1)
    }

    /// Runs a topology whose topics have so many partitions each, but for internal ones that say otherwise.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// let topology = topology.build()?; // the driver can be made several times
    /// let driver = TopologyTestDriver::with_partitions(&topology, 8)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", 5);
    /// let partition = driver.output::<String, i64>("out").received()[0].partition;
    /// assert_eq!(partition, processor_core::partition::of_key(b"ann", 8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The topology does not fit an application, or an operator cannot be opened.
    pub fn with_partitions(topology: &Topology, partitions: u32) -> Result<Self, DriverError> {
        let topology = topology.for_application(APPLICATION_ID)?;
        let logs = logs_of(&topology, partitions);
        let outputs = topology.outputs().iter().map(|topic| logs.partitions_of(topic));
        let outputs: Option<Arc<[u32]>> = outputs.collect();
        let output_partitions = outputs.expect("the driver makes every topic of its topology");
        let mut bench = Bench {
            settings: TaskSettings { cache_bytes_max: CACHE_BYTES_MAX, output_partitions },
            logs,
            workers: Vec::new(),
            now: Timestamp::new(0),
            unread: Vec::new(),
            skipped: Vec::new(),
            refusal: None,
            topology,
        };
        for id in bench.task_ids() {
            bench.workers.push(Worker::start(&bench.topology, &bench.settings, id, bench.now)?);
        }
        Ok(Self { bench: Rc::new(RefCell::new(bench)) })
    }

    /// The input of a source node.
    ///
    /// If the source reads several topics, it is the first of them: see [`TestInput::topic`].
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let input = driver.input::<String, i64>("in"); // the types of the source's codecs
    /// input.pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If there is no source of this name, or it reads other types.
    pub fn input<K: 'static, V: 'static>(&self, source: &str) -> TestInput<K, V> {
        TestInput::of(&self.bench, source)
    }

    /// The output of a sink node.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let output = driver.output::<String, i64>("out");
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(output.values(), [5]);
    /// assert_eq!(output.values(), [0; 0], "each record is read once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If there is no sink of this name, or it writes other types.
    pub fn output<K: 'static, V: 'static>(&self, sink: &str) -> TestOutput<K, V> {
        TestOutput::of(&self.bench, sink)
    }

    /// A store, over all tasks that have it, as it was last committed.
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
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// // An operator keeps the last value of each key in LAST.
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.store(&LAST).get(&"ann".to_owned()), Some(5));
    /// assert_eq!(driver.store(&LAST).get(&"bob".to_owned()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If no node has the store.
    pub fn store<K: StoreKey, V: StoreValue>(&self, definition: &KeyValueStoreDef<K, V>) -> TestStore<K, V> {
        TestStore::of(&self.bench, definition.name())
    }

    /// The dead letters since this was last asked.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::dead_letter("failed"));
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").try_pipe_bytes(Some(secs(1)), Some(b"ann"), Some(b"five"))?;
    /// let letters = driver.dead_letters();
    /// assert_eq!(letters[0].header("processor-error"), Some("the value: it has 4 bytes, not 8"));
    /// assert!(driver.dead_letters().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut bench = self.bench.borrow_mut();
        let taken = bench.take_unread(|sent| sent.sink.is_none());
        let outputs = bench.topology.outputs();
        taken.into_iter().map(|(sent, _)| DeadLetter::new(outputs[sent.topic.slot()].clone(), &sent.record)).collect()
    }

    /// Why records were skipped since this was last asked.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::skip());
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").try_pipe_bytes(Some(secs(1)), Some(b"ann"), Some(b"five"))?;
    /// assert_eq!(driver.skipped()[0].node, "in");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn skipped(&self) -> Vec<RecordFailure> {
        std::mem::take(&mut self.bench.borrow_mut().skipped)
    }

    /// Moves the time of day on: schedules that are due fire, records that wait to be tried again are. A schedule that is
    /// due several times over fires once.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(std::time::Duration::from_secs(90))?; // it has begun at 0
    /// driver.input::<String, i64>("in").pipe("ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").records()[0].timestamp, secs(90));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A record or a punctuation failed and its task stops.
    pub fn advance_wall_clock(&mut self, by: Duration) -> Result<(), DriverError> {
        let mut bench = self.bench.borrow_mut();
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        bench.now = Timestamp::new(bench.now.get().saturating_add(by));
        for worker in 0..bench.workers.len() {
            let now = bench.now;
            let step = bench.workers[worker].punctuate(now);
            bench.take(step)?;
        }
        Ok(bench.run()?)
    }

    /// All tasks lose what is not committed, and start again: state from the changelog, schedules from `open`. The disk is
    /// lost, too, so stores without a changelog are empty.
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
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", 5);
    /// driver.crash_and_restore()?;
    /// assert_eq!(driver.store(&LAST).get(&"ann".to_owned()), Some(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An operator cannot be opened, or a record that waited to be tried again fails.
    pub fn crash_and_restore(&mut self) -> Result<(), DriverError> {
        let mut bench = self.bench.borrow_mut();
        let Bench { topology, settings, workers, now, .. } = &mut *bench;
        workers.iter_mut().try_for_each(|worker| worker.restore(topology, settings, *now))?;
        Ok(bench.run()?)
    }

    /// Stops cleanly: every operator is closed. A driver that is dropped closes none, as a crash does not.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use processor_core::prelude::*;
    /// use processor_core::testing::TopologyTestDriver;
    ///
    /// struct Connected(Arc<AtomicBool>);
    ///
    /// impl Operator for Connected {
    ///     # type KeyIn = String;
    ///     # type ValueIn = String;
    ///     # type KeyOut = String;
    ///     # type ValueOut = String;
    ///     # fn process(&mut self, _: Record<String, String>, _: &mut Context<'_, String, String>) -> Result<(), OperatorError> {
    ///     #     Ok(())
    ///     # }
    ///     fn close(&mut self) {
    ///         self.0.store(false, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let connected = Arc::new(AtomicBool::new(true));
    /// let of_operator = connected.clone();
    /// let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, Utf8)).process("connected", move || Connected(of_operator.clone()));
    /// TopologyTestDriver::new(topology.build()?)?.close();
    /// assert!(!connected.load(Ordering::Relaxed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(self) {
        self.bench.borrow_mut().workers.iter_mut().for_each(Worker::close);
    }

    /// Makes the broker refuse the next record that a sink writes, as it would one that is too large.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong)).on_failure(FailurePolicy::skip());
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.refuse_next("out", "too large"); // a sink whose policy is to skip
    /// for value in [5, 6] {
    ///     driver.input::<String, i64>("in").pipe_at(secs(1), "ann", value);
    /// }
    /// assert_eq!(driver.output::<String, i64>("out").values(), [6]);
    /// assert_eq!(driver.skipped()[0].to_string(), "writing the output failed in node 'out': too large");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If there is no sink of this name.
    pub fn refuse_next(&mut self, sink: &str, reason: &str) {
        let mut bench = self.bench.borrow_mut();
        let sink = bench.node(sink, |draft| draft.sink().is_some(), "sink");
        bench.refusal = Some(Refusal { sink, reason: reason.to_owned() });
    }
}

impl std::fmt::Debug for TopologyTestDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TopologyTestDriver({:?})", self.bench.borrow().topology)
    }
}

fn logs_of(topology: &ApplicationTopology, partitions: u32) -> Logs {
    let internal = topology.internal_topics();
    let is_internal = |topic: &Arc<str>| internal.iter().any(|internal| internal.topic == *topic);
    let mut logs = Logs::default();
    for topic in topology.inputs().iter().chain(topology.outputs()).filter(|topic| !is_internal(topic)) {
        logs.create(topic.clone(), partitions);
    }
    let counts = topology.internal_partitions(|topic| logs.partitions_of(topic));
    for (internal, count) in internal.iter().zip(counts) {
        logs.create(internal.topic.clone(), count.unwrap_or(partitions));
    }
    logs
}

impl Bench {
    fn task_ids(&self) -> Vec<TaskId> {
        let mut ids = Vec::new();
        for part in self.topology.subtopologies() {
            let topics = part.inputs.iter().map(|input| &self.topology.inputs()[input.slot()]);
            let counts: Vec<u32> = topics.filter_map(|topic| self.logs.partitions_of(topic)).collect();
            let count = counts.first().copied().unwrap_or(0);
            assert!(
                counts.iter().all(|other| *other == count),
                "the inputs of sub-topology '{}' must have the same number of partitions, and have {counts:?}",
                part.name
            );
            ids.extend((0..count).map(|number| TaskId::new(part.name.clone(), Partition::new(number as i32))));
        }
        ids
    }

    /// The node of this name, which must be of this kind.
    pub(super) fn node(&self, name: &str, is_right: impl Fn(&crate::topology::Draft) -> bool, what: &str) -> NodeIndex {
        let nodes = self.topology.nodes();
        let found = nodes.iter().position(|draft| draft.name == name && is_right(draft));
        let found = found.unwrap_or_else(|| {
            let names = nodes.iter().filter(|draft| is_right(draft)).map(|draft| draft.name.as_str());
            panic!("the topology has no {what} '{name}', but {}", names.collect::<Vec<_>>().join(", "))
        });
        NodeIndex::new(u16::try_from(found).expect("build() bounds the number of nodes"))
    }

    /// Appends an input record and runs whatever that leads to.
    pub(super) fn pipe(&mut self, topic: &str, to: TargetPartition, record: Stored) -> Result<(), RecordFailure> {
        self.logs.append(topic, to, Rc::new(record));
        self.run()
    }

    /// Goes on until no task has anything to do now.
    fn run(&mut self) -> Result<(), RecordFailure> {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for worker in 0..self.workers.len() {
                let inputs = self.topology.inputs();
                let step = self.workers[worker].process(inputs, &self.logs, self.now, &mut self.refusal);
                moved |= step.moved;
                self.take(step)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), RecordFailure> {
        self.skipped.extend(step.skipped);
        for sent in step.sent {
            let topic = self.topology.outputs()[sent.topic.slot()].clone();
            let partition = self.logs.append(&topic, sent.partition, sent.record.clone());
            self.unread.push((sent, partition));
        }
        step.failed.map_or(Ok(()), Err)
    }

    pub(super) fn take_unread(&mut self, of: impl Fn(&Sent) -> bool) -> Vec<(Sent, Partition)> {
        let (taken, left) = std::mem::take(&mut self.unread).into_iter().partition(|(sent, _)| of(sent));
        self.unread = left;
        taken
    }
}
