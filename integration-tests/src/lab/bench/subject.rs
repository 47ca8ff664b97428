//! The two programs that are measured, each as a process of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, WINDOW};
use crate::client::create_topic;
use crate::lab::program::{self, OWN_FILE, Program, Running};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The limit.
    HandLoop,
    /// The processor.
    MovingAverage,
}

impl Subject {
    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HandLoop => "hand-loop",
            Self::MovingAverage => "moving-average",
        }
    }

    /// Ends its process: the processor must stop cleanly when it is asked to.
    pub(super) fn end(self, process: Running) -> Result<()> {
        match self {
            Self::HandLoop => process.kill(),
            Self::MovingAverage => {
                process.terminate()?;
                process.wait_for_success(STOP_TIMEOUT)
            }
        }
    }
}

/// The loop, with transactions that collect for so long.
pub(super) fn hand_loop(
    bench: &Bench<'_>,
    group: &str,
    input: &str,
    output: &str,
    transaction_ms: u64,
) -> Result<Program> {
    let changelog = format!("{group}-changelog");
    create_topic(bench.bootstrap, &changelog, bench.args.partitions, &[("cleanup.policy", "compact")])?;
    let time = &*transaction_ms.to_string();
    let options =
        [("group", group), ("input", input), ("output", output), ("changelog", &changelog), ("transaction-ms", time)];
    Ok(arguments(bench, group, OWN_FILE.into(), "hand-loop", &options))
}

/// `moving-average run` under a group of its own.
pub(super) fn moving_average(bench: &Bench<'_>, group: &str, input: &str, output: &str) -> Result<Program> {
    let state: PathBuf = bench.dir.join("state").join(group);
    let state = state.to_str().context("the path of the repository is not UTF-8")?;
    let options = [("application-id", group), ("input", input), ("output", output), ("state-dir", state)];
    Ok(arguments(bench, group, program::beside("moving-average")?, "run", &options))
}

fn arguments(bench: &Bench<'_>, name: &str, path: PathBuf, verb: &str, options: &[(&str, &str)]) -> Program {
    let (bootstrap, window) = (("bootstrap-servers", bench.bootstrap), ("window", &*WINDOW.to_string()));
    let options = options.iter().copied().chain([bootstrap, window]);
    let options = options.flat_map(|(option, value)| [format!("--{option}"), value.to_owned()]);
    let arguments = [verb.to_owned()].into_iter().chain(options).collect();
    Program { name: name.to_owned(), path, arguments, log: log(bench.dir, name), bound: true }
}

fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}
