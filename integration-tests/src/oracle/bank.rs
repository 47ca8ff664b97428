//! The bank's books, drawn up again from its transfers.
//!
//! A transfer's key is the paying account, its value JSON with `to` and `amount`; no two have the same timestamp. It is
//! refused, as it came, or its amount is taken from one balance and added to the other, and each of these steps shows the
//! balance behind it (i64, big-endian) under the account and the transfer's timestamp. The order in which credits meet an
//! account is the engine's choice, so which transfers are refused cannot be computed; that each refusal was right can:
//! between two debits a balance only grows, so it is lowest right behind the first of them.
//! What is not JSON is a dead letter, once, as it came.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{State, value_of_i64};
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog};

/// The account that may be below zero.
const BANK: &str = "bank";

/// What the program has read and written.
#[derive(Clone, Copy, Debug)]
pub struct BankBooks<'a> {
    /// Its input.
    pub transfers: &'a [PartitionLog],
    /// The balance behind each step.
    pub balances: &'a [PartitionLog],
    /// The transfers that were not covered.
    pub refused: &'a [PartitionLog],
    /// The dead letters.
    pub unreadable: &'a [PartitionLog],
}

/// A transfer and what was found of it.
struct Entry<'a> {
    record: &'a LogRecord,
    from: String,
    to: String,
    amount: i64,
    debited: Option<i64>,
    credited: bool,
    refused: bool,
}

/// By timestamp, which is the order of each paying account's transfers.
type Entries<'a> = BTreeMap<i64, Entry<'a>>;

/// Checks the books, and says what the store must hold: the balance of each account that anything was done to.
///
/// # Panics
/// Two transfers have one timestamp: the input is the test's own.
pub fn check_bank(books: &BankBooks<'_>) -> (Verdict, State) {
    let mut verdict = Verdict::new("records", "steps");
    let (mut entries, unreadable) = sort(books.transfers);
    verdict.inputs = (entries.len() + unreadable.len()) as u64;
    check_refused(&mut verdict, &mut entries, books.refused);
    let balances = check_steps(&mut verdict, &mut entries, books.balances);
    check_whole(&mut verdict, &entries);
    check_refusals_were_right(&mut verdict, &entries);
    check_unreadable(&mut verdict, unreadable, books.unreadable);
    let sum: i64 = balances.values().sum();
    if sum != 0 {
        verdict.violate(Kind::Wrong, "all accounts", || ("a sum of 0".into(), sum.to_string()));
    }
    (verdict, balances.into_iter().map(|(account, balance)| (account.into_bytes(), value_of_i64(balance))).collect())
}

/// Whether each transfer of the books has had all its steps: two balances, or a refusal.
pub fn is_settled(books: &BankBooks<'_>) -> bool {
    let (entries, unreadable) = sort(books.transfers);
    let [balances, refused, letters] = [books.balances, books.refused, books.unreadable]
        .map(|logs| logs.iter().map(|log| log.records.len()).sum::<usize>());
    balances + 2 * refused >= 2 * entries.len() && letters >= unreadable.len()
}

fn sort(transfers: &[PartitionLog]) -> (Entries<'_>, BTreeMap<(i32, i64), &LogRecord>) {
    let (mut entries, mut unreadable) = (Entries::new(), BTreeMap::new());
    for log in transfers {
        for record in &log.records {
            match entry(record) {
                Some(entry) => {
                    let twice = entries.insert(record.timestamp, entry);
                    assert!(twice.is_none(), "two transfers at time {}", record.timestamp);
                }
                None => drop(unreadable.insert((log.partition, record.offset), record)),
            }
        }
    }
    (entries, unreadable)
}

fn entry(record: &LogRecord) -> Option<Entry<'_>> {
    let value: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let from = String::from_utf8(record.key.clone()?).ok()?;
    let (to, amount) = (value["to"].as_str()?.to_owned(), value["amount"].as_i64()?);
    Some(Entry { record, from, to, amount, debited: None, credited: false, refused: false })
}

fn check_refused(verdict: &mut Verdict, entries: &mut Entries<'_>, refused: &[PartitionLog]) {
    for (at, record) in placed(refused) {
        let as_it_came =
            |entry: &&mut Entry<'_>| (&entry.record.key, &entry.record.value) == (&record.key, &record.value);
        match entries.get_mut(&record.timestamp).filter(as_it_came) {
            Some(entry) if entry.refused => {
                verdict.violate(Kind::Doubled, at, || ("one refusal".into(), describe(record)));
            }
            Some(entry) => entry.refused = true,
            None => verdict.violate(Kind::Wrong, at, || ("a transfer as it came".into(), describe(record))),
        }
    }
}

