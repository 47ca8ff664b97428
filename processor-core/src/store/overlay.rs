//! What a batch reads and writes of one store: typed values over the base.
//!
//! An entry is *clean* (as committed), *dirty* (written by this batch) or *unknown* (to be read from the base). Dirty
//! entries are the overlay: they become the change set of the transaction, and stay as clean entries once that has
//! committed. Clean entries are a bounded cache, so that a hot key is decoded once, and encoded once a batch.
//!
//! Each record has a savepoint: the first time it writes a key, the entry is kept as it was, and put back should the
//! record fail (EO-9). What is kept is overwritten, not freed, from record to record.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};

use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::{Base, BaseError, ChangeSet, StoreKey, StoreValue};
use crate::codec::{Bincode, Codec};
use crate::error::CodecError;
use crate::ids::StoreIndex;

/// The first byte of every stored value: the version of how the rest is written.
pub const VALUE_FORMAT: u8 = 1;

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
    weight: usize,
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
    entries: IndexMap<K, Entry<V>, FixedState>,
    /// Dirty entries in the order of their first write.
    dirty: Vec<usize>,
    /// Dirty entries by encoded key; made when a batch scans a range, dropped when it writes.
    ordered: Option<BTreeMap<Vec<u8>, usize>>,
    kept: Vec<Kept<V>>,
    kept_len: usize,
    record: u64,
    weight: usize,
    cache_bytes_max: usize,
    hand: usize,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

impl<K: StoreKey, V: StoreValue> Overlay<K, V> {
    pub(crate) fn new(index: StoreIndex, cache_bytes_max: usize) -> Self {
        Self {
            index,
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
        }
    }

    pub(crate) fn get(&mut self, base: &dyn Base, key: &K) -> Result<Option<&V>, OverlayError> {
        let entry = self.load(base, key)?;
        Ok(self.entries[entry].value.as_ref())
    }

    /// Overwrites or deletes; the old value is not read for it.
    pub(crate) fn put(&mut self, key: &K, value: Option<V>) {
        let entry = self.entries.get_index_of(key).unwrap_or_else(|| self.insert_unknown(key));
        self.keep(entry);
        self.entries[entry].value = value;
    }

    /// Changes the value in place, starting from `V::default()` where there is none.
    pub(crate) fn update<R>(
        &mut self,
        base: &dyn Base,
        key: &K,
        change: impl FnOnce(&mut V) -> R,
    ) -> Result<R, OverlayError>
    where
        V: Default,
    {
        let entry = self.load(base, key)?;
        self.keep(entry);
        Ok(change(self.entries[entry].value.get_or_insert_with(V::default)))
    }

    /// Visits committed and uncommitted entries of the range in key order, or in reverse.
    pub(crate) fn range(
        &mut self,
        base: &dyn Base,
        bounds: &impl RangeBounds<K>,
        reverse: bool,
        visit: &mut dyn FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), OverlayError> {
        let (from, to) = (encode_bound(bounds.start_bound()), encode_bound(bounds.end_bound()));
        if is_empty_range(&from, &to) {
            return Ok(());
        }
        self.order_dirty();
        let ordered = self.ordered.as_ref().expect("order_dirty made it");
        let over = ordered.range::<[u8], _>((as_slice(&from), as_slice(&to)));
        let over: Vec<(&[u8], Option<&V>)> = if reverse {
            over.rev().map(|(key, &entry)| (key.as_slice(), self.entries[entry].value.as_ref())).collect()
        } else {
            over.map(|(key, &entry)| (key.as_slice(), self.entries[entry].value.as_ref())).collect()
        };
        let mut merge = Merge { over: &over, reverse, visit, outcome: Ok(()), stopped: false };
        let scanned =
            base.range(self.index, as_slice(&from), as_slice(&to), reverse, &mut |key, value| merge.base(key, value));
        scanned.map_err(OverlayError::Base)?;
        merge.finish()
    }

    /// The entry of a key, read from the base where it is unknown.
    fn load(&mut self, base: &dyn Base, key: &K) -> Result<usize, OverlayError> {
        let known = self.entries.get_full(key).map(|(entry, _, slot)| (entry, slot.state));
        if let Some((entry, State::Clean | State::Dirty)) = known {
            self.entries[entry].used = true;
            return Ok(entry);
        }
        self.key_bytes.clear();
        self.value_bytes.clear();
        key.encode(&mut self.key_bytes);
        let found = base.get(self.index, &self.key_bytes, &mut self.value_bytes).map_err(OverlayError::Base)?;
        let value = found.then(|| decode_value(&self.value_bytes)).transpose()?;
        let entry = known.map_or_else(|| self.insert_unknown(key), |(entry, _)| entry);
        let bytes = self.key_bytes.len() + self.value_bytes.len();
        let slot = &mut self.entries[entry];
        (slot.value, slot.state) = (value, State::Clean);
        self.weight += bytes;
        slot.weight += bytes;
        Ok(entry)
    }

