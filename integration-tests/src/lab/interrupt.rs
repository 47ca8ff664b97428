//! Ctrl-C and SIGTERM, turned from a sudden end into an error that unwinds: what was started is stopped on the way out.
//!
//! The signals are blocked in every thread and taken by one that waits for them. A blocked mask is inherited by
//! programs that are started, which would then never see their own SIGTERM; [`program`](super::program) undoes it.
//! The second signal ends this process at once; the kernel then ends what is bound to it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// What a shell reports for a program that Ctrl-C ended.
pub const EXIT_CODE: u8 = 130;

const SLICE: Duration = Duration::from_millis(20);

/// Somebody wants this program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; what was started is stopped")
    }
}

impl Error for Interrupted {}

/// Knows whether this program was asked to end.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over. To be called before any other thread is started, since threads inherit what is blocked.
    ///
    /// # Errors
    /// The kernel refuses to block them.
    pub fn watch() -> Result<Self> {
        let signals = signals();
        signals.thread_block().context("cannot block SIGINT and SIGTERM")?;
        let asked = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&asked);
        let waiting = move || {
            while signals.wait().is_ok() {
                if noted.swap(true, Ordering::SeqCst) {
                    std::process::exit(EXIT_CODE.into());
                }
                eprintln!("\nstopping what was started (once more: end at once) ..");
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(waiting).context("cannot start the signal thread")?;
        Ok(Self(asked))
    }

    /// Fails once a signal has come.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Asks, again and again, until the answer is yes or the time is over; the answer says which.
    ///
    /// # Errors
    /// The condition's, or [`Interrupted`].
    pub fn wait_until(&self, timeout: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            self.check()?;
            if condition()? {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(SLICE);
        }
    }
}

/// SIGHUP is not among them: `nohup` has it ignored, and waiting for an ignored signal would still get it.
pub(super) fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}
