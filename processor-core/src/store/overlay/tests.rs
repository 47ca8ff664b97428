//! The overlay over its base reads like a plain map, whatever becomes of records and batches.

use super::*;
use crate::store::KeyRange;
use crate::store::memory::MemoryBase;
use proptest::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use std::ops::{Bound, ControlFlow, RangeBounds};

/// Two components, so that keys can begin alike.
type Key = (u8, u8);
type Map = BTreeMap<Key, Vec<u8>>;

const STORE: StoreIndex = StoreIndex::new(0);

#[derive(Clone, Debug)]
enum Op {
    Put(Key, Vec<u8>),
    Delete(Key),
    Update(Key, u8),
    Shorten(Key),
    Get(Key),
    Scan { span: Span, reverse: bool, limit: usize },
    ReadAhead(Vec<Key>),
    RecordSucceeds,
    RecordFails,
    Commit,
    Abort,
}

/// The keys of a scan.
#[derive(Clone, Debug)]
enum Span {
    All,
    Prefix(u8),
    Between(Bound<Key>, Bound<Key>),
}

impl Span {
    fn range(&self) -> KeyRange {
        match self {
            Self::All => KeyRange::all(),
            Self::Prefix(first) => KeyRange::prefix::<Key>(&(*first,)),
            Self::Between(from, to) => KeyRange::between(&(*from, *to)),
        }
    }

    fn holds(&self, key: Key) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(first) => key.0 == *first,
            Self::Between(from, to) => (*from, *to).contains(&key),
        }
    }
}

fn key() -> impl Strategy<Value = Key> {
    // 255 has no successor: behind a prefix of it there is no upper bound.
    (prop_oneof![0..3_u8, Just(255)], 0..4_u8)
}

