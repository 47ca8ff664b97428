//! Scans: which keys, and the overlay's entries merged into the base's.
//!
//! Both come sorted in the direction of the scan. Before each entry of the base come the overlay's that sort before it,
//! and one of the same key hides it. The base is read one entry at a time, and no further than the visitor wants.

use std::iter::Peekable;
use std::ops::{Bound, ControlFlow, RangeBounds};

use super::overlay::OverlayError;
use super::{BaseError, KeyPrefix, StoreKey, StoreValue, ValueFormat};

/// Which entries, which way, and how many at most.
#[derive(Debug)]
pub(crate) struct KeyScan {
    pub(crate) range: KeyRange,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

/// A range of encoded keys.
#[derive(Debug)]
pub(crate) struct KeyRange {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub(crate) fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// The keys between two.
    pub(crate) fn between<K: StoreKey>(range: &impl RangeBounds<K>) -> Self {
        let encode = |bound: Bound<&K>| {
            bound.map(|key| {
                let mut bytes = Vec::new();
                key.encode(&mut bytes);
                bytes
            })
        };
        Self { from: encode(range.start_bound()), to: encode(range.end_bound()) }
    }

    /// The keys that begin alike.
    pub(crate) fn prefix<K>(prefix: &(impl KeyPrefix<K> + ?Sized)) -> Self {
        let mut from = Vec::new();
        prefix.encode_prefix(&mut from);
        let to = behind_all_with(&from).map_or(Bound::Unbounded, Bound::Excluded);
        Self { from: Bound::Included(from), to }
    }

    /// The bounds.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice))
    }

    /// Whether no key can lie in the range; ordered maps and databases refuse such bounds.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }
}

/// The first bytes that sort behind everything that begins with `prefix`; `None` if nothing does.
fn behind_all_with(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut behind = prefix[..=kept].to_vec();
    behind[kept] += 1;
    Some(behind)
}

/// An entry of the overlay; without a value it is deleted.
pub(super) struct Over<'a, K, V> {
    pub(super) bytes: &'a [u8],
    pub(super) key: &'a K,
    pub(super) value: Option<&'a V>,
}

/// How [`Base::range`](super::Base::range) hands over its entries.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Visits the entries of both, in order, until `visit` breaks or has seen `left` of them. `read` scans the base.
pub(super) fn merge<'a, K: StoreKey, V: StoreValue>(
    over: impl Iterator<Item = Over<'a, K, V>>,
    reverse: bool,
    left: usize,
    read: impl FnOnce(&mut Visit<'_>) -> Result<(), BaseError>,
    visit: &mut dyn FnMut(K, V) -> ControlFlow<()>,
) -> Result<(), OverlayError> {
    assert!(left > 0, "a scan of nothing reads nothing");
    let mut merge = Merge { over: over.peekable(), reverse, left, visit };
    let mut outcome = Ok(ControlFlow::Continue(()));
    read(&mut |key, value| {
        outcome = merge.base(key, value);
        match outcome {
            Ok(flow) => flow,
            Err(_) => ControlFlow::Break(()),
        }
    })
    .map_err(OverlayError::Base)?;
    if outcome?.is_continue() {
        let _ = merge.rest();
    }
    Ok(())
}

struct Merge<'v, K, V, I: Iterator> {
    over: Peekable<I>,
    reverse: bool,
    left: usize,
    visit: &'v mut dyn FnMut(K, V) -> ControlFlow<()>,
}

impl<'a, K: StoreKey, V: StoreValue, I: Iterator<Item = Over<'a, K, V>>> Merge<'_, K, V, I> {
    /// The base's next entry, after those of the overlay that come before it.
    fn base(&mut self, key: &[u8], value: &[u8]) -> Result<ControlFlow<()>, OverlayError> {
        let reverse = self.reverse;
        while let Some(over) = self.over.next_if(|over| if reverse { over.bytes >= key } else { over.bytes <= key }) {
            let flow = self.emit_over(&over);
            if over.bytes == key || flow.is_break() {
                return Ok(flow);
            }
        }
        let key = K::decode(key).map_err(OverlayError::Undecodable)?;
        let value = ValueFormat::decode(value).map_err(OverlayError::Undecodable)?;
        Ok(self.emit(key, value))
    }

    /// The overlay's entries behind the last one of the base.
    fn rest(&mut self) -> ControlFlow<()> {
        while let Some(over) = self.over.next() {
            self.emit_over(&over)?;
        }
        ControlFlow::Continue(())
    }

    fn emit_over(&mut self, over: &Over<'_, K, V>) -> ControlFlow<()> {
        match over.value {
            Some(value) => self.emit(over.key.clone(), value.clone()),
            None => ControlFlow::Continue(()),
        }
    }

    fn emit(&mut self, key: K, value: V) -> ControlFlow<()> {
        self.left -= 1;
        (self.visit)(key, value)?;
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
