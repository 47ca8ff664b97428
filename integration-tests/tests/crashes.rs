//! Crashes on a real Kafka: workers die by `kill -9`, brokers die, directories vanish, and every input record still takes
//! effect exactly once. Every kill is shown to have hit where it was meant to.

use std::fs;
use std::time::Instant;

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::client::Isolation;
use processor_integration_tests::scene::{Load, PATIENCE, Scene, Watch, count};
use processor_integration_tests::worker::{Worker, WorkerConfig};

/// So often at least a reader must have stood behind new batches, for what it has seen to count.
const ENDS_MIN: u64 = 20;

/// A static member whose operator takes its time, so that its transactions are open for most of it.
fn slow(scene: &Scene, worker: &str) -> WorkerConfig {
    scene.worker(worker).with("instance-id", worker).with("pause-us", 1_000)
}

/// Two workers under load; twenty times one of them is frozen, seen to stand inside an open transaction, and killed in
/// that very moment. It comes back with its directory and its name. Meanwhile a reader watches that batches appear as a
/// whole, and offsets never go back. At the end outputs, changelog, stores on disk and offsets all say what the input
/// says.
#[test]
fn twenty_kills_inside_open_transactions_lose_and_double_nothing() {
    const KILLS: usize = 20;
    let mut scene = Scene::new("kills");
    let configs = [slow(&scene, "one"), slow(&scene, "two")];
    let watch = scene.watch();
    let load = scene.load(1_200);
    let mut workers = configs.each_ref().map(WorkerConfig::start);
    let began = Instant::now();
    let mut caught = Vec::new();
    for kill in 0..KILLS {
        // Each is hit while the other is back, and also when it has only just come back itself.
        let victim = usize::from(kill % 4 == 1 || kill % 4 == 2);
        caught.push(scene.freeze_in_transaction(&mut workers[victim]));
        workers[victim].kill().expect("a frozen worker can be killed");
        workers[victim] = configs[victim].start();
    }
    let took = began.elapsed();
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &workers.each_ref());
    for worker in workers {
        worker.stop().expect("a clean stop");
    }
    watch.finish(ENDS_MIN);
    scene.verify(&["one", "two"]);
    scene.assert_aborted(&caught);
    let thaws: usize = caught.iter().map(|caught| caught.thaws).sum();
    eprintln!(
        "{KILLS} kills inside open transactions in {took:.0?}, {thaws} freezes missed, {} records",
        scene.produced
    );
}

/// The base survives `kill -9`: a restart replays exactly what is committed behind the position on disk, and only without
/// the directory all of it. (That the tail is not always empty is shown in `outcomes`: there the kill comes between a
/// commit and its answer.)
#[test]
fn a_restart_after_kill_replays_only_the_tail() {
    let mut scene = Scene::new("tail");
    let config = scene.worker("one").with("instance-id", "one").with("pause-us", 100);
    let load = scene.load(4_000);
    let mut worker = config.start();
    scene.await_outputs(20_000, &[&worker]);
    let caught = scene.freeze_in_transaction(&mut worker);
    worker.kill().expect("a frozen worker can be killed");
    let positions = scene.positions("one");
    let ends = scene.kafka.watermarks(&scene.changelog(), Isolation::ReadUncommitted).expect("the broker answers");

    let mut worker = config.start();
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    let replayed = worker.replayed();
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.kill().expect("the worker can be killed");
    let changelog = scene.read(&scene.changelog());
    for (partition, replayed) in replayed {
        let log = changelog.iter().find(|log| log.partition == partition).expect("it has four partitions");
        let tail = log.below(ends[&partition].end).records.len() - log.below(positions[&partition]).records.len();
        assert_eq!(
            replayed, tail as u64,
            "what is committed behind {} of partition {partition}",
            positions[&partition]
        );
    }
    let all = count(&changelog);
    assert!(all > 5_000, "with {all} records the changelog is no longer than a tail");

    fs::remove_dir_all(scene.state_dir("one")).expect("the directory can be removed");
    let worker = config.start();
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    let replayed: u64 = worker.replayed().into_iter().map(|(_, replayed)| replayed).sum();
    assert_eq!(replayed, all, "without a base everything committed is replayed");
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
    scene.assert_aborted(&[caught]);
}

