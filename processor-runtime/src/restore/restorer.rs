//! All the recoveries of a stream thread: asks for all of them at once, reads their changelogs with one reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use processor_core::ids::{ChangelogOffset, Partition, TaskId, TopicPartition};
use processor_core::protocol::restore::StartRule;

use super::blocker::Blockers;
use super::recovery::{Recovered, Recovery, Step};
use super::{RestoreError, RestoreErrorKind};
use crate::clock::Clock;
use crate::kafka::{
    Answer, ChangelogEvent, ChangelogReader, Committed, GroupConsumer, Isolation, Kafka, KafkaErrorKind, LogBounds,
    Question, Ticket, TransactionalId,
};
use crate::state::{Layout, StateDirectory, TaskState};

/// How long to wait before an unstable or failed question is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How many changelog records one step reads at most, so that polling the group goes on.
const EVENTS_A_STEP_MAX: usize = 20_000;
/// A question without an answer for so long is asked again; the client gives up before, and says so.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long to wait before state is opened again after the disk has refused.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What a step needs of its thread.
pub struct StepContext<'a, K: Kafka, S, C> {
    /// The cluster.
    pub kafka: &'a K,
    /// The group member.
    pub consumer: &'a mut K::Consumer,
    /// The state directory.
    pub directory: &'a S,
    /// The clock.
    pub clock: &'a C,
    /// How long to wait for changelog records when there is nothing else to do.
    pub wait: Duration,
}

impl<K: Kafka, S, C> std::fmt::Debug for StepContext<'_, K, S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepContext").field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// Recovers the tasks of a stream thread.
pub struct Restorer<K: Kafka, S: StateDirectory> {
    own_id: TransactionalId,
    rule: StartRule,
    layouts: BTreeMap<Arc<str>, Layout>,
    reader: Option<K::Changelog>,
    recoveries: BTreeMap<TaskId, Recovery<S::Task>>,
    questions: Questions,
    /// What the reader reads.
    routes: Routes,
    read_set_changed: bool,
    blockers: Blockers<K>,
    progress_logged_at: Duration,
}

/// From a changelog's topic and partition to the task and the store.
type Routes = HashMap<Arc<str>, BTreeMap<Partition, (TaskId, usize)>, FixedState>;

/// Questions under way; answers to others belong to an assignment that is over.
#[derive(Debug, Default)]
struct Questions {
    next: u64,
    committed: Option<(Ticket, BTreeSet<TaskId>)>,
    bounds: Option<(Ticket, BTreeSet<TaskId>)>,
    owners: Option<(Ticket, Vec<TaskId>)>,
    members: Option<Ticket>,
    ask_again_at: Duration,
    asked_at: Duration,
}

impl Questions {
    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn is_waiting(&self) -> bool {
        self.committed.is_some() || self.bounds.is_some() || self.owners.is_some() || self.members.is_some()
    }

    fn forget(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

impl<K: Kafka, S: StateDirectory> Restorer<K, S> {
    /// For a thread with this transactional id. `layouts`: of each sub-topology that has stores.
    pub fn new(own_id: TransactionalId, rule: StartRule, layouts: BTreeMap<Arc<str>, Layout>) -> Self {
        Self {
            blockers: Blockers::new(own_id.clone()),
            own_id,
            rule,
            layouts,
            reader: None,
            recoveries: BTreeMap::new(),
            questions: Questions::default(),
            routes: Routes::default(),
            read_set_changed: false,
            progress_logged_at: Duration::ZERO,
        }
    }

    /// Adds a task to recover.
    pub fn begin(&mut self, recovery: Recovery<S::Task>) {
        let task = recovery.task.id().clone();
        self.read_set_changed = true;
        let before = self.recoveries.insert(task, recovery);
        assert!(before.is_none(), "a task is recovered once at a time");
    }

    /// Takes every task back, with whatever state it has, because its assignment is over.
    pub fn abandon(&mut self) -> Vec<Recovery<S::Task>> {
        self.questions.forget();
        self.blockers.forget();
        self.read_set_changed = true;
        std::mem::take(&mut self.recoveries).into_values().collect()
    }

    /// Whether nothing is being recovered.
    pub fn is_idle(&self) -> bool {
        self.recoveries.is_empty()
    }

    /// The tasks that are being recovered.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskId> {
        self.recoveries.keys()
    }

    /// Does what can be done now and returns the tasks that are ready.
    ///
    /// # Errors
    /// A task cannot be recovered, or a client is beyond use.
    pub fn step<C: Clock>(
        &mut self,
        ctx: &mut StepContext<'_, K, S, C>,
    ) -> Result<Vec<Recovered<S::Task>>, RestoreError> {
        if self.recoveries.is_empty() && !self.read_set_changed && !self.blockers.is_busy() {
            return Ok(Vec::new());
        }
        self.open_states(ctx)?;
        self.take_answers(ctx)?;
        self.ask(ctx)?;
        for recovery in self.recoveries.values_mut() {
            let planned = recovery.plan(self.rule, ctx.clock).and_then(|()| recovery.apply_read(ctx.clock));
            mend(ctx, recovery, planned)?;
        }
        self.read(ctx)?;
        let ready = self.finish(ctx)?;
        self.blockers.step(ctx, &mut self.recoveries)?;
        self.log_progress(ctx.clock);
        Ok(ready)
    }

    fn open_states<C: Clock>(&mut self, ctx: &StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let missing = self.recoveries.values_mut().filter(|recovery| recovery.needs_state() && now >= recovery.open_at);
        for recovery in missing {
            let layout = &self.layouts[&recovery.task.id().subtopology];
            let opened = ctx.directory.open(recovery.task.id(), layout).map(|state| recovery.state = state);
            mend(ctx, recovery, opened.map_err(RestoreError::from))?;
        }
        Ok(())
    }

    fn take_answers<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let mut answers = Vec::new();
        ctx.consumer.answers(&mut answers);
        for (ticket, answer) in answers {
            let answer = match answer {
                Ok(answer) => Some(answer),
                Err(error) if error.kind == KafkaErrorKind::Retry => {
                    tracing::debug!("asking again: {error}");
                    None
                }
                Err(error) => return Err(error.into()),
            };
            self.take_answer(ticket, answer, ctx.clock.monotonic())?;
        }
        Ok(())
    }

