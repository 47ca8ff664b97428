//! O8 on files that fit, and on files in which one thing does not.

use crate::broker::{RawBatch, RawDecision, RawKind, RawLog, RawOffset};
use crate::oracle::{Kind, TaskFiles, check_transactions, torn_by_brokers};

const WRITER: (i64, i16) = (7, 3);
const OTHER: (i64, i16) = (8, 0);

#[derive(Clone, Default)]
struct Files {
    offsets: RawLog,
    output: RawLog,
    changelog: RawLog,
}

fn put(log: &mut RawLog, producer: (i64, i16), records: u64, kind: RawKind) {
    let batch = RawBatch { offset: log.end(), records, producer, at_ms: log.end() * 10_000, kind };
    log.batches.push(batch);
}

fn end(log: &mut RawLog, producer: (i64, i16), committed: bool) {
    put(log, producer, 1, RawKind::Marker { committed });
}

impl Files {
    /// A transaction that processes the records up to an offset.
    fn with(mut self, producer: (i64, i16), records: u64, offset: i64, committed: bool) -> Self {
        self.open(producer, records, offset);
        self.end(producer, committed);
        self
    }

    fn open(&mut self, producer: (i64, i16), records: u64, offset: i64) {
        put(&mut self.output, producer, records, RawKind::InTransaction);
        put(&mut self.changelog, producer, 2, RawKind::InTransaction);
        self.offset(producer, offset);
    }

    fn offset(&mut self, producer: (i64, i16), offset: i64) {
        let (at, group, topic) = (self.offsets.end(), "group".to_owned(), "input".to_owned());
        put(&mut self.offsets, producer, 1, RawKind::InTransaction);
        self.offsets.offsets.push(RawOffset { at, producer, group, topic, partition: 0, offset });
    }

    fn end(&mut self, producer: (i64, i16), committed: bool) {
        for log in [&mut self.output, &mut self.changelog, &mut self.offsets] {
            end(log, producer, committed);
        }
    }

    fn kinds(&self) -> [bool; 2] {
        let task = TaskFiles { partition: 0, output: &self.output, changelog: &self.changelog };
        let verdict = check_transactions("group", "input", &self.offsets, &[task]);
        [Kind::Torn, Kind::Reordered].map(|kind| verdict.violations.iter().any(|violation| violation.kind == kind))
    }
}

/// Two transactions that commit, one between them that does not.
fn sound() -> Files {
    Files::default().with(WRITER, 5, 5, true).with(OTHER, 3, 8, false).with(WRITER, 4, 9, true)
}

#[test]
fn transactions_that_are_whole_and_follow_one_another_pass() {
    assert_eq!(sound().kinds(), [false, false]);
    let mut fenced = sound();
    fenced.offset(OTHER, 9);
    end(&mut fenced.offsets, OTHER, true);
    assert_eq!(
        fenced.with(OTHER, 1, 10, true).kinds(),
        [false, false],
        "an offset that is committed as it stands moves nothing"
    );
}

#[test]
fn offsets_without_outputs_are_seen() {
    let mut files = sound();
    files.offset(WRITER, 12);
    end(&mut files.offsets, WRITER, true);
    assert_eq!(files.kinds(), [true, false]);
}

#[test]
fn outputs_without_offsets_are_seen() {
    let mut files = sound();
    put(&mut files.output, WRITER, 3, RawKind::InTransaction);
    end(&mut files.output, WRITER, true);
    assert_eq!(files.kinds(), [true, false]);
}

#[test]
fn a_transaction_that_ends_in_two_ways_is_seen() {
    let mut files = sound();
    files.open(WRITER, 2, 11);
    end(&mut files.output, WRITER, true);
    end(&mut files.changelog, WRITER, false);
    end(&mut files.offsets, WRITER, true);
    assert_eq!(files.kinds(), [true, false]);
}

