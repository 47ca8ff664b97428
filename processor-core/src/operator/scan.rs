//! A scan of a store: which way, how far, and what is done with each entry.

use std::ops::ControlFlow;

use super::{Store, StoreError};
use crate::store::{KeyRange, KeyScan, StoreKey, StoreValue};

/// The entries of a [`Store`] in a range of keys, in the order of the keys: as committed, with what this batch has written
/// over them. Nothing is read before [`for_each`](Self::for_each) or one of its kin is called, and nothing behind the last
/// entry that it wants.
///
/// Entries that this batch has deleted are not there. The store cannot be written while it is scanned: collect the
/// keys, then write.
///
/// ```
/// # use processor_core::prelude::*;
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
/// let mut by_age = ctx.store(&BY_AGE);
/// # for age in [31, 17, 65, 18] {
/// #     by_age.put(&age, format!("{age} years"));
/// # }
/// // There are entries for 17, 18, 31 and 65.
/// assert_eq!(by_age.range(18..).first()?, Some((18, "18 years".to_owned())));
/// assert_eq!(by_age.range(18..).reverse().first()?, Some((65, "65 years".to_owned())));
/// assert_eq!(by_age.range(66..).first()?, None);
/// let mut two_oldest = Vec::new();
/// by_age.all().reverse().limit(2).for_each(|age, _| two_oldest.push(age))?;
/// assert_eq!(two_oldest, [65, 31]);
/// assert_eq!(by_age.all().limit(3).limit(9).collect()?.len(), 3); // the lowest limit counts
/// # Ok(())
/// # }).with_store(&BY_AGE);
/// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a scan reads nothing until `for_each`, `try_for_each`, `first` or `collect` is called"]
pub struct Scan<'s, 'a, K, V> {
    store: &'s mut Store<'a, K, V>,
    scan: KeyScan,
}

impl<'s, 'a, K: StoreKey, V: StoreValue> Scan<'s, 'a, K, V> {
    pub(super) fn new(store: &'s mut Store<'a, K, V>, range: KeyRange) -> Self {
        Self { store, scan: KeyScan { range, reverse: false, limit: usize::MAX } }
    }

    /// The other way round: the largest key first; again, and it is the first way.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// let oldest_first = by_age.all().reverse().collect()?;
    /// let ages: Vec<u32> = oldest_first.into_iter().map(|(age, _)| age).collect();
    /// assert_eq!(ages, [65, 31, 18, 17]);
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.scan.reverse = !self.scan.reverse;
        self
    }

    /// At most so many entries, the first in the direction of the scan.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// let two_youngest = by_age.all().limit(2).collect()?;
    /// let ages: Vec<u32> = two_youngest.into_iter().map(|(age, _)| age).collect();
    /// assert_eq!(ages, [17, 18]);
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit(mut self, entries: usize) -> Self {
        self.scan.limit = self.scan.limit.min(entries);
        self
    }

    /// Visits the entries.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// let (mut count, mut sum) = (0, 0);
    /// by_age.range(18..).for_each(|age, _| {
    ///     count += 1;
    ///     sum += age;
    /// })?;
    /// assert_eq!(sum / count, 38); // the mean age of the adults
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; entries before that were visited.
    pub fn for_each(self, mut visit: impl FnMut(K, V)) -> Result<(), StoreError> {
        self.store.scan(&self.scan, &mut |key, value| {
            visit(key, value);
            ControlFlow::Continue(())
        })
    }

    /// Visits the entries until `visit` breaks, and returns what it broke with.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// use std::ops::ControlFlow;
    ///
    /// // At which age the sum of the ages exceeds 50.
    /// let mut sum = 0;
    /// let found = by_age.all().try_for_each(|age, _| {
    ///     sum += age;
    ///     if sum > 50 { ControlFlow::Break(age) } else { ControlFlow::Continue(()) }
    /// })?;
    /// assert_eq!((found, sum), (Some(31), 17 + 18 + 31)); // 65 was not read; `None`: it is never exceeded
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; entries before that were visited.
    pub fn try_for_each<B>(self, mut visit: impl FnMut(K, V) -> ControlFlow<B>) -> Result<Option<B>, StoreError> {
        let mut broken = None;
        self.store.scan(&self.scan, &mut |key, value| match visit(key, value) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(with) => {
                broken = Some(with);
                ControlFlow::Break(())
            }
        })?;
        Ok(broken)
    }

    /// The first entry in the direction of the scan.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # let input = topology.source("in", "in", (Utf8, Utf8));
    /// # input.each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// let youngest_adult = by_age.range(18..).first()?;
    /// assert_eq!(youngest_adult, Some((18, "18 years".to_owned())));
    /// assert_eq!(by_age.range(100..).first()?, None);
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// # driver.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    pub fn first(self) -> Result<Option<(K, V)>, StoreError> {
        self.try_for_each(|key, value| ControlFlow::Break((key, value)))
    }

    /// All entries. Mind their size: a limit is the bound of it.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # const BY_AGE: KeyValueStoreDef<u32, String> = KeyValueStoreDef::new("by-age");
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, Utf8)).each("op", |_, ctx: &mut Context<'_, String, String>| {
    /// let mut by_age = ctx.store(&BY_AGE);
    /// # for age in [31, 17, 65, 18] {
    /// #     by_age.put(&age, format!("{age} years"));
    /// # }
    /// // There are entries for 17, 18, 31 and 65.
    /// let minors = by_age.range(..18).limit(1_000).collect()?; // at most so many at once
    /// for (age, _) in minors {
    ///     by_age.delete(&age);
    /// }
    /// assert_eq!(by_age.all().first()?.map(|(age, _)| age), Some(18));
    /// # Ok(())
    /// # }).with_store(&BY_AGE);
    /// # TopologyTestDriver::new(topology.build()?)?.input::<String, String>("in").pipe_at(secs(1), "", "");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    pub fn collect(self) -> Result<Vec<(K, V)>, StoreError> {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.push((key, value)))?;
        Ok(entries)
    }
}

impl<K, V> std::fmt::Debug for Scan<'_, '_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("store", self.store).field("scan", &self.scan).finish()
    }
}
