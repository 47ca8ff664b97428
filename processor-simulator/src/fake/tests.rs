//! The fakes keep the rules of the seams.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{
    BatchId, ChangelogOffset, InputIndex, Offset, OutputIndex, Partition, StoreIndex, TaskId, Timestamp, TopicPartition,
};
use processor_core::record::{InputRecord as _, TargetPartition};
use processor_core::store::Base as _;
use processor_core::task::ChangeSet;
use processor_runtime::kafka::{
    Answer, ChangelogEvent, ChangelogReader as _, Committed, DeliveryTag, GroupConsumer as _, GroupEvent, Isolation,
    Kafka as _, KafkaErrorKind, LogBounds, Member, Membership, OffsetToCommit, PolledRecord as _, ProducerRecord,
    Progress, Question, RecordHeaders, RecordNumber, TRANSACTIONAL_ID_HEADER, Ticket, TransactionalId,
    TransactionalProducer as _, TxnError, TxnErrorKind,
};
use processor_runtime::state::{Layout, Positions, StateDirectory as _, StateErrorKind, StoreLayout, TaskState as _};

use super::*;

const NO_WAIT: Duration = Duration::ZERO;
const IN: &str = "in";
const OUT: &str = "out";

fn cluster() -> FakeCluster {
    let cluster = FakeCluster::new();
    cluster.create_topic(IN, 4);
    cluster.create_topic("in-2", 4);
    cluster.create_topic(OUT, 2);
    cluster
}

fn id(name: &str) -> TransactionalId {
    TransactionalId(Arc::from(name))
}

fn partition(topic: &str, number: i32) -> TopicPartition {
    TopicPartition::new(topic, Partition::new(number))
}

fn producer(cluster: &FakeCluster, name: &str) -> FakeProducer {
    let mut producer = cluster.worker(name).producer(&id(name), &[Arc::from(OUT)]).expect("the worker lives");
    assert_eq!(producer.init(NO_WAIT).expect("nothing is in the way"), Progress::Done);
    producer
}

fn send(producer: &mut FakeProducer, value: &str) -> Result<(), TxnError> {
    producer.send(&ProducerRecord {
        topic: OutputIndex::new(0),
        partition: TargetPartition::Exactly(Partition::new(0)),
        timestamp: Timestamp::new(1),
        key: Some(b"key"),
        value: Some(value.as_bytes()),
        headers: RecordHeaders::One(TRANSACTIONAL_ID_HEADER, b"me"),
        tag: DeliveryTag(1),
        number: RecordNumber::NONE,
    })
}

fn begin_and_send(producer: &mut FakeProducer, value: &str) {
    producer.begin().expect("it is ready");
    send(producer, value).expect("the log takes it");
    producer.drain(NO_WAIT).expect("the log took it");
}

fn values(cluster: &FakeCluster) -> Vec<String> {
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text");
    cluster.read_committed(OUT).into_iter().map(|(_, _, written)| text(written.value)).collect()
}

/// What a changelog reader meets in partition 0 of the outputs: values, and `end@position`.
fn read(reader: &mut FakeChangelog) -> Vec<String> {
    let mut met = Vec::new();
    let polled = reader.poll(NO_WAIT, &mut |event| {
        met.push(match event {
            ChangelogEvent::Record { value, transactional_id, .. } => {
                assert_eq!(transactional_id, Some(&b"me"[..]));
                String::from_utf8_lossy(value.expect("a value")).into_owned()
            }
            ChangelogEvent::End { position, .. } => format!("end@{position}"),
            ChangelogEvent::OutOfRange { .. } => "out of range".to_owned(),
        });
        ControlFlow::Continue(())
    });
    polled.expect("the worker lives");
    met
}

fn reader(cluster: &FakeCluster, isolation: Isolation, from: i64) -> FakeChangelog {
    let mut reader = cluster.worker("reader").changelog("reader", isolation).expect("the worker lives");
    reader.read(&[(partition(OUT, 0), ChangelogOffset::new(from))]).expect("it exists");
    reader
}

