//! Each oracle passes on the right thing and fails on every seeded violation, with the count that names it.

use std::collections::{BTreeMap, VecDeque};

use super::{
    BatchTracker, Kind, LedgerEntry, LogRecord, PartitionLog, Verdict, check_batches, check_input, check_ledger,
    check_ledger_state, check_moving_average, check_offsets, check_offsets_monotone, expected_ledger_state,
    fold_changelog, grouped, input_ends,
};

mod programs;
mod transactions;

const WINDOW: usize = 10;

/// `SplitMix64`: a seed gives a test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

/// A few partitions whose keys never meet; `value` makes a record's value.
fn input(random: &mut Random, mut value: impl FnMut(&mut Random) -> Vec<u8>) -> Vec<PartitionLog> {
    let partitions = 1 + random.below(3) as i32;
    let mut log = |partition| {
        let mut offset = 0;
        let records = (0..20 + random.below(60)).map(|at| {
            offset += 1 + random.below(2) as i64;
            let key = format!("key-{partition}-{}", random.below(4));
            record(offset, 1_000 + at as i64, key.as_bytes(), value(random))
        });
        PartitionLog { partition, records: records.collect() }
    };
    (0..partitions).map(&mut log).collect()
}

fn record(offset: i64, timestamp: i64, key: &[u8], value: Vec<u8>) -> LogRecord {
    LogRecord { offset, timestamp, key: Some(key.to_vec()), value: Some(value), headers: Vec::new() }
}

fn readings(random: &mut Random) -> Vec<PartitionLog> {
    input(random, |random| (random.below(2_000) as f64 / 7.0 - 100.0).to_be_bytes().to_vec())
}

fn entries(random: &mut Random) -> Vec<PartitionLog> {
    input(random, |random| (random.below(1_000) as i64 - 500).to_be_bytes().to_vec())
}

/// A broker dies before it has answered, and the producer sends seven records again, in a new epoch.
#[test]
fn an_input_may_repeat_what_was_sent_again_and_nothing_else() {
    let mut input = entries(&mut Random(7));
    let acknowledged = input.iter().map(|log| log.records.len() as u64).sum();
    assert!(check_input(&input, acknowledged).is_ok());

    let sent_again = input[0].records[3..10].to_vec();
    input[0].records.splice(10..10, sent_again);
    let verdict = check_input(&input, acknowledged);
    assert!(verdict.is_ok() && verdict.outputs == acknowledged + 7, "{verdict}");

    let mut one_is_lost = input.clone();
    one_is_lost[0].records.remove(0);
    let lost = check_input(&one_is_lost, acknowledged);
    assert_eq!((lost.is_ok(), lost.lost), (false, 1), "{lost}");

    input[0].records[12].timestamp += 1;
    let from_nowhere = check_input(&input, acknowledged);
    assert_eq!((from_nowhere.is_ok(), from_nowhere.wrong), (false, 1), "{from_nowhere}");
}

/// The right averages, with the sum kept in another way than the oracle does.
fn averages(input: &[PartitionLog]) -> Vec<PartitionLog> {
    let average = |log: &PartitionLog| {
        let mut windows: BTreeMap<Vec<u8>, VecDeque<f64>> = BTreeMap::new();
        let records = log.records.iter().enumerate().map(|(at, reading)| {
            let key = reading.key.clone().expect("readings have keys");
            let values = windows.entry(key.clone()).or_default();
            let bytes: [u8; 8] = reading.value.as_deref().expect("readings have values").try_into().expect("8 bytes");
            values.push_back(f64::from_be_bytes(bytes));
            let skip = values.len().saturating_sub(WINDOW);
            let mean = values.iter().skip(skip).fold(0.0, |sum, value| sum + value) / (values.len() - skip) as f64;
            record(at as i64, reading.timestamp, &key, mean.to_be_bytes().to_vec())
        });
        PartitionLog { partition: log.partition, records: records.collect() }
    };
    input.iter().map(average).collect()
}

/// The right balances, in batches of random size.
fn balances(random: &mut Random, input: &[PartitionLog]) -> Vec<PartitionLog> {
    input
        .iter()
        .map(|log| PartitionLog { partition: log.partition, records: partition_balances(random, log) })
        .collect()
}

