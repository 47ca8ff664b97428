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
    pub fn get(&mut self, key: &K) -> Result<Option<V>, StoreError> {
        let base = self.base;
        let found = self.overlay().get(base, key).map(Option::<&V>::cloned);
        found.map_err(|error| self.failed(error))
    }

    /// Sets the value of a key.
    pub fn put(&mut self, key: &K, value: V) {
        self.overlay().put(key, Some(value));
    }

    /// Sets the value of a key that has none, and says whether it did.
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
    pub fn delete(&mut self, key: &K) {
        self.overlay().put(key, None);
    }

    /// Changes the value of a key in place, starting from `V::default()`, and returns what `change` returns. The
    /// cheapest way to read and write: a hot key's value is neither decoded nor copied.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Result<R, StoreError>
    where
        V: Default,
    {
        self.modify(key, |value| change(value.get_or_insert_with(V::default)))
    }

    /// Changes, sets or deletes the value of a key in place, and returns what `change` returns: `None` is no value, before
    /// and after. As cheap as [`update`](Self::update), for values that may go or have no default.
    pub fn modify<R>(&mut self, key: &K, change: impl FnOnce(&mut Option<V>) -> R) -> Result<R, StoreError> {
        let base = self.base;
        let changed = self.overlay().modify(base, key, change);
        changed.map_err(|error| self.failed(error))
    }

    /// The entries of a range of keys.
    pub fn range(&mut self, range: impl RangeBounds<K>) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::between(&range))
    }

    /// The entries of the keys that begin with `prefix`: of tuples, its components as a tuple; of texts and bytes, a
    /// `str` or a `[u8]`.
    pub fn prefix(&mut self, prefix: &(impl KeyPrefix<K> + ?Sized)) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::prefix(prefix))
    }

    /// All entries.
    pub fn all(&mut self) -> Scan<'_, 'a, K, V> {
        Scan::new(self, KeyRange::all())
    }

    /// About how many keys the store holds, as of the last commit: what this batch has written is not counted, and a key
    /// that was overwritten or deleted lately may be counted too often.
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
