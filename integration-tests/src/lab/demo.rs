//! `lab demo`: two workers, one of them killed half way, and proof that nothing was lost or doubled.
//!
//! The order of events: a real Kafka starts and gets an input and an output topic; the workers start and share the
//! partitions; readings are produced at a steady pace, so that the kill meets work that is going on; when half of the
//! averages are visible, one worker gets SIGKILL and is started again at once; when all are visible, the workers are
//! asked to stop, and an oracle that shares no code with them checks every output and every committed offset.
//!
//! "Back after" is the time from the kill to the moment when a `read_committed` reader has seen a new average in *each*
//! of the killed worker's partitions. New are the averages behind what those partitions held when the process was gone,
//! so nothing that the dead worker had written counts.
//!
//! Everything is below `target/demo`, on loopback, and ends with this program unless `--keep` was given.

#![expect(clippy::print_stdout, reason = "this is a command line")]

mod kept;
mod progress;
mod readings;
mod report;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, value_parser};

use self::kept::Files;
use self::progress::Progress;
pub use self::readings::Format;
use self::readings::{Producing, Readings};
use self::report::{Averages, Kept, Revival};
use super::group::Group;
use super::interrupt::Interrupt;
use super::outputs::Outputs;
use super::program::{self, Program, Running};
use crate::broker::{ClusterConfig, KafkaCluster};
use crate::client::{Observer, create_topic};
use crate::oracle::{check_moving_average, check_offsets, grouped, input_ends};

const APPLICATION: &str = "demo";
const INPUT: &str = "readings";
const OUTPUT: &str = "averages";
const PARTITIONS: i32 = 4;
const WINDOW: usize = 10;
/// The topics stay whole for as long as a demo is kept.
const TOPIC: [(&str, &str); 1] = [("retention.ms", "-1")];

/// How long the readings take to arrive, unless the pace would leave these bounds.
const PRODUCE_SECONDS: u64 = 8;
const RATE_MIN: u64 = 500;
const RATE_MAX: u64 = 100_000;

const SHARE_TIMEOUT: Duration = Duration::from_secs(30);
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Watch two workers, one of them killed half way, lose and double nothing.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// How many sensor readings to produce.
    #[arg(long, default_value_t = 200_000, value_parser = value_parser!(u64).range(2..=50_000_000))]
    readings: u64,
    /// Of how many sensors.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u64).range(1..))]
    sensors: u64,
    /// Decides the readings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many workers share the four partitions.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(1..=PARTITIONS as u64))]
    workers: u64,
    /// How values are written into the topics.
    #[arg(long, value_enum, default_value_t = Format::Binary)]
    format: Format,
    /// Leave Kafka and the workers running.
    #[arg(long)]
    keep: bool,
    /// Stop what an earlier --keep left running, and do nothing else.
    #[arg(long, exclusive = true)]
    stop: bool,
}

/// Runs `lab demo`, with `target` being the directory for run-time data.
///
/// # Errors
/// Something could not be started or measured, or the check does not hold.
pub fn run(args: &DemoArgs, target: &Path) -> Result<()> {
    let files = kept::files(target)?;
    if args.stop {
        return kept::stop(&files);
    }
    let interrupt = Interrupt::watch()?;
    let _lock = claim(&files)?;
    files.clear()?;
    println!(
        "demo: {} readings of {} sensors, seed {}; {} worker(s) of moving-average, one of them killed half way",
        grouped(args.readings),
        grouped(args.sensors),
        args.seed,
        args.workers
    );
    let mut stage = Stage::set(args, &files, &interrupt)?;
    let revival = stage.play()?;
    if !args.keep {
        stage.stop_workers()?;
    }
    let result = stage.judge(revival.as_ref());
    if args.keep {
        stage.keep()?;
    } else {
        report::look_further(&files, &stage.worker_names());
    }
    result
}

/// One demo at a time has the directory; one that was kept is not overwritten.
fn claim(files: &Files) -> Result<File> {
    let lock = File::create(files.lock()).with_context(|| format!("cannot create {}", files.lock().display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another demo of this checkout runs: wait for it, or end it"),
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the demo's directory"),
    }
    let running = files.running();
    ensure!(
        running.is_empty(),
        "an earlier demo was kept and still runs ({}): stop it with `./x demo --stop`, then run this again",
        kept::describe(&running)
    );
    Ok(lock)
}

/// Kafka, the workers and what watches them.
struct Stage<'a> {
    args: &'a DemoArgs,
    files: &'a Files,
    interrupt: &'a Interrupt,
    progress: Progress,
    /// Before Kafka, so that they end first.
    workers: Vec<Worker>,
    outputs: Outputs,
    group: Group,
    bootstrap: String,
    kafka: Broker,
}

struct Worker {
    program: Program,
    running: Option<Running>,
}

/// Ends with the demo, also where it was started to outlive it.
struct Broker(Option<KafkaCluster>);

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(kafka) = &self.0 {
            let _ = kafka.kill(1);
        }
    }
}

/// The worker that was killed, until it is back.
struct Killed {
    name: String,
    at: Instant,
    inside_transaction: bool,
    back_after: Option<Duration>,
}

