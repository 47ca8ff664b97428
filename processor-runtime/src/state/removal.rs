//! The removal of an application's local state, for a reset. Held by the lock, so that no worker opens it meanwhile.

use std::path::{Path, PathBuf};

use super::{StateError, claim, directory, files, inventory};

/// The local state of an application.
///
/// ```
/// use processor_runtime::state::{LocalState, StateErrorKind};
/// # use processor_runtime::state::{RocksDirectory, StateSettings};
///
/// # let state_dir = tempfile::tempdir()?;
/// assert!(LocalState::hold(state_dir.path(), "averages")?.is_none());
/// # let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// // A worker has started.
/// let refused = LocalState::hold(state_dir.path(), "averages").unwrap_err();
/// assert_eq!(refused.kind, StateErrorKind::InUse);
/// assert!(LocalState::look(state_dir.path(), "averages")?.is_some());
/// drop(worker); // it has stopped
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
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_runtime::state::LocalState;
    ///
    /// let found = LocalState::look(state_dir.path(), "averages")?.expect("a worker was here");
    /// assert_eq!(found.tasks(), ["readings_3"]);
    /// assert!(LocalState::look(state_dir.path(), "totals")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Foreign` if it is not this application's.
    pub fn look(state_dir: &Path, application_id: &str) -> Result<Option<Self>, StateError> {
        Self::find(state_dir, application_id, |_| Ok(None))
    }

    /// Takes hold of the state of an application: no worker has it open, nor can open it. `None` if it has none here.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_runtime::state::{LocalState, StateErrorKind};
    ///
    /// let held = LocalState::hold(state_dir.path(), "averages")?.expect("a worker was here");
    /// let second = LocalState::hold(state_dir.path(), "averages").unwrap_err();
    /// assert_eq!(second.kind, StateErrorKind::InUse);
    /// drop(held);
    /// assert!(LocalState::hold(state_dir.path(), "averages")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        // What has another name is somebody else's, and is left alone.
        let tasks = inventory::tasks(&directory)?.iter().map(ToString::to_string).collect();
        Ok(Some(Self { directory, tasks, lock }))
    }

    /// The application's directory.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_runtime::state::{LocalState, application_directory};
    ///
    /// let found = LocalState::look(state_dir.path(), "averages")?.expect("a worker was here");
    /// assert_eq!(found.directory(), application_directory(state_dir.path(), "averages"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The names of the tasks that had state here when it was looked at, in order.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_runtime::state::LocalState;
    ///
    /// let found = LocalState::look(state_dir.path(), "averages")?.expect("a worker was here");
    /// assert_eq!(found.tasks(), ["readings_3"]); // sub-topology and partition
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Removes the state of every task. What stays is whose directory it is, and the worker's made-once name.
    ///
    /// ```
    #[doc = include_str!("example_state.txt")]
    /// use processor_runtime::state::LocalState;
    ///
    /// let held = LocalState::hold(state_dir.path(), "averages")?.expect("a worker was here");
    /// held.remove()?;
    /// let left = LocalState::look(state_dir.path(), "averages")?.expect("it is still known whose it was");
    /// assert!(left.tasks().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Of the file system. What was removed is gone, what was not is whole.
    ///
    /// # Panics
    /// If it is not [held](Self::hold), only [looked at](Self::look).
    pub fn remove(self) -> Result<(), StateError> {
        assert!(self.lock.is_some(), "state that a worker may open is not removed");
        self.tasks.iter().try_for_each(|task| files::remove_database(&self.directory.join(task)))
    }
}
