//! Late requests on one broker, a slice of what `./x late` runs on three: what `outcomes` does not cover, and that the
//! oracles see what happens without the rule.

use std::sync::OnceLock;

use processor_integration_tests::broker;
use processor_integration_tests::late::{Case, Failure, LateRequest, Outcome, Point, Round, SetUp, Stage, round};
use processor_integration_tests::proxy::{ApiKey, Script};
use processor_integration_tests::scene::{PARTITIONS, PATIENCE, Scene};

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let dir = broker::test_dir("late").expect("the target directory can be written");
        Stage::start(SetUp::Tv2, dir, 1).expect("the broker starts")
    })
}

fn all_forced(ended: &Round) {
    let not_run: Vec<_> = ended.outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::NotRun(_))).collect();
    assert!(not_run.is_empty(), "what did not happen proves nothing: {not_run:?}");
}

/// An abort and records, late at each point, and every request after the rebuild: `outcomes` has the other requests inside
/// the next transaction.
#[test]
fn a_late_request_changes_nothing_wherever_it_arrives() {
    let new = |case: &Case| {
        let known = case.request != LateRequest::Abort && case.point != Point::AfterRebuild;
        case.failure == Failure::Reset && !known
    };
    let cases: Vec<Case> = Case::matrix(0).into_iter().filter(new).collect();
    let ended = round(stage(), "late-with-rule", &cases, true).expect("the application starts");
    all_forced(&ended);
    assert!(ended.violations.is_empty(), "{}", ended.violations.join("\n"));
}

/// A late abort takes the records of a later transaction away, and the offsets behind them are committed.
#[test]
fn without_the_rule_a_late_abort_loses_records() {
    without_the_rule(LateRequest::Abort, "lost");
}

/// Late offsets replace those of a later transaction, so the worker that comes after the crash writes that one again.
#[test]
fn without_the_rule_late_offsets_double_records() {
    without_the_rule(LateRequest::TxnOffsetCommit, "doubled");
}

/// The first of several oracles that see it says how many records it hit.
fn without_the_rule(request: LateRequest, damage: &str) {
    let (failure, point) = (Failure::Reset, Point::NextTransaction);
    let case = Case { request, failure, point, variant: 0 };
    let ended = round(stage(), &format!("late-{damage}"), &[case], false).expect("the application starts");
    all_forced(&ended);
    let (counted, none) = (format!(" {damage}"), format!(", 0 {damage}"));
    let seen = |what: &String| what.starts_with("O1") && what.contains(&counted) && !what.contains(&none);
    assert!(ended.violations.iter().any(seen), "{:?}", ended.violations);
}

/// Doubled, cut up, lost and delayed, requests and answers.
#[test]
fn a_script_of_faults_on_every_kind_of_request_changes_nothing() {
    const NAME: &str = "late-script";
    let kinds = [
        ApiKey::PRODUCE,
        ApiKey::ADD_PARTITIONS_TO_TXN,
        ApiKey::ADD_OFFSETS_TO_TXN,
        ApiKey::TXN_OFFSET_COMMIT,
        ApiKey::END_TXN,
    ];
    let stage = stage();
    let script = Script::from_seed(7, &kinds, 24, 8).client_id_contains(&format!("{NAME}:one:"));
    let mut injections = stage.proxies.play(&script);
    // Of these there is one for each producer, and producers are replaced as the other faults demand.
    let inits = Script::from_seed(7, &[ApiKey::INIT_PRODUCER_ID], 2, 2).client_id_contains(&format!("{NAME}:one:"));
    injections.extend(stage.proxies.play(&inits));
    let mut scene = Scene::behind(NAME, &stage.cluster.bootstrap_servers(), &stage.proxies.bootstrap());
    let watch = scene.watch();
    let config = scene.worker("one").with("instance-id", "one").with("kafka", "producer.socket.timeout.ms=1000");
    let worker = config.with("kafka", "producer.request.timeout.ms=1000").start();
    worker.await_running(PARTITIONS as usize, PATIENCE).expect("all tasks run");
    let load = scene.load(400);
    let late: Vec<_> = injections.iter().filter(|injection| !injection.wait_fired(PATIENCE)).collect();
    load.finish(&mut scene);
    assert!(late.is_empty(), "these did not happen: {late:?}; {script}");
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    watch.finish(1);
    scene.verify(&["one"]);
}