#[test]
fn readers_see_what_their_isolation_lets_them_see() {
    let cluster = cluster();
    let (mut one, mut two) = (producer(&cluster, "one"), producer(&cluster, "two"));
    begin_and_send(&mut one, "aborted");
    one.abort(NO_WAIT).expect("aborts");
    begin_and_send(&mut one, "open");
    begin_and_send(&mut two, "committed");
    two.commit(NO_WAIT).expect("commits");

    assert_eq!(values(&cluster), Vec::<String>::new(), "an open transaction holds back what follows it");
    assert_eq!((cluster.last_stable_offset(OUT, 0), cluster.high_watermark(OUT, 0)), (2, 5));
    let mut committed = reader(&cluster, Isolation::ReadCommitted, 0);
    assert_eq!(read(&mut committed), ["end@2"]);
    assert_eq!(read(&mut committed), Vec::<String>::new(), "the end is told once");
    let mut all = reader(&cluster, Isolation::ReadUncommitted, 0);
    assert_eq!(read(&mut all), ["aborted", "open", "committed", "end@5"]);

    one.commit(NO_WAIT).expect("commits");
    assert_eq!(values(&cluster), ["open", "committed"]);
    assert_eq!(read(&mut committed), ["open", "committed", "end@6"], "the marker behind them is passed");
    assert_eq!(one.delivered_end(DeliveryTag(1)), Some(3));
    assert_eq!(two.delivered_end(DeliveryTag(1)), Some(4));
    assert_eq!(two.delivered_end(DeliveryTag(0)), None);
}

#[test]
fn a_reader_is_told_where_the_log_has_nothing() {
    let cluster = cluster();
    let mut one = producer(&cluster, "one");
    begin_and_send(&mut one, "deleted");
    one.commit(NO_WAIT).expect("commits");
    cluster.delete_records(OUT, 0, 1);
    assert_eq!(read(&mut reader(&cluster, Isolation::ReadCommitted, 0)), ["out of range"]);
    assert_eq!(read(&mut reader(&cluster, Isolation::ReadCommitted, 1)), ["end@2"]);
    assert_eq!(read(&mut reader(&cluster, Isolation::ReadCommitted, 3)), ["out of range"]);
}

#[test]
fn whoever_breaks_off_skips_nothing() {
    let cluster = cluster();
    let mut one = producer(&cluster, "one");
    one.begin().expect("it is ready");
    for value in ["1", "2", "3"] {
        send(&mut one, value).expect("the log takes it");
    }
    one.commit(NO_WAIT).expect("commits");
    let mut reader = reader(&cluster, Isolation::ReadCommitted, 0);
    let mut counts = Vec::new();
    for _ in 0..4 {
        let mut count = 0;
        let polled = reader.poll(NO_WAIT, &mut |_| {
            count += 1;
            ControlFlow::Break(())
        });
        polled.expect("the worker lives");
        counts.push(count);
    }
    assert_eq!(counts, [1, 1, 1, 1], "three records and the end");
}

#[test]
fn a_new_producer_fences_the_old_one_and_aborts_what_it_left() {
    let cluster = cluster();
    let mut old = producer(&cluster, "same");
    begin_and_send(&mut old, "left open");
    let mut new = producer(&cluster, "same");
    assert_eq!(cluster.open_transactions(), []);
    assert_eq!(cluster.last_stable_offset(OUT, 0), cluster.high_watermark(OUT, 0));

    send(&mut old, "from the grave").expect("the client does not know yet");
    assert_eq!(old.drain(NO_WAIT).expect_err("refused").kind, TxnErrorKind::Fenced);
    assert_eq!(old.commit(NO_WAIT).expect_err("refused").kind, TxnErrorKind::Fatal);
    begin_and_send(&mut new, "alive");
    new.commit(NO_WAIT).expect("commits");
    assert_eq!(values(&cluster), ["alive"]);
}

#[test]
fn a_transaction_that_times_out_is_aborted_and_its_producer_fenced() {
    let cluster = cluster();
    let mut slow = producer(&cluster, "slow");
    begin_and_send(&mut slow, "too late");
    assert!(cluster.time_out_transaction(&id("slow")));
    assert!(!cluster.time_out_transaction(&id("slow")), "it has none any more");
    assert_eq!(slow.commit(NO_WAIT).expect_err("refused").kind, TxnErrorKind::Fenced);
    assert_eq!(values(&cluster), Vec::<String>::new());
}

