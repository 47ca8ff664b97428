//! The ledger, computed again: every entry moves an account's balance, and says afterwards which entry of which batch
//! it was.
//!
//! Input: key = account (UTF-8), value = delta (i64, big-endian). Output, one per entry with the same key, timestamp
//! and partition: 48 bytes, see [`LedgerEntry`]. An output names its source, so that losses, doubles and swaps need no
//! guessing.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Arguments;

use super::alignment::{Place, align};
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog, by_partition};

/// Balance and number of entries of each account.
pub type LedgerState = BTreeMap<String, (i64, u64)>;

/// The value of a ledger output: eight big-endian fields, 48 bytes.
///
/// Source partition i32, four zero bytes, source offset i64, batch id u64, index in the batch u32, batch size u32,
/// balance i64, count u64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The input partition of the entry.
    pub source_partition: i32,
    /// The entry's offset there.
    pub source_offset: i64,
    /// The task's batch that processed it.
    pub batch_id: u64,
    /// Its place in that batch, from 0.
    pub batch_index: u32,
    /// How many outputs the batch has.
    pub batch_size: u32,
    /// The account's balance after the entry.
    pub balance: i64,
    /// The account's entries so far, this one included.
    pub count: u64,
}

impl LedgerEntry {
    /// How many bytes an entry has.
    pub const BYTES: usize = 48;

    /// Reads an entry; `None` if it is not 48 bytes or its padding is not zero.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES || u32::from_be_bytes(field(bytes, 4)) != 0 {
            return None;
        }
        Some(Self {
            source_partition: i32::from_be_bytes(field(bytes, 0)),
            source_offset: i64::from_be_bytes(field(bytes, 8)),
            batch_id: u64::from_be_bytes(field(bytes, 16)),
            batch_index: u32::from_be_bytes(field(bytes, 24)),
            batch_size: u32::from_be_bytes(field(bytes, 28)),
            balance: i64::from_be_bytes(field(bytes, 32)),
            count: u64::from_be_bytes(field(bytes, 40)),
        })
    }

    /// Writes an entry: for tests of the oracle itself.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(self.source_partition.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.source_offset.to_be_bytes());
        bytes.extend(self.batch_id.to_be_bytes());
        bytes.extend(self.batch_index.to_be_bytes());
        bytes.extend(self.batch_size.to_be_bytes());
        bytes.extend(self.balance.to_be_bytes());
        bytes.extend(self.count.to_be_bytes());
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the length of an entry was checked")
}

/// Checks that every entry has exactly one output, in its place, with the right balance.
///
/// # Panics
/// An input is not UTF-8 key and 8 bytes: the input is the test's own.
pub fn check_ledger(input: &[PartitionLog], output: &[PartitionLog]) -> Verdict {
    let mut verdict = Verdict::new("entries", "balances");
    for (partition, entries, balances) in by_partition(input, output) {
        verdict.inputs += entries.len() as u64;
        verdict.outputs += balances.len() as u64;
        check_partition(&mut verdict, partition, entries, balances);
    }
    verdict
}

fn check_partition(verdict: &mut Verdict, partition: i32, entries: &[LogRecord], outputs: &[LogRecord]) {
    let states = states_after(entries);
    let sources: Vec<Option<(i32, i64)>> = entries.iter().map(|entry| Some((partition, entry.offset))).collect();
    let decoded: Vec<Option<LedgerEntry>> =
        outputs.iter().map(|output| output.value.as_deref().and_then(LedgerEntry::decode)).collect();
    let claimed: Vec<Option<(i32, i64)>> =
        decoded.iter().map(|found| found.map(|found| (found.source_partition, found.source_offset))).collect();
    let (places, lost) = align(&sources, &claimed);

    for ((output, found), place) in outputs.iter().zip(&decoded).zip(places) {
        let at = format_args!("{partition}@{}", output.offset);
        match (place, found) {
            (Place::InOrder(cause), Some(found)) => {
                check_output(verdict, at, (&entries[cause], states[cause]), (output, found));
            }
            (Place::OutOfOrder(cause), Some(found)) => {
                check_output(verdict, at, (&entries[cause], states[cause]), (output, found));
                verdict.violate(Kind::Reordered, at, || ("the input's order".into(), format!("{found:?}")));
            }
            (Place::Doubled(cause), Some(found)) => {
                let expected = format!("one output for the entry at offset {}", entries[cause].offset);
                verdict.violate(Kind::Doubled, at, || (expected, format!("another one, {found:?}")));
            }
            (Place::Unknown, Some(found)) => {
                verdict
                    .violate(Kind::Wrong, at, || (format!("an entry of partition {partition}"), format!("{found:?}")));
            }
            (_, None) => verdict
                .violate(Kind::Wrong, at, || ("48 bytes with zero padding".into(), format!("{:?}", output.value))),
        }
    }
    for cause in lost {
        let (balance, count) = states[cause];
        let at = format_args!("input {partition}@{}", entries[cause].offset);
        let expected = format!("balance {balance}, count {count} for account {}", entries[cause].key_text());
        verdict.violate(Kind::Lost, at, || (expected, "nothing".into()));
    }
}

