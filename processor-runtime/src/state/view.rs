//! A task's state as it was committed at one moment, read while a live worker may go on writing it.
//!
//! RocksDB's read-only mode takes no lock and writes nothing, not even a log. What it lacks is a moment: it reads the
//! manifest, then the write-ahead logs, and a flush in between removes a log whose values the manifest, as it was read, does
//! not have. So the manifest is looked at before and after, and if it has moved the database is opened again. Once open, it
//! holds all files it needs, whoever removes their names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};

use processor_core::ids::TaskId;
use rocksdb::{IteratorMode, Options};

use super::database::{Db, between};
use super::open::{self, StoredPositions};
use super::positions::{self, StoreRecord, TaskRecord};
use super::{StateError, StateErrorKind, directory, files};

/// How often a database is opened until it holds still meanwhile. Opening takes milliseconds, flushes come seconds apart.
const OPEN_ATTEMPTS_MAX: usize = 100;

/// A task's state at one moment, read-only.
///
/// Keys and values are bytes, as docs/formats.md describes them; a [`StoreJson`](processor_core::store::StoreJson)
/// reads them. A store that is kept in memory is not here: ask its worker over HTTP.
///
/// ```
/// use std::ops::{Bound, ControlFlow};
///
/// use processor_core::ids::{Partition, TaskId};
/// use processor_runtime::state::{TaskView, application_directory};
/// # use processor_runtime::state::{Layout, RocksDirectory, StateDirectory, StateSettings, StoreLayout};
///
/// # let state_dir = tempfile::tempdir()?;
/// # let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// # let layout = Layout {
/// #     stores: vec![StoreLayout { name: "window".into(), in_memory: false, changelog_topic_id: Some("topic".to_owned()) }],
/// #     cluster_id: "cluster".to_owned(),
/// # };
/// # let open = worker.open(&TaskId::new("readings", Partition::new(3)), &layout)?;
/// // A worker has opened a task with a store `window`, and has not committed anything yet.
/// let directory = application_directory(state_dir.path(), "averages");
/// let task = TaskId::new("readings", Partition::new(3));
/// let view = TaskView::open(&directory, &task)?.expect("the task has state");
/// assert!(view.task().is_none());
/// assert_eq!(view.stores().keys().collect::<Vec<_>>(), ["window"]);
/// assert_eq!(view.get("window", b"kitchen")?, None);
/// let mut keys = Vec::new();
/// view.scan("window", (Bound::Included(b"k".as_slice()), Bound::Unbounded), true, |key, _value| {
///     keys.push(key.to_vec());
///     if keys.len() < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// })?;
/// assert!(keys.is_empty() && view.approximate_len("window")? == 0);
/// assert!(TaskView::open(&directory, &TaskId::new("readings", Partition::new(4)))?.is_none());
/// # drop((open, worker));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TaskView {
    db: Db,
    path: PathBuf,
    task: Option<TaskRecord>,
    stores: BTreeMap<String, Option<StoreRecord>>,
}

