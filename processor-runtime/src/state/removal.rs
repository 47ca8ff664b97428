//! The removal of an application's local state, for a reset. Held by the lock, so that no worker opens it meanwhile.

use std::path::{Path, PathBuf};

use super::{StateError, claim, directory, files, inventory};

/// The local state of an application.
///
/// ```
/// use processor_runtime::state::{LocalState, RocksDirectory, StateErrorKind, StateSettings};
///
/// let state_dir = tempfile::tempdir()?;
/// assert!(LocalState::hold(state_dir.path(), "averages")?.is_none());
/// let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// let refused = LocalState::hold(state_dir.path(), "averages").unwrap_err();
/// assert_eq!(refused.kind, StateErrorKind::InUse);
/// assert!(LocalState::look(state_dir.path(), "averages")?.is_some());
/// drop(worker);
/// let held = LocalState::hold(state_dir.path(), "averages")?.expect("a worker was here");
/// assert!(held.tasks().is_empty());
/// held.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LocalState {
    directory: PathBuf,
    tasks: Vec<String>,
    /// Held, if no worker may open it as long as this lives.
    lock: Option<claim::DirectoryLock>,
}

impl LocalState {
    /// Looks at the state of an application, whether a worker has it open or not; `None` if it has none here.
    ///
    /// # Errors
    /// `Foreign` if it is not this application's.
    pub fn look(state_dir: &Path, application_id: &str) -> Result<Option<Self>, StateError> {
        Self::find(state_dir, application_id, |_| Ok(None))
    }

    /// Takes hold of the state of an application: no worker has it open, nor can open it. `None` if it has none here.
    ///
    /// # Errors
    /// `InUse` while a worker has it, `Foreign` if it is not this application's.
    pub fn hold(state_dir: &Path, application_id: &str) -> Result<Option<Self>, StateError> {
        Self::find(state_dir, application_id, |directory| claim::lock(directory, true).map(Some))
    }

    fn find(
        state_dir: &Path,
        application_id: &str,
        lock: impl FnOnce(&Path) -> Result<Option<claim::DirectoryLock>, StateError>,
    ) -> Result<Option<Self>, StateError> {
        let directory = files::application_directory(state_dir, application_id);
        if !directory.exists() {
            return Ok(None);
        }
        directory::check_owner(&directory, application_id)?;
        let lock = lock(&directory)?;
        let mut tasks = inventory::subdirectories(&directory)?;
        tasks.sort();
        Ok(Some(Self { directory, tasks, lock }))
    }

    /// The application's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The names of the tasks that have state here.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Removes the state of every task. What stays is whose directory it is, and the worker's made-once name.
    ///
    /// # Errors
    /// Of the file system. What was removed is gone, what was not is whole.
    ///
    /// # Panics
    /// If it is not held.
    pub fn remove(self) -> Result<(), StateError> {
        assert!(self.lock.is_some(), "state that a worker may open is not removed");
        self.tasks.iter().try_for_each(|task| files::remove_database(&self.directory.join(task)))
    }
}
