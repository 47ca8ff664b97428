//! The list of all metrics: what is not here is not shown, and `docs/metrics.md` is made from it.
//!
//! Base units only, the unit last in the name, counters end in `_total`. A label has few values: a thread of this worker,
//! a phase, a task, a store; never a key, a member or an offset.
//!
//! ```
//! use processor_runtime::metrics::definitions::{COMMITS, page};
//!
//! // For an alert: the share of transactions that did not commit.
//! let rate = |of: &str| format!("sum(rate({}{of}[5m]))", COMMITS.name);
//! let alert = format!("{} / {}", rate(r#"{result!="ok"}"#), rate(""));
//! assert!(alert.starts_with(r#"sum(rate(processor_commits_total{result!="ok"}[5m])) / "#));
//! assert!(COMMITS.labels.contains(&"result") && page().contains(COMMITS.meaning));
//! ```

use std::fmt::Write;

/// One metric.
///
/// ```
/// use processor_runtime::metrics::definitions::{ALL, Kind};
///
/// let counters = ALL.iter().filter(|definition| definition.kind == Kind::Counter);
/// assert!(counters.clone().count() > 0);
/// assert!(counters.clone().all(|definition| definition.name.ends_with("_total")));
/// ```
#[derive(Debug)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, and what to make of it.
    pub meaning: &'static str,
}

/// What kind a metric is.
///
/// ```
/// use processor_runtime::metrics::definitions::{COMMITS, COMMIT_SECONDS, Kind};
///
/// assert_eq!(COMMITS.kind, Kind::Counter);
/// let Kind::Histogram(bounds) = COMMIT_SECONDS.kind else { panic!("durations are histograms") };
/// assert!(bounds.is_sorted() && bounds[0] < 0.001); // in seconds
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// A value of this moment. Its series go away with the task, store or partition that they are about.
    Gauge,
    /// Observations, counted by these upper bounds.
    Histogram(&'static [f64]),
}

/// Half a millisecond to ten seconds: of parts of a turn, which the transaction time-out bounds.
const TURN_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A millisecond to a day: of records, which may have waited while no worker ran.
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0,
    86_400.0,
];
/// A microsecond to ten seconds: of one record.
const RECORD_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.01,
    0.1,
    1.0,
    10.0,
];
const RECORDS: &[f64] =
    &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0, 1_000_000.0];

const BY_THREAD: &[&str] = &["thread"];
const BY_INPUT: &[&str] = &["topic", "partition"];
const BY_STORE: &[&str] = &["task", "store"];

/// The pattern of a kind, as text.
macro_rules! pattern {
    ($kind:ident) => {
        concat!("Kind::", stringify!($kind))
    };
    ($kind:ident $bounds:ident) => {
        concat!("Kind::", stringify!($kind), "(_)")
    };
}

/// The constants, each with an example, and the list of them.
macro_rules! definitions {
    ($($constant:ident: $name:literal, Kind::$kind:ident $(($bounds:ident))?, $labels:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning]
        ///
        /// ```
        #[doc = concat!("use processor_runtime::metrics::definitions::{Kind, ", stringify!($constant), "};")]
        ///
        #[doc = concat!("assert_eq!(", stringify!($constant), ".name, \"", $name, "\");")]
        #[doc = concat!("assert!(matches!(", stringify!($constant), ".kind, ", pattern!($kind $($bounds)?), "));")]
        /// ```
        pub const $constant: Definition =
            Definition { name: $name, kind: Kind::$kind $(($bounds))?, labels: $labels, meaning: $meaning };)*

        /// All metrics, in the order of the page.
        ///
        /// ```
        /// use processor_runtime::metrics::definitions::ALL;
        ///
        /// assert!(ALL.iter().all(|metric| metric.name.starts_with("processor_") && !metric.meaning.is_empty()));
        /// assert!(ALL.iter().any(|metric| metric.name == "processor_commits_total"));
        /// ```
        pub const ALL: &[&Definition] = &[$(&$constant),*];
    };
}