    fn take_answer(&mut self, ticket: Ticket, answer: Option<Answer>, now: Duration) -> Result<(), RestoreError> {
        let asked = &mut self.questions;
        if answer.is_none() {
            asked.ask_again_at = now + ASK_AGAIN_AFTER;
        }
        if let Some((_, tasks)) = asked.committed.take_if(|(asked, _)| *asked == ticket) {
            let Some(Answer::Committed(answers)) = answer else { return Ok(()) };
            return self.on_committed(&tasks, &answers.into_iter().collect(), now);
        }
        if let Some((_, tasks)) = asked.bounds.take_if(|(asked, _)| *asked == ticket) {
            if let Some(Answer::Bounds(answers)) = answer {
                let bounds: BTreeMap<TopicPartition, LogBounds> = answers.into_iter().collect();
                self.recoveries_of(&tasks).for_each(|recovery| recovery.on_bounds(&bounds));
            }
            return Ok(());
        }
        if let Some((_, tasks)) = asked.owners.take_if(|(asked, _)| *asked == ticket) {
            if let Some(Answer::Committed(answers)) = answer {
                self.blockers.on_owners(&tasks, &answers, &self.recoveries);
            }
            return Ok(());
        }
        if asked.members.take_if(|asked| *asked == ticket).is_some()
            && let Some(Answer::Members(members)) = answer
        {
            self.blockers.on_members(members, now);
        }
        Ok(())
    }

    fn on_committed(
        &mut self,
        tasks: &BTreeSet<TaskId>,
        answers: &BTreeMap<TopicPartition, Committed>,
        now: Duration,
    ) -> Result<(), RestoreError> {
        let mut all_known = true;
        for recovery in
            self.recoveries.iter_mut().filter(|(task, _)| tasks.contains(*task)).map(|(_, recovery)| recovery)
        {
            let known = recovery.on_committed(answers, now)?;
            if let (true, Some(owner)) = (known, recovery.last_owner()) {
                self.blockers.remember_owner(recovery.task.id(), owner);
            }
            all_known &= known;
        }
        if !all_known {
            tracing::debug!("an offset is held by an open transaction: asking again");
            self.questions.ask_again_at = now + ASK_AGAIN_AFTER;
        }
        Ok(())
    }

    fn recoveries_of(&mut self, tasks: &BTreeSet<TaskId>) -> impl Iterator<Item = &mut Recovery<S::Task>> {
        self.recoveries.iter_mut().filter(|(task, _)| tasks.contains(*task)).map(|(_, recovery)| recovery)
    }

