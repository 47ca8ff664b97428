//! A worker's disk in memory: task states that outlive a crash, but for the newest batches where the test says so.
//!
//! It keeps the contract of the runtime's state seam, checks its laws again (EO-2, EO-3, EO-8; not the same code
//! twice), and undoes batches in reverse order to show what a power loss leaves: an older prefix.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processor_core::ids::{StoreIndex, TaskId};
use processor_core::store::{Base, BaseError};
use processor_core::task::ChangeSet;
use processor_runtime::state::{
    Layout, Permit, Positions, StateDirectory, StateError, StateErrorKind, StoreLayout, TaskState,
};

/// How many batches a crash can take away at most.
const UNDO_MAX: usize = 64;

/// The state directory of one worker. Clones are the same directory.
#[derive(Clone, Debug, Default)]
pub struct FakeDirectory {
    disk: Arc<Mutex<Disk>>,
}

/// The entries of a store.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct Disk {
    /// How often the worker has crashed.
    life: u64,
    tasks: BTreeMap<TaskId, Stored>,
    open: BTreeSet<TaskId>,
    applies_that_fail: u32,
    /// Open states that take no `apply` any more.
    refusing: BTreeSet<TaskId>,
}

#[derive(Debug)]
struct Stored {
    layout: Layout,
    stores: Vec<Entries>,
    positions: Positions,
    /// How to undo the applied batches, the newest last.
    undo: VecDeque<Undo>,
    /// Stores whose bytes are damaged.
    damaged: BTreeSet<usize>,
    /// A file is torn, so that the state does not open any more.
    torn: bool,
}

#[derive(Debug)]
struct Undo {
    positions: Positions,
    /// What the touched keys held before, in the order they were touched.
    entries: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

impl FakeDirectory {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The worker dies. Every task loses its newest applied batches, as after a power loss; 0 is a `kill -9`. States
    /// that were open are of no use any more.
    pub fn crash(&self, batches_lost: usize) {
        let mut disk = self.disk();
        disk.life += 1;
        disk.open.clear();
        disk.refusing.clear();
        disk.applies_that_fail = 0;
        for stored in disk.tasks.values_mut() {
            stored.undo(batches_lost);
        }
    }

    /// The disk is replaced by an empty one, while the worker is down.
    pub fn lose_all(&self) {
        self.crash(0);
        self.disk().tasks.clear();
    }

    /// The next so many `apply`s fail and write nothing, and the one after them succeeds.
    pub fn fail_applies(&self, count: u32) {
        self.disk().applies_that_fail = count;
    }

    /// As RocksDB behaves after its log could not be written: no open state takes an `apply` any more, until it is closed
    /// and opened again.
    pub fn refuse_writes_until_reopened(&self) {
        let mut disk = self.disk();
        let Disk { open, refusing, .. } = &mut *disk;
        refusing.clone_from(open);
    }

    /// Whether an open state takes no `apply` any more.
    pub fn refuses(&self) -> bool {
        !self.disk().refusing.is_empty()
    }

    /// Damages a store: reading it says so until it is wiped.
    ///
    /// # Panics
    /// If the disk has no such task.
    pub fn damage(&self, task: &TaskId, store: StoreIndex) {
        self.disk().tasks.get_mut(task).expect("the task is on disk").damaged.insert(store.slot());
    }

    /// Tears a file that is read when a task's state is opened: whoever opens it the next time finds damage, and an empty
    /// state in its place.
    ///
    /// # Panics
    /// If the disk has no such task.
    pub fn tear(&self, task: &TaskId) {
        self.disk().tasks.get_mut(task).expect("the task is on disk").torn = true;
    }

    /// What is on disk of a task: its stores by name, and its positions.
    pub fn dump(&self, task: &TaskId) -> Option<(BTreeMap<Arc<str>, Entries>, Positions)> {
        let disk = self.disk();
        let stored = disk.tasks.get(task)?;
        let names = stored.layout.stores.iter().map(|store| store.name.clone());
        Some((names.zip(stored.stores.iter().cloned()).collect(), stored.positions.clone()))
    }

    /// The tasks on disk.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.disk().tasks.keys().cloned().collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateDirectory for FakeDirectory {
    type Task = FakeTask;

