//! What the engine refuses, and how: it stops before anything wrong is committed, with a message that says where, why
//! and what to run. And the edges of what it takes.

use std::thread;

use processor_integration_tests::client::{alter_topic, create_topic};
use processor_integration_tests::oracle;
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::WorkerConfig;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Writes one record as it is.
fn write(scene: &Scene, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &scene.bootstrap).set("message.max.bytes", "4000000");
    let producer: BaseProducer = settings.create().expect("the settings are sound");
    let topic = scene.input();
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(partition).timestamp(1_000_000);
    (record.key, record.payload) = (key, value);
    producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    producer.flush(PATIENCE).expect("the broker takes the record");
}

fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "'{word}' is not in:\n{log}");
    }
}

/// A worker that stops with an error does not leave the group. Under a name its successor takes its place at once,
/// instead of waiting for its session to end.
fn worker(scene: &Scene) -> WorkerConfig {
    scene.worker("one").with("instance-id", "one")
}

/// Exactly these records of the input have taken effect: all below the committed offsets, without those left out.
fn assert_exact(scene: &Scene, left_out: (i32, i64)) {
    let committed = scene.committed();
    let mut input = scene.read(&scene.input());
    for log in &mut input {
        let end = committed.get(&log.partition).copied().unwrap_or(0);
        log.records.retain(|record| record.offset < end && (log.partition, record.offset) != left_out);
    }
    oracle::check_ledger(&input, &scene.read(&scene.output())).assert_ok();
    let expected = oracle::expected_ledger_state(&input);
    let changelog = scene.read(&scene.changelog());
    let folded = oracle::fold_changelog(&changelog).expect("a changelog of accounts");
    oracle::check_ledger_state(&expected, &folded).assert_ok();
    oracle::check_ledger_state(&expected, &scene.stores(&["one"])).assert_ok();
    scene.assert_pasts(&scene.stores_of("one"), &changelog);
}

/// A record that stops its task.
#[derive(Clone, Copy)]
struct Bad {
    name: &'static str,
    key: Option<&'static [u8]>,
    value: Option<&'static [u8]>,
    /// The option of the ledger that makes its operator stumble over it.
    option: Option<&'static str>,
    reason: &'static str,
}

impl Bad {
    const GOOD: Self =
        Self { name: "good", key: Some(b"account-1"), value: Some(&[0; 8]), option: None, reason: "nothing is wrong" };

    /// Everything before the record is committed and nothing of it, again when the worker is started again. Behind the
    /// record it goes on.
    fn stops_the_task(self) {
        let mut scene = Scene::new(self.name);
        scene.produce(2_000);
        let last = scene.read(&scene.input())[1].records.last().expect("500 accounts fill 4 partitions").offset;
        let bad = last + 1;
        write(&scene, 1, self.key, self.value);
        scene.produce(2_000);
        let mut config = worker(&scene);
        if let Some(option) = self.option {
            config = config.with(option, format!("1@{bad}"));
        }
        for _ in 0..2 {
            let log = config.refused(1);
            let place = format!("task entries_1 stopped at {}-in-1@{bad}", self.name);
            assert_says(&log, &[&place, self.reason, "--reset-offsets"]);
            assert_eq!(scene.committed().get(&1), Some(&bad), "the offset stands at the record:\n{log}");
            assert_exact(&scene, (1, bad));
        }
        let mut offsets = scene.committed();
        offsets.insert(1, bad + 1);
        scene.set_offsets(&offsets);
        scene.produced += 1;
        scene.run(&config).stop().expect("a clean stop");
        assert_exact(&scene, (1, bad));
        assert_eq!(scene.outputs(), 4_000, "every other record has its output");
    }
}

#[test]
fn a_record_that_cannot_be_decoded_stops_the_task_exactly_there() {
    let cases = [
        Bad { name: "bad-value", value: Some(&[1, 2, 3]), reason: "it has 3 bytes, not 8", ..Bad::GOOD },
        Bad { name: "bad-key", key: Some(b"account-\xff"), reason: "UTF-8", ..Bad::GOOD },
        Bad { name: "null-key", key: None, reason: "it is null", ..Bad::GOOD },
        Bad { name: "null-value", value: None, reason: "it is null", ..Bad::GOOD },
    ];
    thread::scope(|scope| cases.map(|bad| scope.spawn(move || bad.stops_the_task())).map(drop));
}

/// The operator has written to its store, and forwarded, when it fails: nothing of that may stay (EO-9).
#[test]
fn a_record_over_which_the_operator_stumbles_stops_the_task_exactly_there() {
    let cases = [
        Bad { name: "fails", option: Some("fail-at"), reason: "told to fail here", ..Bad::GOOD },
        Bad { name: "panics", option: Some("panic-at"), reason: "told to panic here", ..Bad::GOOD },
    ];
    thread::scope(|scope| cases.map(|bad| scope.spawn(move || bad.stops_the_task())).map(drop));
}

