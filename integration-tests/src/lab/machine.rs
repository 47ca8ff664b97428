//! Where a figure was measured: figures of different machines are not compared.

use std::fmt;
use std::fs;
use std::thread;

use serde::Serialize;

/// What the machine says of itself.
#[derive(Clone, Debug, Serialize)]
pub(in crate::lab) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    kafka: String,
    build: &'static str,
}

impl Machine {
    /// This one; what it does not say stays unknown.
    pub(in crate::lab) fn this() -> Self {
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kilobytes: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            processor,
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kilobytes / f64::from(1 << 20),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            kafka: include_str!("../../kafka.version").trim().to_owned(),
            build: "cargo's dev profile of this workspace, opt-level 3",
        }
    }

    /// Without what runs on it.
    pub(in crate::lab) fn hardware(&self) -> String {
        let Self { processor, cores, memory_gib, kernel, .. } = self;
        format!("{processor}, {cores} core(s), {memory_gib:.0} GiB, Linux {kernel}")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kafka, build, .. } = self;
        writeln!(f, "machine: {}", self.hardware())?;
        write!(f, "         Kafka {kafka} on the same machine, one node, -Xmx512m; {build}")
    }
}

/// The first line of a file of `name: value` lines that has this name.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let named = |line: &str| Some(line.split_once(':').filter(|(found, _)| found.trim() == name)?.1.trim().to_owned());
    text.lines().find_map(named)
}
