//! Turns committed changes into the new base. Every write to RocksDB is in this file, so that EO-2 can be checked by
//! looking at it. What is committed enters with a [`Permit`](super::Permit), in [`apply`]; what is written later, by whoever
//! comes to it, is what has entered.
//!
//! Applying: 1. check that positions, stream time and batch move forward (EO-3, EO-8); 2. add the values and the positions, as one step,
//! to what waits to be written (`behind.rs`); 3. write what is kept in memory, which cannot fail, and remember the new positions.
//! What waits is written when it is old or large enough, by a thread of the directory, as one `WriteBatch` of values and positions,
//! into the unsynced log. If that fails, RocksDB refuses every write until the database is opened again, so it is not kept open:
//! the next apply says so, and the changelog supplies what is missing.
//!
//! Wiping: 1. forget the position, and wait until that is on disk; 2. drop the column family; 3. make it again. A crash
//! in between leaves values without a position or nothing at all, and opening completes the wipe; it never leaves a
//! position without its values. Dropping also gets rid of damaged files without reading them.
#![expect(clippy::disallowed_methods, reason = "EO-2: this is the one place that writes to RocksDB")]

use std::ops::Bound;

use processor_core::ids::StoreIndex;
use processor_core::task::ChangeSet;
use rocksdb::WriteBatch;

use super::database::{Database, Place};
use super::positions::{self, StoreRecord, TaskRecord};
use super::task::RocksTask;
use super::written::Written;
use super::{Layout, Positions, StateError, StateErrorKind, StoreLayout, open, options};

/// What an entry of a `WriteBatch` takes besides key and value: a tag, a family id and two lengths.
const ENTRY_OVERHEAD_BYTES: usize = 12;

/// Takes the changes and the positions over as one atomic change. The caller holds a permit.
pub(super) fn apply(task: &mut RocksTask, changes: &ChangeSet, next: &Positions) -> Result<(), StateError> {
    let RocksTask { database, positions } = task;
    assert_moves_forward(database.layout(), positions, next, changes);
    if let Some(failed) = database.behind().failed() {
        return Err(failed);
    }
    let (fresh_bytes, age) = database.behind().add(changes, next, |store| database.is_on_disk(store));
    keep_in_memory(database, changes);
    *positions = next.clone();
    database.memory().written(database, fresh_bytes, age)
}

/// Writes all that waits, here and now.
pub(super) fn settle(database: &Database) -> Result<(), StateError> {
    while database.behind().freeze() {
        write_frozen(database)?;
    }
    Ok(())
}

/// Writes what is frozen, as one atomic change.
pub(super) fn write_frozen(database: &Database) -> Result<(), StateError> {
    database.behind().write(|pending| {
        let entries: usize = pending.stores.iter().map(Written::len).sum();
        let mut batch = WriteBatch::with_capacity_bytes(pending.bytes() + (entries + 8) * ENTRY_OVERHEAD_BYTES);
        add_values(&mut batch, database, &pending.stores)?;
        add_positions(&mut batch, database, pending.positions.as_ref().expect("what is frozen was committed"));
        let written = database.db().write_opt(batch, &options::write());
        written.map_err(|error| write_failed(database, "write committed batches to", &error))
    })?;
    database.note_write();
    Ok(())
}

/// Empties a store and forgets its position.
pub(super) fn wipe(task: &mut RocksTask, store: StoreIndex) -> Result<(), StateError> {
    wipe_until(task, store, WIPE_STEPS)
}

const WIPE_STEPS: usize = 3;

type WipeStep = fn(&Database, &StoreLayout) -> Result<(), rocksdb::Error>;

/// The first so many steps of a wipe; tests stop between them.
pub(super) fn wipe_until(task: &mut RocksTask, store: StoreIndex, steps: usize) -> Result<(), StateError> {
    let RocksTask { database, positions } = task;
    if let Place::Memory(entries) = database.place(store) {
        entries.write().clear();
        positions.changelogs[store.slot()] = None;
        return Ok(());
    }
    settle(database)?;
    let all: [WipeStep; WIPE_STEPS] = [forget_position, drop_family, make_family];
    for step in &all[..steps] {
        let taken = step(database, &database.layout().stores[store.slot()]);
        taken.map_err(|error| write_failed(database, "wipe a store of", &error))?;
        positions.changelogs[store.slot()] = None;
    }
    Ok(())
}

