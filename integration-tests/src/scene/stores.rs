//! What workers keep on disk: copies of stores, each of which must be a past of its changelog.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use processor_core::ids::{Partition, TaskId};
use processor_runtime::state::{application_directory, read_task_offline};

use super::Scene;
use crate::client::Isolation;
use crate::oracle::{self, LedgerState, PartitionLog, State};
use crate::worker::Worker;

/// A task's store as it lies in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCopy {
    /// The directory of the worker.
    pub directory: PathBuf,
    /// The store's name.
    pub store: &'static str,
    /// The task's partition.
    pub partition: i32,
    /// The last batch that was applied; 0 if none was.
    pub batch: u64,
    /// How far the changelog is contained; `None` in a store that is empty.
    pub position: Option<i64>,
    /// Its entries.
    pub entries: State,
}

impl Scene {
    /// The directory of the application in a worker's state directory.
    pub fn application_dir(&self, worker: &str) -> PathBuf {
        application_directory(&self.state_dir(worker), &self.name)
    }

    /// The directory of a task in a worker's state directory.
    pub fn task_dir(&self, worker: &str, partition: i32) -> PathBuf {
        self.application_dir(worker).join(self.task(partition).to_string())
    }

    /// A task.
    pub fn task(&self, partition: i32) -> TaskId {
        TaskId::new(self.subject.tasks, Partition::new(partition))
    }

    /// The first store, in each task that a worker has on disk, while it does not run.
    pub fn stores_of(&self, worker: &str) -> Vec<StoreCopy> {
        self.copies_of(worker, self.subject.stores[0])
    }

    /// A store, in each task that a worker has on disk, while it does not run.
    pub fn copies_of(&self, worker: &str, store: &'static str) -> Vec<StoreCopy> {
        self.stores_in(&self.application_dir(worker), store)
    }

    fn stores_in(&self, directory: &Path, store: &'static str) -> Vec<StoreCopy> {
        if !directory.exists() {
            return Vec::new();
        }
        let copy = |partition| {
            let dump = read_task_offline(directory, &self.task(partition)).expect("the state can be read")?;
            let found = dump.stores.get(store).cloned().unwrap_or_default();
            Some(StoreCopy {
                directory: directory.to_owned(),
                store,
                partition,
                batch: dump.task.map_or(0, |task| task.batch.get()),
                position: found.position.map(|position| position.offset.get()),
                entries: found.entries,
            })
        };
        (0..self.partitions).filter_map(copy).collect()
    }

    /// The stores of a worker that is frozen: what `kill -9` would leave of them in this moment.
    pub fn stores_of_frozen(&self, worker: &str, frozen: &Worker) -> Vec<StoreCopy> {
        assert!(frozen.is_frozen(), "a directory that is being written cannot be copied");
        let directory = self.application_dir(worker);
        let copy = self.dir.join(format!("{worker}-frozen"));
        if copy.exists() {
            fs::remove_dir_all(&copy).expect("an older copy can be removed");
        }
        copy_directory(&directory, &copy);
        self.stores_in(&copy, self.subject.stores[0])
    }

    /// How far each task's local state contains its changelog, in a worker that does not run.
    pub fn positions(&self, worker: &str) -> BTreeMap<i32, i64> {
        self.stores_of(worker).into_iter().map(|copy| (copy.partition, copy.position.unwrap_or(0))).collect()
    }

    /// The state that the newest copy of every task's store holds, over all workers' directories.
    pub fn stores(&self, workers: &[&str]) -> LedgerState {
        let newest = newest(workers.iter().flat_map(|worker| self.stores_of(worker)));
        oracle::decode_store(&newest).expect("a store of accounts")
    }

    /// EO-3, EO-4: requires of every copy that its position lies within the changelog, and that it holds what is
    /// committed below that position and nothing else. A store that contains an uncommitted batch leads its changelog,
    /// whether its position says so or not.
    ///
    /// # Panics
    /// If one does not.
    pub fn assert_pasts(&self, copies: &[StoreCopy], changelog: &[PartitionLog]) {
        let Some(store) = copies.first().map(|copy| copy.store) else { return };
        let ends = self.kafka.watermarks(&self.changelog_of(store), Isolation::ReadUncommitted);
        let ends = ends.expect("the broker answers");
        for copy in copies {
            let place =
                || format!("EO-4: {} of partition {} in {}", copy.store, copy.partition, copy.directory.display());
            assert_eq!(copy.store, store, "{}: another store has another changelog", place());
            let position = copy.position.unwrap_or(0);
            let end = ends[&copy.partition].end;
            assert!(position <= end, "{}: position {position} lies beyond the changelog's end {end}", place());
            let below: Vec<PartitionLog> =
                changelog.iter().filter(|log| log.partition == copy.partition).map(|log| log.below(position)).collect();
            let past = oracle::fold(&below).expect("a changelog");
            let verdict = oracle::check_state(&past, &copy.entries);
            assert!(verdict.is_ok(), "{}, at position {position} of {end}: {verdict}", place());
        }
    }
}

/// The entries of the newest copies.
pub(super) fn newest(copies: impl IntoIterator<Item = StoreCopy>) -> State {
    let mut newest: BTreeMap<i32, StoreCopy> = BTreeMap::new();
    for copy in copies {
        if newest.get(&copy.partition).is_none_or(|known| copy.batch > known.batch) {
            newest.insert(copy.partition, copy);
        }
    }
    newest.into_values().flat_map(|copy| copy.entries).collect()
}

/// Copies a directory with all that is in it.
pub fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the target directory can be written");
    for entry in fs::read_dir(from).expect("the directory is there") {
        let entry = entry.expect("a listed directory can be read on");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}
