//! All the recoveries of a stream thread: asks for all of them at once, reads their changelogs with one reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
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
use crate::seeded_bugs::{self, Rule};
use crate::state::{Layout, StateDirectory, TaskState};
use crate::status::RestoreStatus;

/// How long to wait before an unstable or failed question is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How many changelog records one step reads at most, so that polling the group goes on.
const EVENTS_A_STEP_MAX: usize = 20_000;
/// The same in bytes of keys and values.
const BYTES_A_STEP_MAX: usize = 8 << 20;
/// A transaction that is in the way for longer than any may stay open hangs in the broker.
const HANGS_AFTER: Duration = Duration::from_mins(1);
/// What to do about it.
const HANGS: &str =
    "; the transaction hangs in the broker if this goes on: ProcessorRestoreStalls in docs/operating.md";
/// After so long without a record or an end, another client reads.
const READER_SILENT_MAX: Duration = Duration::from_secs(10);
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
    /// When the reader was last told what to read, or last had something.
    heard_at: Duration,
    blockers: Blockers<K>,
    progress_logged_at: Duration,
    /// Changelog records that were read and not asked for by [`Restorer::take_replayed`].
    replayed: u64,
}

/// From a changelog's topic and partition to the task and the store.
type Routes = HashMap<Arc<str>, BTreeMap<Partition, (TaskId, usize)>, FixedState>;

/// Questions under way; answers to others belong to an assignment that is over.
#[derive(Debug, Default)]
struct Questions {
    next: u64,
    asked: Vec<Asked>,
    ask_again_at: Duration,
    /// Why the last one that failed has failed.
    last_failure: Option<String>,
}

/// A question under way.
#[derive(Debug)]
struct Asked {
    ticket: Ticket,
    about: About,
    at: Duration,
}

/// What is asked, and for which tasks.
#[derive(Debug)]
enum About {
    /// C.
    Committed(BTreeSet<TaskId>),
    /// E.
    Bounds(BTreeSet<TaskId>),
    /// Who committed last, not waiting for open transactions.
    Owners(Vec<TaskId>),
    /// Who is in the group.
    Members,
}

