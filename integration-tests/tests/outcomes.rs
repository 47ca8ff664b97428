//! What becomes of a transaction when one of its requests is late, lost or cut off: architecture section 2.2, on a real
//! Kafka, through a proxy that holds single requests.
//!
//! A request that arrives late must arrive *inside a later transaction*, or the test shows nothing. So the worker is
//! frozen when such a transaction is open. It is known by its offsets: every record of the transaction that was hit lies
//! below the ends of the output that were read after the hit, so what is unstable at or behind them is of a later one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::client::{
    ConcurrentReader, Isolation, committed_offsets, concurrent_reader, read_committed, watermarks,
};
use processor_integration_tests::oracle;
use processor_integration_tests::proxy::{ApiKey, Fault, Injection, Proxy, Request, Rule};
use processor_integration_tests::scene::{OpenRange, PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition};

/// After so long librdkafka gives a request up and sends a copy.
const SOCKET_TIMEOUT: &str = "producer.socket.timeout.ms=1000";
/// A record takes so long: nearly all of the time a transaction is open.
const PAUSE_US: u32 = 1_000;
const RECORDS: u64 = 5_000;
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A commit without an answer is given up after four fifths of it.
const UNKNOWN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
/// How often a worker is frozen until it is caught in the right transaction.
const FREEZES_MAX: usize = 100;

/// A broker and the proxy in front of it. The tests of this file keep apart by the client ids of their workers.
struct Stage {
    proxy: Proxy,
    cluster: KafkaCluster,
}

fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let proxy = Proxy::bind().expect("a free port");
        let dir = broker::test_dir("outcomes").expect("the target directory can be written");
        let config = ClusterConfig { proxy_ports: vec![proxy.port()], ..ClusterConfig::single(dir) };
        let cluster = KafkaCluster::start(config).expect("the broker starts");
        proxy.forward_to(cluster.ports(1).behind_proxy);
        Stage { proxy, cluster }
    })
}

/// An application whose worker reaches the broker through the proxy.
struct Faulty {
    scene: Scene,
    reader: ConcurrentReader,
}

impl Faulty {
    fn new(name: &str) -> Self {
        let scene = Scene::behind(name, &stage().cluster.bootstrap_servers(), &stage().proxy.bootstrap());
        let reader = concurrent_reader(&scene.bootstrap, &scene.output()).expect("the output can be read");
        Self { scene, reader }
    }

    fn inject(&self, rule: Rule) -> Arc<Injection> {
        stage().proxy.inject(rule.client_id_contains(&format!("{}:one:", self.scene.name)))
    }

    fn worker(&self) -> WorkerConfig {
        self.worker_with(TRANSACTION_TIMEOUT)
    }

    fn worker_with(&self, transaction_timeout: Duration) -> WorkerConfig {
        let worker = self.scene.worker("one").with("instance-id", "one").with("kafka", SOCKET_TIMEOUT);
        worker.with("pause-us", PAUSE_US).with_time("transaction-timeout", transaction_timeout)
    }

    /// Freezes the worker inside a transaction that began at or behind these ends of the output.
    fn freeze_in_transaction_behind(&self, ends: &Ends, worker: &mut Worker) -> OpenRange {
        for _ in 0..FREEZES_MAX {
            let caught = self.scene.freeze_in_transaction(worker);
            let outputs = caught.open.into_iter().filter(|range| range.topic == self.scene.output());
            if let Some(range) = outputs.into_iter().find(|range| ends[&range.partition] <= range.from) {
                return range;
            }
            worker.thaw().expect("a frozen worker can go on");
        }
        panic!("the worker was never in a later transaction; its log ends:\n{}", worker.log_tail(40));
    }

