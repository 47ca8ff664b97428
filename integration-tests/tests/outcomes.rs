//! What becomes of a transaction when one of its requests is late, lost or cut off: ARCHITECTURE.md, on a real
//! Kafka, through a proxy that holds single requests.
//!
//! A request that arrives late must arrive *inside a later transaction* of the same transactional id, or the test shows
//! nothing. So the worker is frozen when such a transaction is open. It is known by its offsets: every record of the transaction that was hit lies
//! below the ends of the output that were read when it was over, so what is unstable at or behind them is of a later one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::client::Isolation;
use processor_integration_tests::oracle;
use processor_integration_tests::proxy::{ApiKey, Fault, Injection, Proxy, Request, Rule};
use processor_integration_tests::scene::{OpenRange, PATIENCE, Scene, Watch};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition};
use processor_runtime::config::transactional_id;

/// After so long librdkafka gives a request up and sends a copy.
const SOCKET_TIMEOUT: &str = "producer.socket.timeout.ms=1000";
/// Long enough for a test to do something while a request waits.
const SOCKET_TIMEOUT_LONG: &str = "producer.socket.timeout.ms=9000";
/// A record must be given up long before its transaction, so that its copy is in time.
const REQUEST_TIMEOUT: &str = "producer.request.timeout.ms=1000";
/// A record takes so long: nearly all of the time a transaction is open.
const PAUSE_US: u32 = 1_000;
const RECORDS: u64 = 5_000;
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A commit without an answer is given up after four fifths of it.
const UNKNOWN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
/// How often a worker is frozen until it is caught in the right transaction.
const FREEZES_MAX: usize = 100;
/// How a request can be late: the client waits for its answer, or loses its connection.
const LATE: [Fault; 2] = [Fault::HoldAndTimeout, Fault::HoldAndReset];

/// A broker and the proxy in front of it. The tests of this file keep apart by the client ids of their workers.
struct Stage {
    proxy: Proxy,
    cluster: KafkaCluster,
}

impl Stage {
    fn set(name: &str, with: impl FnOnce(ClusterConfig) -> ClusterConfig) -> Self {
        let proxy = Proxy::bind().expect("a free port");
        let dir = broker::test_dir(name).expect("the target directory can be written");
        let config = ClusterConfig { proxy_ports: vec![proxy.port()], ..ClusterConfig::single(dir) };
        let cluster = KafkaCluster::start(with(config)).expect("the broker starts");
        proxy.forward_to(cluster.ports(1).behind_proxy);
        Self { proxy, cluster }
    }

    fn usual() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(|| Self::set("outcomes", |config| config))
    }

    /// Its broker takes what a dead producer sends, as all did before Kafka 3.6.
    fn unverified() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        let set =
            || Self::set("unverified", |config| config.with("transaction.partition.verification.enable", "false"));
        STAGE.get_or_init(set)
    }
}

/// An application whose worker reaches the broker through the proxy.
struct Faulty {
    stage: &'static Stage,
    scene: Scene,
    watch: Watch,
}

type Ends = BTreeMap<i32, i64>;

/// How it is known that the transaction that was hit is over.
#[derive(Clone, Copy)]
enum Over {
    /// Its producer was tainted, and is being replaced.
    Replaced,
    /// It has committed.
    Committed,
}

impl Faulty {
    fn new(name: &str) -> Self {
        Self::on(Stage::usual(), name)
    }

    fn on(stage: &'static Stage, name: &str) -> Self {
        let scene = Scene::behind(name, &stage.cluster.bootstrap_servers(), &stage.proxy.bootstrap());
        let watch = scene.watch();
        Self { stage, scene, watch }
    }

    fn inject(&self, rule: Rule) -> Arc<Injection> {
        self.stage.proxy.inject(rule.client_id_contains(&format!("{}:one:", self.scene.name)))
    }

    fn worker(&self, socket_timeout: &str) -> WorkerConfig {
        self.worker_with(socket_timeout, TRANSACTION_TIMEOUT)
    }

    fn worker_with(&self, socket_timeout: &str, transaction_timeout: Duration) -> WorkerConfig {
        let worker = self.scene.worker("one").with("instance-id", "one").with("kafka", socket_timeout);
        worker.with("pause-us", PAUSE_US).with_time("transaction-timeout", transaction_timeout)
    }

