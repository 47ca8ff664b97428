//! The removal of an application's local state, for a reset. Held by the lock, so that no worker opens it meanwhile.

use std::path::{Path, PathBuf};

use super::{StateError, claim, directory, files, inventory};

/// The local state of an application that no worker has open, nor can open as long as this lives.
#[derive(Debug)]
pub struct HeldState {
    directory: PathBuf,
    tasks: Vec<String>,
    _lock: claim::DirectoryLock,
}

impl HeldState {
    /// Takes hold of the state of an application; `None` if it has none here.
    ///
    /// # Errors
    /// `InUse` while a worker has it, `Foreign` if it is not this application's.
    pub fn take(state_dir: &Path, application_id: &str) -> Result<Option<Self>, StateError> {
        let directory = files::application_directory(state_dir, application_id);
        if !directory.exists() {
            return Ok(None);
        }
        directory::check_owner(&directory, application_id)?;
        let lock = claim::lock(&directory, true)?;
        let mut tasks = inventory::subdirectories(&directory)?;
        tasks.sort();
        Ok(Some(Self { directory, tasks, _lock: lock }))
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
    pub fn remove(self) -> Result<(), StateError> {
        self.tasks.iter().try_for_each(|task| files::remove_database(&self.directory.join(task)))
    }
}
