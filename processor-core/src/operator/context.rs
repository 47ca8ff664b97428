//! What an operator sees of its task: where to forward, its stores, its schedules, where the record came from.

use std::time::Duration;

use super::Store;
use super::env::{Children, Failed, Recorded, Run, TaskEnv};
use crate::error::OperatorError;
use crate::ids::{NodeIndex, StoreIndex, TaskId, Timestamp};
use crate::record::{BatchInfo, Record, RecordMetadata};
use crate::store::{KeyValueStoreDef, StoreKey, StoreValue};
use crate::time::{Clock, ScheduleId, Schedules};

/// What an operator may do while it processes a record or a punctuation.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// const LAST: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("last");
///
/// /// By how much each value differs from the one before it.
/// fn differences(record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///     let mut last = ctx.store(&LAST);
///     let before = last.get(&record.key)?;
///     last.put(&record.key, record.value);
///     match before {
///         Some(before) => {
///             let difference = record.value - before;
///             ctx.forward(record.with_value(difference))
///         }
///         None => Ok(()),
///     }
/// }
///
/// let mut topology = Topology::builder();
/// topology
///     .source("levels", "levels", (Utf8, JavaLong))
///     .process("differences", differences)
///     .with_store(&LAST)
///     .sink("out", "differences", (Utf8, JavaLong));
/// let driver = TopologyTestDriver::new(topology.build()?)?;
/// for level in [10, 13, 12] {
///     driver.input::<String, i64>("levels").pipe_at(secs(1), "tank", level);
/// }
/// assert_eq!(driver.output::<String, i64>("out").values(), [3, -1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<'a, K, V> {
    pub(crate) env: &'a mut TaskEnv,
    pub(crate) run: Run<'a>,
    pub(crate) children: &'a mut Children<K, V>,
    pub(crate) stores: &'a [(&'static str, StoreIndex)],
    pub(crate) node: &'a str,
}

impl<K: Clone, V: Clone> Context<'_, K, V> {
    /// Hands a record to the nodes behind this one, which process it before this returns.
    ///
    /// With several nodes behind this one each gets a copy, in the order in which they were connected.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("halve", |order, ctx| {
    ///         for half in [order.value / 2, order.value - order.value / 2] {
    ///             ctx.forward(order.clone().with_value(half))?; // both, or neither
    ///         }
    ///         Ok(())
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A later node failed; return the error, the record has failed either way.
    pub fn forward(&mut self, record: Record<K, V>) -> Result<(), OperatorError> {
        self.children.forward(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }
}