    /// The story of a late request: it is hit; its transaction ends without it; it arrives inside a later transaction of
    /// the worker, which is frozen there. What the broker says to it.
    fn late_in_a_later_transaction(&mut self, rule: Rule, over: Over, config: &WorkerConfig) -> (Worker, Option<i16>) {
        let begun = self.last_begun();
        let late = self.inject(rule);
        self.scene.produce(RECORDS);
        let mut worker = config.start();
        await_fired(&late, &worker);
        self.await_over(over, &worker);
        let ends = self.ends(Isolation::ReadUncommitted);
        let is_of_same_producer = || *begun.lock().expect("nobody panics with it") == late.transactional_id();
        let open = self.freeze_in_transaction_behind(&ends, is_of_same_producer, &mut worker);
        let answer = self.release_inside(&open, &late);
        (worker, answer)
    }

    /// Whose transaction the worker has begun last: its producers work in turn.
    fn last_begun(&self) -> Arc<Mutex<Option<String>>> {
        let last = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&last);
        let rule = Rule::new(ApiKey::ADD_PARTITIONS_TO_TXN, Fault::Delay(Duration::ZERO));
        self.inject(rule.when(move |request| {
            *seen.lock().expect("nobody panics with it") = request.transactional_id();
            false // it only looks
        }));
        last
    }

    /// How each transaction of the worker was asked to end, in their order: of which producer, and whether to commit.
    fn ends_asked_for(&self) -> Arc<Mutex<Vec<(String, bool)>>> {
        let ends = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ends);
        self.inject(Rule::new(ApiKey::END_TXN, Fault::Delay(Duration::ZERO)).when(move |request| {
            let end = request.end_txn().expect("librdkafka speaks a version that is known");
            seen.lock().expect("nobody panics with it").push((end.transactional_id, end.committed));
            false // it only looks
        }));
        ends
    }

    fn await_over(&self, over: Over, worker: &Worker) {
        match over {
            Over::Replaced => worker.await_log("(EO-11)", PATIENCE).expect("a tainted producer is replaced"),
            Over::Committed => {
                let outcome = await_condition("a commit", PATIENCE, || Ok(self.scene.offsets_done() > 0));
                outcome.unwrap_or_else(|error| panic!("{error:#}; the worker's log:\n{}", worker.log_tail(40)));
            }
        }
    }

    /// Freezes the worker inside a transaction for which this holds, and that began at or behind these ends of the output.
    fn freeze_in_transaction_behind(&self, ends: &Ends, is_it: impl Fn() -> bool, worker: &mut Worker) -> OpenRange {
        for _ in 0..FREEZES_MAX {
            let caught = self.scene.freeze_in_transaction(worker);
            let outputs = caught.open.into_iter().filter(|range| range.topic == self.scene.output());
            if let Some(range) = outputs.into_iter().find(|range| ends[&range.partition] <= range.from)
                && is_it()
            {
                return range;
            }
            worker.thaw().expect("a frozen worker can go on");
        }
        panic!("the worker was never in a later transaction; its log ends:\n{}", worker.log_tail(40));
    }

    fn ends(&self, isolation: Isolation) -> Ends {
        let found = self.scene.kafka.watermarks(&self.scene.output(), isolation).expect("the broker answers");
        found.into_iter().map(|(partition, range)| (partition, range.end)).collect()
    }

    /// Releases a held request while this transaction is open, and its owner frozen; the broker's answer.
    fn release_inside(&self, open: &OpenRange, late: &Injection) -> Option<i16> {
        assert!(late.fired() && late.answer().is_none(), "the request is held");
        late.release();
        let answer = late.wait_answer(PATIENCE).expect("the broker answers the late request");
        let is_open = self.ends(Isolation::ReadCommitted)[&open.partition] == open.from;
        assert!(is_open || answer.error_code() == Some(0), "only a request that was granted can end the transaction");
        answer.error_code()
    }

    /// Everything is processed, exactly once, nobody has ever seen a part of a transaction, and no offset went back.
    fn finish(self, worker: Worker) {
        self.scene.await_outputs(self.scene.produced, &[&worker]);
        worker.stop().expect("a clean stop");
        self.watch.finish(1);
        self.scene.verify(&["one"]);
    }
}

fn await_fired(injection: &Injection, worker: &Worker) {
    assert!(injection.wait_fired(PATIENCE), "the fault did not happen; the worker's log:\n{}", worker.log_tail(40));
}

fn scene_name(what: &str, fault: Fault) -> String {
    format!("{what}-{fault:?}").to_lowercase()
}

/// Runs a story with both ways of being late, at the same time.
fn in_both_ways(story: impl Fn(Fault) + Sync) {
    let story = &story;
    thread::scope(|scope| LATE.map(|fault| scope.spawn(move || story(fault))).map(drop));
}

