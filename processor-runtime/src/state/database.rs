//! An open database of a task: its column families, and the reads.
//!
//! Shared between the task that writes it and the readers that serve queries from it. Values are read from RocksDB's
//! own memory and copied once, into the caller's buffer.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use processor_core::ids::{StoreIndex, TaskId};
use processor_core::store::{BaseError, Found};
use rocksdb::{BoundColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, MultiThreaded, ReadOptions};

use super::behind::{Behind, Over, Visit};
use super::claim::Claim;
use super::in_memory::InMemory;
use super::memory::Memory;
use super::{Layout, apply, open, options, positions};

/// How many keys are looked up together: what is found of them is held in memory meanwhile.
const READ_TOGETHER_MAX: usize = 256;

/// RocksDB, with column families that can come and go while others read.
pub(super) type Db = DBWithThreadMode<MultiThreaded>;

/// Where a store's entries are.
#[derive(Debug)]
pub(super) enum Place {
    /// In the column family of this name.
    Family(String),
    /// In memory.
    Memory(InMemory),
}

/// An open database of a task.
pub(super) struct Database {
    // Fields are dropped in this order: the database is closed before the claim is given back.
    db: Db,
    claim: Arc<Claim>,
    path: PathBuf,
    /// The stores in the order of [`StoreIndex`].
    stores: Vec<Place>,
    layout: Layout,
    behind: Behind,
    read: ReadOptions,
    memory: Arc<Memory>,
    written_at_ms: AtomicU64,
    write_failed: AtomicBool,
}

impl Database {
    /// Takes over what [`open`] has opened.
    pub(super) fn new(
        db: Db,
        path: PathBuf,
        stores: Vec<Place>,
        layout: &Layout,
        memory: &Arc<Memory>,
        claim: Claim,
    ) -> Arc<Self> {
        let database = Arc::new(Self {
            db,
            claim: Arc::new(claim),
            path,
            behind: Behind::new(stores.len(), memory.waiting()),
            stores,
            layout: layout.clone(),
            read: ReadOptions::default(),
            memory: Arc::clone(memory),
            written_at_ms: AtomicU64::new(memory.now_ms()),
            write_failed: AtomicBool::new(false),
        });
        memory.register(&database);
        database
    }

    /// RocksDB itself.
    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// The task it belongs to.
    pub(super) fn task(&self) -> &TaskId {
        self.claim.task()
    }

