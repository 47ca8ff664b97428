//! Opens a task's database and makes sure that what is in it can be trusted.
//!
//! 1. no database, or the remains of one → a new one;
//! 2. its stores are compared with the layout: one that the layout does not know is a topology that no longer fits, and
//!    a person decides; one that is missing is made, empty;
//! 3. RocksDB opens it, and the positions are read; damage → the directory is wiped, loudly, and opened again;
//! 4. another cluster → all is wiped; another incarnation of a changelog topic → that store is;
//! 5. a store with a changelog has a position exactly if it holds something: a wipe that was cut short is completed;
//! 6. what a store has left on disk before it was kept in memory, or had no changelog, is removed.

use std::path::Path;
use std::sync::Arc;

use processor_core::ids::{StoreIndex, TaskId};
use rocksdb::{ColumnFamilyDescriptor, ErrorKind, IteratorMode};

use super::claim::Claim;
use super::database::{Database, Db, Place};
use super::files::{self, Found};
use super::in_memory::InMemory;
use super::memory::Memory;
use super::options::{self, StateSettings};
use super::positions::{self, StoreRecord, Subject, TaskRecord};
use super::task::RocksTask;
use super::{Layout, Positions, StateError, StateErrorKind, StoreLayout, apply};

/// The column family that RocksDB always has; nothing is in it.
const DEFAULT_FAMILY: &str = "default";

/// What the name of a store's column family begins with.
const STORE_FAMILY_PREFIX: &str = "store.";

/// Why a database is not used as it is.
enum Unusable {
    /// Its bytes are damaged, or they speak of another cluster: wipe it and open again.
    Wipe(String),
    /// Wiping does not help, or is not for us to decide.
    Refused(StateError),
}

impl From<StateError> for Unusable {
    fn from(error: StateError) -> Self {
        Self::Refused(error)
    }
}

/// Opens, and where needed makes or wipes, the database of a claimed task in `path`.
pub(super) fn open_task(
    path: &Path,
    claim: Claim,
    layout: &Layout,
    memory: &Arc<Memory>,
    settings: &StateSettings,
) -> Result<RocksTask, StateError> {
    let task = claim.task().clone();
    let opened = match try_open(path, &task, layout, memory, settings) {
        Err(Unusable::Wipe(reason)) => {
            tracing::warn!(
                task = %task, directory = %path.display(), reason,
                "the local state of this task is wiped; it is restored in full from its changelogs"
            );
            files::remove_database(path)?;
            try_open(path, &task, layout, memory, settings)
        }
        opened => opened,
    };
    let (db, stored) = opened.map_err(|unusable| match unusable {
        Unusable::Refused(error) => error,
        Unusable::Wipe(reason) => StateError {
            kind: StateErrorKind::Corrupt,
            message: format!(
                "task {task}: the database just made in {} is damaged ({reason}); check the disk",
                path.display()
            ),
        },
    })?;
    let place = |store: &StoreLayout| {
        if store.in_memory { Place::Memory(InMemory::default()) } else { Place::Family(family_name(&store.name)) }
    };
    let places = layout.stores.iter().map(place).collect();
    let database = Database::new(db, path.to_owned(), places, layout, memory, claim);
    trust(&database, &stored)
}

/// The name of a store's column family.
pub(super) fn family_name(store: &str) -> String {
    format!("{STORE_FAMILY_PREFIX}{store}")
}

/// The store of a column family, if it is one of a store.
pub(super) fn store_of_family(family: &str) -> Option<&str> {
    family.strip_prefix(STORE_FAMILY_PREFIX)
}

/// Whether an error of RocksDB means that bytes on disk are not what was written there. A file that is missing is
/// damage too; a disk that is full, slow or forbidden is not.
pub(super) fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::NotSupported => true,
        ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
        ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => false,
    }
}

/// The column families of the database in `path`.
pub(super) fn list_families(path: &Path) -> Result<Vec<String>, rocksdb::Error> {
    Db::list_cf(&rocksdb::Options::default(), path)
}

