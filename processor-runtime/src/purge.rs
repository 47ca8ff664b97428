//! Purging internal topics: what the tasks that read one have committed past is deleted, or the topic would only grow.
//!
//! It is the runtime's own, and no stable API.
//!
//! What goes was committed a round ago, so that its transaction has long ended everywhere, and the group says so too: a
//! worker that has slept since knows neither of a reset nor of a topic that was made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use processor_core::ids::{Offset, TopicPartition};

use crate::clock::Clock;
use crate::kafka::Committed;
use crate::kafka::admin::Admin;
use crate::kafka::cluster::ClusterSettings;
use crate::status::WorkerStatus;

/// Purges in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Purger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Purger {
    /// Purges these topics once in `every`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start<C: Clock + Send + Sync + 'static>(
        group: String,
        topics: BTreeSet<Arc<str>>,
        every: Duration,
        cluster: ClusterSettings,
        status: Arc<WorkerStatus<C>>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            let mut rounds = Rounds::default();
            let mut admin = None;
            while wait(every, &stopped) {
                let due = rounds.next(committed(&status, &topics));
                if !due.is_empty() {
                    purge(&mut admin, (&group, &cluster), &mut rounds, &due);
                }
            }
        };
        let thread = std::thread::Builder::new().name("purge".to_owned()).spawn(run)?;
        Ok(Self { stop, thread })
    }
}

impl Drop for Purger {
    /// It may be waiting for an answer of the cluster, which nobody needs any more; so it is not waited for.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
    }
}

/// False: stop.
fn wait(time: Duration, stop: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= until {
            return true;
        }
        std::thread::park_timeout(until - now);
    }
    false
}

/// Where the running tasks of this worker stand in these topics: everything before is committed.
fn committed<C: Clock>(status: &WorkerStatus<C>, topics: &BTreeSet<Arc<str>>) -> BTreeMap<TopicPartition, Offset> {
    let mut committed = BTreeMap::new();
    for thread in status.threads() {
        let snapshot = thread.snapshot();
        let inputs = snapshot.tasks.iter().flat_map(|task| &task.inputs);
        let internal = inputs.filter(|input| topics.contains(&input.partition.topic));
        committed.extend(internal.map(|input| (input.partition.clone(), input.position)));
    }
    committed
}

/// What was seen and done in the rounds before.
#[derive(Debug, Default)]
struct Rounds {
    committed: BTreeMap<TopicPartition, Offset>,
    purged: BTreeMap<TopicPartition, Offset>,
    /// The last failure, which is told once.
    told: Option<String>,
}

impl Rounds {
    /// What is due when this is committed: what was so in the round before, and was not purged then.
    fn next(&mut self, committed: BTreeMap<TopicPartition, Offset>) -> Vec<(TopicPartition, Offset)> {
        let before = std::mem::replace(&mut self.committed, committed);
        self.purged.retain(|partition, _| self.committed.contains_key(partition));
        let still_ours = before.into_iter().filter(|(partition, _)| self.committed.contains_key(partition));
        let is_new = |(partition, offset): &(TopicPartition, Offset)| {
            offset.get() > self.purged.get(partition).map_or(0, |purged| purged.get())
        };
        still_ours.filter(is_new).collect()
    }
}

fn partitions(due: &[(TopicPartition, Offset)]) -> Vec<TopicPartition> {
    due.iter().map(|(partition, _)| partition.clone()).collect()
}

/// What is due and no farther than the group has committed; what an open transaction holds comes in a later round.
fn agreed(
    committed: Vec<(TopicPartition, Committed)>,
    due: &[(TopicPartition, Offset)],
) -> Vec<(TopicPartition, Offset)> {
    let committed: BTreeMap<TopicPartition, Committed> = committed.into_iter().collect();
    let agreed = due.iter().filter_map(|(partition, due)| match committed.get(partition)? {
        Committed::At { offset, .. } => Some((partition.clone(), (*due).min(*offset))),
        Committed::Nothing | Committed::Unstable => None,
    });
    agreed.collect()
}

