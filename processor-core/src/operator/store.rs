//! A store as an operator uses it.

use std::any::type_name;
use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeBounds};

use super::env::{Failed, RunningNode, TaskEnv};
use super::scan::Scan;
use crate::error::FailureKind;
use crate::ids::StoreIndex;
use crate::store::{Base, KeyPrefix, KeyRange, KeyScan, Overlay, OverlayError, StoreKey, StoreValue};

/// A key-value store, open for the record in process. It reads what this batch has written so far over what was
/// committed, and what it writes is committed with the batch.
///
/// ```
/// use processor_core::prelude::*;
///
/// /// What each customer has ordered, by time.
/// const ORDERS: KeyValueStoreDef<(String, Timestamp), u64> = KeyValueStoreDef::new("orders");
/// const PENDING: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("pending");
///
/// fn order(customer: &String, amount: u64, ctx: &mut Context<'_, String, u64>) -> Result<u64, OperatorError> {
///     let now = ctx.stream_time().expect("the record in process has a time");
///     ctx.store(&ORDERS).put(&(customer.clone(), now), amount);
///     // Of the last ten of this customer, the newest first, those that were large.
///     let mut large = 0;
///     let mut orders = ctx.store(&ORDERS);
///     orders.prefix(&(customer.clone(),)).reverse().limit(10).for_each(|_, amount| large += u64::from(amount > 100))?;
///     // Nothing is kept for who has nothing pending.
///     ctx.store(&PENDING).modify(customer, |pending| *pending = pending.unwrap_or(0).checked_sub(amount).filter(|left| *left > 0))?;
///     Ok(large)
/// }
/// # let _ = order;
/// ```
pub struct Store<'a, K, V> {
    env: &'a mut TaskEnv,
    base: &'a dyn Base,
    index: StoreIndex,
    name: &'static str,
    node: &'a str,
    types: PhantomData<fn() -> (K, V)>,
}

/// The state could not be read. It is written down as the record's failure: return it.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// /// Checked where it is read, and not where it is written: what is out of range cannot be read back.
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// #[serde(try_from = "i64")]
/// struct Percent(i64);
/// # impl TryFrom<i64> for Percent {
/// #     type Error = &'static str;
/// #     fn try_from(percent: i64) -> Result<Self, Self::Error> {
/// #         (0..=100).contains(&percent).then_some(Self(percent)).ok_or("no percentage")
/// #     }
/// # }
///
/// const SHARES: KeyValueStoreDef<String, Percent> = KeyValueStoreDef::new("shares");
///
/// let mut topology = Topology::builder();
/// topology
///     .source("in", "in", (Utf8, JavaLong))
///     .each("share", |record, ctx| {
///         if ctx.store(&SHARES).get(&record.key).is_err() {
///             return ctx.forward(record); // of no use: the record has failed all the same
///         }
///         ctx.store(&SHARES).put(&record.key, Percent(record.value));
///         Ok(())
///     })
///     .with_store(&SHARES)
///     .on_failure(FailurePolicy::skip()) // nor this: it is not the record's fault
///     .sink("out", "out", (Utf8, JavaLong));
/// let mut driver = TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, i64>("in");
/// input.pipe_at(secs(1), "a", 101);
/// driver.crash_and_restore()?;
/// let failure = input.try_pipe_at(secs(2), "a", 5).unwrap_err();
/// assert!(failure.to_string().contains("store 'shares': a stored entry cannot be read"), "{failure}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("store '{store}': {message}")]
pub struct StoreError {
    store: &'static str,
    message: String,
}

impl<'a, K: StoreKey, V: StoreValue> Store<'a, K, V> {
    pub(crate) fn open(
        env: &'a mut TaskEnv,
        base: &'a dyn Base,
        index: StoreIndex,
        name: &'static str,
        node: &'a str,
    ) -> Self {
        Self { env, base, index, name, node, types: PhantomData }
    }

