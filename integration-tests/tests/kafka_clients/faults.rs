//! Lost requests and answers, through a proxy: the taint sees every one of them (EO-11).

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use processor_integration_tests::broker::{ClusterConfig, KafkaCluster, test_dir};
use processor_integration_tests::proxy::{ApiKey, Fault, Proxy, Rule};
use processor_integration_tests::worker::OVERWRITE_FREED;
use processor_runtime::kafka::{GroupConsumer, Question, Taint, Ticket, TransactionalProducer};

use super::support::{Corner, SOON, STEP, ask, join, offset_of, send};

#[test]
fn a_request_whose_answer_is_lost_taints_and_a_new_producer_is_clean() -> Result<()> {
    let proxy = Proxy::bind()?;
    let mut config = ClusterConfig::single(test_dir("client-faults")?);
    config.proxy_ports = vec![proxy.port()];
    let kafka = KafkaCluster::start(config)?;
    proxy.forward_to(kafka.ports(1).behind_proxy);
    let corner = Corner::at(&proxy.bootstrap(), "faults", 1, |settings| {
        settings.transaction_timeout = Duration::from_secs(5);
        settings.properties.insert("producer.socket.timeout.ms", "1500");
    })?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let partition = corner.partition(0);

    let cases = [
        (ApiKey::ADD_PARTITIONS_TO_TXN, Some("AddPartitionsToTxn")),
        (ApiKey::ADD_OFFSETS_TO_TXN, Some("AddOffsetsToTxn")),
        (ApiKey::TXN_OFFSET_COMMIT, Some("TxnOffsetCommit")),
        (ApiKey::END_TXN, Some("EndTxn")),
        (ApiKey::PRODUCE, None),
    ];
    for (api_key, control) in cases {
        for fault in [Fault::DropResponse, Fault::ResetAfterForward] {
            let mut producer = corner.producer("p")?;
            producer.begin()?;
            let injection = proxy.inject(Rule::new(api_key, fault));
            send(&mut producer, 0, b"x")?;
            let started = Instant::now();
            let outcome = producer
                .drain(SOON)
                .and_then(|()| {
                    let group = consumer.group_metadata().expect("the consumer is a member");
                    producer.send_offsets(&[offset_of(&partition, 1, "")], &group, SOON)
                })
                .and_then(|()| producer.commit(SOON));
            ensure!(injection.fired(), "{api_key:?} {fault:?} did not happen");
            let taint = producer.taint();
            eprintln!("{api_key:?} {fault:?}: {outcome:?} after {:?}, {taint:?}", started.elapsed());
            match control {
                Some(name) => assert_eq!(taint.control, Some(name), "{fault:?}: {outcome:?}"),
                None => assert!(taint.produce, "{fault:?}: {outcome:?}"),
            }
            drop(producer);
            let mut rebuilt = corner.producer("p")?;
            rebuilt.begin()?;
            send(&mut rebuilt, 0, b"y")?;
            rebuilt.drain(SOON)?;
            rebuilt.commit(SOON)?;
            assert_eq!(rebuilt.taint(), Taint::default());
            consumer.poll(Duration::ZERO, 1, 1, &mut Vec::new(), &mut Vec::new())?;
        }
    }
    proxy.assert_all_fired();
    Ok(())
}

#[test]
fn dropping_a_producer_whose_broker_is_frozen_is_quick() -> Result<()> {
    let kafka = KafkaCluster::start(ClusterConfig::single(test_dir("client-frozen")?))?;
    let corner = Corner::at(&kafka.bootstrap_servers(), "frozen", 1, |_| ())?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    send(&mut producer, 0, b"before")?;
    producer.drain(SOON)?;
    kafka.pause(1)?;
    for _ in 0..1_000 {
        send(&mut producer, 0, b"stuck")?;
    }
    assert!(producer.taint().produce || producer.drain(Duration::from_millis(300)).is_err());
    let started = Instant::now();
    drop(producer);
    let producer_took = started.elapsed();
    let started = Instant::now();
    drop(consumer);
    let consumer_took = started.elapsed();
    kafka.resume(1)?;
    eprintln!("dropped: producer {producer_took:?}, consumer {consumer_took:?}");
    ensure!(producer_took < Duration::from_secs(1), "the producer took {producer_took:?}");
    ensure!(consumer_took < Duration::from_secs(1), "the consumer took {consumer_took:?}");
    Ok(())
}

/// Questions that nobody answers are given up while the coordinator is away; when it is back, the member goes on. In
/// librdkafka a question to a coordinator that has timed out before it could be sent is used after it was freed (lk#4605): an
/// abort, or a client whose own thread stands still for ever. This test sees it, since it runs in a process whose
/// allocator overwrites what is freed.
#[test]
fn a_member_outlives_the_questions_that_its_coordinator_never_answered() -> Result<()> {
    const NAME: &str = "faults::a_member_outlives_the_questions_that_its_coordinator_never_answered";
    let (variable, overwrite) = OVERWRITE_FREED;
    if std::env::var_os(variable).is_none_or(|value| value != overwrite) {
        let again = Command::new(std::env::current_exe()?).args(["--exact", NAME]).env(variable, overwrite).output()?;
        let said = String::from_utf8_lossy(&again.stdout);
        ensure!(again.status.success() && said.contains("1 passed"), "{}: {said}", again.status);
        return Ok(());
    }
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(ask_a_coordinator_that_is_away()));
    is_done.recv_timeout(3 * SOON).context("a client stands still")?
}

fn ask_a_coordinator_that_is_away() -> Result<()> {
    const ROUNDS: usize = 3;
    const QUESTIONS: u64 = 20;
    let kafka = KafkaCluster::start(ClusterConfig::single(test_dir("client-questions")?))?;
    let corner = Corner::at(&kafka.bootstrap_servers(), "questions", 1, |_| ())?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let question = Question::Committed { partitions: vec![corner.partition(0)], stable: true };
    for round in 0..ROUNDS {
        kafka.kill(1)?;
        let (mut answers, deadline) = (Vec::new(), Instant::now() + SOON);
        for number in 0..QUESTIONS {
            consumer.ask(Ticket(1_000 + number), &question)?;
        }
        while (answers.len() as u64) < QUESTIONS {
            ensure!(Instant::now() < deadline, "round {round}: {} questions were given up", answers.len());
            consumer.poll(STEP, 1, 1, &mut Vec::new(), &mut Vec::new())?;
            consumer.answers(&mut answers);
        }
        assert!(answers.iter().all(|(_, answer)| answer.is_err()), "{answers:?}");
        kafka.start_node(1)?;
        let deadline = Instant::now() + SOON;
        while ask(&mut consumer, &question).is_err() {
            ensure!(Instant::now() < deadline, "round {round}: the coordinator is back and is not asked");
        }
        consumer.group_metadata()?;
    }
    Ok(())
}
