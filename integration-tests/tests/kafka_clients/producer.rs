//! The transactional producer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use processor_core::ids::{ChangelogOffset, OutputIndex, Timestamp};
use processor_core::record::{InputRecord, TargetPartition};
use processor_runtime::kafka::admin::Admin;
use processor_runtime::kafka::{
    Answer, ChangelogReader, Committed, DeliveryTag, GroupConsumer, GroupMetadata, Isolation, Kafka, PolledRecord,
    ProducerRecord, Question, RecordHeaders, TRANSACTIONAL_ID_HEADER, Taint, TransactionalProducer, TxnErrorKind,
};

use super::support::{Corner, SOON, ask, fetch_from, init, join, offset_of, poll_until, read_until, record, send};

#[test]
fn a_commit_shows_outputs_and_offsets_and_leaves_no_taint() -> Result<()> {
    let corner = Corner::new("producer-commit", 1)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let mut producer = corner.producer("p")?;
    let partition = corner.partition(0);
    producer.begin()?;
    for value in 0..3 {
        producer.send(&ProducerRecord { tag: DeliveryTag(4), ..record(0, &[value]) })?;
    }
    producer.drain(SOON)?;
    assert_eq!(producer.delivered_end(DeliveryTag(4)), Some(3));
    assert_eq!(producer.delivered_end(DeliveryTag(3)), None);
    let metadata = r#"{"batch":1}"#;
    producer.send_offsets(&[offset_of(&partition, 41, metadata)], &consumer.group_metadata()?, SOON)?;
    producer.commit(SOON)?;
    assert_eq!(producer.taint(), Taint::default());

    let question = Question::Committed { partitions: vec![partition.clone()], stable: true };
    let at = Committed::At { offset: processor_core::ids::Offset::new(41), metadata: metadata.to_owned() };
    let deadline = Instant::now() + SOON;
    let mut answer = ask(&mut consumer, &question)?;
    while answer == Answer::Committed(vec![(partition.clone(), Committed::Unstable)]) && Instant::now() < deadline {
        answer = ask(&mut consumer, &question)?; // the group's own marker may be a moment later than the commit's OK
    }
    assert_eq!(answer, Answer::Committed(vec![(partition.clone(), at)]));
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(partition, ChangelogOffset::new(0))])?;
    let met = read_until(&mut reader, "the end", |met| met.end == Some(4))?;
    assert_eq!(met.records.len(), 3);
    Ok(())
}

#[test]
fn an_abort_hides_everything_and_the_producer_goes_on() -> Result<()> {
    let corner = Corner::new("producer-abort", 1)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    producer.send(&ProducerRecord { tag: DeliveryTag(0), ..record(0, b"aborted") })?;
    producer.drain(SOON)?;
    producer.abort(SOON)?;
    assert_eq!(producer.taint(), Taint::default());

    producer.begin()?;
    assert_eq!(producer.delivered_end(DeliveryTag(0)), None, "the deliveries before are forgotten");
    producer.send(&ProducerRecord { tag: DeliveryTag(0), ..record(0, b"committed") })?;
    producer.drain(SOON)?;
    assert_eq!(producer.delivered_end(DeliveryTag(0)), Some(3), "behind the aborted record and its marker");
    producer.commit(SOON)?;

    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(0))])?;
    let met = read_until(&mut reader, "the end", |met| met.end == Some(4))?;
    assert_eq!(met.records, [(2, "committed".to_owned())]);
    Ok(())
}

/// librdkafka can send `EndTxn` before the partitions are registered; the broker then says `INVALID_TXN_STATE` and the
/// producer is beyond use. Either way the abort is quick, and nothing of it shows.
#[test]
fn an_abort_with_records_in_the_queue_is_quick() -> Result<()> {
    let corner = Corner::new("producer-abort-queued", 1)?;
    let mut producer = corner.producer("p")?;
    for _ in 0..20 {
        producer.begin()?;
        for value in 0..1_000_u32 {
            send(&mut producer, 0, &value.to_be_bytes())?;
        }
        let started = Instant::now();
        let outcome = producer.abort(SOON);
        ensure!(started.elapsed() < Duration::from_secs(5), "the abort took {:?}", started.elapsed());
        if let Err(error) = &outcome {
            assert_eq!(error.kind, TxnErrorKind::Fatal, "{error}");
        }
        if outcome.is_err() || producer.taint() != Taint::default() {
            drop(producer);
            producer = corner.producer("p")?;
        }
    }
    let end = {
        producer.begin()?;
        producer.send(&ProducerRecord { tag: DeliveryTag(0), ..record(0, b"shows") })?;
        producer.drain(SOON)?;
        producer.commit(SOON)?;
        producer.delivered_end(DeliveryTag(0)).context("it was delivered")?
    };
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(0))])?;
    let met = read_until(&mut reader, "the end", |met| met.end == Some(end + 1))?;
    assert_eq!(met.records, [(end - 1, "shows".to_owned())]);
    Ok(())
}