    /// The value of a key.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut counts = ctx.store(&COUNTS);
    /// let ann = "ann".to_owned();
    /// assert_eq!(counts.get(&ann)?, None);
    /// counts.put(&ann, 7); // what this batch has written is read
    /// assert_eq!(counts.get(&ann)?, Some(7));
    /// counts.delete(&ann);
    /// assert_eq!(counts.get(&ann)?, None);
    /// # Ok(())
    /// # }).with_store(&COUNTS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    pub fn get(&mut self, key: &K) -> Result<Option<V>, StoreError> {
        let base = self.base;
        let found = self.overlay().get(base, key).map(Option::<&V>::cloned);
        found.map_err(|error| self.failed(error))
    }

    /// Sets the value of a key.
    ///
    /// Nothing is read, and nothing can fail here: a value that cannot be encoded is found when the batch ends, and
    /// stops the task. Of several values for one key in a batch, the last is written.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const LAST: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("last");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut last = ctx.store(&LAST);
    /// let kitchen = "kitchen".to_owned();
    /// last.put(&kitchen, 20.5);
    /// last.put(&kitchen, 21.0); // in place of the one before
    /// assert_eq!(last.get(&kitchen)?, Some(21.0));
    /// # Ok(())
    /// # }).with_store(&LAST);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(&mut self, key: &K, value: V) {
        self.overlay().put(key, Some(value));
    }

    /// Sets the value of a key that has none, and says whether it did.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut counts = ctx.store(&COUNTS);
    /// let ann = "ann".to_owned();
    /// assert!(counts.put_if_absent(&ann, 1)?);
    /// assert!(!counts.put_if_absent(&ann, 2)?);
    /// assert_eq!(counts.get(&ann)?, Some(1));
    /// # Ok(())
    /// # }).with_store(&COUNTS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    pub fn put_if_absent(&mut self, key: &K, value: V) -> Result<bool, StoreError> {
        let base = self.base;
        let absent = self.overlay().get(base, key).map(|found| found.is_none());
        let absent = absent.map_err(|error| self.failed(error))?;
        if absent {
            self.put(key, value);
        }
        Ok(absent)
    }

    /// Deletes a key; nothing happens where it has no value.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const LAST: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("last");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut last = ctx.store(&LAST);
    /// let kitchen = "kitchen".to_owned();
    /// last.put(&kitchen, 20.5);
    /// last.delete(&kitchen);
    /// last.delete(&kitchen); // it is gone already
    /// assert_eq!(last.get(&kitchen)?, None);
    /// # Ok(())
    /// # }).with_store(&LAST);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete(&mut self, key: &K) {
        self.overlay().put(key, None);
    }

    /// Changes the value of a key in place, starting from `V::default()`, and returns what `change` returns. The
    /// cheapest way to read and write: a hot key's value is neither decoded nor copied.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut counts = ctx.store(&COUNTS);
    /// let ann = "ann".to_owned();
    /// let before = counts.update(&ann, |count| {
    ///     *count += 1; // from 0
    ///     *count - 1
    /// })?;
    /// assert_eq!((before, counts.get(&ann)?), (0, Some(1)));
    /// # Ok(())
    /// # }).with_store(&COUNTS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; `change` was not called.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Result<R, StoreError>
    where
        V: Default,
    {
        self.modify(key, |value| change(value.get_or_insert_with(V::default)))
    }

    /// Changes, sets or deletes the value of a key in place, and returns what `change` returns: `None` is no value, before
    /// and after. As cheap as [`update`](Self::update), for values that may go or have no default.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut counts = ctx.store(&COUNTS);
    /// let ann = "ann".to_owned();
    /// counts.put(&ann, 2);
    /// for left in [Some(1), None, None] {
    ///     counts.modify(&ann, |count| *count = count.and_then(|count| count.checked_sub(1)).filter(|left| *left > 0))?;
    ///     assert_eq!(counts.get(&ann)?, left);
    /// }
    /// # Ok(())
    /// # }).with_store(&COUNTS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; `change` was not called.
    pub fn modify<R>(&mut self, key: &K, change: impl FnOnce(&mut Option<V>) -> R) -> Result<R, StoreError> {
        let base = self.base;
        let changed = self.overlay().modify(base, key, change);
        changed.map_err(|error| self.failed(error))
    }

    /// The entries of a range of keys.
    ///
    /// Keys are in the order of their type, which is the order of their bytes.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// for (age, name) in [(31, "ann"), (17, "bob"), (65, "eve")] {
    ///     by_age.put(&age, name.to_owned());
    /// }
    /// assert_eq!(by_age.range(18..).first()?, Some((31, "ann".to_owned())));
    /// assert_eq!(by_age.range(18..=65).collect()?.len(), 2);
    /// assert_eq!(by_age.range(66..18).collect()?, []); // a range that holds nothing is no error
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn range(&mut self, range: impl RangeBounds<K>) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::between(&range))
    }

    /// The entries of the keys that begin with `prefix`: of tuples, its components as a tuple; of texts and bytes, a
    /// `str` or a `[u8]`.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const VISITS: KeyValueStoreDef<(String, u32), u64> = KeyValueStoreDef::new("visits");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut visits = ctx.store(&VISITS);
    /// for (user, page) in [("ann", 7), ("anna", 1), ("ann", 9)] {
    ///     visits.put(&(user.to_owned(), page), 1);
    /// }
    /// let mut pages = Vec::new();
    /// visits.prefix(&("ann".to_owned(),)).for_each(|(_, page), _| pages.push(page))?;
    /// assert_eq!(pages, [7, 9]); // and not those of "anna"
    /// # Ok(())
    /// # }).with_store(&VISITS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefix(&mut self, prefix: &(impl KeyPrefix<K> + ?Sized)) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::prefix(prefix))
    }

    /// All entries.
    ///
    /// It reads the whole store of the task: bound it with [`limit`](Scan::limit), or leave off with
    /// [`try_for_each`](Scan::try_for_each), where the store can be large.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const LAST: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("last");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut last = ctx.store(&LAST);
    /// for (sensor, celsius) in [("kitchen", 20.5), ("cellar", 12.0)] {
    ///     last.put(&sensor.to_owned(), celsius);
    /// }
    /// let all = last.all().limit(1_000).collect()?;
    /// assert_eq!(all, [("cellar".to_owned(), 12.0), ("kitchen".to_owned(), 20.5)]);
    /// # Ok(())
    /// # }).with_store(&LAST);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn all(&mut self) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::all())
    }

    /// About how many keys the store holds, as of the last commit: what this batch has written is not counted, and a key
    /// counts once more for each time that it was written lately. In a small store that is written often it is many times
    /// too many: no operator should decide by it.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut counts = ctx.store(&COUNTS);
    /// counts.put(&"ann".to_owned(), 1);
    /// assert_eq!(counts.approximate_len()?, 0); // not committed yet
    /// # Ok(())
    /// # }).with_store(&COUNTS);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    pub fn approximate_len(&mut self) -> Result<u64, StoreError> {
        self.base.approximate_len(self.index).map_err(|error| self.failed(OverlayError::Base(error)))
    }

    pub(super) fn scan(
        &mut self,
        scan: &KeyScan,
        visit: &mut dyn FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let base = self.base;
        let scanned = self.overlay().scan(base, scan, visit);
        scanned.map_err(|error| self.failed(error))
    }

    fn overlay(&mut self) -> &mut Overlay<K, V> {
        let TaskEnv { stores, failure, node, .. } = &mut *self.env;
        match stores[self.index.slot()].as_any().downcast_mut() {
            Some(overlay) => overlay,
            None => mistyped::<K, V>(failure, node, self.node, self.name),
        }
    }

    fn failed(&mut self, error: OverlayError) -> StoreError {
        let (corrupt, message) = match error {
            OverlayError::Base(error) => (error.corrupt, error.message),
            OverlayError::Undecodable(error) => (false, format!("a stored entry cannot be read: {error}")),
        };
        let error = StoreError { store: self.name, message };
        self.env.fail(FailureKind::State { corrupt }, self.node, &error);
        error
    }
}

#[cold]
fn mistyped<K, V>(failure: &mut Option<Failed>, running: &RunningNode, node: &str, store: &str) -> ! {
    let (key, value) = (type_name::<K>(), type_name::<V>());
    let message = format!(
        "node '{node}' uses store '{store}' as one from {key} to {value}, but was given it with other types: use the definition that \
         its .with_store(&…) names"
    );
    Failed::miswired(failure, running, node, &message)
}

impl<K, V> std::fmt::Debug for Store<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({:?})", self.name)
    }
}
