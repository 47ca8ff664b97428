//! The handles that a stream thread records in.

use std::time::Duration;

use metrics::{Counter, Histogram};
use processor_core::error::FailureKind;
use processor_core::ids::Timestamp;

use super::{Metrics, definitions as d};

/// What becomes of a record that is not processed.
const DROPPED: [&str; 2] = ["skipped", "dead-lettered"];
/// The requests that taint a producer (EO-11).
const TAINTING: [&str; 5] = ["AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn", "Produce"];

/// What a stream thread measures.
#[derive(Debug)]
pub struct ThreadMetrics {
    metrics: Metrics,
    thread: String,
    phases: [Histogram; Phase::ALL.len()],
    commits: [Counter; CommitResult::ALL.len()],
    records: Counter,
    batch_records: Histogram,
    commit_seconds: Histogram,
    process_seconds: Histogram,
    lateness: Histogram,
    latency_first: Histogram,
    latency_last: Histogram,
    /// Changelog records that were read to restore state.
    pub restored: Counter,
    /// Assignments.
    pub rebalances: Counter,
    /// Partitions that were taken away without asking.
    pub sessions_lost: Counter,
    /// Clients that took the place of a group member.
    pub rejoins: Counter,
    /// Producers that took the place of another.
    pub producer_rebuilds: Counter,
    /// Fences.
    pub fenced: Counter,
}

/// A part of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for records and taking them in.
    Poll,
    /// Following the group, and whatever must be mended before records can be processed.
    Recover,
    /// The operators.
    Process,
    /// Sending the changelog, and waiting until all records are acknowledged.
    Changelog,
    /// Adding the offsets.
    Offsets,
    /// The commit itself.
    Commit,
    /// Writing the base.
    Apply,
    /// What is left: aborts, and moving the consumer to where the tasks stand.
    Other,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Poll,
        Self::Recover,
        Self::Process,
        Self::Changelog,
        Self::Offsets,
        Self::Commit,
        Self::Apply,
        Self::Other,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Recover => "recover",
            Self::Process => "process",
            Self::Changelog => "changelog",
            Self::Offsets => "offsets",
            Self::Commit => "commit",
            Self::Apply => "apply",
            Self::Other => "other",
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// It committed.
    Ok,
    /// It was aborted.
    Aborted,
    /// Nobody knows, or the producer was lost before.
    Unknown,
}

impl CommitResult {
    const ALL: [Self; 3] = [Self::Ok, Self::Aborted, Self::Unknown];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        }
    }
}

impl ThreadMetrics {
    pub(super) fn new(metrics: Metrics, number: usize) -> Self {
        let thread = number.to_string();
        let counter = |definition| metrics.counter(definition, &[&thread]);
        let histogram = |definition| metrics.histogram(definition, &[&thread]);
        // A series that is born at 1 has not increased for Prometheus: each begins at 0, before anything is counted.
        for (outcome, kind) in DROPPED.iter().flat_map(|outcome| FailureKind::WITH_POLICY.map(|kind| (*outcome, kind)))
        {
            drop(metrics.counter(&d::RECORDS_DROPPED, &[&thread, outcome, kind.word()]));
        }
        for api in TAINTING {
            drop(metrics.counter(&d::TXN_TAINTED, &[&thread, api]));
        }
        let latency = |record| metrics.histogram(&d::E2E_LATENCY, &[&thread, record]);
        Self {
            phases: Phase::ALL.map(|phase| metrics.histogram(&d::LOOP_SECONDS, &[&thread, phase.label()])),
            commits: CommitResult::ALL.map(|result| metrics.counter(&d::COMMITS, &[&thread, result.label()])),
            records: counter(&d::RECORDS_PROCESSED),
            batch_records: histogram(&d::BATCH_RECORDS),
            commit_seconds: histogram(&d::COMMIT_SECONDS),
            process_seconds: histogram(&d::PROCESS_SECONDS),
            lateness: histogram(&d::LATENESS),
            latency_first: latency("first"),
            latency_last: latency("last"),
            restored: counter(&d::RESTORE_RECORDS),
            rebalances: counter(&d::REBALANCES),
            sessions_lost: counter(&d::SESSIONS_LOST),
            rejoins: counter(&d::REJOINS),
            producer_rebuilds: counter(&d::PRODUCER_REBUILDS),
            fenced: counter(&d::FENCED),
            thread,
            metrics,
        }
    }

    /// A phase took this long.
    pub fn phase(&self, phase: Phase, took: Duration) {
        self.phases[phase as usize].record(took);
    }

    /// A transaction ended without a commit that is known.
    pub fn not_committed(&self, result: CommitResult) {
        self.commits[result as usize].increment(1);
    }

    /// What times gets and ranges of committed state; `None` where nothing is measured.
    pub fn store_reads(&self) -> Option<[Histogram; 2]> {
        let of = |op| self.metrics.histogram(&d::STORE_OP_SECONDS, &[&self.thread, op]);
        self.metrics.is_on().then(|| ["get", "range"].map(of))
    }

    /// A batch was committed and applied: how long its records were processed, and the rest.
    pub fn committed(&self, records: usize, process: Duration, took: Duration) {
        if let Ok(count @ 1..) = u32::try_from(records) {
            self.process_seconds.record(process / count);
        }
        self.commits[CommitResult::Ok as usize].increment(1);
        self.records.increment(records as u64);
        self.batch_records.record(records as f64);
        self.commit_seconds.record(took);
    }

    /// A task's part of a batch was visible `now`, and these were the timestamps of its first and its last record.
    pub fn visible(&self, first: Timestamp, last: Timestamp, now: Timestamp) {
        let seconds = |from: Timestamp| now.get().saturating_sub(from.get()).max(0) as f64 / 1_000.0;
        self.latency_first.record(seconds(first));
        self.latency_last.record(seconds(last));
    }

    /// A record was so far behind stream time.
    pub fn late(&self, by: Duration) {
        self.lateness.record(by);
    }

    /// So many records of a committed batch were not processed: what became of them, and why.
    pub fn passed_over(&self, outcome: &str, reason: &str, count: u64) {
        self.metrics.counter(&d::RECORDS_DROPPED, &[&self.thread, outcome, reason]).increment(count);
    }

    /// A producer is replaced because of a request to this API.
    pub fn tainted(&self, api: &str) {
        self.metrics.counter(&d::TXN_TAINTED, &[&self.thread, api]).increment(1);
    }
}
