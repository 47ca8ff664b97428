//! Internal topics on a real Kafka: made by the start, and purged behind what was processed.

use std::collections::BTreeMap;
use std::time::Duration;

use processor_core::prelude::*;
use processor_integration_tests::broker;
use processor_integration_tests::client::{Isolation, Observer, Pace, PacedProducer, create_topic};
use processor_integration_tests::in_process::{Application, await_outputs};
use processor_integration_tests::scene::PATIENCE;
use processor_integration_tests::worker::await_condition;
use processor_runtime::config::Config;

const IN: &str = "purge-in";
const OUT: &str = "purge-out";
const REPARTITION: &str = "purge-numbers-repartition";
const PARTITIONS: i32 = 2;
const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");

/// How often each number has come, counted by the task that the number belongs to.
fn counting() -> Topology {
    let mut topology = Topology::builder();
    topology
        .source("in", IN, (Utf8, JavaLong))
        .repartition("numbers", |record| record.value.to_string(), (Utf8, JavaLong))
        .each("count", |record, ctx| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(record.with_value(count))
        })
        .with_store(&COUNTS)
        .sink("out", OUT, (Utf8, JavaLong));
    topology.build().expect("it is right")
}

fn start(servers: &str, state_dir: &std::path::Path) -> Application {
    let mut config = Config::new("purge", servers, state_dir);
    config.repartition_purge_interval = Duration::from_millis(500);
    Application::start(config, counting())
}

/// Where each partition's log begins, and what the group has committed of it.
fn starts(observer: &Observer) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
    let logs = observer.watermarks(REPARTITION, Isolation::ReadUncommitted)?;
    let committed = observer.committed_offsets(REPARTITION, true)?;
    Ok(logs
        .iter()
        .map(|(partition, log)| (*partition, (log.low, committed.get(partition).map_or(0, |(at, _)| *at))))
        .collect())
}

#[test]
fn what_was_processed_is_purged_and_nothing_else() {
    const RECORDS: i64 = 3_000;
    const NUMBERS: i64 = 100;
    let servers = broker::shared().bootstrap_servers();
    for topic in [IN, OUT] {
        create_topic(&servers, topic, PARTITIONS, &[]).expect("the broker makes topics");
    }
    let observer = Observer::new(&servers, "purge").expect("the settings are sound");
    let directory = broker::test_dir("purge").expect("the target directory can be written");
    for round in 1..=2 {
        let mut producer = PacedProducer::new(&servers, IN, PARTITIONS, Pace { rate: None, linger_ms: 5 })
            .expect("the settings are sound");
        for number in 0..RECORDS {
            let key = format!("key-{number}");
            producer
                .send(&key, &(number % NUMBERS).to_be_bytes(), 1_700_000_000_000 + number)
                .expect("it takes records");
        }
        producer.finish().expect("the broker takes records");
        let application = start(&servers, &directory);
        await_outputs(&observer, OUT, (round * RECORDS) as usize);
        // A transaction's marker may stand between what was committed and the end.
        let purged = |(start, committed): &(i64, i64)| *committed > 0 && start == committed;
        let all =
            await_condition(
                "the purge",
                PATIENCE,
                || Ok(starts(&observer).is_ok_and(|logs| logs.values().all(purged))),
            );
        all.unwrap_or_else(|error| {
            panic!("{error:#}: log starts and offsets {:?} in round {round}", starts(&observer))
        });
        application.stop();
    }
    let mut counts: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    for log in observer.read_committed(OUT).expect("the topic can be read") {
        for record in log.records {
            let value = record.value.expect("a count").try_into().expect("eight bytes");
            counts.entry(record.key.expect("a number")).or_default().push(i64::from_be_bytes(value));
        }
    }
    assert_eq!(counts.len() as i64, NUMBERS);
    let each: Vec<i64> = (1..=2 * RECORDS / NUMBERS).collect();
    assert!(counts.values().all(|counted| *counted == each), "every record counts once: {counts:?}");
}
