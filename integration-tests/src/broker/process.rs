//! What the kernel knows about a process, and signals to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends `signal` to `pid`.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let target = Pid::from_raw(i32::try_from(pid).context("process ids fit into 31 bits")?);
    kill(target, signal).with_context(|| format!("cannot send {signal} to process {pid}"))
}

/// The scheduler state as one letter (`R`, `S`, `T` = stopped, `Z` = ended and not yet reaped); absent when there is no
/// such process.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may itself contain brackets and spaces.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The process of the broker that was started from `server_properties`, while it runs.
///
/// It is found by its command line, so that a process id that was reused is never mistaken for it.
pub fn find_kafka(server_properties: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| is_kafka(*pid, server_properties))
}

fn is_kafka(pid: u32, server_properties: &Path) -> bool {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let properties = server_properties.as_os_str().as_encoded_bytes();
    let mut arguments = command_line.split(|byte| *byte == 0).skip_while(|argument| *argument != b"kafka.Kafka");
    arguments.nth(1) == Some(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs() {
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_state() {
        assert_eq!(state(u32::MAX), None);
    }

    #[test]
    fn a_broker_that_was_never_started_is_not_found() {
        assert_eq!(find_kafka(Path::new("/nowhere/server.properties")), None);
    }
}
