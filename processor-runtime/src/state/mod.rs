//! Local state: how to look at what a worker keeps on disk, and, behind that, the traits of the seam.
//!
//! State is one database per task. It holds committed values only, so no crash, fence or abort ever wipes it: it is
//! always a valid older state, and the changelog supplies the rest. This directory alone names rocksdb, and
//! `TaskState::apply` is the only way anything gets into it (EO-2).
//!
//! Whoever looks at state from outside uses [`applications`], [`tasks`] and [`TaskView`] while a worker may run, or
//! [`read_task_offline`] while none does; [`LocalState`] removes it. The traits and what implements them are the
//! engine's own, and not shown here. Every entry of a store, of all tasks on this machine:
//!
//! ```
#![doc = include_str!("example_state.txt")]
//! use std::ops::{Bound, ControlFlow};
//!
//! use processor_core::store::StoreJson;
//! use processor_runtime::state::{TaskView, application_directory, tasks};
//!
//! let directory = application_directory(state_dir.path(), "averages");
//! let json = StoreJson::of::<String, Vec<f64>>(); // the types of the store `window`
//! let mut lines = Vec::new();
//! for task in tasks(&directory)? {
//!     let Some(view) = TaskView::open(&directory, &task)? else { continue };
//!     view.scan("window", (Bound::Unbounded, Bound::Unbounded), false, |key, value| {
//!         lines.push(format!("{task} {} {}", json.key_or_why(key), json.value_or_why(value)));
//!         ControlFlow::Continue(())
//!     })?;
//! }
//! assert_eq!(lines, [r#"readings_3 "cellar" [12.0]"#, r#"readings_3 "kitchen" [20.5,21.0]"#]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use processor_core::ids::{BatchId, ChangelogOffset, StoreIndex, TaskId, Timestamp};
use processor_core::store::Base;
use processor_core::task::ChangeSet;

mod permit;

mod apply;
mod behind;
mod directory;
mod in_memory;
mod inventory;
mod offline;
mod open;
mod positions;
mod removal;
mod task;
mod view;
mod writer;
mod written;

mod claim;
mod database;
mod figures;
mod files;
mod memory;
mod options;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use directory::RocksDirectory;
#[doc(hidden)]
pub use figures::{DiskFigures, StoreFigures};
pub use files::application_directory;
pub use inventory::{applications, tasks};
pub use offline::{StoreDump, TaskDump, read_task_offline};
#[doc(hidden)]
pub use options::StateSettings;
#[doc(hidden)]
pub use permit::{Permit, RestoredBatch};
#[doc(hidden)]
pub use positions::PositionsError;
pub use positions::{StoreRecord, TaskRecord};
pub use removal::LocalState;
#[doc(hidden)]
pub use task::{RocksTask, TaskReader};
pub use view::TaskView;

/// The state directory of one application in one process.
///
/// # Contract
/// A task's state is open at most once in a process, and the directory is used by at most one process.
#[doc(hidden)]
pub trait StateDirectory: Send + Sync + 'static {
    /// The open state of a task.
    type Task: TaskState;

    /// Opens a task's state, or takes it back if it was parked. `Ok(None)`: another thread of this process still holds
    /// it; try again soon.
    ///
    /// Damaged state, and state that was written for another cluster or another incarnation of a changelog topic, is
    /// wiped with a warning: the changelog has it all.
    ///
    /// # Errors
    /// See [`StateErrorKind`].
    fn open(&self, task: &TaskId, layout: &Layout) -> Result<Option<Self::Task>, StateError>;

    /// Gives a task's state back without closing it, so that whoever gets the task next need not open it. It is closed
    /// after a while, or when the process ends; at once, if a write to it failed.
    fn park(&self, state: Self::Task);

    /// Closes a task's state and removes it from the disk, damaged or not: what a [`StateErrorKind::Corrupt`] asks for.
    /// The next `open` makes it new.
    ///
    /// # Errors
    /// Nothing that opens is left behind, not even by an error: either all of the state is still there, or none.
    fn discard(&self, state: Self::Task) -> Result<(), StateError>;
}

/// What a task keeps.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The stores in the order of [`StoreIndex`].
    pub stores: Vec<StoreLayout>,
    /// The cluster that the changelogs live on.
    pub cluster_id: String,
}

/// How a store is kept.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLayout {
    /// The store's name; it names the column family.
    pub name: Arc<str>,
    /// Whether it is kept in memory: it is empty whenever the task's state is opened from disk.
    pub in_memory: bool,
    /// The id that the cluster gave the changelog topic when it was created; `None`: the store has no changelog, and so no
    /// position.
    pub changelog_topic_id: Option<String>,
}