    fn insert_unknown(&mut self, key: &K) -> usize {
        self.weight += ENTRY_OVERHEAD_BYTES;
        let entry = Entry { value: None, state: State::Unknown, kept_by: 0, used: true, weight: ENTRY_OVERHEAD_BYTES };
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
            self.ordered = None;
        }
    }

    fn order_dirty(&mut self) {
        if self.ordered.is_some() {
            return;
        }
        let keys = self.dirty.iter().map(|&entry| {
            let mut bytes = Vec::new();
            let (key, _) = self.entries.get_index(entry).expect("dirty entries are never evicted");
            key.encode(&mut bytes);
            (bytes, entry)
        });
        self.ordered = Some(keys.collect());
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
            }
        }
        self.kept_len = 0;
        self.ordered = None;
    }

    fn collect(&self, changes: &mut ChangeSet) -> Result<(), CodecError> {
        for &entry in &self.dirty {
            let (key, slot) = self.entries.get_index(entry).expect("dirty entries are never evicted");
            let write_key = |bytes: &mut Vec<u8>| {
                key.encode(bytes);
                Ok(())
            };
            changes.push_with(self.index, write_key, |bytes| match &slot.value {
                Some(value) => {
                    bytes.push(VALUE_FORMAT);
                    Bincode.encode(value, bytes)
                }
                None => Ok(false),
            })?;
        }
        Ok(())
    }

    fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    fn applied(&mut self) {
        for entry in self.dirty.drain(..) {
            self.entries[entry].state = State::Clean;
        }
        self.kept_len = 0;
        self.ordered = None;
        self.evict();
    }

    fn abandon(&mut self) {
        for entry in self.dirty.drain(..) {
            let slot = &mut self.entries[entry];
            (slot.value, slot.state) = (None, State::Unknown);
        }
        self.kept_len = 0;
        self.ordered = None;
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
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Merges the overlay's entries of a range, sorted in the direction of the scan, into the base's.
struct Merge<'a, V, F: ?Sized> {
    over: &'a [(&'a [u8], Option<&'a V>)],
    reverse: bool,
    visit: &'a mut F,
    outcome: Result<(), OverlayError>,
    stopped: bool,
}

impl<V: StoreValue, K: StoreKey> Merge<'_, V, dyn FnMut(K, V) -> ControlFlow<()> + '_> {
    /// The base's next entry: first come the overlay's entries before it; one of the same key hides it.
    fn base(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        while let Some(&(over_key, over_value)) = self.over.first() {
            let order = if self.reverse { key.cmp(over_key) } else { over_key.cmp(key) };
            if order.is_gt() {
                break;
            }
            self.over = &self.over[1..];
            self.emit(over_key, over_value.cloned().map(Ok));
            if order.is_eq() || self.stopped {
                return self.flow();
            }
        }
        self.emit(key, Some(decode_value(value)));
        self.flow()
    }

    fn finish(mut self) -> Result<(), OverlayError> {
        while let (false, Some(&(key, value))) = (self.stopped, self.over.first()) {
            self.over = &self.over[1..];
            self.emit(key, value.cloned().map(Ok));
        }
        self.outcome
    }