impl TaskView {
    /// Opens the state of a task; `None` if the task has none. `directory` is the application's, as
    /// [`application_directory`](super::application_directory) names it. Nothing there is changed, locked or waited for.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_core::ids::{Partition, TaskId};
    /// use processor_runtime::state::{TaskView, application_directory};
    ///
    /// let directory = application_directory(state_dir.path(), "averages");
    /// let of_partition = |number| TaskView::open(&directory, &TaskId::new("readings", Partition::new(number)));
    /// assert!(of_partition(3)?.is_some());
    /// assert!(of_partition(4)?.is_none()); // it is on another machine
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Corrupt` if the state is damaged, `Disk` if it cannot be read or is flushed too often to be opened.
    pub fn open(directory: &Path, task: &TaskId) -> Result<Option<Self>, StateError> {
        let path = directory.join(directory::task_directory(task));
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let before = Manifest::of(&path)?;
            if before.is_none() {
                return Ok(None);
            }
            let opened = open_now(&path);
            if Manifest::of(&path)? == before {
                return opened.map(Some).map_err(|reason| damaged(&path, task, &reason));
            }
        }
        let message = format!(
            "the state of task {task} in {} was rewritten each of {OPEN_ATTEMPTS_MAX} times that it was opened; try again",
            path.display()
        );
        Err(StateError { kind: StateErrorKind::Disk, message })
    }

    /// What the last batch carried; `None` in a task that never applied one.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// # use processor_core::ids::{Partition, TaskId};
    /// # use processor_runtime::state::{TaskView, application_directory};
    /// # let directory = application_directory(state_dir.path(), "averages");
    /// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
    /// let last = view.task().expect("batches were applied");
    /// assert_eq!((last.batch.get(), &*last.cluster_id), (7, "cluster-1"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task(&self) -> Option<&TaskRecord> {
        self.task.as_ref()
    }

    /// The stores that are on disk, by name, and how far each one's changelog is contained in its values; `None`: nothing
    /// of it yet, or it has no changelog.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// # use processor_core::ids::{Partition, TaskId};
    /// # use processor_runtime::state::{TaskView, application_directory};
    /// # let directory = application_directory(state_dir.path(), "averages");
    /// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
    /// for (name, record) in view.stores() {
    ///     let next = record.as_ref().map(|record| record.offset.get());
    ///     assert_eq!((name.as_str(), next), ("window", Some(2)));
    /// }
    /// assert_eq!(view.stores().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stores(&self) -> &BTreeMap<String, Option<StoreRecord>> {
        &self.stores
    }

    /// The stored bytes of a value.
    ///
    /// `None`: there is none, or there is no such store.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// # use processor_core::ids::{Partition, TaskId};
    /// # use processor_runtime::state::{TaskView, application_directory};
    /// # let directory = application_directory(state_dir.path(), "averages");
    /// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
    /// use processor_core::store::StoreJson;
    ///
    /// let json = StoreJson::of::<String, Vec<f64>>(); // the types of the store
    /// let value = view.get("window", &json.key_from_text("kitchen")?)?.expect("the kitchen has readings");
    /// assert_eq!(json.value(&value)?.to_string(), "[20.5,21.0]");
    /// assert_eq!(view.get("window", b"attic")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn get(&self, store: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let Some(family) = self.db.cf_handle(&open::family_name(store)) else { return Ok(None) };
        self.db.get_cf(&family, key).map_err(|error| self.unreadable(&error))
    }

    /// Visits the stored entries between the bounds in key order, or in reverse, until `visit` breaks. Where there is no
    /// such store, there are none.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// # use processor_core::ids::{Partition, TaskId};
    /// # use processor_runtime::state::{TaskView, application_directory};
    /// # let directory = application_directory(state_dir.path(), "averages");
    /// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
    /// use std::ops::{Bound, ControlFlow};
    ///
    /// let mut last = None;
    /// view.scan("window", (Bound::Unbounded, Bound::Excluded(b"l".as_slice())), true, |key, _value| {
    ///     last = Some(key.to_vec());
    ///     ControlFlow::Break(()) // one is enough
    /// })?;
    /// assert_eq!(last.as_deref(), Some(b"kitchen".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn scan(
        &self,
        store: &str,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let (Some(family), Some(read)) = (self.db.cf_handle(&open::family_name(store)), between(from, to)) else {
            return Ok(());
        };
        let start = if reverse { IteratorMode::End } else { IteratorMode::Start };
        for entry in self.db.iterator_cf_opt(&family, read, start) {
            let (key, value) = entry.map_err(|error| self.unreadable(&error))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// About how many entries a store has; 0 if there is no such store. It may be many times too many where entries
    /// were written often and not flushed since.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// # use processor_core::ids::{Partition, TaskId};
    /// # use processor_runtime::state::{TaskView, application_directory};
    /// # let directory = application_directory(state_dir.path(), "averages");
    /// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
    /// assert_eq!(view.approximate_len("window")?, 2);
    /// assert_eq!(view.approximate_len("totals")?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn approximate_len(&self, store: &str) -> Result<u64, StateError> {
        let Some(family) = self.db.cf_handle(&open::family_name(store)) else { return Ok(0) };
        let keys = self.db.property_int_value_cf(&family, rocksdb::properties::ESTIMATE_NUM_KEYS);
        Ok(keys.map_err(|error| self.unreadable(&error))?.unwrap_or(0))
    }

    fn unreadable(&self, error: &rocksdb::Error) -> StateError {
        let kind = if open::is_damage(error) { StateErrorKind::Corrupt } else { StateErrorKind::Disk };
        let message =
            format!("the state in {} cannot be read ({error}); check the disk and its rights", self.path.display());
        StateError { kind, message }
    }
}

impl std::fmt::Debug for TaskView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskView").field("path", &self.path).field("stores", &self.stores).finish_non_exhaustive()
    }
}

/// What changes with every flush and every compaction.
#[derive(PartialEq, Eq)]
struct Manifest {
    /// What `CURRENT` says: the manifest's file name.
    name: String,
    bytes: u64,
}

impl Manifest {
    /// `None` where there is no database.
    fn of(path: &Path) -> Result<Option<Self>, StateError> {
        let current = path.join(files::CURRENT);
        let Some(name) = files::read_if_there(&current)? else { return Ok(None) };
        let name = String::from_utf8_lossy(&name).trim().to_owned();
        let file = path.join(&name);
        match fs::metadata(&file) {
            Ok(metadata) => Ok(Some(Self { name, bytes: metadata.len() })),
            // Replaced since `CURRENT` was read, or lost: opening finds out which.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Self { name, bytes: 0 })),
            Err(error) => Err(files::failed("look at", &file, &error)),
        }
    }
}

fn open_now(path: &Path) -> Result<TaskView, String> {
    let families = open::list_families(path).map_err(rocksdb::Error::into_string)?;
    let db =
        Db::open_cf_for_read_only(&Options::default(), path, &families, false).map_err(rocksdb::Error::into_string)?;
    let mut records = StoredPositions::default();
    if let Some(family) = db.cf_handle(positions::FAMILY) {
        for entry in db.iterator_cf(&family, IteratorMode::Start) {
            let (key, value) = entry.map_err(rocksdb::Error::into_string)?;
            records.add(&key, &value).map_err(|error| format!("position {}: {error}", key.escape_ascii()))?;
        }
    }
    let on_disk = families.iter().filter_map(|family| open::store_of_family(family));
    let mut stores: BTreeMap<String, Option<StoreRecord>> = on_disk.map(|name| (name.to_owned(), None)).collect();
    stores.extend(records.stores.into_iter().map(|(name, record)| (name, Some(record))));
    Ok(TaskView { db, path: path.to_owned(), task: records.task, stores })
}

fn damaged(path: &Path, task: &TaskId, reason: &str) -> StateError {
    StateError {
        kind: StateErrorKind::Corrupt,
        message: format!(
            "the state of task {task} in {} cannot be read ({reason}); check its rights; if it is damaged, a worker that opens it will wipe \
             and restore it",
            path.display()
        ),
    }
}
