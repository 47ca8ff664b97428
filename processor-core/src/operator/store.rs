//! A store as an operator uses it.

use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeBounds};

use super::env::TaskEnv;
use crate::error::FailureKind;
use crate::ids::StoreIndex;
use crate::store::{Base, Overlay, OverlayError, StoreKey, StoreValue};

/// A key-value store, open for the record in process. It reads what this batch has written so far over what was
/// committed, and what it writes is committed with the batch.
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
        let found = overlay::<K, V>(self.env, self.index).get(self.base, key).map(Option::<&V>::cloned);
        found.map_err(|error| self.failed(error))
    }

    /// Sets the value of a key.
    pub fn put(&mut self, key: &K, value: V) {
        overlay::<K, V>(self.env, self.index).put(key, Some(value));
    }

    /// Sets the value of a key that has none, and says whether it did.
    pub fn put_if_absent(&mut self, key: &K, value: V) -> Result<bool, StoreError> {
        let absent = overlay::<K, V>(self.env, self.index).get(self.base, key).map(|found| found.is_none());
        let absent = absent.map_err(|error| self.failed(error))?;
        if absent {
            self.put(key, value);
        }
        Ok(absent)
    }

    /// Deletes a key; nothing happens where it has no value.
    pub fn delete(&mut self, key: &K) {
        overlay::<K, V>(self.env, self.index).put(key, None);
    }

    /// Changes the value of a key in place, starting from `V::default()`, and returns what `change` returns. The
    /// cheapest way to read and write: a hot key's value is neither decoded nor copied.
    pub fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Result<R, StoreError>
    where
        V: Default,
    {
        let changed = overlay::<K, V>(self.env, self.index).update(self.base, key, change);
        changed.map_err(|error| self.failed(error))
    }

    /// Visits the entries of a range of keys in order, until `visit` breaks.
    pub fn for_each(
        &mut self,
        range: impl RangeBounds<K>,
        mut visit: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let scanned = overlay::<K, V>(self.env, self.index).range(self.base, &range, false, &mut visit);
        scanned.map_err(|error| self.failed(error))
    }

    /// Visits the entries of a range of keys in reverse order, until `visit` breaks.
    pub fn for_each_reverse(
        &mut self,
        range: impl RangeBounds<K>,
        mut visit: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let scanned = overlay::<K, V>(self.env, self.index).range(self.base, &range, true, &mut visit);
        scanned.map_err(|error| self.failed(error))
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

fn overlay<K: StoreKey, V: StoreValue>(env: &mut TaskEnv, index: StoreIndex) -> &mut Overlay<K, V> {
    let any = env.stores[index.slot()].as_any();
    any.downcast_mut().expect("build() refuses two definitions of one store name with different types")
}

impl<K, V> std::fmt::Debug for Store<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({:?})", self.name)
    }
}
