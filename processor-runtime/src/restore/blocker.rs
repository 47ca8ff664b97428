//! Fencing a dead owner: whoever died inside a transaction is in the way of its successor, and of every reader of
//! its outputs that waits for commits, until the broker times that transaction out. Initialising its transactional ids ends it now:
//! both, as nobody knows whose turn it was.
//!
//! Whom to fence is known from the metadata of the last commit, or, where that does not help (the owner never
//! committed), from the header on the changelog records of the open transaction. Fencing is harmless even if the owner
//! lives: it is fenced once, finds out, and recovers. Once: a second time would end nothing that the first has not, and
//! whoever is fenced again and again has to stop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{ChangelogOffset, TaskId, TopicPartition};
use processor_core::protocol::client_id::ClientId;
use processor_core::protocol::metadata::OffsetMetadata;

use super::RestoreError;
use super::recovery::{ChangelogSource, Recovery, Step};
use super::restorer::StepContext;
use crate::clock::Clock;
use crate::kafka::{
    ChangelogEvent, ChangelogReader, Committed, Isolation, Kafka, PRODUCERS, TransactionalId, TransactionalProducer,
};
use crate::seeded_bugs::{self, Rule};
use crate::state::{StateDirectory, TaskState};
use crate::transaction::{Initialised, Initialising};

/// How long a blocker that may be alive is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an id that was fenced is not fenced again, under whatever assignment; how long a fence that failed waits.
const FENCE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// After so long a producer that is to fence, or a look at a changelog's tail, is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// How long one step may spend on initialising.
const INIT_SLICE: Duration = Duration::from_millis(50);
/// How many events of a changelog's tail one step looks at.
const TAIL_EVENTS_A_STEP: usize = 5_000;

/// What is known of those who are in the way, and the fencing of one of them at a time.
pub(super) struct Blockers<K: Kafka> {
    own_id: TransactionalId,
    owners: BTreeMap<TaskId, Option<Arc<str>>>,
    /// Whoever committed last for a task that is ours now, and is not us: if it has left the group it may have left a
    /// transaction behind that holds outputs only. That is in nobody's way here, but in the way of their readers.
    former: BTreeSet<Arc<str>>,
    /// Their client ids.
    members: Option<Vec<String>>,
    to_fence: VecDeque<ToFence>,
    /// The fence that is under way.
    fencing: Option<Fencing<K::Producer>>,
    /// No fence begins before this time: the last one has failed.
    fence_at: Duration,
    /// Under this assignment.
    fenced: BTreeSet<TransactionalId>,
    fenced_at: BTreeMap<TransactionalId, Duration>,
    tail: Option<Tail<K::Changelog>>,
    tail_read_at: Option<Duration>,
}

/// A thread that is to be fenced.
struct ToFence {
    owner: TransactionalId,
    /// Those of its producers that are not fenced yet.
    ids: Vec<TransactionalId>,
}

/// The fencing of a thread.
struct Fencing<P> {
    owner: TransactionalId,
    /// Those of its producers that are not fenced yet.
    open: Vec<(TransactionalId, Initialising<P>)>,
}

/// A read-uncommitted look at the end of changelogs, for headers.
struct Tail<R> {
    reader: R,
    open: usize,
}

impl<K: Kafka> Blockers<K> {
    pub(super) fn new(own_id: TransactionalId) -> Self {
        Self {
            own_id,
            owners: BTreeMap::new(),
            former: BTreeSet::new(),
            members: None,
            to_fence: VecDeque::new(),
            fencing: None,
            fence_at: Duration::ZERO,
            fenced: BTreeSet::new(),
            fenced_at: BTreeMap::new(),
            tail: None,
            tail_read_at: None,
        }
    }

    /// The assignment is over; a fence that has begun is finished all the same.
    pub(super) fn forget(&mut self) {
        self.owners.clear();
        self.former.clear();
        self.members = None;
        self.to_fence.clear();
        self.fenced.clear();
        self.tail = None;
        self.tail_read_at = None;
    }

    /// Whether there is something to do though every task may be running.
    pub(super) fn is_busy(&self) -> bool {
        self.fencing.is_some() || !self.to_fence.is_empty() || !self.former.is_empty()
    }

    /// Whether the members are worth asking for.
    pub(super) fn needs_members(&self) -> bool {
        self.members.is_none() && !self.former.is_empty()
    }

    pub(super) fn unblocked(&mut self, task: &TaskId) {
        self.owners.remove(task);
    }

    pub(super) fn knows_owner(&self, task: &TaskId) -> bool {
        self.owners.contains_key(task)
    }

    pub(super) fn knows_members(&self) -> bool {
        self.members.is_some()
    }

