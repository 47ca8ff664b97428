//! What a state directory holds: which applications, and which tasks of them. Looks only, and takes no lock.

use std::fs;
use std::path::Path;

use processor_core::ids::{Partition, TaskId};

use super::{StateError, StateErrorKind, directory, files};

/// The ids of the applications that have state in this directory, in order.
///
/// ```
/// use processor_runtime::state::applications;
/// # use processor_runtime::state::{RocksDirectory, StateSettings};
///
/// # let state_dir = tempfile::tempdir()?;
/// assert!(applications(state_dir.path())?.is_empty());
/// # let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// // A worker of `averages` has started.
/// assert_eq!(applications(state_dir.path())?, ["averages"]);
/// # drop(worker);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// There is no such directory, or it cannot be read.
pub fn applications(state_dir: &Path) -> Result<Vec<String>, StateError> {
    let mut found = Vec::new();
    for name in subdirectories(state_dir)? {
        found.extend(directory::application_of(&state_dir.join(name))?);
    }
    found.sort();
    Ok(found)
}

/// The tasks that have state in an application's directory, in order; none if there is no such directory.
///
/// ```
/// use processor_core::ids::{Partition, TaskId};
/// use processor_runtime::state::{application_directory, tasks};
/// # use processor_runtime::state::{Layout, RocksDirectory, StateDirectory, StateSettings, StoreLayout};
///
/// # let state_dir = tempfile::tempdir()?;
/// let directory = application_directory(state_dir.path(), "averages");
/// assert!(tasks(&directory)?.is_empty());
/// # let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// # let layout = Layout {
/// #     stores: vec![StoreLayout { name: "window".into(), in_memory: false, changelog_topic_id: Some("topic".to_owned()) }],
/// #     cluster_id: "cluster".to_owned(),
/// # };
/// # let open = worker.open(&TaskId::new("readings", Partition::new(3)), &layout)?;
/// // A worker has opened a task.
/// assert_eq!(tasks(&directory)?, [TaskId::new("readings", Partition::new(3))]);
/// # drop((open, worker));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// It cannot be read.
pub fn tasks(directory: &Path) -> Result<Vec<TaskId>, StateError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<TaskId> = subdirectories(directory)?.iter().filter_map(|name| task(name)).collect();
    found.sort();
    Ok(found)
}

/// The part behind the last underscore is always the partition.
fn task(name: &str) -> Option<TaskId> {
    let (subtopology, partition) = name.rsplit_once('_')?;
    let partition: i32 = partition.parse().ok().filter(|number| *number >= 0)?;
    let task = TaskId::new(subtopology, Partition::new(partition));
    (task.to_string() == name).then_some(task)
}

/// The names of the directories in a directory.
fn subdirectories(path: &Path) -> Result<Vec<String>, StateError> {
    let failed = |error| files::failed("list", path, &error);
    if !path.is_dir() {
        let message =
            format!("there is no directory {}; is it the `state.dir` that the worker runs with?", path.display());
        return Err(StateError { kind: StateErrorKind::Disk, message });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_from_what_is_none() {
        assert_eq!(task("a_b_3"), Some(TaskId::new("a_b", Partition::new(3))));
        for name in ["instance.id", "a", "a_", "a_-1", "a_x"] {
            assert_eq!(task(name), None, "{name}");
        }
    }
}
