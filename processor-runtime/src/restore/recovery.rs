//! One task on its way from "assigned" to "running": "Getting a partition" of `ARCHITECTURE.md` as a state machine.
//!
//! ```text
//! Committed ──C──▶ Bounds ──E──▶ Planned ──plan──▶ Replaying ──position ≥ E──▶ Replayed
//! ```
//! The steps are taken by what arrives; nothing here waits. The order is the proof: E is asked for only when every C of
//! the task is known, so all that was committed up to C lies below E.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{
    BatchId, ChangelogOffset, InputIndex, Offset, StoreIndex, TaskId, Timestamp, TopicPartition,
};
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::protocol::restore::{self, RestoreRefusal, StartRule, StoreFacts, StorePlan};
use processor_core::task::{ChangeSet, Task};

use super::RestoreError;
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Committed, Isolation, LogBounds};
use crate::seeded_bugs::{self, Rule};
use crate::state::{Permit, Positions, RestoredBatch, StateError, TaskState};
use crate::status::RestoreStatus;

/// Why a store without a changelog begins empty.
const NOT_AS_COMMITTED: &str = "it has no changelog and is not as the last commit left it (the task ran elsewhere meanwhile, or a \
     commit did not reach it), so it begins empty";

/// Where a store's changelog is.
#[derive(Clone, Debug)]
pub struct ChangelogSource {
    /// The store.
    pub store: Arc<str>,
    /// The partition that holds this task's part of it.
    pub partition: TopicPartition,
    /// `delete.retention.ms` of the topic.
    pub delete_retention_ms: i64,
}

/// A task that is being recovered.
#[derive(Debug)]
pub struct Recovery<T> {
    pub(super) task: Task,
    pub(super) inputs: Vec<(InputIndex, TopicPartition)>,
    /// The names of its stores.
    stores: Vec<Arc<str>>,
    /// In the order of the stores; `None` for a store without one.
    pub(super) changelogs: Vec<Option<ChangelogSource>>,
    /// Open state; `None` while another thread holds it, and for a task without stores.
    pub(super) state: Option<T>,
    pub(super) step: Step,
    /// Before this time the state is not opened again: the disk has refused.
    pub(super) open_at: Duration,
    /// Since when it has been on its way.
    pub(super) since: Option<Duration>,
    /// Since when a transaction of somebody else has been in the way.
    pub(super) blocked_since: Option<Duration>,
    /// Whether no offset was committed when records were, and was asked for again.
    asked_again: bool,
    /// Of each store, the end named by the commit behind which a committed record was found, for which it was asked again.
    asked_behind: Vec<Option<ChangelogOffset>>,
    /// The keys of records that are committed behind the end that the last commit names.
    torn: BTreeSet<(StoreIndex, Vec<u8>)>,
    /// What the state holds of them, once it is complete.
    written_over: ChangeSet,
    pub(super) changes: ChangeSet,
    pub(super) records_replayed: u64,
    /// When the replay began.
    pub(super) replaying_since: Option<Duration>,
}

#[derive(Debug)]
pub(super) enum Step {
    Committed,
    Bounds { committed: Vec<CommittedInput> },
    Planned { committed: Vec<CommittedInput>, bounds: BTreeMap<TopicPartition, LogBounds> },
    Replaying(Replay),
    Replayed(Replay),
}

/// What was committed for one input.
#[derive(Clone, Debug)]
pub(super) struct CommittedInput {
    input: InputIndex,
    partition: TopicPartition,
    committed: Option<(Offset, Option<OffsetMetadata>)>,
}

#[derive(Debug)]
pub(super) struct Replay {
    /// In the order of the stores; `None` for a store without a changelog.
    pub(super) stores: Vec<Option<StoreReplay>>,
    start: Vec<(InputIndex, Offset)>,
    committed: bool,
    stream_time: Option<Timestamp>,
    batch: BatchId,
    /// When local state was written that lacks records: as old as that it may not be at the end.
    continued_from: Option<Timestamp>,
    /// When the replay began, if a store is restored in full.
    from_nothing_since: Option<Timestamp>,
}

impl Replay {
    /// Changelog offsets before it, of all stores together.
    pub(super) fn offsets_left(&self) -> u64 {
        let of_store = |store: &StoreReplay| store.until.get().saturating_sub(store.reached.get());
        self.stores.iter().flatten().map(|store| u64::try_from(of_store(store)).unwrap_or(0)).sum()
    }

