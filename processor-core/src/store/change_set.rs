//! What a transaction did to the stores of a task: the last value of every key it touched.
//!
//! The same bytes go to the changelog and, with the commit's receipt, into the base; so both are the same by
//! construction. One buffer, reused from batch to batch.

use crate::ids::StoreIndex;

/// One change, borrowed from a [`ChangeSet`].
///
/// ```
/// use processor_core::ids::StoreIndex;
/// use processor_core::task::{Change, ChangeSet};
///
/// let totals = StoreIndex::new(0);
/// let mut changes = ChangeSet::default();
/// changes.push(totals, b"ann", None);
/// let deleted = Change { store: totals, key: b"ann", value: None };
/// assert_eq!(changes.changes().next(), Some(deleted));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The store.
    pub store: StoreIndex,
    /// The encoded key.
    pub key: &'a [u8],
    /// The encoded value with its format version; `None` deletes.
    pub value: Option<&'a [u8]>,
}

/// Changes in the order in which their keys were first written.
///
/// ```
/// use processor_core::ids::StoreIndex;
/// use processor_core::task::ChangeSet;
///
/// let totals = StoreIndex::new(0);
/// let mut changes = ChangeSet::default(); // one for all batches
/// changes.push(totals, b"ann", Some(b"\x01\x0a"));
/// changes.push(totals, b"bob", None);
/// let keys: Vec<&[u8]> = changes.changes().map(|change| change.key).collect();
/// assert_eq!(keys, [b"ann", b"bob"]); // here they go to the changelog, later into the base
/// changes.clear();
/// ```
#[derive(Debug, Default)]
pub struct ChangeSet {
    bytes: Vec<u8>,
    /// Store, and where key and value end; a key begins where the entry before it ends.
    entries: Vec<(StoreIndex, usize, Option<usize>)>,
}

impl ChangeSet {
    /// Appends a change whose key and value are written by the given closures.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::prelude::*;
    /// use processor_core::store::ValueFormat;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push_with(
    ///     StoreIndex::new(0),
    ///     |bytes| Ok(("ann".to_owned(), 7_u32).encode(bytes)),
    ///     |bytes| ValueFormat::Bincode.encode(&10_i64, bytes).map(|()| true), // `false` deletes
    /// )?;
    /// assert_eq!(changes.len(), 1);
    /// # Ok::<(), CodecError>(())
    /// ```
    ///
    /// # Errors
    /// What a closure returns; the changes are then as they were before.
    pub fn push_with<E>(
        &mut self,
        store: StoreIndex,
        write_key: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        write_value: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let written = write_key(&mut self.bytes).and_then(|()| {
            let key_end = self.bytes.len();
            Ok((key_end, write_value(&mut self.bytes)?))
        });
        match written {
            Ok((key_end, true)) => self.entries.push((store, key_end, Some(self.bytes.len()))),
            Ok((key_end, false)) => {
                self.bytes.truncate(key_end);
                self.entries.push((store, key_end, None));
            }
            Err(error) => {
                self.bytes.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Appends a change.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push(StoreIndex::new(0), b"ann", Some(b"\x01\x0a"));
    /// changes.push(StoreIndex::new(0), b"bob", None); // it has been deleted
    /// assert_eq!(changes.len(), 2);
    /// ```
    pub fn push(&mut self, store: StoreIndex, key: &[u8], value: Option<&[u8]>) {
        let written: Result<(), std::convert::Infallible> = self.push_with(
            store,
            |bytes| {
                bytes.extend_from_slice(key);
                Ok(())
            },
            |bytes| {
                bytes.extend_from_slice(value.unwrap_or_default());
                Ok(value.is_some())
            },
        );
        match written {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// The changes, in order.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push(StoreIndex::new(1), b"bob", None);
    /// changes.push(StoreIndex::new(0), b"ann", None);
    /// let stores: Vec<u16> = changes.changes().map(|change| change.store.get()).collect();
    /// assert_eq!(stores, [1, 0]);
    /// ```
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |&(store, key_end, value_end)| {
            let key = &self.bytes[start..key_end];
            let value = value_end.map(|end| &self.bytes[key_end..end]);
            start = value_end.unwrap_or(key_end);
            Change { store, key, value }
        })
    }

    /// How many changes there are.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push(StoreIndex::new(0), b"ann", None);
    /// assert_eq!(changes.len(), 1); // so many records go to changelogs
    /// ```
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// assert!(changes.is_empty());
    /// changes.push(StoreIndex::new(0), b"ann", None); // to delete is a change
    /// assert!(!changes.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all keys and values.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push(StoreIndex::new(0), b"ann", Some(b"\x01\x0a"));
    /// changes.push(StoreIndex::new(0), b"bob", None);
    /// assert_eq!(changes.bytes_len(), 3 + 2 + 3);
    /// ```
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the changes and keeps the memory.
    ///
    /// ```
    /// use processor_core::ids::StoreIndex;
    /// use processor_core::task::ChangeSet;
    ///
    /// let mut changes = ChangeSet::default();
    /// changes.push(StoreIndex::new(0), b"ann", None);
    /// changes.clear(); // the next batch begins
    /// assert!(changes.is_empty());
    /// ```
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_as_they_were_pushed() {
        let mut set = ChangeSet::default();
        set.push(StoreIndex::new(0), b"a", Some(b"1"));
        set.push(StoreIndex::new(1), b"", None);
        set.push(StoreIndex::new(0), b"bc", Some(b""));
        let write_nine = |bytes: &mut Vec<u8>| {
            bytes.push(9);
            Ok(())
        };
        let failed = set.push_with(StoreIndex::new(0), write_nine, |_| Err("no value"));
        assert_eq!(failed, Err("no value"));
        let got: Vec<_> = set.changes().collect();
        assert_eq!(
            got,
            [
                Change { store: StoreIndex::new(0), key: b"a", value: Some(b"1") },
                Change { store: StoreIndex::new(1), key: b"", value: None },
                Change { store: StoreIndex::new(0), key: b"bc", value: Some(b"") },
            ]
        );
        set.clear();
        assert!(set.is_empty());
        assert_eq!(set.changes().count(), 0);
    }
}