definitions! {
    BUILD_INFO: "processor_build_info", Kind::Gauge, &["version"],
        "Always 1; the version of Processor is the label.";
    STATE: "processor_state", Kind::Gauge, &["state"],
        "1 for the state of the worker, 0 for the others: `starting`, `rebalancing`, `restoring`, `running`, `stopped`. It is the state of the thread that is farthest from running.";
    TASKS: "processor_tasks", Kind::Gauge, &["state"],
        "Tasks of this worker by state: `running`, or `restoring` (assigned and not running yet).";
    TURN_AGE: "processor_turn_age_seconds", Kind::Gauge, BY_THREAD,
        "Time since the thread's loop has turned last. Seconds are normal while a large batch commits; minutes mean that it hangs.";
    OPERATORS_BUSY: "processor_operators_busy_seconds", Kind::Gauge, BY_THREAD,
        "For how long the thread's operators have been at one record or one punctuation, as of a look up to a quarter of a second ago; 0 if that look found them at another one than the look before. The log names the record from a quarter of a transaction's time on.";
    SLOW_RECORDS: "processor_slow_records_total", Kind::Counter, BY_THREAD,
        "Records and punctuations that kept the operators for longer than a quarter of the time that a transaction has (2 s of 8 s, with `transaction.timeout` at 10 s). The log names each, with its node.";
    RECORDS_PROCESSED: "processor_records_processed_total", Kind::Counter, BY_THREAD,
        "Input records that were processed and committed.";
    RECORDS_DROPPED: "processor_records_dropped_total", Kind::Counter, &["thread", "outcome", "reason"],
        "Input records, of those above, that failed and were `skipped` or `dead-lettered` by their policy, by the kind of failure.";
    BATCH_RECORDS: "processor_batch_records", Kind::Histogram(RECORDS), BY_THREAD,
        "Input records in one committed transaction.";
    COMMITS: "processor_commits_total", Kind::Counter, &["thread", "result"],
        "Transactions by how they ended: `ok`; `aborted` (the batch is processed again); `unknown` (no clear answer, or the producer was lost: every task is recovered from its changelog).";
    COMMIT_SECONDS: "processor_commit_duration_seconds", Kind::Histogram(TURN_SECONDS), BY_THREAD,
        "Time from the end of processing until a batch was committed and applied.";
    LOOP_SECONDS: "processor_loop_duration_seconds", Kind::Histogram(TURN_SECONDS), &["thread", "phase"],
        "Time in each phase of a turn: `poll`, `recover`, `process`, `changelog` (send and drain), `offsets`, `commit`, `apply`, `other`. The rate of `_sum` is the share of the thread's time.";
    E2E_LATENCY: "processor_e2e_latency_seconds", Kind::Histogram(LATENCY_SECONDS), &["thread", "record"],
        "Time from a record's timestamp until its results were committed, and so visible to `read_committed` readers. Two observations for each task of a batch: its `first` and its `last` record, which lie on the two ends of the wait. A timestamp in the future counts as 0.";
    PROCESS_SECONDS: "processor_process_duration_seconds", Kind::Histogram(RECORD_SECONDS), BY_THREAD,
        "Time per record in the operators, with what is between them: decoding, state, handing outputs to the producer. One observation for each committed batch, its mean: a single slow record shows in `processor_slow_records_total`.";
    LATENESS: "processor_record_lateness_seconds", Kind::Histogram(LATENCY_SECONDS), BY_THREAD,
        "How far a record's time was behind the stream time of its task, by the timestamps that the source takes. The first and the last record of each task's batch are observed, once they are committed. What is later than an operator waits for is the operator's to drop, and to count.";
    STORE_OP_SECONDS: "processor_store_op_seconds", Kind::Histogram(RECORD_SECONDS), &["thread", "op"],
        "Time of reads of committed state, one in 64 of them: `get`, or `range` with what the operator does for each entry. Only what neither the batch nor the cache of decoded values holds is read. Writes are the phase `apply` of `processor_loop_duration_seconds`.";
    LSO_LAG: "processor_lso_lag_records", Kind::Gauge, BY_INPUT,
        "Offsets of an input partition that an open transaction of its writers holds back: from the last stable offset to the end, as of some 5 s ago. They are part of the lag, and cannot be read yet.";
    LSO_STANDS: "processor_lso_standing_seconds", Kind::Gauge, BY_INPUT,
        "For how long the last stable offset of an input partition has stood still below the end: as old as the oldest open transaction is, at least. Above the writers' transaction time-out it hangs. 0: everything is stable.";
    TIME_TO_LOSS: "processor_input_time_to_loss_seconds", Kind::Gauge, BY_INPUT,
        "How long retention will let the next record of an input partition alone: the topic's `retention.ms` (as of the worker's start) less the age of a record that was processed in the last batch, so a little less than there is. Only where records wait (not markers of transactions alone), one was processed before, and the topic deletes by time; `retention.bytes` may delete sooner.";
    INPUT_LAG: "processor_input_lag_records", Kind::Gauge, BY_INPUT,
        "Offsets between what was processed and the end of an input partition, of running tasks. Markers of transactions count as offsets, so an input that is written in transactions may stay at as many as it has writers; those of an internal topic are the workers.";
    RESTORE_REMAINING: "processor_restore_remaining_records", Kind::Gauge, &["task"],
        "Changelog offsets that a restoring task has before it, at most; compacted ones are skipped.";
    RESTORE_ETA: "processor_restore_eta_seconds", Kind::Gauge, &["task"],
        "How long a restoring task still needs at the rate so far. None while nothing was read, or an open transaction is in the way.";
    RESTORE_RECORDS: "processor_restore_records_total", Kind::Counter, BY_THREAD,
        "Changelog records that were read to restore state.";
    REBALANCES: "processor_rebalances_total", Kind::Counter, BY_THREAD,
        "Assignments that the group has given to the thread.";
    SESSIONS_LOST: "processor_sessions_lost_total", Kind::Counter, BY_THREAD,
        "How often the group took the partitions away without asking: the session timed out, or the broker forgot the member.";
    REJOINS: "processor_rejoins_total", Kind::Counter, BY_THREAD,
        "Group members that were replaced by a new client, because their place was lost or they hung.";
    TXN_TAINTED: "processor_txn_tainted_total", Kind::Counter, &["thread", "api"],
        "Producers that were replaced because a request may still arrive late (EO-11), by the request.";
    PRODUCER_REBUILDS: "processor_producer_rebuilds_total", Kind::Counter, BY_THREAD,
        "Producers that were made to replace one that was spent, lost, fenced or gave no answer; a fence replaces both of a thread.";
    FENCED: "processor_fenced_total", Kind::Counter, BY_THREAD,
        "How often a producer was fenced: by a successor, by another worker of the same instance id, or by the transaction time-out.";
    STORE_KEYS: "processor_store_keys", Kind::Gauge, BY_STORE,
        "About how many keys a store holds (RocksDB: estimate-num-keys). A key counts once more for each time it was written since its memtable was last flushed: a small store that is written often shows many times too many. `stores count` counts.";
    STORE_BYTES: "processor_store_bytes", Kind::Gauge, BY_STORE,
        "About how many bytes of live data a store has on disk (RocksDB: estimate-live-data-size).";
    SST_BYTES: "processor_rocksdb_sst_bytes", Kind::Gauge, BY_STORE,
        "Bytes of all table files, with what compaction has not removed yet.";
    MEMTABLE_BYTES: "processor_rocksdb_memtable_bytes", Kind::Gauge, BY_STORE,
        "Bytes that were written and not flushed.";
    PENDING_COMPACTION_BYTES: "processor_rocksdb_pending_compaction_bytes", Kind::Gauge, BY_STORE,
        "Bytes that compaction has before it. Growing for long means that the disk is too slow.";
    WRITE_STOPPED: "processor_rocksdb_write_stopped", Kind::Gauge, BY_STORE,
        "1 while RocksDB lets nobody write, because flushes or compactions are behind.";
    DELAYED_WRITE_RATE: "processor_rocksdb_delayed_write_bytes_per_second", Kind::Gauge, BY_STORE,
        "To what rate RocksDB slows writers down; 0: it does not.";
    MEMORY_USED: "processor_rocksdb_memory_used_bytes", Kind::Gauge, &[],
        "Block cache, write buffers and commits that wait to be written, of all databases together.";
    MEMORY_BUDGET: "processor_rocksdb_memory_budget_bytes", Kind::Gauge, &[],
        "What they may use.";
    INVARIANT_VIOLATIONS: "processor_invariant_violations_total", Kind::Counter, &[],
        "Threads that stopped because a law of the engine was broken. Page somebody: it is a bug.";
}

