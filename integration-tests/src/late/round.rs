//! Cases on one application, and what the oracles say to it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::case::{self, Outcome};
use super::matrix::Case;
use super::stage::Stage;
use crate::scene::{PATIENCE, Scene, Watch};
use crate::worker::{Worker, WorkerConfig, await_condition};

/// After so long librdkafka gives a request up and sends a copy.
const SOCKET_TIMEOUT: &str = "producer.socket.timeout.ms=1000";
/// A record must be given up long before its transaction, so that its copy is in time.
const REQUEST_TIMEOUT: &str = "producer.request.timeout.ms=1000";
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Records a second: small transactions, one behind the other.
const RATE: u64 = 400;
/// So many records are processed before the first case, so that each partition has an offset and each task a state.
const WARM_UP: u64 = 200;
const WORKER: &str = "one";

/// A round that is over.
#[derive(Debug)]
pub struct Round {
    /// What became of each case, in their order.
    pub outcomes: Vec<(Case, Outcome)>,
    /// What the oracles have against it, a sentence each.
    pub violations: Vec<String>,
    /// How many records went through.
    pub records: u64,
}

/// Goes through cases, with the taint rule or without it. Behind the last one the worker is killed before it begins
/// another transaction, and comes back: what is committed then must fit together. The name is that of the application,
/// new on its cluster.
///
/// # Errors
/// The application could not be set up, so no case has run.
pub fn round(stage: &Stage, name: &str, cases: &[Case], with_rule: bool) -> Result<Round> {
    let set_up = || {
        let mut scene = Scene::behind(name, &stage.cluster.bootstrap_servers(), &stage.proxies.bootstrap());
        scene.produce(WARM_UP);
        let (watch, config) = (scene.watch(), worker(&scene, with_rule));
        let worker = scene.run(&config);
        (scene, watch, config, worker)
    };
    let set_up = catch_unwind(AssertUnwindSafe(set_up));
    let (mut scene, watch, config, mut worker) =
        set_up.map_err(|panic| anyhow!("{name} cannot be set up: {}", panic_text(&*panic)))?;
    let load = scene.load(RATE);
    let client = format!("{name}:{WORKER}:");
    let mut outcomes: Vec<(Case, Outcome)> = Vec::with_capacity(cases.len());
    let (last, others) = cases.split_last().context("a round has cases")?;
    for &case in others {
        outcomes.push((case, case::force(&stage.proxies, &client, case, with_rule, None)));
    }
    let mut kill = || worker.kill().expect("a process of ours can be killed");
    outcomes.push((*last, case::force(&stage.proxies, &client, *last, with_rule, Some(&mut kill))));
    if !worker.is_alive() {
        worker = config.start();
    }
    load.finish(&mut scene);
    let mut violations = wrong_already(&outcomes);
    violations.extend(judge(&scene, watch, worker));
    if violations.is_empty() {
        std::fs::remove_dir_all(&scene.dir)?;
    }
    Ok(Round { outcomes, violations, records: scene.produced })
}

fn worker(scene: &Scene, with_rule: bool) -> WorkerConfig {
    let config = scene.worker(WORKER).with("instance-id", WORKER);
    let config = config.with("kafka", SOCKET_TIMEOUT).with("kafka", REQUEST_TIMEOUT);
    let config = config.with_time("transaction-timeout", TRANSACTION_TIMEOUT);
    if with_rule { config } else { config.with("without", "tainted-producer-is-replaced") }
}

fn wrong_already(outcomes: &[(Case, Outcome)]) -> Vec<String> {
    let wrong = |(case, outcome): &(Case, Outcome)| match outcome {
        Outcome::Forced { wrong: Some(wrong), .. } => Some(format!("{case}: {wrong}")),
        Outcome::Forced { wrong: None, .. } | Outcome::NotRun(_) => None,
    };
    outcomes.iter().filter_map(wrong).collect()
}

/// Everything is processed, exactly once; nobody has ever seen a part of a transaction, and no offset went back.
fn judge(scene: &Scene, watch: Watch, mut worker: Worker) -> Vec<String> {
    let processed = processed(scene, &mut worker).err().map(|error| format!("O6: {error:#}"));
    let watched = found("O3, O4", || watch.finish(1));
    // What stays open for good would be waited for; a round that did not come to its end has failed already.
    if processed.is_some() {
        return [processed, watched].into_iter().flatten().collect();
    }
    let stopped = worker.stop().err().map(|error| format!("O6: {error:#}"));
    let verified = found("O1, O2", || scene.verify(&[WORKER]));
    [stopped, watched, verified].into_iter().flatten().collect()
}

fn processed(scene: &Scene, worker: &mut Worker) -> Result<()> {
    let outcome = await_condition("all records to be processed", PATIENCE, || {
        ensure!(worker.is_alive(), "the worker has ended");
        Ok(scene.offsets_done() >= scene.produced)
    });
    outcome.with_context(|| format!("the last that it said is: {}", worker.log_tail(1)))
}

fn found(oracles: &str, check: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(check)).err()?;
    Some(format!("{oracles}: {}", panic_text(&*panic)))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