/// What fails is tried again in the next round; it costs space only.
fn purge(
    admin: &mut Option<Admin>,
    (group, cluster): (&str, &ClusterSettings),
    rounds: &mut Rounds,
    due: &[(TopicPartition, Offset)],
) {
    let client = match admin.take() {
        Some(client) => Ok(client),
        None => Admin::connect(cluster),
    };
    let results = client.and_then(|client| {
        let due = agreed(client.committed(group, &partitions(due), true)?, due);
        let results = if due.is_empty() { Vec::new() } else { client.delete_records(&due)? };
        Ok((client, results))
    });
    let failure = match results {
        Ok((client, results)) => {
            let mut failure = None;
            for ((partition, offset), result) in results {
                match result {
                    Ok(()) => {
                        tracing::debug!(%partition, %offset, "purged");
                        rounds.purged.insert(partition, offset);
                    }
                    Err(error) => failure = Some(error.message),
                }
            }
            // One that has failed may ask a leader that has moved for as long as it lives: another takes its place.
            *admin = failure.is_none().then_some(client);
            failure
        }
        Err(error) => Some(error.message),
    };
    match failure {
        Some(failure) if rounds.told.as_ref() != Some(&failure) => {
            tracing::warn!(
                "internal topics grow until they can be purged, and it is tried again: {failure}. The application needs the right \
                 to Delete its internal topics (deploy/acls --delete); where the cluster has no DeleteRecords, set \
                 repartition.purge.interval to 0 and watch the size of these topics"
            );
            rounds.told = Some(failure);
        }
        Some(_) => {}
        None => rounds.told = None,
    }
}

#[cfg(test)]
mod tests {
    use processor_core::ids::Partition;

    use super::*;

    fn at(offsets: &[(i32, i64)]) -> BTreeMap<TopicPartition, Offset> {
        offsets.iter().map(|&(number, offset)| (partition(number), Offset::new(offset))).collect()
    }

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("app-x-repartition", Partition::new(number))
    }

    #[test]
    fn what_is_purged_was_committed_a_round_before() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.next(at(&[(0, 10), (1, 0)])), []);
        assert_eq!(rounds.next(at(&[(0, 25), (1, 0)])), [(partition(0), Offset::new(10))]);
        assert_eq!(rounds.next(at(&[(0, 25), (1, 0)])), [(partition(0), Offset::new(25))]);
    }

    #[test]
    fn what_was_purged_is_not_purged_again() {
        let mut rounds = Rounds::default();
        rounds.next(at(&[(0, 10)]));
        for (partition, offset) in rounds.next(at(&[(0, 10)])) {
            rounds.purged.insert(partition, offset);
        }
        assert_eq!(rounds.next(at(&[(0, 10)])), []);
    }

    #[test]
    fn what_the_group_has_not_committed_stays() {
        let due = [(partition(0), Offset::new(1_000)), (partition(1), Offset::new(7)), (partition(2), Offset::new(7))];
        let at = |offset| Committed::At { offset: Offset::new(offset), metadata: String::new() };
        let committed = vec![(partition(0), at(300)), (partition(1), at(9)), (partition(2), Committed::Unstable)];
        assert_eq!(agreed(committed, &due), [(partition(0), Offset::new(300)), (partition(1), Offset::new(7))]);
        assert_eq!(agreed(vec![(partition(0), Committed::Nothing)], &due), []);
    }

    #[test]
    fn a_partition_that_has_left_is_somebody_elses() {
        let mut rounds = Rounds::default();
        rounds.next(at(&[(0, 10), (1, 20)]));
        assert_eq!(rounds.next(at(&[(1, 20)])), [(partition(1), Offset::new(20))]);
        assert_eq!(rounds.next(at(&[(0, 5), (1, 20)])), [(partition(1), Offset::new(20))]);
    }
}
