//! The helpers for a real Kafka, against one.

use std::time::{Duration, Instant};

use processor_integration_tests::broker::{self, ClusterConfig, KafkaCluster};
use processor_integration_tests::client::{
    ConcurrentReader, Isolation, Observer, Workload, alter_topic, create_topic, delete_topic, describe_topic,
    partition_of, produce_ledger, produce_readings,
};
use processor_integration_tests::oracle::{LedgerEntry, PartitionLog, expected_ledger_state};
use processor_integration_tests::proxy::{ApiKey, Fault, Proxy, Rule};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(30);

fn kafka() -> String {
    broker::shared().bootstrap_servers()
}

fn observer() -> Observer {
    Observer::new(&kafka(), "observer").expect("sound settings")
}

fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", id)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "60000")
        .set("socket.timeout.ms", "2000")
        .create()
        .expect("sound settings");
    producer.init_transactions(PATIENCE).expect("a coordinator");
    producer
}

/// Writes into the open transaction and waits until the broker has the records.
fn write(producer: &BaseProducer, topic: &str, values: &[&[u8]]) {
    for value in values {
        let record = BaseRecord::to(topic).partition(0).key("k").payload(*value).timestamp(1);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(PATIENCE).expect("the broker takes the records");
}

fn values(logs: &[PartitionLog]) -> Vec<Vec<u8>> {
    logs.iter().flat_map(|log| &log.records).map(|record| record.value.clone().expect("a value")).collect()
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} was not reached in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn topics_are_created_described_altered_and_deleted() {
    let kafka = kafka();
    create_topic(&kafka, "admin", 3, &[("cleanup.policy", "compact")]).expect("create");
    assert_eq!(observer().partition_count("admin").expect("count"), 3);
    assert!(create_topic(&kafka, "admin", 3, &[]).is_err(), "a topic exists once");

    alter_topic(&kafka, "admin", &[("delete.retention.ms", "777")]).expect("alter");
    wait_until("the new setting", || {
        let config = describe_topic(&kafka, "admin").expect("describe");
        assert_eq!(config["cleanup.policy"], "compact", "settings that were not named stay");
        config["delete.retention.ms"] == "777"
    });
    delete_topic(&kafka, "admin").expect("delete");
    wait_until("the deletion", || observer().partition_count("admin").is_err());
}

#[test]
fn a_seed_gives_the_same_input_where_java_would_put_it() {
    let kafka = kafka();
    for topic in ["readings-a", "readings-b"] {
        create_topic(&kafka, topic, 4, &[]).expect("create");
        let workload = Workload { seed: 7, ..Workload::new(topic, 5_000, 4) };
        produce_readings(&kafka, &workload).expect("produce");
    }
    let [a, b] = ["readings-a", "readings-b"].map(|topic| observer().read_committed(topic).expect("read"));
    assert_eq!(a, b);
    assert_eq!(a.iter().map(|log| log.records.len()).sum::<usize>(), 5_000);
    for log in &a {
        assert!(log.records.is_sorted_by(|one, next| one.timestamp < next.timestamp));
        for record in &log.records {
            assert_eq!(partition_of(record.key.as_deref().expect("a key"), 4), log.partition);
            let value: [u8; 8] = record.value.as_deref().expect("a value").try_into().expect("8 bytes");
            assert!((0.0..100.0).contains(&f64::from_be_bytes(value)));
        }
    }
}

#[test]
fn a_rate_is_kept() {
    let kafka = kafka();
    create_topic(&kafka, "rate", 1, &[]).expect("create");
    let started = Instant::now();
    let workload = Workload { rate: Some(1_000), keys: 3, ..Workload::new("rate", 500, 1) };
    produce_ledger(&kafka, &workload).expect("produce");
    assert!(started.elapsed() >= Duration::from_millis(499));
    let state = expected_ledger_state(&observer().read_committed("rate").expect("read"));
    assert_eq!(state.values().map(|(_, count)| count).sum::<u64>(), 500);
    assert!(state.len() <= 3);
}

#[test]
fn committed_open_and_aborted_transactions_are_told_apart() {
    let kafka = kafka();
    create_topic(&kafka, "transactions", 2, &[]).expect("create");
    let (producer, looks) = (transactional(&kafka, "transactions"), observer());
    let seen = || values(&looks.read_committed_so_far("transactions").expect("read"));

    producer.begin_transaction().expect("begin");
    write(&producer, "transactions", &[b"committed"]);
    assert_eq!(looks.open_transactions("transactions").expect("ask"), [0]);
    assert!(seen().is_empty(), "an open transaction is not visible");
    producer.commit_transaction(PATIENCE).expect("commit");

    producer.begin_transaction().expect("begin");
    write(&producer, "transactions", &[b"aborted"]);
    producer.abort_transaction(PATIENCE).expect("abort");
    assert_eq!(values(&looks.read_committed("transactions").expect("read")), [b"committed"]);
    assert!(looks.open_transactions("transactions").expect("ask").is_empty());

    producer.begin_transaction().expect("begin");
    write(&producer, "transactions", &[b"open"]);
    assert_eq!(looks.open_transactions("transactions").expect("ask"), [0]);
    assert_eq!(seen(), [b"committed"]);
    let all = looks.read_uncommitted("transactions").expect("read");
    assert_eq!(values(&all.0), [&b"committed"[..], b"aborted", b"open"]);
    let ends = [Isolation::ReadCommitted, Isolation::ReadUncommitted]
        .map(|isolation| looks.watermarks("transactions", isolation).expect("ask")[&0].end);
    assert_eq!(ends, [4, 5], "two records with a marker each, then the open one");
    producer.commit_transaction(PATIENCE).expect("commit");
    assert_eq!(values(&looks.read_committed("transactions").expect("read")), [&b"committed"[..], b"open"]);
}

#[test]
fn offsets_in_an_open_transaction_are_not_committed_yet() {
    let kafka = kafka();
    create_topic(&kafka, "offsets", 3, &[]).expect("create");
    let producer = transactional(&kafka, "offsets");
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka)
        .set("group.id", "offsets-group")
        .create()
        .expect("sound settings");
    let group = member.group_metadata().expect("a group id");
    let commit = |offset| {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset("offsets", 1, Offset::Offset(offset)).expect("a sound offset");
        let mut partition = offsets.find_partition("offsets", 1).expect("it was added");
        partition.set_metadata(format!("batch {offset}"));
        producer.begin_transaction().expect("begin");
        producer.send_offsets_to_transaction(&offsets, &group, PATIENCE).expect("send offsets");
    };
    let looks = Observer::new(&kafka, "offsets-group").expect("sound settings");
    let committed = |stable| looks.committed_offsets("offsets", stable).expect("ask");
    let at = |offset: i64| std::collections::BTreeMap::from([(1, (offset, format!("batch {offset}")))]);

    assert!(committed(true).is_empty());
    commit(10);
    producer.commit_transaction(PATIENCE).expect("commit");
    assert_eq!(committed(true), at(10));
    commit(20);
    assert_eq!(committed(false), at(10), "the open transaction's offset is not there");
    producer.abort_transaction(PATIENCE).expect("abort");
    assert_eq!(committed(true), at(10));
    commit(20);
    producer.commit_transaction(PATIENCE).expect("commit");
    assert_eq!(committed(true), at(20));
}