    pub(super) fn remember_owner(&mut self, task: &TaskId, owner: Arc<str>) {
        if *owner != *self.own_id.0 {
            self.former.insert(owner.clone());
        }
        self.owners.insert(task.clone(), Some(owner));
    }

    pub(super) fn on_members(&mut self, members: Vec<String>, now: Duration) {
        self.members = Some(members);
        let gone: Vec<_> = std::mem::take(&mut self.former).into_iter().filter(|owner| self.is_gone(owner)).collect();
        for owner in gone {
            self.suspect(TransactionalId(owner), now);
        }
    }

    /// The offsets as they are, not waiting for open transactions, have been answered for these tasks.
    pub(super) fn on_owners<T: TaskState>(
        &mut self,
        tasks: &[TaskId],
        answers: &[(TopicPartition, Committed)],
        recoveries: &BTreeMap<TaskId, Recovery<T>>,
    ) {
        for task in tasks {
            let Some(recovery) = recoveries.get(task) else { continue };
            let of_task =
                answers.iter().filter(|(partition, _)| recovery.inputs.iter().any(|(_, own)| own == partition));
            let metadata = of_task.filter_map(|(_, committed)| match committed {
                Committed::At { metadata, .. } => OffsetMetadata::parse(metadata).ok(),
                Committed::Nothing | Committed::Unstable => None,
            });
            let owner = metadata.max_by_key(|metadata| metadata.batch).map(|metadata| metadata.transactional_id);
            self.owners.insert(task.clone(), owner);
        }
    }

