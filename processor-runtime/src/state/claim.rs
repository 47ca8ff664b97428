//! Who holds what: the directory by one process, a task's state by one owner in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use processor_core::ids::TaskId;

use super::files;
use super::{StateError, StateErrorKind};

/// The lock file; held from the opening of the directory until the last state in it is closed.
pub(super) const LOCK: &str = "LOCK";

/// The tasks of a directory whose state is open, and the lock on the directory.
#[derive(Debug)]
pub(super) struct Claims {
    open: Mutex<BTreeSet<TaskId>>,
    _lock: DirectoryLock,
}

/// The lock on a directory. The operating system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    /// Says so, because to close the file is not enough: a child process that another thread is just starting has the file
    /// open, too, until it becomes another program, and would hold the lock for that moment.
    fn drop(&mut self) {
        let _ = self.0.unlock(); // a lock that is not given back now is taken back with the file
    }
}

/// The right to have a task's state open; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    task: TaskId,
    claims: Arc<Claims>,
}

impl Claims {
    /// Locks the directory.
    pub(super) fn lock(directory: &Path) -> Result<Arc<Self>, StateError> {
        Ok(Arc::new(Self { open: Mutex::default(), _lock: lock(directory, true)? }))
    }

    /// Claims a task; `None` if it is claimed already.
    pub(super) fn claim(self: &Arc<Self>, task: &TaskId) -> Option<Claim> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(task.clone()).then(|| Claim { task: task.clone(), claims: Arc::clone(self) })
    }
}

impl Claim {
    /// The task.
    pub(super) fn task(&self) -> &TaskId {
        &self.task
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut open = self.claims.open.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = open.remove(&self.task);
        drop(open);
        assert!(claimed, "a claim is given back once: {}", self.task);
    }
}

/// Takes the lock of a directory; `make` the lock file if there is none.
pub(super) fn lock(directory: &Path, make: bool) -> Result<DirectoryLock, StateError> {
    let path = directory.join(LOCK);
    let mut options = File::options();
    let opened = options.read(true).write(true).create(make).truncate(false).open(&path);
    let mut file = opened.map_err(|error| files::failed("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(in_use(directory, &mut file)),
        Err(std::fs::TryLockError::Error(error)) => return Err(files::failed("lock", &path, &error)),
    }
    if make {
        let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(|error| files::failed("write", &path, &error))?;
    }
    Ok(DirectoryLock(file))
}

fn in_use(directory: &Path, lock: &mut File) -> StateError {
    let mut holder = String::new();
    let holder = match lock.read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
        Ok(_) | Err(_) => "another process".to_owned(),
    };
    StateError {
        kind: StateErrorKind::InUse,
        message: format!(
            "the state directory {} is in use by {holder}; stop that process, or give this one a `state.dir` of its own",
            directory.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_back_though_a_child_process_still_has_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = lock(directory.path(), true).expect("nobody has it");
        assert!(lock(directory.path(), false).is_err_and(|error| error.kind == StateErrorKind::InUse));
        // What a child has between its birth and the program that it becomes: the same open file.
        let of_child = held.0.try_clone().expect("a second handle");
        drop(held);
        lock(directory.path(), false).expect("it was given back");
        drop(of_child);
    }
}
