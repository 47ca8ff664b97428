//! Records: as an operator sees them (typed) and as they come from and go to a topic (bytes).
//!
//! Operators have to do with [`Record`], [`RecordMetadata`] and [`BatchInfo`]. [`InputRecord`] and the [`Outbox`] with what is
//! in it are between tasks and the runtime, and no stable API.

mod outbox;

pub(crate) use outbox::Address;
pub use outbox::{Headers, Outbox, OutputRecord, TargetPartition};

use crate::ids::{Offset, Partition, Timestamp};

/// A record between two operators.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::secs;
///
/// let order = Record::new("ann".to_owned(), 250_i64, secs(1));
/// let in_euros = order.clone().with_value(2.5);
/// assert_eq!((&*in_euros.key, in_euros.value, in_euros.timestamp), ("ann", 2.5, secs(1)));
/// let by_size = order.with_key("large");
/// assert_eq!(by_size, Record { key: "large", value: 250, timestamp: secs(1) });
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Record<K, V> {
    /// What the record is about; records of one key are processed in order.
    pub key: K,
    /// What it says.
    pub value: V,
    /// Event time; outputs keep the timestamp of the record they come from unless the operator sets another.
    pub timestamp: Timestamp,
}

impl<K, V> Record<K, V> {
    /// Makes a record.
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::secs;
    ///
    /// let reading = Record::new("kitchen", 20.5, secs(7));
    /// assert_eq!(reading, Record { key: "kitchen", value: 20.5, timestamp: secs(7) });
    /// ```
    pub fn new(key: K, value: V, timestamp: Timestamp) -> Self {
        Self { key, value, timestamp }
    }

    /// The same key and timestamp with another value.
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::secs;
    ///
    /// let reading = Record::new("kitchen", 20.5, secs(7));
    /// assert_eq!(reading.with_value("warm"), Record::new("kitchen", "warm", secs(7)));
    /// ```
    pub fn with_value<W>(self, value: W) -> Record<K, W> {
        Record { key: self.key, value, timestamp: self.timestamp }
    }

    /// The same value and timestamp with another key.
    ///
    /// ```
    /// use processor_core::prelude::*;
    /// use processor_core::testing::secs;
    ///
    /// let reading = Record::new("kitchen", 20.5, secs(7));
    /// assert_eq!(reading.with_key(("house 1", "kitchen")).key.0, "house 1");
    /// ```
    pub fn with_key<L>(self, key: L) -> Record<L, V> {
        Record { key, value: self.value, timestamp: self.timestamp }
    }
}

/// A record as it was polled from an input topic.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::record::InputRecord;
///
/// /// A line of a file; the number of the line is its offset.
/// struct Line<'a>(i64, &'a str);
///
/// impl InputRecord for Line<'_> {
///     fn key(&self) -> Option<&[u8]> {
///         None
///     }
///
///     fn value(&self) -> Option<&[u8]> {
///         Some(self.1.as_bytes())
///     }
///
///     fn timestamp(&self) -> Option<Timestamp> {
///         None
///     }
///
///     fn offset(&self) -> Offset {
///         Offset::new(self.0)
///     }
///
///     fn visit_headers(&self, _: &mut dyn FnMut(&str, Option<&[u8]>)) {}
/// }
///
/// let lines: Vec<Line> = (0..).zip("20.5\n21".lines()).map(|(n, text)| Line(n, text)).collect();
/// assert!(lines.is_sorted_by_key(InputRecord::offset));
/// ```
///
/// # Contract
/// The bytes do not change while the record lives, and `offset` strictly increases within a partition (EO-8).
pub trait InputRecord {
    /// The key's bytes; `None` is Kafka's null.
    ///
    /// ```
    #[doc = include_str!("example_record.txt")]
    /// let polled = Polled { key: Some(b"kitchen"), ..Polled::default() };
    /// assert_eq!(polled.key(), Some(&b"kitchen"[..]));
    /// assert_eq!(Polled { key: None, ..polled }.key(), None); // any partition will do
    /// ```
    fn key(&self) -> Option<&[u8]>;

    /// The value's bytes; `None` is Kafka's null.
    ///
    /// ```
    #[doc = include_str!("example_record.txt")]
    /// let polled = Polled { value: Some(b""), ..Polled::default() };
    /// assert_eq!(polled.value(), Some(&[][..])); // no bytes, and yet no null
    /// assert_eq!(Polled { value: None, ..polled }.value(), None);
    /// ```
    fn value(&self) -> Option<&[u8]>;

    /// The record's timestamp; `None` where the broker has none (message format 0).
    ///
    /// ```
    #[doc = include_str!("example_record.txt")]
    /// let polled = Polled { timestamp_ms: Some(1_500), ..Polled::default() };
    /// assert_eq!(polled.timestamp(), Some(millis(1_500)));
    /// ```
    fn timestamp(&self) -> Option<Timestamp>;

    /// Where the record stands in its partition.
    ///
    /// ```
    #[doc = include_str!("example_record.txt")]
    /// let polled = Polled { offset: 41, ..Polled::default() };
    /// assert_eq!(polled.offset().next().get(), 42); // what is committed once it is processed
    /// ```
    fn offset(&self) -> Offset;