/// Removes what a store that is kept in memory has left on disk when it was not: a wipe without the last step.
pub(super) fn remove_from_disk(database: &Database, store: &StoreLayout) -> Result<(), StateError> {
    let removed = forget_position(database, store).and_then(|()| drop_family(database, store));
    removed.map_err(|error| write_failed(database, "remove a store of", &error))
}

/// Forgets the position of a store, and waits until that is on disk.
pub(super) fn forget(database: &Database, store: &StoreLayout) -> Result<(), StateError> {
    forget_position(database, store).map_err(|error| write_failed(database, "forget a position of", &error))
}

fn forget_position(database: &Database, store: &StoreLayout) -> Result<(), rocksdb::Error> {
    let db = database.db();
    let family = db.cf_handle(positions::FAMILY).expect("the positions family is made with the database");
    let mut batch = WriteBatch::default();
    batch.delete_cf(&family, positions::store_key(&store.name));
    db.write_opt(batch, &options::write())?;
    db.flush_wal(true)
}

fn drop_family(database: &Database, store: &StoreLayout) -> Result<(), rocksdb::Error> {
    let (db, family) = (database.db(), open::family_name(&store.name));
    if db.cf_handle(&family).is_some() { db.drop_cf(&family) } else { Ok(()) }
}

fn make_family(database: &Database, store: &StoreLayout) -> Result<(), rocksdb::Error> {
    let family = open::family_name(&store.name);
    database.db().create_cf(&family, &options::family(database.memory(), &family))
}

/// EO-3 and EO-8, before the write.
fn assert_moves_forward(layout: &Layout, stored: &Positions, next: &Positions, changes: &ChangeSet) {
    assert!(next.changelogs.len() == stored.changelogs.len(), "EO-3: there is a position for every store");
    for (slot, (stored, next)) in stored.changelogs.iter().zip(&next.changelogs).enumerate() {
        assert!(next >= stored, "EO-3: the position of store {slot} never goes back ({stored:?} to {next:?})");
    }
    let has_changelog = |slot: usize| layout.stores[slot].changelog_topic_id.is_some();
    for (slot, next) in next.changelogs.iter().enumerate() {
        assert!(has_changelog(slot) || next.is_none(), "EO-3: store {slot} has no changelog, and so no position");
    }
    for change in changes.changes() {
        let slot = change.store.slot();
        assert!(
            next.changelogs[slot] > stored.changelogs[slot] || !has_changelog(slot),
            "EO-3: the position of store {slot} advances with its values, from {:?}",
            stored.changelogs[slot]
        );
    }
    assert!(next.stream_time >= stored.stream_time, "EO-8: stream time never goes back");
    assert!(next.batch >= stored.batch, "EO-8: batches are applied in order");
}

/// In the order of their keys, which RocksDB takes faster than any other.
fn add_values(batch: &mut WriteBatch, database: &Database, stores: &[Written]) -> Result<(), StateError> {
    for (written, slot) in stores.iter().zip(0..).filter(|(written, _)| !written.is_empty()) {
        let Place::Family(name) = database.place(StoreIndex::new(slot)) else { continue };
        let family = database.db().cf_handle(name).ok_or_else(|| missing(database, name))?;
        for (key, value) in written.range((Bound::Unbounded, Bound::Unbounded)) {
            match value {
                Some(value) => batch.put_cf(&family, key, value),
                None => batch.delete_cf(&family, key),
            }
        }
    }
    Ok(())
}

/// The changes of the stores that are kept in memory, each store's as one for whoever reads it.
fn keep_in_memory(database: &Database, changes: &ChangeSet) {
    let mut writing = None;
    for change in changes.changes() {
        let Place::Memory(entries) = database.place(change.store) else { continue };
        let mut guard = match writing.take() {
            Some((store, guard)) if store == change.store => guard,
            _ => entries.write(),
        };
        match change.value {
            Some(value) => drop(guard.insert(change.key.to_vec(), value.to_vec())),
            None => drop(guard.remove(change.key)),
        }
        writing = Some((change.store, guard));
    }
}

fn add_positions(batch: &mut WriteBatch, database: &Database, next: &Positions) {
    let (family, layout) = (database.db().cf_handle(positions::FAMILY), database.layout());
    let family = family.expect("the positions family is made with the database");
    for (store, next) in layout.stores.iter().zip(&next.changelogs) {
        if let (Some(offset), Some(topic_id), false) = (next, &store.changelog_topic_id, store.in_memory) {
            let record = StoreRecord::encode(*offset, topic_id);
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
fn missing(database: &Database, family: &str) -> StateError {
    database.note_failed_write();
    let task = database.task();
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