fn member(batch_id: u64, batch_index: u32, batch_size: u32) -> Vec<u8> {
    LedgerEntry { batch_id, batch_index, batch_size, ..LedgerEntry::default() }.encode()
}

#[test]
fn whole_batches_are_whole_for_a_reader_that_watches() {
    let kafka = kafka();
    create_topic(&kafka, "batches", 1, &[]).expect("create");
    let reader = ConcurrentReader::start(&kafka, "batches").expect("start");
    let producer = transactional(&kafka, "batches");
    for batch in 1..=20_u64 {
        let members = [member(batch, 0, 2), member(batch, 1, 2)];
        producer.begin_transaction().expect("begin");
        for half in &members {
            write(&producer, "batches", &[half]);
        }
        // Every third batch is thrown away and written again.
        if batch % 3 == 0 {
            producer.abort_transaction(PATIENCE).expect("abort");
            producer.begin_transaction().expect("begin");
            write(&producer, "batches", &[&members[0], &members[1]]);
        }
        producer.commit_transaction(PATIENCE).expect("commit");
    }
    wait_until("an end", || reader.ends() > 1);
    let verdict = reader.finish().expect("the reader read");
    verdict.assert_ok();
    assert_eq!((verdict.inputs, verdict.outputs), (20, 40));
}

