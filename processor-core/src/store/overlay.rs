//! What a batch reads and writes of one store: typed values over the base.
//!
//! An entry is *clean* (as committed), *dirty* (written by this batch) or *unknown* (to be read from the base); a clean one that was
//! read ahead and not looked up yet is *warm*. Dirty
//! entries are the overlay: they become the change set of the transaction, and stay as clean entries once that has
//! committed. Clean entries are a bounded cache, so that a hot key is decoded once, and encoded once a batch.
//!
//! Each record has a savepoint: the first time it writes a key, the entry is kept as it was, and put back should the
//! record fail (EO-9). What is kept is overwritten, not freed, from record to record.

mod ahead;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use foldhash::fast::FixedState;
use indexmap::IndexMap;

use self::ahead::Ahead;
use super::scan::{KeyScan, Over, Visit, merge};
use super::{Base, BaseError, ChangeSet, StoreJson, StoreKey, StoreValue, ValueFormat};
use crate::error::CodecError;
use crate::ids::StoreIndex;

/// What a cached entry weighs beyond its encoded bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// A store without its types, as the task drives it through a batch.
pub(crate) trait AnyOverlay: Any + Send {
    /// A record begins: what it writes can be rolled back to here.
    fn begin_record(&mut self);
    /// The record failed: its writes are undone.
    fn roll_back_record(&mut self);
    /// Appends the last value of every key the batch wrote, in the order of the first write.
    fn collect(&self, changes: &mut ChangeSet) -> Result<(), CodecError>;
    /// How many keys the batch has written.
    fn dirty_len(&self) -> usize;
    /// The batch is in the base: dirty entries are clean now.
    fn applied(&mut self);
    /// The batch is void: what it wrote is forgotten.
    fn abandon(&mut self);
    /// The base has changed under the cache: everything is forgotten.
    fn forget(&mut self);
    /// How many bytes its entries have beyond the bound of the cache, about.
    fn uncached_bytes(&self) -> usize;
    /// Whether the keys of the records that wait should be read ahead. If so, [`begin_ahead`](Self::begin_ahead),
    /// [`want`](Self::want) each, then [`warm`](Self::warm).
    fn reads_ahead(&self) -> bool;
    /// What is wanted from now on is of the records that come next.
    fn begin_ahead(&mut self);
    /// Asks for the key of a record to be read ahead, if it is of the type of the store's keys and nothing is known of it; the
    /// record that comes next is number 0.
    fn want(&mut self, nth: usize, key: &dyn Any);
    /// Reads what was asked for. What cannot be read stays unknown: whoever looks it up is told why.
    fn warm(&mut self, base: &dyn Base);
    /// For those who look at the store from outside.
    fn json(&self) -> StoreJson;
    /// For the way back to the typed store.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// A value could not be had: the base failed, or holds bytes that are no value.
#[derive(Debug)]
pub(crate) enum OverlayError {
    Base(BaseError),
    Undecodable(CodecError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Warm,
    Clean,
    Dirty,
}

struct Entry<V> {
    value: Option<V>,
    state: State,
    /// The record that last kept this entry as it was.
    kept_by: u64,
    /// Used since the eviction hand last came by.
    used: bool,
    /// What it counts for in the bound of the cache.
    weight: usize,
    /// The length of its key and value as they were last collected.
    encoded_len: Cell<usize>,
}

impl<V> Entry<V> {
    /// Counts for so many encoded bytes from now on; `total` is what all entries count for.
    fn weigh(&mut self, encoded_len: usize, total: &mut usize) {
        let weight = ENTRY_OVERHEAD_BYTES + encoded_len;
        *total = *total - self.weight + weight;
        self.weight = weight;
    }
}

/// An entry as it was before the record in process.
struct Kept<V> {
    entry: usize,
    state: State,
    value: Option<V>,
}

/// The overlay and the cache of one key-value store in one task.
pub(crate) struct Overlay<K, V> {
    index: StoreIndex,
    values: ValueFormat,
    entries: IndexMap<K, Entry<V>, FixedState>,
    /// Dirty entries in the order of their first write.
    dirty: Vec<usize>,
    /// Dirty entries by encoded key: made by the first scan of a batch, and kept up by what the batch writes after it.
    ordered: Option<BTreeMap<Vec<u8>, usize>>,
    kept: Vec<Kept<V>>,
    kept_len: usize,
    record: u64,
    weight: usize,
    cache_bytes_max: usize,
    hand: usize,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    ahead: Ahead,
}

impl<K: StoreKey, V: StoreValue> Overlay<K, V> {
    pub(crate) fn new(index: StoreIndex, values: ValueFormat, cache_bytes_max: usize) -> Self {
        Self {
            index,
            values,
            entries: IndexMap::with_hasher(FixedState::default()),
            dirty: Vec::new(),
            ordered: None,
            kept: Vec::new(),
            kept_len: 0,
            record: 0,
            weight: 0,
            cache_bytes_max,
            hand: 0,
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            ahead: Ahead::default(),
        }
    }

