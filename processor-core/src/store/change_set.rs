//! What a poll batch did to the stores of a task: the last value of every key it touched.
//!
//! The same bytes go to the changelog and, with the commit's receipt, into the base; so both are the same by
//! construction. One buffer, reused from batch to batch.

use crate::ids::StoreIndex;

/// One change, borrowed from a [`ChangeSet`].
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
#[derive(Debug, Default)]
pub struct ChangeSet {
    bytes: Vec<u8>,
    /// Store, and where key and value end; a key begins where the entry before it ends.
    entries: Vec<(StoreIndex, usize, Option<usize>)>,
}

impl ChangeSet {
    /// Appends a change whose key and value are written by the given closures.
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
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all keys and values.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the changes and keeps the memory.
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