fn member(client_id: &str) -> Member {
    Member { client_id: client_id.to_owned(), group_instance_id: None }
}

fn static_member(client_id: &str) -> Member {
    Member { client_id: client_id.to_owned(), group_instance_id: Some(client_id.to_owned()) }
}

fn consumer(cluster: &FakeCluster, member: &Member) -> FakeConsumer {
    let inputs = [Arc::from(IN), Arc::from("in-2")];
    cluster.worker(&member.client_id).consumer(member, &inputs).expect("the worker lives")
}

fn poll(consumer: &mut FakeConsumer) -> (Vec<FakeRecord>, Vec<GroupEvent>) {
    let (mut records, mut events) = (Vec::new(), Vec::new());
    consumer.poll(NO_WAIT, 100, 1 << 20, &mut records, &mut events).expect("the worker lives");
    (records, events)
}

/// Polls everyone in turn until nobody is told anything for a round; returns what each was told.
fn settle<const N: usize>(mut consumers: [&mut FakeConsumer; N]) -> [Vec<GroupEvent>; N] {
    let mut told = [const { Vec::new() }; N];
    let mut quiet = 0;
    while quiet < 3 {
        quiet += 1;
        for (consumer, told) in consumers.iter_mut().zip(&mut told) {
            let events = poll(consumer).1;
            if !events.is_empty() {
                quiet = 0;
            }
            told.extend(events);
        }
    }
    told
}

fn assigned(event: &GroupEvent) -> (Vec<String>, Membership) {
    match event {
        GroupEvent::Assigned { partitions, membership } => {
            (partitions.iter().map(ToString::to_string).collect(), membership.clone())
        }
        other => panic!("not an assignment: {other:?}"),
    }
}

#[test]
fn rebalances_are_eager_and_keep_tasks_together() {
    let cluster = cluster();
    let (mut a, mut b) = (consumer(&cluster, &member("a")), consumer(&cluster, &member("b")));
    let [told] = settle([&mut a]);
    let (partitions, first) = assigned(&told[0]);
    assert_eq!(told.len(), 1);
    assert_eq!(partitions.len(), 8);
    assert_eq!(first.generation, 1);
    assert_eq!(a.group_metadata().expect("alive").0, first);

    assert_eq!(poll(&mut b).1, [], "joining takes a poll");
    assert_eq!(poll(&mut b).1, [], "and waits for the others");
    let [told_a, told_b] = settle([&mut a, &mut b]);
    assert_eq!(told_a[0], GroupEvent::Revoked { lost: false });
    let ((of_a, second), (of_b, _)) = (assigned(&told_a[1]), assigned(&told_b[0]));
    assert_eq!(of_a, ["in-0", "in-1", "in-2-0", "in-2-1"]);
    assert_eq!(of_b, ["in-2", "in-3", "in-2-2", "in-2-3"]);
    assert_eq!(second.generation, 2);
    assert_eq!(cluster.members(), ["a", "b"]);

    b.leave(NO_WAIT).expect("leaves");
    let [told] = settle([&mut a]);
    assert_eq!(told[0], GroupEvent::Revoked { lost: false });
    assert_eq!(assigned(&told[1]).0.len(), 8);
}

#[test]
fn a_member_that_never_comes_back_holds_the_others_up_until_its_session_ends() {
    let cluster = cluster();
    let (mut dead, mut b) = (consumer(&cluster, &member("dead")), consumer(&cluster, &member("b")));
    settle([&mut dead]);
    cluster.crash("dead");
    assert_eq!(
        dead.poll(NO_WAIT, 1, 1, &mut Vec::new(), &mut Vec::new()).expect_err("dead").kind,
        KafkaErrorKind::Fatal
    );
    assert_eq!(settle([&mut b]), [[]]);
    cluster.expire_session("dead");
    assert_eq!(assigned(&settle([&mut b])[0][0]).0.len(), 8);
}

