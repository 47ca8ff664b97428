//! Directories and small files around the databases.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{StateError, StateErrorKind};

/// Only its owner may look into state: it holds what the input topics hold.
const PRIVATE: u32 = 0o700;

/// The state directory of one application: `<state.dir>/<application.id>`.
///
/// ```
/// use std::path::Path;
/// use processor_runtime::state::application_directory;
///
/// let directory = application_directory(Path::new("/var/lib/state"), "averages");
/// assert_eq!(directory, Path::new("/var/lib/state/averages"));
/// ```
pub fn application_directory(state_dir: &Path, application_id: &str) -> PathBuf {
    state_dir.join(file_name(application_id))
}

/// A name as one component of a path: what is not a letter, a digit, `-`, `_` or a dot inside is written `%XX`, so that
/// no two names meet and none leads out of the directory. Topic and application names stay as they are.
pub(super) fn file_name(name: &str) -> String {
    use std::fmt::Write as _;
    let mut file_name = String::with_capacity(name.len());
    for (place, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && place > 0);
        if plain {
            file_name.push(char::from(byte));
        } else {
            write!(file_name, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    file_name
}

/// Makes a directory and those above it, readable by its owner only.
pub(super) fn make_private_directory(path: &Path) -> Result<(), StateError> {
    let created = DirBuilder::new().recursive(true).mode(PRIVATE).create(path);
    created.map_err(|error| failed("make", path, &error))?;
    let mode = fs::metadata(path).map_err(|error| failed("look at", path, &error))?.permissions().mode();
    if mode & 0o777 == PRIVATE {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(|error| failed("make private", path, &error))
}

/// Writes a small file so that after a crash there is all of it or none.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    };
    write().map_err(|error| failed("write", path, &error))
}

/// Reads a small file; `None` if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// Removes a database's directory so that a crash on the way never leaves something that opens: first the file
/// without which RocksDB finds nothing, for good, then the rest in any order.
pub(super) fn remove_database(path: &Path) -> Result<(), StateError> {
    let current = path.join(CURRENT);
    let remove = || {
        match fs::remove_file(&current) {
            Ok(()) => sync_parent(&current)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A directory or the like, made by damage: it goes with the rest.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {}
            Err(error) => return Err(error),
        }
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    };
    remove().map_err(|error| failed("remove", path, &error))
}

/// An entry of a directory that is none of these, if there is one.
pub(super) fn first_entry_besides(path: &Path, known: &[&str]) -> Result<Option<String>, StateError> {
    for entry in fs::read_dir(path).map_err(|error| failed("list", path, &error))? {
        let name = entry.map_err(|error| failed("list", path, &error))?.file_name();
        if !known.iter().any(|known| name == *known) {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Whether there is a database, and whether there are remains of one.
pub(super) fn look_for_database(path: &Path) -> Result<Found, StateError> {
    let mut found = Found::Nothing;
    for entry in fs::read_dir(path).map_err(|error| failed("list", path, &error))? {
        let entry = entry.map_err(|error| failed("list", path, &error))?;
        if entry.file_name() == CURRENT {
            return Ok(Found::Database);
        }
        found = Found::Remains;
    }
    Ok(found)
}

/// What is in a task's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A database.
    Database,
    /// Files, but not the one that makes them a database.
    Remains,
}

/// The file that names a database's manifest.
pub(super) const CURRENT: &str = "CURRENT";

/// An error of the file system.
pub(super) fn failed(verb: &str, path: &Path, error: &io::Error) -> StateError {
    StateError {
        kind: StateErrorKind::Disk,
        message: format!(
            "cannot {verb} {} ({error}); check that the disk is there, has room, and that this user may write to it",
            path.display()
        ),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().expect("a file lies in a directory");
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_inside_and_apart() {
        assert_eq!(file_name("orders-by_customer.v2_13"), "orders-by_customer.v2_13");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("a/b"), "a%2Fb");
        assert_ne!(file_name("a%2Fb"), file_name("a/b"));
    }

    #[test]
    fn directories_are_private_even_if_they_were_not() {
        let root = tempfile::tempdir().expect("a directory for the test");
        let path = root.path().join("a/b");
        fs::create_dir_all(&path).expect("the directory is new");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        make_private_directory(&path).expect("it is ours");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