/// A late request of this kind meets another producer in its place, and is refused.
fn refused_when_late(what: &str, rule: impl Fn(Fault) -> Rule, fault: Fault) {
    let mut faulty = Faulty::new(&scene_name(what, fault));
    let config = faulty.worker(SOCKET_TIMEOUT).with("kafka", REQUEST_TIMEOUT);
    let (worker, answer) = faulty.late_in_a_later_transaction(rule(fault), Over::Replaced, &config);
    worker.thaw().expect("a frozen worker can go on");
    assert!(answer.is_some_and(|code| code != 0), "{what}: the broker refuses it: {answer:?}");
    faulty.finish(worker);
}

/// The commit of transaction 1 is late. librdkafka sends a copy, which succeeds, and says OK. The original arrives in
/// the middle of transaction 2: EO-11 has put another producer there, so the broker refuses it.
#[test]
fn a_late_commit_changes_nothing() {
    in_both_ways(|fault| refused_when_late("late-commit", |fault| Rule::end_txn(true, fault), fault));
}

/// The offsets of transaction 1 arrive again inside a later transaction, which is about to commit higher ones.
#[test]
fn a_late_txn_offset_commit_does_not_move_offsets_back() {
    in_both_ways(|fault| {
        refused_when_late("late-offsets", |fault| Rule::new(ApiKey::TXN_OFFSET_COMMIT, fault), fault);
    });
}

/// The requests that build a transaction up, each late once in either way.
#[test]
fn late_requests_of_each_kind() {
    let controls =
        [("late-add-partitions", ApiKey::ADD_PARTITIONS_TO_TXN), ("late-add-offsets", ApiKey::ADD_OFFSETS_TO_TXN)];
    for (what, kind) in controls {
        in_both_ways(|fault| refused_when_late(what, |fault| Rule::new(kind, fault), fault));
    }
    // Records do not taint: one that is there already is acknowledged once more, all else belongs to an epoch that is
    // over or to a sequence that went on.
    in_both_ways(|fault| {
        let mut faulty = Faulty::new(&scene_name("late-produce", fault));
        let config = faulty.worker(SOCKET_TIMEOUT).with("kafka", REQUEST_TIMEOUT);
        let rule = Rule::new(ApiKey::PRODUCE, fault);
        let (worker, _) = faulty.late_in_a_later_transaction(rule, Over::Committed, &config);
        worker.thaw().expect("a frozen worker can go on");
        faulty.finish(worker);
    });
}

/// The late commit arrives when its copy has succeeded and the new producer is not there yet: to the broker it is the
/// same commit once more, to which it says yes, or that it is still busy with it (`CONCURRENT_TRANSACTIONS`).
#[test]
fn a_late_commit_before_the_new_producer_changes_nothing() {
    let mut faulty = Faulty::new("late-commit-before-init");
    let late = faulty.inject(Rule::end_txn(true, Fault::HoldAndReset));
    let hit = Arc::clone(&late);
    let init = faulty.inject(Rule::new(ApiKey::INIT_PRODUCER_ID, Fault::HoldAndTimeout).when(move |_| hit.fired()));
    faulty.scene.produce(RECORDS);
    let worker = faulty.worker(SOCKET_TIMEOUT_LONG).start();
    await_fired(&late, &worker);
    await_fired(&init, &worker);
    late.release();
    let answer = late.wait_answer(PATIENCE).expect("the broker answers the late request");
    assert!(matches!(answer.error_code(), Some(0 | 51)), "the same commit once more: {answer:?}");
    assert!(init.answer().is_none(), "the new producer is not initialised yet");
    init.release();
    faulty.finish(worker);
}

/// With the rule switched off, the late commit commits the first half of transaction 2, of which no offset is committed,
/// so the worker that comes after the crash writes it again. This is what the suite must be able to see.
#[test]
fn without_the_taint_rule_a_late_commit_is_visible() {
    in_both_ways(|fault| {
        let mut faulty = Faulty::new(&scene_name("without-taint-rule", fault));
        let config = faulty.worker(SOCKET_TIMEOUT).with("without", "tainted-producer-is-replaced");
        let rule = Rule::end_txn(true, fault);
        let (mut worker, answer) = faulty.late_in_a_later_transaction(rule, Over::Committed, &config);
        assert_eq!(answer, Some(0), "the broker takes the late commit for the one of the open transaction");
        assert!(!worker.log().contains("EO-11"), "the rule is off:\n{}", worker.log_tail(40));
        worker.kill().expect("it runs");

        let Faulty { scene, watch, .. } = faulty;
        scene.run(&scene.worker("one").with("instance-id", "one")).stop().expect("a clean stop");
        let outputs = oracle::check_ledger(&scene.read(&scene.input()), &scene.read(&scene.output()));
        assert!(outputs.doubled > 0, "the oracle sees the doubled outputs: {outputs}");
        let batches = watch.finish_torn();
        assert!(batches.torn > 0, "the reader has seen a part of a transaction: {batches}");
    });
}