    /// Changelog offsets behind it, of all stores together; many of them may have held nothing any more.
    fn offsets_done(&self) -> u64 {
        let of_store = |store: &StoreReplay| store.reached.get().saturating_sub(store.from.get());
        self.stores.iter().flatten().map(|store| u64::try_from(of_store(store)).unwrap_or(0)).sum()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StoreReplay {
    pub(super) from: ChangelogOffset,
    pub(super) reached: ChangelogOffset,
    pub(super) until: ChangelogOffset,
    /// The highest end that the commit of any input names: nothing that is behind it was ever committed.
    named_end: Option<ChangelogOffset>,
    /// Where something is all the same.
    torn_from: Option<ChangelogOffset>,
    /// The end that the reader has last seen, if it has seen one.
    pub(super) end_seen: bool,
}

impl StoreReplay {
    /// How far the base holds the changelog: what is torn stays to be found until it is written over.
    fn contained(&self) -> ChangelogOffset {
        self.torn_from.unwrap_or(self.reached)
    }
}

/// A task that stands where it was committed, with all committed state.
#[derive(Debug)]
pub struct Recovered<T> {
    /// The task, started.
    pub task: Task,
    /// Its state; `None` if it has no stores.
    pub state: Option<T>,
    /// How far its changelogs are written, for the metadata of the next commit.
    pub changelog_ends: Vec<Option<ChangelogOffset>>,
    /// The last batch that was committed.
    pub batch: BatchId,
    /// How many changelog records were replayed.
    pub records_replayed: u64,
    /// What the next commit must write once more, as it is in the state: the changelog holds, as committed, what a transaction
    /// has written whose offsets were not.
    pub written_over: ChangeSet,
}

impl<T: TaskState> Recovery<T> {
    /// Begins to recover a task with these stores. `state`: its open state, if it is at hand.
    pub fn new(
        task: Task,
        inputs: Vec<(InputIndex, TopicPartition)>,
        stores: Vec<Arc<str>>,
        changelogs: Vec<Option<ChangelogSource>>,
        state: Option<T>,
    ) -> Self {
        Self {
            task,
            inputs,
            stores,
            asked_behind: vec![None; changelogs.len()],
            torn: BTreeSet::new(),
            written_over: ChangeSet::default(),
            changelogs,
            state,
            step: Step::Committed,
            open_at: Duration::ZERO,
            since: None,
            blocked_since: None,
            asked_again: false,
            changes: ChangeSet::default(),
            records_replayed: 0,
            replaying_since: None,
        }
    }

    /// Gives back what outlives the assignment.
    pub fn into_parts(self) -> (Task, Option<T>) {
        (self.task, self.state)
    }

    /// Gives the state up and begins again.
    pub(super) fn begin_again(&mut self, open_at: Duration) -> Option<T> {
        self.ask_anew();
        self.open_at = open_at;
        self.state.take()
    }

    pub(super) fn needs_state(&self) -> bool {
        self.state.is_none() && !self.changelogs.is_empty()
    }

    /// C has been answered. `false`: a transaction that holds an offset of this task is open, ask again.
    pub(super) fn on_committed(
        &mut self,
        answers: &BTreeMap<TopicPartition, Committed>,
        now: Duration,
    ) -> Result<bool, RestoreError> {
        let mut found = Vec::new();
        for (input, partition) in &self.inputs {
            let committed = match answers.get(partition) {
                Some(Committed::At { offset, metadata }) => Some((*offset, parse_metadata(partition, metadata)?)),
                Some(Committed::Nothing) => None,
                Some(Committed::Unstable) => {
                    self.blocked_since.get_or_insert(now);
                    return Ok(false);
                }
                None => return Ok(false),
            };
            found.push(CommittedInput { input: *input, partition: partition.clone(), committed });
        }
        self.blocked_since = None;
        self.step = Step::Bounds { committed: found };
        Ok(true)
    }

    /// The partitions whose bounds are needed: the changelogs', and those of inputs that have no offset yet.
    pub(super) fn bounds_needed(&self) -> Vec<TopicPartition> {
        let Step::Bounds { committed } = &self.step else { return Vec::new() };
        let unknown = committed.iter().filter(|input| input.committed.is_none()).map(|input| input.partition.clone());
        self.changelogs.iter().flatten().map(|changelog| changelog.partition.clone()).chain(unknown).collect()
    }

    /// E has been answered.
    pub(super) fn on_bounds(&mut self, bounds: &BTreeMap<TopicPartition, LogBounds>) {
        let needed = self.bounds_needed();
        if let Step::Bounds { committed } = &self.step
            && needed.iter().all(|partition| bounds.contains_key(partition))
        {
            let bounds = needed.into_iter().map(|partition| (partition.clone(), bounds[&partition])).collect();
            self.step = Step::Planned { committed: committed.clone(), bounds };
        }
    }

    /// Plans the replay, once everything is known and the state is open.
    pub(super) fn plan(&mut self, rule: StartRule, clock: &impl Clock) -> Result<(), RestoreError> {
        if self.needs_state() {
            return Ok(());
        }
        let Step::Planned { committed, bounds } = &self.step else { return Ok(()) };
        let newest = newest_metadata(committed);
        let any_committed = is_any_committed(committed);
        let start = start_offsets(committed, bounds, rule)?;
        let now = clock.wall();
        let mut stores = Vec::new();
        let mut wipes = Vec::new();
        let (mut continued_from, mut from_nothing_since) = (None, None);
        let local_lost = self.state.as_ref().is_some_and(|state| !is_as_committed(state.positions(), newest));
        for (slot, changelog) in self.changelogs.iter().enumerate() {
            let positions = self.state.as_ref().expect("checked above: a task with stores has its state").positions();
            let Some(changelog) = changelog else {
                wipes.extend(local_lost.then(|| (slot, NOT_AS_COMMITTED.to_owned())));
                stores.push(None);
                continue;
            };
            let local = (positions.changelogs[slot], now.get().saturating_sub(positions.written_at.get()));
            let facts = facts(committed, changelog, bounds[&changelog.partition], local);
            let StorePlan { wipe, from, until, lacks_records } =
                restore::plan(&facts).map_err(|refusal| self.refused(changelog, refusal))?;
            if lacks_records {
                continued_from = Some(positions.written_at);
            } else if facts.stored.is_none() || wipe.is_some() {
                from_nothing_since = Some(now);
            }
            wipes.extend(wipe.map(|reason| (slot, format!("{reason}, so it is restored in full"))));
            let named_end = facts.named_end;
            stores.push(Some(StoreReplay { from, reached: from, until, named_end, torn_from: None, end_seen: false }));
        }
        let replay = Replay {
            stores,
            start,
            committed: any_committed,
            stream_time: newest.and_then(|metadata| metadata.stream_time),
            batch: newest.map_or(BatchId::NONE, |metadata| metadata.batch),
            continued_from,
            from_nothing_since,
        };
        failpoints::at(Failpoint::InRestore);
        for (slot, reason) in wipes {
            let store = &self.stores[slot];
            tracing::warn!(task = %self.task.id(), %store, "the local state of this store is wiped: {reason}");
            self.wipe_store(slot)?;
        }
        self.replaying_since = Some(clock.monotonic());
        self.step = Step::Replaying(replay);
        Ok(())
    }

    fn refused(&self, changelog: &ChangelogSource, refusal: RestoreRefusal) -> RestoreError {
        let (task, partition) = (self.task.id(), &changelog.partition);
        RestoreError::stop(match refusal {
            RestoreRefusal::ChangelogLost { named_end, log_end } => format!(
                "task {task}: changelog {partition} ends at {log_end}, but a commit names {named_end} as its end: it has lost committed \
                 records of store '{}' (was it deleted, or an unclean leader elected?). Restore the topic, or start over with another application id",
                changelog.store
            ),
            RestoreRefusal::OffsetsLost => offsets_lost(task, partition),
        })
    }

    fn wipe_store(&mut self, slot: usize) -> Result<(), RestoreError> {
        let store = StoreIndex::new(u16::try_from(slot).expect("build() bounds the number of stores"));
        let state = self.state.as_mut().expect("only stores that are open are wiped");
        state.wipe(store).map_err(RestoreError::from)
    }

    /// A committed record of a store's changelog has been read. `true`: everything is asked for again, and where the reader
    /// stands is of no use.
    pub(super) fn on_record(
        &mut self,
        store: usize,
        offset: ChangelogOffset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, RestoreError> {
        let Step::Replaying(replay) = &mut self.step else { return Ok(false) };
        let changelog = self.changelogs[store].as_ref().expect("only stores with a changelog are read");
        let progress = replay.stores[store].as_mut().expect("only stores with a changelog are read");
        let partition = &changelog.partition;
        if !replay.committed {
            if self.asked_again {
                return Err(RestoreError::stop(offsets_lost(self.task.id(), partition)));
            }
            // The task may have moved, and whoever has it may have committed since we asked: we hear of it later.
            self.asked_again = true;
            self.ask_anew();
            return Ok(true);
        }
        let Some(key) = key else {
            return Err(RestoreError::stop(format!(
                "{partition}@{offset} has no key: it was not written by this application; keep others from writing to changelog topics"
            )));
        };
        assert!(offset >= progress.reached, "EO-8: {partition}@{offset} came after {} was reached", progress.reached);
        let index = StoreIndex::new(u16::try_from(store).expect("build() bounds the number of stores"));
        let is_behind =
            |named_end: &ChangelogOffset| offset >= *named_end && seeded_bugs::holds(Rule::NamedEndIsTheEnd);
        if let Some(named_end) = progress.named_end.filter(is_behind) {
            if self.asked_behind[store] != Some(named_end) {
                // Here, too, somebody else may have committed since we asked.
                self.asked_behind[store] = Some(named_end);
                self.ask_anew();
                return Ok(true);
            }
            if progress.torn_from.is_none() {
                progress.torn_from = Some(offset);
                tell_torn(self.task.id(), partition, offset, named_end);
            }
            self.torn.insert((index, key.to_vec()));
        } else {
            self.records_replayed += 1;
            self.changes.push(index, key, value);
        }
        progress.reached = offset.next();
        progress.end_seen = false;
        self.blocked_since = None;
        Ok(false)
    }

    /// The reader stands at the end of what it may see.
    pub(super) fn on_end(&mut self, store: usize, position: ChangelogOffset, now: Duration) {
        let Step::Replaying(replay) = &mut self.step else { return };
        let progress = replay.stores[store].as_mut().expect("only stores with a changelog are read");
        progress.end_seen = true;
        if position > progress.reached {
            progress.reached = position;
            self.blocked_since = None;
        }
        if progress.reached < progress.until {
            self.blocked_since.get_or_insert(now);
        }
    }

    /// Everything is asked for again: what was known is not what is there.
    pub(super) fn ask_anew(&mut self) {
        self.changes.clear();
        self.torn.clear();
        self.step = Step::Committed;
    }

    /// Writes what was read into the base, with the position (EO-3), and looks whether the end is reached.
    pub(super) fn apply_read(&mut self, clock: &impl Clock) -> Result<(), RestoreError> {
        let Step::Replaying(replay) = &self.step else { return Ok(()) };
        // Without a committed offset there was nothing to read but what a first transaction left that died: a position
        // behind that would look like state whose offset is lost.
        if let Some(state) = self.state.as_mut().filter(|_| replay.committed) {
            let mut positions = state.positions().clone();
            let mut moved = false;
            for (stored, progress) in positions.changelogs.iter_mut().zip(&replay.stores) {
                let Some(progress) = progress else { continue };
                let contained = progress.contained();
                if contained > progress.from && *stored != Some(contained) {
                    *stored = Some(contained);
                    moved = true;
                }
            }
            if moved {
                // While the tail is being replayed the age still counts from the state that is continued.
                positions.written_at = replay.continued_from.unwrap_or_else(|| clock.wall());
                apply(state, &self.changes, &positions)?;
                failpoints::at(Failpoint::BetweenRestoreBatches);
            }
            self.changes.clear();
        }
        if replay.stores.iter().flatten().all(|progress| progress.reached >= progress.until)
            && let Step::Replaying(replay) = std::mem::replace(&mut self.step, Step::Committed)
        {
            self.step = Step::Replayed(replay);
        }
        Ok(())
    }

    /// Writes what the commit said beside the values, once the end is reached; the task can start then. `false`: it took so
    /// long that deleted keys could come back, and begins again from nothing.
    pub(super) fn seal(&mut self, clock: &impl Clock) -> Result<bool, RestoreError> {
        let Step::Replayed(replay) = &self.step else { panic!("only what has reached its end is sealed") };
        let outlasted = |since: Option<Timestamp>| {
            let young =
                |since, log: &ChangelogSource| restore::still_young(since, clock.wall(), log.delete_retention_ms);
            since.is_some_and(|since| !self.changelogs.iter().flatten().all(|log| young(since, log)))
        };
        let (tail, all) = (outlasted(replay.continued_from), outlasted(replay.from_nothing_since));
        if tail || all {
            for slot in 0..self.changelogs.len() {
                if self.changelogs[slot].is_some() {
                    self.wipe_store(slot)?;
                }
            }
            self.ask_anew();
        }
        if all {
            return Err(self.restore_is_too_slow());
        }
        if tail {
            tracing::warn!(task = %self.task.id(), "the restore outlasted the changelog's delete.retention.ms: it starts over in full");
            return Ok(false);
        }
        let Step::Replayed(replay) = &self.step else { unreachable!("it was neither") };
        if let Some(state) = &mut self.state {
            let mut positions = state.positions().clone();
            positions.stream_time = positions.stream_time.max(replay.stream_time);
            positions.batch = positions.batch.max(replay.batch);
            if &positions != state.positions() {
                failpoints::at(Failpoint::BeforePosition);
                positions.written_at = clock.wall();
                apply(state, &ChangeSet::default(), &positions)?;
            }
            let ahead = state.positions().changelogs.iter().zip(&replay.stores);
            for (stored, progress) in ahead {
                let reachable = progress.map(|progress| progress.reached.max(progress.until));
                let within = stored.is_none_or(|stored| reachable.is_some_and(|reachable| stored <= reachable));
                assert!(within, "EO-4: the base of {} is not ahead of the committed changelog", self.task.id());
            }
        }
        self.look_up_torn()?;
        Ok(true)
    }

    /// What the changelog should say in place of what is torn.
    fn look_up_torn(&mut self) -> Result<(), RestoreError> {
        self.written_over.clear();
        let Some(state) = &self.state else { return Ok(()) };
        let mut value = Vec::new();
        for (store, key) in &self.torn {
            value.clear();
            let is_there = state.get(*store, key, &mut value)?;
            self.written_over.push(*store, key, is_there.then_some(&value));
        }
        Ok(())
    }

    /// Beginning again would take as long again.
    fn restore_is_too_slow(&self) -> RestoreError {
        let topics = self
            .changelogs
            .iter()
            .flatten()
            .map(|log| format!("{} ({} ms)", log.partition.topic, log.delete_retention_ms));
        RestoreError::stop(format!(
            "task {}: restoring its state in full took longer than its changelogs keep deletions (delete.retention.ms of {}), so keys deleted \
             meanwhile could come back: raise it above the time of a full restore with kafka-configs --alter --entity-type topics, and start again",
            self.task.id(),
            topics.collect::<Vec<_>>().join(", ")
        ))
    }

    /// Starts a task that was sealed; `now` is the time of day, for the schedules that its operators make.
    pub(super) fn finish(mut self, now: Timestamp) -> Result<Recovered<T>, RestoreError> {
        let Step::Replayed(replay) = &self.step else { panic!("only what was sealed is finished") };
        let positions = self.state.as_ref().map(TaskState::positions);
        let stream_time = positions.map_or(replay.stream_time, |positions| positions.stream_time);
        let batch = positions.map_or(replay.batch, |positions| positions.batch);
        // A changelog that holds nothing yet ends where it begins: that is named, too, so that nothing comes up behind it unseen.
        let end = |(stored, progress): (&Option<ChangelogOffset>, &Option<StoreReplay>)| {
            stored.or_else(|| progress.map(|progress| progress.from))
        };
        let changelogs = positions.map(|positions| positions.changelogs.iter().zip(&replay.stores));
        let changelog_ends = changelogs.into_iter().flatten().map(end).collect();
        let started = self.task.start(&replay.start, stream_time, now);
        started.map_err(|failure| RestoreError::stop(format!("task {}: {failure}", self.task.id())))?;
        failpoints::at(Failpoint::AfterRestore);
        let (records_replayed, written_over) = (self.records_replayed, self.written_over);
        Ok(Recovered { task: self.task, state: self.state, changelog_ends, batch, records_replayed, written_over })
    }

    /// What it waits for, for people.
    pub(super) fn waits_for(&self) -> &'static str {
        match &self.step {
            _ if self.needs_state() => "its state, which another thread holds or the disk refuses",
            Step::Committed if self.blocked_since.is_some() => "the end of an open transaction that holds its offset",
            Step::Committed => "its committed offset",
            Step::Bounds { .. } => "the ends of its changelogs",
            Step::Replaying(_) if self.blocked_since.is_some() => "the end of an open transaction in its changelog",
            Step::Planned { .. } | Step::Replaying(_) | Step::Replayed(_) => "its changelog",
        }
    }

    /// How long the rest takes at the rate so far; `None`: nothing was read yet, or something else is in the way.
    pub(super) fn time_left(&self, now: Duration) -> Option<Duration> {
        let (Step::Replaying(replay), None, Some(since)) = (&self.step, self.blocked_since, self.replaying_since)
        else {
            return None;
        };
        let (done, left) = (replay.offsets_done() as f64, replay.offsets_left() as f64);
        let per_offset = now.saturating_sub(since).as_secs_f64() / done;
        Duration::try_from_secs_f64(left * per_offset).ok()
    }

    /// How far it is.
    pub(super) fn status(&self, now: Duration) -> RestoreStatus {
        let remaining = match &self.step {
            Step::Replaying(replay) | Step::Replayed(replay) => Some(replay.offsets_left()),
            Step::Committed | Step::Bounds { .. } | Step::Planned { .. } => None,
        };
        RestoreStatus {
            replayed: self.records_replayed,
            remaining,
            time_left: self.time_left(now),
            waits_for: self.waits_for(),
        }
    }

    /// The transactional id that the last commit names, as far as it is known.
    pub(super) fn last_owner(&self) -> Option<Arc<str>> {
        match &self.step {
            Step::Bounds { committed } | Step::Planned { committed, .. } => {
                newest_metadata(committed).map(|metadata| metadata.transactional_id.clone())
            }
            Step::Committed | Step::Replaying(_) | Step::Replayed(_) => None,
        }
    }
}

fn start_offsets(
    committed: &[CommittedInput],
    bounds: &BTreeMap<TopicPartition, LogBounds>,
    rule: StartRule,
) -> Result<Vec<(InputIndex, Offset)>, RestoreError> {
    let resolve = |input: &CommittedInput| {
        let offset = input.committed.as_ref().map(|(offset, _)| *offset);
        let log = bounds.get(&input.partition).copied().unwrap_or(LogBounds { start: 0, end: 0 });
        let start = restore::start_offset(offset, rule, Offset::new(log.start), Offset::new(log.end));
        let start = start.ok_or_else(|| RestoreError::stop(format!(
            "no offset is committed for {}, and auto.offset.reset is 'none': commit one with kafka-consumer-groups --reset-offsets, \
             or set auto.offset.reset to earliest or latest for the first start", input.partition)))?;
        Ok((input.input, start))
    };
    committed.iter().map(resolve).collect()
}

fn apply<T: TaskState>(state: &mut T, changes: &ChangeSet, positions: &Positions) -> Result<(), StateError> {
    let read = RestoredBatch::read_with(Isolation::ReadCommitted);
    state.apply(Permit::restored(&read), changes, positions)
}

/// Whether a state is what the newest commit left; one that never had a batch is empty, and nothing is lost with it.
fn is_as_committed(stored: &Positions, newest: Option<&OffsetMetadata>) -> bool {
    let committed = newest.map_or((BatchId::NONE, None), |metadata| (metadata.batch, metadata.stream_time));
    !seeded_bugs::holds(Rule::LocalStoreIsExactOrEmpty)
        || stored.batch == BatchId::NONE
        || restore::is_as_committed((stored.batch, stored.stream_time), committed)
}

fn metadata_of(committed: &[CommittedInput]) -> impl Iterator<Item = &OffsetMetadata> {
    committed.iter().filter_map(|input| input.committed.as_ref()?.1.as_ref())
}

fn newest_metadata(committed: &[CommittedInput]) -> Option<&OffsetMetadata> {
    metadata_of(committed).max_by_key(|metadata| metadata.batch)
}

fn is_any_committed(inputs: &[CommittedInput]) -> bool {
    inputs.iter().any(|input| input.committed.is_some())
}

/// What is known of a store before its replay. `local`: how far its base holds the changelog, and how old that is.
fn facts(
    committed: &[CommittedInput],
    changelog: &ChangelogSource,
    log: LogBounds,
    (stored, stored_age_ms): (Option<ChangelogOffset>, i64),
) -> StoreFacts {
    StoreFacts {
        committed: is_any_committed(committed),
        named_end: highest_end(committed, &changelog.store),
        log_start: ChangelogOffset::new(log.start),
        log_end: ChangelogOffset::new(log.end),
        stored,
        stored_age_ms,
        delete_retention_ms: changelog.delete_retention_ms,
    }
}

/// The end of a store's changelog. Every commit names it for all inputs; an input that was not read for a while may name an
/// older one.
fn highest_end(committed: &[CommittedInput], store: &str) -> Option<ChangelogOffset> {
    metadata_of(committed).filter_map(|metadata| metadata.changelog_end(store)).max()
}

/// Offsets that a person has set carry no metadata, and that is right; anything else must be ours.
fn parse_metadata(partition: &TopicPartition, text: &str) -> Result<Option<OffsetMetadata>, RestoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = OffsetMetadata::parse(text);
    parsed.map(Some).map_err(|error| {
        RestoreError::stop(format!(
            "{partition}: {error}. Is another program, or a newer version of this one, in the group?"
        ))
    })
}

/// EO-1: a transaction that writes a changelog commits the task's offset, whose metadata names the changelog's end. So what is
/// committed behind that end is of a transaction that the brokers have ended both ways.
fn tell_torn(task: &TaskId, partition: &TopicPartition, offset: ChangelogOffset, named_end: ChangelogOffset) {
    tracing::error!(
        %task,
        "EO-4: {partition}@{offset} is committed, and the last commit of the task ends at {named_end}: the brokers have committed a part of a \
         transaction and aborted the rest (Kafka can where a coordinator dies over its decision and comes back with it alone), the \
         offset has gone back (lost, or aborted by hand), or another program writes to this topic. It is not taken, and what it says is \
         written over with the next commit. Records of the same transaction may stand in output topics, and are processed again: \
         see 'A transaction that the brokers tore' in docs/operating.md"
    );
}

fn offsets_lost(task: &TaskId, partition: &TopicPartition) -> String {
    format!(
        "task {task}: there is committed state in {partition}, but no committed offset that it belongs to: offsets were deleted or have \
         expired (offsets.retention.minutes), or the brokers have torn the task's first transaction. Either set the offset where processing \
         shall go on with kafka-consumer-groups --reset-offsets, if the task ever had one, or delete the application's changelog topics and its \
         state directory to start over"
    )
}

#[cfg(test)]
mod tests {
    use processor_core::ids::Partition;

