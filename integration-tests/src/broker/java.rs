//! Kafka's Java processes: where the jars are, how storage is formatted, how a broker is spawned.
//!
//! The kernel kills a broker when the *thread* that spawned it ends (`PR_SET_PDEATHSIG`). A thread of the test runner
//! ends with its test, so every broker is spawned by one thread that lives as long as this process.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, io, thread};

use anyhow::{Context, Result, bail, ensure};

const VERSION: &str = include_str!("../../kafka.version");

/// Gives each node its cluster id and its first metadata. Every node must have the same id.
pub(super) fn format_storage(server_properties: &[PathBuf], arguments: &[String], libs: Option<&Path>) -> Result<()> {
    let cluster_id = new_cluster_id();
    let spawn = |properties: &PathBuf| -> Result<Child> {
        let mut java = java()?;
        java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN", "-cp", &class_path(libs)?]);
        java.args(["kafka.tools.StorageTool", "format", "-t", &cluster_id, "-c"]).arg(properties).args(arguments);
        java.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        java.spawn().context("cannot run java; install it with `./x setup`")
    };
    let children: Vec<Child> = server_properties.iter().map(spawn).collect::<Result<_>>()?;
    for (child, properties) in children.into_iter().zip(server_properties) {
        let Output { status, stdout, stderr } = child.wait_with_output().context("cannot wait for java")?;
        ensure!(
            status.success(),
            "Kafka's StorageTool refused {} ({status}): {}{}",
            properties.display(),
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
    }
    Ok(())
}

/// A shell script that runs one of Kafka's tools.
pub(super) fn script(class: &str) -> Result<String> {
    let java = java()?;
    let words = [java.get_program()].into_iter().chain(java.get_args()).map(|word| word.to_string_lossy().into_owned());
    let (java, class_path) = (words.collect::<Vec<_>>().join(" "), class_path(None)?);
    Ok(format!(
        "#!/bin/sh\nexec {java} -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.level=WARN -cp '{class_path}' {class} \"$@\"\n"
    ))
}

/// Runs one of Kafka's tools to its end; what it printed.
pub(super) fn tool(class: &str, arguments: &[&str], libs: Option<&Path>) -> Result<String> {
    let mut java = java()?;
    java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN", "-cp", &class_path(libs)?, class]);
    let Output { status, stdout, stderr } = java.args(arguments).output().context("cannot run java")?;
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "Kafka's {class} ended with {status}: {stderr}");
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Spawns a broker; what it prints is appended to `log`.
pub(super) fn spawn_kafka(server_properties: &Path, log: &Path, detached: bool, libs: Option<&Path>) -> Result<Child> {
    let output = OpenOptions::new().create(true).append(true).open(log);
    let output = output.with_context(|| format!("cannot open {}", log.display()))?;
    let java = java()?;
    let mut command = if detached || !on_path("setpriv") {
        java
    } else {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL"]).arg(java.get_program()).args(java.get_args());
        bound
    };
    command.args(["-Xms128m", "-Xmx512m", "-Dlog4j2.level=INFO", "-cp", &class_path(libs)?, "kafka.Kafka"]);
    command.arg(server_properties);
    command.stdin(Stdio::null()).stdout(output.try_clone().context("cannot share the log file")?).stderr(output);
    // A group of its own keeps Ctrl-C in the terminal from stopping brokers before the program that uses them.
    command.process_group(0);
    spawn_from_lasting_thread(command).context("cannot run java; install it with `./x setup`")
}

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || {
            for mut job in inbox {
                // Who asked may have panicked meanwhile; then nobody owns the broker.
                if let Err(unclaimed) = job.reply.send(job.command.spawn())
                    && let Ok(mut child) = unclaimed.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        jobs
    });
    let (reply, answer) = channel();
    spawner.send(Job { command, reply }).expect("the spawner lives as long as its inbox, which is static");
    answer.recv().expect("the spawner answers every job")
}

fn java() -> Result<Command> {
    let java = match env::var_os("JAVA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/java"),
        None if on_path("java") => PathBuf::from("java"),
        None => bail!("java is not installed; run ./x setup"),
    };
    let mut command = Command::new(java);
    command.args(["-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"]);
    Ok(command)
}

fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Of the jars in a directory, or of the usual ones.
fn class_path(of: Option<&Path>) -> Result<String> {
    let libs = of.map_or_else(libs, Path::to_owned);
    ensure!(libs.is_dir(), "Kafka is not in {}; fetch it with ./x setup", libs.display());
    Ok(format!("{}/*", libs.display()))
}

/// `./x` says where the jars are; without it they are looked for in the same places.
fn libs() -> PathBuf {
    let from = |variable: &str| env::var_os(variable).map(PathBuf::from);
    if let Some(libs) = from("PROCESSOR_KAFKA_LIBS") {
        return libs;
    }
    if let Some(home) = from("KAFKA_HOME") {
        return home.join("libs");
    }
    libs_of(VERSION.trim())
}

/// Where `./x` puts the jars of a version.
pub(super) fn libs_of(version: &str) -> PathBuf {
    let from = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let user_cache = || from("XDG_CACHE_HOME").unwrap_or_else(|| from("HOME").unwrap_or_default().join(".cache"));
    let cache = from("PROCESSOR_CACHE").unwrap_or_else(|| user_cache().join("processor"));
    cache.join(format!("kafka-{version}/libs"))
}

/// 22 characters of base64, of which the last may only carry two bits. Clusters that meet on a reused port refuse each
/// other by it.
fn new_cluster_id() -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let unique = ((nanos << 22) | u128::from(std::process::id())) & ((1 << 84) - 1);
    format!("{unique:021x}A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_22_characters_of_base64() {
        let id = new_cluster_id();
        assert_eq!(id.len(), 22);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn the_version_is_pinned() {
        assert!(VERSION.trim().split('.').all(|part| part.parse::<u16>().is_ok()));
    }
}
