//! The group member.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use processor_core::ids::Offset;
use processor_core::record::InputRecord;
use processor_runtime::kafka::cluster::GroupProtocol;
use processor_runtime::kafka::{
    Answer, Committed, GroupConsumer, GroupEvent, GroupMetadata, KafkaErrorKind, LogBounds, PolledRecord, Question,
    TransactionalProducer,
};

use super::support::{Corner, SOON, STEP, ask, assignment, fetch_from, join, offset_of, offsets, poll_until, send};

#[test]
fn nothing_is_read_before_it_is_asked_for_and_the_member_stays() -> Result<()> {
    let corner = Corner::new("consumer-idle", 3)?;
    corner.fill(0, 0, 10)?;
    let mut consumer = corner.consumer("c")?;
    let (partitions, membership) = join(&mut consumer)?;
    assert_eq!(partitions, (0..3).map(|number| corner.partition(number)).collect::<Vec<_>>());
    assert!(membership.is_checked());
    // Longer than a session: heartbeats keep the member in the group although nothing is assigned inside librdkafka.
    let until = Instant::now() + Duration::from_secs(8);
    let (mut records, mut events) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        consumer.poll(STEP, 100, usize::MAX, &mut records, &mut events)?;
    }
    assert!(records.is_empty() && events.is_empty(), "{events:?}");
    fetch_from(&mut consumer, &corner, 4)?;
    let (records, _) = poll_until(&mut consumer, "the records", |records, _| records.len() == 6)?;
    assert_eq!(offsets(&records), [4, 5, 6, 7, 8, 9]);
    Ok(())
}

#[test]
fn the_end_of_a_partition_is_known_from_the_fetch_and_nobody_is_asked() -> Result<()> {
    let corner = Corner::new("consumer-end", 2)?;
    corner.fill(0, 0, 10)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    assert_eq!(consumer.known_end(&corner.partition(0)), None, "nothing was fetched");
    fetch_from(&mut consumer, &corner, 4)?;
    poll_until(&mut consumer, "the records", |records, _| records.len() == 6)?;
    assert_eq!(consumer.known_end(&corner.partition(0)), Some(Offset::new(11)), "behind the transaction's marker");
    assert_eq!(consumer.known_end(&corner.partition(1)), None, "it is not fetched");
    corner.fill(0, 10, 15)?;
    poll_until(&mut consumer, "the new records", |records, _| records.len() == 5)?;
    assert_eq!(consumer.known_end(&corner.partition(0)), Some(Offset::new(17)));
    Ok(())
}

/// Markers and what was aborted are no records, and are behind the member all the same; what an open transaction has
/// written is still before it.
#[test]
fn a_member_knows_whether_it_stands_at_the_end() -> Result<()> {
    let corner = Corner::new("consumer-at-end", 2)?;
    corner.fill(0, 0, 10)?;
    let mut aborting = corner.producer("a")?;
    aborting.begin()?;
    send(&mut aborting, 0, b"aborted")?;
    aborting.drain(SOON)?;
    aborting.abort(SOON)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let at_end = |consumer: &processor_runtime::kafka::consumer::Consumer, next| {
        consumer.is_at_end(&corner.partition(0), Offset::new(next))
    };
    assert!(!at_end(&consumer, 0), "nothing is known before the first fetch");
    fetch_from(&mut consumer, &corner, 4)?;
    poll_until(&mut consumer, "the records", |records, _| records.len() == 6)?;
    let deadline = Instant::now() + SOON;
    while !at_end(&consumer, 10) {
        ensure!(Instant::now() < deadline, "two markers and an aborted record are not passed");
        consumer.poll(STEP, 50, usize::MAX, &mut Vec::new(), &mut Vec::new())?;
    }
    let mut open = corner.producer("o")?;
    open.begin()?;
    send(&mut open, 0, b"open")?;
    open.drain(SOON)?;
    let deadline = Instant::now() + SOON;
    while at_end(&consumer, 10) {
        ensure!(Instant::now() < deadline, "the open transaction does not show");
        consumer.poll(STEP, 50, usize::MAX, &mut Vec::new(), &mut Vec::new())?;
    }
    open.commit(SOON)?;
    poll_until(&mut consumer, "the record", |records, _| records.len() == 1)?;
    let deadline = Instant::now() + SOON;
    while !at_end(&consumer, 14) {
        ensure!(Instant::now() < deadline, "its marker is not passed");
        consumer.poll(STEP, 50, usize::MAX, &mut Vec::new(), &mut Vec::new())?;
    }
    Ok(())
}

