//! A store that is kept in memory: a sorted map of the encoded entries.
//!
//! The task writes it and readers on other threads see it, each read or batch of writes under one lock; so a read is of
//! one committed state, as from disk.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The entries of a store in memory.
#[derive(Debug, Default)]
pub(super) struct InMemory(RwLock<Entries>);

impl InMemory {
    /// See [`processor_core::store::Base::get`].
    pub(super) fn get(&self, key: &[u8], value: &mut Vec<u8>) -> bool {
        let entries = self.read();
        let found = entries.get(key);
        value.extend_from_slice(found.map(Vec::as_slice).unwrap_or_default());
        found.is_some()
    }

    /// See [`processor_core::store::Base::range`]; the bounds are in order.
    #[expect(clippy::type_complexity, reason = "an alias would hide what the callback is given and may answer")]
    pub(super) fn range(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        let entries = self.read();
        let mut inside = entries.range::<[u8], _>(bounds).map(|(key, value)| (key.as_slice(), value.as_slice()));
        let visit = |(key, value)| visit(key, value);
        let _ = if reverse { inside.rev().try_for_each(visit) } else { inside.try_for_each(visit) };
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    /// The entries, to be changed; nobody reads meanwhile.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    // A visitor that panics poisons nothing that matters: it only reads.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
