//! A program that the lab runs beside itself: started, watched, killed, stopped, measured.
//!
//! It is started by way of `lab exec`, which gives it back the signals that the lab blocks, binds its life to the
//! lab's where that is wanted, and then becomes the program: the process id stays the same.
//!
//! Programs must be started from a thread that lives as long as they should: the kernel ends a bound process with the
//! *thread* that started it. The lab starts them from its main thread only.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::interrupt::signals;
use crate::broker::process;
use crate::log_file;

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// This program as it was started, also when a build has replaced its file since.
pub const OWN_FILE: &str = "/proc/self/exe";
/// `USER_HZ` is 100 on every Linux, whatever the kernel itself counts in.
const TICK_MS: u64 = 10;

/// Become another program (for the lab itself).
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// End when the lab ends.
    #[arg(long)]
    bound: bool,
    /// The program.
    program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs `lab exec`: returns only if it fails.
///
/// # Errors
/// There is no such program, or the kernel refuses.
pub fn exec(args: &ExecArgs) -> Result<Infallible> {
    if args.bound {
        set_pdeathsig(Signal::SIGKILL).context("cannot bind the program to the lab")?;
    }
    signals().thread_unblock().context("cannot unblock SIGINT and SIGTERM")?;
    let error = Command::new(&args.program).args(&args.arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", args.program.display()))
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// What people call it.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it prints is appended to this file.
    pub log: PathBuf,
    /// Whether it ends with the lab, whatever ends the lab.
    pub bound: bool,
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// There is no such file, or the kernel refuses.
    pub fn start(&self) -> Result<Running> {
        ensure!(self.path.is_file(), "{} is not built; ./x builds it", self.path.display());
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut command = Command::new(OWN_FILE);
        command.arg("exec").args(self.bound.then_some("--bound")).arg("--").arg(&self.path).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("cannot share the log file")?).stderr(log);
        // A group of its own keeps Ctrl-C in the terminal from reaching it before the lab decides.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Running { name: self.name.clone(), log: self.log.clone(), child, kill_on_drop: true })
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        log_file::quoted_tail(&self.log)
    }
}

/// The executable `name` that was built together with this one.
///
/// # Errors
/// The kernel does not say where this one is.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(own.with_file_name(name))
}

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    log: PathBuf,
    child: Child,
    kill_on_drop: bool,
}

/// What the kernel has counted for a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and system time of all its threads, in steps of 10 ms.
    pub cpu: Duration,
    /// The most memory it ever had resident (`VmHWM`).
    pub resident_bytes_max: u64,
}

impl Running {
    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        log_file::quoted_tail(&self.log)
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// It has; the message holds the end of its log.
    pub fn ensure_runs(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for a child's status")? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself with {status};{}", self.name, self.log_tail()),
        }
    }

    /// `kill -9`; returns when it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        self.kill_on_drop = false;
        Ok(())
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// It is gone already.
    pub fn terminate(&self) -> Result<()> {
        process::signal(self.pid(), Signal::SIGTERM)
    }

    /// Waits until it has ended with exit code 0, as [`Self::terminate`] asked.
    ///
    /// # Errors
    /// It takes longer, or ends in another way; the message holds the end of its log.
    pub fn wait_for_success(mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for a child's status")? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "{} did not stop within {timeout:?} of SIGTERM;{}",
                self.name,
                self.log_tail()
            );
            thread::sleep(POLL_INTERVAL);
        };
        self.kill_on_drop = false;
        ensure!(status.success(), "{} {} after SIGTERM;{}", self.name, ended(status), self.log_tail());
        Ok(())
    }

    /// Lets it run on.
    pub fn release(mut self) {
        self.kill_on_drop = false;
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid()).with_context(|| format!("cannot measure {}, process {}", self.name, self.pid()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.kill_on_drop {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn ended(status: ExitStatus) -> String {
    format!("ended with {status} instead of exit code 0")
}

/// User and system time of all threads that a process has or had, in steps of 10 ms.
///
/// # Errors
/// It is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets, and may itself contain brackets and spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
    let ticks = |field: usize| -> Result<u64> { Ok(fields.get(field).context("stat is short")?.parse()?) };
    // proc(5) numbers fields from 1: after the name, field 3 comes first; utime is 14, stime 15.
    let ticks = ticks(14 - 3)? + ticks(15 - 3)?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

fn usage(pid: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM: it has ended")?;
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(Usage { cpu: cpu_time(pid)?, resident_bytes_max: kilobytes * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).expect("this process runs");
        assert!(usage.resident_bytes_max > 1 << 20);
    }

    #[test]
    fn a_process_that_does_not_exist_cannot_be_measured() {
        assert!(usage(u32::MAX).is_err());
    }
}