    fn ends(&self, isolation: Isolation) -> Ends {
        let found = watermarks(&self.scene.bootstrap, &self.scene.output(), isolation).expect("the broker answers");
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

    /// Everything is processed, exactly once, and nobody has ever seen a part of a transaction.
    fn finish(self, worker: Worker) {
        self.scene.await_outputs(self.scene.produced, &[&worker]);
        worker.stop().expect("a clean stop");
        self.scene.verify(&["one"]);
        self.reader.finish().expect("the output can be read").assert_ok();
    }
}

type Ends = BTreeMap<i32, i64>;

fn start(config: &WorkerConfig) -> Worker {
    config.start().expect("the worker starts")
}

fn await_fired(injection: &Injection, worker: &Worker) {
    assert!(injection.wait_fired(PATIENCE), "the fault did not happen; the worker's log:\n{}", worker.log_tail(40));
}

fn scene_name(what: &str, fault: Fault) -> String {
    format!("{what}-{fault:?}").to_lowercase()
}

/// The commit of transaction 1 is late. librdkafka sends a copy, which succeeds, and says OK. The original arrives in
/// the middle of transaction 2: EO-11 has put another producer there, so the broker refuses it.
#[test]
fn a_late_commit_changes_nothing() {
    for fault in [Fault::HoldAndTimeout, Fault::HoldAndReset] {
        let mut faulty = Faulty::new(&scene_name("late-commit", fault));
        let late = faulty.inject(Rule::end_txn(true, fault));
        faulty.scene.produce(RECORDS);
        let mut worker = start(&faulty.worker());
        await_fired(&late, &worker);
        let ends = faulty.ends(Isolation::ReadUncommitted);
        worker.await_log("(EO-11)", PATIENCE).expect("a tainted producer is replaced");
        let open = faulty.freeze_in_transaction_behind(&ends, &mut worker);
        let answer = faulty.release_inside(&open, &late);
        worker.thaw().expect("a frozen worker can go on");
        assert!(answer.is_some_and(|code| code != 0), "the broker refuses the late commit: {answer:?}");
        faulty.finish(worker);
    }
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
    let worker = start(&faulty.worker().with("kafka", "producer.socket.timeout.ms=9000"));
    await_fired(&late, &worker);
    await_fired(&init, &worker);
    late.release();
    let answer = late.wait_answer(PATIENCE).expect("the broker answers the late request");
    assert!(matches!(answer.error_code(), Some(0 | 51)), "the same commit once more: {answer:?}");
    assert!(init.answer().is_none(), "the new producer is not initialised yet");
    init.release();
    faulty.finish(worker);
}

/// As above with the rule switched off: the late commit commits the first half of transaction 2, of which no offset is
/// committed, so the worker that comes after the crash writes it again. This is what the suite must be able to see.
#[test]
fn without_the_taint_rule_a_late_commit_is_visible() {
    for fault in [Fault::HoldAndTimeout, Fault::HoldAndReset] {
        let mut faulty = Faulty::new(&scene_name("without-taint-rule", fault));
        let late = faulty.inject(Rule::end_txn(true, fault));
        faulty.scene.produce(RECORDS);
        let mut worker = start(&faulty.worker().with_flag("without-taint-rule"));
        await_fired(&late, &worker);
        let ends = faulty.ends(Isolation::ReadUncommitted);
        let open = faulty.freeze_in_transaction_behind(&ends, &mut worker);
        let answer = faulty.release_inside(&open, &late);
        assert_eq!(answer, Some(0), "the broker takes the late commit for the one of the open transaction");
        assert!(!worker.log().contains("EO-11"), "the rule is off:\n{}", worker.log_tail(40));
        worker.kill().expect("it runs");

        let scene = &faulty.scene;
        let worker = start(&scene.worker("one").with("instance-id", "one"));
        scene.await_outputs(scene.produced, &[&worker]);
        worker.stop().expect("a clean stop");
        let [input, output] = [scene.input(), scene.output()]
            .map(|topic| read_committed(&scene.bootstrap, &topic).expect("the topic can be read"));
        let outputs = oracle::check_ledger(&input, &output);
        assert!(outputs.doubled > 0, "the oracle sees the doubled outputs: {outputs}");
        let batches = faulty.reader.finish().expect("the output can be read");
        assert!(batches.torn > 0, "the reader has seen a part of a transaction: {batches}");
    }
}

/// Every `EndTxn(commit)` of the producer that sends the first one, copies included, and none of its successor.
fn commits_of_one_producer(faulty: &Faulty, fault: Fault) -> Vec<Arc<Injection>> {
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
    (1..=COPIES_MAX).map(|nth| faulty.inject(rule(nth))).collect()
}

/// A commit whose outcome is unknown: the worker has given its producer up. What was committed by then, by partition.
fn unknown_commit(faulty: &mut Faulty, fault: Fault) -> (Worker, Vec<Arc<Injection>>, Ends) {
    let commits = commits_of_one_producer(faulty, fault);
    faulty.scene.produce(RECORDS);
    let worker = start(&faulty.worker_with(UNKNOWN_TRANSACTION_TIMEOUT));
    await_fired(&commits[0], &worker);
    let ends = faulty.ends(Isolation::ReadUncommitted);
    worker.await_log("the producer is replaced and every task recovered", PATIENCE).expect("the producer is given up");
    let copies = commits.iter().filter(|commit| commit.fired()).count();
    assert!((1..commits.len()).contains(&copies), "every copy of the commit was hit: {copies}");
    (worker, commits, ends)
}

/// The broker commits, and not one of its answers arrives. The worker gives the producer up without knowing, and finds
/// its own commit when it recovers: nothing is done twice.
#[test]
fn an_unknown_commit_that_took_effect_is_found() {
    let mut faulty = Faulty::new("unknown-took-effect");
    let (worker, commits, _) = unknown_commit(&mut faulty, Fault::DropResponse);
    let answer = commits[0].answer().expect("its answer was dropped");
    assert_eq!(answer.error_code(), Some(0), "the broker has committed");
    faulty.finish(worker);
}

/// The broker never hears of the commit before the worker has given the producer up and done the batch again. The
/// commits that then arrive in a later transaction change nothing.
#[test]
fn an_unknown_commit_that_did_not_take_effect_is_redone() {
    let mut faulty = Faulty::new("unknown-without-effect");
    let (mut worker, commits, ends) = unknown_commit(&mut faulty, Fault::HoldAndTimeout);
    assert!(commits.iter().all(|commit| commit.answer().is_none()), "the broker has not seen the commit");
    let open = faulty.freeze_in_transaction_behind(&ends, &mut worker);
    for commit in commits.iter().filter(|commit| commit.fired()) {
        let answer = faulty.release_inside(&open, commit);
        assert!(answer.is_some_and(|code| code != 0), "the broker refuses the late commit: {answer:?}");
    }
    worker.thaw().expect("a frozen worker can go on");
    faulty.finish(worker);
}

/// Looks at a group's committed offsets all the time.
struct OffsetsWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<BTreeMap<i32, i64>>>,
}

