//! How a user names a store and says where it lives: a typed constant.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{StoreKey, StoreValue, ValueFormat};

/// The most settings that a store may give its changelog topic.
const CHANGELOG_SETTINGS_MAX: usize = 8;

/// A key-value store of a name and types, written as a constant and used wherever the store is:
///
/// ```
/// use processor_core::store::KeyValueStoreDef;
///
/// /// The last readings of each sensor, oldest first.
/// const WINDOW: KeyValueStoreDef<String, Vec<f64>> = KeyValueStoreDef::new("window");
/// assert_eq!(WINDOW.name(), "window");
/// ```
///
/// A store is kept in RocksDB and in the changelog topic `<application.id>-<name>-changelog`, and its values are written
/// in [bincode](crate::codec::Bincode), unless it says otherwise:
///
/// ```
/// use processor_core::store::KeyValueStoreDef;
///
/// /// What each customer owes: small, read with every record, and of interest to others.
/// const BALANCES: KeyValueStoreDef<u64, i64> = KeyValueStoreDef::new("balances")
///     .in_memory()
///     .with_json_values()
///     .with_changelog_setting("segment.ms", "3600000");
/// # let _ = BALANCES;
/// ```
///
/// The name reaches disk and the changelog topic: a store with another name is another, empty one, and a start refuses state
/// on disk of a store that the topology does not have until it is removed.
pub struct KeyValueStoreDef<K, V> {
    name: &'static str,
    in_memory: bool,
    changelog: bool,
    /// The first entries are set.
    changelog_settings: [Option<(&'static str, &'static str)>; CHANGELOG_SETTINGS_MAX],
    values: ValueFormat,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: StoreKey, V: StoreValue> KeyValueStoreDef<K, V> {
    /// Names a store. The name may hold letters, digits, `.`, `_` and `-`, at most 200 of them; `build()` refuses others.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals by customer"); // has spaces
    ///
    /// let mut topology = Topology::builder();
    /// topology
    ///     .source("in", "in", (Utf8, JavaLong))
    ///     .each("total", |_, _: &mut Context<'_, String, i64>| Ok(()))
    ///     .with_store(&TOTALS);
    /// let refused = topology.build().unwrap_err().to_string();
    /// assert!(refused.starts_with("a store's name 'totals by customer' may hold only"), "{refused}");
    /// ```
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            in_memory: false,
            changelog: true,
            changelog_settings: [None; CHANGELOG_SETTINGS_MAX],
            values: ValueFormat::Bincode,
            types: PhantomData,
        }
    }

    /// Keeps the store in memory and not on disk. Reads and scans are faster; all of it must fit into memory, and a task
    /// that is opened anew, after a restart or a move, reads the whole changelog before it processes.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// /// The exchange rates: few, and asked for with every record.
    /// const RATES: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("rates").in_memory();
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("rates", "rates", (Utf8, JavaDouble))
    /// #     .each("keep", |rate, ctx: &mut Context<'_, String, f64>| Ok(ctx.store(&RATES).put(&rate.key, rate.value)))
    /// #     .with_store(&RATES);
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, f64>("rates").pipe_at(secs(1), "EUR", 1.0);
    /// driver.crash_and_restore()?;
    /// assert_eq!(driver.store(&RATES).get(&"EUR".to_owned()), Some(1.0)); // from the changelog
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "it is a new definition"]
    pub const fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Keeps no changelog: the state is local, and cheaper to write by the changelog's records.
    ///
    /// Outputs, offsets and other stores stay exactly-once. This store is either exactly what the last commit left, or
    /// empty, and empty it is:
    /// - when the task has moved to another worker, also when it comes back;
    /// - when a commit did not reach it: after a crash or a lost connection around the commit, and after the loss of the disk;
    /// - with [`in_memory`](Self::in_memory), at every start.
    ///
    /// So keep in it what may be forgotten: caches, and what the operator can make again. If a changelog is taken away and
    /// given back later, delete its topic in between: what the topic holds would be restored, old as it is.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// /// What was looked up lately: it can be looked up again.
    /// const CACHE: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("cache").without_changelog();
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("rates", "rates", (Utf8, JavaDouble))
    /// #     .each("keep", |rate, ctx: &mut Context<'_, String, f64>| Ok(ctx.store(&CACHE).put(&rate.key, rate.value)))
    /// #     .with_store(&CACHE);
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, f64>("rates").pipe_at(secs(1), "EUR", 1.0);
    /// assert_eq!(driver.store(&CACHE).entries().len(), 1);
    /// driver.crash_and_restore()?; // with the loss of the disk
    /// assert_eq!(driver.store(&CACHE).entries(), []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "it is a new definition"]
    pub const fn without_changelog(mut self) -> Self {
        self.changelog = false;
        self
    }

    /// Gives the changelog topic a setting when it is made, as `kafka-configs` names it, such as `segment.ms`. If the
    /// topic is there and differs, the start says so, with the command that repairs it.
    ///
    /// `build()` refuses settings that Processor decides (`cleanup.policy`, `message.timestamp.type`), a setting that is
    /// given twice, and any for a store without a changelog.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals")
    ///     .with_changelog_setting("segment.ms", "3600000") // compacted within about an hour
    ///     .with_changelog_setting("cleanup.policy", "delete"); // this would lose state
    ///
    /// # let mut topology = Topology::builder();
    /// # topology
    /// #     .source("in", "in", (Utf8, JavaLong))
    /// #     .each("total", |_, _: &mut Context<'_, String, i64>| Ok(()))
    /// #     .with_store(&TOTALS);
    /// let refused = topology.build().unwrap_err();
    /// assert!(refused.to_string().contains("store 'totals' cannot set cleanup.policy"), "{refused}");
    /// ```
    ///
    /// # Panics
    /// If there are more than 8; in a constant, that is an error of the compiler.
    #[must_use = "it is a new definition"]
    pub const fn with_changelog_setting(mut self, name: &'static str, value: &'static str) -> Self {
        let mut free = 0;
        while free < CHANGELOG_SETTINGS_MAX && self.changelog_settings[free].is_some() {
            free += 1;
        }
        assert!(free < CHANGELOG_SETTINGS_MAX, "a store may give its changelog topic 8 settings at most");
        self.changelog_settings[free] = Some((name, value));
        self
    }

    /// Writes values as [JSON](crate::codec::Json), so that other programs can read the changelog. Values that were
    /// written in bincode before are still read.
    ///
    /// Keep NaN and the infinities out of them: JSON has none, and a value that could not be read back stops the task when
    /// its batch ends.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_core::store::ValueFormat;
    ///
    /// /// What each customer owes; the accounting reads its changelog.
    /// const BALANCES: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("balances").with_json_values();
    ///
    /// let mut bytes = Vec::new();
    /// ValueFormat::Json.encode(&-250_i64, &mut bytes)?; // what stands in the changelog
    /// assert_eq!(bytes, b" -250");
    /// # let _ = BALANCES;
    /// # Ok::<(), CodecError>(())
    /// ```
    #[must_use = "it is a new definition"]
    pub const fn with_json_values(mut self) -> Self {
        self.values = ValueFormat::Json;
        self
    }
}

