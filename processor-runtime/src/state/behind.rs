//! Committed changes on their way into RocksDB. Many transactions become one sorted write: a key that is written ten times a second
//! is written once, and RocksDB takes keys in order faster than at random.
//!
//! What commits lands in `fresh`. When that is old or large enough it is frozen, and written as one `WriteBatch` with the positions of
//! its last commit; so what RocksDB holds is the state behind some commit, as before, only an older one (EO-3, EO-4). Whoever
//! reads looks into `fresh`, then into `frozen`, then into RocksDB, and sees the last commit (EO-10). A `kill -9` loses what is not
//! written; the changelog has it, and the bounds say how much that can be.

use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use processor_core::ids::StoreIndex;
use processor_core::task::ChangeSet;

use super::written::{Entry, Written};
use super::{Positions, StateError};

/// What an entry takes besides key and value: two allocations, its place in the table and in the order.
const ENTRY_OVERHEAD_BYTES: usize = 80;

/// What is told of entries.
pub(super) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// What some commits have changed.
#[derive(Debug)]
pub(super) struct Pending {
    /// By [`StoreIndex`]; stores that are kept in memory have none.
    pub(super) stores: Vec<Written>,
    /// As of the last of the commits; none, where nothing was committed.
    pub(super) positions: Option<Positions>,
    bytes: usize,
    /// What it has in common with everything that waits.
    waiting: Arc<AtomicUsize>,
    since: Instant,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pending {
    fn new(stores: usize, waiting: &Arc<AtomicUsize>) -> Self {
        let stores = (0..stores).map(|_| Written::default()).collect();
        Self { stores, positions: None, bytes: 0, waiting: Arc::clone(waiting), since: Instant::now() }
    }

    /// One that nothing was committed to, in the place of this one.
    fn next(&self) -> Self {
        Self::new(self.stores.len(), &self.waiting)
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long ago the first of its commits was.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    fn add(&mut self, changes: &ChangeSet, positions: &Positions, is_kept: impl Fn(StoreIndex) -> bool) {
        if self.positions.is_none() {
            self.since = Instant::now();
        }
        let before = self.bytes;
        for change in changes.changes().filter(|change| is_kept(change.store)) {
            let put = self.stores[change.store.slot()].put(change.key, change.value);
            self.bytes =
                self.bytes.saturating_add_signed(put.grown) + if put.is_new { ENTRY_OVERHEAD_BYTES } else { 0 };
        }
        // Wraps where it shrinks, and so does the sum.
        self.waiting.fetch_add(self.bytes.wrapping_sub(before), Ordering::Relaxed);
        self.positions = Some(positions.clone());
    }
}

/// The committed changes of a task that are not in RocksDB.
#[derive(Debug)]
pub(super) struct Behind {
    layers: RwLock<Layers>,
    /// Held by whoever writes `frozen`.
    writing: Mutex<()>,
    /// Why a write failed: RocksDB refuses all others, and the task has to open its state anew.
    failed: Mutex<Option<StateError>>,
}

/// The newer one lies over the older one.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    /// Shared for as long as its owner, who alone adds to it, scans it.
    fresh: Arc<Pending>,
    frozen: Option<Arc<Pending>>,
}

impl Behind {
    /// Of so many stores; `waiting` counts the bytes of it and of others.
    pub(super) fn new(stores: usize, waiting: &Arc<AtomicUsize>) -> Self {
        let layers = Layers { fresh: Arc::new(Pending::new(stores, waiting)), frozen: None };
        Self { layers: RwLock::new(layers), writing: Mutex::new(()), failed: Mutex::new(None) }
    }

    /// Adds a commit's changes of the stores that are kept here; says how much is fresh now, and how old the oldest of it is.
    pub(super) fn add(
        &self,
        changes: &ChangeSet,
        positions: &Positions,
        is_kept: impl Fn(StoreIndex) -> bool,
    ) -> (usize, Duration) {
        let mut layers = self.change();
        let fresh = Arc::get_mut(&mut layers.fresh)
            .expect("its owner commits when it does not scan, and others do not scan it");
        fresh.add(changes, positions, is_kept);
        (fresh.bytes(), fresh.age())
    }

    /// Freezes what is fresh, if there is any and nothing else is frozen; says whether something is frozen now.
    pub(super) fn freeze(&self) -> bool {
        let mut layers = self.change();
        layers.freeze();
        layers.frozen.is_some()
    }

