//! Tests of the state directory on real RocksDB files, and what they share: a numbered history of batches and the
//! model of what a task holds after each of them.

mod behind;
mod crash;
mod damage;
mod directory;
mod places;
mod reads;
mod topology;
mod view;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use processor_core::ids::{BatchId, ChangelogOffset, Partition, StoreIndex, TaskId, Timestamp};
use processor_core::task::ChangeSet;
use tempfile::TempDir;

use super::*;
use crate::kafka::Isolation;

const APPLICATION: &str = "shop";

/// The entries of a store.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn task_id() -> TaskId {
    TaskId::new("orders", Partition::new(3))
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

/// Every batch is on disk when its apply returns, so that tests can look there.
fn settings() -> StateSettings {
    StateSettings { memory_budget_bytes: 8 << 20, write_behind: Duration::ZERO, ..StateSettings::default() }
}

fn directory(root: &Path) -> RocksDirectory {
    RocksDirectory::open(root, APPLICATION, settings()).expect("the directory is free")
}

fn layout(stores: &[&str]) -> Layout {
    let store = |name: &&str| StoreLayout {
        name: Arc::from(*name),
        in_memory: false,
        changelog_topic_id: Some(format!("topic-of-{name}")),
    };
    Layout { stores: stores.iter().map(store).collect(), cluster_id: "cluster".to_owned() }
}

fn open(directory: &RocksDirectory, layout: &Layout) -> RocksTask {
    directory.open(&task_id(), layout).expect("the state opens").expect("nobody holds it")
}

fn task_path(root: &Path) -> std::path::PathBuf {
    root.join(APPLICATION).join(task_id().to_string())
}

/// Applies changes as restore does.
fn apply(task: &mut RocksTask, changes: &ChangeSet, positions: &Positions) -> Result<(), StateError> {
    task.apply(Permit::restored(&RestoredBatch::read_with(Isolation::ReadCommitted)), changes, positions)
}

/// All entries of a store.
fn entries(base: &dyn Base, store: u16) -> Result<Entries, processor_core::store::BaseError> {
    use std::ops::{Bound, ControlFlow};
    let mut entries = Entries::new();
    base.range(StoreIndex::new(store), Bound::Unbounded, Bound::Unbounded, false, &mut |key, value| {
        entries.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

/// The changes of a batch in the two stores `a` and `b`. Batch 1 is the first; `b` is left alone by every third.
fn changes_of(batch: u64) -> ChangeSet {
    let mut changes = ChangeSet::default();
    let key = |number: u64| format!("key-{}", number % 11).into_bytes();
    changes.push(StoreIndex::new(0), &key(batch), Some(batch.to_string().as_bytes()));
    changes.push(StoreIndex::new(0), &key(batch * 7 + 1), None);
    if !batch.is_multiple_of(3) {
        changes.push(StoreIndex::new(1), &key(batch * 5), Some(&[batch as u8; 100]));
    }
    changes
}

/// The positions that batch carries.
fn positions_of(batch: u64) -> Positions {
    if batch == 0 {
        return Positions::empty(2);
    }
    let offset = |records: u64| Some(ChangelogOffset::new(records as i64)).filter(|_| records > 0);
    Positions {
        changelogs: vec![offset(batch * 2), offset(batch - batch / 3)],
        stream_time: Some(Timestamp::new(batch as i64 * 10)),
        batch: BatchId::new(batch),
        written_at: Timestamp::new(batch as i64),
    }
}

/// What the stores hold after that batch.
fn model_at(batch: u64) -> [Entries; 2] {
    let mut stores = [Entries::new(), Entries::new()];
    for batch in 1..=batch {
        for change in changes_of(batch).changes() {
            let store = &mut stores[change.store.slot()];
            match change.value {
                Some(value) => store.insert(change.key.to_vec(), value.to_vec()),
                None => store.remove(change.key),
            };
        }
    }
    stores
}

fn apply_batches(task: &mut RocksTask, batches: std::ops::RangeInclusive<u64>) {
    for batch in batches {
        apply(task, &changes_of(batch), &positions_of(batch)).expect("the disk takes it");
    }
}

/// Checks that the state is the one after some batch, positions and values alike, and says which.
fn assert_is_a_prefix(task: &RocksTask) -> u64 {
    let batch = task.positions().batch.get();
    assert_eq!(*task.positions(), positions_of(batch));
    let model = model_at(batch);
    assert_eq!(entries(task, 0).expect("readable"), model[0], "store a at batch {batch}");
    assert_eq!(entries(task, 1).expect("readable"), model[1], "store b at batch {batch}");
    batch
}

/// Copies a directory as it is at one moment. RocksDB removes files that it no longer needs in the background, so a copy
/// during which a file came or went is not of one moment, and is made again.
fn copy_tree(from: &Path, to: &Path) {
    loop {
        let before = names_below(from);
        let copied = before.iter().all(|name| copy_file(&from.join(name), &to.join(name)));
        if copied && names_below(from) == before {
            return;
        }
        fs::remove_dir_all(to).expect("the copy is ours");
    }
}

/// Says whether the file was still there.
fn copy_file(from: &Path, to: &Path) -> bool {
    fs::create_dir_all(to.parent().expect("below the copy")).expect("the copy's directory");
    match fs::copy(from, to) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => panic!("copying {}: {error}", from.display()),
    }
}

/// The files below a directory, by their paths from there.
fn names_below(root: &Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let mut names = std::collections::BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the directory is there") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                names.insert(path.strip_prefix(root).expect("it is below").to_owned());
            }
        }
    }
    names
}

/// The matching files of a task's directory, by name: the oldest first.
fn files_like(path: &Path, matches: impl Fn(&str) -> bool) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(path).expect("the directory is there").map(|entry| entry.expect("listed").path());
    let name = |path: &std::path::PathBuf| path.file_name().expect("named").to_string_lossy().into_owned();
    let mut files: Vec<_> = files.filter(|path| matches(&name(path))).collect();
    files.sort();
    files
}

fn files_with(path: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    files_like(path, |name| Path::new(name).extension().is_some_and(|found| found == extension))
}

fn logs(root: &Path) -> Vec<std::path::PathBuf> {
    files_with(&task_path(root), "log")
}

/// A small generator of numbers, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
