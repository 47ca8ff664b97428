//! A base in memory, for the test driver and the tests of this crate.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::{Base, BaseError, ChangeSet};
use crate::ids::StoreIndex;

/// The committed entries of each store, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct MemoryBase {
    stores: BTreeMap<StoreIndex, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// How many entries scans have handed out.
    #[cfg(test)]
    pub(crate) scanned: std::cell::Cell<usize>,
}

impl MemoryBase {
    pub(crate) fn apply(&mut self, changes: &ChangeSet) {
        for change in changes.changes() {
            let store = self.stores.entry(change.store).or_default();
            match change.value {
                Some(value) => store.insert(change.key.to_vec(), value.to_vec()),
                None => store.remove(change.key),
            };
        }
    }

    #[cfg(test)]
    pub(crate) fn decoded<K: super::StoreKey, V: super::StoreValue>(&self, store: StoreIndex) -> BTreeMap<K, V> {
        let of_store = self.stores.get(&store).into_iter().flatten();
        let decoded = of_store.map(|(key, value)| {
            let value = super::ValueFormat::decode(value).expect("the overlay wrote it");
            (K::decode(key).expect("the overlay wrote it"), value)
        });
        decoded.collect()
    }
}

impl Base for MemoryBase {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        let found = self.stores.get(&store).and_then(|store| store.get(key));
        value.extend_from_slice(found.map(Vec::as_slice).unwrap_or_default());
        Ok(found.is_some())
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        let Some(store) = self.stores.get(&store) else { return Ok(()) };
        let mut entries = store.range::<[u8], _>((from, to));
        while let Some((key, value)) = if reverse { entries.next_back() } else { entries.next() } {
            #[cfg(test)]
            self.scanned.set(self.scanned.get() + 1);
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        Ok(self.stores.get(&store).map_or(0, BTreeMap::len) as u64)
    }
}