/// Whoever loses the directory gets the same state from the changelog, entry by entry, and goes on from there.
#[test]
fn restore_from_an_empty_directory_gives_the_same_state() {
    let mut scene = Scene::new("empty");
    scene.produce(20_000);
    let worker = scene.start("one");
    scene.await_outputs(20_000, &[&worker]);
    worker.stop().expect("a clean stop");
    let before = scene.stores(&["one"]);
    assert!(!before.is_empty());
    fs::remove_dir_all(scene.state_dir("one")).expect("the directory can be removed");

    let worker = scene.start("one");
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    worker.stop().expect("a clean stop");
    assert_eq!(scene.stores(&["one"]), before);

    scene.produce(5_000);
    let worker = scene.start("one");
    scene.await_outputs(25_000, &[&worker]);
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

/// A worker dies inside a transaction and nobody comes back for it: the broker aborts the transaction when its time is
/// up. What it had written is in the log for ever, is never seen by a reader of committed records, and is not in the
/// state of the worker that starts afterwards.
#[test]
fn an_aborted_transaction_leaves_nothing() {
    let mut scene = Scene::new("aborted");
    let config = scene.worker("one").with("instance-id", "one").with("pause-us", 300).with("transaction-timeout", "5s");
    let watch = scene.watch();
    scene.produce(8_000);
    let mut worker = config.start();
    scene.await_outputs(2_000, &[&worker]);
    let caught = [scene.freeze_in_transaction(&mut worker)];
    worker.kill().expect("a frozen worker can be killed");

    scene.kafka.wait_no_open_transactions(&scene.output()).expect("the broker ends the transaction");
    scene.assert_aborted(&caught);
    assert!(scene.settled() < scene.produced, "there is something left to do");
    scene.assert_pasts(&scene.stores_of("one"), &scene.read(&scene.changelog()));

    let worker = config.start();
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    watch.finish(1);
    scene.verify(&["one"]);
    scene.assert_aborted(&caught);
    let written = count(&scene.kafka.read_uncommitted(&scene.output()).expect("the output can be read").0);
    assert!(written > scene.produced, "the aborted outputs are in the log: {written} records");
}

/// The only broker dies under load, twice, and comes back with what it had acknowledged. The workers of two applications
/// stay, and go on: the ones with names, whose sessions end while they wait for the broker and whose names nobody else
/// uses, and the ones without.
///
/// A run in which the broker itself has dropped the end of a transaction says nothing of its clients, and is not counted:
/// see [`KafkaCluster::dropped_markers`].
#[test]
fn a_broker_restart_is_survived() {
    const ATTEMPTS: usize = 4;
    for attempt in 1..=ATTEMPTS {
        if broker_restarts_are_survived(attempt) {
            return;
        }
        eprintln!("attempt {attempt}: the broker has dropped the end of a transaction while it started");
    }
    panic!("the broker has dropped the end of a transaction in each of {ATTEMPTS} attempts");
}

/// False if the broker has dropped the end of a transaction.
fn broker_restarts_are_survived(attempt: usize) -> bool {
    let dir = broker::test_dir(&format!("mortal-broker-{attempt}")).expect("the target directory can be written");
    let cluster = KafkaCluster::start(ClusterConfig::single(dir)).expect("a broker");
    let plain = |scene: &Scene, worker: &str| scene.worker(worker).with("pause-us", 1_000);
    let mut applications = [
        Restarted::start(Scene::at(&format!("mortal-{attempt}"), &cluster.bootstrap_servers()), plain),
        Restarted::start(Scene::at(&format!("mortal-named-{attempt}"), &cluster.bootstrap_servers()), slow),
    ];
    for application in &applications {
        application.await_done(2_000);
    }
    for _ in 0..2 {
        let done = applications.each_ref().map(|application| application.scene.offsets_done());
        cluster.kill(1).expect("the broker can be killed");
        cluster.start_node(1).expect("the broker comes back");
        if cluster.dropped_markers(1).expect("its log can be read") > 0 {
            applications.into_iter().for_each(Restarted::abandon);
            return false;
        }
        for (application, done) in applications.iter_mut().zip(done) {
            application.scene.reconnect();
            application.await_done(done + 4_000);
        }
    }
    applications.iter_mut().for_each(Restarted::finish_load);
    applications.into_iter().for_each(Restarted::verify);
    true
}

/// Two workers of one application, under load and watched.
struct Restarted {
    scene: Scene,
    workers: [Worker; 2],
    watch: Watch,
    load: Option<Load>,
}

impl Restarted {
    fn start(scene: Scene, config: fn(&Scene, &str) -> WorkerConfig) -> Self {
        let (watch, load) = (scene.watch(), Some(scene.load(600)));
        let workers = ["one", "two"].map(|worker| config(&scene, worker).start());
        Self { scene, workers, watch, load }
    }

    fn await_done(&self, records: u64) {
        self.scene.await_outputs(records, &self.workers.each_ref());
    }

    fn finish_load(&mut self) {
        self.load.take().expect("it is finished once").finish(&mut self.scene);
    }

    fn abandon(mut self) {
        self.finish_load();
        self.watch.abandon();
    }

    fn verify(self) {
        let Self { scene, mut workers, watch, .. } = self;
        scene.await_outputs(scene.produced, &workers.each_ref());
        assert!(workers.iter_mut().all(Worker::is_alive), "no worker has ended");
        for worker in workers {
            worker.stop().expect("a clean stop");
        }
        watch.finish(ENDS_MIN);
        scene.verify(&["one", "two"]);
    }
}

/// SIGTERM inside a transaction: the batch in hand is committed and not aborted, and a moment after the process is gone
/// nothing is left open, and outputs and offsets say the same.
#[test]
fn a_clean_stop_commits_and_exits_zero() {
    let mut scene = Scene::new("stop");
    let config = slow(&scene, "one");
    let load = scene.load(1_000);
    let mut stops: Vec<u64> = Vec::new();
    for _ in 0..3 {
        let mut worker = config.start();
        scene.await_outputs(stops.last().unwrap_or(&0) + 1_000, &[&worker]);
        let caught = scene.freeze_in_transaction(&mut worker);
        worker.terminate().expect("a worker that runs can be asked to stop");
        worker.thaw().expect("a frozen worker can go on");
        worker.stopped().expect("exit code 0");
        stops.push(scene.settled());
        scene.assert_committed(&[caught]);
    }
    assert!(stops.is_sorted_by(|one, next| one < next), "there was load at every stop: {stops:?}");
    load.finish(&mut scene);
    assert!(stops[2] < scene.produced, "the last stop, too, was under load: {stops:?} of {}", scene.produced);
    let worker = config.start();
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("exit code 0");
    scene.verify(&["one"]);
}

/// What a crash in native code says is all that is left of it where nobody keeps core files.
#[test]
fn a_worker_that_crashes_says_where_it_stood() {
    let scene = Scene::new("crashed");
    let mut worker = scene.worker("one").start();
    worker.await_running(4, PATIENCE).expect("it takes all");
    let crashed = worker.crashes(PATIENCE).expect("it dies of the signal");
    assert!(crashed.contains("crashed: SIGSEGV in thread 'ledger-worker'"), "{crashed}");
    assert!(crashed.contains("main"), "{crashed}");
}
