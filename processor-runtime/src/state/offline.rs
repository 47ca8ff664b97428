//! Reads a task's state while no process holds it, for tests, oracles and tools. Nothing on disk changes but the lock
//! file's lock.

use std::collections::BTreeMap;
use std::path::Path;

use processor_core::ids::TaskId;
use rocksdb::{IteratorMode, Options};

use super::database::Db;
use super::open::StoredPositions;
use super::positions::{self, StoreRecord, TaskRecord};
use super::{StateError, StateErrorKind, claim, directory, files, open};

/// All that is in a task's state.
///
/// ```
#[doc = include_str!("example_state.txt")]
/// # use processor_core::ids::{Partition, TaskId};
/// # use processor_runtime::state::{application_directory, read_task_offline};
/// # let directory = application_directory(state_dir.path(), "averages");
/// let dump = read_task_offline(&directory, &TaskId::new("readings", Partition::new(3)))?;
/// let dump = dump.expect("the task has state");
/// assert_eq!(dump.stores.keys().collect::<Vec<_>>(), ["window"]);
/// assert_eq!(dump.task.map(|task| task.batch.get()), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskDump {
    /// What the last batch carried; `None` in a task that never applied one.
    pub task: Option<TaskRecord>,
    /// The stores by name.
    pub stores: BTreeMap<String, StoreDump>,
}

/// All that is in a store.
///
/// ```
#[doc = include_str!("example_state.txt")]
/// # use processor_core::ids::{Partition, TaskId};
/// # use processor_runtime::state::{application_directory, read_task_offline};
/// # let directory = application_directory(state_dir.path(), "averages");
/// use processor_core::store::StoreJson;
///
/// let dump = read_task_offline(&directory, &TaskId::new("readings", Partition::new(3)))?;
/// let window = &dump.expect("the task has state").stores["window"];
/// let json = StoreJson::of::<String, Vec<f64>>(); // the types of the store
/// let (key, value) = window.entries.first_key_value().expect("it has entries");
/// assert_eq!((json.key(key)?.to_string(), json.value(value)?.to_string()), (r#""cellar""#.into(), "[12.0]".into()));
/// assert_eq!(window.position.as_ref().map(|position| position.offset.get()), Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDump {
    /// How far its changelog is contained in its values.
    pub position: Option<StoreRecord>,
    /// Its entries, encoded, by key.
    pub entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads all of a task's state; `None` if the task has none. `directory` is the application's, as
/// [`application_directory`](super::application_directory) names it.
///
/// ```
/// use processor_core::ids::{Partition, TaskId};
/// use processor_runtime::state::{StateErrorKind, application_directory, read_task_offline};
/// # use processor_runtime::state::{Layout, RocksDirectory, StateDirectory, StateSettings, StoreLayout};
///
/// # let state_dir = tempfile::tempdir()?;
/// # let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// # let layout = Layout {
/// #     stores: vec![StoreLayout { name: "window".into(), in_memory: false, changelog_topic_id: Some("topic".to_owned()) }],
/// #     cluster_id: "cluster".to_owned(),
/// # };
/// let directory = application_directory(state_dir.path(), "averages");
/// let task = TaskId::new("readings", Partition::new(3));
/// # drop(worker.open(&task, &layout)?);
/// let refused = read_task_offline(&directory, &task).unwrap_err();
/// assert_eq!(refused.kind, StateErrorKind::InUse);
/// drop(worker); // it has stopped
/// let dump = read_task_offline(&directory, &task)?.expect("the task has state");
/// assert!(dump.stores["window"].entries.is_empty(), "nothing was committed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `InUse` while a process holds the directory, `Corrupt` if the state is damaged: nothing is wiped here.
pub fn read_task_offline(directory: &Path, task: &TaskId) -> Result<Option<TaskDump>, StateError> {
    let _lock = claim::lock(directory, false)?;
    let path = directory.join(directory::task_directory(task));
    if !path.join(files::CURRENT).exists() {
        return Ok(None);
    }
    read(&path).map(Some).map_err(|reason| StateError {
        kind: StateErrorKind::Corrupt,
        message: format!(
            "the state of task {task} in {} cannot be read ({reason}); a worker that opens it will wipe and restore it",
            path.display()
        ),
    })
}

fn read(path: &Path) -> Result<TaskDump, String> {
    let families = open::list_families(path).map_err(rocksdb::Error::into_string)?;
    let db =
        Db::open_cf_for_read_only(&Options::default(), path, &families, false).map_err(rocksdb::Error::into_string)?;
    let mut stored = StoredPositions::default();
    let mut dump = TaskDump::default();
    for family in &families {
        if let Some(store) = open::store_of_family(family) {
            dump.stores.insert(store.to_owned(), StoreDump { position: None, entries: entries(&db, family)? });
        } else if family == positions::FAMILY {
            for (key, value) in entries(&db, family)? {
                stored.add(&key, &value).map_err(|error| format!("position {}: {error}", key.escape_ascii()))?;
            }
        }
    }
    dump.task = stored.task;
    for (name, record) in stored.stores {
        dump.stores.entry(name).or_default().position = Some(record);
    }
    Ok(dump)
}

fn entries(db: &Db, family: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let handle = db.cf_handle(family).ok_or_else(|| format!("column family {family} was not opened"))?;
    let entries = db.iterator_cf(&handle, IteratorMode::Start);
    entries
        .map(|entry| entry.map(|(key, value)| (key.into_vec(), value.into_vec())).map_err(rocksdb::Error::into_string))
        .collect()
}
