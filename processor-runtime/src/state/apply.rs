//! Turns committed changes into the new base. Every write to RocksDB is in this file, so that EO-2 can be checked by
//! looking at it; nothing here is called without a [`Permit`](super::Permit), but for wiping.
//!
//! Applying: 1. check that positions, stream time and batch move forward (EO-3, EO-8); 2. build one `WriteBatch` of the
//! values and the positions; 3. write it, into the unsynced log; 4. remember the new positions. If 3 fails, nothing has
//! changed; but RocksDB then refuses every write until the database is opened again, so it is not kept open.
//!
//! Wiping: 1. forget the position, and wait until that is on disk; 2. drop the column family; 3. make it again. A crash
//! in between leaves values without a position or nothing at all, and opening completes the wipe; it never leaves a
//! position without its values. Dropping also gets rid of damaged files without reading them.
#![expect(clippy::disallowed_methods, reason = "EO-2: this is the one place that writes to RocksDB")]

use processor_core::ids::StoreIndex;
use processor_core::task::ChangeSet;
use rocksdb::WriteBatch;

use super::database::Database;
use super::positions::{self, StoreRecord, TaskRecord};
use super::task::RocksTask;
use super::{Layout, Positions, StateError, StateErrorKind, open, options};

/// What an entry of a `WriteBatch` takes besides key and value: a tag, a family id and two lengths.
const ENTRY_OVERHEAD_BYTES: usize = 12;

/// Writes the changes and the positions as one atomic change. The caller holds a permit.
pub(super) fn apply(task: &mut RocksTask, changes: &ChangeSet, next: &Positions) -> Result<(), StateError> {
    assert_moves_forward(&task.positions, next, changes);
    let mut batch = WriteBatch::with_capacity_bytes(changes.bytes_len() + (changes.len() + 8) * ENTRY_OVERHEAD_BYTES);
    add_values(&mut batch, &task.database, changes)?;
    add_positions(&mut batch, &task.database, &task.layout, &task.positions, next);
    let written = task.database.db().write_opt(batch, &options::write());
    written.map_err(|error| write_failed(&task.database, "apply a committed batch to", &error))?;
    task.positions = next.clone();
    task.database.note_write();
    Ok(())
}

/// Empties a store and forgets its position.
pub(super) fn wipe(task: &mut RocksTask, store: StoreIndex) -> Result<(), StateError> {
    wipe_until(task, store, WIPE_STEPS)
}

const WIPE_STEPS: usize = 3;

type WipeStep = fn(&RocksTask, StoreIndex) -> Result<(), rocksdb::Error>;

/// The first so many steps of a wipe; tests stop between them.
pub(super) fn wipe_until(task: &mut RocksTask, store: StoreIndex, steps: usize) -> Result<(), StateError> {
    let all: [WipeStep; WIPE_STEPS] = [forget_position, drop_family, make_family];
    for step in &all[..steps] {
        step(task, store).map_err(|error| write_failed(&task.database, "wipe a store of", &error))?;
        task.positions.changelogs[store.slot()] = None;
    }
    Ok(())
}

fn forget_position(task: &RocksTask, store: StoreIndex) -> Result<(), rocksdb::Error> {
    let db = task.database.db();
    let family = db.cf_handle(positions::FAMILY).expect("the positions family is made with the database");
    let mut batch = WriteBatch::default();
    batch.delete_cf(&family, positions::store_key(&task.layout.stores[store.slot()].name));
    db.write_opt(batch, &options::write())?;
    db.flush_wal(true)
}

fn drop_family(task: &RocksTask, store: StoreIndex) -> Result<(), rocksdb::Error> {
    let (db, name) = (task.database.db(), task.database.family_name(store));
    if db.cf_handle(name).is_some() { db.drop_cf(name) } else { Ok(()) }
}

fn make_family(task: &RocksTask, store: StoreIndex) -> Result<(), rocksdb::Error> {
    let (db, name) = (task.database.db(), task.database.family_name(store));
    db.create_cf(name, &options::family(task.database.memory(), name))
}

/// EO-3 and EO-8, before the write.
fn assert_moves_forward(stored: &Positions, next: &Positions, changes: &ChangeSet) {
    assert!(next.changelogs.len() == stored.changelogs.len(), "EO-3: there is a position for every store");
    for (slot, (stored, next)) in stored.changelogs.iter().zip(&next.changelogs).enumerate() {
        assert!(next >= stored, "EO-3: the position of store {slot} never goes back ({stored:?} to {next:?})");
    }
    for change in changes.changes() {
        let slot = change.store.slot();
        assert!(
            next.changelogs[slot] > stored.changelogs[slot],
            "EO-3: the position of store {slot} advances with its values, from {:?}",
            stored.changelogs[slot]
        );
    }
    assert!(next.stream_time >= stored.stream_time, "EO-8: stream time never goes back");
    assert!(next.batch >= stored.batch, "EO-8: batches are applied in order");
}

fn add_values(batch: &mut WriteBatch, database: &Database, changes: &ChangeSet) -> Result<(), StateError> {
    let mut family = None;
    for change in changes.changes() {
        // Changes of one store mostly follow each other.
        let handle = match family.take() {
            Some((store, handle)) if store == change.store => handle,
            _ => database.family(change.store).ok_or_else(|| missing(database, change.store))?,
        };
        match change.value {
            Some(value) => batch.put_cf(&handle, change.key, value),
            None => batch.delete_cf(&handle, change.key),
        }
        family = Some((change.store, handle));
    }
    Ok(())
}

fn add_positions(batch: &mut WriteBatch, database: &Database, layout: &Layout, stored: &Positions, next: &Positions) {
    let family = database.db().cf_handle(positions::FAMILY).expect("the positions family is made with the database");
    for ((store, stored), next) in layout.stores.iter().zip(&stored.changelogs).zip(&next.changelogs) {
        if let Some(offset) = next
            && Some(offset) != stored.as_ref()
        {
            let record = StoreRecord::encode(*offset, &store.changelog_topic_id);
            batch.put_cf(&family, positions::store_key(&store.name), record);
        }
    }
    let record = TaskRecord {
        stream_time: next.stream_time,
        batch: next.batch,
        written_at: next.written_at,
        cluster_id: layout.cluster_id.clone(),
    };
    batch.put_cf(&family, positions::TASK_KEY, record.encode());
}

/// A wipe failed in the middle; it can be tried again, and opening the task completes it.
fn missing(database: &Database, store: StoreIndex) -> StateError {
    database.note_failed_write();
    let (family, task) = (database.family_name(store), database.task());
    StateError {
        kind: StateErrorKind::Disk,
        message: format!("`{family}` of task {task} is missing because a wipe failed; wipe the store again"),
    }
}

fn write_failed(database: &Database, what: &str, error: &rocksdb::Error) -> StateError {
    database.note_failed_write();
    let (task, path) = (database.task(), database.path().display());
    let (kind, next) = if open::is_damage(error) {
        (StateErrorKind::Corrupt, "discard the task's state and restore it from its changelogs")
    } else {
        (
            StateErrorKind::Disk,
            "free space or repair the disk; the task opens its state anew and restores what is missing",
        )
    };
    StateError { kind, message: format!("cannot {what} the state of task {task} in {path} ({error}); {next}") }
}

/// Puts bytes into the positions family that nothing else would write.
#[cfg(test)]
pub(super) fn put_position_bytes(task: &RocksTask, key: &[u8], value: &[u8]) {
    let db = task.database.db();
    let family = db.cf_handle(positions::FAMILY).expect("the positions family is made with the database");
    db.put_cf(&family, key, value).expect("the disk takes it");
}