    fn ask<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        if now < self.questions.ask_again_at {
            return Ok(());
        }
        if now > self.questions.asked_at + ANSWER_WAIT_MAX && self.questions.is_waiting() {
            tracing::warn!("the cluster has not answered in {ANSWER_WAIT_MAX:?}: asking again");
            self.questions.forget();
        }
        if !self.questions.is_waiting() {
            self.questions.asked_at = now;
        }
        if self.questions.committed.is_none() {
            let asking = self.recoveries.iter().filter(|(_, recovery)| matches!(recovery.step, Step::Committed));
            let (tasks, partitions) = gather(asking.map(|(task, recovery)| {
                (task.clone(), recovery.inputs.iter().map(|(_, partition)| partition.clone()).collect())
            }));
            if !tasks.is_empty() {
                let ticket = self.questions.ticket();
                ctx.consumer.ask(ticket, &Question::Committed { partitions, stable: true })?;
                self.questions.committed = Some((ticket, tasks));
            }
        }
        if self.questions.bounds.is_none() {
            let asking = self.recoveries.iter().filter(|(_, recovery)| matches!(recovery.step, Step::Bounds { .. }));
            let (tasks, partitions) = gather(asking.map(|(task, recovery)| (task.clone(), recovery.bounds_needed())));
            if partitions.is_empty() {
                let nothing = BTreeMap::new();
                self.recoveries_of(&tasks).for_each(|recovery| recovery.on_bounds(&nothing));
            } else {
                let ticket = self.questions.ticket();
                ctx.consumer.ask(ticket, &Question::Bounds { partitions })?;
                self.questions.bounds = Some((ticket, tasks));
            }
        }
        self.ask_about_blockers(ctx)
    }

    /// Who holds the transaction that is in the way: the offsets' metadata names it, readable without waiting for it.
    fn ask_about_blockers<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let unknown = self
            .recoveries
            .iter()
            .filter(|(task, recovery)| recovery.blocked_since.is_some() && !self.blockers.knows_owner(task));
        let unknown: Vec<_> = unknown.map(|(task, recovery)| (task.clone(), recovery.inputs.clone())).collect();
        if !unknown.is_empty() && self.questions.owners.is_none() {
            let partitions =
                unknown.iter().flat_map(|(_, inputs)| inputs.iter().map(|(_, partition)| partition.clone()));
            let question = Question::Committed { partitions: partitions.collect(), stable: false };
            let ticket = self.questions.ticket();
            ctx.consumer.ask(ticket, &question)?;
            self.questions.owners = Some((ticket, unknown.into_iter().map(|(task, _)| task).collect()));
        }
        let anyone_blocked = self.recoveries.values().any(|recovery| recovery.blocked_since.is_some());
        let wanted = anyone_blocked && !self.blockers.knows_members() || self.blockers.needs_members();
        if wanted && self.questions.members.is_none() {
            let ticket = self.questions.ticket();
            ctx.consumer.ask(ticket, &Question::Members)?;
            self.questions.members = Some(ticket);
        }
        Ok(())
    }

    fn read<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        self.update_read_set(ctx)?;
        let Some(reader) = self.reader.as_mut().filter(|_| !self.routes.is_empty()) else { return Ok(()) };
        let (routes, recoveries, now) = (&self.routes, &mut self.recoveries, ctx.clock.monotonic());
        let mut outcome = Ok(());
        let mut truncated = false;
        reader.poll(ctx.wait, EVENTS_A_STEP_MAX, &mut |event| {
            if outcome.is_ok() {
                outcome = visit(routes, recoveries, &event, now).map(|out_of_range| truncated |= out_of_range);
            }
        })?;
        outcome?;
        self.read_set_changed |= truncated;
        for recovery in self.recoveries.values_mut() {
            let applied = recovery.apply_read(ctx.clock);
            mend(ctx, recovery, applied)?;
        }
        Ok(())
    }

    /// Makes the reader read the changelogs that are being replayed, each from where its replay stands. Partitions that
    /// are done stay until they are half of the set: every change drops what was fetched ahead.
    fn update_read_set<C: Clock>(&mut self, ctx: &StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let mut positions: Vec<(TopicPartition, ChangelogOffset)> = Vec::new();
        let mut routes = Routes::default();
        for (task, recovery) in &self.recoveries {
            let Step::Replaying(replay) = &recovery.step else { continue };
            for (store, (changelog, progress)) in recovery.changelogs.iter().zip(&replay.stores).enumerate() {
                if progress.reached < progress.until {
                    let TopicPartition { topic, partition } = &changelog.partition;
                    routes.entry(topic.clone()).or_default().insert(*partition, (task.clone(), store));
                    positions.push((changelog.partition.clone(), progress.reached));
                }
            }
        }
        let reading = self.routes.values().map(BTreeMap::len).sum::<usize>();
        let contained = routes.iter().all(|(topic, partitions)| {
            let known = self.routes.get(topic);
            partitions.keys().all(|partition| known.is_some_and(|known| known.contains_key(partition)))
        });
        let worth_keeping = reading == positions.len() || (!positions.is_empty() && reading < positions.len() * 2);
        if !self.read_set_changed && contained && worth_keeping {
            return Ok(());
        }
        if self.reader.is_none() && positions.is_empty() {
            self.read_set_changed = false;
            return Ok(());
        }
        if self.reader.is_none() {
            let client_id = format!("{}-restore", self.own_id);
            self.reader = Some(ctx.kafka.changelog(&client_id, Isolation::ReadCommitted)?);
        }
        let reader = self.reader.as_mut().expect("it has just been made");
        reader.read(&positions)?;
        self.routes = routes;
        self.read_set_changed = false;
        Ok(())
    }

    fn finish<C: Clock>(&mut self, ctx: &StepContext<'_, K, S, C>) -> Result<Vec<Recovered<S::Task>>, RestoreError> {
        let done = self.recoveries.iter().filter(|(_, recovery)| matches!(recovery.step, Step::Replayed(_)));
        let done: Vec<TaskId> = done.map(|(task, _)| task.clone()).collect();
        let mut ready = Vec::new();
        for task in done {
            let mut recovery = self.recoveries.remove(&task).expect("it was found a moment ago");
            let sealed = recovery.seal(ctx.clock);
            mend(ctx, &mut recovery, sealed)?;
            match recovery.finish(ctx.clock.wall())? {
                Ok(recovered) => {
                    self.blockers.unblocked(&task);
                    ready.push(recovered);
                }
                Err(again) => drop(self.recoveries.insert(task, *again)),
            }
        }
        Ok(ready)
    }

    fn log_progress(&mut self, clock: &impl Clock) {
        let now = clock.monotonic();
        if now < self.progress_logged_at + PROGRESS_EVERY {
            return;
        }
        self.progress_logged_at = now;
        for (task, recovery) in &self.recoveries {
            let Step::Replaying(replay) = &recovery.step else { continue };
            let left: i64 =
                replay.stores.iter().map(|store| store.until.get() - store.reached.get().min(store.until.get())).sum();
            let since = recovery.replaying_since.unwrap_or(now);
            let rate = recovery.records_replayed as f64 / now.saturating_sub(since).as_secs_f64().max(0.001);
            let seconds_left = (left as f64 / rate.max(1.0)).ceil();
            tracing::info!(%task, replayed = recovery.records_replayed, left_at_most = left, seconds_left, "restoring");
        }
    }
}