#[test]
fn a_fetch_replaces_what_was_read_even_while_the_one_before_is_stopping() -> Result<()> {
    const RECORDS: i64 = 2_000;
    let corner = Corner::new("consumer-refetch", 2)?;
    for number in [0, 1] {
        corner.fill(number, 0, RECORDS as usize)?;
    }
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let mut seed = 1_u64;
    for round in 0..300 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = [(seed >> 33) as i64 % RECORDS, (seed >> 13) as i64 % RECORDS];
        let positions = [(corner.partition(0), Offset::new(from[0])), (corner.partition(1), Offset::new(from[1]))];
        consumer.fetch(&positions)?;
        if round % 3 == 0 {
            continue; // at once again, while fetchers stop
        }
        let mut next = from;
        let both_moved = |next: &[i64; 2]| next.iter().zip(from).all(|(next, from)| *next > from);
        let deadline = Instant::now() + SOON;
        while !both_moved(&next) {
            ensure!(Instant::now() < deadline, "round {round}: stuck at {next:?} from {from:?}");
            let (mut records, mut events) = (Vec::new(), Vec::new());
            consumer.poll(STEP, 50, usize::MAX, &mut records, &mut events)?;
            assert!(events.is_empty(), "{events:?}");
            for record in records {
                let slot = record.partition().get() as usize;
                assert_eq!(record.offset().get(), next[slot], "round {round}, partition {slot} from {}", from[slot]);
                next[slot] += 1;
            }
        }
    }
    consumer.fetch(&[])?;
    let (mut records, mut events) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        consumer.poll(STEP, 50, usize::MAX, &mut records, &mut events)?;
    }
    assert!(records.is_empty(), "nothing is named, so nothing is read");
    Ok(())
}

#[test]
fn a_second_member_takes_its_share_and_gives_it_back_when_it_leaves() -> Result<()> {
    let corner = Corner::new("consumer-share", 4)?;
    for number in 0..4 {
        corner.fill(number, 0, 5)?;
    }
    let mut first = corner.consumer("a")?;
    let (all, before) = join(&mut first)?;
    assert_eq!(all.len(), 4);
    let everything = all.iter().map(|partition| (partition.clone(), Offset::new(0))).collect::<Vec<_>>();
    first.fetch(&everything)?;
    poll_until(&mut first, "the records", |records, _| records.len() == 20)?;

    let mut second = corner.consumer("b")?;
    let (mut shares, mut first_events) = ([None, None], Vec::new());
    let deadline = Instant::now() + SOON;
    while shares.iter().any(Option::is_none) {
        ensure!(Instant::now() < deadline, "the group did not share");
        for (consumer, share) in [&mut first, &mut second].into_iter().zip(&mut shares) {
            let (mut records, mut events) = (Vec::new(), Vec::new());
            consumer.poll(STEP, 10, usize::MAX, &mut records, &mut events)?;
            assert!(records.is_empty(), "nothing new was written, nothing new was asked for");
            *share = events.iter().find_map(assignment).or(share.take());
            first_events.extend(events);
        }
    }
    assert_eq!(first_events[0], GroupEvent::Revoked { lost: false });
    let [Some((mine, membership)), Some((theirs, _))] = shares else { unreachable!("the loop ended with both") };
    assert_eq!((mine.len(), theirs.len()), (2, 2));
    assert!(membership.generation > before.generation);
    // What is owned again is read again, from where it is asked for.
    first.fetch(&mine.iter().map(|partition| (partition.clone(), Offset::new(3))).collect::<Vec<_>>())?;
    let (records, _) = poll_until(&mut first, "the records again", |records, _| records.len() == 4)?;
    assert!(records.iter().all(|record| record.offset().get() >= 3));

    let started = Instant::now();
    second.leave(SOON)?;
    let (_, events) =
        poll_until(&mut first, "everything back", |_, events| events.iter().any(|event| assignment(event).is_some()))?;
    assert_eq!(events[0], GroupEvent::Revoked { lost: false });
    assert_eq!(assignment(&events[1]).map(|(partitions, _)| partitions.len()), Some(4));
    ensure!(started.elapsed() < Duration::from_secs(5), "it took {:?}, as long as a session", started.elapsed());
    Ok(())
}