impl<K, V> Context<'_, K, V> {
    /// Hands a record to one of the nodes behind this one.
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// let mut topology = Topology::builder();
    /// let split = topology.source("in", "in", (Utf8, JavaLong)).each("split", |record, ctx| {
    ///     let child = if record.value < 0 { "debits" } else { "credits" };
    ///     ctx.forward_to(child, record)
    /// });
    /// split.sink("debits", "debits", (Utf8, JavaLong));
    /// split.sink("credits", "credits", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("in").pipe_at(secs(1), "ann", -3);
    /// assert_eq!(driver.output::<String, i64>("debits").values(), [-3]);
    /// assert_eq!(driver.output::<String, i64>("credits").values(), [0; 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// That node, or a later one, failed; return the error, the record has failed either way.
    ///
    /// # Panics
    /// If no node of that name is connected to this one; the panic stops the task, whatever the node's failure policy, and
    /// names both.
    pub fn forward_to(&mut self, child: &str, record: Record<K, V>) -> Result<(), OperatorError> {
        let Some(child) = self.children.named(child) else {
            let node = self.node;
            let message =
                format!("node '{node}' has no node '{child}' behind it: forward to one that is connected to it");
            Failed::miswired(&mut self.env.failure, &self.env.node, node, &message)
        };
        child.receive(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }

    /// Hands a record to the node that was connected as the `position`th, if there is one.
    pub(crate) fn forward_nth(&mut self, position: usize, record: Record<K, V>) -> Result<(), OperatorError> {
        let Some(child) = self.children.0.get_mut(position) else { return Ok(()) };
        child.receive(record, self.env, self.run).map_err(|Recorded| OperatorError::recorded())
    }

    /// A store of this node.
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// const SEEN: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("seen");
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "in", (Utf8, JavaLong))
    ///     .each("remember", |record, ctx: &mut Context<'_, String, i64>| {
    ///         ctx.store(&SEEN).put(&record.key, record.value);
    ///         Ok(())
    ///     }); // .with_store(&SEEN) is missing
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let failure = driver.input::<String, i64>("in").try_pipe_at(secs(1), "a", 1).unwrap_err();
    /// assert!(failure.message.contains("add .with_store"), "{failure}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// If the store was not given to the node with `with_store`; the panic stops the task, whatever the node's failure policy,
    /// and names both. So does using it with other types than it was given with.
    pub fn store<SK: StoreKey, SV: StoreValue>(&mut self, definition: &KeyValueStoreDef<SK, SV>) -> Store<'_, SK, SV> {
        let name = definition.name();
        let Some(&(_, index)) = self.stores.iter().find(|(known, _)| *known == name) else {
            let node = self.node;
            let message = format!("node '{node}' has no store '{name}': add .with_store(&…) behind its .process(…)");
            Failed::miswired(&mut self.env.failure, &self.env.node, node, &message)
        };
        Store::open(self.env, self.run.base, index, name, self.node)
    }

    /// Where the record in process came from; `None` in a wall-clock punctuation, which comes from no record.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("drop-replayed", |order, ctx| {
    ///         let from = ctx.metadata().expect("a record is in process");
    ///         let is_replayed = from.topic == "orders" && from.header("replayed").is_some();
    ///         if is_replayed { Ok(()) } else { ctx.forward(order) }
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").header("replayed", b"yes").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [0; 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metadata(&self) -> Option<RecordMetadata<'_>> {
        let input = self.run.input?;
        let origin = &self.env.origin;
        Some(RecordMetadata { topic: &origin.topic, partition: origin.partition, offset: origin.offset, input })
    }

    /// The poll batch that the record belongs to.
    ///
    /// Its time is the only time of day that an operator should look at.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("age", |order, ctx| {
    ///         let age_ms = ctx.batch().now.get() - order.timestamp.get();
    ///         ctx.forward(order.with_value(age_ms))
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(std::time::Duration::from_secs(90))?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(30), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [60_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&self) -> BatchInfo {
        self.env.origin.batch
    }

    /// The task.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("where", |order, ctx| {
    ///         assert_eq!(ctx.task().to_string(), "orders_0"); // sub-topology and partition
    ///         ctx.forward(order)
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 5);
    /// # assert_eq!(driver.output::<String, i64>("out").values(), [5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> &TaskId {
        &self.env.task
    }

    /// The highest timestamp this task has seen, the record in process included; `None` before the first record.
    ///
    /// It is committed with the batch and comes back after a restart.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("lateness", |order, ctx| {
    ///         let now = ctx.stream_time().expect("the record in process has a time");
    ///         let late_ms = now.get() - order.timestamp.get();
    ///         ctx.forward(order.with_value(late_ms))
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(30), "ann", 1);
    /// driver.input::<String, i64>("orders").pipe_at(secs(10), "ann", 1);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [0, 20_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.env.stream_time
    }

    /// Calls [`Operator::punctuate`](super::Operator::punctuate) of this node every so often, from the next multiple of
    /// `every` on. It is undone if the record fails, and gone when the task leaves the thread: schedules that shall be
    /// there again after a restart are made in [`Operator::open`](super::Operator::open).
    ///
    /// Less than a millisecond counts as one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// /// Says at the next full minute of the day that a record has come.
    /// struct Notice;
    ///
    /// impl Operator for Notice {
    ///     type KeyIn = String;
    ///     type ValueIn = i64;
    ///     type KeyOut = String;
    ///     type ValueOut = i64;
    ///
    ///     fn process(&mut self, _: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ///         ctx.schedule(Duration::from_secs(60), Clock::WallClock);
    ///         Ok(())
    ///     }
    ///
    ///     fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ///         ctx.cancel(punctuation.schedule);
    ///         ctx.forward(Record::new("it has come".to_owned(), 1, punctuation.due))
    ///     }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// topology.source("in", "in", (Utf8, JavaLong)).process("notice", || Notice).sink("out", "out", (Utf8, JavaLong));
    /// let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(Duration::from_secs(50))?;
    /// driver.input::<String, i64>("in").pipe("a", 1);
    /// for _ in 0..3 {
    ///     driver.advance_wall_clock(Duration::from_secs(60))?;
    /// }
    /// let out = driver.output::<String, i64>("out").records();
    /// assert_eq!((out.len(), out[0].timestamp), (1, secs(60)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule(&mut self, every: Duration, clock: Clock) -> ScheduleId {
        let now = match clock {
            Clock::StreamTime => self.env.stream_time,
            Clock::WallClock => Some(self.env.origin.batch.now),
        };
        self.env.schedules.add(self.env.node.get(), every, clock, now)
    }

    /// Ends a schedule of this node; nothing happens if it has ended.
    ///
    /// Like a schedule that is made, one that is ended is back if the record fails.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// struct FirstMinute; // its `open` makes a schedule of a minute
    ///
    /// impl Operator for FirstMinute {
    ///     # type KeyIn = String;
    ///     # type ValueIn = i64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = i64;
    ///     # fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
    ///     #     ctx.schedule(Duration::from_secs(60), Clock::StreamTime);
    ///     #     Ok(())
    ///     # }
    ///     # fn process(
    ///     #     &mut self,
    ///     #     _: Record<String, i64>,
    ///     #     _: &mut Context<'_, String, i64>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     Ok(())
    ///     # }
    ///     fn punctuate(
    ///         &mut self,
    ///         at: Punctuation,
    ///         ctx: &mut Context<'_, String, i64>,
    ///     ) -> Result<(), OperatorError> {
    ///         ctx.cancel(at.schedule); // once is enough
    ///         ctx.forward(Record::new("a minute is over".to_owned(), 1, at.due))
    ///     }
    /// }
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings.process("first-minute", || FirstMinute).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let input = driver.input::<String, i64>("in");
    /// for time in [1, 61, 121] {
    ///     input.pipe_at(secs(time), "kitchen", 21);
    /// }
    /// assert_eq!(driver.output::<String, i64>("out").values(), [1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&mut self, schedule: ScheduleId) {
        self.env.schedules.cancel(self.env.node.get(), schedule);
    }

    /// Asks for the batch to end, and so to commit, behind the record in process.
    ///
    /// Every batch is committed, and soon: this is for a record that shall not wait for those behind it. A commit costs
    /// as much as many records do, so do not ask with every one.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// orders
    ///     .each("hurry", |order, ctx| {
    ///         if order.value > 1_000_000 {
    ///             ctx.request_commit(); // whoever reads the output shall not wait for the rest of the batch
    ///         }
    ///         ctx.forward(order)
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 2_000_000);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [2_000_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_commit(&mut self) {
        self.env.commit_requested = true;
    }
}

