//! One memory budget for the databases of the whole process.
//!
//! One block cache holds what was read, and a write buffer manager charges to it what was written and not yet flushed;
//! so both together stay within the budget. The manager flushes only a database that is being written, and never
//! stalls a writer; so [`Memory::relieve`] flushes idle databases when the write buffers fill up.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rocksdb::{Cache, WriteBufferManager};

use super::database::Database;

/// A database that was not written for this long is idle.
const IDLE: Duration = Duration::from_secs(1);

/// The shared memory of all databases.
pub(super) struct Memory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    budget_bytes: usize,
    started: Instant,
    databases: Mutex<Databases>,
}

struct Databases {
    open: Vec<Weak<Database>>,
    relieved_at: Instant,
}

impl Memory {
    /// Divides the budget: half of it at most may be write buffers, all the rest is cache.
    pub(super) fn new(budget_bytes: usize) -> Self {
        let cache = Cache::new_hyper_clock_cache(budget_bytes, 0);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(budget_bytes / 2, false, cache.clone());
        let started = Instant::now();
        let databases = Mutex::new(Databases { open: Vec::new(), relieved_at: started });
        Self { cache, write_buffers, budget_bytes, started, databases }
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
        if databases.relieved_at.elapsed() < IDLE {
            return None;
        }
        databases.relieved_at = Instant::now();
        let idle_since = self.now_ms().saturating_sub(u64::try_from(IDLE.as_millis()).unwrap_or(u64::MAX));
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
