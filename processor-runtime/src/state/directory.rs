//! The state directory: `<state.dir>/<application.id>/<task>/`, one database per task.
//!
//! Beside the tasks lie `LOCK` (one process at a time), `application.json` (whose state this is, in which format) and
//! `instance.id` (the made-once name of this worker). State that a thread gives back stays open for a while, so that
//! the thread that gets the task next need not open it.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use processor_core::ids::TaskId;
use serde::{Deserialize, Serialize};

use super::claim::Claims;
use super::database::Database;
use super::memory::Memory;
use super::options::StateSettings;
use super::task::RocksTask;
use super::writer::Writer;
use super::{Layout, StateDirectory, StateError, StateErrorKind, TaskState as _, files, open};

/// The layout of the directory and of the databases in it.
const FORMAT: u32 = 1;
const MARKER: &str = "application.json";
const INSTANCE_ID: &str = "instance.id";
const INSTANCE_ID_DIGITS: usize = 12;
/// What is discarded is waited for so long to be closed by whoever else reads or writes it.
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);
const DISCARD_LOOK_EVERY: Duration = Duration::from_millis(1);

/// The state directory of one application, held by this process.
///
/// ```
/// use processor_runtime::state::{RocksDirectory, StateErrorKind, StateSettings};
///
/// let state_dir = tempfile::tempdir()?;
/// let worker = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default())?;
/// assert_eq!(worker.instance_id()?, worker.instance_id()?); // made once
/// let second = RocksDirectory::open(state_dir.path(), "averages", StateSettings::default());
/// assert_eq!(second.unwrap_err().kind, StateErrorKind::InUse);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RocksDirectory {
    // Fields are dropped in this order: parked states close and nobody writes any more before the lock goes.
    parked: Mutex<VecDeque<Parked>>,
    _writer: Writer,
    claims: Arc<Claims>,
    memory: Arc<Memory>,
    settings: StateSettings,
    path: PathBuf,
}

struct Parked {
    state: RocksTask,
    since: Instant,
}

/// What `application.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    application_id: String,
    made_at_ms: u64,
}

impl RocksDirectory {
    /// Takes the directory of this application in `state_dir`, and makes it if it is not there.
    ///
    /// # Errors
    /// `InUse` if another process has it, `Foreign` if it belongs to another application or a newer version.
    pub fn open(state_dir: &Path, application_id: &str, settings: StateSettings) -> Result<Self, StateError> {
        let path = files::application_directory(state_dir, application_id);
        files::make_private_directory(&path)?;
        let claims = Claims::lock(&path)?;
        match files::read_if_there(&path.join(MARKER))? {
            Some(marker) => check_marker(&path, application_id, &marker)?,
            None => mark(&path, application_id)?,
        }
        let (memory, woken) = Memory::new(settings.memory_budget_bytes, settings.write_behind);
        let memory = Arc::new(memory);
        let writer = Writer::start(&memory, woken).map_err(|error| StateError {
            kind: StateErrorKind::Disk,
            message: format!("the operating system gives no thread to write state with: {error}"),
        })?;
        Ok(Self { parked: Mutex::default(), _writer: writer, claims, memory, settings, path })
    }

    /// The name of this worker for as long as its directory lives: made at the first call, kept in `instance.id`.
    ///
    /// It is 12 hexadecimal digits of a random UUID, so it never holds a separator.
    pub fn instance_id(&self) -> Result<String, StateError> {
        let path = self.path.join(INSTANCE_ID);
        let stored = files::read_if_there(&path)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        match stored {
            Some(id) if is_instance_id(&id) => return Ok(id),
            Some(damaged) => tracing::warn!(
                file = %path.display(), found = damaged,
                "the instance id is damaged and made anew; a transaction that the old one left open blocks until it is fenced"
            ),
            None => {}
        }
        let mut id = uuid::Uuid::new_v4().simple().to_string();
        id.truncate(INSTANCE_ID_DIGITS);
        files::write_durably(&path, format!("{id}\n").as_bytes())?;
        Ok(id)
    }

    /// The application's directory, `<state.dir>/<application.id>`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the settings say.
    pub fn settings(&self) -> &StateSettings {
        &self.settings
    }

    /// Bytes of the memory budget that are in use: cached blocks, write buffers, and commits that wait to be written.
    pub fn memory_used_bytes(&self) -> usize {
        self.memory.cache().get_usage() + self.memory.waiting_bytes()
    }

    pub(super) fn open_databases(&self) -> Vec<Arc<Database>> {
        self.memory.open_databases()
    }

    fn task_path(&self, task: &TaskId) -> PathBuf {
        self.path.join(task_directory(task))
    }

    /// Takes a parked state back, and those that were parked for too long away.
    fn unpark(&self, task: &TaskId, layout: &Layout) -> Option<RocksTask> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = parked.iter().position(|parked| parked.state.task() == task).and_then(|at| parked.remove(at));
        let expired = expired(&mut parked, &self.settings);
        drop(parked); // closing takes time
        drop(expired);
        // Another layout: another cluster, a changelog made again. Opening it from disk sorts that out, and what a write has
        // failed of in the meantime.
        let is_fit = |state: &RocksTask| state.layout() == layout && !state.database.needs_reopening();
        taken.map(|parked| parked.state).filter(is_fit)
    }
}