#[test]
fn an_expired_member_loses_what_it_owned_and_joins_again() {
    let cluster = cluster();
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    cluster.expire_session("a");
    let told = &settle([&mut a])[0];
    assert_eq!(told[0], GroupEvent::Revoked { lost: true });
    let (_, membership) = assigned(&told[1]);
    assert!(membership.generation > 1, "{membership:?}");
}

#[test]
fn a_static_member_that_restarts_moves_nothing_and_fences_its_double() {
    let cluster = cluster();
    let (mut a, mut b) = (consumer(&cluster, &static_member("a")), consumer(&cluster, &static_member("b")));
    let [_, told] = settle([&mut a, &mut b]);
    let before = assigned(told.last().expect("assigned"));
    let mut again = consumer(&cluster, &static_member("b"));
    let [told_a, told_again] = settle([&mut a, &mut again]);
    assert_eq!(told_a, []);
    let after = assigned(&told_again[0]);
    assert_eq!((&after.0, after.1.generation), (&before.0, before.1.generation));
    assert_ne!(after.1.member_id, before.1.member_id);
    let error = b.poll(NO_WAIT, 1, 1, &mut Vec::new(), &mut Vec::new()).expect_err("its instance is taken");
    assert_eq!(error.kind, KafkaErrorKind::FencedInstance);
}

#[test]
fn only_what_is_fetched_is_read_and_an_event_drops_it() {
    let cluster = cluster();
    for value in ["0", "1", "2"] {
        cluster.produce(IN, 1, b"k", value.as_bytes(), 7);
        cluster.produce("in-2", 1, b"k", value.as_bytes(), 8);
    }
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    assert_eq!(poll(&mut a).0, [], "nothing is fetched yet");
    a.fetch(&[(partition("in-2", 1), Offset::new(1))]).expect("it exists");
    let (records, events) = poll(&mut a);
    assert_eq!(events, []);
    let seen: Vec<_> = records.iter().map(|record| (record.input(), record.partition(), record.offset())).collect();
    let at = |offset| (InputIndex::new(1), Partition::new(1), Offset::new(offset));
    assert_eq!(seen, [at(1), at(2)]);
    assert_eq!(records[0].timestamp(), Some(Timestamp::new(8)));
    assert_eq!(poll(&mut a).0, [], "each record comes once");

    a.fetch(&[(partition(IN, 1), Offset::new(0))]).expect("it exists");
    let mut two = Vec::new();
    a.poll(NO_WAIT, 2, 1 << 20, &mut two, &mut Vec::new()).expect("alive");
    assert_eq!(two.len(), 2);
    let mut none = Vec::new();
    a.poll(NO_WAIT, 0, 1 << 20, &mut none, &mut Vec::new()).expect("alive");
    assert_eq!(none, []);
    cluster.rebalance();
    let (records, events) = poll(&mut a);
    assert_eq!((records, events), (vec![], vec![GroupEvent::Revoked { lost: false }]));
    settle([&mut a]);
    assert_eq!(poll(&mut a).0, [], "what was fetched before is forgotten");
}

#[test]
fn deleted_input_is_reported() {
    let cluster = cluster();
    for offset in 0..3 {
        assert_eq!(cluster.produce(IN, 0, b"k", b"v", 1), offset);
    }
    cluster.delete_records(IN, 0, 2);
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    a.fetch(&[(partition(IN, 0), Offset::new(1))]).expect("it exists");
    let (records, events) = poll(&mut a);
    assert_eq!(records, []);
    assert!(matches!(&events[..], [GroupEvent::OutOfRange { partition: of, .. }] if *of == partition(IN, 0)));
    assert_eq!(poll(&mut a).1, [], "once");
}

fn ask(consumer: &mut FakeConsumer, question: &Question) -> Answer {
    consumer.ask(Ticket(1), question).expect("alive");
    let mut answers = Vec::new();
    consumer.answers(&mut answers);
    answers.pop().expect("it is not delayed").1.expect("it has an answer")
}

fn committed(consumer: &mut FakeConsumer, stable: bool) -> Committed {
    let question = Question::Committed { partitions: vec![partition(IN, 0)], stable };
    match ask(consumer, &question) {
        Answer::Committed(mut answer) => answer.pop().expect("one partition").1,
        other => panic!("another question's answer: {other:?}"),
    }
}

