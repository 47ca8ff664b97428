//! `lab late`: every late request, by the hundred, on three brokers: the newest Kafka as it is, the newest with the
//! transactions of old, and Kafka 3.9.
//!
//! `target/late/report.md` and `report.json` say what was run; they are written after each round, so a run that is cut
//! short has its report too.

#![expect(clippy::print_stdout, reason = "this is a command line")]

mod report;

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, value_parser};
use processor_simulator::SplitMix64;

use self::report::Report;
use crate::late::{Case, Outcome, Round, SetUp, Stage, VARIANTS_OF_A_GATE, panic_text, round};

/// How many cases go through one application before the oracles look.
const CASES_A_ROUND: usize = 12;

/// Deliver requests late, at every point where that could do harm, and check every record.
#[derive(Args, Clone, Debug)]
pub struct LateArgs {
    /// The brokers: tv2 (the newest Kafka), tv1 (the same with transaction.version=1), 3.9.
    #[arg(long, value_delimiter = ',', default_values_t = SetUp::ALL)]
    setups: Vec<SetUp>,
    /// How many cases of each combination of request, failure and release point, on each of the brokers.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    cases: u32,
    /// For how long at the most. What was not reached is not in the report.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u64).range(1..))]
    minutes: u64,
    /// The order of the cases.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many brokers a cluster has.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=3))]
    nodes: u16,
    /// Switches the taint rule off (EO-11): exit code 0 if that is seen.
    #[arg(long)]
    without_rule: bool,
    /// Only cases whose name contains this, such as 'reset, after'.
    #[arg(long)]
    only: Option<String>,
}

/// Runs `lab late`, with `target` being the directory for run-time data.
///
/// # Errors
/// The brokers do not start, or something went wrong that must not, or nothing went wrong without the rule.
pub fn run(args: &LateArgs, target: &Path) -> Result<()> {
    let directory = target.join("late");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // What the oracles say comes as a panic of a set-up's thread, and is told by us.
    super::print_panics_of_the_first_thread_only();
    let with_rule = !args.without_rule;
    let report = Report::new(&directory, with_rule, args.seed, args.nodes)?;
    let run = Run { args: args.clone(), report: Mutex::new(report), begun: Instant::now() };
    let run = Arc::new(run);
    let stages = args.setups.iter().map(|&set_up| {
        let (run, dir) = (Arc::clone(&run), directory.join(format!("kafka-{set_up}")));
        thread::Builder::new().name(set_up.to_string()).spawn(move || run.set_up(set_up, dir))
    });
    let stages: Vec<_> = stages.collect::<std::io::Result<_>>().context("start a thread")?;
    let broken = |panic: Box<dyn Any + Send>| Err(anyhow!("a set-up broke off: {}", panic_text(&*panic)));
    let ended: Vec<Result<()>> = stages.into_iter().map(|stage| stage.join().unwrap_or_else(broken)).collect();
    let report = run.report.lock().expect("nobody panics with it");
    println!("{}\n{} and its .json have it", report.text(), report.file().display());
    ended.into_iter().collect::<Result<()>>()?;
    let (forced, violations) = report.totals();
    ensure!(forced > 0, "not one case was forced");
    if with_rule {
        ensure!(violations == 0, "{violations} violation(s) in {forced} forced cases");
    } else {
        ensure!(violations > 0, "the rule is off, and {forced} forced cases show nothing: the oracles do not see it");
    }
    Ok(())
}

/// A round; one that cannot be set up, on a machine that is busy, has run none of its cases.
fn run_round(stage: &Stage, name: &str, cases: &[Case], with_rule: bool) -> Round {
    round(stage, name, cases, with_rule).unwrap_or_else(|error| {
        let not_run = |case: &Case| (*case, Outcome::NotRun(format!("{error:#}")));
        Round { outcomes: cases.iter().map(not_run).collect(), violations: Vec::new(), records: 0 }
    })
}

struct Run {
    args: LateArgs,
    report: Mutex<Report>,
    begun: Instant,
}

impl Run {
    /// All cases of one cluster.
    fn set_up(&self, set_up: SetUp, dir: PathBuf) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let stage = Stage::start(set_up, dir, self.args.nodes).with_context(|| format!("set-up {set_up}"))?;
        self.update(|report| report.broker(&stage))?;
        let (mut rounds, with_rule) = (0, !self.args.without_rule);
        // Without the rule nearly every case breaks something, and the next one would only see that.
        let at_once = if with_rule { CASES_A_ROUND } else { 1 };
        for cases in self.cases().chunks(at_once) {
            if self.begun.elapsed() >= Duration::from_secs(60 * self.args.minutes) {
                break;
            }
            rounds += 1;
            let name = format!("late-{}-{rounds}", set_up.to_string().replace('.', ""));
            let ended = run_round(&stage, &name, cases, with_rule);
            if cases.len() > 1 && !ended.violations.is_empty() {
                self.name_the_case(&stage, &name, &ended)?;
            }
            self.over(&stage, &ended)?;
        }
        Ok(())
    }

    /// One after the other, each with an application of its own.
    fn name_the_case(&self, stage: &Stage, name: &str, ended: &Round) -> Result<()> {
        for (number, (case, _)) in ended.outcomes.iter().enumerate() {
            let alone = run_round(stage, &format!("{name}-{number}"), &[*case], !self.args.without_rule);
            self.over(stage, &alone)?;
        }
        Ok(())
    }

    fn over(&self, stage: &Stage, ended: &Round) -> Result<()> {
        let elapsed = self.begun.elapsed().as_secs();
        self.update(|report| {
            report.add(stage.set_up, ended);
            let (forced, violations) = report.totals();
            let not_run = ended.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::NotRun(_))).count();
            println!(
                "{elapsed:>5} s  {:<4} {} cases, {not_run} not run, {} violations; in all {forced} forced, {violations} violations",
                stage.set_up,
                ended.outcomes.len(),
                ended.violations.len(),
            );
        })
    }

    fn update(&self, change: impl FnOnce(&mut Report)) -> Result<()> {
        let mut report = self.report.lock().expect("nobody panics with it");
        change(&mut report);
        report.keep(self.begun.elapsed())
    }

    /// All that exist, in an order that the seed decides.
    fn cases(&self) -> Vec<Case> {
        let (only, with_rule) = (self.args.only.as_deref().unwrap_or_default(), !self.args.without_rule);
        // Without the rule the point is what it holds off, so the late copy arrives where it does the most harm.
        let step = if with_rule { 1 } else { VARIANTS_OF_A_GATE };
        let all = (0..self.args.cases).flat_map(|number| Case::matrix(number * step));
        let mut cases: Vec<Case> =
            all.filter(|case| case.exists(with_rule).is_ok() && case.to_string().contains(only)).collect();
        let mut random = SplitMix64::new(self.args.seed);
        for at in (1..cases.len()).rev() {
            cases.swap(at, random.below(at as u64 + 1) as usize);
        }
        cases
    }
}
