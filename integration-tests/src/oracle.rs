//! Independent oracles: what exactly once must have produced, computed a second time and differently.
//!
//! Nothing here calls `processor-core` or `processor-runtime`, bincode included: formats are decoded by hand from their
//! description. The oracles take plain data, as a `read_committed` reader saw it, and give a [`Verdict`] in words.
//!
//! | question (`guarantees.md`) | function |
//! |---|---|
//! | O1: one output per input, right value, same order | [`check_moving_average`], [`check_ledger`] |
//! | before all: the input has what was acknowledged | [`check_input`] |
//! | O1, for the other example programs | [`check_word_count`], [`check_bank`], [`check_dedup`] |
//! | O2: state = fold of the input = fold of the changelog | [`expected_ledger_state`], [`fold_changelog`], [`check_ledger_state`]; of any store [`fold`], [`check_state`] |
//! | O3: committed offsets never go back and end at the input's end | [`check_offsets_monotone`], [`check_offsets`] |
//! | O4: a transaction's outputs are all there or none is | [`check_batches`], live: [`BatchTracker`] |
//! | O5: nothing of an aborted transaction is visible | O1 and O4 together: it would be a second output, or a batch id twice |
//! | O6: when all is healed everything is processed; O7: and no transaction is open | whoever waits for it, with a limit |
//! | O8: each transaction is whole in the brokers' files, and those of a task follow one another | [`check_transactions`] |

mod alignment;
mod bank;
mod batches;
mod changelog;
mod dedup;
mod input;
mod ledger;
mod moving_average;
mod offsets;
mod state;
mod transactions;
mod verdict;
mod word_count;

use std::collections::{BTreeMap, BTreeSet};

pub use self::bank::{BankBooks, check_bank, is_settled};
pub use self::batches::{BatchTracker, check_batches};
pub use self::changelog::{decode_store, fold_changelog};
pub use self::dedup::{check_dedup, expected_dedup_states, records_by_id};
pub use self::input::check_input;
pub use self::ledger::{LedgerEntry, LedgerState, check_ledger, check_ledger_state, expected_ledger_state};
pub use self::moving_average::{check_moving_average, expected_windows};
pub use self::offsets::{check_offsets, check_offsets_monotone, input_ends};
pub use self::state::{State, check_state, fold};
pub use self::transactions::{TaskFiles, check_transactions, torn_by_brokers};
pub use self::verdict::{Kind, Verdict, Violation, grouped};
pub use self::word_count::{check_word_count, expected_word_counts, words_of};

/// One record as a consumer saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl LogRecord {
    /// The key as text for people; what is not UTF-8 is shown as such.
    fn key_text(&self) -> String {
        self.key.as_deref().map_or_else(|| "no key".to_owned(), |key| String::from_utf8_lossy(key).into_owned())
    }
}

/// The visible records of one partition, in offset order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionLog {
    /// The partition's number.
    pub partition: i32,
    /// Its records.
    pub records: Vec<LogRecord>,
}

impl PartitionLog {
    /// The log as it was before this offset.
    #[must_use]
    pub fn below(&self, offset: i64) -> Self {
        let records = self.records.iter().filter(|record| record.offset < offset);
        Self { partition: self.partition, records: records.cloned().collect() }
    }
}

/// Pairs the two sides by partition number; a side that lacks a partition has no records there.
fn by_partition<'a>(
    input: &'a [PartitionLog],
    output: &'a [PartitionLog],
) -> Vec<(i32, &'a [LogRecord], &'a [LogRecord])> {
    let (input, output) = (records(input), records(output));
    let partitions: BTreeSet<i32> = input.keys().chain(output.keys()).copied().collect();
    let side = |logs: &BTreeMap<i32, &'a [LogRecord]>, partition| logs.get(&partition).copied().unwrap_or_default();
    partitions.into_iter().map(|partition| (partition, side(&input, partition), side(&output, partition))).collect()
}

fn records(logs: &[PartitionLog]) -> BTreeMap<i32, &[LogRecord]> {
    let map: BTreeMap<i32, &[LogRecord]> = logs.iter().map(|log| (log.partition, log.records.as_slice())).collect();
    assert_eq!(map.len(), logs.len(), "a log names every partition once");
    map
}

#[cfg(test)]
mod tests;