    /// Visits the record's headers in their order: name, and value, which may be null.
    ///
    /// ```
    #[doc = include_str!("example_record.txt")]
    /// let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"7f3a")), ("replayed", None)];
    /// let polled = Polled { headers, ..Polled::default() };
    /// let mut names = Vec::new();
    /// polled.visit_headers(&mut |name, _| names.push(name.to_owned()));
    /// assert_eq!(names, ["trace", "replayed"]);
    /// ```
    fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>));
}

/// Where the record in process came from.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
/// orders
///     .wall_clock_timestamps()
///     .each("tag", |order, ctx| {
///         let from = ctx.metadata().expect("a record is in process");
///         let mut names = Vec::new();
///         from.visit_headers(|name, _| names.push(name.to_owned()));
///         let trace = from.header("trace").flatten().unwrap_or_default(); // the last of this name
///         let text = format!("{from:?} of {:?}: {names:?} {trace:?}", from.timestamp());
///         ctx.forward(order.with_value(text))
///     })
///     .sink("out", "out", (Utf8, Utf8));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let orders = driver.input::<String, i64>("orders").header("trace", b"1").header("trace", b"2");
/// orders.pipe_at(secs(7), "ann", 5);
/// let tagged = driver.output::<String, String>("out").values();
/// assert_eq!(tagged, [r#"orders-0@0 of Some(Timestamp(7000)): ["trace", "trace"] [50]"#]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct RecordMetadata<'a> {
    /// The input topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    pub(crate) input: &'a dyn InputRecord,
}

impl RecordMetadata<'_> {
    /// The timestamp that the record carries, which need not be the one it is processed with. `None`: it carries none
    /// (message format 0, from before Kafka 0.10).
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// readings
    ///     .wall_clock_timestamps()
    ///     .each("age", |reading, ctx| {
    ///         let made = ctx.metadata().and_then(|from| from.timestamp()).expect("it has one");
    ///         let age_ms = reading.timestamp.get() - made.get();
    ///         ctx.forward(reading.with_value(age_ms))
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.advance_wall_clock(std::time::Duration::from_secs(90))?;
    /// driver.input::<String, i64>("in").pipe_at(secs(60), "kitchen", 21);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [30_000]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.input.timestamp()
    }

    /// Visits the record's headers in their order: name, and value, which may be null.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// readings
    ///     .each("count-headers", |reading, ctx| {
    ///         let mut count = 0;
    ///         ctx.metadata().expect("a record is in process").visit_headers(|_, _| count += 1);
    ///         ctx.forward(reading.with_value(count))
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let readings = driver.input::<String, i64>("in");
    /// readings.header("trace", b"7f3a").header("unit", b"C").pipe_at(secs(1), "kitchen", 21);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn visit_headers(&self, mut visit: impl FnMut(&str, Option<&[u8]>)) {
        self.input.visit_headers(&mut visit);
    }

    /// Whether the record has a header of this name, and the value of the last one.
    ///
    /// `None`: there is none; `Some(None)`: its value is null.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let readings = topology.source("in", "in", (Utf8, JavaLong));
    /// readings
    ///     .each("fahrenheit-only", |reading, ctx| {
    ///         let from = ctx.metadata().expect("a record is in process");
    ///         let is_fahrenheit = from.header("unit") == Some(Some(b"F".to_vec()));
    ///         if is_fahrenheit { ctx.forward(reading) } else { Ok(()) }
    ///     })
    ///     .sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let readings = driver.input::<String, i64>("in");
    /// readings.pipe_at(secs(1), "kitchen", 21); // without the header
    /// readings.header("unit", b"F").pipe_at(secs(2), "kitchen", 70);
    /// assert_eq!(driver.output::<String, i64>("out").values(), [70]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn header(&self, name: &str) -> Option<Option<Vec<u8>>> {
        let mut found = None;
        self.input.visit_headers(&mut |known, value| {
            if known == name {
                found = Some(value.map(<[u8]>::to_vec));
            }
        });
        found
    }
}

impl std::fmt::Debug for RecordMetadata<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

/// Which poll batch the record in process belongs to, and where it stands in it. A batch is committed as a whole, under load
/// together with others.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
/// orders
///     .each("number", |order, ctx| {
///         let batch = ctx.batch();
///         let is_last = batch.index + 1 == batch.size; // unless the batch ends before it
///         ctx.forward(order.with_value(format!("{}: {} of {}, {is_last}", batch.id, batch.index, batch.size)))
///     })
///     .sink("out", "out", (Utf8, Utf8));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// let orders = driver.input::<String, i64>("orders");
/// orders.pipe_at(secs(1), "ann", 5);
/// orders.pipe_at(secs(2), "ann", 5);
/// let numbered = driver.output::<String, String>("out").values();
/// assert_eq!(numbered, ["1: 0 of 1, true", "2: 0 of 1, true"]); // the driver commits record by record
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// The batch's number within its task; strictly increasing over committed batches.
    pub id: crate::ids::BatchId,
    /// The record's place among the task's records of this batch, from 0.
    pub index: u32,
    /// How many records of this task the batch holds. It commits whole, unless a record fails, is to be tried again or asks
    /// for the commit, or one of several inputs runs empty that has more: then it ends there.
    pub size: u32,
    /// The time of day when the batch was begun. It is part of the batch's input (EO-7): the only clock that a topology
    /// can see.
    pub now: Timestamp,
}