impl OffsetsWatch {
    fn start(scene: &Scene) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (bootstrap, group, topic) = (scene.bootstrap.clone(), scene.name.clone(), scene.input());
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Vec::new();
            while !stopping.load(Ordering::SeqCst) {
                let offsets = committed_offsets(&bootstrap, &group, &topic, false).expect("the broker answers");
                seen.push(offsets.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect());
            }
            seen
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<BTreeMap<i32, i64>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the offsets can be read")
    }
}

/// The offsets of transaction 1 arrive again inside a later transaction, which is about to commit higher ones.
#[test]
fn a_late_txn_offset_commit_does_not_move_offsets_back() {
    for fault in [Fault::HoldAndTimeout, Fault::HoldAndReset] {
        let mut faulty = Faulty::new(&scene_name("late-offsets", fault));
        let late = faulty.inject(Rule::new(ApiKey::TXN_OFFSET_COMMIT, fault));
        let watch = OffsetsWatch::start(&faulty.scene);
        faulty.scene.produce(RECORDS);
        let mut worker = start(&faulty.worker());
        await_fired(&late, &worker);
        let ends = faulty.ends(Isolation::ReadUncommitted);
        worker.await_log("(EO-11)", PATIENCE).expect("a tainted producer is replaced");
        let open = faulty.freeze_in_transaction_behind(&ends, &mut worker);
        let answer = faulty.release_inside(&open, &late);
        worker.thaw().expect("a frozen worker can go on");
        assert!(answer.is_some_and(|code| code != 0), "the broker refuses the late offsets: {answer:?}");
        faulty.finish(worker);
        let seen = watch.finish();
        assert!(seen.len() > 10, "the offsets were looked at {} times", seen.len());
        oracle::check_offsets_monotone(&seen).assert_ok();
    }
}

/// The requests that build a transaction up, each late once in either way.
#[test]
fn late_requests_of_each_kind() {
    let kinds = [
        ("add-partitions", ApiKey::ADD_PARTITIONS_TO_TXN),
        ("add-offsets", ApiKey::ADD_OFFSETS_TO_TXN),
        ("produce", ApiKey::PRODUCE),
    ];
    for (what, kind) in kinds {
        for fault in [Fault::HoldAndTimeout, Fault::HoldAndReset] {
            let mut faulty = Faulty::new(&scene_name(&format!("late-{what}"), fault));
            let late = faulty.inject(Rule::new(kind, fault));
            faulty.scene.produce(RECORDS);
            // A record must be given up long before its transaction, so that its copy is in time.
            let worker = faulty.worker().with("kafka", "producer.request.timeout.ms=1000");
            let mut worker = start(&worker);
            await_fired(&late, &worker);
            await_condition(
                "the transaction that was hit to be over",
                PATIENCE,
                || Ok(faulty.scene.offsets_done() > 0),
            )
            .unwrap_or_else(|error| panic!("{error:#}; the worker's log:\n{}", worker.log_tail(40)));
            let ends = faulty.ends(Isolation::ReadUncommitted);
            let open = faulty.freeze_in_transaction_behind(&ends, &mut worker);
            let answer = faulty.release_inside(&open, &late);
            worker.thaw().expect("a frozen worker can go on");
            // A record that is there already is acknowledged once more; all else belongs to an epoch that is over.
            assert!(kind == ApiKey::PRODUCE || answer.is_some_and(|code| code != 0), "{what}: {answer:?}");
            faulty.finish(worker);
        }
    }
}
