//! The changelog reader of the fake.

use std::collections::BTreeMap;
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

    /// What has happened in one partition, at most `max` events.
    fn meet(&self, log: &Log, progress: &mut Progress, max: usize) -> Vec<Met> {
        if progress.position < log.start() || progress.position > log.high_watermark() {
            return vec![Met::OutOfRange];
        }
        let records = self.visible(log, progress.position, max);
        let all = records.len() < max;
        if let Some((offset, _)) = records.last() {
            progress.position = offset + 1;
        }
        let mut met: Vec<Met> = records.into_iter().map(|(offset, written)| Met::Record(offset, written)).collect();
        if all {
            // What is left before the end are markers and aborted records.
            progress.position = progress.position.max(self.end(log));
            if progress.end_told_at != Some(progress.position) {
                progress.end_told_at = Some(progress.position);
                met.push(Met::End(progress.position));
            }
        }
        met
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
        events_max: usize,
        visit: &mut dyn FnMut(ChangelogEvent<'_>),
    ) -> Result<(), KafkaError> {
        let mut met = Vec::new();
        {
            let shared = self.handle.alive()?;
            let mut model = shared.lock();
            let mut reading = std::mem::take(&mut self.reading);
            for (partition, progress) in &mut reading {
                let log = model.log(partition).expect("only known partitions are read");
                let events = self.meet(log, progress, events_max - met.len());
                met.extend(events.into_iter().map(|event| (partition.clone(), event)));
                if met.len() >= events_max {
                    break;
                }
            }
            for (partition, event) in &met {
                if matches!(event, Met::OutOfRange) {
                    reading.remove(partition);
                }
            }
            self.reading = reading;
            let records = met.iter().filter(|(_, event)| matches!(event, Met::Record(..))).count();
            model.happened.replayed += records as u64;
        }
        for (partition, event) in &met {
            let (topic, partition) = (&*partition.topic, partition.partition);
            visit(match event {
                Met::Record(offset, written) => {
                    let header = written.header.as_ref().filter(|(name, _)| name == TRANSACTIONAL_ID_HEADER);
                    ChangelogEvent::Record {
                        topic,
                        partition,
                        offset: ChangelogOffset::new(*offset),
                        key: written.key.as_deref(),
                        value: written.value.as_deref(),
                        transactional_id: header.map(|(_, id)| id.as_slice()),
                    }
                }
                Met::End(position) => {
                    ChangelogEvent::End { topic, partition, position: ChangelogOffset::new(*position) }
                }
                Met::OutOfRange => ChangelogEvent::OutOfRange { topic, partition },
            });
        }
        Ok(())
    }
}