#[test]
fn a_newer_producer_with_the_same_id_fences_the_older() -> Result<()> {
    let corner = Corner::new("producer-fence", 1)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let partition = corner.partition(0);
    for commit_first in [false, true] {
        let mut older = corner.producer("p")?;
        older.begin()?;
        send(&mut older, 0, b"older")?;
        older.drain(SOON)?;
        let mut newer = corner.producer("p")?;
        let refused = if commit_first {
            older.commit(SOON)
        } else {
            older.send_offsets(&[offset_of(&partition, 1, "")], &consumer.group_metadata()?, SOON)
        };
        let error = refused.expect_err("the older one is fenced");
        assert_eq!(error.kind, TxnErrorKind::Fenced, "{error}");
        assert_eq!(older.abort(SOON).expect_err("fenced for good").kind, TxnErrorKind::Fenced);
        let started = Instant::now();
        drop(older);
        ensure!(started.elapsed() < Duration::from_secs(2), "dropping took {:?}", started.elapsed());
        newer.begin()?;
        send(&mut newer, 0, b"newer")?;
        newer.drain(SOON)?;
        newer.commit(SOON)?;
        assert_eq!(newer.taint(), Taint::default());
    }
    Ok(())
}

#[test]
fn a_transaction_that_the_broker_timed_out_is_fenced_and_a_new_producer_goes_on() -> Result<()> {
    let corner = Corner::with("producer-timeout", 1, |settings| settings.transaction_timeout = Duration::from_secs(1))?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    send(&mut producer, 0, b"late")?;
    producer.drain(SOON)?;
    // The broker looks every ten seconds for transactions that are over their time. Then its abort marker is there.
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(0))])?;
    read_until(&mut reader, "the broker's abort", |met| met.end == Some(2))?;
    let error = producer.commit(Duration::from_secs(5)).expect_err("the transaction is gone");
    assert!(matches!(error.kind, TxnErrorKind::Fenced | TxnErrorKind::Fatal), "{error}");
    drop(producer);

    let mut producer = corner.producer("p")?;
    producer.begin()?;
    send(&mut producer, 0, b"new")?;
    producer.drain(SOON)?;
    producer.commit(SOON)?;
    Ok(())
}

#[test]
fn a_stale_generation_means_that_the_group_moved() -> Result<()> {
    let corner = Corner::new("producer-moved", 2)?;
    let mut first = corner.consumer("a")?;
    join(&mut first)?;
    let stale = first.group_metadata()?;
    let mut second = corner.consumer("b")?;
    let generation = stale.membership().generation;
    // Both must poll for the group to come together again.
    let deadline = Instant::now() + SOON;
    while first.group_metadata()?.membership().generation <= generation {
        ensure!(Instant::now() < deadline, "the second member did not join");
        first.poll(Duration::from_millis(20), 1, 1, &mut Vec::new(), &mut Vec::new())?;
        second.poll(Duration::from_millis(20), 1, 1, &mut Vec::new(), &mut Vec::new())?;
    }
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    let partition = corner.partition(0);
    let error = producer.send_offsets(&[offset_of(&partition, 1, "")], &stale, SOON).expect_err("it is stale");
    assert_eq!(error.kind, TxnErrorKind::Moved, "{error}");
    producer.abort(SOON)?;
    assert_eq!(producer.taint(), Taint::default());
    producer.begin()?;
    producer.abort(SOON)?;
    Ok(())
}

