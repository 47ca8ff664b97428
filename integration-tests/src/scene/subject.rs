//! What runs in a scene: a program of this workspace, the topics it is given, and where its work is seen.

use anyhow::Result;

use crate::client::{Workload, produce_ledger, produce_lines, produce_orders, produce_readings, produce_transfers};

/// A program under test.
///
/// Its tasks that have stores are the ones a test catches inside a transaction: what they write to a partition of an
/// output or a changelog is written by the owner of the partition with the same number of what they read, and by nobody
/// else.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The program, as cargo named it.
    pub program: &'static str,
    /// The options that name its topics, and what stands behind the scene's name in the topic's; the input comes first,
    /// then the output.
    pub topics: &'static [(&'static str, &'static str)],
    /// The name of the tasks that have its stores.
    pub tasks: &'static str,
    /// What those tasks read: what stands behind the scene's name in the topic's.
    pub reads: &'static str,
    /// Its stores.
    pub stores: &'static [&'static str],
    /// Produces its input.
    pub produce: fn(&str, &Workload) -> Result<()>,
}

impl Subject {
    /// The ledger of the exactly-once suite.
    pub const LEDGER: Self = Self {
        program: "ledger-worker",
        topics: &[("input", "in"), ("output", "out")],
        tasks: "entries",
        reads: "in",
        stores: &["accounts"],
        produce: produce_ledger,
    };
    /// The moving average.
    pub const MOVING_AVERAGE: Self = Self {
        program: "moving-average",
        topics: &[("input", "in"), ("output", "out")],
        tasks: "readings",
        reads: "in",
        stores: &["window"],
        produce: produce_readings,
    };
    /// The word count, whose words reach the counting tasks through an internal topic.
    pub const WORD_COUNT: Self = Self {
        program: "word-count",
        topics: &[("input", "in"), ("output", "out")],
        tasks: "by-word",
        reads: "by-word-repartition",
        stores: &["counts"],
        produce: produce_lines,
    };
    /// The bank ledger, whose credits reach the other account's task through an internal topic.
    pub const BANK_LEDGER: Self = Self {
        program: "bank-ledger",
        topics: &[("transfers", "in"), ("balances", "out"), ("refused", "refused"), ("unreadable", "unreadable")],
        tasks: "credits",
        reads: "in",
        stores: &["balances"],
        produce: produce_transfers,
    };
    /// The deduplication.
    pub const DEDUP: Self = Self {
        program: "dedup",
        topics: &[("input", "in"), ("output", "out")],
        tasks: "records",
        reads: "in",
        stores: &["seen", "seen-by-time"],
        produce: produce_orders,
    };
}