impl<K, V> KeyValueStoreDef<K, V> {
    /// The store's name.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals");
    ///
    /// let changelog = format!("shop-{}-changelog", TOTALS.name()); // of the application `shop`
    /// assert_eq!(changelog, "shop-totals-changelog");
    /// ```
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How its values are written.
    pub(crate) const fn values(&self) -> ValueFormat {
        self.values
    }

    /// What the runtime must know of it.
    ///
    /// # Errors
    /// A setting that cannot be: its name, and why.
    pub(crate) fn spec(&self) -> Result<StoreSpec, (&'static str, &'static str)> {
        let mut settings = BTreeMap::new();
        for (name, value) in self.changelog_settings.iter().flatten() {
            if !self.changelog {
                return Err((name, "the store has no changelog: remove the setting, or .without_changelog()"));
            }
            if matches!(*name, "cleanup.policy" | "message.timestamp.type") {
                return Err((name, "state depends on it, and Processor decides it: remove the setting"));
            }
            if settings.insert(*name, *value).is_some() {
                return Err((name, "it is given twice: remove one of the two"));
            }
        }
        Ok(StoreSpec {
            name: Arc::from(self.name),
            in_memory: self.in_memory,
            changelog: self.changelog.then_some(ChangelogSpec { settings }),
            values: self.values,
        })
    }
}