impl<'a> Stage<'a> {
    /// Starts Kafka and the workers; returns when each of them has partitions.
    fn set(args: &'a DemoArgs, files: &'a Files, interrupt: &'a Interrupt) -> Result<Self> {
        let progress = Progress::new(args.readings);
        progress.event("starting Kafka ..");
        let config = ClusterConfig { detached: args.keep, ..ClusterConfig::single(files.kafka()) };
        let kafka = Broker(Some(KafkaCluster::start(config)?));
        interrupt.check()?;
        let bootstrap = kafka.0.as_ref().expect("it was just started").bootstrap_servers();
        progress.event(&format!("Kafka is ready on {bootstrap}"));
        for topic in [INPUT, OUTPUT] {
            create_topic(&bootstrap, topic, PARTITIONS, &TOPIC)?;
        }
        let outputs = Outputs::watch(&bootstrap, OUTPUT, PARTITIONS)?;
        let group = Group::new(&bootstrap, APPLICATION)?;
        let mut stage =
            Self { args, files, interrupt, progress, workers: Vec::new(), outputs, group, bootstrap, kafka };
        stage.start_workers()?;
        Ok(stage)
    }

    fn start_workers(&mut self) -> Result<()> {
        for number in 1..=self.args.workers {
            let program = self.program(&format!("worker-{number}"))?;
            let running = Some(program.start()?);
            self.workers.push(Worker { program, running });
        }
        let mut shared = BTreeMap::new();
        let interrupt = self.interrupt.clone();
        let all_have_some = interrupt.wait_until(SHARE_TIMEOUT, || {
            self.ensure_workers_run()?;
            shared = self.assignments();
            let assigned: usize = shared.values().map(Vec::len).sum();
            Ok(shared.len() == self.workers.len() && assigned == PARTITIONS as usize)
        })?;
        ensure!(
            all_have_some,
            "the workers did not share the partitions within {SHARE_TIMEOUT:?}, they have {shared:?};{}",
            self.log_tails()
        );
        for (worker, partitions) in &shared {
            self.progress.event(&format!("{worker} has the partitions {}", list(partitions)));
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Result<Program> {
        let state = self.files.state(name);
        let state = state.to_str().context("the path of the repository is not UTF-8")?;
        let arguments = [
            ["--bootstrap-servers", &self.bootstrap],
            ["--application-id", APPLICATION],
            ["--input", INPUT],
            ["--output", OUTPUT],
            ["--state-dir", state],
            ["--instance-id", name],
            ["--window", &WINDOW.to_string()],
            ["--format", self.args.format.name()],
        ];
        Ok(Program {
            name: name.to_owned(),
            path: program::beside("moving-average")?,
            arguments: ["run"].into_iter().chain(arguments.into_iter().flatten()).map(str::to_owned).collect(),
            log: self.files.log(name),
            bound: !self.args.keep,
        })
    }

    /// Produces, kills and revives, until every average is visible or nothing moves any more.
    fn play(&mut self) -> Result<Option<Revival>> {
        let mut producing = Producing::start(&self.bootstrap, self.readings())?;
        let mut killed: Option<Killed> = None;
        let (mut before, mut moved_at) = (0, Instant::now());
        loop {
            self.interrupt.check()?;
            self.ensure_workers_run()?;
            let (visible, produced) = (self.outputs.visible()?, producing.delivered());
            self.progress.update(produced, visible);
            match &mut killed {
                None if visible * 2 >= self.args.readings => killed = Some(self.kill_one(visible)?),
                Some(killed) if killed.back_after.is_none() => self.look_whether_back(killed),
                None | Some(_) => {}
            }
            let all = producing.is_done()? && visible >= self.args.readings;
            if all && killed.is_some() {
                break;
            }
            if visible > before {
                (before, moved_at) = (visible, Instant::now());
            } else if moved_at.elapsed() > STALL_TIMEOUT {
                self.progress.event(&format!("no new average for {STALL_TIMEOUT:?}: the demo gives up waiting"));
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.progress.finish(producing.delivered(), self.outputs.visible()?);
        Ok(killed.map(|killed| Revival { worker: killed.name, back_after: killed.back_after }))
    }

    fn readings(&self) -> Readings {
        Readings {
            topic: INPUT.to_owned(),
            partitions: PARTITIONS,
            seed: self.args.seed,
            count: self.args.readings,
            sensors: self.args.sensors,
            rate: (self.args.readings / PRODUCE_SECONDS).clamp(RATE_MIN, RATE_MAX),
            format: self.args.format,
        }
    }

    /// Kills the worker that has the most partitions and starts it again at once.
    ///
    /// It is a static member of its group (it has an instance id), so within its session time-out of 6 s its partitions
    /// wait for it instead of moving to another worker.
    fn kill_one(&mut self, visible: u64) -> Result<Killed> {
        let shared = self.assignments();
        let (name, partitions) =
            shared.into_iter().max_by_key(|(_, partitions)| partitions.len()).context("no worker has partitions")?;
        let worker = self.workers.iter_mut().find(|worker| worker.program.name == name);
        let worker = worker.context("the group has a member that the demo did not start")?;
        let running = worker.running.take().expect("a worker runs unless it is being restarted");
        let (pid, at) = (running.pid(), Instant::now());
        running.kill()?;
        let ends = self.outputs.ends()?;
        worker.running = Some(worker.program.start()?);
        let inside_transaction = partitions.iter().any(|partition| ends.open.contains(partition));
        self.outputs.await_offsets(partitions.iter().map(|partition| (*partition, ends.high[partition])).collect());
        let place = if inside_transaction { "inside an open transaction" } else { "between two transactions" };
        self.progress.event(&format!("kill -9 {name} (pid {pid}) {place}, {} averages out", grouped(visible)));
        self.progress.event(&format!("{name} is started again; the partitions {} wait for it", list(&partitions)));
        Ok(Killed { name, at, inside_transaction, back_after: None })
    }

    fn look_whether_back(&self, killed: &mut Killed) {
        let Some(reached) = self.outputs.reached() else { return };
        let back_after = reached.duration_since(killed.at);
        killed.back_after = Some(back_after);
        let undone = if killed.inside_transaction { ", what it had left open is undone and done again" } else { "" };
        let text = format!("{} is back after {:.1} s{undone}", killed.name, back_after.as_secs_f32());
        self.progress.event(&text);
    }

    /// SIGTERM to all at once; each must end with exit code 0.
    fn stop_workers(&mut self) -> Result<()> {
        let running: Vec<Running> = self.workers.iter_mut().filter_map(|worker| worker.running.take()).collect();
        running.iter().try_for_each(Running::terminate)?;
        running.into_iter().try_for_each(|worker| worker.wait_for_success(STOP_TIMEOUT))?;
        self.progress.event("the workers have stopped on SIGTERM, exit code 0");
        Ok(())
    }

    /// Reads both topics and the committed offsets, checks them and prints the verdict.
    fn judge(&self, revival: Option<&Revival>) -> Result<()> {
        let all_visible = self.outputs.visible()? >= self.args.readings;
        let kafka = Observer::new(&self.bootstrap, APPLICATION)?;
        let mut input = kafka.read_committed(INPUT)?;
        // A transaction that never ends would be waited for; what is missing then is told as lost.
        let read_output = if all_visible { Observer::read_committed } else { Observer::read_committed_so_far };
        let mut output = read_output(&kafka, OUTPUT)?;
        self.args.format.into_binary(&mut input);
        self.args.format.into_binary(&mut output);
        let verdict = check_moving_average(&input, &output, WINDOW);
        let committed = kafka.committed_offsets(INPUT, all_visible)?;
        let committed = committed.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect();
        let offsets = check_offsets(&committed, &input_ends(&input));
        report::verdict(&verdict, &offsets, revival);
        println!("{}", Averages::of(&output));
        ensure!(
            verdict.inputs == self.args.readings && verdict.is_ok() && offsets.is_ok(),
            "the check does not hold;{}",
            self.log_tails()
        );
        ensure!(
            revival.is_some_and(|revival| revival.back_after.is_some()),
            "everything is right, but the worker that was killed was not seen back in each of its partitions: where there were no readings \
             left for one of them, run it with more --readings or --sensors;{}",
            self.log_tails()
        );
        Ok(())
    }

    /// Lets everything run on and says how to use and end it.
    fn keep(&mut self) -> Result<()> {
        let kafka = self.kafka.0.take().expect("Kafka runs until the demo ends");
        let kept = Kept {
            bootstrap: self.bootstrap.clone(),
            kafka_pid: kafka.pid(1).context("Kafka has ended")?,
            workers: self.workers.iter().filter_map(|w| Some((w.program.clone(), w.running.as_ref()?.pid()))).collect(),
        };
        self.workers.iter_mut().filter_map(|worker| worker.running.take()).for_each(Running::release);
        fs::write(self.files.kept(), "stop it with ./x demo --stop\n").context("cannot note that the demo is kept")?;
        report::kept(self.files, &kept);
        Ok(())
    }

    /// The partitions of each worker that has some. A worker's clients have its name in theirs.
    fn assignments(&self) -> BTreeMap<String, Vec<i32>> {
        let mut shared: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (client, partitions) in self.group.assignments() {
            let is_of = |worker: &&Worker| client.contains(&worker.program.name);
            if let Some(worker) = self.workers.iter().find(is_of)
                && !partitions.is_empty()
            {
                shared.entry(worker.program.name.clone()).or_default().extend(partitions);
            }
        }
        shared
    }

    fn ensure_workers_run(&mut self) -> Result<()> {
        self.workers.iter_mut().filter_map(|worker| worker.running.as_mut()).try_for_each(Running::ensure_runs)
    }

    fn log_tails(&self) -> String {
        let tails: Vec<String> = self.workers.iter().map(|worker| worker.program.log_tail()).collect();
        tails.join("\n")
    }

    fn worker_names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.program.name.clone()).collect()
    }
}

fn list(partitions: &[i32]) -> String {
    let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
    numbers.join(", ")
}