impl Questions {
    /// Notes a question; its ticket goes along.
    fn note(&mut self, about: About, at: Duration) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.asked.push(Asked { ticket, about, at });
        ticket
    }

    fn take(&mut self, ticket: Ticket) -> Option<About> {
        let place = self.asked.iter().position(|asked| asked.ticket == ticket)?;
        Some(self.asked.swap_remove(place).about)
    }

    fn is_asked(&self, what: impl Fn(&About) -> bool) -> bool {
        self.asked.iter().any(|asked| what(&asked.about))
    }

    /// Gives up what has no answer for too long, so that it is asked again.
    fn expire(&mut self, now: Duration) {
        let before = self.asked.len();
        self.asked.retain(|asked| now <= asked.at + ANSWER_WAIT_MAX);
        if self.asked.len() < before {
            tracing::warn!("the cluster has not answered in {ANSWER_WAIT_MAX:?}: asking again");
        }
    }

    fn forget(&mut self) {
        self.asked.clear();
        self.ask_again_at = Duration::ZERO;
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
            heard_at: Duration::ZERO,
            progress_logged_at: Duration::ZERO,
            replayed: 0,
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
        if seeded_bugs::holds(Rule::LateAnswersAreIgnored) {
            self.questions.forget();
        }
        self.blockers.forget();
        self.read_set_changed = true;
        std::mem::take(&mut self.recoveries).into_values().collect()
    }

    /// Whether nothing is being recovered.
    pub fn is_idle(&self) -> bool {
        self.recoveries.is_empty()
    }

    /// How many changelog records were read since the last call.
    pub fn take_replayed(&mut self) -> u64 {
        std::mem::take(&mut self.replayed)
    }

    /// How far each of the tasks is that are being recovered.
    pub fn progress(&self, now: Duration) -> impl Iterator<Item = (&TaskId, RestoreStatus)> {
        self.recoveries.iter().map(move |(task, recovery)| (task, recovery.status(now)))
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
        self.open_state(ctx)?;
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

    /// Opens the state of one task: opening may take a while, and the thread has to poll in between.
    fn open_state<C: Clock>(&mut self, ctx: &StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let missing = self.recoveries.values_mut().find(|recovery| recovery.needs_state() && now >= recovery.open_at);
        let Some(recovery) = missing else { return Ok(()) };
        let layout = &self.layouts[&recovery.task.id().subtopology];
        let opened = ctx.directory.open(recovery.task.id(), layout).map(|state| recovery.state = state);
        if recovery.state.is_none() && opened.is_ok() {
            recovery.open_at = now + ASK_AGAIN_AFTER; // another thread holds it: the others come first
        }
        mend(ctx, recovery, opened.map_err(RestoreError::from))
    }

    fn take_answers<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let mut answers = Vec::new();
        ctx.consumer.answers(&mut answers);
        for (ticket, answer) in answers {
            let Some(about) = self.questions.take(ticket) else { continue };
            match answer {
                Ok(answer) => self.take_answer(&about, answer, now)?,
                Err(error) if error.kind == KafkaErrorKind::Retry => {
                    tracing::debug!("asking again: {error}");
                    self.questions.last_failure = Some(error.message);
                    self.questions.ask_again_at = now + ASK_AGAIN_AFTER;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, about: &About, answer: Answer, now: Duration) -> Result<(), RestoreError> {
        match (about, answer) {
            (About::Committed(tasks), Answer::Committed(answers)) => {
                self.on_committed(tasks, &answers.into_iter().collect(), now)
            }
            (About::Bounds(tasks), Answer::Bounds(answers)) => {
                let bounds: BTreeMap<TopicPartition, LogBounds> = answers.into_iter().collect();
                self.recoveries_of(tasks).for_each(|recovery| recovery.on_bounds(&bounds));
                if self.recoveries_of(tasks).any(|recovery| matches!(recovery.step, Step::Bounds { .. })) {
                    self.questions.ask_again_at = now + ASK_AGAIN_AFTER;
                }
                Ok(())
            }
            (About::Owners(tasks), Answer::Committed(answers)) => {
                self.blockers.on_owners(tasks, &answers, &self.recoveries);
                Ok(())
            }
            (About::Members, Answer::Members(members)) => {
                self.blockers.on_members(members, now);
                Ok(())
            }
            (about, answer) => panic!("the answer to {about:?} is not {answer:?}"),
        }
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
        self.questions.expire(now);
        if !self.questions.is_asked(|about| matches!(about, About::Committed(_))) {
            let asking = self.recoveries.iter().filter(|(_, recovery)| matches!(recovery.step, Step::Committed));
            let (tasks, partitions) = gather(asking.map(|(task, recovery)| {
                (task.clone(), recovery.inputs.iter().map(|(_, partition)| partition.clone()).collect())
            }));
            if !tasks.is_empty() {
                let ticket = self.questions.note(About::Committed(tasks), now);
                let stable = seeded_bugs::holds(Rule::StableOffsetsOnly);
                ctx.consumer.ask(ticket, &Question::Committed { partitions, stable })?;
            }
        }
        if !self.questions.is_asked(|about| matches!(about, About::Bounds(_))) {
            let asking = self.recoveries.iter().filter(|(_, recovery)| matches!(recovery.step, Step::Bounds { .. }));
            let (tasks, partitions) = gather(asking.map(|(task, recovery)| (task.clone(), recovery.bounds_needed())));
            if partitions.is_empty() {
                let nothing = BTreeMap::new();
                self.recoveries_of(&tasks).for_each(|recovery| recovery.on_bounds(&nothing));
            } else {
                let ticket = self.questions.note(About::Bounds(tasks), now);
                ctx.consumer.ask(ticket, &Question::Bounds { partitions })?;
            }
        }
        self.ask_about_blockers(ctx)
    }

    /// Who holds the transaction that is in the way: the offsets' metadata names it, readable without waiting for it.
    fn ask_about_blockers<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let now = ctx.clock.monotonic();
        let unknown = self
            .recoveries
            .iter()
            .filter(|(task, recovery)| recovery.blocked_since.is_some() && !self.blockers.knows_owner(task));
        let unknown: Vec<_> = unknown.map(|(task, recovery)| (task.clone(), recovery.inputs.clone())).collect();
        if !unknown.is_empty() && !self.questions.is_asked(|about| matches!(about, About::Owners(_))) {
            let partitions =
                unknown.iter().flat_map(|(_, inputs)| inputs.iter().map(|(_, partition)| partition.clone()));
            let question = Question::Committed { partitions: partitions.collect(), stable: false };
            let tasks = unknown.into_iter().map(|(task, _)| task).collect();
            let ticket = self.questions.note(About::Owners(tasks), now);
            ctx.consumer.ask(ticket, &question)?;
        }
        let anyone_blocked = self.recoveries.values().any(|recovery| recovery.blocked_since.is_some());
        let wanted = anyone_blocked && !self.blockers.knows_members() || self.blockers.needs_members();
        if wanted && !self.questions.is_asked(|about| matches!(about, About::Members)) {
            let ticket = self.questions.note(About::Members, now);
            ctx.consumer.ask(ticket, &Question::Members)?;
        }
        Ok(())
    }

    /// Reads one bounded step ahead.
    fn read<C: Clock>(&mut self, ctx: &mut StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        self.update_read_set(ctx)?;
        let now = ctx.clock.monotonic();
        let Some(reader) = self.reader.as_mut().filter(|_| !self.routes.is_empty()) else { return Ok(()) };
        let (routes, recoveries) = (&self.routes, &mut self.recoveries);
        let mut outcome = Ok(());
        let (mut told_anew, mut events, mut bytes, mut records) = (false, 0, 0, 0);
        reader.poll(ctx.wait, &mut |event| {
            events += 1;
            bytes += event.bytes();
            records += u64::from(matches!(event, ChangelogEvent::Record { .. }));
            match visit(routes, recoveries, &event, now) {
                Ok(begins_again) => told_anew |= begins_again,
                Err(error) => outcome = Err(error),
            }
            let enough = outcome.is_err() || events >= EVENTS_A_STEP_MAX || bytes >= BYTES_A_STEP_MAX;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.replayed += records;
        outcome?;
        self.read_set_changed |= told_anew;
        self.replace_silent_reader(events > 0, now);
        for recovery in self.recoveries.values_mut() {
            let applied = recovery.apply_read(ctx.clock);
            mend(ctx, recovery, applied)?;
        }
        Ok(())
    }

    /// A reader that says nothing for long, though there is more to read, may have lost its way to the brokers for good;
    /// where it only waits for an open transaction, a new one waits as well.
    fn replace_silent_reader(&mut self, heard: bool, now: Duration) {
        if heard {
            self.heard_at = now;
        } else if now >= self.heard_at + READER_SILENT_MAX {
            tracing::info!("nothing was read from the changelogs for {READER_SILENT_MAX:?}: another client reads");
            self.reader = None;
            self.routes.clear(); // else the next task with the same changelogs takes them for being read
            self.read_set_changed = true;
        }
    }

    /// Makes the reader read the changelogs that are being replayed, each from where its replay stands. Partitions that
    /// are done stay until they are half of the set: every change drops what was fetched ahead.
    fn update_read_set<C: Clock>(&mut self, ctx: &StepContext<'_, K, S, C>) -> Result<(), RestoreError> {
        let mut positions: Vec<(TopicPartition, ChangelogOffset)> = Vec::new();
        let mut routes = Routes::default();
        for (task, recovery) in &self.recoveries {
            let Step::Replaying(replay) = &recovery.step else { continue };
            for (store, (changelog, progress)) in recovery.changelogs.iter().zip(&replay.stores).enumerate() {
                let (Some(changelog), Some(progress)) = (changelog, progress) else { continue };
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
            let committed = seeded_bugs::holds(Rule::RestoredReadCommitted);
            let isolation = if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
            self.reader = Some(ctx.kafka.changelog(&client_id, isolation)?);
        }
        let reader = self.reader.as_mut().expect("it has just been made");
        reader.read(&positions)?;
        self.heard_at = ctx.clock.monotonic();
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
            match recovery.seal(ctx.clock) {
                Ok(true) => {
                    self.blockers.unblocked(&task);
                    ready.push(recovery.finish(ctx.clock.wall())?);
                }
                outcome => {
                    mend(ctx, &mut recovery, outcome.map(drop))?;
                    self.recoveries.insert(task, recovery);
                }
            }
        }
        Ok(ready)
    }

    /// So that a long wait has a visible reason.
    fn log_progress(&mut self, clock: &impl Clock) {
        let now = clock.monotonic();
        for recovery in self.recoveries.values_mut() {
            recovery.since.get_or_insert(now);
        }
        if now < self.progress_logged_at + PROGRESS_EVERY {
            return;
        }
        self.progress_logged_at = now;
        for (task, recovery) in &self.recoveries {
            let waited = now.saturating_sub(recovery.since.unwrap_or(now));
            match &recovery.step {
                Step::Replaying(replay) if recovery.blocked_since.is_none() => {
                    let left = replay.offsets_left();
                    let seconds_left = recovery.time_left(now).map(|left| left.as_secs_f64().ceil());
                    tracing::info!(%task, replayed = recovery.records_replayed, left_at_most = left, seconds_left, "restoring");
                }
                _ if waited >= PROGRESS_EVERY => {
                    let last_failure = self.questions.last_failure.as_deref().unwrap_or("none");
                    let is_long = recovery.blocked_since.is_some() && waited >= HANGS_AFTER;
                    let remedy = if is_long { HANGS } else { "" };
                    tracing::warn!(%task, last_failure, "not running for {waited:.0?}: waiting for {}{remedy}", recovery.waits_for());
                }
                Step::Committed
                | Step::Bounds { .. }
                | Step::Planned { .. }
                | Step::Replaying(_)
                | Step::Replayed(_) => {}
            }
        }
        if self.recoveries.is_empty() {
            self.questions.last_failure = None;
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

/// Gives an event to the recovery it belongs to; says whether that begins again, so that the reader must be told anew.
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
        ChangelogEvent::Record { offset, key, value, .. } => recovery.on_record(*store, *offset, *key, *value),
        ChangelogEvent::End { position, .. } => {
            recovery.on_end(*store, *position, now);
            Ok(false)
        }
        ChangelogEvent::OutOfRange { .. } => {
            recovery.ask_anew(); // the log was truncated meanwhile
            Ok(true)
        }
    }
}
