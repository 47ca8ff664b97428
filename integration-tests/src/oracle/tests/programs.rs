//! The oracles of the example programs: each passes on the right thing and fails on each seeded violation.

use super::record;
use crate::oracle::{
    BankBooks, Kind, LogRecord, PartitionLog, State, check_bank, check_dedup, check_state, check_word_count,
    expected_dedup_states, expected_windows, expected_word_counts, fold, is_settled,
};

/// A partition of these records: key, value, timestamp.
fn log<const N: usize>(records: [(&str, &[u8], i64); N]) -> Vec<PartitionLog> {
    let records = records
        .into_iter()
        .zip(0..)
        .map(|((key, value, at), offset)| record(offset, at, key.as_bytes(), value.to_vec()));
    vec![PartitionLog { partition: 0, records: records.collect() }]
}

/// The log without one of its records, with it twice, and with it behind all others.
fn broken(logs: &[PartitionLog], at: usize) -> [Vec<PartitionLog>; 3] {
    [Kind::Lost, Kind::Doubled, Kind::Reordered].map(|kind| {
        let mut logs = logs.to_vec();
        let records = &mut logs[0].records;
        let record = records[at].clone();
        if kind != Kind::Doubled {
            records.remove(at);
        }
        if kind != Kind::Lost {
            records.push(record);
        }
        logs
    })
}

fn number(number: i64) -> [u8; 8] {
    number.to_be_bytes()
}

#[test]
fn a_word_count_is_right_only_if_each_count_is_there_once_and_in_order() {
    let lines = log([("p", b"a b a", 1), ("p", b"a", 2)]);
    let [one, two, three] = [1, 2, 3].map(number);
    let counts = log([("a", &one, 1), ("b", &one, 1), ("a", &two, 1), ("a", &three, 2)]);
    check_word_count(&lines, &counts).assert_ok();
    let [lost, doubled, reordered] = broken(&counts, 2).map(|counts| check_word_count(&lines, &counts));
    assert_eq!((lost.lost, doubled.doubled, reordered.reordered), (1, 1, 1));
    let late = log([("a", &one, 1), ("b", &one, 1), ("a", &two, 2), ("a", &three, 2)]);
    assert_eq!(check_word_count(&lines, &late).wrong, 1, "a count has its line's timestamp");
    let strange = log([("a", &one, 1), ("b", &one, 1), ("a", &two, 1), ("a", &three, 2), ("c", &one, 2)]);
    assert_eq!(check_word_count(&lines, &strange).wrong, 1);
    let state = [(b"a".to_vec(), vec![1, 6]), (b"b".to_vec(), vec![1, 2])];
    assert_eq!(expected_word_counts(&lines), State::from(state));
}

#[test]
fn a_deduplication_is_right_only_if_each_remembered_id_goes_on_once() {
    let input = log([("a", b"1", 1_000), ("b", b"2", 1_500), ("a", b"3", 2_000), ("b", b"4", 900), ("a", b"5", 4_000)]);
    let output = log([("a", b"1", 1_000), ("b", b"2", 1_500), ("a", b"5", 4_000)]);
    check_dedup(&input, &output, 3_000).assert_ok();
    let [lost, doubled, reordered] = broken(&output, 0).map(|output| check_dedup(&input, &output, 3_000));
    assert_eq!((lost.lost, doubled.doubled, reordered.reordered), (1, 1, 1));
    assert_eq!(check_dedup(&input, &output, 3_001).wrong, 1, "the id is still remembered");
    let [seen, by_time] = expected_dedup_states(&input, 2_500);
    assert_eq!((seen.len(), by_time.len()), (1, 1), "the other one is forgotten in second 4");
    assert_eq!(seen[&b"a"[..]], [1, 251, 0x40, 0x1f]);
}

