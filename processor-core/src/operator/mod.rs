//! Operators: the code a user writes, and what it may do while a record passes through it.
//!
//! An [`Operator`] is given a [`Context`], through which it forwards records and opens a [`Store`]; a [`Scan`] reads ranges
//! of it. The other types here are inferred and never written.

mod branch;
mod closure;
mod context;
mod env;
mod scan;
mod store;

pub(crate) use branch::{Branch, Predicate};
pub use closure::{Closure, Factory, IntoOperator, PerRecord};
pub use context::{Context, OpenContext};
pub use env::RunningNode;
pub(crate) use env::{Children, Failed, Origin, Receive, Recorded, Run, Shared, TaskEnv};
pub use scan::Scan;
pub use store::{Store, StoreError};

use crate::error::OperatorError;
use crate::record::Record;
use crate::time::Punctuation;

/// A step of a topology, with state if it likes. One value of it serves one task and is never shared between threads.
///
/// ```
/// use processor_core::prelude::*;
///
/// const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
///
/// /// How often each word was seen.
/// struct Count;
///
/// impl Operator for Count {
///     type KeyIn = String;
///     type ValueIn = String;
///     type KeyOut = String;
///     type ValueOut = u64;
///
///     fn process(&mut self, record: Record<String, String>, ctx: &mut Context<'_, String, u64>) -> Result<(), OperatorError> {
///         let count = ctx.store(&COUNTS).update(&record.key, |count| {
///             *count += 1;
///             *count
///         })?;
///         ctx.forward(record.with_value(count))
///     }
/// }
/// ```
///
/// # Contract
/// What an operator does is a function of its records, its stores and the supplied time (EO-7): a record may be
/// processed again after a crash, and must then have the same effect. Keep no state outside stores.
pub trait Operator: 'static {
    /// The key of records that come in.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// struct AsText;
    ///
    /// impl Operator for AsText {
    ///     type KeyIn = i32; // an account, as in the stream in front of it
    ///     # type ValueIn = i64;
    ///     # type KeyOut = i32;
    ///     # type ValueOut = String;
    ///     // …
    ///     # fn process(
    ///     #     &mut self,
    ///     #     payment: Record<i32, i64>,
    ///     #     ctx: &mut Context<'_, i32, String>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     let text = format!("{} cents", payment.value);
    ///     #     ctx.forward(payment.with_value(text))
    ///     # }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// let payments = topology.source("payments", "payments", (JavaInteger, JavaLong));
    /// payments.process("as-text", || AsText); // the keys are numbers of 32 bits
    /// assert!(topology.build().is_ok());
    /// ```
    type KeyIn;

    /// The value of records that come in.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// struct AsText;
    ///
    /// impl Operator for AsText {
    ///     # type KeyIn = i32;
    ///     type ValueIn = i64; // cents, as in the stream in front of it
    ///     # type KeyOut = i32;
    ///     # type ValueOut = String;
    ///     // …
    ///     # fn process(
    ///     #     &mut self,
    ///     #     payment: Record<i32, i64>,
    ///     #     ctx: &mut Context<'_, i32, String>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     let text = format!("{} cents", payment.value);
    ///     #     ctx.forward(payment.with_value(text))
    ///     # }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// let payments = topology.source("payments", "payments", (JavaInteger, JavaLong));
    /// payments.process("as-text", || AsText); // the values are numbers of 64 bits
    /// assert!(topology.build().is_ok());
    /// ```
    type ValueIn;

    /// The key of records that go out.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// struct AsText;
    ///
    /// impl Operator for AsText {
    ///     # type KeyIn = i32;
    ///     # type ValueIn = i64;
    ///     type KeyOut = i32; // the account still
    ///     # type ValueOut = String;
    ///     // …
    ///     # fn process(
    ///     #     &mut self,
    ///     #     payment: Record<i32, i64>,
    ///     #     ctx: &mut Context<'_, i32, String>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     let text = format!("{} cents", payment.value);
    ///     #     ctx.forward(payment.with_value(text))
    ///     # }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// let payments = topology.source("payments", "payments", (JavaInteger, JavaLong));
    /// payments
    ///     .process("as-text", || AsText)
    ///     .filter(|text| text.key > 0) // of an account
    ///     .sink("texts", "texts", (JavaInteger, Utf8));
    /// assert!(topology.build().is_ok());
    /// ```
    type KeyOut;

    /// The value of records that go out.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// struct AsText;
    ///
    /// impl Operator for AsText {
    ///     # type KeyIn = i32;
    ///     # type ValueIn = i64;
    ///     # type KeyOut = i32;
    ///     type ValueOut = String; // a text of the amount
    ///     // …
    ///     # fn process(
    ///     #     &mut self,
    ///     #     payment: Record<i32, i64>,
    ///     #     ctx: &mut Context<'_, i32, String>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     let text = format!("{} cents", payment.value);
    ///     #     ctx.forward(payment.with_value(text))
    ///     # }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// let payments = topology.source("payments", "payments", (JavaInteger, JavaLong));
    /// payments.process("as-text", || AsText).sink("texts", "texts", (JavaInteger, Utf8));
    /// assert!(topology.build().is_ok());
    /// ```
    type ValueOut;

    /// Called once before the first record; the place to make schedules.
    ///
    /// ```
    /// use std::time::Duration;
    /// use processor_core::prelude::*;
    /// use processor_core::testing::{TopologyTestDriver, secs};
    ///
    /// const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");
    ///
    /// /// Every minute of stream time how often each word has been seen by then.
    /// struct Report;
    ///
    /// impl Operator for Report {
    ///     type KeyIn = String;
    ///     type ValueIn = String;
    ///     type KeyOut = String;
    ///     type ValueOut = i64;
    ///
    ///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
    ///         ctx.schedule(Duration::from_secs(60), Clock::StreamTime);
    ///         Ok(())
    ///     }
    ///
    ///     fn process(&mut self, word: Record<String, String>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ///         Ok(ctx.store(&COUNTS).update(&word.value, |count| *count += 1)?)
    ///     }
    ///
    ///     fn punctuate(&mut self, punctuation: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ///         for (word, count) in ctx.store(&COUNTS).all().collect()? {
    ///             ctx.forward(Record::new(word, count, punctuation.due))?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("words", "words", (Utf8, Utf8))
    ///     .process("report", || Report)
    ///     .with_store(&COUNTS)
    ///     .sink("reports", "reports", (Utf8, JavaLong));
    /// let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let words = driver.input::<String, String>("words");
    /// words.pipe_at(secs(10), "", "tea");
    /// words.pipe_at(secs(59), "", "tea");
    /// let reports = driver.output::<String, i64>("reports");
    /// assert!(reports.records().is_empty());
    /// words.pipe_at(secs(61), "", "tea"); // counted, and then the report of minute 1 is due
    /// assert_eq!(reports.records(), [Record::new("tea".to_owned(), 3, secs(60))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Stop the task before it has read anything.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Processes one record. What it forwards and writes takes effect together, or, if it fails, not at all.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// struct Fahrenheit;
    ///
    /// impl Operator for Fahrenheit {
    ///     # type KeyIn = String;
    ///     # type ValueIn = f64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = f64;
    ///     fn process(
    ///         &mut self,
    ///         reading: Record<String, f64>, // in °C
    ///         ctx: &mut Context<'_, String, f64>,
    ///     ) -> Result<(), OperatorError> {
    ///         let fahrenheit = reading.value * 1.8 + 32.0;
    ///         ctx.forward(reading.with_value(fahrenheit))
    ///     }
    /// }
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaDouble));
    /// # readings.process("fahrenheit", || Fahrenheit).sink("out", "out", (Utf8, JavaDouble));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, f64>("in").pipe_at(secs(1), "kitchen", 20.0);
    /// assert_eq!(driver.output::<String, f64>("out").values(), [68.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The record has failed; the topology's policy says what follows.
    fn process(
        &mut self,
        record: Record<Self::KeyIn, Self::ValueIn>,
        ctx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), OperatorError>;

    /// Called when a schedule of this node is due. What it forwards and writes is committed with the batch.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// struct Heartbeat; // it has a schedule of 30 s
    ///
    /// impl Operator for Heartbeat {
    ///     # type KeyIn = String;
    ///     # type ValueIn = i64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = i64;
    ///     # fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
    ///     #     ctx.schedule(Duration::from_secs(30), Clock::WallClock);
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
    ///         ctx.forward(Record::new("alive".to_owned(), 1, at.due))
    ///     }
    /// }
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// # readings.process("heartbeat", || Heartbeat).sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(Duration::from_secs(45))?;
    /// let beats = driver.output::<String, i64>("out").records();
    /// assert_eq!(beats, [Record::new("alive".to_owned(), 1, secs(30))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Stop the task: there is no record that could be skipped.
    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _ctx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Called once when the task leaves this thread; never after a crash. State is safe without it: it is for what the
    /// operator itself has opened, and most have nothing to do here. In a test
    /// [`TopologyTestDriver::close`](crate::testing::TopologyTestDriver::close) calls it.
    ///
    /// ```
    /// # use std::sync::mpsc;
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::TopologyTestDriver;
    /// struct Display {
    ///     lines: mpsc::Sender<&'static str>, // to something outside
    /// }
    ///
    /// impl Operator for Display {
    ///     # type KeyIn = String;
    ///     # type ValueIn = f64;
    ///     # type KeyOut = String;
    ///     # type ValueOut = f64;
    ///     # fn process(
    ///     #     &mut self,
    ///     #     _: Record<String, f64>,
    ///     #     _: &mut Context<'_, String, f64>,
    ///     # ) -> Result<(), OperatorError> {
    ///     #     Ok(())
    ///     # }
    ///     fn close(&mut self) {
    ///         self.lines.send("no more readings").ok();
    ///     }
    /// }
    ///
    /// let (lines, shown) = mpsc::channel();
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaDouble));
    /// readings.process("display", move || Display { lines: lines.clone() });
    /// TopologyTestDriver::new(topology.build()?)?.close();
    /// assert_eq!(shown.recv()?, "no more readings");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn close(&mut self) {}
}