#[test]
fn a_torn_batch_that_heals_is_seen_only_by_a_reader_that_watches() {
    let kafka = kafka();
    create_topic(&kafka, "torn", 1, &[]).expect("create");
    let reader = ConcurrentReader::start(&kafka, "torn").expect("start");
    let producer = transactional(&kafka, "torn");
    for half in [member(1, 0, 2), member(1, 1, 2)] {
        let ends = reader.ends();
        producer.begin_transaction().expect("begin");
        write(&producer, "torn", &[&half]);
        producer.commit_transaction(PATIENCE).expect("commit");
        wait_until("the end behind half a batch", || reader.ends() > ends);
    }
    let verdict = reader.finish().expect("the reader read");
    assert_eq!((verdict.torn, verdict.outputs), (1, 2), "{verdict}");
}

/// The finding of kafka-facts A, with librdkafka as it is: the commit of transaction 1 is late, its copy succeeds, and
/// the original then commits transaction 2 before that one is aborted. It is here to show that the proxy does to a real
/// client what it promises.
#[test]
fn a_late_commit_through_the_proxy_commits_the_next_transaction() {
    let proxy = Proxy::bind().expect("a free port");
    let dir = broker::test_dir("late").expect("a directory");
    let config = ClusterConfig { proxy_ports: vec![proxy.port()], ..ClusterConfig::single(dir) };
    let cluster = KafkaCluster::start(config).expect("start");
    proxy.forward_to(cluster.ports(1).behind_proxy);
    for (id, fault) in [("late-reset", Fault::HoldAndReset), ("late-timeout", Fault::HoldAndTimeout)] {
        late_commit(&proxy, &cluster.bootstrap_servers(), id, fault);
    }
    proxy.assert_all_fired();
}

fn late_commit(proxy: &Proxy, direct: &str, id: &str, fault: Fault) {
    create_topic(direct, id, 1, &[]).expect("create");
    let producer = transactional(&proxy.bootstrap(), id);
    let late = proxy.inject(Rule::end_txn(true, fault).client_id_contains(id));
    let before = proxy.requests(ApiKey::END_TXN);
    producer.begin_transaction().expect("begin");
    write(&producer, id, &[b"first"]);
    producer.commit_transaction(PATIENCE).expect("the copy of the commit succeeds");
    assert!(late.fired() && late.answer().is_none());
    assert_eq!(proxy.requests(ApiKey::END_TXN), before + 2);

    producer.begin_transaction().expect("begin");
    write(&producer, id, &[b"second"]);
    late.release();
    let answer = late.wait_answer(PATIENCE).expect("the broker answers the late commit");
    assert_eq!(answer.error_code(), Some(0), "the late commit is taken for the second transaction's");
    let aborted = producer.abort_transaction(PATIENCE);
    let looks = Observer::new(direct, id).expect("sound settings");
    let visible = values(&looks.read_committed(id).expect("read"));
    assert_eq!(visible, [&b"first"[..], b"second"], "aborted ({aborted:?}), and yet visible");
}
