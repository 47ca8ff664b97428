//! The open state of one task on RocksDB.

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Weak};

use processor_core::ids::{StoreIndex, TaskId};
use processor_core::store::{Base, BaseError, Found};
use processor_core::task::ChangeSet;

use super::database::Database;
use super::{Layout, Permit, Positions, StateError, TaskState, apply};

/// The open state of one task on RocksDB. Dropping it closes it.
pub struct RocksTask {
    pub(super) database: Arc<Database>,
    /// What the database holds under the same names; changed by `apply` only.
    pub(super) positions: Positions,
}

impl RocksTask {
    pub(super) fn new(database: Arc<Database>, positions: Positions) -> Self {
        let stores = database.layout().stores.len();
        assert!(positions.changelogs.len() == stores, "EO-3: there is a position for every store");
        Self { database, positions }
    }

    /// What it was opened with.
    pub fn layout(&self) -> &Layout {
        self.database.layout()
    }

    /// Gives up what is not on disk yet, because all of it is about to be removed.
    pub(super) fn give_up(&self) {
        self.database.behind().give_up();
    }

    /// A handle for queries from other threads. It sees committed state only (EO-10), as all of this does.
    pub fn reader(&self) -> TaskReader {
        TaskReader { database: Arc::downgrade(&self.database) }
    }
}

impl Drop for RocksTask {
    /// What was committed goes to the disk; where that fails it is restored from the changelog.
    fn drop(&mut self) {
        if self.database.needs_reopening() {
            return;
        }
        if let Err(error) = apply::settle(&self.database) {
            tracing::warn!(task = %self.database.task(), "closed without its newest state, which is restored when it is opened: {error}");
        }
    }
}

impl fmt::Debug for RocksTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksTask")
            .field("task", self.database.task())
            .field("path", &self.database.path())
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

impl TaskState for RocksTask {
    fn task(&self) -> &TaskId {
        self.database.task()
    }

    fn positions(&self) -> &Positions {
        &self.positions
    }

    fn apply(&mut self, _permit: Permit<'_>, changes: &ChangeSet, positions: &Positions) -> Result<(), StateError> {
        apply::apply(self, changes, positions)
    }

    fn failed(&self) -> Option<StateError> {
        if self.database.needs_reopening() { self.database.behind().failed() } else { None }
    }

    fn shared(&self) -> Option<Arc<dyn Base + Send + Sync>> {
        Some(Arc::new(self.reader()))
    }

    fn wipe(&mut self, store: StoreIndex) -> Result<(), StateError> {
        apply::wipe(self, store)
    }
}

impl Base for RocksTask {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        self.database.get(store, key, value)
    }

    fn get_many(&self, store: StoreIndex, keys: &[&[u8]], found: &mut Found<'_>) -> Result<(), BaseError> {
        self.database.get_many(store, keys, found)
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        self.database.range(store, from, to, reverse, visit)
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        self.database.approximate_len(store)
    }
}

/// Reads a task's state from another thread, for as long as this process has it open.
#[derive(Clone)]
pub struct TaskReader {
    database: Weak<Database>,
}

impl TaskReader {
    fn open(&self) -> Result<Arc<Database>, BaseError> {
        self.database.upgrade().ok_or_else(|| BaseError {
            corrupt: false,
            message: "the task's state is no longer open here; ask the worker that owns the partition now".to_owned(),
        })
    }
}

impl fmt::Debug for TaskReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.database.upgrade().map(|database| database.task().clone());
        f.debug_struct("TaskReader").field("task", &task).finish()
    }
}

impl Base for TaskReader {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        self.open()?.get(store, key, value)
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        self.open()?.range_beside(store, from, to, reverse, visit)
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        self.open()?.approximate_len(store)
    }
}
