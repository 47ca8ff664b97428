//! What the engine refuses, and how: it stops before anything wrong is committed, with a message that says where, why
//! and what to run. And the edges of what it takes.

use std::collections::BTreeMap;

use processor_integration_tests::client::{
    alter_topic, committed_offsets, create_topic, partition_count, read_committed,
};
use processor_integration_tests::oracle::{self, PartitionLog};
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, WorkerConfig};
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

fn committed(scene: &Scene) -> BTreeMap<i32, i64> {
    let offsets = committed_offsets(&scene.bootstrap, &scene.name, &scene.input(), true).expect("the broker answers");
    offsets.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect()
}

/// Runs a worker that must stop by itself with this exit code; its log.
fn refused(config: &WorkerConfig, code: i32) -> String {
    let mut worker = config.start().expect("the worker starts");
    let status = worker.wait(PATIENCE).expect("the worker stops by itself");
    let log = worker.log_since_start();
    assert_eq!(status.code(), Some(code), "{log}");
    log
}

fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "'{word}' is not in:\n{log}");
    }
}

/// A worker that stops with an error does not leave the group, so its successor waits for its session to end.
fn worker(scene: &Scene) -> WorkerConfig {
    scene.worker("one").with("session-timeout", "3s").with("heartbeat-interval", "1s")
}

fn run(scene: &Scene) -> Worker {
    let worker = worker(scene).start().expect("the worker starts");
    scene.await_outputs(scene.produced, &[&worker]);
    worker
}

fn read(scene: &Scene, topic: &str) -> Vec<PartitionLog> {
    read_committed(&scene.bootstrap, topic).expect("the topic can be read")
}

/// Exactly these records of the input have taken effect: all below the committed offsets, without those left out.
fn assert_exact(scene: &Scene, left_out: (i32, i64)) {
    let committed = committed(scene);
    let mut input = read(scene, &scene.input());
    for log in &mut input {
        let end = committed.get(&log.partition).copied().unwrap_or(0);
        log.records.retain(|record| record.offset < end && (log.partition, record.offset) != left_out);
    }
    oracle::check_ledger(&input, &read(scene, &scene.output())).assert_ok();
    let expected = oracle::expected_ledger_state(&input);
    let changelog = oracle::fold_changelog(&read(scene, &scene.changelog())).expect("a changelog of accounts");
    oracle::check_ledger_state(&expected, &changelog).assert_ok();
    oracle::check_ledger_state(&expected, &scene.stores(&["one"])).assert_ok();
}

/// A record in the middle of the input cannot be decoded. The worker stops; everything before the record is committed
/// and nothing of it, again when it is started again. Behind the record it goes on.
#[test]
fn an_undecodable_record_stops_the_task_exactly_there() {
    type Bytes = Option<&'static [u8]>;
    let cases: [(&str, Bytes, Bytes, &str); 4] = [
        ("bad-value", Some(b"account-1"), Some(&[1, 2, 3]), "it has 3 bytes, not 8"),
        ("bad-key", Some(b"account-\xff"), Some(&[0; 8]), "UTF-8"),
        ("null-key", None, Some(&[0; 8]), "it is null"),
        ("null-value", Some(b"account-1"), None, "it is null"),
    ];
    for (name, key, value, reason) in cases {
        let mut scene = Scene::new(name);
        scene.produce(2_000);
        let bad = read(&scene, &scene.input())[1].records.last().expect("1,000 accounts fill 4 partitions").offset + 1;
        write(&scene, 1, key, value);
        scene.produce(2_000);
        for _ in 0..2 {
            let log = refused(&worker(&scene), 1);
            assert_says(&log, &[&format!("task entries_1 stopped at {name}-in-1@{bad}"), reason, "--reset-offsets"]);
            assert_eq!(committed(&scene).get(&1), Some(&bad), "the offset stands at the record:\n{log}");
            assert_exact(&scene, (1, bad));
        }
        let mut offsets = committed(&scene);
        offsets.insert(1, bad + 1);
        scene.set_offsets(&offsets);
        scene.produced += 1;
        run(&scene).stop().expect("a clean stop");
        assert_exact(&scene, (1, bad));
        assert_eq!(scene.outputs(), 4_000, "every other record has its output");
    }
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
    let log = refused(&scene.worker("one"), 1);
    assert_says(&log, &["'wrong-count-accounts-changelog' has 3 partitions, but the inputs have 4", "kafka-topics"]);
    assert!(committed(&scene).is_empty(), "nothing was processed");

    let mut scene = Scene::new("wrong-policy");
    scene.produce(100);
    create_topic(&scene.bootstrap, &scene.changelog(), 4, &[("cleanup.policy", "delete")]).expect("create");
    let log = refused(&scene.worker("one"), 1);
    assert_says(&log, &["cleanup.policy=delete", "--add-config cleanup.policy=compact"]);
    assert!(committed(&scene).is_empty(), "nothing was processed");
    alter_topic(&scene.bootstrap, &scene.changelog(), &[("cleanup.policy", "compact")]).expect("alter");
    run(&scene).stop().expect("the command repairs it");
    scene.verify(&["one"]);

    let scene = Scene::new("missing");
    let (input, output) = (scene.input(), scene.output());
    for (worker, what) in [
        (worker_between(&scene, "no-such-in", &output), "the input topic 'no-such-in' does not exist"),
        (worker_between(&scene, &input, "no-such-out"), "the output topic 'no-such-out' does not exist"),
    ] {
        assert_says(&refused(&worker, 1), &[what, "kafka-topics", "--create --topic no-such-"]);
    }
    for topic in ["no-such-in", "no-such-out"] {
        assert!(partition_count(&scene.bootstrap, topic).is_err(), "{topic} was not made by accident");
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
        (worker().with("heartbeat-interval", "3s"), &["heartbeat", "over a third of the session time-out"]),
        (worker().with("transaction-timeout", "500ms"), &["--transaction-timeout", "between 1s and 1day"]),
        (worker().with("instance-id", "a:b"), &["instance.id 'a:b'"]),
    ];
    for (config, words) in cases {
        assert_says(&refused(&config, 2), words);
    }
    let misused = [worker().with_flag("no-such-flag"), worker().with("threads", "many"), worker().with("kafka", "x")];
    for config in misused {
        assert_says(&refused(&config, 2), &["error:"]);
    }
    assert!(!scene.state_dir("one").join("settings").join("entries_0").exists(), "nothing was begun");
    assert!(partition_count(&scene.bootstrap, &scene.changelog()).is_err(), "nothing was begun");
}

#[test]
fn an_empty_topic_is_waited_at_without_a_transaction() {
    let mut scene = Scene::new("empty");
    let worker = scene.worker("one").start().expect("the worker starts");
    worker.await_running(4, PATIENCE).expect("tasks without input run");
    assert!(committed(&scene).is_empty(), "no transaction was needed");
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
    run(&scene).stop().expect("a clean stop");
    scene.verify(&["one"]);

    let before = committed(&scene);
    let too_large = vec![b'y'; 1_100_000];
    write(&scene, 0, Some(&too_large), Some(&7_i64.to_be_bytes()));
    let log = refused(&scene.worker("one"), 1);
    assert_says(&log, &["large"]);
    assert_eq!(committed(&scene), before, "nothing is committed:\n{log}");
    assert_exact(&scene, (-1, -1));
}