fn send_offset(producer: &mut FakeProducer, consumer: &FakeConsumer, offset: i64) -> Result<(), TxnError> {
    let of = partition(IN, 0);
    let offsets = [OffsetToCommit { partition: &of, offset: Offset::new(offset), metadata: "m" }];
    producer.send_offsets(&offsets, &consumer.group_metadata().expect("alive"), NO_WAIT)
}

fn at(offset: i64) -> Committed {
    Committed::At { offset: Offset::new(offset), metadata: "m".to_owned() }
}

#[test]
fn offsets_count_when_their_transaction_commits_and_are_unstable_before() {
    let cluster = cluster();
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    let mut one = producer(&cluster, "one");
    assert_eq!(committed(&mut a, true), Committed::Nothing);
    begin_and_send(&mut one, "1");
    send_offset(&mut one, &a, 5).expect("a member");
    assert_eq!(committed(&mut a, true), Committed::Unstable);
    assert_eq!(committed(&mut a, false), Committed::Nothing);
    one.abort(NO_WAIT).expect("aborts");
    assert_eq!(committed(&mut a, true), Committed::Nothing);

    cluster.script(Fault::CommitHoldsMarkers);
    begin_and_send(&mut one, "2");
    send_offset(&mut one, &a, 6).expect("a member");
    one.commit(NO_WAIT).expect("commits, markers or not");
    assert_eq!(committed(&mut a, true), Committed::Unstable);
    assert_eq!(values(&cluster), Vec::<String>::new());
    one.begin().expect("local");
    send(&mut one, "3").expect("it waits in the client");
    let error = one.drain(NO_WAIT).expect_err("the one before is not through");
    assert_eq!((error.kind, &*error.code), (TxnErrorKind::TimedOut, "_TIMED_OUT"));
    cluster.release_markers();
    one.drain(NO_WAIT).expect("now it is");
    one.commit(NO_WAIT).expect("commits");
    assert_eq!(committed(&mut a, true), at(6));
    assert_eq!(values(&cluster), ["2", "3"]);
}

#[test]
fn offsets_of_a_former_member_are_refused() {
    let cluster = cluster();
    let (mut a, mut b) = (consumer(&cluster, &member("a")), consumer(&cluster, &member("b")));
    settle([&mut a]);
    let mut one = producer(&cluster, "one");
    begin_and_send(&mut one, "1");
    assert_eq!(poll(&mut b).1, [], "another one joins, and the generation is still the same");
    send_offset(&mut one, &a, 1).expect("still a member of this generation");
    let stale = a.group_metadata().expect("alive");
    settle([&mut a, &mut b]);
    let of = partition(IN, 0);
    let offsets = [OffsetToCommit { partition: &of, offset: Offset::new(1), metadata: "m" }];
    let error = one.send_offsets(&offsets, &stale, NO_WAIT).expect_err("an older generation");
    assert_eq!((error.kind, &*error.code), (TxnErrorKind::Moved, "ILLEGAL_GENERATION"));
    cluster.expire_session("a");
    let error = send_offset(&mut one, &a, 1).expect_err("it does not know yet");
    assert_eq!((error.kind, &*error.code), (TxnErrorKind::Moved, "UNKNOWN_MEMBER_ID"));
    one.abort(NO_WAIT).expect("aborts");
    let unchecked = FakeMetadata(Membership { generation: -1, member_id: String::new() });
    begin_and_send(&mut one, "2");
    one.send_offsets(&offsets, &unchecked, NO_WAIT).expect("nobody checks it: that is why EO-12 does");
}

#[test]
fn answers_come_late_and_tell_of_then() {
    let cluster = cluster();
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    cluster.delay_answers(2);
    a.ask(Ticket(7), &Question::Bounds { partitions: vec![partition(IN, 0)] }).expect("alive");
    a.ask(Ticket(8), &Question::Members).expect("alive");
    cluster.produce(IN, 0, b"k", b"v", 1);
    let mut answers = Vec::new();
    poll(&mut a);
    a.answers(&mut answers);
    assert!(answers.is_empty());
    poll(&mut a);
    a.answers(&mut answers);
    let answers: Vec<_> = answers.into_iter().map(|(ticket, answer)| (ticket, answer.expect("known"))).collect();
    let bounds = Answer::Bounds(vec![(partition(IN, 0), LogBounds { start: 0, end: 0 })]);
    assert_eq!(answers, [(Ticket(7), bounds), (Ticket(8), Answer::Members(vec!["a".to_owned()]))]);
}

