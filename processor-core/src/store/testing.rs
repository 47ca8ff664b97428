//! A base that is a map, for the tests of this crate.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::{Base, BaseError, ChangeSet, StoreKey, StoreValue, ValueFormat};
use crate::ids::StoreIndex;

#[derive(Debug, Default)]
pub(crate) struct MapBase {
    entries: BTreeMap<(StoreIndex, Vec<u8>), Vec<u8>>,
    /// How many entries scans have handed out.
    pub(crate) scanned: Cell<usize>,
}

impl MapBase {
    pub(crate) fn apply(&mut self, changes: &ChangeSet) {
        for change in changes.changes() {
            let key = (change.store, change.key.to_vec());
            match change.value {
                Some(value) => self.entries.insert(key, value.to_vec()),
                None => self.entries.remove(&key),
            };
        }
    }

    pub(crate) fn decoded<K: StoreKey, V: StoreValue>(&self, store: StoreIndex) -> BTreeMap<K, V> {
        let of_store = self.entries.iter().filter(|((index, _), _)| *index == store);
        let decoded = of_store.map(|((_, key), value)| {
            let value = ValueFormat::decode(value).expect("the overlay wrote it");
            (K::decode(key).expect("the overlay wrote it"), value)
        });
        decoded.collect()
    }
}

impl Base for MapBase {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        let found = self.entries.get(&(store, key.to_vec()));
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
        let inside = |key: &[u8]| {
            let above = match from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            let below = match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            };
            above && below
        };
        let mut found: Vec<_> =
            self.entries.iter().filter(|((index, key), _)| *index == store && inside(key)).collect();
        if reverse {
            found.reverse();
        }
        for ((_, key), value) in found {
            self.scanned.set(self.scanned.get() + 1);
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        Ok(self.entries.keys().filter(|(index, _)| *index == store).count() as u64)
    }
}