#[test]
fn a_record_that_the_topic_refuses_is_refused_with_its_place() -> Result<()> {
    let corner = Corner::new("producer-refused", 1)?;
    let narrow: std::sync::Arc<str> = "producer-refused-narrow".into();
    let settings = [("max.message.bytes".to_owned(), "1000".to_owned())].into();
    Admin::connect(corner.cluster.settings())?.create_topic(&narrow, 1, Some(1), &settings)?;
    let mut producer = corner.cluster.producer(&corner.id("p"), std::slice::from_ref(&narrow))?;
    init(&mut producer)?;

    producer.begin()?;
    let noise: Vec<u8> = (0..5_000_u32).map(|value| (value.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    send(&mut producer, 0, &noise)?;
    let error = producer.drain(SOON).expect_err("the topic takes less");
    assert_eq!(error.kind, TxnErrorKind::Refused, "{error}");
    assert!(error.message.contains("producer-refused-narrow-0"), "{error}");
    producer.abort(SOON)?;
    // The refused record used a sequence number up: this producer's next transaction would fail on that.
    assert_eq!(producer.taint(), Taint { control: None, produce: true });
    drop(producer);
    let mut producer = corner.cluster.producer(&corner.id("p"), std::slice::from_ref(&narrow))?;
    init(&mut producer)?;

    producer.begin()?;
    let error = send(&mut producer, 0, &vec![0; 2_000_000]).expect_err("librdkafka itself takes less");
    assert_eq!((error.kind, error.code.as_str()), (TxnErrorKind::Refused, "MSG_SIZE_TOO_LARGE"), "{error}");
    producer.abort(SOON)?;

    producer.begin()?;
    let unknown = send(&mut producer, 99, b"x").and_then(|()| producer.drain(SOON));
    let error = unknown.expect_err("there is no partition 99");
    assert_eq!(error.kind, TxnErrorKind::Refused, "{error}");
    producer.abort(SOON)?;

    producer.begin()?;
    send(&mut producer, 0, b"fits")?;
    producer.drain(SOON)?;
    producer.commit(SOON)?;
    Ok(())
}

#[test]
fn keys_values_timestamps_and_headers_arrive_as_they_were_sent() -> Result<()> {
    type Case = (Option<&'static [u8]>, Option<&'static [u8]>, i64);
    const CASES: [Case; 4] = [
        (None, None, 7),
        (Some(b""), Some(b""), 0),
        (Some(b"key"), None, -5),
        (None, Some(b"value"), 1_700_000_000_000),
    ];
    let corner = Corner::new("producer-roundtrip", 1)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    for (key, value, timestamp) in CASES {
        producer.send(&ProducerRecord { key, value, timestamp: Timestamp::new(timestamp), ..record(0, b"") })?;
    }
    let headers = RecordHeaders::One(TRANSACTIONAL_ID_HEADER, b"the id");
    producer.send(&ProducerRecord { headers, ..record(0, b"with header") })?;
    producer.drain(SOON)?;
    producer.commit(SOON)?;

    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    fetch_from(&mut consumer, &corner, 0)?;
    let (records, _) = poll_until(&mut consumer, "the records", |records, _| records.len() == 5)?;
    for (record, (key, value, timestamp)) in records.iter().zip(CASES) {
        assert_eq!((record.key(), record.value()), (key, value));
        assert_eq!(record.timestamp(), Some(Timestamp::new(timestamp.max(1))));
        assert_eq!((record.input().get(), record.partition().get()), (0, 0));
    }
    let mut headers = Vec::new();
    records[4].visit_headers(&mut |name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
    assert_eq!(headers, [(TRANSACTIONAL_ID_HEADER.to_owned(), Some(b"the id".to_vec()))]);
    let mut reader = corner.reader(Isolation::ReadCommitted)?;
    reader.read(&[(corner.partition(0), ChangelogOffset::new(3))])?;
    let met = read_until(&mut reader, "the header", |met| met.records.len() == 2)?;
    assert_eq!(met.transactional_ids, [None, Some("the id".to_owned())]);
    Ok(())
}

#[test]
fn keys_go_where_java_clients_put_them() -> Result<()> {
    const PARTITIONS: i32 = 5;
    let corner = Corner::new("producer-partitions", 5)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    let keys: Vec<String> = (0..200).map(|key| format!("key-{key}")).collect();
    for key in &keys {
        let by_key = ProducerRecord { partition: TargetPartition::ByKey, key: Some(key.as_bytes()), ..record(0, b"v") };
        producer.send(&ProducerRecord { topic: OutputIndex::new(0), ..by_key })?;
    }
    producer.drain(SOON)?;
    producer.commit(SOON)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let start = processor_core::ids::Offset::new(0);
    consumer.fetch(&(0..PARTITIONS).map(|number| (corner.partition(number), start)).collect::<Vec<_>>())?;
    let (records, _) = poll_until(&mut consumer, "the records", |records, _| records.len() == keys.len())?;
    for record in records {
        let key = record.key().expect("every record has one");
        assert_eq!(record.partition().get(), (murmur2(key) & 0x7fff_ffff) as i32 % PARTITIONS);
    }
    Ok(())
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().expect("chunks of four")).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (index, byte) in rest.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn a_thousand_transactions_leave_no_taint() -> Result<()> {
    let corner = Corner::new("producer-thousand", 4)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let mut producer = corner.producer("p")?;
    let partition = corner.partition(0);
    for batch in 0..1_000_i64 {
        producer.begin()?;
        for number in 0..8 {
            send(&mut producer, number % 4, &batch.to_be_bytes())?;
        }
        producer.drain(SOON)?;
        producer.send_offsets(&[offset_of(&partition, batch + 1, "m")], &consumer.group_metadata()?, SOON)?;
        producer.commit(SOON)?;
        assert_eq!(producer.taint(), Taint::default(), "after transaction {batch}");
        if batch % 20 == 0 {
            consumer.poll(Duration::ZERO, 1, 1, &mut Vec::new(), &mut Vec::new())?;
        }
    }
    Ok(())
}

#[test]
fn more_records_than_the_queue_holds_are_sent_all_the_same() -> Result<()> {
    let corner = Corner::with("producer-full", 2, |settings| {
        settings.properties.insert("producer.queue.buffering.max.messages".to_owned(), "500".to_owned());
    })?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    for value in 0..20_000_u32 {
        let tag = DeliveryTag((value % 2) as u16);
        producer.send(&ProducerRecord { tag, ..record((value % 2) as i32, &value.to_be_bytes()) })?;
    }
    producer.drain(SOON)?;
    assert_eq!(producer.delivered_end(DeliveryTag(0)), Some(10_000));
    assert_eq!(producer.delivered_end(DeliveryTag(1)), Some(10_000));
    producer.commit(SOON)?;
    Ok(())
}