/// Transfers, balances, refusals and dead letters that agree.
fn books() -> [Vec<PartitionLog>; 4] {
    let transfers = log([
        ("bank", br#"{"to":"a","amount":100}"#, 1),
        ("a", br#"{"to":"b","amount":60}"#, 2),
        ("a", br#"{"to":"b","amount":60}"#, 3),
        ("a", b"60 to b", 4),
        ("b", br#"{"to":"b","amount":10}"#, 5),
    ]);
    let [minus, hundred, forty, sixty, fifty] = [-100, 100, 40, 60, 50].map(number);
    let balances = log([
        ("bank", &minus, 1),
        ("a", &hundred, 1),
        ("a", &forty, 2),
        ("b", &sixty, 2),
        ("b", &fifty, 5),
        ("b", &sixty, 5),
    ]);
    let refused = log([("a", br#"{"to":"b","amount":60}"#, 3)]);
    let mut unreadable = log([("a", b"60 to b", 4)]);
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    unreadable[0].records[0].headers = vec![header("processor-partition", "0"), header("processor-offset", "3")];
    [transfers, balances, refused, unreadable]
}

fn check(logs: &[Vec<PartitionLog>; 4]) -> crate::oracle::Verdict {
    let [transfers, balances, refused, unreadable] = logs;
    check_bank(&BankBooks { transfers, balances, refused, unreadable }).0
}

#[test]
fn a_bank_is_right_only_if_each_transfer_has_all_its_steps_once() {
    let right = books();
    check(&right).assert_ok();
    let [transfers, balances, refused, unreadable] = &right;
    let all = BankBooks { transfers, balances, refused, unreadable };
    assert!(is_settled(&all) && !is_settled(&BankBooks { refused: &[], ..all }));
    let state = [("a", vec![1, 80]), ("b", vec![1, 120]), ("bank", vec![1, 199])];
    assert_eq!(check_bank(&all).1, State::from(state.map(|(account, value)| (account.as_bytes().to_vec(), value))));

    for which in 1..4 {
        let [lost, doubled, _] = broken(&right[which], 0).map(|logs| {
            let mut all = right.clone();
            all[which] = logs;
            check(&all)
        });
        assert!(lost.lost >= 1, "{which}: {lost}");
        assert_eq!(doubled.doubled, 1, "{which}: {doubled}");
    }
}

#[test]
fn a_bank_is_wrong_if_money_comes_from_nowhere_or_is_refused_for_no_reason() {
    let changed = |change: fn(&mut [Vec<PartitionLog>; 4])| {
        let mut books = books();
        change(&mut books);
        check(&books)
    };
    let value = |record: &mut LogRecord, value: &[u8]| record.value = Some(value.to_vec());
    let more = changed(|books| books[1][0].records[2].value = Some(number(41).to_vec()));
    assert_eq!(more.wrong, 1, "{more}");
    let mut covered = books();
    for which in [0, 2] {
        let at = if which == 0 { 2 } else { 0 };
        value(&mut covered[which][0].records[at], br#"{"to":"b","amount":40}"#);
    }
    let covered = check(&covered);
    assert_eq!(covered.wrong, 1, "40 of 40 is covered: {covered}");
    let mut overdrawn = books();
    value(&mut overdrawn[0][0].records[1], br#"{"to":"b","amount":160}"#);
    assert!(check(&overdrawn).wrong >= 1);
}

#[test]
fn a_state_is_right_only_byte_by_byte() {
    let readings = log([("s", &1.0_f64.to_be_bytes(), 1), ("s", &2.0_f64.to_be_bytes(), 2)]);
    let expected = expected_windows(&readings, 1);
    let mut changelog = log([("s", &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0x40], 2), ("gone", b"x", 2), ("gone", b"", 2)]);
    changelog[0].records[2].value = None;
    let found = fold(&changelog).expect("each key has one partition");
    check_state(&expected, &found).assert_ok();
    assert_eq!(check_state(&expected, &State::new()).lost, 1);
    assert_eq!(check_state(&State::new(), &found).wrong, 1);
    assert_eq!(check_state(&expected, &expected_windows(&readings, 2)).wrong, 1);
    let elsewhere = PartitionLog { partition: 1, ..changelog[0].clone() };
    assert!(fold(&[changelog.remove(0), elsewhere]).is_err(), "a key stands in one partition");
}