    pub(crate) fn get(&mut self, base: &dyn Base, key: &K) -> Result<Option<&V>, OverlayError> {
        let entry = self.load(base, key)?;
        Ok(self.entries[entry].value.as_ref())
    }

    /// Overwrites or deletes; the old value is not read for it.
    pub(crate) fn put(&mut self, key: &K, value: Option<V>) {
        let entry = self.find(key).unwrap_or_else(|| self.insert_unknown(key));
        self.keep(entry);
        self.entries[entry].value = value;
    }

    /// Changes the value in place; `None` is no value.
    pub(crate) fn modify<R>(
        &mut self,
        base: &dyn Base,
        key: &K,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, OverlayError> {
        let entry = self.load(base, key)?;
        self.keep(entry);
        Ok(change(&mut self.entries[entry].value))
    }

    /// Visits committed and uncommitted entries until `visit` breaks.
    pub(crate) fn scan(
        &mut self,
        base: &dyn Base,
        scan: &KeyScan,
        visit: &mut dyn FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), OverlayError> {
        let &KeyScan { ref range, reverse, limit } = scan;
        if limit == 0 || range.is_empty() {
            return Ok(());
        }
        self.order_dirty();
        let ordered = self.ordered.as_ref().expect("order_dirty made it");
        let over = ordered.range::<[u8], _>(range.bounds()).map(|(bytes, &entry)| {
            let (key, slot) = self.entries.get_index(entry).expect("dirty entries are never evicted");
            Over { bytes, key, value: slot.value.as_ref() }
        });
        let (from, to) = range.bounds();
        let read = |visit: &mut Visit<'_>| base.range(self.index, from, to, reverse, visit);
        if reverse { merge(over.rev(), reverse, limit, read, visit) } else { merge(over, reverse, limit, read, visit) }
    }

    /// The entry of a key, read from the base where it is unknown.
    fn load(&mut self, base: &dyn Base, key: &K) -> Result<usize, OverlayError> {
        let known = self.find(key);
        if let Some(entry) = known {
            let slot = &mut self.entries[entry];
            if slot.state != State::Unknown {
                slot.used = true;
                if slot.state == State::Warm {
                    slot.state = State::Clean;
                    self.ahead.used += 1;
                }
                return Ok(entry);
            }
        }
        self.ahead.missed += 1;
        self.key_bytes.clear();
        self.value_bytes.clear();
        key.encode(&mut self.key_bytes);
        let found = base.get(self.index, &self.key_bytes, &mut self.value_bytes).map_err(OverlayError::Base)?;
        let value = found.then(|| ValueFormat::decode(&self.value_bytes)).transpose();
        let value = value.map_err(OverlayError::Undecodable)?;
        let entry = known.unwrap_or_else(|| self.insert_unknown(key));
        let slot = &mut self.entries[entry];
        (slot.value, slot.state) = (value, State::Clean);
        slot.weigh(self.key_bytes.len() + self.value_bytes.len(), &mut self.weight);
        Ok(entry)
    }

    /// The entry of a key: mostly the one that was found when it was read ahead.
    fn find(&self, key: &K) -> Option<usize> {
        let hinted = self.ahead.hint(self.record);
        let is_it = |entry: &usize| self.entries.get_index(*entry).is_some_and(|(known, _)| known == key);
        hinted.filter(is_it).or_else(|| self.entries.get_index_of(key))
    }

    fn insert_unknown(&mut self, key: &K) -> usize {
        self.weight += ENTRY_OVERHEAD_BYTES;
        let entry = Entry {
            value: None,
            state: State::Unknown,
            kept_by: 0,
            used: true,
            weight: ENTRY_OVERHEAD_BYTES,
            encoded_len: Cell::new(0),
        };
        self.entries.insert_full(key.clone(), entry).0
    }

    /// Keeps the entry as it is, once a record, and makes it dirty.
    fn keep(&mut self, entry: usize) {
        let slot = &mut self.entries[entry];
        slot.used = true;
        if slot.kept_by == self.record {
            return;
        }
        slot.kept_by = self.record;
        match self.kept.get_mut(self.kept_len) {
            Some(kept) => {
                (kept.entry, kept.state) = (entry, slot.state);
                kept.value.clone_from(&slot.value);
            }
            None => self.kept.push(Kept { entry, state: slot.state, value: slot.value.clone() }),
        }
        self.kept_len += 1;
        if slot.state != State::Dirty {
            slot.state = State::Dirty;
            self.dirty.push(entry);
            if let Some(ordered) = &mut self.ordered {
                ordered.insert(key_bytes(&self.entries, entry), entry);
            }
        }
    }

    fn order_dirty(&mut self) {
        if self.ordered.is_none() {
            let keys = self.dirty.iter().map(|&entry| (key_bytes(&self.entries, entry), entry));
            self.ordered = Some(keys.collect());
        }
    }

    /// Lets go of entries that were not used lately until the cache fits its bound (the clock algorithm).
    fn evict(&mut self) {
        assert!(self.dirty.is_empty(), "EO-2: uncommitted writes are never evicted");
        while self.weight > self.cache_bytes_max && !self.entries.is_empty() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let slot = &mut self.entries[self.hand];
            if slot.used {
                slot.used = false;
                self.hand += 1;
            } else if let Some((_, slot)) = self.entries.swap_remove_index(self.hand) {
                self.weight -= slot.weight;
            }
        }
    }
}

impl<K: StoreKey, V: StoreValue> AnyOverlay for Overlay<K, V> {
    fn begin_record(&mut self) {
        self.record += 1;
        self.kept_len = 0;
    }

