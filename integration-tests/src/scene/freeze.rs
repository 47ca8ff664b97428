//! Freezing workers in a chosen moment, and what becomes of what they were caught at.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{PATIENCE, Scene, StoreCopy};
use crate::client::Isolation;
use crate::oracle::PartitionLog;
use crate::worker::{Worker, await_condition};

/// How long what is open in a frozen worker's partitions must stay as it is: whatever was on its way to the broker
/// when it was frozen, the end of the transaction included, has arrived by then.
const STANDSTILL: Duration = Duration::from_millis(250);
/// How often a worker is frozen until it is caught.
const FREEZES_MAX: usize = 300;

/// A worker that was frozen inside a transaction.
#[derive(Debug)]
pub struct Caught {
    /// What it had written, neither committed nor aborted.
    pub open: Vec<OpenRange>,
    /// How often it was frozen before, between two transactions, and let go.
    pub thaws: usize,
}

/// The offsets from the last stable one to the high watermark of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The last stable offset: where the oldest open transaction begins.
    pub from: i64,
    to: i64,
}

impl OpenRange {
    fn count(&self, logs: &[PartitionLog]) -> usize {
        let records = logs.iter().filter(|log| log.partition == self.partition).flat_map(|log| &log.records);
        records.filter(|record| (self.from..self.to).contains(&record.offset)).count()
    }
}

impl Scene {
    /// Freezes a worker inside an open transaction: a moment later, what it has written there is neither committed nor
    /// aborted, and stays so. Whoever is caught between two transactions is let go and frozen again.
    ///
    /// # Panics
    /// If it is never caught.
    pub fn freeze_in_transaction(&self, worker: &mut Worker) -> Caught {
        for thaws in 0..FREEZES_MAX {
            let busy = await_condition("the worker to write in a transaction", PATIENCE, || {
                anyhow::ensure!(worker.is_alive(), "the worker has ended");
                Ok(!self.open(&self.owned(worker)).is_empty())
            });
            busy.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
            worker.freeze().expect("a worker that runs can be frozen");
            let open = self.standing_open(&self.owned(worker));
            if !open.is_empty() {
                return Caught { open, thaws };
            }
            worker.thaw().expect("a frozen worker can go on");
        }
        panic!("the worker was never inside a transaction; its log ends:\n{}", worker.log_tail(30));
    }

    /// Freezes a worker in the middle of its restore: a part of a changelog is in its base, and no task runs yet. What it
    /// had on disk in that moment.
    ///
    /// # Panics
    /// If it was never caught there before its first task ran.
    pub fn freeze_in_restore(&self, name: &str, worker: &Worker) -> Vec<StoreCopy> {
        worker.await_since_start("}: assigned ", PATIENCE).expect("the worker is given partitions");
        let ends = self.kafka.watermarks(&self.changelog(), Isolation::ReadUncommitted).expect("the broker answers");
        let (directory, mut size) = (self.application_dir(name), 0);
        for _ in 0..FREEZES_MAX {
            let written =
                await_condition("the worker to write what it restores", PATIENCE, || Ok(size_of(&directory)? != size));
            written.unwrap_or_else(|error| panic!("{error:#}; its log ends:\n{}", worker.log_tail(30)));
            worker.freeze().expect("a worker that runs can be frozen");
            size = size_of(&directory).expect("a frozen worker's directory can be listed");
            let log = worker.log_since_start();
            assert!(!log.contains("}: running task="), "its restore was over before it was caught in it:\n{log}");
            let copies = self.stores_of_frozen(name, worker);
            let part = |copy: &StoreCopy| copy.position.is_some_and(|at| 0 < at && at < ends[&copy.partition].end);
            if copies.iter().any(part) {
                return copies;
            }
            worker.thaw().expect("a frozen worker can go on");
        }
        panic!("the worker was never inside a restore; its log ends:\n{}", worker.log_tail(30));
    }

    /// Requires that what stood open when workers were frozen was written, and was never committed.
    pub fn assert_aborted(&self, caught: &[Caught]) {
        self.judge(caught, |range, written, committed| {
            assert!(written > 0, "nothing was written in {range:?}");
            assert_eq!(committed, 0, "{range:?} was open and is committed");
        });
    }

    /// Requires that what stood open when workers were frozen was committed, all of it.
    pub fn assert_committed(&self, caught: &[Caught]) {
        self.judge(caught, |range, written, committed| {
            assert!(written > 0, "nothing was written in {range:?}");
            assert_eq!(committed, written, "{range:?} was open and is not committed as it stood");
        });
    }

    fn judge(&self, caught: &[Caught], judge: impl Fn(&OpenRange, usize, usize)) {
        for topic in self.written() {
            let ranges = || caught.iter().flat_map(|caught| &caught.open).filter(|range| range.topic == topic);
            if ranges().next().is_none() {
                continue;
            }
            let committed = self.read(&topic);
            let written = self.kafka.read_uncommitted(&topic).expect("the topic can be read").0;
            ranges().for_each(|range| judge(range, range.count(&written), range.count(&committed)));
        }
    }

    /// The partitions in which this worker alone writes, as far as its log says.
    fn owned(&self, worker: &Worker) -> Vec<i32> {
        worker.assigned_of(&self.topic(self.subject.reads))
    }

    /// What is open in these partitions. The high watermark is asked first: what is committed between the questions is
    /// not taken for open.
    fn open(&self, partitions: &[i32]) -> Vec<OpenRange> {
        let mut open = Vec::new();
        for topic in self.written() {
            for &partition in partitions {
                let end = |isolation| {
                    let watermarks = self.kafka.partition_watermarks(&topic, partition, isolation);
                    watermarks.expect("the broker answers").end
                };
                let (to, from) = (end(Isolation::ReadUncommitted), end(Isolation::ReadCommitted));
                if from < to {
                    open.push(OpenRange { topic: topic.clone(), partition, from, to });
                }
            }
        }
        open
    }

    /// What is open in these partitions, if it stays as it is. Only their owner writes there.
    fn standing_open(&self, partitions: &[i32]) -> Vec<OpenRange> {
        let deadline = Instant::now() + PATIENCE;
        let (mut open, mut since) = (self.open(partitions), Instant::now());
        while !open.is_empty() && since.elapsed() < STANDSTILL {
            let now = self.open(partitions);
            if now != open {
                (open, since) = (now, Instant::now());
            }
            assert!(Instant::now() < deadline, "a frozen worker still writes: {open:?}");
        }
        open
    }
}

/// How many bytes the files below a directory have. Files may come and go while they are counted.
fn size_of(directory: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        size += match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()).unwrap_or(0),
            Ok(found) => found.len(),
            Err(_) => 0,
        };
    }
    Ok(size)
}
