//! A worker with state in memory, for tests of what it shows and of who asks it.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::time::Duration;

use processor_core::ids::{Offset, Partition, StoreIndex, TaskId, TopicPartition};
use processor_core::prelude::*;
use processor_core::store::{Base, BaseError};

use super::*;
use crate::clock::Clock;
use crate::status::{InputStatus, RestoreStatus, Snapshot, TaskStatus, ThreadState, Unstable};

pub(crate) const SUMS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("sums");
pub(crate) const BLOBS: KeyValueStoreDef<u32, Vec<u8>> = KeyValueStoreDef::new("blobs");

struct Sum;

impl Operator for Sum {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut Context<'_, String, String>,
    ) -> Result<(), OperatorError> {
        ctx.forward(record)
    }
}

pub(crate) fn topology() -> ApplicationTopology {
    let mut topology = Topology::builder();
    topology.source("lines", "in", (Utf8, Utf8)).process("sum", || Sum).with_store(&SUMS).with_store(&BLOBS).sink(
        "out",
        "out",
        (Utf8, Utf8),
    );
    let topology = topology.build().expect("the topology is right");
    topology.for_application("app").expect("it has no internal topics")
}

/// Two stores of one task.
#[derive(Clone, Default)]
pub(crate) struct Maps(pub(crate) [BTreeMap<Vec<u8>, Vec<u8>>; 2]);

impl Maps {
    pub(crate) fn sum(mut self, key: &str, sum: u8) -> Self {
        assert!(sum < 100, "one byte in bincode");
        self.0[0].insert(key.as_bytes().to_vec(), vec![1, sum * 2]);
        self
    }
}

impl Base for Maps {
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError> {
        let found = self.0[store.slot()].get(key);
        value.extend(found.into_iter().flatten());
        Ok(found.is_some())
    }

    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError> {
        let mut entries: Vec<_> = self.0[store.slot()].range::<[u8], _>((from, to)).collect();
        if reverse {
            entries.reverse();
        }
        // Breaks where `visit` does.
        let _ = entries.into_iter().try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError> {
        Ok(self.0[store.slot()].len() as u64)
    }
}

fn task(partition: i32) -> TaskId {
    TaskId::new("lines", Partition::new(partition))
}

pub(crate) fn running(partition: i32, state: Maps) -> TaskStatus {
    let input = InputStatus {
        partition: TopicPartition::new("in", Partition::new(partition)),
        position: Offset::new(40),
        end: Some(Offset::new(42)),
        unstable: Some(Unstable { records: 3, stands_for: Duration::from_secs(90), drained: false }),
        processed: Some(Timestamp::new(0)),
    };
    TaskStatus { id: task(partition), restoring: None, inputs: vec![input], state: Some(Arc::new(state)) }
}

pub(crate) fn restoring(partition: i32) -> TaskStatus {
    let restore = RestoreStatus {
        replayed: 5,
        remaining: Some(95),
        time_left: Some(Duration::from_secs(19)),
        waits_for: "its changelog",
    };
    TaskStatus { id: task(partition), restoring: Some(restore), inputs: Vec::new(), state: None }
}

/// A worker of an application with so many tasks, with one thread.
pub(crate) fn worker(tasks_in_all: i32, state: ThreadState, tasks: Vec<TaskStatus>) -> Shown {
    let clock = SystemClock::default();
    let status = Arc::new(WorkerStatus::new(1, clock, Duration::from_mins(1)));
    status.know_tasks((0..tasks_in_all).map(task).collect());
    status.threads()[0].turned(clock.monotonic());
    status.threads()[0].publish(Snapshot { state, tasks });
    Shown {
        application_id: "app".to_owned(),
        topology: topology(),
        status,
        metrics: Metrics::on(),
        figures: Box::new(Figures::default),
        owners: Box::new(|| {
            let other = TopicPartition::new("in", Partition::new(2));
            Ok(Arc::new(Owners::from([(other, "app:two:0".to_owned())])))
        }),
    }
}

/// A worker that has it all: `a`, `c` in partition 0, `b`, `d` in partition 1.
pub(crate) fn whole() -> Shown {
    let of = |one: &str, two: &str| Maps::default().sum(one, 1).sum(two, 2);
    worker(2, ThreadState::Running, vec![running(0, of("a", "c")), running(1, of("b", "d"))])
}