    fn open(&self, task: &TaskId, layout: &Layout) -> Result<Option<FakeTask>, StateError> {
        let mut disk = self.disk();
        if disk.open.contains(task) {
            return Ok(None);
        }
        let stored = match disk.tasks.remove(task).filter(|stored| !stored.torn) {
            Some(stored) => stored.fitted_to(task, layout),
            None => Ok(Stored::empty(layout)),
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err((stored, error)) => {
                disk.tasks.insert(task.clone(), *stored);
                return Err(error);
            }
        };
        let mut stored = stored;
        stored.forget_memory();
        let positions = stored.positions.clone();
        disk.tasks.insert(task.clone(), stored);
        disk.open.insert(task.clone());
        Ok(Some(FakeTask { directory: self.clone(), life: disk.life, task: task.clone(), positions }))
    }

    fn park(&self, state: FakeTask) {
        drop(state);
    }

    fn discard(&self, state: FakeTask) -> Result<(), StateError> {
        let task = state.task.clone();
        drop(state);
        self.disk().tasks.remove(&task);
        Ok(())
    }
}

impl Stored {
    fn empty(layout: &Layout) -> Self {
        Self {
            stores: vec![Entries::new(); layout.stores.len()],
            positions: Positions::empty(layout.stores.len()),
            layout: layout.clone(),
            undo: VecDeque::new(),
            damaged: BTreeSet::new(),
            torn: false,
        }
    }

    /// The same state in another layout: stores keep their names, what is of another origin is forgotten.
    fn fitted_to(self, task: &TaskId, layout: &Layout) -> Result<Self, (Box<Self>, StateError)> {
        if self.layout == *layout {
            return Ok(self);
        }
        if self.layout.cluster_id != layout.cluster_id {
            return Ok(Self::empty(layout));
        }
        let gone = self.layout.stores.iter().find(|old| layout.stores.iter().all(|new| new.name != old.name));
        if let Some(gone) = gone {
            let message = format!("the topology has no store `{}`, and the state of task {task} has", gone.name);
            return Err((Box::new(self), StateError { kind: StateErrorKind::Foreign, message }));
        }
        let mut fitted = Self::empty(layout);
        for (slot, store) in layout.stores.iter().enumerate() {
            if let Some(old) = self.layout.stores.iter().position(|old| old == store) {
                fitted.stores[slot].clone_from(&self.stores[old]);
                fitted.positions.changelogs[slot] = self.positions.changelogs[old];
            }
        }
        fitted.positions = Positions { changelogs: fitted.positions.changelogs, ..self.positions };
        Ok(fitted)
    }

    /// What is kept in memory does not outlive the process, nor the task's being closed.
    fn forget_memory(&mut self) {
        let in_memory = self.layout.stores.iter().enumerate().filter(|(_, store)| store.in_memory);
        for slot in in_memory.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.wipe(slot);
        }
    }

    fn undo(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some(undo) = self.undo.pop_back() else { return };
            self.positions = undo.positions;
            for (slot, key, before) in undo.entries.into_iter().rev() {
                match before {
                    Some(value) => self.stores[slot].insert(key, value),
                    None => self.stores[slot].remove(&key),
                };
            }
        }
    }

    fn apply(&mut self, changes: &ChangeSet, next: &Positions) {
        let mut undo = Undo { positions: self.positions.clone(), entries: Vec::new() };
        for change in changes.changes() {
            let (slot, key) = (change.store.slot(), change.key.to_vec());
            let has_changelog = self.layout.stores[slot].changelog_topic_id.is_some();
            assert!(
                next.changelogs[slot] > self.positions.changelogs[slot] || !has_changelog,
                "EO-3: store {slot} changes and its position stays at {:?}",
                self.positions.changelogs[slot]
            );
            let before = match change.value {
                Some(value) => self.stores[slot].insert(key.clone(), value.to_vec()),
                None => self.stores[slot].remove(&key),
            };
            undo.entries.push((slot, key, before));
        }
        self.positions = next.clone();
        self.undo.push_back(undo);
        if self.undo.len() > UNDO_MAX {
            self.undo.pop_front();
        }
    }

    /// For good: no crash brings it back.
    fn wipe(&mut self, slot: usize) {
        self.stores[slot].clear();
        self.damaged.remove(&slot);
        self.positions.changelogs[slot] = None;
        for undo in &mut self.undo {
            undo.positions.changelogs[slot] = None;
            undo.entries.retain(|(of, _, _)| *of != slot);
        }
    }
}