/// A broker that does not verify transactions takes offsets of a producer that is gone, until it has seen offsets of its
/// successor. So the successor begins with a fence transaction, and what comes late to a later one is refused.
#[test]
fn where_the_broker_does_not_verify_a_fence_keeps_late_offsets_out() {
    in_both_ways(|fault| {
        let mut faulty = Faulty::on(Stage::unverified(), &scene_name("fenced-offsets", fault));
        let config = faulty.worker(SOCKET_TIMEOUT);
        let ends = faulty.ends_asked_for();
        // The first two of their kind are the fences of both producers.
        let rule = Rule::new(ApiKey::TXN_OFFSET_COMMIT, fault).nth(3);
        let (worker, answer) = faulty.late_in_a_later_transaction(rule, Over::Replaced, &config);
        worker.thaw().expect("a frozen worker can go on");
        assert!(worker.log().contains("transaction.partition.verification.enable"), "it is told of the weakness");
        assert!(answer.is_some_and(|code| code != 0), "the broker refuses the late offsets: {answer:?}");
        let ids = transactional_id(&faulty.scene.name, "one", 0).of_both();
        faulty.finish(worker);
        let ends = ends.lock().expect("nobody panics with it");
        for id in ids {
            let first = ends.iter().find(|(of, _)| *of == *id.0);
            assert_eq!(first, Some(&(id.0.to_string(), false)), "each producer begins with a fence: {ends:?}");
        }
    });
}

/// The late offsets arrive before the fence: such a broker takes them, which is what the fence is for. They wait for the
/// end of the producer's next transaction; that is the fence, and it aborts.
#[test]
fn where_the_broker_does_not_verify_offsets_before_the_fence_end_with_it() {
    let mut faulty = Faulty::on(Stage::unverified(), "before-the-fence");
    let late = faulty.inject(Rule::new(ApiKey::TXN_OFFSET_COMMIT, Fault::HoldAndReset).nth(3));
    let hit = Arc::clone(&late);
    let seen = Fault::Delay(Duration::ZERO);
    let init = faulty.inject(Rule::new(ApiKey::INIT_PRODUCER_ID, seen).when(move |_| hit.fired()));
    let replaced = Arc::clone(&init);
    let fence = Rule::new(ApiKey::ADD_OFFSETS_TO_TXN, Fault::HoldAndTimeout).when(move |_| replaced.fired());
    let fence = faulty.inject(fence);
    faulty.scene.produce(RECORDS);
    let worker = faulty.worker(SOCKET_TIMEOUT_LONG).start();
    await_fired(&late, &worker);
    await_fired(&fence, &worker);
    let before = faulty.scene.kafka.committed_offsets(&faulty.scene.input(), false).expect("the broker answers");
    late.release();
    let answer = late.wait_answer(PATIENCE).expect("the broker answers the late request");
    assert_eq!(answer.error_code(), Some(0), "the broker takes the offsets of a producer that is gone");
    assert!(fence.answer().is_none(), "the fence has not begun for the broker");
    fence.release();
    let after = faulty.scene.kafka.committed_offsets(&faulty.scene.input(), false).expect("the broker answers");
    assert!(before.iter().all(|(partition, before)| after[partition].0 >= before.0), "{before:?}, then {after:?}");
    faulty.finish(worker);
}

/// Every `EndTxn(commit)` of the producer that sends the first one, from its n-th commit on, copies included, and none of
/// its successor.
fn commits_of_one_producer(faulty: &Faulty, nth: u32, fault: Fault) -> Vec<Arc<Injection>> {
    const COPIES_MAX: u32 = 30;
    let hit = Arc::new(OnceLock::new());
    let is_hit = move |request: &Request| {
        let end = request.end_txn().filter(|end| end.committed);
        end.is_some_and(|end| {
            let producer = (end.producer_id, end.producer_epoch);
            *hit.get_or_init(|| producer) == producer
        })
    };
    let rule = |nth| Rule::new(ApiKey::END_TXN, fault).when(is_hit.clone()).nth(nth);
    (nth..=COPIES_MAX).map(|nth| faulty.inject(rule(nth))).collect()
}

