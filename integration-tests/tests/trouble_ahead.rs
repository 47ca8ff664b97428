//! What a worker shows of trouble before it is one, on a real Kafka: inputs that somebody's open transaction holds back, how
//! long retention lets the next record alone, and operators that take too long.

use std::time::Duration;

use processor_integration_tests::client::alter_topic;
use processor_integration_tests::http::series;
use processor_integration_tests::scene::{PATIENCE, Scene};
use processor_integration_tests::worker::{Worker, await_condition};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// What its log says before the address that it listens on.
const ANNOUNCED: &str = "http://";
/// Longer than the record of a transaction may take here.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE_US: u32 = 1_500_000;

/// A worker that measures, and its address.
fn measured(scene: &Scene) -> (Worker, String) {
    let worker = scene.worker("one").with("http-listen", "127.0.0.1:0").start();
    worker.await_since_start(ANNOUNCED, PATIENCE).expect("it says where it listens");
    let log = worker.log_since_start();
    let (_, announced) = log.split_once(ANNOUNCED).expect("it was there a moment ago");
    let address = announced.split_whitespace().next().expect("an address").to_owned();
    (worker, address)
}

/// A transaction on partition 0 of the input, with one record, open.
fn open_transaction(scene: &Scene) -> BaseProducer {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", &scene.bootstrap).set("transactional.id", format!("{}-writer", scene.name));
    let producer: BaseProducer = settings.create().expect("the settings are sound");
    producer.init_transactions(PATIENCE).expect("a coordinator");
    producer.begin_transaction().expect("it is initialised");
    let (topic, key, value) = (scene.input(), b"never".as_slice(), 1_i64.to_be_bytes());
    let record = BaseRecord::to(&topic).partition(0).timestamp(1_000_000).key(key).payload(value.as_slice());
    producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    producer.flush(PATIENCE).expect("the broker takes the record");
    producer
}

#[test]
fn an_input_that_a_transaction_holds_back_is_shown_with_how_long_it_has_been() {
    let mut scene = Scene::new("held-back");
    scene.produce(2_000);
    let (worker, address) = measured(&scene);
    scene.await_outputs(scene.produced, &[&worker]);
    let of_partition = |name: &str, partition: i32| {
        series(&address, &format!("{name}{{topic=\"{}\",partition=\"{partition}\"}}", scene.input()))
    };
    let stable = await_condition("the stable end to be known", PATIENCE, || {
        Ok(of_partition("processor_lso_lag_records", 0)? == Some(0.0))
    });
    stable.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    assert_eq!(of_partition("processor_lso_standing_seconds", 0).expect("it answers"), Some(0.0));

    let writer = open_transaction(&scene);
    let held_back = await_condition("the input to be held back", PATIENCE, || {
        let lag = of_partition("processor_lso_lag_records", 0)?;
        let stands = of_partition("processor_lso_standing_seconds", 0)?;
        Ok(lag == Some(1.0) && stands > Some(5.0))
    });
    held_back.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    assert_eq!(of_partition("processor_lso_lag_records", 1).expect("it answers"), Some(0.0), "another partition");

    writer.abort_transaction(PATIENCE).expect("it is open");
    let free = await_condition("the input to be free", PATIENCE, || {
        let lag = of_partition("processor_lso_lag_records", 0)?;
        Ok(lag == Some(0.0) && of_partition("processor_lso_standing_seconds", 0)? == Some(0.0))
    });
    free.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

#[test]
fn times_are_measured_and_retention_is_counted_down_while_records_wait() {
    let mut scene = Scene::new("time-to-loss");
    let forty_days_ms = 40 * 86_400_000_i64;
    alter_topic(&scene.bootstrap, &scene.input(), &[("retention.ms", &forty_days_ms.to_string())]).expect("it exists");
    scene.produce(40_000);
    let (worker, address) = measured(&scene);
    // Records wait while it works through them; the end of an input that is held back waits for longer.
    scene.await_outputs(scene.produced, &[&worker]);
    let writer = open_transaction(&scene);
    let name = format!("processor_input_time_to_loss_seconds{{topic=\"{}\",partition=\"0\"}}", scene.input());
    let days = 86_400.0;
    let shown = await_condition("the time to the loss", PATIENCE, || {
        Ok(series(&address, &name)?.is_some_and(|left| (39.0 * days..=40.0 * days).contains(&left)))
    });
    shown.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    for name in [
        "processor_process_duration_seconds_count{thread=\"0\"}",
        "processor_record_lateness_seconds_count{thread=\"0\"}",
        "processor_store_op_seconds_count{thread=\"0\",op=\"get\"}",
    ] {
        let count = series(&address, name).expect("it answers");
        assert!(count.is_some_and(|count| count > 0.0), "{name}: {count:?}");
    }
    writer.abort_transaction(PATIENCE).expect("it is open");
    // What is left are an aborted record and a marker.
    let nothing = await_condition("nothing to be lost", PATIENCE, || Ok(series(&address, &name)?.is_none()));
    nothing.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}

#[test]
fn a_record_that_always_outlasts_its_transaction_is_named_and_stops_the_worker() {
    let mut scene = Scene::new("outlasted");
    scene.produce(50);
    let worker = scene.worker("one").with("instance-id", "one").with("pause-us", PAUSE_US);
    let log = worker.with_time("transaction-timeout", TRANSACTION_TIMEOUT).refused(1);
    for words in ["has been in process for", "node=\"ledger\"", ", 3 times. Nothing", "Raise transaction.timeout"] {
        assert!(log.contains(words), "no '{words}' in\n{log}");
    }
    assert_eq!(scene.offsets_done(), 0, "nothing of it is committed");
    assert_eq!(scene.settled(), 0);
    // A person has done what the log says.
    let worker = scene.worker("one").with("instance-id", "one").start();
    scene.await_outputs(scene.produced, &[&worker]);
    worker.stop().expect("a clean stop");
    scene.verify(&["one"]);
}