/// With a worker's topics spelled out, so that one can be another.
fn worker_between(scene: &Scene, input: &str, output: &str) -> WorkerConfig {
    WorkerConfig::new("ledger-worker", scene.dir.join("between.log"))
        .with("bootstrap-servers", &scene.bootstrap)
        .with("application-id", &scene.name)
        .with("state-dir", scene.state_dir("one").display())
        .with("input", input)
        .with("output", output)
}

#[test]
fn topics_that_do_not_fit_are_refused_with_the_command_that_repairs_them() {
    let mut scene = Scene::new("wrong-count");
    scene.produce(100);
    create_topic(&scene.bootstrap, &scene.changelog(), 3, &[("cleanup.policy", "compact")]).expect("create");
    let log = scene.worker("one").refused(1);
    assert_says(&log, &["'wrong-count-accounts-changelog' has 3 partitions, but the inputs have 4", "kafka-topics"]);
    assert!(scene.committed().is_empty(), "nothing was processed");

    let mut scene = Scene::new("wrong-policy");
    scene.produce(100);
    create_topic(&scene.bootstrap, &scene.changelog(), 4, &[("cleanup.policy", "delete")]).expect("create");
    let log = scene.worker("one").refused(1);
    assert_says(&log, &["cleanup.policy=delete", "--add-config cleanup.policy=compact"]);
    assert!(scene.committed().is_empty(), "nothing was processed");
    alter_topic(&scene.bootstrap, &scene.changelog(), &[("cleanup.policy", "compact")]).expect("alter");
    scene.run(&worker(&scene)).stop().expect("the command repairs it");
    scene.verify(&["one"]);

    let scene = Scene::new("missing");
    let (input, output) = (scene.input(), scene.output());
    for (worker, what) in [
        (worker_between(&scene, "no-such-in", &output), "the input topic 'no-such-in' does not exist"),
        (worker_between(&scene, &input, "no-such-out"), "the output topic 'no-such-out' does not exist"),
    ] {
        assert_says(&worker.refused(1), &[what, "kafka-topics", "--create --topic no-such-"]);
    }
    for topic in ["no-such-in", "no-such-out"] {
        assert!(scene.kafka.partition_count(topic).is_err(), "{topic} was not made by accident");
    }
}

#[test]
fn settings_that_break_the_guarantee_are_refused() {
    let scene = Scene::new("settings");
    let worker = || scene.worker("one");
    let cases: [(WorkerConfig, &[&str]); 7] = [
        (worker().with("kafka", "isolation.level=read_uncommitted"), &["isolation.level cannot be set", "aborted"]),
        (worker().with("kafka", "consumer.enable.auto.commit=true"), &["enable.auto.commit cannot be set", "EO-1"]),
        (worker().with("kafka", "producer.acks=1"), &["producer.acks cannot be set"]),
        (worker().with("kafka", "no.such.property=1"), &["no.such.property"]),
        (worker().with("heartbeat-interval-ms", 3_000), &["heartbeat", "over a third of the session time-out"]),
        (worker().with("transaction-timeout-ms", 500), &["transaction time-out"]),
        (worker().with("instance-id", "a:b"), &["instance.id 'a:b'"]),
    ];
    for (config, words) in cases {
        assert_says(&config.refused(1), words);
    }
    let misused = [worker().with_flag("no-such-flag"), worker().with("threads", "many"), worker().with("kafka", "x")];
    for config in misused {
        assert_says(&config.refused(2), &["error:"]);
    }
    assert!(!scene.state_dir("one").join("settings").join("entries_0").exists(), "nothing was begun");
    assert!(scene.kafka.partition_count(&scene.changelog()).is_err(), "nothing was begun");
}

#[test]
fn an_empty_topic_is_waited_at_without_a_transaction() {
    let mut scene = Scene::new("empty");
    let worker = scene.worker("one").start();
    worker.await_running(4, PATIENCE).expect("tasks without input run");
    assert!(scene.committed().is_empty(), "no transaction was needed");
    scene.produce(10);
    scene.await_outputs(10, &[&worker]);
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

/// A record of nearly 1 MB, which is also the key of an output and of a changelog record, takes its way. Of a larger one
/// the output would be refused by its topic: the worker stops before anything of the batch is committed.
#[test]
fn a_large_record_passes_and_one_with_an_output_too_large_stops_the_worker() {
    let mut scene = Scene::new("large");
    alter_topic(&scene.bootstrap, &scene.input(), &[("max.message.bytes", "4000000")]).expect("alter");
    let large = vec![b'x'; 990_000];
    write(&scene, 0, Some(&large), Some(&7_i64.to_be_bytes()));
    scene.produced += 1;
    scene.produce(100);
    scene.run(&worker(&scene)).stop().expect("a clean stop");
    scene.verify(&["one"]);

    let before = scene.committed();
    let too_large = vec![b'y'; 1_100_000];
    write(&scene, 0, Some(&too_large), Some(&7_i64.to_be_bytes()));
    let log = worker(&scene).refused(1);
    assert_says(&log, &["large"]);
    assert_eq!(scene.committed(), before, "nothing is committed:\n{log}");
    assert_exact(&scene, (-1, -1));
}
