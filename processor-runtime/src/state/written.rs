//! The entries of one store that wait to be written: found by their key at once, and in order for whoever asks for that.
//!
//! Commits overwrite the same keys again and again, and look some of them up: that is a hash map's work. Scans, and the
//! one who writes them down, need order: it is made when it is asked for, and kept up from there.

use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use indexmap::IndexMap;

/// A key and its value; none is a deletion.
pub(super) type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// Entries in the order in which their keys came.
type Entries = IndexMap<Box<[u8]>, Option<Box<[u8]>>, FixedState>;

/// The entries of a store that were written: `None` deletes.
#[derive(Debug, Default)]
pub(super) struct Written {
    entries: Entries,
    /// The places of the entries by key; of those only that were there when it was last asked for.
    order: Mutex<Arc<Vec<u32>>>,
}

impl Written {
    /// Writes an entry, and says by how many bytes keys and values have grown; none where it was there and is no larger.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Put {
        let new = value.map_or(0, <[u8]>::len);
        if let Some(known) = self.entries.get_mut(key) {
            let before = known.as_ref().map_or(0, |value| value.len());
            match (&mut *known, value) {
                // Values of a key mostly keep their length.
                (Some(known), Some(value)) if known.len() == value.len() => known.copy_from_slice(value),
                (known, value) => *known = value.map(Into::into),
            }
            return Put { is_new: false, grown: new.cast_signed() - before.cast_signed() };
        }
        self.entries.insert(key.into(), value.map(Into::into));
        Put { is_new: true, grown: (key.len() + new).cast_signed() }
    }

    /// The entry of a key; none, where it was not written.
    pub(super) fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.entries.get_key_value(key).map(|(key, value)| (&**key, value.as_deref()))
    }

    /// How many keys were written.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none was.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries between two bounds, by key.
    pub(super) fn range<'a>(&'a self, (from, to): (Bound<&[u8]>, Bound<&[u8]>)) -> InOrder<'a> {
        let order = self.order();
        let key = |place: &u32| self.key(*place);
        let first = match from {
            Bound::Unbounded => 0,
            Bound::Included(from) => order.partition_point(|place| key(place) < from),
            Bound::Excluded(from) => order.partition_point(|place| key(place) <= from),
        };
        let last = match to {
            Bound::Unbounded => order.len(),
            Bound::Included(to) => order.partition_point(|place| key(place) <= to),
            Bound::Excluded(to) => order.partition_point(|place| key(place) < to),
        };
        InOrder { entries: &self.entries, order, next: first, end: last.max(first) }
    }

    fn key(&self, place: u32) -> &[u8] {
        let (key, _) = self.entries.get_index(place as usize).expect("entries do not go");
        key
    }

    /// The order of all entries: what has come since it was last asked for is sorted, and merged into it.
    fn order(&self) -> Arc<Vec<u32>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, all) = (order.len(), self.entries.len());
        if known < all {
            let place = |place: usize| u32::try_from(place).expect("far fewer entries fit into memory");
            let mut new: Vec<u32> = (known..all).map(place).collect();
            new.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
            let mut merged = Vec::with_capacity(all);
            let (mut old, mut new) = (order.iter().peekable(), new.iter().peekable());
            while let (Some(&&of_old), Some(&&of_new)) = (old.peek(), new.peek()) {
                let next = if self.key(of_old) < self.key(of_new) { old.next() } else { new.next() };
                merged.extend(next);
            }
            merged.extend(old);
            merged.extend(new);
            *order = Arc::new(merged);
        }
        Arc::clone(&order)
    }
}

/// What an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) is_new: bool,
    /// By how many bytes keys and values have grown.
    pub(super) grown: isize,
}

/// Entries by key, from both ends.
#[derive(Debug)]
pub(super) struct InOrder<'a> {
    entries: &'a Entries,
    order: Arc<Vec<u32>>,
    next: usize,
    end: usize,
}

impl<'a> InOrder<'a> {
    fn at(&self, place: usize) -> Entry<'a> {
        let (key, value) = self.entries.get_index(self.order[place] as usize).expect("entries do not go");
        (key, value.as_deref())
    }
}

impl<'a> Iterator for InOrder<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let place = (self.next < self.end).then_some(self.next)?;
        self.next += 1;
        Some(self.at(place))
    }
}

impl DoubleEndedIterator for InOrder<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.end = (self.next < self.end).then(|| self.end - 1)?;
        Some(self.at(self.end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        let key = || prop::collection::vec(0..3_u8, 0..3);
        prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
    }

    proptest! {
        /// It reads like an ordered map, also where order is asked for now and then only.
        #[test]
        fn entries_are_found_and_in_order(
            steps in prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..3), prop::option::of(prop::collection::vec(any::<u8>(), 0..3)), prop::option::of((bound(), bound()))),
                0..60,
            ),
        ) {
            let (mut written, mut map, mut bytes) = (Written::default(), BTreeMap::new(), 0);
            for (key, value, asked) in steps {
                let put = written.put(&key, value.as_deref());
                bytes += put.grown;
                prop_assert_eq!(put.is_new, map.insert(key.clone(), value.clone()).is_none());
                prop_assert_eq!(written.get(&key), Some((&*key, value.as_deref())));
                if let Some((from, to)) = asked {
                    let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
                    let expected = || map.iter().filter(|(key, _)| (from.clone(), to.clone()).contains(*key));
                    let expected: Vec<Entry<'_>> = expected().map(|(key, value)| (&**key, value.as_deref())).collect();
                    prop_assert_eq!(written.range(bounds).collect::<Vec<_>>(), expected.clone());
                    let reversed: Vec<_> = expected.into_iter().rev().collect();
                    prop_assert_eq!(written.range(bounds).rev().collect::<Vec<_>>(), reversed);
                }
            }
            let expected: usize = map.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
            prop_assert_eq!(bytes, expected.cast_signed());
            prop_assert_eq!((written.len(), written.is_empty()), (map.len(), map.is_empty()));
        }
    }
}