    use super::*;

    /// An input that was taken out of a topology and put back in names the end of that time, with a batch of that time.
    fn one_input_is_back() -> [CommittedInput; 2] {
        let named = |topic: &str, text: &str| CommittedInput {
            input: InputIndex::new(0),
            partition: TopicPartition::new(topic, Partition::new(0)),
            committed: Some((Offset::new(7), Some(OffsetMetadata::parse(text).expect("it is of this version")))),
        };
        [named("back", "p1;b=1000;x=w;s=500"), named("stayed", "p1;b=9;x=w;s=900")]
    }

    #[test]
    fn the_end_of_a_changelog_is_the_highest_that_any_input_names() {
        let committed = one_input_is_back();
        assert_eq!(newest_metadata(&committed).expect("both have some").batch, BatchId::new(1000));
        assert_eq!(highest_end(&committed, "s"), Some(ChangelogOffset::new(900)));
        assert_eq!(highest_end(&committed, "another"), None);
    }

    #[test]
    fn a_changelog_that_ends_before_the_highest_named_end_has_lost_records() {
        let changelog = ChangelogSource {
            store: Arc::from("s"),
            partition: TopicPartition::new("a-s-changelog", Partition::new(0)),
            delete_retention_ms: 86_400_000,
        };
        let plan =
            |end| restore::plan(&facts(&one_input_is_back(), &changelog, LogBounds { start: 0, end }, (None, 0)));
        let lost =
            RestoreRefusal::ChangelogLost { named_end: ChangelogOffset::new(900), log_end: ChangelogOffset::new(600) };
        assert_eq!(plan(600), Err(lost));
        assert_eq!(plan(900).expect("nothing is missing").until, ChangelogOffset::new(900));
    }
}