#[test]
fn a_commit_without_an_answer_took_effect_or_did_not() {
    for took_effect in [true, false] {
        let cluster = cluster();
        let mut one = producer(&cluster, "one");
        cluster.script_for(&id("another"), Fault::CommitFails(TxnErrorKind::Fatal));
        cluster.script(Fault::CommitTimesOut { took_effect });
        begin_and_send(&mut one, "1");
        for _ in 0..3 {
            assert_eq!(one.commit(NO_WAIT).expect_err("no answer").kind, TxnErrorKind::TimedOut);
        }
        assert_eq!(cluster.open_transactions().is_empty(), took_effect);
        producer(&cluster, "one");
        assert_eq!(values(&cluster).len(), usize::from(took_effect));
        assert_eq!(cluster.faults_left(), 1, "the other's fault waits for the other");
    }
}

#[test]
#[should_panic(expected = "EO-5, EO-11")]
fn a_producer_whose_commit_has_no_answer_must_not_begin_again() {
    let cluster = cluster();
    let mut one = producer(&cluster, "one");
    cluster.script(Fault::CommitTimesOut { took_effect: true });
    begin_and_send(&mut one, "1");
    one.commit(NO_WAIT).expect_err("no answer");
    drop(one.begin());
}

/// The finding of `kafka-facts.md` A, and why a new producer cures it.
#[test]
fn a_late_copy_hits_the_next_transaction_of_the_same_epoch_only() {
    for renew in [false, true] {
        let cluster = cluster();
        let mut one = producer(&cluster, "one");
        cluster.script(Fault::CommitLeavesLateCopy);
        begin_and_send(&mut one, "1");
        one.commit(NO_WAIT).expect("commits");
        assert_eq!(one.taint().control, Some("EndTxn"));
        if renew {
            one = producer(&cluster, "one");
        }
        begin_and_send(&mut one, "to be aborted");
        assert_eq!(one.taint().control, None);
        assert_eq!(cluster.deliver_late_requests(), usize::from(!renew));
        assert_eq!(values(&cluster).len(), if renew { 1 } else { 2 });
    }
}

#[test]
fn faults_strike_once_at_their_call() {
    let cluster = cluster();
    let mut a = consumer(&cluster, &member("a"));
    settle([&mut a]);
    let mut one = producer(&cluster, "one");
    cluster.script(Fault::DrainFails(TxnErrorKind::Abortable));
    cluster.script(Fault::SendOffsetsFails(TxnErrorKind::Retriable));
    cluster.script(Fault::AbortFails(TxnErrorKind::Fenced));
    cluster.script(Fault::InitTakes(2));
    one.begin().expect("it is ready");
    send(&mut one, "1").expect("the log takes it");
    assert_eq!(one.drain(NO_WAIT).expect_err("scripted").kind, TxnErrorKind::Abortable);
    one.drain(NO_WAIT).expect("once");
    assert_eq!(send_offset(&mut one, &a, 1).expect_err("scripted").kind, TxnErrorKind::Retriable);
    send_offset(&mut one, &a, 1).expect("once");
    assert_eq!(one.abort(NO_WAIT).expect_err("scripted").kind, TxnErrorKind::Fenced);
    assert_eq!(cluster.open_transactions(), [id("one")], "the abort had no effect");
    let mut again = cluster.worker("one").producer(&id("one"), &[Arc::from(OUT)]).expect("alive");
    let progress: Vec<_> = (0..3).map(|_| again.init(NO_WAIT).expect("no error")).collect();
    assert_eq!(progress, [Progress::Pending, Progress::Pending, Progress::Done]);
    assert_eq!(cluster.open_transactions(), []);
}

// ---- the disk -------------------------------------------------------------------------------------------------------

fn task() -> TaskId {
    TaskId::new("orders", Partition::new(0))
}