/// The reference page, in Markdown.
///
/// ```
/// use processor_runtime::metrics::definitions::{ALL, page};
///
/// let page = page();
/// assert!(page.starts_with("# Metrics"));
/// assert!(ALL.iter().all(|metric| page.contains(&format!("| `{}` |", metric.name))));
/// ```
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from `processor-runtime/src/metrics/definitions.rs`; `./x test unit` compares them, and with \
         `PROCESSOR_BLESS=1` writes this page.\n\n\
         A worker with `--http-listen` serves them at `/metrics`, in Prometheus' text format. Durations are histograms in seconds. \
         Counters and histograms begin at 0 with the process and have few series. Gauges are read when they \
         are asked for: the series of a task, store or partition that has left the worker are gone from the next scrape on. \
         `thread` is the number of a stream thread, from 0.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    let mut line = |text: std::fmt::Arguments<'_>| page.write_fmt(text).expect("writing to a string cannot fail");
    for Definition { name, kind, labels, meaning } in ALL {
        line(format_args!("| `{name}` | {} | {} | {meaning} |\n", kind.name(), listed(labels)));
    }
    line(format_args!("\nUpper bounds of the buckets:\n\n"));
    for definition in ALL {
        if let Kind::Histogram(bounds) = definition.kind {
            let bounds = bounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            line(format_args!("- `{}`: {bounds}\n", definition.name));
        }
    }
    page
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

fn listed(labels: &[&str]) -> String {
    labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for Definition { name, kind, labels, .. } in ALL {
            assert!(name.starts_with("processor_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            let legal = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(legal(name) && labels.iter().all(|label| legal(label)), "{name}");
            if let Kind::Histogram(bounds) = kind {
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
        let distinct: std::collections::BTreeSet<_> = ALL.iter().map(|definition| definition.name).collect();
        assert_eq!(distinct.len(), ALL.len());
    }

    #[test]
    fn the_page_says_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("PROCESSOR_BLESS").is_some() {
            std::fs::write(&path, page()).expect("the page can be written");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page(), "docs/metrics.md is out of date: PROCESSOR_BLESS=1 ./x test unit writes it");
    }
}