impl<K, V> std::fmt::Debug for KeyValueStoreDef<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyValueStoreDef({:?})", self.name)
    }
}

/// What the runtime must know of a store, whatever its types.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::store::ValueFormat;
///
/// const CACHE: KeyValueStoreDef<String, f64> = KeyValueStoreDef::new("cache").without_changelog();
///
/// let mut topology = Topology::builder();
/// topology
///     .source("in", "in", (Utf8, JavaDouble))
///     .each("keep", |_, _: &mut Context<'_, String, f64>| Ok(()))
///     .with_store(&CACHE);
/// let topology = topology.build()?;
/// let spec = &topology.subtopologies()[0].store_specs[0];
/// assert_eq!((&*spec.name, spec.in_memory, spec.values), ("cache", false, ValueFormat::Bincode));
/// assert!(spec.changelog.is_none());
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is kept in memory, and not on disk.
    pub in_memory: bool,
    /// Its changelog; `None`: the state is local only.
    pub changelog: Option<ChangelogSpec>,
    /// How its values are written.
    pub values: ValueFormat,
}

/// What the runtime must know of a store's changelog.
///
/// ```
/// use processor_core::prelude::*;
///
/// const TOTALS: KeyValueStoreDef<String, i64> =
///     KeyValueStoreDef::new("totals").with_changelog_setting("segment.ms", "3600000");
///
/// # let mut topology = Topology::builder();
/// # topology
/// #     .source("in", "in", (Utf8, JavaLong))
/// #     .each("total", |_, _: &mut Context<'_, String, i64>| Ok(()))
/// #     .with_store(&TOTALS);
/// let topology = topology.build()?;
/// let store = &topology.subtopologies()[0].store_specs[0];
/// let changelog = store.changelog.as_ref().expect("it has one");
/// assert_eq!(changelog.settings, [("segment.ms", "3600000")].into());
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangelogSpec {
    /// The topic settings that the store asks for, beside those that every changelog has.
    pub settings: BTreeMap<&'static str, &'static str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Def = KeyValueStoreDef<String, u64>;

    #[test]
    fn a_store_is_on_disk_with_a_changelog_unless_it_says_otherwise() {
        const PLAIN: Def = Def::new("s");
        const OTHER: Def = Def::new("s").in_memory().without_changelog().with_json_values();
        let (name, changelog) = (Arc::from("s"), Some(ChangelogSpec::default()));
        let plain = StoreSpec { name, in_memory: false, changelog, values: ValueFormat::Bincode };
        assert_eq!(PLAIN.spec(), Ok(plain.clone()));
        let other = StoreSpec { in_memory: true, changelog: None, values: ValueFormat::Json, ..plain };
        assert_eq!(OTHER.spec(), Ok(other));
    }

    #[test]
    fn changelog_settings_are_kept_and_those_that_cannot_be_are_refused() {
        const SET: Def = Def::new("s").with_changelog_setting("segment.ms", "1").with_changelog_setting("a", "2");
        let settings = SET.spec().expect("both can be").changelog.expect("there is one").settings;
        assert_eq!(settings, BTreeMap::from([("a", "2"), ("segment.ms", "1")]));
        let refused = |def: Def| def.spec().expect_err("it cannot be");
        assert!(refused(SET.without_changelog()).1.contains("has no changelog"));
        assert_eq!(refused(SET.with_changelog_setting("cleanup.policy", "delete")).0, "cleanup.policy");
        assert!(refused(SET.with_changelog_setting("a", "2")).1.contains("twice"));
    }

    #[test]
    #[should_panic(expected = "8 settings at most")]
    fn more_settings_than_the_list_holds_are_refused() {
        let _ = (0..9).fold(Def::new("s"), |def, _| def.with_changelog_setting("a", "b"));
    }
}