/// The second member joins while the first one does not poll. Then the first asks for other offsets before it has heard
/// of the rebalance: librdkafka waits for its answer to a revoke that is still in the queue.
#[test]
fn a_fetch_before_the_revoke_is_served_gives_no_records_behind_it() -> Result<()> {
    let corner = Corner::new("consumer-late-revoke", 2)?;
    for number in 0..2 {
        corner.fill(number, 0, 1_000)?;
    }
    let mut first = corner.consumer("a")?;
    let (all, _) = join(&mut first)?;
    let at = |offset: i64| all.iter().map(|partition| (partition.clone(), Offset::new(offset))).collect::<Vec<_>>();
    first.fetch(&at(0))?;
    poll_until(&mut first, "some records", |records, _| !records.is_empty())?;

    let mut second = corner.consumer("b")?;
    // Two heartbeats of the first member: by then its revoke waits in the queue.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut Vec::new())?;
        first.fetch(&at(500))?;
    }
    let (mut records, mut events) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + SOON;
    while events.is_empty() {
        ensure!(Instant::now() < deadline, "the revoke was not served");
        first.poll(STEP, 10_000, usize::MAX, &mut records, &mut events)?;
    }
    assert_eq!(events[0], GroupEvent::Revoked { lost: false });
    assert!(records.is_empty(), "the records of an ownership that ended are not returned: {:?}", offsets(&records));
    let shared = |events: &[GroupEvent]| events.iter().any(|event| assignment(event).is_some());
    while !shared(&events) {
        ensure!(Instant::now() < deadline, "the group did not come together again");
        first.poll(STEP, 10_000, usize::MAX, &mut records, &mut events)?;
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut Vec::new())?;
    }
    assert!(records.is_empty());
    Ok(())
}

/// EO-5: what the group decides inside a transaction waits for its end. Until then nothing is given away, the membership
/// that the offsets are committed under is the old one, and no more records are taken.
#[test]
fn a_rebalance_inside_a_transaction_is_answered_by_the_next_poll() -> Result<()> {
    rebalance_inside_a_transaction("consumer-inside", GroupProtocol::Classic)?;
    rebalance_inside_a_transaction("consumer-inside-848", GroupProtocol::Consumer)
}

fn rebalance_inside_a_transaction(name: &str, protocol: GroupProtocol) -> Result<()> {
    const RECORDS: usize = 20_000;
    let corner = Corner::with(name, 2, |settings| settings.group_protocol = protocol)?;
    corner.fill(0, 0, RECORDS)?;
    corner.fill(1, 0, RECORDS)?;
    let mut first = corner.consumer("a")?;
    let (all, membership) = join(&mut first)?;
    let from_nothing: Vec<_> = all.iter().map(|partition| (partition.clone(), Offset::new(0))).collect();
    first.fetch(&from_nothing)?;
    let (mut records, _) = poll_until(&mut first, "some records", |records, _| !records.is_empty())?;

    let mut second = corner.consumer("b")?;
    let mut of_second = Vec::new();
    let deadline = Instant::now() + SOON;
    while first.poll_more(STEP, 10, usize::MAX, &mut records) {
        ensure!(Instant::now() < deadline, "{name}: the rebalance is not heard of");
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut of_second)?;
    }
    let taken = records.len();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(!first.poll_more(STEP, 10, usize::MAX, &mut records), "{name}");
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut of_second)?;
    }
    assert_eq!(records.len(), taken, "{name}: nothing is taken behind it");
    let given =
        |events: &[GroupEvent]| events.iter().filter_map(assignment).any(|(partitions, _)| !partitions.is_empty());
    assert!(!given(&of_second), "{name}: nothing moves before the answer: {of_second:?}");
    assert_eq!(first.group_metadata()?.membership().member_id, membership.member_id, "{name}");
    for number in 0..2 {
        let of_partition = records.iter().filter(|record| record.partition().get() == number);
        let offsets: Vec<i64> = of_partition.map(|record| record.offset().get()).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>(), "{name}: in order, without a gap");
    }

    let mut events = Vec::new();
    while events.is_empty() {
        ensure!(Instant::now() < deadline + SOON, "{name}: the revoke is not told");
        first.poll(STEP, 10, usize::MAX, &mut records, &mut events)?;
    }
    assert_eq!(events[0], GroupEvent::Revoked { lost: false }, "{name}");
    assert_eq!(records.len(), taken, "{name}: no record comes with it");
    while !given(&events) || !given(&of_second) {
        ensure!(Instant::now() < deadline + SOON, "{name}: the group does not come together");
        first.poll(STEP, 10, usize::MAX, &mut Vec::new(), &mut events)?;
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut of_second)?;
    }
    Ok(())
}

