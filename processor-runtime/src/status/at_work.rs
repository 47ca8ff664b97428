//! What the operators of a task are at, for whoever watches from another thread.
//!
//! The stream thread writes it around each record: a few plain stores into memory that nobody else writes; no lock and no
//! clock. How long it has been at a record, the watcher finds out by looking again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering, fence};

use processor_core::ids::{Offset, TaskId, TopicPartition};
use processor_core::task::{RunningNode, Task};
use processor_core::topology::ApplicationTopology;

/// What a punctuation has for an offset.
const NO_RECORD: i64 = -1;

/// What the operators of one task are at.
pub struct AtWork {
    task: TaskId,
    inputs: Vec<TopicPartition>,
    topology: ApplicationTopology,
    node: RunningNode,
    /// Counts beginnings and ends, so it is odd while the operators are at something.
    steps: AtomicU64,
    /// What they are or were at: the input, and the record's offset.
    input: AtomicUsize,
    offset: AtomicI64,
    /// The watcher has looked since the thread last looked at the clock.
    clock_due: AtomicBool,
}

/// What the operators of a task are at, at one moment.
#[derive(Clone, Debug)]
pub struct InHand {
    /// The task.
    pub task: TaskId,
    /// The record; `None`: a wall-clock punctuation.
    pub place: Option<(TopicPartition, Offset)>,
    /// The node that runs.
    pub node: String,
    /// Two looks that find the same number found the operators at the same thing.
    pub(super) step: u64,
}

impl AtWork {
    /// Of a task that reads these partitions.
    pub fn new(task: &Task, inputs: Vec<TopicPartition>) -> Self {
        Self {
            task: task.id().clone(),
            inputs,
            topology: task.topology().clone(),
            node: task.running_node(),
            steps: AtomicU64::new(0),
            input: AtomicUsize::new(0),
            offset: AtomicI64::new(NO_RECORD),
            clock_due: AtomicBool::new(false),
        }
    }

    /// The operators get a record, by the place of its input in the task and its offset; `None`: punctuations.
    pub fn begin(&self, place: Option<(usize, Offset)>) {
        let (input, offset) = place.map_or((0, NO_RECORD), |(input, offset)| (input, offset.get()));
        // Behind the end of the last step: whoever reads a new place sees an even number or a later one.
        fence(Ordering::Release);
        self.input.store(input, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.step();
    }

    /// The operators are done with it.
    pub fn end(&self) {
        self.step();
    }

    /// One thread alone writes, so no exchange is needed.
    fn step(&self) {
        self.steps.store(self.steps.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The record that the operators were at last; `None`: punctuations. For the thread that writes it.
    pub fn last(&self) -> Option<(TopicPartition, Offset)> {
        let offset = self.offset.load(Ordering::Relaxed);
        (offset != NO_RECORD).then(|| (self.inputs[self.input.load(Ordering::Relaxed)].clone(), Offset::new(offset)))
    }

    /// Whether the watcher has looked since this was last asked: time has passed, and the clock is worth a look.
    pub fn clock_is_due(&self) -> bool {
        self.clock_due.load(Ordering::Relaxed) && self.clock_due.swap(false, Ordering::Relaxed)
    }

    pub(super) fn clock_falls_due(&self) {
        self.clock_due.store(true, Ordering::Relaxed);
    }

    /// What the operators are at; `None`: nothing, or something new just now.
    pub(super) fn in_hand(&self) -> Option<InHand> {
        let step = self.steps.load(Ordering::Acquire);
        if step.is_multiple_of(2) {
            return None;
        }
        let (place, node) = (self.last(), self.topology.node_name(self.node.get()).to_owned());
        fence(Ordering::Acquire);
        let same = self.steps.load(Ordering::Relaxed) == step;
        same.then(|| InHand { task: self.task.clone(), place, node, step })
    }
}

/// What the operators of the tasks of one thread are at.
pub type AllAtWork = Arc<[Arc<AtWork>]>;

impl std::fmt::Debug for AtWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtWork").field("task", &self.task).finish_non_exhaustive()
    }
}

impl std::fmt::Display for InHand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some((partition, offset)) => write!(f, "{partition}@{offset}"),
            None => f.write_str("a punctuation"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use processor_core::ids::Partition;
    use processor_core::prelude::*;
    use processor_core::task::TaskSettings;

    use super::*;

    /// At work on two partitions of a task that copies.
    fn at_work() -> AtWork {
        let mut topology = Topology::builder();
        topology.source("copied", "in", (Raw, Raw)).sink("copies", "out", (Raw, Raw));
        let topology = topology.build().and_then(|topology| topology.for_application("app")).expect("it is right");
        let id = TaskId::new("copied", Partition::new(0));
        let settings = TaskSettings { cache_bytes_max: 1_000, output_partitions: [1].into() };
        let inputs = ["even", "odd"].map(|topic| TopicPartition::new(topic, Partition::new(0)));
        AtWork::new(&topology.task(&id, &settings), inputs.to_vec())
    }

    #[test]
    fn it_is_at_something_between_a_beginning_and_its_end() {
        let at_work = at_work();
        assert!(at_work.in_hand().is_none());
        at_work.begin(Some((1, Offset::new(7))));
        let first = at_work.in_hand().expect("a record");
        assert_eq!((first.to_string().as_str(), first.node.as_str()), ("odd-0@7", "copied"));
        assert_eq!(at_work.in_hand().expect("still").step, first.step);
        at_work.end();
        assert!(at_work.in_hand().is_none());
        at_work.begin(None);
        let second = at_work.in_hand().expect("a punctuation");
        assert_eq!((second.to_string().as_str(), second.step == first.step), ("a punctuation", false));
    }

    #[test]
    fn the_clock_is_due_once_for_each_look() {
        let at_work = at_work();
        assert!(!at_work.clock_is_due());
        at_work.clock_falls_due();
        assert!(at_work.clock_is_due() && !at_work.clock_is_due());
    }

    /// Whoever looks while it moves on sees one record or nothing, never the partition of one with the offset of another.
    #[test]
    fn no_look_mixes_two_records() {
        let (at_work, looked) = (at_work(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for offset in (0..).take_while(|_| !looked.load(Ordering::Relaxed)) {
                    at_work.begin(Some((usize::from(offset % 2 == 1), Offset::new(offset))));
                    at_work.end();
                }
            });
            // On a busy machine many looks find a thread that stands between two records, or has not begun.
            let deadline = Instant::now() + Duration::from_mins(1);
            let mut seen: Vec<(TopicPartition, Offset)> = Vec::new();
            while seen.len() < 10_000 && Instant::now() < deadline {
                seen.extend((0..1_000).filter_map(|_| at_work.in_hand()?.place));
                std::thread::yield_now();
            }
            looked.store(true, Ordering::Relaxed);
            assert!(seen.len() >= 10_000, "in a minute only {} records were seen", seen.len());
            for (partition, offset) in seen {
                assert_eq!(&*partition.topic, if offset.get() % 2 == 0 { "even" } else { "odd" }, "@{offset}");
            }
        });
    }
}