    /// The right to have it open, for what must be done after it is closed and before another can open it.
    pub(super) fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim)
    }

    /// Its directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it was opened with.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What is committed and not in RocksDB yet.
    pub(super) fn behind(&self) -> &Behind {
        &self.behind
    }

    /// Whether a store's changes are written to RocksDB.
    pub(super) fn is_on_disk(&self, store: StoreIndex) -> bool {
        matches!(self.place(store), Place::Family(_))
    }

    /// The memory it shares with the others.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How many stores it has.
    pub(super) fn stores(&self) -> usize {
        self.stores.len()
    }

    /// Where a store's entries are.
    pub(super) fn place(&self, store: StoreIndex) -> &Place {
        &self.stores[store.slot()]
    }

    /// Remembers that it was written, and makes room if all databases together have written too much.
    pub(super) fn note_write(&self) {
        self.written_at_ms.store(self.memory.now_ms(), Ordering::Relaxed);
        self.memory.relieve();
    }

    /// Remembers that a write failed: RocksDB refuses all others until it is opened again, however the disk fares.
    pub(super) fn note_failed_write(&self) {
        self.write_failed.store(true, Ordering::Relaxed);
    }

    /// Whether a write failed.
    pub(super) fn needs_reopening(&self) -> bool {
        self.write_failed.load(Ordering::Relaxed)
    }

    /// When it was last written, by [`Memory::now_ms`].
    pub(super) fn written_at_ms(&self) -> u64 {
        self.written_at_ms.load(Ordering::Relaxed)
    }

    /// How much it holds that was not flushed.
    pub(super) fn write_buffer_bytes(&self) -> u64 {
        let of = |family: Arc<BoundColumnFamily<'_>>| {
            let size = self.db.property_int_value_cf(&family, rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES);
            size.ok().flatten().unwrap_or(0)
        };
        self.all_families().into_iter().map(of).sum()
    }

    /// Starts a flush of all families together.
    pub(super) fn start_flush(&self) {
        let families = self.all_families();
        let families: Vec<_> = families.iter().collect();
        if let Err(error) = self.db.flush_cfs_opt(&families, &options::background_flush()) {
            tracing::warn!(task = %self.task(), %error, "an idle task's write buffers could not be flushed; memory stays in use");
        }
    }

    fn all_families(&self) -> Vec<Arc<BoundColumnFamily<'_>>> {
        let of_stores = self.stores.iter().filter_map(|place| match place {
            Place::Family(name) => Some(name.as_str()),
            Place::Memory(_) => None,
        });
        let names = of_stores.chain([positions::FAMILY]);
        names.filter_map(|name| self.db.cf_handle(name)).collect()
    }

    /// See [`processor_core::store::Base::get`].
    pub(super) fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        let name = match self.place(store) {
            Place::Family(name) => name,
            Place::Memory(entries) => return Ok(entries.get(key, value)),
        };
        if let Some((_, written)) = self.behind.look().get(store, key) {
            value.extend_from_slice(written.unwrap_or_default());
            return Ok(written.is_some());
        }
        let found = self.db.get_pinned_cf_opt(&self.readable(name)?, key, &self.read);
        match found.map_err(|error| self.read_failed(name, &error))? {
            Some(found) => {
                value.extend_from_slice(&found);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// See [`processor_core::store::Base::get_many`]. Keys that are in order are read faster.
    pub(super) fn get_many(&self, store: StoreIndex, keys: &[&[u8]], found: &mut Found<'_>) -> Result<(), BaseError> {
        let name = match self.place(store) {
            Place::Family(name) => name,
            Place::Memory(entries) => {
                let mut value = Vec::new();
                for (place, key) in keys.iter().enumerate() {
                    value.clear();
                    let is_there = entries.get(key, &mut value);
                    if found(place, is_there.then_some(value.as_slice())).is_break() {
                        break;
                    }
                }
                return Ok(());
            }
        };
        let family = self.readable(name)?;
        let mut below = Vec::with_capacity(keys.len().min(READ_TOGETHER_MAX));
        for (chunk, first) in keys.chunks(READ_TOGETHER_MAX).zip((0..).step_by(READ_TOGETHER_MAX)) {
            below.clear();
            // What is not in the layers now is in RocksDB and stays there: only the owner adds to them, and it is here.
            let layers = self.behind.look();
            for (place, key) in (first..).zip(chunk) {
                match layers.get(store, key) {
                    Some((_, written)) if found(place, written).is_break() => return Ok(()),
                    Some(_) => {}
                    None => below.push((place, *key)),
                }
            }
            drop(layers);
            let are_sorted = below.is_sorted_by_key(|(_, key)| *key);
            let keys = below.iter().map(|(_, key)| *key);
            let answers = self.db.batched_multi_get_cf_opt(&family, keys, are_sorted, &self.read);
            for ((place, _), answer) in below.iter().zip(answers) {
                let answer = answer.map_err(|error| self.read_failed(name, &error))?;
                if found(*place, answer.as_deref()).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// See [`processor_core::store::Base::range`].
    #[expect(clippy::type_complexity, reason = "an alias would hide what the callback is given and may answer")]
    pub(super) fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        let Some(read) = between(from, to) else { return Ok(()) };
        let name = match self.place(store) {
            Place::Family(name) => name,
            Place::Memory(entries) => {
                entries.range((from, to), reverse, visit);
                return Ok(());
            }
        };
        let family = self.readable(name)?;
        // Both as of one moment: what leaves the layers afterwards is seen in them still.
        let (layers, entries) = {
            let layers = self.behind.look();
            (layers.clone(), self.db.raw_iterator_cf_opt(&family, read))
        };
        self.scan(name, layers.range(store, (from, to), reverse), entries, reverse, visit)
    }

    /// [`range`](Self::range) for other threads: as of one commit, and without holding up the next one, however long they
    /// take. What waits to be written is written sooner for it.
    #[expect(clippy::type_complexity, reason = "an alias would hide what the callback is given and may answer")]
    pub(super) fn range_beside(
        self: &Arc<Self>,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        let Place::Family(name) = self.place(store) else { return self.range(store, from, to, reverse, visit) };
        let family = self.readable(name)?;
        let (frozen, entries) = loop {
            let Some(read) = between(from, to) else { return Ok(()) };
            let view = |frozen| (frozen, self.db.raw_iterator_cf_opt(&family, read));
            if let Some(view) = self.behind.freeze_for(view) {
                break view;
            }
            let written = apply::write_frozen(self);
            written.map_err(|error| BaseError { corrupt: false, message: error.message })?;
        };
        self.memory.write_frozen_soon(self);
        let over = Over::of([None, frozen.as_deref()], store, (from, to), reverse);
        self.scan(name, over, entries, reverse, visit)
    }

    fn scan(
        &self,
        name: &str,
        mut over: Over<'_>,
        mut entries: DBRawIteratorWithThreadMode<'_, Db>,
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), BaseError> {
        if reverse {
            entries.seek_to_last();
        } else {
            entries.seek_to_first();
        }
        while let Some((key, value)) = entries.item() {
            if over.then_below(key, value, visit).is_break() {
                return Ok(());
            }
            step(&mut entries, reverse);
        }
        entries.status().map_err(|error| self.read_failed(name, &error))?;
        let _ = over.rest(visit);
        Ok(())
    }

    /// See [`processor_core::store::Base::approximate_len`]: RocksDB's estimate, and at least what waits to be written of a
    /// store that has little in RocksDB.
    pub(super) fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        let name = match self.place(store) {
            Place::Family(name) => name,
            Place::Memory(entries) => return Ok(entries.len() as u64),
        };
        let keys = self.db.property_int_value_cf(&self.readable(name)?, rocksdb::properties::ESTIMATE_NUM_KEYS);
        let keys = keys.map_err(|error| self.read_failed(name, &error))?.unwrap_or(0);
        Ok(keys.max(self.behind.look().len(store)))
    }

    /// A column family; there is none while its store is being wiped.
    fn readable(&self, family: &str) -> Result<Arc<BoundColumnFamily<'_>>, BaseError> {
        self.db.cf_handle(family).ok_or_else(|| BaseError {
            corrupt: false,
            message: format!("`{family}` of task {} is being wiped; read it again when it is restored", self.task()),
        })
    }

    fn read_failed(&self, family: &str, error: &rocksdb::Error) -> BaseError {
        let corrupt = open::is_damage(error);
        let next = if corrupt {
            "it must be wiped and restored from its changelog"
        } else {
            "check the disk, its rights and the limit on open files"
        };
        let (task, path) = (self.task(), self.path.display());
        BaseError { corrupt, message: format!("`{family}` of task {task} in {path} cannot be read ({error}); {next}") }
    }
}

fn step(entries: &mut DBRawIteratorWithThreadMode<'_, Db>, reverse: bool) {
    if reverse {
        entries.prev();
    } else {
        entries.next();
    }
}

/// The options of a scan between bounds; `None` if nothing can lie between them. RocksDB includes its lower bound and
/// excludes its upper one; `key ‖ 0` is the key that follows `key`.
pub(super) fn between(from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<ReadOptions> {
    let successor = |key: &[u8]| [key, &[0]].concat();
    let lower = match from {
        Bound::Included(key) => Some(key.to_vec()),
        Bound::Excluded(key) => Some(successor(key)),
        Bound::Unbounded => None,
    };
    let upper = match to {
        Bound::Included(key) => Some(successor(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    if let (Some(lower), Some(upper)) = (&lower, &upper)
        && lower >= upper
    {
        return None;
    }
    if upper.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let mut read = ReadOptions::default();
    if let Some(lower) = lower {
        read.set_iterate_lower_bound(lower);
    }
    if let Some(upper) = upper {
        read.set_iterate_upper_bound(upper);
    }
    Some(read)
}