#[test]
fn an_offset_that_the_log_does_not_have_is_told_and_skips_nothing() -> Result<()> {
    let corner = Corner::new("consumer-range", 2)?;
    corner.fill(0, 0, 3)?;
    corner.fill(1, 0, 3)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    consumer.fetch(&[(corner.partition(0), Offset::new(77)), (corner.partition(1), Offset::new(0))])?;
    let told = |events: &[GroupEvent]| {
        events
            .iter()
            .any(|event| matches!(event, GroupEvent::OutOfRange { partition, .. } if *partition == corner.partition(0)))
    };
    let (records, events) = poll_until(&mut consumer, "both", |records, events| records.len() == 3 && told(events))?;
    assert!(records.iter().all(|record| record.partition().get() == 1));
    assert!(format!("{events:?}").contains("consumer-range-in-0@77"), "{events:?}");
    fetch_from(&mut consumer, &corner, 1)?;
    let (records, events) = poll_until(&mut consumer, "the rest", |records, _| records.len() == 2)?;
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(offsets(&records), [1, 2]);
    Ok(())
}

#[test]
fn an_offset_that_an_open_transaction_holds_is_unstable_only_where_that_is_asked() -> Result<()> {
    let corner = Corner::new("consumer-unstable", 3)?;
    corner.fill(1, 0, 4)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let partitions: Vec<_> = (0..3).map(|number| corner.partition(number)).collect();
    let committed = |consumer: &mut _, stable| -> Result<Vec<Committed>> {
        match ask(consumer, &Question::Committed { partitions: partitions.clone(), stable })? {
            Answer::Committed(answers) => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
            other => anyhow::bail!("an answer to another question: {other:?}"),
        }
    };
    assert_eq!(committed(&mut consumer, true)?, [Committed::Nothing, Committed::Nothing, Committed::Nothing]);

    let mut producer = corner.producer("p")?;
    let at = |offset, metadata: &str| Committed::At { offset: Offset::new(offset), metadata: metadata.to_owned() };
    producer.begin()?;
    producer.send_offsets(&[offset_of(&partitions[0], 3, "first")], &consumer.group_metadata()?, SOON)?;
    producer.commit(SOON)?;
    producer.begin()?;
    producer.send_offsets(&[offset_of(&partitions[0], 7, "second")], &consumer.group_metadata()?, SOON)?;
    assert_eq!(committed(&mut consumer, true)?[0], Committed::Unstable);
    assert_eq!(committed(&mut consumer, true)?[1], Committed::Nothing);
    assert_eq!(committed(&mut consumer, false)?[0], at(3, "first"));
    producer.abort(SOON)?;
    let deadline = Instant::now() + SOON;
    let mut answer = committed(&mut consumer, true)?;
    while answer[0] == Committed::Unstable && Instant::now() < deadline {
        answer = committed(&mut consumer, true)?;
    }
    assert_eq!(answer, [at(3, "first"), Committed::Nothing, Committed::Nothing]);

    let bounds = ask(&mut consumer, &Question::Bounds { partitions: partitions[..2].to_vec() })?;
    let ends = |start, end| LogBounds { start, end };
    assert_eq!(bounds, Answer::Bounds(vec![(partitions[0].clone(), ends(0, 0)), (partitions[1].clone(), ends(0, 5))]));
    assert_eq!(ask(&mut consumer, &Question::Bounds { partitions: Vec::new() })?, Answer::Bounds(Vec::new()));
    assert_eq!(ask(&mut consumer, &Question::Members)?, Answer::Members(vec!["consumer-unstable-c".to_owned()]));
    Ok(())
}

/// The end of a log counts records of open transactions, whatever the group member's own isolation.
#[test]
fn the_bounds_of_a_log_are_those_of_a_reader_of_everything() -> Result<()> {
    let corner = Corner::new("consumer-bounds", 1)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    for _ in 0..5 {
        send(&mut producer, 0, b"open")?;
    }
    producer.drain(SOON)?;
    let answer = ask(&mut consumer, &Question::Bounds { partitions: vec![corner.partition(0)] })?;
    assert_eq!(answer, Answer::Bounds(vec![(corner.partition(0), LogBounds { start: 0, end: 5 })]));
    producer.abort(SOON)?;
    Ok(())
}

#[test]
fn a_question_about_a_topic_that_is_not_there_is_answered_with_an_error() -> Result<()> {
    let corner = Corner::new("consumer-question", 1)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    let nowhere = processor_core::ids::TopicPartition::new("no-such-topic", processor_core::ids::Partition::new(0));
    ask(&mut consumer, &Question::Bounds { partitions: vec![nowhere] }).expect_err("there is no such log");
    Ok(())
}

