//! The campaign in the simulation.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use processor_runtime::failpoints::Failpoint;
use processor_runtime::seeded_bugs::{Rule, switch_off};
use processor_simulator::{Blow, Ended, Search, Wrong, search};
use serde::{Deserialize, Serialize};

use super::{CampaignArgs, code};
use crate::lab::interrupt::Interrupt;
use crate::lab::print_panics_of_the_first_thread_only;
use crate::oracle::grouped;
use crate::simulation;

/// A schedule takes about 10 ms; one that was stopped by Ctrl-C is waited for.
const SLICE: u64 = 512;
/// How many schedules a rule has to be caught in.
const CAUGHT_WITHIN: u64 = 20_000;
/// How many of the schedules that went wrong are named.
const NAMED_MAX: usize = 20;

/// What was done, of one code.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    /// The commit, and whether the tree held more than it.
    commit: String,
    /// The seed behind the last one.
    next_seed: u64,
    schedules: u64,
    seconds: f64,
    /// What has happened in them, by name.
    toll: BTreeMap<String, u64>,
    wrong: Vec<WrongSeed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrongSeed {
    seed: u64,
    what: String,
}

pub(super) fn run(args: &CampaignArgs, target: &Path) -> Result<()> {
    if let (true, Some(seed)) = (args.trace, args.seed) {
        return trace(seed);
    }
    // Schedules that go wrong are told by us, with their seed.
    print_panics_of_the_first_thread_only();
    match args.without {
        Some(rule) => without(rule, args),
        None => explore(args, target),
    }
}

/// Runs one schedule, in words.
fn trace(seed: u64) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("debug"));
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_target(false).init();
    let ended = std::panic::catch_unwind(|| simulation::run(seed));
    let Ok(ended) = ended else { bail!("seed {seed} went wrong: see above") };
    println!("seed {seed} ended as it must: {:?}, {:?}", ended.blows, ended.happened);
    Ok(())
}

/// Looks for a schedule that shows what happens without a rule.
fn without(rule: Rule, args: &CampaignArgs) -> Result<()> {
    switch_off(rule);
    let caught = Mutex::new(None);
    let looking = Search {
        first: args.seed.unwrap_or(0),
        schedules: args.schedules.unwrap_or(CAUGHT_WITHIN),
        time: Duration::from_mins(args.minutes),
        twice: false,
        // In the order of the seeds, so that it is the same one each time.
        stop_at_first: true,
        threads: 1,
    };
    let schedules = search(&looking, simulation::run, |_, outcome| {
        if let Err(wrong) = outcome {
            caught.lock().expect("nobody panics with it").get_or_insert_with(|| wrong.clone());
        }
    });
    let Some(wrong) = caught.into_inner().expect("nobody panics with it") else {
        bail!("without {} nothing went wrong in {schedules} schedules: the oracles do not see it", rule.name());
    };
    let first_line = wrong.what.lines().next().unwrap_or_default();
    let Some(oracle) = wrong.seen_by() else {
        bail!("without {} seed {} breaks, but no oracle says why: {first_line}", rule.name(), wrong.seed);
    };
    println!("{}\t{oracle}\tseed {}\t{first_line}", rule.name(), wrong.seed);
    Ok(())
}

fn explore(args: &CampaignArgs, target: &Path) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let directory = target.join("campaign");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // Seeds that were asked for may have been run before, and count for themselves.
    let name = args.seed.map_or("sim".to_owned(), |seed| format!("sim-from-{seed}"));
    let file = directory.join(name).with_extension("json");
    let mut done = match args.seed {
        Some(seed) => Done { next_seed: seed, ..Done::new()? },
        None => Done::continued(&file)?,
    };
    println!(
        "campaign --sim: {} minute(s) from seed {}, on {} threads; every schedule twice. Ctrl-C ends it and keeps what was done",
        args.minutes,
        done.next_seed,
        threads()
    );
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is right"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let begun = Instant::now();
    let time = Duration::from_mins(args.minutes);
    let (mut left, mut schedules) = (args.schedules.unwrap_or(u64::MAX), 0);
    while left > 0 && begun.elapsed() < time && interrupt.check().is_ok() {
        let slice_began = Instant::now();
        let slice = Search {
            first: done.next_seed,
            schedules: SLICE.min(left),
            time: Duration::MAX,
            twice: true,
            stop_at_first: false,
            threads: threads(),
        };
        let ended = Mutex::new(&mut done);
        let ran =
            search(&slice, simulation::run, |_, outcome| ended.lock().expect("nobody panics with it").add(outcome));
        done.next_seed += ran;
        done.schedules += ran;
        done.seconds += slice_began.elapsed().as_secs_f64();
        (left, schedules) = (left - ran, schedules + ran);
        bar.set_message(format!(
            "{} schedules, {:.0} a minute, {} wrong; of this commit {} in all",
            grouped(schedules),
            schedules as f64 / begun.elapsed().as_secs_f64() * 60.0,
            done.wrong.len(),
            grouped(done.schedules)
        ));
        done.keep(&file)?;
    }
    bar.finish_and_clear();
    let report = done.report();
    let markdown = file.with_extension("md");
    fs::write(&markdown, &report).with_context(|| format!("cannot write {}", markdown.display()))?;
    println!("{report}\n{} and {} have it", markdown.display(), file.display());
    let wrong = done.wrong.len();
    ensure!(
        wrong == 0,
        "{wrong} schedule(s) went wrong; see one with ./x campaign --sim --trace --seed {}",
        done.wrong[0].seed
    );
    Ok(())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