fn try_open(
    path: &Path,
    task: &TaskId,
    layout: &Layout,
    memory: &Arc<Memory>,
    settings: &StateSettings,
) -> Result<(Db, StoredPositions), Unusable> {
    let unusable = |error: rocksdb::Error| unusable(path, task, &error);
    files::make_private_directory(path)?;
    let existing = match files::look_for_database(path)? {
        Found::Database => list_families(path).map_err(unusable)?,
        Found::Nothing => Vec::new(),
        Found::Remains => return Err(Unusable::Wipe("files of a database, but no file CURRENT".to_owned())),
    };
    check_fits(path, task, &existing, layout)?;
    let of_stores = layout.stores.iter().map(|store| (family_name(&store.name), store.in_memory));
    let of_stores = of_stores.filter(|(name, in_memory)| !in_memory || existing.contains(name)).map(|(name, _)| name);
    let families = of_stores.chain([positions::FAMILY.to_owned(), DEFAULT_FAMILY.to_owned()]).map(|name| {
        let options = options::family(memory, &name);
        ColumnFamilyDescriptor::new(name, options)
    });
    let db = Db::open_cf_descriptors(&options::database(memory, settings), path, families).map_err(unusable)?;
    let stored = read_positions(&db)?;
    if let Some(record) = &stored.task
        && record.cluster_id != layout.cluster_id
    {
        let (was, is) = (&record.cluster_id, &layout.cluster_id);
        return Err(Unusable::Wipe(format!("it was restored from cluster `{was}`, and this is cluster `{is}`")));
    }
    Ok((db, stored))
}

fn unusable(path: &Path, task: &TaskId, error: &rocksdb::Error) -> Unusable {
    if is_damage(error) {
        return Unusable::Wipe(error.to_string());
    }
    let message = format!(
        "the state of task {task} in {} cannot be opened ({error}); check the disk, its rights and the limit on open files",
        path.display()
    );
    Unusable::Refused(StateError { kind: StateErrorKind::Disk, message })
}

/// Refuses a database with a store that the layout does not know: it may hold what nobody meant to give up.
fn check_fits(path: &Path, task: &TaskId, existing: &[String], layout: &Layout) -> Result<(), StateError> {
    let known = |family: &str| layout.stores.iter().any(|store| family_name(&store.name) == family);
    let own = |family: &str| family == DEFAULT_FAMILY || family == positions::FAMILY;
    let gone: Vec<_> =
        existing.iter().filter(|family| !known(family) && !own(family)).map(|family| quoted(family)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let on_disk = layout.stores.iter().filter(|store| !store.in_memory);
    let new: Vec<_> = on_disk.map(|store| family_name(&store.name)).collect();
    let new: Vec<_> = new.iter().filter(|family| !existing.contains(family)).map(|family| quoted(family)).collect();
    let renamed = if new.is_empty() {
        String::new()
    } else {
        format!(", and {} in the topology but not on disk (a store that was renamed?)", new.join(", "))
    };
    Err(StateError {
        kind: StateErrorKind::Foreign,
        message: format!(
            "the topology no longer fits the state of task {task} in {}: {} on disk but not in the topology{renamed}; bring the \
             store back under its old name, or remove that directory to give its state up",
            path.display(),
            gone.join(", ")
        ),
    })
}

fn quoted(family: &str) -> String {
    format!("`{}`", store_of_family(family).unwrap_or(family))
}

/// The positions family as it was read.
#[derive(Debug, Default)]
pub(super) struct StoredPositions {
    /// The task's record.
    pub(super) task: Option<TaskRecord>,
    /// The stores' records, by name.
    pub(super) stores: Vec<(String, StoreRecord)>,
}

fn read_positions(db: &Db) -> Result<StoredPositions, Unusable> {
    let mut stored = StoredPositions::default();
    let Some(family) = db.cf_handle(positions::FAMILY) else { return Ok(stored) };
    for entry in db.iterator_cf(&family, IteratorMode::Start) {
        let (key, value) = entry.map_err(|error| Unusable::Wipe(format!("its positions cannot be read: {error}")))?;
        stored
            .add(&key, &value)
            .map_err(|reason| Unusable::Wipe(format!("position {}: {reason}", key.escape_ascii())))?;
    }
    if stored.task.is_none() && !stored.stores.is_empty() {
        return Err(Unusable::Wipe("it has positions of stores and none of the task".to_owned()));
    }
    Ok(stored)
}

impl StoredPositions {
    /// Adds an entry of the positions family.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), positions::PositionsError> {
        match positions::subject(key)? {
            Subject::Task => self.task = Some(TaskRecord::decode(value)?),
            Subject::Store(name) => self.stores.push((name.to_owned(), StoreRecord::decode(value)?)),
        }
        Ok(())
    }

    fn store(&self, name: &str) -> Option<&StoreRecord> {
        self.stores.iter().find(|(stored, _)| stored == name).map(|(_, record)| record)
    }

    fn positions(&self, layout: &Layout) -> Positions {
        let empty = Positions::empty(layout.stores.len());
        let offset = |store: &StoreLayout| {
            let continued = !store.in_memory && store.changelog_topic_id.is_some();
            self.store(&store.name).filter(|_| continued).map(|record| record.offset)
        };
        Positions {
            changelogs: layout.stores.iter().map(offset).collect(),
            stream_time: self.task.as_ref().map_or(empty.stream_time, |task| task.stream_time),
            batch: self.task.as_ref().map_or(empty.batch, |task| task.batch),
            written_at: self.task.as_ref().map_or(empty.written_at, |task| task.written_at),
        }
    }
}