/// A commit whose outcome is unknown: the worker has given its producer up. What was written by then, by partition.
fn unknown_commit(faulty: &mut Faulty, fault: Fault) -> (Worker, Vec<Arc<Injection>>, Ends) {
    let commits = commits_of_one_producer(faulty, 1, fault);
    faulty.scene.produce(RECORDS);
    let worker = faulty.worker_with(SOCKET_TIMEOUT, UNKNOWN_TRANSACTION_TIMEOUT).start();
    await_fired(&commits[0], &worker);
    let ends = faulty.ends(Isolation::ReadUncommitted);
    worker.await_log("the producer is replaced and every task recovered", PATIENCE).expect("the producer is given up");
    let copies = commits.iter().filter(|commit| commit.fired()).count();
    assert!((1..commits.len()).contains(&copies), "every copy of the commit was hit: {copies}");
    (worker, commits, ends)
}

#[test]
fn an_unknown_commit_counts_once_whether_or_not_it_took_effect() {
    thread::scope(|scope| {
        scope.spawn(an_unknown_commit_that_took_effect_is_found);
        scope.spawn(an_unknown_commit_that_did_not_take_effect_is_redone);
        scope.spawn(a_commit_whose_answer_no_one_lives_to_see_is_replayed);
    });
}

/// The broker commits, and not one of its answers arrives. The worker gives the producer up without knowing, and finds
/// its own commit when it recovers: nothing is done twice.
fn an_unknown_commit_that_took_effect_is_found() {
    let mut faulty = Faulty::new("unknown-took-effect");
    let (worker, commits, _) = unknown_commit(&mut faulty, Fault::DropResponse);
    let answer = commits[0].answer().expect("its answer was dropped");
    assert_eq!(answer.error_code(), Some(0), "the broker has committed");
    faulty.finish(worker);
}

/// The broker never hears of the commit before the worker has given the producer up and done the batch again. The
/// commits that then arrive in a later transaction change nothing.
fn an_unknown_commit_that_did_not_take_effect_is_redone() {
    let mut faulty = Faulty::new("unknown-without-effect");
    let begun = faulty.last_begun();
    let (mut worker, commits, ends) = unknown_commit(&mut faulty, Fault::HoldAndTimeout);
    assert!(commits.iter().all(|commit| commit.answer().is_none()), "the broker has not seen the commit");
    let is_of_same_producer = || *begun.lock().expect("nobody panics with it") == commits[0].transactional_id();
    let open = faulty.freeze_in_transaction_behind(&ends, is_of_same_producer, &mut worker);
    for commit in commits.iter().filter(|commit| commit.fired()) {
        let answer = faulty.release_inside(&open, commit);
        assert!(answer.is_some_and(|code| code != 0), "the broker refuses the late commit: {answer:?}");
    }
    worker.thaw().expect("a frozen worker can go on");
    faulty.finish(worker);
}

/// The broker commits, and the worker is killed before it hears of it: the batch is on the topics and not in the base.
/// The next start replays exactly that.
fn a_commit_whose_answer_no_one_lives_to_see_is_replayed() {
    let mut faulty = Faulty::new("unknown-and-killed");
    let commits = commits_of_one_producer(&faulty, 3, Fault::DropResponse);
    faulty.scene.produce(RECORDS);
    let config = faulty.worker(SOCKET_TIMEOUT);
    let mut worker = config.start();
    await_fired(&commits[0], &worker);
    worker.kill().expect("it runs");
    assert_eq!(commits[0].answer().and_then(|answer| answer.error_code()), Some(0), "the broker has committed");

    let scene = &faulty.scene;
    scene.settled();
    let (changelog, positions) = (scene.read(&scene.changelog()), scene.positions("one"));
    let tails: BTreeMap<i32, u64> = changelog
        .iter()
        .map(|log| (log.partition, log.records.len() - log.below(positions[&log.partition]).records.len()))
        .map(|(partition, tail)| (partition, tail as u64))
        .collect();
    assert!(tails.values().sum::<u64>() > 0, "the base lacks the last batch: {tails:?}");
    let worker = config.start();
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    assert_eq!(worker.replayed().into_iter().collect::<BTreeMap<_, _>>(), tails, "exactly what is missing is replayed");
    faulty.finish(worker);
}