#[test]
fn a_part_of_another_producer_is_seen() {
    let mut files = sound();
    put(&mut files.output, WRITER, 2, RawKind::InTransaction);
    put(&mut files.changelog, OTHER, 2, RawKind::InTransaction);
    files.offset(WRITER, 11);
    files.end(WRITER, true);
    end(&mut files.changelog, OTHER, true);
    assert_eq!(files.kinds(), [true, false]);
}

#[test]
fn an_offset_that_moves_by_less_than_was_written_is_seen() {
    assert_eq!(sound().with(WRITER, 3, 11, true).kinds(), [true, false]);
}

#[test]
fn an_offset_that_goes_back_is_seen() {
    assert_eq!(sound().with(WRITER, 3, 7, true).kinds(), [true, true]);
}

#[test]
fn two_transactions_of_a_task_at_once_are_seen() {
    let mut files = sound();
    put(&mut files.output, WRITER, 1, RawKind::InTransaction);
    put(&mut files.output, OTHER, 1, RawKind::InTransaction);
    put(&mut files.output, WRITER, 1, RawKind::InTransaction);
    for (producer, offset) in [(WRITER, 11), (OTHER, 12)] {
        put(&mut files.changelog, producer, 2, RawKind::InTransaction);
        files.offset(producer, offset);
        files.end(producer, true);
    }
    assert_eq!(files.kinds(), [false, true]);
}

#[test]
fn a_successor_that_writes_before_the_marker_of_a_decided_transaction_is_in_its_right() {
    let mut files = sound();
    files.open(WRITER, 2, 11);
    end(&mut files.offsets, WRITER, true);
    files.open(OTHER, 1, 12);
    end(&mut files.output, WRITER, true);
    end(&mut files.changelog, WRITER, true);
    files.end(OTHER, true);
    assert_eq!(files.kinds(), [false, false]);
}

/// A thread's second producer writes when the first one's commit is decided, and its markers may come first.
#[test]
fn offsets_whose_markers_come_in_another_order_count_as_they_were_written() {
    let mut files = sound();
    files.open(WRITER, 2, 11);
    end(&mut files.output, WRITER, true);
    end(&mut files.changelog, WRITER, true);
    files.open(OTHER, 1, 12);
    files.end(OTHER, true);
    end(&mut files.offsets, WRITER, true);
    assert_eq!(files.kinds(), [false, false]);
}

#[test]
fn a_transaction_that_nobody_ended_is_seen() {
    let mut files = sound();
    put(&mut files.output, OTHER, 1, RawKind::InTransaction);
    assert_eq!(files.kinds(), [true, false]);
}

#[test]
fn a_commit_that_nobody_has_decided_and_that_was_aborted_is_found() {
    let mut log = RawLog::default();
    let mut decisions = Vec::new();
    let mut decide = |log: &RawLog| {
        let partitions = [("out".to_owned(), 1)].into();
        decisions.push(RawDecision { producer: WRITER, at_ms: log.end() * 10_000, partitions });
    };
    for _ in 0..2 {
        put(&mut log, WRITER, 3, RawKind::InTransaction);
        decide(&log);
        end(&mut log, WRITER, true);
    }
    end(&mut log, WRITER, true); // sent twice
    put(&mut log, WRITER, 3, RawKind::InTransaction);
    end(&mut log, WRITER, false);
    put(&mut log, WRITER, 3, RawKind::InTransaction);
    end(&mut log, WRITER, true); // its decision was lost, and was made once more
    decide(&log);
    end(&mut log, WRITER, true);
    put(&mut log, WRITER, 3, RawKind::InTransaction);
    let torn_at = log.end();
    end(&mut log, WRITER, true);
    end(&mut log, (WRITER.0, WRITER.1 + 1), false);
    assert_eq!(torn_by_brokers(&decisions, "out", 1, &log), [torn_at]);
    assert_eq!(torn_by_brokers(&decisions, "out", 2, &log), [torn_at], "a partition that took no part in any");
}
