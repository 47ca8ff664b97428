//! A worker dies at every named place of its turn, restore and end, on a real Kafka, and nothing is lost or doubled.

use std::fs;

use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition};
use processor_runtime::failpoints::Failpoint;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};

/// A single record takes so long that its batch outlives its time, and is given up: four fifths of the transaction's time
/// and more. Shorter ones need a first batch of several, and how many a poll brings is chance.
const SLOW_US: u32 = 4_500_000;
const RATE: u64 = 1_500;

fn config(scene: &Scene, worker: &str) -> WorkerConfig {
    scene.worker(worker).with("instance-id", worker).with("transaction-timeout", "5s")
}

/// Puts an end to this worker's first producer.
fn fence(scene: &Scene, worker: &str) {
    let id = format!("{}:{worker}:0", scene.name);
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &scene.bootstrap).set("transactional.id", id);
    let producer: BaseProducer = settings.create().expect("the settings are sound");
    producer.init_transactions(PATIENCE).expect("a coordinator");
}

/// Starts a worker that dies at this place, brings it there, and waits for its death.
fn die_at(scene: &Scene, at: Failpoint) {
    let config = config(scene, "one");
    let dying = |pass: u32| config.clone().with("die-at", format!("{}:{pass}", at.name()));
    let mut worker = match at {
        Failpoint::InRevoke => {
            let worker = dying(1).start();
            worker.await_running(2, PATIENCE).expect("it takes its part");
            // A third member: the others have to give up what they have.
            self::config(scene, "three").with_flag("leave").start().await_running(1, PATIENCE).ok();
            worker
        }
        Failpoint::InRestore
        | Failpoint::BetweenRestoreBatches
        | Failpoint::BeforePosition
        | Failpoint::AfterRestore => {
            fs::remove_dir_all(scene.state_dir("one")).expect("it has run before");
            dying(1).start()
        }
        Failpoint::AfterAbort => dying(1).with("pause-us", SLOW_US).start(),
        Failpoint::AfterRebuild => {
            let mut worker = dying(1).start();
            let fenced = await_condition("it to be fenced in a transaction", PATIENCE, || {
                fence(scene, "one");
                Ok(!worker.is_alive())
            });
            fenced.unwrap_or_else(|error| panic!("{}: {error:#}:\n{}", at.name(), worker.log_tail(30)));
            worker
        }
        Failpoint::InClose => {
            let worker = dying(1).start();
            worker.await_running(2, PATIENCE).expect("it takes its part");
            worker.terminate().expect("it runs");
            worker
        }
        Failpoint::MidProcess => dying(500).start(),
        _ => dying(5).start(),
    };
    let died = worker.dies(PATIENCE);
    died.unwrap_or_else(|error| panic!("{}: {error:#}", at.name()));
}

/// Two workers under load; one of them dies at each place in turn, and comes back.
#[test]
fn death_at_every_failpoint_loses_and_doubles_nothing() {
    let mut scene = Scene::new("failpoints");
    let other: Worker = config(&scene, "two").start();
    let watch = scene.watch();
    let load = scene.load(RATE);
    let worker = config(&scene, "one").start();
    worker.await_running(2, PATIENCE).expect("it takes its part");
    worker.stop().expect("a clean stop");
    for at in Failpoint::ALL {
        die_at(&scene, at);
        // It comes back for a moment, so that what it has left is gone on with.
        let worker = config(&scene, "one").start();
        worker.await_running(2, PATIENCE).unwrap_or_else(|error| panic!("behind {}: {error:#}", at.name()));
        worker.stop().expect("a clean stop");
    }
    load.finish(&mut scene);
    let worker = config(&scene, "one").start();
    scene.await_outputs(scene.produced, &[&worker, &other]);
    worker.stop().expect("a clean stop");
    other.stop().expect("a clean stop");
    watch.finish(Failpoint::ALL.len() as u64);
    scene.verify(&["one", "two"]);
}
