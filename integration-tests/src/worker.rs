//! A worker process of the ledger, and what a test may do to it: kill, freeze, thaw, stop.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::broker::process;
use crate::log_file;

/// What a process is given so that its allocator (jemalloc) overwrites what is freed: whoever still uses it, librdkafka and
/// RocksDB included, does not get away with it.
pub const OVERWRITE_FREED: (&str, &str) = ("MALLOC_CONF", "junk:free");

const POLL: Duration = Duration::from_millis(10);
/// How long a worker that must stop by itself may take.
const REFUSAL: Duration = Duration::from_mins(1);

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The program; beside the test binary's directory.
    pub program: PathBuf,
    /// Its arguments, behind `run`.
    pub arguments: Vec<String>,
    /// Variables of its environment. Those of the harness with the prefix `PROCESSOR_` are not handed on.
    pub variables: Vec<(String, String)>,
    /// Where its log goes; every start appends.
    pub log: PathBuf,
    /// The words of a command that starts it somewhere else, such as on a [`Disk`](crate::disk::Disk), as the same process.
    pub within: Vec<String>,
}

impl WorkerConfig {
    /// A program of this workspace, such as `ledger-worker`, as cargo built it.
    ///
    /// # Panics
    /// If the test binary does not lie in cargo's target directory.
    pub fn new(program: &str, log: impl Into<PathBuf>) -> Self {
        let test = std::env::current_exe().expect("a process knows its program");
        let directory = test.parent().expect("a program lies in a directory");
        let directory =
            if directory.ends_with("deps") { directory.parent().expect("cargo's layout") } else { directory };
        Self {
            program: directory.join(program),
            arguments: Vec::new(),
            variables: Vec::new(),
            log: log.into(),
            within: Vec::new(),
        }
    }

    /// With one more option and its value.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts read better without `&`")]
    pub fn with(mut self, option: &str, value: impl ToString) -> Self {
        self.arguments.push(format!("--{option}"));
        self.arguments.push(value.to_string());
        self
    }

    /// With one more option whose value is a time, in whole milliseconds.
    #[must_use]
    pub fn with_time(self, option: &str, time: Duration) -> Self {
        self.with(option, format!("{}ms", time.as_millis()))
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With one more flag.
    #[must_use]
    pub fn with_flag(mut self, flag: &str) -> Self {
        self.arguments.push(format!("--{flag}"));
        self
    }

    /// Starts it. It dies with the thread that starts it.
    ///
    /// # Panics
    /// If it is not built, or the kernel refuses.
    pub fn start(&self) -> Worker {
        self.spawn().unwrap_or_else(|error| panic!("the worker does not start: {error:#}"))
    }

    /// Runs a worker that must stop by itself with this exit code; its log.
    ///
    /// # Panics
    /// If it goes on, or stops with another one.
    pub fn refused(&self, code: i32) -> String {
        let mut worker = self.start();
        let status = worker.wait(REFUSAL).unwrap_or_else(|error| panic!("{error:#}"));
        let log = worker.log_since_start();
        assert_eq!(status.code(), Some(code), "{log}");
        log
    }

    fn spawn(&self) -> Result<Worker> {
        ensure!(self.program.exists(), "{} is not built: run ./x cargo build --workspace", self.program.display());
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let log_start = log.metadata().context("cannot look at the log")?.len() as usize;
        let mut words = self.within.iter().map(String::as_str).chain(["setpriv", "--pdeathsig", "KILL"]);
        let mut command = Command::new(words.next().expect("the chain is not empty"));
        without_settings(&mut command);
        let child = command
            .args(words)
            .arg(&self.program)
            .arg("run")
            .args(&self.arguments)
            .env("RUST_LOG", std::env::var("PROCESSOR_TEST_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("NO_COLOR", "1")
            .envs(self.variables.iter().cloned())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Worker { child, log: self.log.clone(), log_start })
    }
}

/// Keeps the variables of the harness, such as `PROCESSOR_KAFKA_LIBS`, from a program that takes those with this prefix for
/// its settings.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROCESSOR_") {
            command.env_remove(name);
        }
    }
}

/// A running worker; killed when dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    log: PathBuf,
    /// How long the log was when this worker was started.
    log_start: usize,
}

