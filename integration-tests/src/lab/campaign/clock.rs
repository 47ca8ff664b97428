//! A wall clock of a worker's own, which can be set while it works: libfaketime, and what that lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::worker::WorkerConfig;

/// Where distributions put libfaketime.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];
const MISSING: &str = include_str!("faketime_lacks.c");

/// A clock that can be set. Time that is measured (monotonic) goes on as it does.
#[derive(Clone, Debug)]
pub(super) struct SettableClock {
    libraries: String,
    setting: PathBuf,
}

impl SettableClock {
    /// Makes one, with its files in this directory.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let faketime = FAKETIME.iter().find(|file| Path::new(file).is_file());
        let faketime = faketime.context("libfaketime is not installed (apt-get install libfaketime)")?;
        let (source, missing) = (directory.join("faketime_lacks.c"), directory.join("faketime_lacks.so"));
        fs::write(&source, MISSING).with_context(|| format!("cannot write {}", source.display()))?;
        let mut command = Command::new("cc");
        command.args(["-O2", "-shared", "-fPIC", "-pthread", "-o"]).arg(&missing).arg(&source).stdin(Stdio::null());
        let answer = command.output().context("there is no C compiler (cc)")?;
        let told = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "cc refuses {}: {told}", source.display());
        let clock =
            Self { libraries: format!("{}:{faketime}", missing.display()), setting: directory.join("clock-offset") };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Sets it so many seconds before or behind the real one: within a second whoever looks at it sees that.
    pub(super) fn set(&self, offset: &str) -> Result<()> {
        fs::write(&self.setting, offset).with_context(|| format!("cannot write {}", self.setting.display()))
    }

    /// A worker that goes by it.
    pub(super) fn given_to(&self, worker: WorkerConfig) -> WorkerConfig {
        worker
            .with_variable("LD_PRELOAD", &self.libraries)
            .with_variable("FAKETIME_TIMESTAMP_FILE", &self.setting.display().to_string())
            .with_variable("FAKETIME_CACHE_DURATION", "1")
            .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}
