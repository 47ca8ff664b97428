//! The changelog reader of the fake.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use processor_core::ids::{ChangelogOffset, TopicPartition};
use processor_runtime::kafka::{ChangelogEvent, ChangelogReader, Isolation, KafkaError, TRANSACTIONAL_ID_HEADER};

use super::Handle;
use super::consumer::committed_from;
use super::log::{Entry, Log, Written};

/// Reads changelog partitions.
#[derive(Debug)]
pub struct FakeChangelog {
    handle: Handle,
    isolation: Isolation,
    reading: BTreeMap<TopicPartition, Progress>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    position: i64,
    /// The end was told at this position; it is told again when the position has changed.
    end_told_at: Option<i64>,
}

/// An event that owns what it shows, so that nothing is locked while it is visited.
enum Met {
    Record(i64, Written),
    End(i64),
    OutOfRange,
}

impl FakeChangelog {
    pub(super) fn new(handle: Handle, isolation: Isolation) -> Self {
        Self { handle, isolation, reading: BTreeMap::new() }
    }

    /// Where this reader's view of a log ends: the last stable offset, or the high watermark.
    fn end(&self, log: &Log) -> i64 {
        match self.isolation {
            Isolation::ReadCommitted => log.last_stable_offset(),
            Isolation::ReadUncommitted => log.high_watermark(),
        }
    }

    fn visible(&self, log: &Log, position: i64, max: usize) -> Vec<(i64, Written)> {
        let owned = |(offset, written): (i64, &Written)| (offset, written.clone());
        match self.isolation {
            Isolation::ReadCommitted => committed_from(log, position).take(max).map(owned).collect(),
            Isolation::ReadUncommitted => {
                let records = log.from(position).filter_map(|(offset, entry)| match entry {
                    Entry::Record { written, .. } => Some((offset, written)),
                    Entry::Marker { .. } => None,
                });
                records.take(max).map(owned).collect()
            }
        }
    }

    /// What comes next in one partition, if anything.
    fn next(&self, log: &Log, progress: &mut Progress) -> Option<Met> {
        if progress.position < log.start() || progress.position > log.high_watermark() {
            return Some(Met::OutOfRange);
        }
        if let Some((offset, written)) = self.visible(log, progress.position, 1).pop() {
            progress.position = offset + 1;
            return Some(Met::Record(offset, written));
        }
        // What is left before the end are markers and aborted records.
        progress.position = progress.position.max(self.end(log));
        let is_news = progress.end_told_at.replace(progress.position) != Some(progress.position);
        is_news.then_some(Met::End(progress.position))
    }

    /// The next event of any partition, in their order.
    fn next_of_all(&mut self) -> Result<Option<(TopicPartition, Met)>, KafkaError> {
        let shared = self.handle.alive()?;
        let mut model = shared.lock();
        let mut reading = std::mem::take(&mut self.reading);
        let met = reading.iter_mut().find_map(|(partition, progress)| {
            let log = model.log(partition).filter(|_| !model.brokers.is_leaderless(partition))?;
            Some((partition.clone(), self.next(log, progress)?))
        });
        match &met {
            Some((partition, Met::OutOfRange)) => drop(reading.remove(partition)),
            Some((_, Met::Record(..))) => model.happened.replayed += 1,
            Some((_, Met::End(_))) | None => {}
        }
        self.reading = reading;
        Ok(met)
    }
}

impl ChangelogReader for FakeChangelog {
    fn read(&mut self, positions: &[(TopicPartition, ChangelogOffset)]) -> Result<(), KafkaError> {
        let shared = self.handle.alive()?;
        let model = shared.lock();
        for (partition, position) in positions {
            assert!(position.get() >= 0, "{partition} is read from an absolute offset, never from {position}");
            assert!(model.log(partition).is_some(), "{partition} is read and does not exist");
        }
        let progress = |position: &ChangelogOffset| Progress { position: position.get(), end_told_at: None };
        self.reading = positions.iter().map(|(partition, position)| (partition.clone(), progress(position))).collect();
        Ok(())
    }

    fn poll(
        &mut self,
        _wait: Duration,
        visit: &mut dyn FnMut(ChangelogEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), KafkaError> {
        while let Some((partition, met)) = self.next_of_all()? {
            let (topic, partition) = (&*partition.topic, partition.partition);
            let flow = visit(match &met {
                Met::Record(offset, written) => {
                    let header = written.headers.iter().find(|(name, _)| name == TRANSACTIONAL_ID_HEADER);
                    ChangelogEvent::Record {
                        topic,
                        partition,
                        offset: ChangelogOffset::new(*offset),
                        key: written.key.as_deref(),
                        value: written.value.as_deref(),
                        transactional_id: header.and_then(|(_, id)| id.as_deref()),
                    }
                }
                Met::End(position) => {
                    ChangelogEvent::End { topic, partition, position: ChangelogOffset::new(*position) }
                }
                Met::OutOfRange => ChangelogEvent::OutOfRange { topic, partition },
            });
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}