    fn emit(&mut self, key: &[u8], value: Option<Result<V, OverlayError>>) {
        let Some(value) = value else { return };
        let pair = value.and_then(|value| Ok((K::decode(key).map_err(OverlayError::Undecodable)?, value)));
        match pair {
            Ok((key, value)) => self.stopped = (self.visit)(key, value).is_break(),
            Err(error) => {
                self.outcome = Err(error);
                self.stopped = true;
            }
        }
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

pub(super) fn decode_value<V: StoreValue>(bytes: &[u8]) -> Result<V, OverlayError> {
    let value = match bytes.split_first() {
        Some((&VALUE_FORMAT, value)) => Bincode.decode(Some(value)),
        Some((format, _)) => Err(CodecError::new(format_args!(
            "its format version is {format}; this program knows {VALUE_FORMAT}: it was written by a newer one"
        ))),
        None => Err(CodecError::new("it has no format version")),
    };
    value.map_err(OverlayError::Undecodable)
}

fn encode_bound<K: StoreKey>(bound: Bound<&K>) -> Bound<Vec<u8>> {
    bound.map(|key| {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    })
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Whether no key can lie in the range; ordered maps and databases refuse such bounds.
fn is_empty_range(from: &Bound<Vec<u8>>, to: &Bound<Vec<u8>>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::MapBase;
    use proptest::prelude::*;

    type Map = BTreeMap<u32, Vec<u8>>;

    #[derive(Clone, Debug)]
    enum Op {
        Put(u32, Vec<u8>),
        Delete(u32),
        Update(u32, u8),
        Get(u32),
        Range(u32, u32, bool),
        RecordSucceeds,
        RecordFails,
        Commit,
        Abort,
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0..12u32;
        prop_oneof![
            4 => (key.clone(), any::<Vec<u8>>()).prop_map(|(key, value)| Op::Put(key, value)),
            2 => key.clone().prop_map(Op::Delete),
            4 => (key.clone(), any::<u8>()).prop_map(|(key, byte)| Op::Update(key, byte)),
            3 => key.clone().prop_map(Op::Get),
            2 => (key.clone(), key, any::<bool>()).prop_map(|(from, to, reverse)| Op::Range(from, to, reverse)),
            3 => Just(Op::RecordSucceeds),
            2 => Just(Op::RecordFails),
            1 => Just(Op::Commit),
            1 => Just(Op::Abort),
        ]
    }

    /// The overlay beside three plain maps: as committed, as of the last good record, and now.
    struct Twin {
        overlay: Overlay<u32, Vec<u8>>,
        base: MapBase,
        committed: Map,
        saved: Map,
        now: Map,
    }

    impl Twin {
        fn step(&mut self, op: Op) {
            match op {
                Op::Put(key, value) => {
                    self.overlay.put(&key, Some(value.clone()));
                    self.now.insert(key, value);
                }
                Op::Delete(key) => {
                    self.overlay.put(&key, None);
                    self.now.remove(&key);
                }
                Op::Update(key, byte) => {
                    self.overlay.update(&self.base, &key, |value| value.push(byte)).expect("the map never fails");
                    self.now.entry(key).or_default().push(byte);
                }
                Op::Get(key) => {
                    assert_eq!(self.overlay.get(&self.base, &key).expect("the map never fails"), self.now.get(&key));
                }
                Op::Range(from, to, reverse) => self.check_range(from, to, reverse),
                Op::RecordSucceeds => {
                    self.saved = self.now.clone();
                    self.overlay.begin_record();
                }
                Op::RecordFails => {
                    self.overlay.roll_back_record();
                    self.now = self.saved.clone();
                    self.overlay.begin_record();
                }
                Op::Commit => self.commit(),
                Op::Abort => {
                    self.overlay.abandon();
                    self.now = self.committed.clone();
                    self.saved = self.committed.clone();
                    self.overlay.begin_record();
                }
            }
        }

        fn check_range(&mut self, from: u32, to: u32, reverse: bool) {
            let mut got = Vec::new();
            let visit = &mut |key, value| {
                got.push((key, value));
                ControlFlow::Continue(())
            };
            self.overlay.range(&self.base, &(from..to), reverse, visit).expect("the map never fails");
            let expected = self.now.iter().filter(|(key, _)| (from..to).contains(key)).map(|(k, v)| (*k, v.clone()));
            let mut expected: Vec<_> = expected.collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(got, expected);
        }

        fn commit(&mut self) {
            let mut changes = ChangeSet::default();
            self.overlay.collect(&mut changes).expect("bytes can be encoded");
            self.base.apply(&changes);
            self.overlay.applied();
            self.committed = self.now.clone();
            self.saved = self.now.clone();
            self.overlay.begin_record();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// EO-9 and read-your-writes: whatever happens, the overlay over its base reads like a plain map.
        #[test]
        fn overlay_reads_like_a_map(ops in prop::collection::vec(op(), 1..120), cache in prop_oneof![Just(0), Just(400), Just(1 << 20)]) {
            let mut twin = Twin {
                overlay: Overlay::new(StoreIndex::new(0), cache),
                base: MapBase::default(),
                committed: Map::new(), saved: Map::new(), now: Map::new(),
            };
            twin.overlay.begin_record();
            for op in ops {
                twin.step(op);
            }
            for key in 0..12 {
                twin.step(Op::Get(key));
            }
            twin.step(Op::Range(0, 12, false));
            twin.step(Op::Commit);
            prop_assert_eq!(twin.base.decoded::<u32, Vec<u8>>(StoreIndex::new(0)), twin.now);
        }
    }

    #[test]
    fn a_batch_writes_each_key_once_in_the_order_of_the_first_write() {
        let mut overlay: Overlay<u32, u64> = Overlay::new(StoreIndex::new(3), 1 << 20);
        for key in [5, 1, 5, 9, 1] {
            overlay.begin_record();
            overlay.update(&MapBase::default(), &key, |count| *count += 1).expect("the map never fails");
        }
        let mut changes = ChangeSet::default();
        overlay.collect(&mut changes).expect("integers can be encoded");
        let keys: Vec<_> = changes.changes().map(|change| u32::decode(change.key).expect("a u32 key")).collect();
        assert_eq!(keys, [5, 1, 9]);
        assert!(changes.changes().all(|change| change.store == StoreIndex::new(3)));
    }

    #[test]
    fn the_cache_keeps_its_bound_and_loses_nothing() {
        let (mut base, mut overlay) = (MapBase::default(), Overlay::<u64, u64>::new(StoreIndex::new(0), 1_000));
        for round in 0..3 {
            for key in 0..200_u64 {
                overlay.begin_record();
                let count = overlay.update(&base, &key, |count| {
                    *count += 1;
                    *count
                });
                assert_eq!(count.expect("the map never fails"), round + 1);
            }
            let mut changes = ChangeSet::default();
            overlay.collect(&mut changes).expect("integers can be encoded");
            base.apply(&changes);
            overlay.applied();
            assert!(overlay.weight <= 1_000, "{} bytes cached", overlay.weight);
        }
    }
}