    /// Writes what is frozen, if that has not been done meanwhile.
    pub(super) fn write(&self, write: impl FnOnce(&Pending) -> Result<(), StateError>) -> Result<(), StateError> {
        let _one_at_a_time = self.lock_writing();
        if let Some(failed) = self.failed() {
            return Err(failed);
        }
        let Some(frozen) = self.look().frozen.clone() else { return Ok(()) };
        match write(&frozen) {
            Ok(()) => {
                self.change().frozen = None;
                Ok(())
            }
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Why a write failed, if one has.
    pub(super) fn failed(&self) -> Option<StateError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether something is frozen.
    pub(super) fn is_frozen(&self) -> bool {
        self.look().frozen.is_some()
    }

    /// How long the oldest commit has been fresh; `None` if there is none.
    pub(super) fn age(&self) -> Option<Duration> {
        let layers = self.look();
        layers.fresh.positions.as_ref().map(|_| layers.fresh.age())
    }

    /// Gives everything up that waits, because the state is about to be removed.
    pub(super) fn give_up(&self) {
        let _nobody_writes = self.lock_writing();
        let mut layers = self.change();
        *layers = Layers { fresh: Arc::new(layers.fresh.next()), frozen: None };
    }

    /// Freezes what is fresh and hands all that is not in RocksDB to `then`, while nothing is added or becomes RocksDB's; what
    /// is handed over may be read for as long as it takes. `None`: something else is frozen, and has to be written first.
    pub(super) fn freeze_for<T>(&self, then: impl FnOnce(Option<Arc<Pending>>) -> T) -> Option<T> {
        let mut layers = self.change();
        layers.freeze();
        layers.fresh.positions.is_none().then(|| then(layers.frozen.clone()))
    }

    /// The layers as they are, for as long as the answer is held: nothing is added or becomes RocksDB's meanwhile. Nobody may
    /// hold it for long: the owner and the writer wait.
    pub(super) fn look(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layers {
    fn freeze(&mut self) {
        if self.frozen.is_none() && self.fresh.positions.is_some() {
            let next = Arc::new(self.fresh.next());
            self.frozen = Some(std::mem::replace(&mut self.fresh, next));
        }
    }

    /// A store's entry of a key, without a value if it was deleted; none: RocksDB has to be asked.
    pub(super) fn get(&self, store: StoreIndex, key: &[u8]) -> Option<Entry<'_>> {
        let layers = [Some(&*self.fresh), self.frozen.as_deref()].into_iter().flatten();
        layers.into_iter().find_map(|layer| layer.stores[store.slot()].get(key))
    }

    /// How many keys of a store are in one layer, the larger one: deletions too, and about as many in all if few are in both.
    pub(super) fn len(&self, store: StoreIndex) -> u64 {
        let len = |layer: &Pending| layer.stores[store.slot()].len() as u64;
        len(&self.fresh).max(self.frozen.as_deref().map_or(0, len))
    }

    /// The entries of a store between two bounds, in order, or in reverse: what is fresh hides what is frozen.
    pub(super) fn range<'a>(
        &'a self,
        store: StoreIndex,
        bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
        reverse: bool,
    ) -> Over<'a> {
        Over::of([Some(&*self.fresh), self.frozen.as_deref()], store, bounds, reverse)
    }
}

type Entries<'a> = Box<dyn Iterator<Item = Entry<'a>> + 'a>;

fn entries<'a>(written: &'a Written, bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>), reverse: bool) -> Entries<'a> {
    let entries = written.range(bounds);
    if reverse { Box::new(entries.rev()) } else { Box::new(entries) }
}

/// The entries of both layers in their order.
pub(super) struct Over<'a> {
    fresh: Peekable<Entries<'a>>,
    frozen: Peekable<Entries<'a>>,
    reverse: bool,
}

impl<'a> Over<'a> {
    /// The entries of a store in two layers, the newer one first.
    pub(super) fn of(
        layers: [Option<&'a Pending>; 2],
        store: StoreIndex,
        bounds: (Bound<&'a [u8]>, Bound<&'a [u8]>),
        reverse: bool,
    ) -> Self {
        let [fresh, frozen] = layers.map(|layer| {
            let empty = || Box::new(std::iter::empty()) as Entries<'a>;
            layer.map_or_else(empty, |layer| entries(&layer.stores[store.slot()], bounds, reverse)).peekable()
        });
        Self { fresh, frozen, reverse }
    }

    /// The key that comes next.
    fn peek(&mut self) -> Option<&'a [u8]> {
        let keys = [self.fresh.peek(), self.frozen.peek()].map(|entry| entry.map(|(key, _)| *key));
        match keys {
            [Some(fresh), Some(frozen)] if self.reverse => Some(fresh.max(frozen)),
            [Some(fresh), Some(frozen)] => Some(fresh.min(frozen)),
            [one, other] => one.or(other),
        }
    }

    /// Visits what lies before an entry below, and that one, unless it is hidden.
    pub(super) fn then_below(&mut self, key: &[u8], value: &[u8], visit: &mut Visit<'_>) -> ControlFlow<()> {
        while let Some(next) = self.peek().filter(|next| if self.reverse { *next >= key } else { *next <= key }) {
            self.visit_next(visit)?;
            if next == key {
                return ControlFlow::Continue(());
            }
        }
        visit(key, value)
    }

    /// Visits all that is left: there is nothing more below.
    pub(super) fn rest(&mut self, visit: &mut Visit<'_>) -> ControlFlow<()> {
        while self.peek().is_some() {
            self.visit_next(visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Visits the next entry, if it has a value.
    fn visit_next(&mut self, visit: &mut Visit<'_>) -> ControlFlow<()> {
        let next = self.peek();
        let take = |entries: &mut Peekable<Entries<'a>>| entries.next_if(|(key, _)| Some(*key) == next);
        let (fresh, frozen) = (take(&mut self.fresh), take(&mut self.frozen));
        match fresh.or(frozen) {
            Some((key, Some(value))) => visit(key, value),
            Some((_, None)) | None => ControlFlow::Continue(()),
        }
    }
}