#[test]
fn a_static_member_leaves_at_once_when_it_says_so() -> Result<()> {
    let corner = Corner::with("consumer-static", 2, |settings| {
        settings.session_timeout = Duration::from_secs(20);
    })?;
    let mut first = corner.static_consumer("i-1")?;
    join(&mut first)?;
    let mut second = corner.static_consumer("i-2")?;
    let mut share = None;
    let deadline = Instant::now() + SOON;
    while share.is_none() {
        ensure!(Instant::now() < deadline, "the group did not share");
        let mut events = Vec::new();
        first.poll(STEP, 1, 1, &mut Vec::new(), &mut Vec::new())?;
        second.poll(STEP, 1, 1, &mut Vec::new(), &mut events)?;
        share = events.iter().find_map(assignment);
    }
    let started = Instant::now();
    first.leave(SOON)?;
    let all = |events: &[GroupEvent]| events.iter().filter_map(assignment).any(|(partitions, _)| partitions.len() == 2);
    poll_until(&mut second, "everything", |_, events| all(events))?;
    ensure!(started.elapsed() < Duration::from_secs(6), "it took {:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_second_static_member_of_the_same_name_fences_the_first() -> Result<()> {
    let corner = Corner::new("consumer-fenced", 1)?;
    let mut first = corner.static_consumer("i-1")?;
    join(&mut first)?;
    let mut second = corner.static_consumer("i-1")?;
    join(&mut second)?;
    let deadline = Instant::now() + SOON;
    let error = loop {
        ensure!(Instant::now() < deadline, "the first member was not told");
        match first.poll(STEP, 1, 1, &mut Vec::new(), &mut Vec::new()) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, KafkaErrorKind::FencedInstance, "{error}");
    Ok(())
}

#[test]
fn dropping_a_member_is_quick_and_records_may_live_on() -> Result<()> {
    let corner = Corner::new("consumer-drop", 1)?;
    corner.fill(0, 0, 100)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    fetch_from(&mut consumer, &corner, 0)?;
    let (records, _) = poll_until(&mut consumer, "the records", |records, _| records.len() == 100)?;
    let started = Instant::now();
    drop(consumer);
    assert_eq!(records[99].value(), Some(b"99".as_slice()), "a record keeps its bytes");
    drop(records);
    ensure!(started.elapsed() < Duration::from_secs(2), "dropping took {:?}", started.elapsed());
    Ok(())
}

#[test]
fn limits_of_count_and_bytes_hold() -> Result<()> {
    let corner = Corner::new("consumer-limits", 1)?;
    let mut producer = corner.producer("p")?;
    producer.begin()?;
    for _ in 0..300 {
        send(&mut producer, 0, &[7; 10_000])?;
    }
    producer.drain(SOON)?;
    producer.commit(SOON)?;
    let mut consumer = corner.consumer("c")?;
    join(&mut consumer)?;
    fetch_from(&mut consumer, &corner, 0)?;
    let (mut total, mut largest) = (0, 0);
    let deadline = Instant::now() + SOON;
    while total < 300 {
        ensure!(Instant::now() < deadline, "only {total} records came");
        let mut records = Vec::new();
        consumer.poll(STEP, 200, 100_000, &mut records, &mut Vec::new())?;
        assert!(records.len() <= 11, "{} records of 10 kB are over the limit of 100 kB", records.len());
        total += records.len();
        largest = largest.max(records.len());
    }
    assert!(largest >= 8, "the limit is used: {largest}");
    Ok(())
}

/// A member that does not poll is given up by its own client. That the partitions were lost must survive a `fetch` that
/// comes before the revoke is served, although librdkafka forgets it there.
#[test]
fn a_member_that_polls_too_late_has_lost_its_partitions_and_comes_back() -> Result<()> {
    let corner = Corner::with("consumer-late", 1, |settings| {
        settings.transaction_timeout = Duration::from_secs(2);
        settings.max_poll_interval = Duration::from_secs(6);
    })?;
    corner.fill(0, 0, 10)?;
    let mut consumer = corner.consumer("c")?;
    let (_, before) = join(&mut consumer)?;
    fetch_from(&mut consumer, &corner, 0)?;
    let deadline = Instant::now() + SOON;
    while consumer.group_metadata()?.membership() == before {
        ensure!(Instant::now() < deadline, "the client did not give its membership up");
        std::thread::yield_now();
    }
    fetch_from(&mut consumer, &corner, 5)?;
    let back = |events: &[GroupEvent]| events.iter().find_map(assignment);
    let (records, events) = poll_until(&mut consumer, "the way back", |_, events| back(events).is_some())?;
    assert_eq!(events[0], GroupEvent::Revoked { lost: true });
    assert!(records.is_empty(), "the records of an ownership that ended are not returned");
    assert!(back(&events).is_some_and(|(_, membership)| membership.is_checked() && membership != before));
    Ok(())
}
