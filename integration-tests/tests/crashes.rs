//! Crashes on a real Kafka: workers die by `kill -9`, brokers die, directories vanish, and every input record still takes
//! effect exactly once. Every kill is shown to have hit where it was meant to.

use std::fs;
use std::time::Instant;

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::client::{
    concurrent_reader, open_transactions, read_committed, read_uncommitted, wait_no_open_transactions,
};
use processor_integration_tests::oracle::PartitionLog;
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig};

/// A static member whose operator takes its time, so that its transactions are open for most of it.
fn slow(scene: &Scene, worker: &str) -> WorkerConfig {
    scene.worker(worker).with("instance-id", worker).with("pause-us", 1_000)
}

fn start(config: &WorkerConfig) -> Worker {
    config.start().expect("the worker starts")
}

fn count(logs: &[PartitionLog]) -> u64 {
    logs.iter().map(|log| log.records.len() as u64).sum()
}

/// Two workers under load; twenty times one of them is frozen, seen to stand inside an open transaction, and killed in
/// that very moment. It comes back with its directory and its name. Meanwhile a reader watches that batches appear as a
/// whole. At the end outputs, changelog, stores on disk and offsets all say what the input says.
#[test]
fn twenty_kills_inside_open_transactions_lose_and_double_nothing() {
    const KILLS: usize = 20;
    let mut scene = Scene::new("kills");
    let configs = [slow(&scene, "one"), slow(&scene, "two")];
    let reader = concurrent_reader(&scene.bootstrap, &scene.output()).expect("a reader");
    let load = scene.load(1_200);
    let mut workers: Vec<Worker> = configs.iter().map(start).collect();
    let began = Instant::now();
    let mut caught = Vec::new();
    for kill in 0..KILLS {
        // Each is hit while the other is back, and also when it has only just come back itself.
        let victim = usize::from(kill % 4 == 1 || kill % 4 == 2);
        caught.push(scene.freeze_in_transaction(&mut workers[victim]));
        workers.remove(victim).kill().expect("a frozen worker can be killed");
        workers.insert(victim, start(&configs[victim]));
    }
    let took = began.elapsed();
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&workers[0], &workers[1]]);
    reader.finish().expect("the reader has seen ends").assert_ok();
    for worker in workers {
        worker.stop().expect("a clean stop");
    }
    scene.verify(&["one", "two"]);
    scene.assert_aborted(&caught);
    let thaws: usize = caught.iter().map(|caught| caught.thaws).sum();
    eprintln!(
        "{KILLS} kills inside open transactions in {took:.0?}, {thaws} freezes missed, {} records",
        scene.produced
    );
}

/// The base survives `kill -9`: a restart replays no more of the changelog than the last transactions wrote, and only
/// without the directory all of it.
#[test]
fn a_restart_after_kill_replays_only_the_tail() {
    let mut scene = Scene::new("tail");
    let config = scene.worker("one").with("instance-id", "one").with("pause-us", 100);
    let load = scene.load(4_000);
    let mut worker = start(&config);
    scene.await_outputs(20_000, &[&worker]);
    let caught = scene.freeze_in_transaction(&mut worker);
    worker.kill().expect("a frozen worker can be killed");

    let worker = start(&config);
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    let tail: u64 = worker.replayed().iter().sum();
    load.finish(&mut scene);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.kill().expect("the worker can be killed");
    let all = count(&read_committed(&scene.bootstrap, &scene.changelog()).expect("the changelog can be read"));
    eprintln!("replayed {tail} records with the base kept; the changelog has {all}");
    assert!(all > 5_000, "with {all} records the changelog is no longer than a tail");
    assert!(tail <= scene.keys, "{tail} records were replayed: more than the last transaction can have written");

    fs::remove_dir_all(scene.state_dir("one")).expect("the directory can be removed");
    let worker = start(&config);
    worker.await_running(4, PATIENCE).expect("all tasks run again");
    assert_eq!(worker.replayed().iter().sum::<u64>(), all, "without a base everything committed is replayed");
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
    let reader = concurrent_reader(&scene.bootstrap, &scene.output()).expect("a reader");
    scene.produce(8_000);
    let mut worker = start(&config);
    scene.await_outputs(2_000, &[&worker]);
    let caught = [scene.freeze_in_transaction(&mut worker)];
    worker.kill().expect("a frozen worker can be killed");

    wait_no_open_transactions(&scene.bootstrap, &scene.output()).expect("the broker ends the transaction");
    scene.assert_aborted(&caught);
    let output = read_committed(&scene.bootstrap, &scene.output()).expect("the output can be read");
    assert_eq!(count(&output), scene.offsets_done(), "outputs and offsets agree while nobody runs");
    assert!(count(&output) < scene.produced);

    let worker = start(&config);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    reader.finish().expect("the reader has seen ends").assert_ok();
    scene.verify(&["one"]);
    scene.assert_aborted(&caught);
    let written = count(&read_uncommitted(&scene.bootstrap, &scene.output()).expect("the output can be read").0);
    assert!(written > scene.produced, "the aborted outputs are in the log: {written} records");
}

