//! The thread of a state directory that writes committed changes to RocksDB, so that no stream thread waits for it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::apply;
use super::memory::{Memory, Wake};

/// How often it is looked whether something waits that nobody adds to any more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The thread. Dropping it ends it, when it is through with what it writes.
pub(super) struct Writer {
    memory: Arc<Memory>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it.
    pub(super) fn start(memory: &Arc<Memory>, woken: Receiver<Wake>) -> std::io::Result<Self> {
        let weak = Arc::downgrade(memory);
        let thread = std::thread::Builder::new().name("state-writer".to_owned());
        let thread = thread.spawn(move || run(&weak, &woken))?;
        Ok(Self { memory: Arc::clone(memory), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.memory.stop_writer();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(memory: &Weak<Memory>, woken: &Receiver<Wake>) {
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        match woken.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
            Ok(Wake::Frozen(database)) => {
                if let Some(database) = database.upgrade()
                    && let Err(error) = apply::write_frozen(&database)
                {
                    tracing::error!(task = %database.task(), "committed batches are not on disk: {error}");
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        // However busy others keep it.
        if Instant::now() >= look_at {
            let Some(memory) = memory.upgrade() else { return };
            freeze_what_is_old(&memory);
            look_at = Instant::now() + LOOK_EVERY;
        }
    }
}

fn freeze_what_is_old(memory: &Memory) {
    for database in memory.open_databases() {
        if database.behind().age().is_some_and(|age| age >= memory.write_behind()) {
            memory.freeze(&database);
        }
    }
}