impl Worker {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the worker")?;
        self.child.wait().context("cannot wait for the worker")?;
        Ok(())
    }

    /// Freezes it (SIGSTOP), and waits until it stands still.
    pub fn freeze(&self) -> Result<()> {
        process::signal(self.pid(), Signal::SIGSTOP)?;
        await_condition("the worker to stand still", Duration::from_secs(5), || Ok(self.is_frozen()))
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> bool {
        process::state(self.pid()) == Some('T')
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        process::signal(self.pid(), Signal::SIGCONT)
    }

    /// Asks it to stop (SIGTERM). One that is frozen hears of it when it is let go.
    pub fn terminate(&self) -> Result<()> {
        process::signal(self.pid(), Signal::SIGTERM)
    }

    /// Stops it cleanly (SIGTERM) and requires exit code 0.
    pub fn stop(self) -> Result<()> {
        self.terminate()?;
        self.stopped()
    }

    /// Waits for the end that [`Worker::terminate`] has asked for, and requires exit code 0.
    pub fn stopped(mut self) -> Result<()> {
        let ended = self.wait(Duration::from_secs(30));
        if ended.is_err() {
            self.write_stacks();
        }
        let status = ended?;
        ensure!(status.success(), "the worker ended with {status} on SIGTERM; its log ends:\n{}", self.log_tail(30));
        Ok(())
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the worker")? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("the worker did not end within {patience:?}; its log ends:\n{}", self.log_tail(30));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits for it to die by SIGKILL, without anybody's doing: at a failpoint.
    pub fn dies(&mut self, patience: Duration) -> Result<()> {
        let status = self.wait(patience)?;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "it ended with {status}:\n{}", self.log_tail(60));
        Ok(())
    }

    /// Makes it crash as native code does, and waits for its end; what it has said since its start.
    pub fn crashes(&mut self, patience: Duration) -> Result<String> {
        process::signal(self.pid(), Signal::SIGSEGV)?;
        let status = self.wait(patience)?;
        let log = self.log_since_start();
        ensure!(status.signal() == Some(Signal::SIGSEGV as i32), "it ended with {status}:\n{log}");
        Ok(log)
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes down, beside its log, where each of its threads stands: for whoever wants to know why it does not go on.
    pub fn write_stacks(&self) {
        let file = self.log.with_extension("stacks");
        if let Err(error) = fs::write(&file, self.stacks()) {
            tracing::debug!(%error, file = %file.display(), "stacks cannot be written");
        }
    }

    /// From gdb; without it, what the kernel says.
    fn stacks(&self) -> String {
        let gdb = Command::new("timeout")
            .args(["60", "gdb", "-p", &self.pid().to_string(), "-batch", "-ex", "thread apply all bt 40"])
            .output();
        if let Ok(told) = gdb
            && told.status.success()
        {
            return String::from_utf8_lossy(&told.stdout).into_owned();
        }
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let of = |thread: PathBuf| {
            let read = |file| fs::read_to_string(thread.join(file)).unwrap_or_default().trim().to_owned();
            format!("{} {}: in {}, call {}\n", thread.display(), read("comm"), read("wchan"), read("syscall"))
        };
        threads.map(|thread| of(thread.path())).collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        log_file::read(&self.log)
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        log_file::tail(&self.log, lines)
    }

    /// What it has logged since it was started; [`Worker::log`] also holds what earlier ones logged.
    pub fn log_since_start(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// Waits until it has logged a text since it was started.
    pub fn await_since_start(&self, text: &str, patience: Duration) -> Result<()> {
        let outcome = await_condition(text, patience, || Ok(self.log_since_start().contains(text)));
        outcome.with_context(|| format!("waiting for '{text}' in the log, which ends:\n{}", self.log_tail(30)))
    }

    /// The partitions that its threads together have, as far as its log says.
    pub fn assigned(&self) -> Vec<i32> {
        self.owned(None).into_values().flatten().map(|(partition, _)| partition).collect()
    }

    /// The partitions of a topic that its threads together have, as far as its log says.
    pub fn assigned_of(&self, topic: &str) -> Vec<i32> {
        self.owned(Some(topic)).into_values().flatten().map(|(partition, _)| partition).collect()
    }

    /// Waits until its threads together have this many partitions and run all of them.
    pub fn await_running(&self, partitions: usize, patience: Duration) -> Result<()> {
        let outcome = await_condition("all tasks to run", patience, || {
            let owned: Vec<_> = self.owned(None).into_values().flatten().collect();
            Ok(owned.len() == partitions && owned.iter().all(|(_, runs)| *runs))
        });
        outcome.with_context(|| format!("waiting for {partitions} partitions, the log ends:\n{}", self.log_tail(30)))
    }

    /// By thread: its partitions, of one topic or by number alone, and whether a task of the partition runs.
    fn owned(&self, topic: Option<&str>) -> BTreeMap<String, BTreeMap<i32, bool>> {
        let mut threads: BTreeMap<String, BTreeMap<i32, bool>> = BTreeMap::new();
        for line in self.log_since_start().lines() {
            let Some((_, of_thread)) = line.split_once("thread{id=") else { continue };
            let Some((thread, event)) = of_thread.split_once("}: ") else { continue };
            let partitions = threads.entry(thread.to_owned()).or_default();
            if event.starts_with("assigned ") {
                let listed = event.split_once("partitions=").map_or("", |(_, listed)| listed);
                let listed = listed.split(", ").filter_map(|name| name.trim().rsplit_once('-'));
                let listed = listed.filter(|(of, _)| topic.is_none_or(|topic| topic == *of));
                *partitions = listed.filter_map(|(_, number)| Some((number.parse().ok()?, false))).collect();
            } else if event.starts_with("revoked ") {
                partitions.clear();
            } else if let Some(task) = event.strip_prefix("running task=") {
                let task = task.split_whitespace().next().unwrap_or_default();
                let partition = task.rsplit_once('_').and_then(|(_, partition)| partition.parse::<i32>().ok());
                if let Some(runs) = partition.and_then(|partition| partitions.get_mut(&partition)) {
                    *runs = true;
                }
            }
        }
        threads
    }

    /// How many changelog records tasks have replayed before they ran, since this worker was started: partition and
    /// number, each time that a task began to run.
    pub fn replayed(&self) -> Vec<(i32, u64)> {
        let log = self.log_since_start();
        let value = |line: &str, name: &str| Some(line.split_once(name)?.1.split_whitespace().next()?.to_owned());
        let replayed = |line: &str| {
            let task = value(line, "}: running task=")?;
            let partition = task.rsplit_once('_')?.1.parse().ok()?;
            Some((partition, value(line, "replayed=")?.parse().ok()?))
        };
        log.lines().filter_map(replayed).collect()
    }

    /// Waits until its log holds a text.
    pub fn await_log(&self, text: &str, patience: Duration) -> Result<()> {
        let outcome = await_condition(text, patience, || Ok(self.log().contains(text)));
        outcome.with_context(|| format!("waiting for '{text}' in the log, which ends:\n{}", self.log_tail(30)))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds.
///
/// # Errors
/// It did not hold in time, or could not be asked.
pub fn await_condition(what: &str, patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        ensure!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::sleep(POLL);
    }
    Ok(())
}