    /// Decides whom to fence, and goes on fencing.
    pub(super) fn step<S: StateDirectory, C: Clock>(
        &mut self,
        ctx: &mut StepContext<'_, K, S, C>,
        recoveries: &mut BTreeMap<TaskId, Recovery<S::Task>>,
    ) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let mut unknown = Vec::new();
        for (task, recovery) in recoveries.iter() {
            let Some(since) = recovery.blocked_since else { continue };
            let patient = now < since + PATIENCE;
            match self.owners.get(task) {
                Some(Some(owner)) if !patient || self.is_gone(owner) => {
                    let id = TransactionalId(owner.clone());
                    // Our own ids are for our own producers to fence, which they do before anything else.
                    let in_vain = id == self.own_id || self.fenced_at.get(&id).is_some_and(|&at| now >= at + PATIENCE);
                    self.suspect(id, now);
                    if in_vain && !patient {
                        unknown.push(task.clone());
                    }
                }
                Some(None) if !patient => unknown.push(task.clone()),
                Some(_) | None => {}
            }
        }
        self.read_tails(ctx, recoveries, &unknown)?;
        self.fence(ctx)
    }

    /// Whether the group has no member with this transactional id, which its client id names.
    fn is_gone(&self, owner: &str) -> bool {
        self.members.as_ref().is_some_and(|members| !is_among(members, owner))
    }

    fn suspect(&mut self, id: TransactionalId, now: Duration) {
        let lately = self.fenced_at.get(&id).is_some_and(|&at| now < at + FENCE_AGAIN_AFTER);
        let under_way = self.fencing.as_ref().is_some_and(|fencing| fencing.owner == id);
        let before = !seeded_bugs::holds(Rule::DeadOwnerIsFenced)
            || lately
            || under_way
            || self.fenced.contains(&id)
            || self.to_fence.iter().any(|to_fence| to_fence.owner == id);
        if id != self.own_id && !before {
            let ids = id.of_both().to_vec();
            self.to_fence.push_back(ToFence { owner: id, ids });
        }
    }

    fn fence<S, C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        if self.fencing.is_none()
            && now >= self.fence_at
            && let Some(to_fence) = self.to_fence.pop_front()
        {
            let id = &to_fence.owner;
            tracing::warn!(transactional_id = %id, "its owner is gone or in the way: fencing it, so that no transaction of it stays open");
            self.fencing = Some(Fencing::of(to_fence, ctx)?);
        }
        let Some(Fencing { owner, mut open }) = self.fencing.take() else { return Ok(()) };
        let mut failed = None;
        // Both are asked before one is waited for: a living owner finds both fenced at once.
        for wait in [Duration::ZERO, INIT_SLICE] {
            let mut pending = Vec::with_capacity(PRODUCERS);
            for (id, initialising) in open {
                match initialising.step(ctx.clock, wait, GIVE_UP_AFTER) {
                    Ok(Initialised::Pending(initialising)) => pending.push((id, initialising)),
                    Ok(Initialised::Done(_)) => {}
                    Ok(Initialised::GivenUp) => failed = Some((id, "no answer".to_owned())),
                    Err(error) => failed = Some((id, error.to_string())),
                }
            }
            open = pending;
        }
        if let Some((id, why)) = failed {
            tracing::warn!(transactional_id = %id, "fencing failed, it is tried again: {why}");
            let ids = open.into_iter().map(|(id, _)| id).chain([id]).collect();
            self.to_fence.push_back(ToFence { owner, ids });
            self.fence_at = now + FENCE_AGAIN_AFTER;
        } else if open.is_empty() {
            self.fenced_at.insert(owner.clone(), ctx.clock.monotonic());
            self.fenced.insert(owner);
        } else {
            self.fencing = Some(Fencing { owner, open });
        }
        Ok(())
    }

    /// Looks into the changelogs' tails for the ids of transactions that never committed.
    fn read_tails<S: StateDirectory, C: Clock>(
        &mut self,
        ctx: &mut StepContext<'_, K, S, C>,
        recoveries: &BTreeMap<TaskId, Recovery<S::Task>>,
        unknown: &[TaskId],
    ) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let lately = self.tail_read_at.is_some_and(|at| now < at + FENCE_AGAIN_AFTER);
        if self.tail.is_none() && !unknown.is_empty() && !lately {
            self.tail_read_at = Some(now);
            let positions: Vec<_> = unknown.iter().flat_map(|task| tail_positions(&recoveries[task])).collect();
            if !positions.is_empty() {
                let client_id = format!("{}-tail", self.own_id);
                let mut reader = ctx.kafka.changelog(&client_id, Isolation::ReadUncommitted)?;
                reader.read(&positions)?;
                self.tail = Some(Tail { reader, open: positions.len() });
            }
        }
        let Some(tail) = &mut self.tail else { return Ok(()) };
        let mut found = Vec::new();
        let mut ended = 0;
        let mut events = 0;
        tail.reader.poll(Duration::ZERO, &mut |event| {
            match event {
                ChangelogEvent::Record { transactional_id: Some(id), .. } => {
                    found.extend(std::str::from_utf8(id).map(Arc::<str>::from));
                }
                ChangelogEvent::Record { transactional_id: None, .. } => {}
                ChangelogEvent::End { .. } | ChangelogEvent::OutOfRange { .. } => ended += 1,
            }
            events += 1;
            if events >= TAIL_EVENTS_A_STEP { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        tail.open = tail.open.saturating_sub(ended);
        if tail.open == 0 || self.tail_read_at.is_some_and(|at| now >= at + GIVE_UP_AFTER) {
            self.tail = None;
        }
        for id in found {
            self.suspect(TransactionalId(id), now);
        }
        Ok(())
    }
}

impl<P: TransactionalProducer> Fencing<P> {
    fn of<K: Kafka<Producer = P>, S, C: Clock>(
        ToFence { owner, ids }: ToFence,
        ctx: &StepContext<'_, K, S, C>,
    ) -> Result<Self, RestoreError> {
        let mut open = Vec::with_capacity(ids.len());
        for id in ids {
            let producer = ctx.kafka.producer(&id, &[])?;
            open.push((id, Initialising::new(producer, ctx.clock)));
        }
        Ok(Self { owner, open })
    }
}

/// Where to begin looking: behind what is known to be committed.
fn tail_positions<T: TaskState>(recovery: &Recovery<T>) -> Vec<(TopicPartition, ChangelogOffset)> {
    let stored = recovery.state.as_ref().map(|state| state.positions().changelogs.clone()).unwrap_or_default();
    let position = |(slot, changelog): (usize, &Option<ChangelogSource>)| {
        let reached = match &recovery.step {
            Step::Replaying(replay) => replay.stores[slot].map(|progress| progress.reached),
            Step::Committed | Step::Bounds { .. } | Step::Planned { .. } | Step::Replayed(_) => {
                stored.get(slot).copied().flatten()
            }
        };
        let partition = changelog.as_ref()?.partition.clone();
        Some((partition, reached.unwrap_or(ChangelogOffset::new(0))))
    };
    recovery.changelogs.iter().enumerate().filter_map(position).collect()
}

/// Whether one of these client ids names this transactional id.
fn is_among(members: &[String], owner: &str) -> bool {
    members.iter().any(|member| ClientId::parse(member).transactional_id == owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_says_where_it_is_asked_is_alive_too() {
        let members = ["app:one:0".to_owned(), "app:two:0@two.example:80".to_owned()];
        assert!(is_among(&members, "app:one:0") && is_among(&members, "app:two:0"));
        assert!(!is_among(&members, "app:two:1") && !is_among(&members, "app:two:0@two.example:80"));
    }
}