fn span() -> impl Strategy<Value = Span> {
    let bound =
        || prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)];
    prop_oneof![
        1 => Just(Span::All),
        2 => key().prop_map(|(first, _)| Span::Prefix(first)),
        3 => (bound(), bound()).prop_map(|(from, to)| Span::Between(from, to)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (key(), any::<Vec<u8>>()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => key().prop_map(Op::Delete),
        4 => (key(), any::<u8>()).prop_map(|(key, byte)| Op::Update(key, byte)),
        2 => key().prop_map(Op::Shorten),
        3 => key().prop_map(Op::Get),
        4 => (span(), any::<bool>(), 0..8_usize).prop_map(|(span, reverse, limit)| Op::Scan { span, reverse, limit }),
        2 => prop::collection::vec(key(), 0..6).prop_map(Op::ReadAhead),
        3 => Just(Op::RecordSucceeds),
        2 => Just(Op::RecordFails),
        1 => Just(Op::Commit),
        1 => Just(Op::Abort),
    ]
}

/// The overlay beside three plain maps: as committed, as of the last good record, and now.
struct Twin {
    overlay: Overlay<Key, Vec<u8>>,
    base: MemoryBase,
    committed: Map,
    saved: Map,
    now: Map,
}

/// Drops the last byte; what has none left goes.
fn shorten(value: &mut Option<Vec<u8>>) {
    *value = value.take().filter(|value| value.len() > 1).map(|mut value| {
        value.pop();
        value
    });
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
                let push = |value: &mut Option<Vec<u8>>| value.get_or_insert_default().push(byte);
                self.overlay.modify(&self.base, &key, push).expect("the map never fails");
                self.now.entry(key).or_default().push(byte);
            }
            Op::Shorten(key) => {
                self.overlay.modify(&self.base, &key, shorten).expect("the map never fails");
                let mut value = self.now.remove(&key);
                shorten(&mut value);
                self.now.extend(value.map(|value| (key, value)));
            }
            Op::Get(key) => {
                assert_eq!(self.overlay.get(&self.base, &key).expect("the map never fails"), self.now.get(&key));
            }
            Op::Scan { span, reverse, limit } => self.check_scan(&span, reverse, limit),
            Op::ReadAhead(keys) => {
                self.overlay.begin_ahead();
                for (nth, key) in keys.iter().enumerate() {
                    self.overlay.want(nth, key);
                }
                self.overlay.warm(&self.base);
            }
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

    fn check_scan(&mut self, span: &Span, reverse: bool, limit: usize) {
        let mut got = Vec::new();
        let visit = &mut |key, value| {
            got.push((key, value));
            ControlFlow::Continue(())
        };
        self.base.scanned.set(0);
        let asked = KeyScan { range: span.range(), reverse, limit };
        self.overlay.scan(&self.base, &asked, visit).expect("the map never fails");
        let inside = self.now.iter().filter(|(key, _)| span.holds(**key)).map(|(key, value)| (*key, value.clone()));
        let mut expected: Vec<_> = inside.collect();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(got, expected);
        match got.last() {
            Some((last, _)) if got.len() == limit => self.check_reads(span, reverse, *last),
            _ if limit == 0 => assert_eq!(self.base.scanned.get(), 0),
            _ => {}
        }
    }

    /// No more of the base was read than up to the last entry that was wanted, and the next one where that entry was the
    /// overlay's: it has to be seen to know that nothing comes before.
    fn check_reads(&self, span: &Span, reverse: bool, last: Key) {
        let before = |key: Key| if reverse { key >= last } else { key <= last };
        let needed = self.committed.keys().filter(|key| span.holds(**key) && before(**key)).count();
        let peeked = usize::from(!self.committed.contains_key(&last));
        let read = self.base.scanned.get();
        assert!(read <= needed + peeked, "{read} entries were read, and {needed} lie before the last that was wanted");
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
    #![proptest_config(ProptestConfig::with_cases(1024))]
    /// EO-9 and read-your-writes: whatever happens, the overlay over its base reads like a plain map.
    #[test]
    fn overlay_reads_like_a_map(
        ops in prop::collection::vec(op(), 1..120), cache in prop_oneof![Just(0), Just(400), Just(1 << 20)],
    ) {
        let mut twin = Twin {
            overlay: Overlay::new(STORE, ValueFormat::Bincode, cache),
            base: MemoryBase::default(),
            committed: Map::new(), saved: Map::new(), now: Map::new(),
        };
        twin.overlay.begin_record();
        for op in ops {
            twin.step(op);
        }
        for key in (0..3).chain([255]).flat_map(|first| (0..4).map(move |second| (first, second))) {
            twin.step(Op::Get(key));
        }
        twin.step(Op::Scan { span: Span::All, reverse: false, limit: usize::MAX });
        twin.step(Op::Commit);
        prop_assert_eq!(twin.base.decoded::<Key, Vec<u8>>(STORE), twin.now);
    }
}

#[test]
fn a_batch_writes_each_key_once_in_the_order_of_the_first_write() {
    let mut overlay: Overlay<u32, u64> = Overlay::new(StoreIndex::new(3), ValueFormat::Bincode, 1 << 20);
    for key in [5, 1, 5, 9, 1] {
        overlay.begin_record();
        count(&mut overlay, &MemoryBase::default(), key);
    }
    let mut changes = ChangeSet::default();
    overlay.collect(&mut changes).expect("integers can be encoded");
    let keys: Vec<_> = changes.changes().map(|change| u32::decode(change.key).expect("a u32 key")).collect();
    assert_eq!(keys, [5, 1, 9]);
    assert!(changes.changes().all(|change| change.store == StoreIndex::new(3)));
}

#[test]
fn the_cache_keeps_its_bound_and_loses_nothing() {
    let (mut base, mut overlay) = (MemoryBase::default(), Overlay::<u32, u64>::new(STORE, ValueFormat::Bincode, 1_000));
    for round in 0..3 {
        for key in 0..200 {
            overlay.begin_record();
            assert_eq!(count(&mut overlay, &base, key), round + 1);
        }
        let mut changes = ChangeSet::default();
        overlay.collect(&mut changes).expect("integers can be encoded");
        base.apply(&changes);
        overlay.applied();
        assert!(overlay.weight <= 1_000, "{} bytes cached", overlay.weight);
    }
}

/// A value that was written, or has grown, weighs what it takes now, not what it took when it was read.
#[test]
fn written_values_count_for_the_bound_of_the_cache() {
    let (mut base, mut overlay) =
        (MemoryBase::default(), Overlay::<u32, Vec<u8>>::new(STORE, ValueFormat::Bincode, 10_000));
    let commit = |overlay: &mut Overlay<u32, Vec<u8>>, base: &mut MemoryBase| {
        let mut changes = ChangeSet::default();
        overlay.collect(&mut changes).expect("bytes can be encoded");
        base.apply(&changes);
        overlay.applied();
        let cached = overlay.entries.values().filter_map(|entry| entry.value.as_ref()).map(Vec::len).sum::<usize>();
        assert!(cached <= 10_000, "{cached} bytes cached");
        assert_eq!(overlay.weight, overlay.entries.values().map(|entry| entry.weight).sum::<usize>());
    };
    overlay.begin_record();
    (0..100).for_each(|key| overlay.put(&key, Some(vec![7; 1_000])));
    commit(&mut overlay, &mut base);
    for _ in 0..20 {
        overlay.begin_record();
        for key in 0..5 {
            overlay.modify(&base, &key, |value| value.get_or_insert_default().extend([7; 1_000])).expect("a map");
        }
        commit(&mut overlay, &mut base);
    }
    overlay.begin_record();
    (0..100).for_each(|key| overlay.put(&key, None));
    commit(&mut overlay, &mut base);
}

#[test]
fn an_entry_that_cannot_be_read_ends_the_scan_with_its_error() {
    let mut base = MemoryBase::default();
    let mut changes = ChangeSet::default();
    changes.push(STORE, &[0, 0, 0, 1], Some(&[1, 7]));
    changes.push(STORE, &[0, 0, 0, 2], Some(&[99, 7]));
    changes.push(STORE, &[0, 0, 0, 3], Some(&[1, 7]));
    base.apply(&changes);
    let mut overlay: Overlay<u32, u64> = Overlay::new(STORE, ValueFormat::Bincode, 1_000);
    overlay.put(&4, Some(7));
    let mut visited = Vec::new();
    let scan = KeyScan { range: KeyRange::all(), reverse: false, limit: usize::MAX };
    let scanned = overlay.scan(&base, &scan, &mut |key, _| {
        visited.push(key);
        ControlFlow::Continue(())
    });
    let Err(OverlayError::Undecodable(error)) = scanned else { panic!("99 is no format version: {scanned:?}") };
    assert!(error.0.contains("format version 99"), "{error}");
    assert_eq!(visited, [1]);
}

#[test]
fn several_keys_are_looked_up_together() {
    let mut base = MemoryBase::default();
    let mut changes = ChangeSet::default();
    changes.push(STORE, b"a", Some(b"1"));
    changes.push(STORE, b"b", Some(b""));
    base.apply(&changes);
    let mut found = vec![None; 4];
    let keys: [&[u8]; 4] = [b"b", b"x", b"a", b"a"];
    let mut look = |until: usize| {
        base.get_many(STORE, &keys, &mut |place, value| {
            found[place] = Some(value.map(<[u8]>::to_vec));
            if place < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .expect("a map");
        std::mem::replace(&mut found, vec![None; 4])
    };
    assert_eq!(look(4), [Some(Some(vec![])), Some(None), Some(Some(b"1".to_vec())), Some(Some(b"1".to_vec()))]);
    assert_eq!(look(1), [Some(Some(vec![])), Some(None), None, None]);
}

/// A base that cannot be read.
struct Broken;

impl Base for Broken {
    fn get(&self, _store: StoreIndex, _key: &[u8], _value: &mut Vec<u8>) -> Result<bool, BaseError> {
        Err(BaseError { corrupt: false, message: "the disk is gone".to_owned() })
    }

    fn range(
        &self,
        _store: StoreIndex,
        _from: Bound<&[u8]>,
        _to: Bound<&[u8]>,
        _reverse: bool,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        Err(BaseError { corrupt: false, message: "the disk is gone".to_owned() })
    }

    fn approximate_len(&self, _store: StoreIndex) -> Result<u64, BaseError> {
        Err(BaseError { corrupt: false, message: "the disk is gone".to_owned() })
    }
}

#[test]
fn what_was_read_ahead_is_not_read_again_and_what_could_not_be_is_told_of_where_it_is_looked_up() {
    let mut base = MemoryBase::default();
    let mut changes = ChangeSet::default();
    changes.push(STORE, &[0, 0, 0, 1], Some(&[1, 7]));
    changes.push(STORE, &[0, 0, 0, 2], Some(&[99, 7]));
    base.apply(&changes);
    let mut overlay: Overlay<u32, u64> = Overlay::new(STORE, ValueFormat::Bincode, 1_000);
    overlay.begin_ahead();
    for (nth, key) in [&3_u32 as &dyn Any, &1_u32, &2_u32, &1_u32, &"of another type"].into_iter().enumerate() {
        overlay.want(nth, key);
    }
    overlay.warm(&base);
    assert_eq!(overlay.get(&Broken, &1).expect("it was read ahead"), Some(&7));
    assert_eq!(overlay.get(&Broken, &3).expect("it was read ahead"), None);
    assert!(matches!(overlay.get(&base, &2), Err(OverlayError::Undecodable(_))), "99 is no format version");
    overlay.want(0, &4_u32);
    overlay.warm(&Broken);
    assert!(matches!(overlay.get(&Broken, &4), Err(OverlayError::Base(_))));
    assert_eq!(overlay.get(&base, &4).expect("the map never fails"), None);
}

/// A value that cannot be read without a panic, if it is 13.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Unlucky(u8);

impl<'de> Deserialize<'de> for Unlucky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        assert_ne!(number, 13, "a user's code panics");
        Ok(Self(number))
    }
}

#[test]
fn a_value_that_panics_is_not_read_ahead_and_takes_no_other_along() {
    let mut base = MemoryBase::default();
    let mut changes = ChangeSet::default();
    for (key, value) in [(1, 7), (2, 13), (3, 9)] {
        changes.push(STORE, &[0, 0, 0, key], Some(&[1, value]));
    }
    base.apply(&changes);
    let mut overlay: Overlay<u32, Unlucky> = Overlay::new(STORE, ValueFormat::Bincode, 1_000);
    for (nth, key) in [1_u32, 2, 3].into_iter().enumerate() {
        overlay.want(nth, &key);
    }
    overlay.warm(&base);
    assert_eq!(overlay.get(&Broken, &1).expect("it was read ahead"), Some(&Unlucky(7)));
    assert_eq!(overlay.get(&Broken, &3).expect("it was read ahead"), Some(&Unlucky(9)));
    let in_a_record = catch_unwind(AssertUnwindSafe(|| overlay.get(&base, &2).map(Option::<&Unlucky>::cloned)));
    assert!(in_a_record.is_err(), "there it panics, for the policy of the record");
}

fn count(overlay: &mut Overlay<u32, u64>, base: &MemoryBase, key: u32) -> u64 {
    let counted = overlay.modify(base, &key, |count| {
        *count = Some(count.unwrap_or(0) + 1);
        count.unwrap_or(0)
    });
    counted.expect("the map never fails")
}