/// Follows each account from balance to balance; what they are at the end.
fn check_steps(verdict: &mut Verdict, entries: &mut Entries<'_>, steps: &[PartitionLog]) -> BTreeMap<String, i64> {
    let mut balances: BTreeMap<String, i64> = BTreeMap::new();
    let mut last_debit: BTreeMap<String, i64> = BTreeMap::new();
    for (at, record) in placed(steps) {
        verdict.outputs += 1;
        let account = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let entry = entries.get_mut(&record.timestamp).filter(|entry| account == entry.from || account == entry.to);
        let Some(entry) = entry else {
            verdict.violate(Kind::Wrong, at, || ("the step of a transfer".into(), describe(record)));
            continue;
        };
        let balance = balances.entry(account.clone()).or_default();
        if account == entry.from && entry.debited.is_none() {
            *balance -= entry.amount;
            entry.debited = Some(*balance);
            if account != BANK && *balance < 0 {
                verdict.violate(Kind::Wrong, &at, || (format!("{account} not overdrawn"), describe(record)));
            }
            if last_debit.insert(account, record.timestamp).is_some_and(|last| last > record.timestamp) {
                verdict.violate(Kind::Reordered, &at, || ("debits in the input's order".into(), describe(record)));
            }
        } else if account == entry.to && !entry.credited {
            *balance += entry.amount;
            entry.credited = true;
        } else {
            verdict.violate(Kind::Doubled, &at, || ("each step once".into(), describe(record)));
        }
        let found = record.value.as_deref().and_then(|value| value.try_into().ok()).map(i64::from_be_bytes);
        if found != Some(*balance) {
            verdict.violate(Kind::Wrong, &at, || (format!("balance {balance}"), describe(record)));
        }
    }
    balances
}

/// A transfer is refused, or debited and credited.
fn check_whole(verdict: &mut Verdict, entries: &Entries<'_>) {
    for (time, entry) in entries {
        let place = format_args!("transfer of time {time}");
        match (entry.refused, entry.debited.is_some(), entry.credited) {
            (true, false, false) | (false, true, true) => {}
            (true, _, _) => {
                verdict.violate(Kind::Doubled, place, || ("a refusal and nothing else".into(), "steps".into()));
            }
            (false, debited, credited) => {
                let found = format!("debited: {debited}, credited: {credited}");
                verdict.violate(Kind::Lost, place, || ("a debit and a credit, or a refusal".into(), found));
            }
        }
    }
}

fn check_refusals_were_right(verdict: &mut Verdict, entries: &Entries<'_>) {
    let mut lowest: BTreeMap<&str, i64> = BTreeMap::new();
    for (time, entry) in entries {
        if let Some(balance) = entry.debited {
            lowest.insert(&entry.from, balance);
        }
        let lowest = lowest.get(&*entry.from).copied().unwrap_or(0);
        if entry.refused && (entry.from == BANK || lowest >= entry.amount) {
            let place = format_args!("transfer of time {time}");
            let found = format!("it was refused, with at least {lowest} in {}", entry.from);
            verdict.violate(Kind::Wrong, place, || (format!("a debit of {}", entry.amount), found));
        }
    }
}

fn check_unreadable(verdict: &mut Verdict, mut missing: BTreeMap<(i32, i64), &LogRecord>, letters: &[PartitionLog]) {
    let mut seen = BTreeSet::new();
    for (at, letter) in placed(letters) {
        verdict.outputs += 1;
        let header = |name: &str| {
            let (_, value) = letter.headers.iter().find(|(known, _)| known == name)?;
            std::str::from_utf8(value.as_deref()?).ok()?.parse::<i64>().ok()
        };
        let source = header("processor-partition").zip(header("processor-offset"));
        let source = source.and_then(|(partition, offset)| Some((i32::try_from(partition).ok()?, offset)));
        let same = |record: &&LogRecord| (&record.key, &record.value) == (&letter.key, &letter.value);
        match source.and_then(|source| missing.remove(&source)).filter(same) {
            Some(_) => drop(seen.insert(source)),
            None if seen.contains(&source) => {
                verdict.violate(Kind::Doubled, at, || ("one dead letter".into(), describe(letter)));
            }
            None => verdict.violate(Kind::Wrong, at, || ("a record that is no transfer".into(), describe(letter))),
        }
    }
    for ((partition, offset), record) in missing {
        let place = format_args!("input {partition}@{offset}");
        verdict.violate(Kind::Lost, place, || (format!("a dead letter of {}", describe(record)), "nothing".into()));
    }
}

fn placed(logs: &[PartitionLog]) -> impl Iterator<Item = (String, &LogRecord)> {
    logs.iter()
        .flat_map(|log| log.records.iter().map(move |record| (format!("{}@{}", log.partition, record.offset), record)))
}

fn describe(record: &LogRecord) -> String {
    let value = record.value.as_deref().unwrap_or_default();
    format!("{} for {} at time {}", value.escape_ascii(), record.key_text(), record.timestamp)
}
