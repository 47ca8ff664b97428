//! The example programs on a real Kafka: each under load in two workers, one of which is killed twenty times with
//! `kill -9` inside an open transaction, and then what it has written is compared with its input by an oracle.

use std::time::Instant;

use processor_integration_tests::oracle::{self, BankBooks};
use processor_integration_tests::scene::{Caught, PATIENCE, Scene, Subject};
use processor_integration_tests::worker::{Worker, WorkerConfig, await_condition};

const WORKERS: [&str; 2] = ["one", "two"];
const KILLS: usize = 20;
/// What `moving-average` takes without being told.
const WINDOW: usize = 10;
/// Longer than an order may be repeated after its first time.
const REMEMBER_MS: i64 = 8_000;
/// Each record is a millisecond later than the one before: of so many, most are too old to be remembered at the end.
const OUTLASTING: u64 = 3 * REMEMBER_MS as u64;

/// A program after its kills: all that was produced is read, and two workers run.
struct Survived {
    scene: Scene,
    workers: [Worker; 2],
    caught: Vec<Caught>,
}

/// Runs two workers of a program under load; twenty times one of them is frozen, seen to stand inside an open transaction,
/// and killed in that very moment. It comes back with its directory and its name.
fn survive_kills(name: &str, subject: Subject, rate: u64, options: &[(&str, &str)]) -> Survived {
    let mut scene = Scene::of(subject, name);
    let config = |worker: &&str| {
        let config = scene.worker(worker).with("instance-id", worker);
        options.iter().fold(config, |config, (option, value)| config.with(option, value))
    };
    let configs = WORKERS.each_ref().map(config);
    let load = scene.load(rate);
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
    let (took, thaws) = (began.elapsed(), caught.iter().map(|caught| caught.thaws).sum::<usize>());
    load.finish(&mut scene);
    eprintln!("{name}: {KILLS} kills in {took:.0?}, {thaws} freezes missed, {} records", scene.produced);
    scene.await_outputs(scene.produced, &workers.each_ref());
    Survived { scene, workers, caught }
}

impl Survived {
    /// Produces what is missing to so many records, however soon the kills were done, and waits until they are processed.
    fn fill_up_to(mut self, records: u64) -> Self {
        self.scene.produce(records.saturating_sub(self.scene.produced));
        self.scene.await_outputs(self.scene.produced, &self.workers.each_ref());
        self
    }

    /// Waits for what has to happen behind the committed input offsets.
    fn await_settled(&self, what: &str, settled: impl Fn(&Scene) -> bool) {
        let outcome = await_condition(what, PATIENCE, || Ok(settled(&self.scene)));
        let logs = || self.workers.each_ref().map(|worker| worker.log_tail(25)).join("\n---\n");
        outcome.unwrap_or_else(|error| panic!("{error:#}; logs:\n{}", logs()));
    }

    /// Stops the workers; what remains is to be judged.
    fn stop(self) -> Scene {
        for worker in self.workers {
            worker.stop().expect("a clean stop");
        }
        self.scene.assert_aborted(&self.caught);
        self.scene
    }
}

#[test]
fn moving_average_survives_twenty_kills() {
    let scene = survive_kills("ex-average", Subject::MOVING_AVERAGE, 1_500, &[]).stop();
    let (readings, averages) = (scene.read(&scene.input()), scene.read(&scene.output()));
    let verdict = oracle::check_moving_average(&readings, &averages, WINDOW);
    verdict.assert_ok();
    assert_eq!(verdict.inputs, scene.produced);
    scene.verify_store("window", &oracle::expected_windows(&readings, WINDOW), &WORKERS);
}

/// Every word goes through the internal topic, and each of its counts is there once.
#[test]
fn word_count_survives_twenty_kills() {
    let survived = survive_kills("ex-words", Subject::WORD_COUNT, 600, &[]);
    let lines = survived.scene.read(&survived.scene.input());
    let words = oracle::words_of(&lines);
    survived.await_settled("every word to be counted", |scene| scene.outputs() >= words);
    let scene = survived.stop();
    let verdict = oracle::check_word_count(&lines, &scene.read(&scene.output()));
    verdict.assert_ok();
    assert_eq!(verdict.inputs, words);
    assert!(words > scene.produced, "lines have several words");
    scene.verify_store("counts", &oracle::expected_word_counts(&lines), &WORKERS);
}

/// Each transfer is debited and credited, or refused, once and rightly; what is no transfer is a dead letter, once; and no
/// money comes or goes.
#[test]
fn bank_ledger_survives_twenty_kills() {
    let survived = survive_kills("ex-bank", Subject::BANK_LEDGER, 800, &[]);
    let read = |scene: &Scene| {
        ["out", "refused", "unreadable"].map(|topic| {
            let so_far = scene.kafka.read_committed_so_far(&scene.topic(topic));
            so_far.expect("the topic can be read")
        })
    };
    let transfers = survived.scene.read(&survived.scene.input());
    survived.await_settled("every credit to arrive", |scene| {
        let [balances, refused, unreadable] = &read(scene);
        oracle::is_settled(&BankBooks { transfers: &transfers, balances, refused, unreadable })
    });
    let scene = survived.stop();
    let [balances, refused, unreadable] =
        &["out", "refused", "unreadable"].map(|topic| scene.read(&scene.topic(topic)));
    let (verdict, state) = oracle::check_bank(&BankBooks { transfers: &transfers, balances, refused, unreadable });
    verdict.assert_ok();
    assert_eq!(verdict.inputs, scene.produced);
    for (topic, logs) in [("refused", refused), ("unreadable", unreadable)] {
        assert!(logs.iter().any(|log| !log.records.is_empty()), "nothing was {topic}");
    }
    scene.verify_store("balances", &state, &WORKERS);
}

/// Each id goes on once, and only ids of the last seconds are still stored.
#[test]
fn dedup_survives_twenty_kills() {
    let remember = format!("{REMEMBER_MS}ms");
    let survived = survive_kills("ex-dedup", Subject::DEDUP, 1_500, &[("remember", &remember)]);
    let scene = survived.fill_up_to(OUTLASTING).stop();
    let (orders, firsts) = (scene.read(&scene.input()), scene.read(&scene.output()));
    oracle::check_dedup(&orders, &firsts, REMEMBER_MS).assert_ok();
    let (sent, passed) = (oracle::records_by_id(&orders), oracle::records_by_id(&firsts));
    assert!(sent.keys().eq(passed.keys()), "each id goes on");
    assert!(passed.values().all(|records| *records == 1), "and once");
    assert!(sent.values().any(|records| *records > 2), "orders are repeated");
    let [seen, by_time] = oracle::expected_dedup_states(&orders, REMEMBER_MS);
    assert!(seen.len() < sent.len() / 2, "{} of {} ids are still stored", seen.len(), sent.len());
    scene.verify_store("seen", &seen, &WORKERS);
    scene.verify_store("seen-by-time", &by_time, &WORKERS);
}