fn partition_balances(random: &mut Random, log: &PartitionLog) -> Vec<LogRecord> {
    let mut accounts: BTreeMap<Vec<u8>, (i64, u64)> = BTreeMap::new();
    let (mut batch_id, mut batch_index, mut batch_size) = (0, 0, 0);
    let mut outputs = Vec::new();
    for (at, entry) in log.records.iter().enumerate() {
        if batch_index == batch_size {
            batch_id += 1 + random.below(3) as u64;
            (batch_index, batch_size) = (0, (1 + random.below(6)).min(log.records.len() - at) as u32);
        }
        let key = entry.key.clone().expect("entries have accounts");
        let delta: [u8; 8] = entry.value.as_deref().expect("entries have values").try_into().expect("8 bytes");
        let account = accounts.entry(key.clone()).or_default();
        *account = (account.0 + i64::from_be_bytes(delta), account.1 + 1);
        let (source_partition, source_offset, (balance, count)) = (log.partition, entry.offset, *account);
        let value = LedgerEntry { source_partition, source_offset, batch_id, batch_index, batch_size, balance, count };
        outputs.push(record(at as i64, entry.timestamp, &key, value.encode()));
        batch_index += 1;
    }
    outputs
}

/// The name of a violation, the count that must tell it, and how it is made.
type Seeded = (&'static str, Kind, fn(&mut Random, &mut Vec<LogRecord>));

/// Ways to break an output log of at least 20 records.
const SEEDED: [Seeded; 8] = [
    ("loss", Kind::Lost, |random, records| drop(records.remove(random.below(20)))),
    ("loss of the tail", Kind::Lost, |random, records| records.truncate(random.below(20))),
    ("duplicate", Kind::Doubled, |random, records| records.insert(random.below(20), records[3].clone())),
    ("replayed stretch", Kind::Doubled, |_, records| records.splice(9..9, records[4..9].to_vec()).for_each(drop)),
    ("swap", Kind::Reordered, |random, records| {
        let at = random.below(19);
        records.swap(at, at + 1);
    }),
    ("other key", Kind::Wrong, |random, records| records[random.below(20)].key = Some(b"other".to_vec())),
    ("other time", Kind::Wrong, |random, records| records[random.below(20)].timestamp += 1_000_000),
    ("record without a cause", Kind::Wrong, |random, records| {
        records.insert(random.below(20), record(0, 77, b"made up", vec![9; 48]));
    }),
];

fn count(verdict: &Verdict, kind: Kind) -> u64 {
    match kind {
        Kind::Lost => verdict.lost,
        Kind::Doubled => verdict.doubled,
        Kind::Wrong => verdict.wrong,
        Kind::Reordered => verdict.reordered,
        Kind::Torn => verdict.torn,
    }
}

/// Breaks one partition in every way, with many seeds.
fn every_seeded_violation_is_told(
    make: fn(&mut Random) -> [Vec<PartitionLog>; 2],
    check: fn(&[PartitionLog], &[PartitionLog]) -> Verdict,
) {
    for seed in 0..200 {
        for (name, kind, break_it) in SEEDED {
            let random = &mut Random(seed);
            let [input, mut output] = make(random);
            check(&input, &output).assert_ok();
            let at = random.below(output.len());
            break_it(random, &mut output[at].records);
            let verdict = check(&input, &output);
            assert!(count(&verdict, kind) > 0, "seed {seed}, {name}: {verdict}");
            assert!(!verdict.is_ok() && !verdict.violations.is_empty(), "seed {seed}, {name}: {verdict}");
        }
    }
}

#[test]
fn broken_averages_are_told() {
    let make = |random: &mut Random| {
        let input = readings(random);
        let output = averages(&input);
        [input, output]
    };
    every_seeded_violation_is_told(make, |input, output| check_moving_average(input, output, WINDOW));
}

#[test]
fn broken_balances_are_told() {
    let make = |random: &mut Random| {
        let input = entries(random);
        let output = balances(random, &input);
        [input, output]
    };
    every_seeded_violation_is_told(make, check_ledger);
}

#[test]
fn one_violation_is_one_violation() {
    let input = readings(&mut Random(1));
    let right = averages(&input);
    let broken = |break_it: fn(&mut Vec<LogRecord>)| {
        let mut output = right.clone();
        break_it(&mut output[0].records);
        let verdict = check_moving_average(&input, &output, WINDOW);
        [verdict.lost, verdict.doubled, verdict.wrong, verdict.reordered]
    };
    assert_eq!(broken(|records| drop(records.remove(5))), [1, 0, 0, 0]);
    assert_eq!(broken(|records| records.insert(5, records[5].clone())), [0, 1, 0, 0]);
    assert_eq!(broken(|records| records.swap(5, 6)), [0, 0, 0, 1]);
    assert_eq!(broken(|records| records[5].value = Some(vec![0; 7])), [0, 0, 1, 0]);
}

#[test]
fn a_mean_that_differs_in_its_last_bit_is_wrong() {
    let input = readings(&mut Random(2));
    let mut output = averages(&input);
    let value = output[0].records[12].value.as_mut().expect("averages have values");
    value[7] ^= 1;
    let verdict = check_moving_average(&input, &output, WINDOW);
    assert_eq!((verdict.wrong, verdict.lost, verdict.doubled), (1, 0, 0), "{verdict}");
}

#[test]
fn an_average_from_an_old_state_is_wrong() {
    let input = [PartitionLog {
        partition: 0,
        records: (0..5).map(|at| record(at, 100 + at, b"k", (at as f64).to_be_bytes().to_vec())).collect(),
    }];
    let mut output = averages(&input);
    // The fourth reading was processed on the state before the third: (0 + 1 + 3) / 3.
    output[0].records[3].value = Some((4.0_f64 / 3.0).to_be_bytes().to_vec());
    let verdict = check_moving_average(&input, &output, WINDOW);
    assert_eq!(verdict.wrong, 1, "{verdict}");
    assert!(verdict.violations[0].to_string().starts_with("wrong at 0@3: expected 1.5, found 1.333"), "{verdict}");
}

#[test]
fn a_balance_from_an_old_state_is_wrong_for_every_seed() {
    for seed in 0..200 {
        let random = &mut Random(seed);
        let input = entries(random);
        let mut output = balances(random, &input);
        let mut reread = input[0].clone();
        let forgotten = random.below(10);
        reread.records[forgotten].value = Some((1_000_000_i64).to_be_bytes().to_vec());
        output[0].records = partition_balances(&mut Random(seed), &reread);
        assert!(check_ledger(&input, &output).wrong > 0, "seed {seed}");
    }
}

#[test]
fn an_output_on_the_wrong_partition_is_lost_and_wrong() {
    let input = [PartitionLog { partition: 0, records: entries(&mut Random(3))[0].records.clone() }];
    let mut output = balances(&mut Random(3), &input);
    let moved = output[0].records.pop().expect("at least 20");
    output.push(PartitionLog { partition: 1, records: vec![moved] });
    let verdict = check_ledger(&input, &output);
    assert_eq!((verdict.lost, verdict.wrong), (1, 1), "{verdict}");
}

#[test]
fn nothing_out_is_everything_lost() {
    let input = entries(&mut Random(4));
    let all: usize = input.iter().map(|log| log.records.len()).sum();
    assert_eq!(check_ledger(&input, &[]).lost, all as u64);
    assert_eq!(check_moving_average(&readings(&mut Random(4)), &[], WINDOW).doubled, 0);
}

#[test]
fn whole_batches_pass_and_torn_ones_are_told_for_every_seed() {
    type Break = fn(&mut Vec<LogRecord>, usize);
    let breaks: [(&str, Break); 4] = [
        ("first member missing", |records, first| drop(records.remove(first))),
        ("last member missing", |records, first| drop(records.remove(first + size(records, first) - 1))),
        ("batch twice", |records, first| {
            let batch = records[first..first + size(records, first)].to_vec();
            records.splice(first..first, batch).for_each(drop);
        }),
        ("two batches the wrong way round", |records, first| {
            let end = first + size(records, first);
            records[..end].rotate_left(first);
        }),
    ];
    for seed in 0..200 {
        for (name, break_it) in breaks {
            let random = &mut Random(seed);
            let input = entries(random);
            let mut output = balances(random, &input);
            let verdict = check_batches(&output);
            verdict.assert_ok();
            assert_eq!(verdict.outputs as usize, output.iter().map(|log| log.records.len()).sum::<usize>());
            let later = later_batch(&output[0].records);
            break_it(&mut output[0].records, later);
            let verdict = check_batches(&output);
            assert!(verdict.torn > 0, "seed {seed}, {name}: {verdict}");
        }
    }
}

/// Where a batch begins that is not the first and has two members or more: a batch of one cannot be torn.
fn later_batch(records: &[LogRecord]) -> usize {
    let mut first = size(records, 0);
    while size(records, first) < 2 {
        first += 1;
    }
    first
}

/// The size of the batch that begins there.
fn size(records: &[LogRecord], first: usize) -> usize {
    let value = records[first].value.as_deref().expect("balances have values");
    let entry = LedgerEntry::decode(value).expect("a sound entry");
    assert_eq!(entry.batch_index, 0);
    entry.batch_size as usize
}

#[test]
fn interleaved_batches_are_torn() {
    let member = |offset, batch_id, batch_index| {
        let entry = LedgerEntry { batch_id, batch_index, batch_size: 2, ..LedgerEntry::default() };
        record(offset, offset, b"a", entry.encode())
    };
    let records = vec![member(0, 1, 0), member(1, 2, 0), member(2, 1, 1), member(3, 2, 1)];
    assert!(check_batches(&[PartitionLog { partition: 0, records }]).torn > 0);
}

#[test]
fn a_reader_that_sees_half_a_batch_at_the_end_has_seen_it_torn() {
    let member = |batch_index| {
        let entry = LedgerEntry { batch_id: 1, batch_index, batch_size: 2, ..LedgerEntry::default() };
        record(i64::from(batch_index), 1, b"a", entry.encode())
    };
    let mut tracker = BatchTracker::default();
    tracker.end(0);
    tracker.record(0, &member(0));
    assert!(tracker.verdict().is_ok());
    tracker.end(0);
    tracker.record(0, &member(1));
    tracker.end(0);
    assert_eq!((tracker.verdict().torn, tracker.ends()), (1, 2), "the empty end does not count");
    tracker.end(0);
    assert_eq!(tracker.ends(), 2, "nor the same end again");
}

#[test]
fn three_witnesses_of_the_state_are_compared() {
    let input = entries(&mut Random(5));
    let expected = expected_ledger_state(&input);
    check_ledger_state(&expected, &expected).assert_ok();
    let (account, (balance, count)) =
        expected.first_key_value().map(|(key, value)| (key.clone(), *value)).expect("accounts");

    let mut stale = expected.clone();
    stale.insert(account.clone(), (balance, count - 1));
    assert_eq!(check_ledger_state(&expected, &stale).wrong, 1);
    let mut missing = expected.clone();
    missing.remove(&account);
    assert_eq!(check_ledger_state(&expected, &missing).lost, 1);
    assert_eq!(check_ledger_state(&missing, &expected).wrong, 1, "an account too many");
}

#[test]
fn the_changelog_folds_to_its_last_values_without_the_deleted() {
    let change = |offset, key: &[u8], value: Option<Vec<u8>>| LogRecord {
        offset,
        key: Some(key.to_vec()),
        value,
        ..LogRecord::default()
    };
    let records = vec![
        change(0, b"a", Some(vec![1, 2, 1])),
        change(1, b"b", Some(vec![1, 3, 1])),
        change(2, b"a", Some(vec![1, 4, 2])),
        change(3, b"b", None),
    ];
    let log = PartitionLog { partition: 0, records };
    let state = fold_changelog(std::slice::from_ref(&log)).expect("a sound changelog");
    assert_eq!(state, BTreeMap::from([("a".to_owned(), (2, 2))]));

    let elsewhere = PartitionLog { partition: 1, records: vec![change(0, b"b", Some(vec![1, 0, 1]))] };
    assert!(fold_changelog(&[log, elsewhere]).is_err(), "an account belongs to one partition");
    let unsound = PartitionLog { partition: 0, records: vec![change(7, b"a", Some(vec![2, 0, 0]))] };
    let error = fold_changelog(&[unsound]).expect_err("an unknown version");
    assert_eq!(format!("{error:#}"), "changelog 0@7: format version 2, expected 1");
}

#[test]
fn offsets_that_lag_lead_or_go_back_are_told() {
    let input = vec![
        PartitionLog { partition: 0, records: vec![record(4, 0, b"a", Vec::new())] },
        PartitionLog { partition: 1, records: Vec::new() },
    ];
    let ends = input_ends(&input);
    check_offsets(&BTreeMap::from([(0, 5)]), &ends).assert_ok();
    check_offsets(&BTreeMap::from([(0, 5), (1, 0)]), &ends).assert_ok();
    assert_eq!(check_offsets(&BTreeMap::from([(0, 4)]), &ends).lost, 1);
    assert_eq!(check_offsets(&BTreeMap::from([(0, 6)]), &ends).wrong, 1);
    assert_eq!(check_offsets(&BTreeMap::new(), &ends).lost, 1);

    let observations = [5, 7, 6, 7].map(|offset| BTreeMap::from([(0, offset)]));
    assert_eq!(check_offsets_monotone(&observations).reordered, 1);
    check_offsets_monotone(&observations[..2]).assert_ok();
}

#[test]
fn a_verdict_is_a_sentence() {
    let mut verdict = Verdict::new("readings", "averages");
    (verdict.inputs, verdict.outputs) = (200_000, 200_000);
    assert_eq!(verdict.to_string(), "200,000 readings in, 200,000 averages out, 0 lost, 0 doubled, 0 wrong");
    verdict.violate(Kind::Torn, "0@7", || ("a".into(), "b".into()));
    assert!(verdict.to_string().ends_with("0 wrong, 1 torn\n  torn at 0@7: expected a, found b"), "{verdict}");
    assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