/// Wipes the stores whose values are not of the changelog that the layout names, or whose values and position are not
/// both there: a wipe, or the making of a store, was cut short.
fn trust(database: &Arc<Database>, stored: &StoredPositions) -> Result<RocksTask, StateError> {
    let layout = database.layout();
    let mut task = RocksTask::new(Arc::clone(database), stored.positions(layout));
    for (slot, store) in layout.stores.iter().enumerate() {
        let index = StoreIndex::new(u16::try_from(slot).expect("a task has fewer than 65,536 stores"));
        let record = stored.store(&store.name);
        if store.in_memory {
            remove_leftovers(database, store)?;
            continue;
        }
        let Some(topic_id) = &store.changelog_topic_id else {
            if record.is_some() {
                apply::forget(database, store)?;
            }
            continue;
        };
        let reason = match record {
            Some(record) if record.topic_id != *topic_id => Some("its changelog topic was deleted and made again"),
            None if holds_anything(database, index)? => Some("it holds values and has no position"),
            Some(_) | None => None,
        };
        if let Some(reason) = reason {
            tracing::warn!(
                task = %database.task(), store = %store.name, reason,
                "the local state of this store is wiped; it is restored in full from its changelog"
            );
            apply::wipe(&mut task, index)?;
        }
    }
    Ok(task)
}

/// Removes the disk's copy of a store that is kept in memory now; it is restored from the changelog, if it has one.
fn remove_leftovers(database: &Database, store: &StoreLayout) -> Result<(), StateError> {
    if database.db().cf_handle(&family_name(&store.name)).is_some() {
        tracing::info!(task = %database.task(), store = %store.name, "kept in memory now: its copy on disk is removed");
        apply::remove_from_disk(database, store)?;
    }
    Ok(())
}

fn holds_anything(database: &Database, store: StoreIndex) -> Result<bool, StateError> {
    let mut any = false;
    let found = database.range(store, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false, &mut |_, _| {
        any = true;
        std::ops::ControlFlow::Break(())
    });
    match found {
        Ok(()) => Ok(any),
        // It cannot be trusted either way, and a wipe does not read it.
        Err(error) if error.corrupt => Ok(true),
        Err(error) => Err(StateError { kind: StateErrorKind::Disk, message: error.message }),
    }
}