impl<K: Kafka, S: StateDirectory> std::fmt::Debug for Restorer<K, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restorer").field("tasks", &self.recoveries.keys()).finish_non_exhaustive()
    }
}

/// What helps against a failure of local state: opening it again, or beginning from nothing.
fn mend<K: Kafka, S: StateDirectory, C: Clock>(
    ctx: &StepContext<'_, K, S, C>,
    recovery: &mut Recovery<S::Task>,
    outcome: Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let Err(error) = outcome else { return Ok(()) };
    let task = recovery.task.id().clone();
    match error.kind {
        RestoreErrorKind::Stop | RestoreErrorKind::FencedInstance => return Err(error),
        RestoreErrorKind::Disk => {
            tracing::error!(%task, "the state is closed, and opened again in {OPEN_AGAIN_AFTER:?}: {error}");
            drop(recovery.begin_again(ctx.clock.monotonic() + OPEN_AGAIN_AFTER));
        }
        RestoreErrorKind::Corrupt => {
            tracing::warn!(%task, "local state is discarded and restored in full: {error}");
            if let Some(state) = recovery.begin_again(Duration::ZERO) {
                ctx.directory.discard(state)?;
            }
        }
    }
    Ok(())
}

fn gather(asking: impl Iterator<Item = (TaskId, Vec<TopicPartition>)>) -> (BTreeSet<TaskId>, Vec<TopicPartition>) {
    let (mut tasks, mut all) = (BTreeSet::new(), Vec::new());
    for (task, mut partitions) in asking {
        tasks.insert(task);
        all.append(&mut partitions);
    }
    (tasks, all)
}

/// Gives an event to the recovery it belongs to; says whether the log has nothing where it was read.
fn visit<T: TaskState>(
    routes: &Routes,
    recoveries: &mut BTreeMap<TaskId, Recovery<T>>,
    event: &ChangelogEvent<'_>,
    now: Duration,
) -> Result<bool, RestoreError> {
    let (topic, partition) = match event {
        ChangelogEvent::Record { topic, partition, .. }
        | ChangelogEvent::End { topic, partition, .. }
        | ChangelogEvent::OutOfRange { topic, partition } => (*topic, *partition),
    };
    let Some((task, store)) = routes.get(topic).and_then(|partitions| partitions.get(&partition)) else {
        return Ok(false);
    };
    let Some(recovery) = recoveries.get_mut(task) else { return Ok(false) };
    match event {
        ChangelogEvent::Record { offset, key, value, .. } => {
            recovery.on_record(*store, *offset, *key, *value)?;
            Ok(false)
        }
        ChangelogEvent::End { position, .. } => {
            recovery.on_end(*store, *position, now);
            Ok(false)
        }
        ChangelogEvent::OutOfRange { .. } => {
            recovery.on_out_of_range();
            Ok(true)
        }
    }
}
