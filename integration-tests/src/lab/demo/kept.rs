//! What a demo has left running, and how it is stopped.
//!
//! It is found by command lines and not by the process ids of a file, so that what an interrupted demo left is found
//! too and a reused process id is left alone.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::broker::process;

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The files of the demo, all below one directory.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// `target/demo`.
    pub(super) dir: PathBuf,
}

impl Files {
    /// Kafka's files.
    pub(super) fn kafka(&self) -> PathBuf {
        self.dir.join("kafka")
    }

    /// Where a worker keeps its state.
    pub(super) fn state(&self, worker: &str) -> PathBuf {
        self.states().join(worker)
    }

    /// What a worker has printed.
    pub(super) fn log(&self, worker: &str) -> PathBuf {
        self.dir.join(format!("{worker}.log"))
    }

    /// Held while a demo runs.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Present while a demo is kept: `./x clean` looks for it.
    pub(super) fn kept(&self) -> PathBuf {
        self.dir.join("kept")
    }

    fn states(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Removes what earlier runs left, and makes the directories of this one.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).with_context(|| format!("cannot list {}", self.dir.display()))? {
            let path = entry?.path();
            if path == self.lock() {
                continue;
            }
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir_all(self.states()).with_context(|| format!("cannot create {}", self.states().display()))
    }

    /// The broker of this directory, while it runs.
    pub(super) fn running_kafka(&self) -> Option<u32> {
        process::find_kafka(&self.kafka().join("node-1/server.properties"))
    }

    /// The workers whose state is in this directory, while they run.
    pub(super) fn running_workers(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| self.is_worker(*pid)).collect()
    }

    fn is_worker(&self, pid: u32) -> bool {
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = command_line.split(|byte| *byte == 0).skip_while(|argument| *argument != b"--state-dir");
        let states = self.states();
        arguments.nth(1).is_some_and(|state| state.starts_with(states.as_os_str().as_encoded_bytes()))
    }

    /// Everything of this directory that runs.
    pub(super) fn running(&self) -> Vec<u32> {
        self.running_workers().into_iter().chain(self.running_kafka()).collect()
    }
}

/// Runs `lab demo --stop`: the workers first, since they leave the group through the broker.
pub(super) fn stop(files: &Files) -> Result<()> {
    let (workers, kafka) = (files.running_workers(), files.running_kafka());
    end(&workers, || files.running_workers())?;
    end(&Vec::from_iter(kafka), || Vec::from_iter(files.running_kafka()))?;
    if files.kept().exists() {
        fs::remove_file(files.kept()).with_context(|| format!("cannot remove {}", files.kept().display()))?;
    }
    let stopped = workers.len() + usize::from(kafka.is_some());
    println!("{}", if stopped == 0 { "no demo of this checkout runs" } else { "the demo is stopped" });
    Ok(())
}

fn end(pids: &[u32], running: impl Fn() -> Vec<u32>) -> Result<()> {
    for pid in pids {
        process::signal(*pid, Signal::SIGCONT)?;
        process::signal(*pid, Signal::SIGTERM)?;
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !running().is_empty() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    for pid in running() {
        println!("process {pid} did not stop within {STOP_TIMEOUT:?} and is killed");
        process::signal(pid, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Says what holds the directory.
pub(super) fn describe(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!("processes {}", pids.join(", "))
}

/// Makes the directory.
pub(super) fn files(target: &Path) -> Result<Files> {
    let target = std::path::absolute(target).with_context(|| format!("no path: {}", target.display()))?;
    let dir = target.join("demo");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(Files { dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_nobody_uses_has_nothing_running() {
        assert!(Files { dir: PathBuf::from("/nowhere") }.running().is_empty());
    }
}
