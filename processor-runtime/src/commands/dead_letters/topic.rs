//! A dead-letter topic, read from its start to its end of now, twice: once for the marks, once for the letters. So what is
//! remembered is a few bytes for each letter that was replayed, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use processor_core::ids::{Offset, Partition, TopicPartition};

use super::letter::{Closed, Kind, Letter, LetterId};
use crate::commands::CommandError;
use crate::commands::progress::Progress;
use crate::kafka::LogBounds;
use crate::kafka::admin::Admin;
use crate::kafka::cluster::{Cluster, ClusterSettings};
use crate::kafka::records::{RecordEvent, Records, StoredRecord};

/// How long a reader waits for something to arrive before it looks at the time.
const POLL: Duration = Duration::from_millis(100);
/// How long nothing may arrive: as long as an open transaction of a worker that was killed can be in the way.
const STILL_MAX: Duration = Duration::from_mins(1);

/// A dead-letter topic.
#[derive(Debug)]
pub(super) struct DeadLetterTopic {
    name: Arc<str>,
    cluster: Cluster,
    admin: Admin,
}

/// What is in a topic, and what was closed, at one moment.
#[derive(Debug)]
pub(super) struct Scan {
    bounds: BTreeMap<Partition, LogBounds>,
    closed: BTreeMap<LetterId, Closed>,
    /// The partitions that letters came from.
    origins: BTreeSet<TopicPartition>,
    others: u64,
}

impl Scan {
    /// How a letter was closed; `None` if it is open.
    pub(super) fn closed(&self, letter: &LetterId) -> Option<Closed> {
        self.closed.get(letter).copied()
    }

    /// The partitions that letters came from.
    pub(super) fn origins(&self) -> &BTreeSet<TopicPartition> {
        &self.origins
    }

    /// How many records are neither letters nor marks.
    pub(super) fn others(&self) -> u64 {
        self.others
    }
}

impl DeadLetterTopic {
    /// Connects.
    pub(super) fn find(settings: &ClusterSettings, name: &str) -> Result<Self, CommandError> {
        Ok(Self { name: name.into(), cluster: Cluster::new(settings.clone())?, admin: Admin::connect(settings)? })
    }

    /// Its name.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Reads all marks.
    ///
    /// IMPORTANT: to the high watermark and not to the last stable offset: an open transaction of a worker hides marks behind
    /// it that are committed, and their letters would be replayed twice.
    pub(super) fn scan(&self) -> Result<Scan, CommandError> {
        let bounds = self.admin.log_bounds(&self.name)?.ok_or_else(|| {
            CommandError::Failed(format!(
                "there is no topic '{}': name the one that the topology sends its dead letters to",
                self.name
            ))
        })?;
        let (mut closed, mut origins, mut others) = (BTreeMap::new(), BTreeSet::new(), 0);
        self.read(&bounds, |record| {
            match Kind::of(record) {
                Kind::Letter(letter) => drop(origins.insert(letter.origin)),
                // The first counts. Behind it there can be another only of another application's id.
                Kind::Mark(letter, how) => drop(closed.entry(letter).or_insert(how)),
                Kind::Other => others += 1,
            }
            Ok(())
        })?;
        Ok(Scan { bounds, closed, origins, others })
    }

    /// Visits all letters of the moment of a scan, partition by partition in the order of arrival.
    pub(super) fn letters(
        &self,
        scan: &Scan,
        mut visit: impl FnMut(Letter) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        self.read(&scan.bounds, |record| match Kind::of(record) {
            Kind::Letter(letter) => visit(*letter),
            Kind::Mark(..) | Kind::Other => Ok(()),
        })
    }

    /// One letter.
    pub(super) fn letter(&self, id: &LetterId) -> Result<Letter, CommandError> {
        let at = LogBounds { start: id.offset.get(), end: id.offset.get().saturating_add(1) };
        let known = self.admin.log_bounds(&self.name)?.unwrap_or_default();
        let is_inside = known.get(&id.partition).is_some_and(|log| log.start <= at.start && at.end <= log.end);
        let mut found = None;
        if is_inside {
            self.read(&BTreeMap::from([(id.partition, at)]), |record| {
                if let Kind::Letter(letter) = Kind::of(record)
                    && letter.id() == *id
                {
                    found = Some(*letter);
                }
                Ok(())
            })?;
        }
        found.ok_or_else(|| self.no_letter(id))
    }