/// The open state of one task.
///
/// # Contract
/// - Reads are of one committed state (see [`Base`]).
/// - `apply` is atomic: after a crash at any point, either all of it is there or nothing, over all stores and the
///   positions (EO-3), and what is there is a prefix of the applied batches in order.
#[doc(hidden)]
pub trait TaskState: Base + Send {
    /// The task.
    fn task(&self) -> &TaskId;

    /// How far the changelogs are contained in the values.
    fn positions(&self) -> &Positions;

    /// Takes the changes and the new positions over as one atomic change: whoever reads sees it at once. Never waits for the
    /// disk (no fsync).
    ///
    /// # Panics
    /// If a position or the stream time would go back, or the position of a changed store with a changelog would not
    /// advance (EO-3, EO-8).
    ///
    /// # Errors
    /// The state must be closed ([parked](StateDirectory::park) or dropped) and opened again. On disk it is as some earlier
    /// commit left it, and what is missing is then restored; what it shows until then may be this commit. `Disk`: RocksDB
    /// refuses all further writes, even with room on the disk again.
    fn apply(&mut self, permit: Permit<'_>, changes: &ChangeSet, positions: &Positions) -> Result<(), StateError>;

    /// Why the state must be closed and opened again, if something was not written that an [`apply`](Self::apply) has left for
    /// later; the next `apply` would say so.
    fn failed(&self) -> Option<StateError> {
        None
    }

    /// Reads the committed state from other threads, for as long as it is open here (EO-10). `None`: it offers no such.
    fn shared(&self) -> Option<Arc<dyn Base + Send + Sync>> {
        None
    }

    /// Empties one store and forgets its position.
    fn wipe(&mut self, store: StoreIndex) -> Result<(), StateError>;
}

/// How far the changelogs are contained in a task's state, and what else a commit carried.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Per store, in the order of [`StoreIndex`]: the next changelog record to replay; `None`: replay from the start. Always
    /// `None` for a store without a changelog: that its values are as committed is known by `batch`.
    pub changelogs: Vec<Option<ChangelogOffset>>,
    /// The highest timestamp the task had seen.
    pub stream_time: Option<Timestamp>,
    /// The last batch that was applied.
    pub batch: BatchId,
    /// A time at which every store's position was the end of its changelog, or was on the way there without a pause:
    /// older than a changelog's `delete.retention.ms`, tombstones may be missing.
    ///
    /// IMPORTANT: it speaks for all stores of the task. A restore keeps the old value until the last of them has reached
    /// its end; else a crash in the middle lets a store that was not restored yet pass for fresh.
    pub written_at: Timestamp,
}

impl Positions {
    /// Of a task with this many stores that has no state yet.
    pub fn empty(stores: usize) -> Self {
        Self { changelogs: vec![None; stores], stream_time: None, batch: BatchId::NONE, written_at: Timestamp::new(0) }
    }
}

/// Local state could not be opened, read, written or removed. Its kind is what to do about it.
///
/// ```
/// use std::path::Path;
///
/// use processor_runtime::state::{StateErrorKind, applications};
///
/// let error = applications(Path::new("/no/such/directory")).unwrap_err();
/// assert_eq!(error.kind, StateErrorKind::Disk);
/// assert!(error.to_string().contains("is it the `state.dir` that the worker runs with?"));
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StateError {
    /// What to do.
    pub kind: StateErrorKind,
    /// What happened, to which task, store or file, and what to do next.
    pub message: String,
}

/// What to do about a [`StateError`].
///
/// ```
/// use processor_runtime::state::{LocalState, StateErrorKind};
///
/// let state_dir = tempfile::tempdir()?;
/// std::fs::create_dir(state_dir.path().join("averages"))?; // no worker has made it
/// let error = LocalState::look(state_dir.path(), "averages").unwrap_err();
/// let advice = match error.kind {
///     StateErrorKind::Disk => "look at the disk and its rights",
///     StateErrorKind::Corrupt => "a worker restores it",
///     StateErrorKind::InUse => "stop the worker",
///     StateErrorKind::Foreign => "name another directory",
/// };
/// assert_eq!(advice, "name another directory");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateErrorKind {
    /// The disk is full or refuses, or something is not there. A worker closes the state, opens it again, and restores
    /// what could not be written.
    Disk,
    /// Damaged: discard the task's state and restore it, as a worker does that opens it.
    Corrupt,
    /// Another process uses the directory.
    InUse,
    /// The directory belongs to another application, or to a topology that no longer fits.
    Foreign,
}