type Output<'a> = (&'a LogRecord, &'a LedgerEntry);

fn check_output(verdict: &mut Verdict, at: Arguments<'_>, entry: (&LogRecord, (i64, u64)), output: Output<'_>) {
    let (entry, (balance, count)) = entry;
    let (output, found) = output;
    let same_record = (&output.key, output.timestamp) == (&entry.key, entry.timestamp);
    if !same_record || (found.balance, found.count) != (balance, count) {
        verdict.violate(Kind::Wrong, at, || {
            let expected = format!(
                "balance {balance}, count {count} for account {} at time {}",
                entry.key_text(),
                entry.timestamp
            );
            let (balance, count) = (found.balance, found.count);
            (
                expected,
                format!(
                    "balance {balance}, count {count} for account {} at time {}",
                    output.key_text(),
                    output.timestamp
                ),
            )
        });
    }
}

/// Balance and count of its account after each entry.
fn states_after(entries: &[LogRecord]) -> Vec<(i64, u64)> {
    let mut accounts: HashMap<&str, (i64, u64)> = HashMap::new();
    let mut after = Vec::with_capacity(entries.len());
    for entry in entries {
        let (account, delta) = account_and_delta(entry);
        let state = accounts.entry(account).or_default();
        *state = moved(*state, delta);
        after.push(*state);
    }
    after
}

/// The state that the input leads to: the first of three witnesses.
///
/// # Panics
/// As [`check_ledger`].
pub fn expected_ledger_state(input: &[PartitionLog]) -> LedgerState {
    let mut state = LedgerState::new();
    for entry in input.iter().flat_map(|log| &log.records) {
        let (account, delta) = account_and_delta(entry);
        match state.get_mut(account) {
            Some(known) => *known = moved(*known, delta),
            None => drop(state.insert(account.to_owned(), moved((0, 0), delta))),
        }
    }
    state
}

/// Compares a witness of the final state (changelog, store) with the expected one.
pub fn check_ledger_state(expected: &LedgerState, found: &LedgerState) -> Verdict {
    let mut verdict = Verdict::new("accounts", "accounts");
    verdict.inputs = expected.len() as u64;
    verdict.outputs = found.len() as u64;
    for (account, expected) in expected {
        match found.get(account) {
            None => verdict.violate(Kind::Lost, account, || (format!("{expected:?}"), "nothing".into())),
            Some(found) if found != expected => {
                verdict.violate(Kind::Wrong, account, || (format!("{expected:?}"), format!("{found:?}")));
            }
            Some(_) => {}
        }
    }
    for (account, found) in found.iter().filter(|(account, _)| !expected.contains_key(*account)) {
        verdict.violate(Kind::Wrong, account, || ("no such account".into(), format!("{found:?}")));
    }
    verdict
}

fn moved((balance, count): (i64, u64), delta: i64) -> (i64, u64) {
    (balance.checked_add(delta).expect("the workload's deltas cannot add up to an overflow"), count + 1)
}

fn account_and_delta(entry: &LogRecord) -> (&str, i64) {
    let account = entry.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
    let delta = entry.value.as_deref().and_then(|value| value.try_into().ok()).map(i64::from_be_bytes);
    account.zip(delta).expect("a ledger input is a UTF-8 account and 8 bytes")
}