    /// There is no such letter.
    pub(super) fn no_letter(&self, id: &LetterId) -> CommandError {
        CommandError::Failed(format!("there is no dead letter {id} in '{}'; `list` shows which there are", self.name))
    }

    /// Visits the committed records between bounds.
    fn read(
        &self,
        bounds: &BTreeMap<Partition, LogBounds>,
        mut visit: impl FnMut(StoredRecord) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut left: BTreeMap<Partition, LogBounds> =
            bounds.iter().filter(|(_, log)| log.start < log.end).map(|(partition, log)| (*partition, *log)).collect();
        let total = offsets_in(&left);
        let mut progress = Progress::of(u64::try_from(total).unwrap_or(0), "records read");
        let mut reader =
            Records::new(&self.cluster, &format!("{}:dead-letters", self.cluster.settings().application_id))?;
        let place = |partition: &Partition| TopicPartition::new(self.name.clone(), *partition);
        let positions: Vec<_> =
            left.iter().map(|(partition, log)| (place(partition), Offset::new(log.start))).collect();
        reader.read(&positions)?;
        let (mut remaining, mut moved_at) = (total, Instant::now());
        while let Some(first) = left.keys().next().copied() {
            let mut outcome = Ok(());
            reader.poll(POLL, &mut |event| {
                outcome = meet(event, &mut left, &mut visit);
                if outcome.is_ok() && !left.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome?;
            let before = std::mem::replace(&mut remaining, offsets_in(&left));
            progress.reach(u64::try_from(total - remaining).unwrap_or(0));
            if remaining < before {
                moved_at = Instant::now();
            } else if moved_at.elapsed() >= STILL_MAX {
                return Err(CommandError::Failed(format!(
                    "nothing of {} arrives for {STILL_MAX:?}: a transaction that is open there is in the way (it ends with its time-out), or its \
                     broker is away; try again",
                    place(&first)
                )));
            }
        }
        Ok(())
    }
}

/// How many offsets lie between the bounds.
fn offsets_in(logs: &BTreeMap<Partition, LogBounds>) -> i64 {
    logs.values().map(|log| log.end - log.start).sum()
}

/// Takes a step towards the ends. `left` holds what is still to be read.
fn meet(
    event: RecordEvent,
    left: &mut BTreeMap<Partition, LogBounds>,
    visit: &mut impl FnMut(StoredRecord) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (partition, next) = match &event {
        RecordEvent::Record(record) => (record.partition, record.offset.next().get()),
        RecordEvent::End(partition, position) => (*partition, position.get()),
    };
    let Some(log) = left.get_mut(&partition) else { return Ok(()) };
    log.start = next;
    let (is_inside, is_over) = (next <= log.end, next >= log.end);
    if is_over {
        left.remove(&partition);
    }
    match event {
        RecordEvent::Record(record) if is_inside => visit(record),
        RecordEvent::Record(_) | RecordEvent::End(..) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64) -> RecordEvent {
        RecordEvent::Record(StoredRecord {
            partition: Partition::new(partition),
            offset: Offset::new(offset),
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        })
    }

    #[test]
    fn reading_ends_at_the_ends_and_not_before_them() {
        let log = |start, end| LogBounds { start, end };
        let mut left = BTreeMap::from([(Partition::new(0), log(0, 3)), (Partition::new(1), log(5, 9))]);
        let mut seen = Vec::new();
        let mut meet = |event| {
            meet(event, &mut left, &mut |record: StoredRecord| {
                seen.push((record.partition.get(), record.offset.get()));
                Ok(())
            })
            .expect("the visitor takes everything");
            left.len()
        };
        assert_eq!(meet(record(0, 0)), 2);
        assert_eq!(meet(RecordEvent::End(Partition::new(0), Offset::new(1))), 2, "an open transaction is in the way");
        assert_eq!(meet(record(1, 8)), 1, "the last below the end");
        assert_eq!(meet(record(1, 9)), 1, "what came later is not of this moment");
        assert_eq!(meet(RecordEvent::End(Partition::new(0), Offset::new(4))), 0, "control records lie behind the last");
        assert_eq!(seen, [(0, 0), (1, 8)]);
    }
}