impl StateDirectory for RocksDirectory {
    type Task = RocksTask;

    fn open(&self, task: &TaskId, layout: &Layout) -> Result<Option<RocksTask>, StateError> {
        if let Some(state) = self.unpark(task, layout) {
            return Ok(Some(state));
        }
        let Some(claim) = self.claims.claim(task) else { return Ok(None) };
        open::open_task(&self.task_path(task), claim, layout, &self.memory, &self.settings).map(Some)
    }

    fn park(&self, state: RocksTask) {
        if state.database.needs_reopening() {
            let why = state.failed().map_or_else(|| "a write to it failed".to_owned(), |failed| failed.message);
            tracing::warn!(task = %state.task(), "closed, and opened anew where it is needed: {why}");
            return;
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.push_back(Parked { state, since: Instant::now() });
        let expired = expired(&mut parked, &self.settings);
        drop(parked); // closing takes time
        drop(expired);
    }

    fn discard(&self, state: RocksTask) -> Result<(), StateError> {
        let (claim, path) = (state.database.claim(), state.database.path().to_owned());
        let open = Arc::downgrade(&state.database);
        state.give_up();
        drop(state); // closes it, while the claim keeps others from opening it
        // The writer may hold it for a moment yet, a query for as long as it takes; who waits too long removes it all the same.
        let patience = Instant::now() + DISCARD_PATIENCE;
        while open.strong_count() > 0 && Instant::now() < patience {
            std::thread::sleep(DISCARD_LOOK_EVERY);
        }
        let removed = files::remove_database(&path);
        drop(claim);
        removed
    }
}

impl fmt::Debug for RocksDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDirectory")
            .field("path", &self.path)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The name of a task's directory: the task's own name.
pub(super) fn task_directory(task: &TaskId) -> String {
    files::file_name(&task.to_string())
}

/// Takes out what is parked for too long or too many; the oldest is in front.
fn expired(parked: &mut VecDeque<Parked>, settings: &StateSettings) -> Vec<Parked> {
    let too_old = parked.iter().take_while(|parked| parked.since.elapsed() >= settings.park_for).count();
    let too_many = parked.len().saturating_sub(settings.parked_max);
    parked.drain(..too_old.max(too_many)).collect()
}

fn is_instance_id(text: &str) -> bool {
    text.len() == INSTANCE_ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The application that a directory belongs to; `None` if it is of none.
pub(super) fn application_of(path: &Path) -> Result<Option<String>, StateError> {
    let Some(marker) = files::read_if_there(&path.join(MARKER))? else { return Ok(None) };
    Ok(serde_json::from_slice::<Marker>(&marker).ok().map(|marker| marker.application_id))
}

/// Refuses a directory that is not this application's, or of a format that is not known.
pub(super) fn check_owner(path: &Path, application_id: &str) -> Result<(), StateError> {
    let marker = files::read_if_there(&path.join(MARKER))?.unwrap_or_default();
    check_marker(path, application_id, &marker)
}

fn check_marker(path: &Path, application_id: &str, marker: &[u8]) -> Result<(), StateError> {
    let foreign = |what: String| {
        let message = format!(
            "the state directory {} {what}; set `state.dir` to another directory, or remove this one if its state may go",
            path.display()
        );
        Err(StateError { kind: StateErrorKind::Foreign, message })
    };
    let marker: Marker = match serde_json::from_slice(marker) {
        Ok(marker) => marker,
        Err(error) => return foreign(format!("has an {MARKER} that cannot be read ({error})")),
    };
    if marker.application_id != application_id {
        return foreign(format!("belongs to application `{}`, and this is `{application_id}`", marker.application_id));
    }
    if marker.format > FORMAT {
        return foreign(format!(
            "has format {}, made by a newer version; this one knows formats up to {FORMAT}",
            marker.format
        ));
    }
    Ok(())
}

/// Marks a new directory; one that holds something already is not ours.
fn mark(path: &Path, application_id: &str) -> Result<(), StateError> {
    if let Some(found) = files::first_entry_besides(path, &[super::claim::LOCK, "application.new"])? {
        return Err(StateError {
            kind: StateErrorKind::Foreign,
            message: format!(
                "the state directory {} holds `{found}` but no {MARKER}, so it is not known whose it is; set `state.dir` to \
                 another directory, or remove this one if its state may go",
                path.display()
            ),
        });
    }
    let made_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made_at_ms = u64::try_from(made_at.as_millis()).unwrap_or(u64::MAX);
    let marker = Marker { format: FORMAT, application_id: application_id.to_owned(), made_at_ms };
    let text = serde_json::to_vec_pretty(&marker).expect("the marker has only texts and numbers");
    files::write_durably(&path.join(MARKER), &text)
}
