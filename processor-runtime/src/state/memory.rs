//! One memory budget for the databases of the whole process.
//!
//! About a quarter of it may be committed changes that wait to be written (`behind.rs`). Of the rest one block cache holds what
//! was read, and a write buffer manager charges to it what was written and not yet flushed; so both together stay within the
//! budget. The manager flushes only a database that is being written, and never stalls a writer; so [`Memory::relieve`]
//! flushes idle databases when the write buffers fill up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rocksdb::{Cache, WriteBufferManager};

use super::database::Database;
use super::{StateError, apply};

/// A database that was not written for this long is idle, or for three times as long as commits may wait.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// How often an idle one is flushed.
const RELIEVE_EVERY: Duration = Duration::from_secs(1);
/// Commits may become so many times as old as they should before their owner writes them: the writer may be busy with a database
/// that RocksDB holds up.
const AGE_PART_MAX: u32 = 4;
/// So small a part of the budget is fresh in one database before it is frozen, however much room there is: larger writes
/// cost RocksDB no less by the entry.
const FRESH_PART: usize = 32;

/// The shared memory of all databases.
pub(super) struct Memory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    budget_bytes: usize,
    /// How many bytes wait to be written, of all databases.
    waiting: Arc<AtomicUsize>,
    write_behind: Duration,
    started: Instant,
    databases: Mutex<Databases>,
    /// Wakes whoever writes what is frozen.
    wake: Sender<Wake>,
}

/// What the writer is told.
pub(super) enum Wake {
    /// Something is frozen.
    Frozen(Weak<Database>),
    /// The directory closes.
    Stop,
}

struct Databases {
    open: Vec<Weak<Database>>,
    relieved_at: Instant,
}

impl Memory {
    /// Divides the budget: a quarter of it at most may wait to be written, three eighths may be write buffers, all the rest is
    /// cache.
    pub(super) fn new(budget_bytes: usize, write_behind: Duration) -> (Self, Receiver<Wake>) {
        let cache_bytes = budget_bytes / 4 * 3;
        let cache = Cache::new_hyper_clock_cache(cache_bytes, 0);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(cache_bytes / 2, false, cache.clone());
        let started = Instant::now();
        let databases = Mutex::new(Databases { open: Vec::new(), relieved_at: started });
        let (wake, woken) = channel();
        let waiting = Arc::default();
        (Self { cache, write_buffers, budget_bytes, waiting, write_behind, started, databases, wake }, woken)
    }

    /// A database has taken a commit over: so much of it waits to be frozen, the oldest for so long. Freezes it when that is
    /// enough, and waits for what was frozen before, so that no more waits than is allowed.
    pub(super) fn written(
        &self,
        database: &Arc<Database>,
        fresh_bytes: usize,
        age: Duration,
    ) -> Result<(), StateError> {
        // What no changelog can give back is on disk at once.
        let only_here =
            database.layout().stores.iter().any(|store| !store.in_memory && store.changelog_topic_id.is_none());
        if self.write_behind.is_zero() || only_here || self.waiting_bytes() > self.budget_bytes / 4 {
            return apply::settle(database);
        }
        let is_large = fresh_bytes >= self.budget_bytes / FRESH_PART;
        if !is_large && age < self.write_behind {
            return Ok(());
        }
        if database.behind().is_frozen() {
            if !is_large && age < self.write_behind * AGE_PART_MAX {
                return Ok(()); // the writer is at it, and comes back
            }
            apply::write_frozen(database)?;
        }
        self.freeze(database);
        Ok(())
    }

    /// Freezes what waits, and has it written.
    pub(super) fn freeze(&self, database: &Arc<Database>) {
        if database.behind().freeze() {
            self.write_frozen_soon(database);
        }
    }

    /// Has what is frozen written.
    pub(super) fn write_frozen_soon(&self, database: &Arc<Database>) {
        if database.behind().is_frozen() {
            // Nobody listens while the directory closes; then whoever closes the database writes.
            let _ = self.wake.send(Wake::Frozen(Arc::downgrade(database)));
        }
    }

    /// Ends the writer.
    pub(super) fn stop_writer(&self) {
        let _ = self.wake.send(Wake::Stop);
    }

    /// How long a commit may wait.
    pub(super) fn write_behind(&self) -> Duration {
        self.write_behind
    }

    /// Counts what waits to be written.
    pub(super) fn waiting(&self) -> &Arc<AtomicUsize> {
        &self.waiting
    }

    /// How many bytes wait to be written, of all databases.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The block cache.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The write buffer manager.
    pub(super) fn write_buffers(&self) -> &WriteBufferManager {
        &self.write_buffers
    }

    /// The whole budget.
    pub(super) fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    /// A coarse clock for [`Database`]s to remember their last write by.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Counts a database in.
    pub(super) fn register(&self, database: &Arc<Database>) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.open.retain(|open| open.strong_count() > 0);
        databases.open.push(Arc::downgrade(database));
    }

    /// The databases that are open.
    pub(super) fn open_databases(&self) -> Vec<Arc<Database>> {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.open.iter().filter_map(Weak::upgrade).collect()
    }

    /// Starts the flush of the idle database with the largest write buffers when seven eighths of their share are used;
    /// at most once a second, and without waiting for the flush.
    pub(super) fn relieve(&self) {
        if self.write_buffers.get_usage() < self.write_buffers.get_buffer_size() / 8 * 7 {
            return;
        }
        if let Some(database) = self.largest_idle() {
            database.start_flush();
        }
    }

    fn largest_idle(&self) -> Option<Arc<Database>> {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if databases.relieved_at.elapsed() < RELIEVE_EVERY {
            return None;
        }
        databases.relieved_at = Instant::now();
        let idle = IDLE_MIN.max(self.write_behind * 3);
        let idle_since = self.now_ms().saturating_sub(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        drop(databases);
        self.open_databases()
            .into_iter()
            .filter(|database| database.written_at_ms() <= idle_since)
            .map(|database| (database.write_buffer_bytes(), database))
            .filter(|&(bytes, _)| bytes > 0)
            .max_by_key(|&(bytes, _)| bytes)
            .map(|(_, database)| database)
    }
}