fn layout(stores: &[&str]) -> Layout {
    let store = |name: &&str| StoreLayout {
        name: Arc::from(*name),
        in_memory: false,
        changelog_topic_id: Some(format!("of-{name}")),
    };
    Layout { stores: stores.iter().map(store).collect(), cluster_id: "c".to_owned() }
}

fn open(disk: &FakeDirectory, layout: &Layout) -> FakeTask {
    disk.open(&task(), layout).expect("it opens").expect("nobody has it")
}

fn apply(state: &mut FakeTask, batch: u64) -> Result<(), processor_runtime::state::StateError> {
    let mut changes = ChangeSet::default();
    changes.push(StoreIndex::new(0), b"last", Some(&batch.to_be_bytes()));
    changes.push(StoreIndex::new(1), &batch.to_be_bytes(), Some(b"x"));
    changes.push(StoreIndex::new(1), &(batch - 1).to_be_bytes(), None);
    let offset = Some(ChangelogOffset::new(batch as i64));
    let positions = Positions {
        changelogs: vec![offset, offset],
        stream_time: Some(Timestamp::new(batch as i64)),
        batch: BatchId::new(batch),
        written_at: Timestamp::new(1),
    };
    state.apply_unproved(&changes, &positions)
}

#[test]
fn a_crash_takes_whole_batches_from_the_end() {
    let disk = FakeDirectory::new();
    let mut state = open(&disk, &layout(&["a", "b"]));
    assert!(disk.open(&task(), &layout(&["a", "b"])).expect("no error").is_none());
    (1..=5).for_each(|batch| apply(&mut state, batch).expect("the disk takes it"));
    disk.crash(2);
    drop(state);
    let state = open(&disk, &layout(&["a", "b"]));
    assert_eq!(state.positions().batch, BatchId::new(3));
    let mut value = Vec::new();
    assert!(state.get(StoreIndex::new(0), b"last", &mut value).expect("readable"));
    assert_eq!(value, 3_u64.to_be_bytes());
    let (stores, _) = disk.dump(&task()).expect("on disk");
    assert_eq!(stores["b"].keys().cloned().collect::<Vec<_>>(), [3_u64.to_be_bytes()]);
    drop(state);
    disk.crash(100);
    assert_eq!(*open(&disk, &layout(&["a", "b"])).positions(), Positions::empty(2));
}

#[test]
#[should_panic(expected = "is used after its worker crashed")]
fn the_dead_write_nothing() {
    let disk = FakeDirectory::new();
    let mut state = open(&disk, &layout(&["a", "b"]));
    disk.crash(0);
    drop(apply(&mut state, 1));
}

#[test]
fn layouts_are_treated_as_on_a_real_disk() {
    let disk = FakeDirectory::new();
    let mut state = open(&disk, &layout(&["a", "b"]));
    apply(&mut state, 1).expect("the disk takes it");
    disk.park(state);

    let error = disk.open(&task(), &layout(&["a"])).expect_err("b is gone");
    assert_eq!(error.kind, StateErrorKind::Foreign);
    let state = open(&disk, &layout(&["b", "new", "a"]));
    let offset = Some(ChangelogOffset::new(1));
    assert_eq!(state.positions().changelogs, [offset, None, offset]);
    disk.park(state);
    let mut remade = layout(&["b", "new", "a"]);
    remade.stores[0].changelog_topic_id = Some("made again".to_owned());
    let state = open(&disk, &remade);
    assert_eq!(state.positions().changelogs, [None, None, offset]);
    assert_eq!(state.approximate_len(StoreIndex::new(0)).expect("readable"), 0);
    disk.park(state);
    remade.cluster_id = "other".to_owned();
    assert_eq!(*open(&disk, &remade).positions(), Positions::empty(3));
}