impl Done {
    fn new() -> Result<Self> {
        Ok(Self { commit: code::commit()?, ..Self::default() })
    }

    /// What was done by this code before; nothing, if the last campaign was of another one.
    fn continued(file: &Path) -> Result<Self> {
        let new = Self::new()?;
        let known = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        Ok(known.filter(|known| code::is_same(&known.commit, &new.commit)).unwrap_or(new))
    }

    fn add(&mut self, outcome: &Result<Ended, Wrong>) {
        let ended = match outcome {
            Ok(ended) => ended,
            Err(wrong) => return self.wrong.push(WrongSeed { seed: wrong.seed, what: wrong.what.clone() }),
        };
        let mut add = |name: String, times: u64| *self.toll.entry(name).or_default() += times;
        let happened = &ended.happened;
        happened.struck.iter().for_each(|(kind, times)| add(format!("fault: {kind}"), *times));
        ended.blows.iter().for_each(|(blow, times)| add(format!("blow: {}", told(*blow)), *times));
        ended.struck.iter().for_each(|(at, times)| add(format!("killed at {}", at.name()), *times));
        for (name, times) in [
            ("rebalances", happened.rebalances),
            ("brokers lost", happened.brokers_lost),
            ("changelog records replayed", happened.replayed),
            ("late requests delivered", happened.late),
            ("late ends that ended a later transaction", happened.late_ends_taken),
        ] {
            add(name.to_owned(), times);
        }
    }

    fn keep(&self, file: &Path) -> Result<()> {
        let beside: PathBuf = file.with_extension("new");
        fs::write(&beside, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", beside.display()))?;
        fs::rename(&beside, file).with_context(|| format!("cannot write {}", file.display()))
    }

    fn report(&self) -> String {
        let mut text = format!(
            "# Simulation\n\nCommit {}; {} schedules, each run twice, {:.0} a minute; seeds below {}; {} went wrong.\n\n",
            self.commit,
            grouped(self.schedules),
            self.schedules as f64 / self.seconds.max(0.001) * 60.0,
            self.next_seed,
            self.wrong.len()
        );
        let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes it");
        for wrong in self.wrong.iter().take(NAMED_MAX) {
            line(format_args!("- seed {}: {}", wrong.seed, wrong.what.lines().next().unwrap_or_default()));
        }
        line(format_args!("| what happened | times |\n|---|---|"));
        for (name, times) in &self.toll {
            line(format_args!("| {name} | {} |", grouped(*times)));
        }
        let never: Vec<_> =
            Failpoint::ALL.iter().filter(|at| !self.toll.contains_key(&format!("killed at {}", at.name()))).collect();
        if !never.is_empty() {
            line(format_args!(
                "\nNobody was killed at: {}",
                never.iter().map(|at| at.name()).collect::<Vec<_>>().join(", ")
            ));
        }
        text
    }
}

fn told(blow: Blow) -> &'static str {
    match blow {
        Blow::Died => "killed, or power lost",
        Blow::SessionExpired => "session expired",
        Blow::TransactionTimedOut => "transaction timed out",
        Blow::Hung => "client hung",
        Blow::DirectoryLost => "state directory lost",
        Blow::DiskRefused => "disk refused",
        Blow::Stopped => "stopped",
        Blow::MachineLost => "machine lost for good",
        Blow::StateDamaged => "state damaged on disk",
    }
}