    fn roll_back_record(&mut self) {
        for kept in self.kept[..self.kept_len].iter_mut().rev() {
            let slot = &mut self.entries[kept.entry];
            assert!(slot.state == State::Dirty, "EO-9: what a record kept, it wrote");
            slot.value = kept.value.take();
            slot.state = kept.state;
            slot.kept_by = 0;
            if kept.state != State::Dirty {
                let last = self.dirty.pop();
                assert!(last == Some(kept.entry), "EO-9: writes are undone in reverse order");
                if let Some(ordered) = &mut self.ordered {
                    ordered.remove(&key_bytes(&self.entries, kept.entry));
                }
            }
        }
        self.kept_len = 0;
    }

    fn collect(&self, changes: &mut ChangeSet) -> Result<(), CodecError> {
        for &entry in &self.dirty {
            let (key, slot) = self.entries.get_index(entry).expect("dirty entries are never evicted");
            let write_key = |bytes: &mut Vec<u8>| {
                key.encode(bytes);
                Ok(())
            };
            let before = changes.bytes_len();
            changes.push_with(self.index, write_key, |bytes| match &slot.value {
                Some(value) => self.values.encode(value, bytes).map(|()| true),
                None => Ok(false),
            })?;
            slot.encoded_len.set(changes.bytes_len() - before);
        }
        Ok(())
    }

    fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    fn applied(&mut self) {
        for entry in self.dirty.drain(..) {
            let slot = &mut self.entries[entry];
            slot.state = State::Clean;
            slot.weigh(slot.encoded_len.get(), &mut self.weight);
        }
        self.kept_len = 0;
        self.ordered = None;
        self.ahead.learn(self.record);
        self.evict();
    }

    fn abandon(&mut self) {
        for entry in self.dirty.drain(..) {
            let slot = &mut self.entries[entry];
            (slot.value, slot.state) = (None, State::Unknown);
        }
        self.kept_len = 0;
        self.ordered = None;
        self.ahead.learn(self.record);
        self.evict();
    }

    fn forget(&mut self) {
        self.dirty.clear();
        self.entries.clear();
        self.kept.clear();
        self.kept_len = 0;
        self.ordered = None;
        self.weight = 0;
        self.hand = 0;
        self.ahead.forget();
    }

    fn uncached_bytes(&self) -> usize {
        self.weight.saturating_sub(self.cache_bytes_max)
    }

    fn reads_ahead(&self) -> bool {
        self.ahead.pays()
    }

    fn begin_ahead(&mut self) {
        self.ahead.begin(self.record);
    }

    fn want(&mut self, nth: usize, key: &dyn Any) {
        let Some(key) = key.downcast_ref::<K>() else { return };
        let entry = self.entries.get_index_of(key).unwrap_or_else(|| self.insert_unknown(key));
        self.ahead.found(nth, entry);
        if self.entries[entry].state == State::Unknown {
            self.ahead.want(entry, |bytes| key.encode(bytes));
        }
    }

    fn warm(&mut self, base: &dyn Base) {
        let Self { ahead, entries, index, weight, cache_bytes_max, .. } = self;
        let (mut warmed, mut bytes) = (0, 0);
        let read = ahead.take(|keys, wanted| {
            base.get_many(*index, keys, &mut |place, found| {
                let len = keys[place].len() + found.map_or(0, <[u8]>::len);
                bytes += len;
                // What cannot be decoded, or panics, does so again in the record that looks it up.
                let decode = AssertUnwindSafe(|| found.map(ValueFormat::decode).transpose());
                if let Ok(Ok(value)) = catch_unwind(decode) {
                    let slot = &mut entries[wanted[place]];
                    (slot.value, slot.state, slot.used) = (value, State::Warm, false);
                    slot.weigh(len, weight);
                    warmed += 1;
                }
                // No more than the cache could keep: large values have their turn one by one.
                if bytes < *cache_bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        });
        if let Some(Err(error)) = read {
            // The same error meets the first record that looks one of them up, and is dealt with there.
            drop(error);
        }
        self.ahead.warmed += warmed;
    }

    fn json(&self) -> StoreJson {
        StoreJson::of::<K, V>()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

fn key_bytes<K: StoreKey, V>(entries: &IndexMap<K, Entry<V>, FixedState>, entry: usize) -> Vec<u8> {
    let (key, _) = entries.get_index(entry).expect("dirty entries are never evicted");
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