impl<K, V> std::fmt::Debug for Context<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context of node {:?} in task {}", self.node, self.env.task)
    }
}

/// What an operator may do before its first record.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
///
/// /// Asks to be called each minute, in the first partition's task only.
/// struct Minutely;
///
/// impl Operator for Minutely {
///     # type KeyIn = String;
///     # type ValueIn = i64;
///     # type KeyOut = String;
///     # type ValueOut = i64;
///     // …
///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
///         if ctx.task().partition == Partition::new(0) {
///             ctx.schedule(Duration::from_secs(60), Clock::WallClock);
///         }
///         Ok(())
///     }
///     # fn process(&mut self, _: Record<String, i64>, _: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///     #     Ok(())
///     # }
///     # fn punctuate(&mut self, at: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///     #     ctx.forward(Record::new(ctx.task().to_string(), 1, at.due))
///     # }
/// }
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).process("minutely", || Minutely).sink("out", "out", (Utf8, JavaLong));
/// # let mut driver = processor_core::testing::TopologyTestDriver::with_partitions(&topology.build()?, 3)?;
/// driver.advance_wall_clock(Duration::from_secs(60))?;
/// assert_eq!(driver.output::<String, i64>("out").records()[0].key, "in_0");
/// # assert!(driver.output::<String, i64>("out").records().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OpenContext<'a> {
    pub(crate) task: &'a TaskId,
    pub(crate) schedules: &'a mut Schedules,
    pub(crate) node: NodeIndex,
}

impl OpenContext<'_> {
    /// The task.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// #[derive(Default)]
    /// struct Numbered {
    ///     partition: i64,
    /// }
    ///
    /// impl Operator for Numbered {
    ///     # type KeyIn = String;
    ///     # type ValueIn = i64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = i64;
    ///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
    ///         self.partition = i64::from(ctx.task().partition.get());
    ///         Ok(())
    ///     }
    ///     # fn process(
    ///     #     &mut self,
    ///     #     reading: Record<String, i64>,
    ///     #     ctx: &mut Context<'_, String, i64>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     ctx.forward(reading.with_value(self.partition))
    ///     # }
    /// }
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings.process("numbered", Numbered::default).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::with_partitions(&topology.build()?, 4)?;
    /// // It forwards its number.
    /// driver.input::<String, i64>("in").partition(3).pipe_at(secs(1), "kitchen", 21);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> &TaskId {
        self.task
    }

    /// Calls [`Operator::punctuate`](super::Operator::punctuate) of this node every so often. Stream-time punctuations
    /// are due at the multiples of `every`, whenever the task was started (EO-7).
    ///
    /// Less than a millisecond counts as one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// struct Minutes;
    ///
    /// impl Operator for Minutes {
    ///     # type KeyIn = String;
    ///     # type ValueIn = i64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = i64;
    ///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
    ///         ctx.schedule(Duration::from_secs(60), Clock::StreamTime);
    ///         Ok(())
    ///     }
    ///     # fn process(
    ///     #     &mut self,
    ///     #     _: Record<String, i64>,
    ///     #     _: &mut Context<'_, String, i64>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     Ok(())
    ///     # }
    ///     # fn punctuate(
    ///     #     &mut self,
    ///     #     at: Punctuation,
    ///     #     ctx: &mut Context<'_, String, i64>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     ctx.forward(Record::new(String::new(), at.due.get(), at.due))
    ///     # }
    /// }
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings.process("minutes", || Minutes).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// // It forwards when it was due, in milliseconds.
    /// for time in [50, 70, 130] {
    ///     driver.input::<String, i64>("in").pipe_at(secs(time), "kitchen", 21);
    /// }
    /// assert_eq!(driver.output::<String, i64>("out").values(), [60_000, 120_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn schedule(&mut self, every: Duration, clock: Clock) -> ScheduleId {
        self.schedules.add(self.node, every, clock, None)
    }
}
