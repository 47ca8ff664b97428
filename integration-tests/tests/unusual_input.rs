//! Input that is right and rare, on a real Kafka: no key, no value, headers, many partitions, and a batch that changes more
//! keys than any cache holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use processor_core::prelude::*;
use processor_integration_tests::broker;
use processor_integration_tests::client::{Observer, Pace, PacedProducer, create_topic};
use processor_integration_tests::in_process::{Application, await_outputs};
use processor_integration_tests::scene::PATIENCE;
use processor_runtime::config::Config;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

type Bytes = Option<Vec<u8>>;
type Shown<'a> = Option<&'a [u8]>;

const NOW: i64 = 1_700_000_000_000;

/// Every partition gets one record of each kind; each comes out where it went in, with what its header said behind it.
#[test]
fn records_without_key_or_value_and_with_headers_pass_through_64_partitions() {
    const PARTITIONS: i32 = 64;
    let (input, output) = ("unusual-in", "unusual-out");
    let servers = broker::shared().bootstrap_servers();
    for topic in [input, output] {
        create_topic(&servers, topic, PARTITIONS, &[]).expect("the broker makes topics");
    }
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &servers).create().expect("the settings are sound");
    let kinds: [(Shown<'_>, Shown<'_>); 4] =
        [(None, Some(b"v")), (Some(b"k"), None), (None, None), (Some(b""), Some(b""))];
    for partition in 0..PARTITIONS {
        for (key, value) in kinds {
            let of_null = Header { key: "note", value: None::<&[u8]> };
            let named = Header { key: "note", value: Some(b"!".as_slice()) };
            let headers = OwnedHeaders::new().insert(of_null).insert(named);
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(input).partition(partition).timestamp(NOW);
            record = record.headers(headers);
            (record.key, record.payload) = (key, value);
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
    }
    producer.flush(PATIENCE).expect("the broker takes the records");

    let mut topology = Topology::builder();
    topology
        .source("in", input, (Optional(Raw), Optional(Raw)))
        .each("note", |record: Record<Bytes, Bytes>, ctx: &mut Context<'_, Bytes, Bytes>| {
            let note = ctx.metadata().and_then(|metadata| metadata.header("note")).flatten();
            let value = record.value.clone().map(|value| [value, note.unwrap_or_default()].concat());
            ctx.forward(record.with_value(value))
        })
        .sink("out", output, (Optional(Raw), Optional(Raw)))
        .to_source_partition();
    let directory = broker::test_dir("unusual").expect("the target directory can be written");
    let config = Config::new("unusual", &servers, directory);
    let application = Application::start(config, topology.build().expect("it is right"));
    let observer = Observer::new(&servers, "unusual").expect("the settings are sound");
    await_outputs(&observer, output, kinds.len() * PARTITIONS as usize);
    application.stop();

    let expected =
        [(None, Some(b"v!".to_vec())), (Some(b"k".to_vec()), None), (None, None), (Some(vec![]), Some(b"!".to_vec()))];
    let logs = observer.read_committed(output).expect("the topic can be read");
    assert_eq!(logs.len(), PARTITIONS as usize);
    for log in logs {
        let seen: Vec<(Bytes, Bytes)> = log.records.into_iter().map(|record| (record.key, record.value)).collect();
        assert_eq!(seen, expected, "partition {}", log.partition);
    }
}

/// Each record changes two hundred keys, so a transaction holds a hundred thousand changelog records and more. A worker with
/// an empty directory has the same state from them.
#[test]
fn a_batch_of_a_hundred_thousand_keys_is_one_transaction() {
    const RECORDS: i64 = 3_000;
    const KEYS_EACH: i64 = 200;
    const COUNTS: KeyValueStoreDef<i64, i64> = KeyValueStoreDef::new("counts");
    let (input, output) = ("many-in", "many-out");
    let servers = broker::shared().bootstrap_servers();
    for topic in [input, output] {
        create_topic(&servers, topic, 1, &[]).expect("the broker makes topics");
    }
    let produce = |numbers: std::ops::Range<i64>| {
        let pace = Pace { rate: None, linger_ms: 5 };
        let mut producer = PacedProducer::new(&servers, input, 1, pace).expect("the settings are sound");
        for number in numbers {
            producer.send("k", &number.to_be_bytes(), NOW + number).expect("the broker takes records");
        }
        producer.finish().expect("the broker takes records");
    };
    // Each record counts keys of its own; what goes out is the count, and how large the batch was.
    let counting = || {
        let mut topology = Topology::builder();
        topology
            .source("in", input, (Utf8, JavaLong))
            .each("count", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
                let mut counts = BTreeSet::new();
                for key in record.value * KEYS_EACH..(record.value + 1) * KEYS_EACH {
                    counts.insert(ctx.store(&COUNTS).update(&key, |count| {
                        *count += 1;
                        *count
                    })?);
                }
                let count = counts.pop_first().filter(|_| counts.is_empty()).unwrap_or(-1);
                let size = i64::from(ctx.batch().size);
                ctx.forward(record.with_value(count * 1_000_000_000 + size))
            })
            .with_store(&COUNTS)
            .sink("out", output, (Utf8, JavaLong))
            .to_source_partition();
        topology.build().expect("it is right")
    };
    let start = |worker: &str| {
        let directory = broker::test_dir(&format!("many-{worker}")).expect("the target directory can be written");
        let mut config = Config::new("many", &servers, directory);
        config.batch_time_max = Duration::from_secs(2);
        Application::start(config, counting())
    };
    produce(0..RECORDS);
    let observer = Observer::new(&servers, "many").expect("the settings are sound");
    let application = start("one");
    await_outputs(&observer, output, RECORDS as usize);
    application.stop();
    produce(0..1_000);
    let application = start("two");
    await_outputs(&observer, output, RECORDS as usize + 1_000);
    application.stop();

    let logs = observer.read_committed(output).expect("the topic can be read");
    let told = |record: &processor_integration_tests::oracle::LogRecord| {
        let value = record.value.as_deref().and_then(|value| value.try_into().ok()).expect("eight bytes");
        let told = i64::from_be_bytes(value);
        (told / 1_000_000_000, told % 1_000_000_000)
    };
    let told: Vec<(i64, i64)> = logs[0].records.iter().map(told).collect();
    let counts: Vec<i64> = told.iter().map(|(count, _)| *count).collect();
    let (first, again) = counts.split_at(RECORDS as usize);
    assert!(first.iter().all(|count| *count == 1), "every key is new");
    assert!(again.len() == 1_000 && again.iter().all(|count| *count == 2), "the restored counts go on: {again:?}");
    let sizes: BTreeSet<i64> = told.iter().map(|(_, size)| *size).collect();
    assert!(sizes.last().is_some_and(|size| size * KEYS_EACH >= 100_000), "the batches: {sizes:?}");
    let mut changelog: BTreeMap<Bytes, usize> = BTreeMap::new();
    for record in observer.read_committed("many-counts-changelog").expect("the topic can be read").remove(0).records {
        *changelog.entry(record.key).or_default() += 1;
    }
    assert_eq!(changelog.len() as i64, RECORDS * KEYS_EACH);
}