/// The only broker dies under load, twice, and comes back with what it had acknowledged. The workers stay, and go on.
#[test]
fn a_broker_restart_is_survived() {
    broker_restart("mortal", |scene, worker| scene.worker(worker).with("pause-us", 1_000));
}

/// The same with named workers. Their sessions end while they wait for the broker, and nobody else uses their names.
#[test]
fn a_broker_restart_is_survived_by_named_workers() {
    broker_restart("mortal-named", slow);
}

fn broker_restart(name: &str, config: fn(&Scene, &str) -> WorkerConfig) {
    let dir = broker::test_dir(&format!("{name}-broker")).expect("the target directory can be written");
    let cluster = KafkaCluster::start(ClusterConfig::single(dir)).expect("a broker");
    let mut scene = Scene::at(name, &cluster.bootstrap_servers());
    let configs = ["one", "two"].map(|worker| config(&scene, worker));
    let load = scene.load(1_000);
    let mut workers = configs.each_ref().map(start);
    scene.await_outputs(2_000, &workers.each_ref());
    for _ in 0..2 {
        let done = scene.offsets_done();
        cluster.kill(1).expect("the broker can be killed");
        cluster.start_node(1).expect("the broker comes back");
        scene.await_outputs(done + 4_000, &workers.each_ref());
    }
    load.finish(&mut scene);
    scene.count_input();
    scene.await_outputs(scene.produced, &workers.each_ref());
    assert!(workers.iter_mut().all(Worker::is_alive), "no worker has ended");
    for worker in workers {
        worker.stop().expect("a clean stop");
    }
    scene.verify(&["one", "two"]);
}

/// SIGTERM under load: the batch in hand is committed, and the moment the process is gone nothing is left open, and
/// outputs and offsets say the same.
#[test]
fn a_clean_stop_commits_and_exits_zero() {
    let mut scene = Scene::new("stop");
    let config = slow(&scene, "one");
    let load = scene.load(1_000);
    let mut stops = Vec::new();
    for round in 1..=3 {
        let worker = start(&config);
        scene.await_outputs(stops.last().unwrap_or(&0) + 1_000, &[&worker]);
        worker.stop().expect("exit code 0");
        for topic in [scene.output(), scene.changelog()] {
            let open = open_transactions(&scene.bootstrap, &topic).expect("the broker answers");
            assert!(open.is_empty(), "transactions are open in {topic}: {open:?}");
        }
        let (outputs, offsets) = (scene.outputs(), scene.offsets_done());
        assert_eq!(outputs, offsets, "round {round}");
        stops.push(offsets);
    }
    assert!(stops.is_sorted_by(|one, next| one < next), "there was load at every stop: {stops:?}");
    load.finish(&mut scene);
    assert!(stops[2] < scene.produced, "the last stop, too, was under load: {stops:?} of {}", scene.produced);
    let worker = start(&config);
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("exit code 0");
    scene.verify(&["one"]);
}
