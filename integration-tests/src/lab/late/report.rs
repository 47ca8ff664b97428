//! What was run and what was found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::machine::Machine;
use crate::late::{Case, Failure, LateRequest, Outcome, Point, Round, SetUp, Stage};
use crate::oracle::grouped;

/// How many violations are described.
const DESCRIBED_MAX: usize = 40;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    directory: PathBuf,
    date: String,
    commit: String,
    machine: String,
    librdkafka: String,
    taint_rule: bool,
    seed: u64,
    nodes: u16,
    seconds: u64,
    records: u64,
    brokers: Vec<Broker>,
    cells: Vec<Cell>,
    violations: Vec<String>,
    not_run: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Broker {
    set_up: String,
    kafka: &'static str,
    transaction_version: i16,
}

/// One combination on one cluster.
#[derive(Debug, Serialize)]
struct Cell {
    set_up: String,
    request: LateRequest,
    failure: Failure,
    point: Point,
    /// The late copy arrived where it should.
    forced: u32,
    violations: u32,
    not_run: u32,
    /// How often the broker answered the late copy with each code.
    answers: BTreeMap<i16, u32>,
}

impl Report {
    pub(super) fn new(directory: &Path, with_rule: bool, seed: u64, nodes: u16) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?,
            commit: said("git", &["describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"])?,
            machine: Machine::this().hardware(),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            taint_rule: with_rule,
            seed,
            nodes,
            seconds: 0,
            records: 0,
            brokers: Vec::new(),
            cells: Vec::new(),
            violations: Vec::new(),
            not_run: Vec::new(),
        })
    }

    pub(super) fn broker(&mut self, stage: &Stage) {
        let Stage { set_up, transaction_version, .. } = *stage;
        self.brokers.push(Broker { set_up: set_up.to_string(), kafka: set_up.kafka(), transaction_version });
    }

    /// A round of several cases in which something is wrong is told as a whole: each of its cases is run again alone.
    pub(super) fn add(&mut self, set_up: SetUp, ended: &Round) {
        self.records += ended.records;
        let alone = ended.outcomes.len() == 1;
        for (case, outcome) in &ended.outcomes {
            let cell = self.cell(set_up, *case);
            match outcome {
                Outcome::Forced { answer, .. } => {
                    cell.forced += 1;
                    cell.violations += u32::from(alone && !ended.violations.is_empty());
                    if let Some(code) = answer {
                        *cell.answers.entry(*code).or_default() += 1;
                    }
                }
                Outcome::NotRun(why) => {
                    cell.not_run += 1;
                    self.not_run.push(format!("{set_up}, {case}: {why}"));
                }
            }
        }
        let cases = match ended.outcomes.as_slice() {
            [(case, _)] => case.to_string(),
            several => format!("one of {} cases in a row", several.len()),
        };
        let told = ended.violations.iter().map(|what| format!("{set_up}, {cases}: {what}"));
        self.violations.extend(told);
    }

    fn cell(&mut self, set_up: SetUp, case: Case) -> &mut Cell {
        let set_up = set_up.to_string();
        let is_it = |cell: &Cell| {
            (cell.set_up.as_str(), cell.request, cell.failure, cell.point)
                == (set_up.as_str(), case.request, case.failure, case.point)
        };
        let at = self.cells.iter().position(is_it).unwrap_or_else(|| {
            let Case { request, failure, point, .. } = case;
            let answers = BTreeMap::new();
            self.cells.push(Cell { set_up, request, failure, point, forced: 0, violations: 0, not_run: 0, answers });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }

    /// Forced cases, and rounds in which something was wrong.
    pub(super) fn totals(&self) -> (u32, usize) {
        let cases: u32 = self.cells.iter().map(|cell| cell.violations).sum();
        (self.cells.iter().map(|cell| cell.forced).sum(), self.violations.len().min(1).max(cases as usize))
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(if self.taint_rule { "report.md" } else { "report-without-rule.md" })
    }

    pub(super) fn keep(&mut self, elapsed: Duration) -> Result<()> {
        self.seconds = elapsed.as_secs();
        self.cells.sort_by_key(|cell| (cell.request, cell.failure, cell.point, cell.set_up.clone()));
        let markdown = self.file();
        fs::write(&markdown, self.text()).with_context(|| format!("cannot write {}", markdown.display()))?;
        let json = markdown.with_extension("json");
        fs::write(&json, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", json.display()))
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes it");
        let (forced, violations) = self.totals();
        let rule = if self.taint_rule { "on" } else { "off" };
        line(format_args!("# Late requests, taint rule {rule}\n"));
        line(format_args!("{forced} forced cases, {violations} with a violation, {} not run.\n", self.not_run.len()));
        line(format_args!(
            "{}, commit {}, seed {}, {} node(s) a cluster, {} s, {} records; librdkafka {}.\n{}\n",
            self.date,
            self.commit,
            self.seed,
            self.nodes,
            self.seconds,
            grouped(self.records),
            self.librdkafka,
            self.machine
        ));
        for Broker { set_up, kafka, transaction_version } in &self.brokers {
            line(format_args!("- {set_up}: Kafka {kafka}, transaction.version={transaction_version}"));
        }
        line(format_args!("\n| late request | failure | arrives | broker | forced | violations | not run | answers |"));
        line(format_args!("|---|---|---|---|---|---|---|---|"));
        for Cell { set_up, request, failure, point, forced, violations, not_run, answers } in &self.cells {
            let answers: Vec<_> = answers.iter().map(|(code, times)| format!("{code}: {times}")).collect();
            let answers = answers.join(", ");
            line(format_args!(
                "| {request} | {failure} | {point} | {set_up} | {forced} | {violations} | {not_run} | {answers} |"
            ));
        }
        line(format_args!("\nAnswers are the broker's error codes for the late copy: 0 is a yes. {}", self.remarks()));
        for (title, all) in [("Violations", &self.violations), ("Not run", &self.not_run)] {
            if all.is_empty() {
                continue;
            }
            line(format_args!("\n## {title}\n"));
            for what in all.iter().take(DESCRIBED_MAX) {
                line(format_args!("- {}", what.lines().next().unwrap_or_default()));
            }
            if all.len() > DESCRIBED_MAX {
                line(format_args!("- and {} more", all.len() - DESCRIBED_MAX));
            }
        }
        text
    }

    /// Why some cells are not what their names say, or are not there.
    fn remarks(&self) -> &'static str {
        if self.taint_rule {
            "librdkafka speaks the old protocol (EndTxn 1, AddPartitionsToTxn 0) to every broker, so every request exists \
             everywhere. Records taint only where their transaction aborts. Inside the next transaction the producer is \
             the same one, unless their time-out was too much for the client, which then is replaced for that; at the two \
             other points their transaction is made to abort, so that there is a rebuild."
        } else {
            "Nothing is rebuilt, so no copy can arrive after that; what is called between retry and rebuild is between \
             two transactions of the same producer."
        }
    }
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