#[test]
fn wipes_last_and_failed_applies_write_nothing() {
    let disk = FakeDirectory::new();
    let mut state = open(&disk, &layout(&["a", "b"]));
    (1..=3).for_each(|batch| apply(&mut state, batch).expect("the disk takes it"));
    disk.fail_applies(1);
    assert_eq!(apply(&mut state, 4).expect_err("scripted").kind, StateErrorKind::Disk);
    assert_eq!(state.positions().batch, BatchId::new(3));
    apply(&mut state, 4).expect("that was one");
    disk.refuse_writes_until_reopened();
    for _ in 0..2 {
        assert_eq!(apply(&mut state, 5).expect_err("scripted").kind, StateErrorKind::Disk);
    }
    drop(state);
    let mut state = open(&disk, &layout(&["a", "b"]));
    apply(&mut state, 5).expect("it was opened again");

    disk.damage(&task(), StoreIndex::new(0));
    assert!(state.get(StoreIndex::new(0), b"last", &mut Vec::new()).expect_err("damaged").corrupt);
    state.wipe(StoreIndex::new(0)).expect("wiped");
    assert!(!state.get(StoreIndex::new(0), b"last", &mut Vec::new()).expect("readable"));
    disk.crash(1);
    drop(state);
    let state = open(&disk, &layout(&["a", "b"]));
    assert_eq!(state.positions().changelogs, [None, Some(ChangelogOffset::new(4))]);
    assert_eq!(state.approximate_len(StoreIndex::new(0)).expect("readable"), 0);
    drop(state);
    open(&disk, &layout(&["a", "b"])).wipe(StoreIndex::new(1)).expect("wiped");
    let discarded = open(&disk, &layout(&["a", "b"]));
    disk.discard(discarded).expect("discarded");
    assert_eq!(disk.tasks(), []);
}

#[test]
fn what_is_torn_serves_while_it_is_open_and_opens_empty() {
    let disk = FakeDirectory::new();
    let mut state = open(&disk, &layout(&["a", "b"]));
    apply(&mut state, 1).expect("the disk takes it");
    disk.tear(&task());
    apply(&mut state, 2).expect("nothing reads the file");
    assert_eq!(state.positions().batch, BatchId::new(2));
    drop(state);
    assert_eq!(*open(&disk, &layout(&["a", "b"])).positions(), Positions::empty(2));
}

/// The broker that coordinates the transactions of `one`, and that which leads partition 0 of the outputs: by their names.
const OF_ONE: usize = 1;
const OF_OUT: usize = 2;

#[test]
fn a_coordinator_that_is_lost_has_decided_or_not_and_says_neither() {
    for decides in [true, false] {
        let cluster = cluster();
        let mut one = producer(&cluster, "one");
        begin_and_send(&mut one, "unanswered");
        cluster.lose_broker(OF_ONE, decides);
        assert_eq!(one.commit(NO_WAIT).expect_err("nobody answers").kind, TxnErrorKind::TimedOut);
        cluster.release_markers();
        assert_eq!(values(&cluster), Vec::<String>::new(), "its markers wait");
        let mut next = cluster.worker("one").producer(&id("one"), &[Arc::from(OUT)]).expect("the worker lives");
        assert_eq!(next.init(NO_WAIT).expect("it waits"), Progress::Pending);
        cluster.elect();
        cluster.release_markers();
        assert_eq!(next.init(NO_WAIT).expect("it is answered"), Progress::Done);
        assert_eq!(values(&cluster), if decides { vec!["unanswered"] } else { Vec::new() });
    }
}

#[test]
fn a_partition_without_a_leader_takes_and_gives_nothing() {
    let cluster = cluster();
    let mut one = producer(&cluster, "one");
    begin_and_send(&mut one, "first");
    one.commit(NO_WAIT).expect("commits");
    let mut committed = reader(&cluster, Isolation::ReadCommitted, 0);
    cluster.lose_broker(OF_OUT, true);
    assert_eq!(read(&mut committed), Vec::<String>::new());
    one.begin().expect("it is ready");
    send(&mut one, "second").expect("it waits in the client");
    assert_eq!(one.drain(NO_WAIT).expect_err("nobody acknowledges").kind, TxnErrorKind::TimedOut);
    cluster.elect();
    one.drain(NO_WAIT).expect("it is acknowledged");
    cluster.lose_broker(OF_OUT, true);
    one.commit(NO_WAIT).expect("the coordinator is there");
    cluster.release_markers();
    assert_eq!(values(&cluster), ["first"], "the marker waits for a leader");
    cluster.elect();
    cluster.release_markers();
    assert_eq!(read(&mut committed), ["first", "second", "end@4"]);
}