/// The open state of a task.
#[derive(Debug)]
pub struct FakeTask {
    directory: FakeDirectory,
    life: u64,
    task: TaskId,
    positions: Positions,
}

impl FakeTask {
    fn with<T>(&self, look: impl FnOnce(&mut Stored) -> T) -> T {
        let mut disk = self.directory.disk();
        assert!(disk.life == self.life, "the state of {} is used after its worker crashed", self.task);
        look(disk.tasks.get_mut(&self.task).expect("an open task is on disk"))
    }

    fn read<T>(&self, store: StoreIndex, look: impl FnOnce(&Entries) -> T) -> Result<T, BaseError> {
        self.with(|stored| {
            let name = &stored.layout.stores[store.slot()].name;
            if stored.damaged.contains(&store.slot()) {
                let message = format!("store `{name}` of task {} is damaged; wipe it", self.task);
                return Err(BaseError { corrupt: true, message });
            }
            Ok(look(&stored.stores[store.slot()]))
        })
    }

    /// What [`TaskState::apply`] does, without the proof: for tests of the fake itself.
    pub(super) fn apply_unproved(&mut self, changes: &ChangeSet, next: &Positions) -> Result<(), StateError> {
        let now = &self.positions;
        assert!(next.changelogs.len() == now.changelogs.len(), "EO-3: one position for each store");
        assert!(
            next.changelogs.iter().zip(&now.changelogs).all(|(next, now)| next >= now),
            "EO-3: {next:?} after {now:?}"
        );
        self.with(|stored| {
            let stores = stored.layout.stores.iter().zip(&next.changelogs);
            let right = |(store, position): (&StoreLayout, &Option<_>)| {
                store.changelog_topic_id.is_some() || position.is_none()
            };
            assert!(stores.into_iter().all(right), "EO-3: no position without a changelog");
        });
        assert!(
            next.stream_time >= now.stream_time,
            "EO-8: stream time {:?} after {:?}",
            next.stream_time,
            now.stream_time
        );
        assert!(next.batch >= now.batch, "EO-8: batch {} after {}", next.batch, now.batch);
        {
            let mut disk = self.directory.disk();
            let left = disk.applies_that_fail.checked_sub(1);
            if left.is_some() || disk.refusing.contains(&self.task) {
                disk.applies_that_fail = left.unwrap_or(0);
                return Err(self.refused());
            }
        }
        self.with(|stored| stored.apply(changes, next));
        self.positions = next.clone();
        Ok(())
    }

    fn refused(&self) -> StateError {
        let message = format!("the disk refused a batch of task {}, as the test asked for", self.task);
        StateError { kind: StateErrorKind::Disk, message }
    }
}

impl Drop for FakeTask {
    fn drop(&mut self) {
        let mut disk = self.directory.disk();
        if disk.life == self.life {
            disk.open.remove(&self.task);
            disk.refusing.remove(&self.task);
        }
    }
}

impl TaskState for FakeTask {
    fn task(&self) -> &TaskId {
        &self.task
    }

    fn positions(&self) -> &Positions {
        &self.positions
    }

    fn apply(&mut self, _permit: Permit<'_>, changes: &ChangeSet, positions: &Positions) -> Result<(), StateError> {
        self.apply_unproved(changes, positions)
    }

    fn failed(&self) -> Option<StateError> {
        self.directory.disk().refusing.contains(&self.task).then(|| self.refused())
    }

    fn wipe(&mut self, store: StoreIndex) -> Result<(), StateError> {
        self.with(|stored| stored.wipe(store.slot()));
        self.positions.changelogs[store.slot()] = None;
        Ok(())
    }
}

impl Base for FakeTask {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        self.read(store, |entries| match entries.get(key) {
            Some(found) => {
                value.extend_from_slice(found);
                true
            }
            None => false,
        })
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        // Copied out, so that `visit` may read again.
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = self.read(store, |entries| {
            let below = |key: &[u8]| match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            };
            let above = entries.range::<[u8], _>((from, Bound::Unbounded));
            above.take_while(|(key, _)| below(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
        })?;
        if reverse {
            found.reverse();
        }
        for (key, value) in &found {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        self.read(store, |entries| entries.len() as u64)
    }
}
