//! Tasks: a sub-topology on one partition, and what a poll batch does to it. The runtime's own, and no stable API, but for
//! the names in [`dead_letter`].
//!
//! A task processes the records it is given, in order, over a [`Base`] it is lent. It knows nothing of Kafka or of disks;
//! the runtime takes its outputs and its change set, commits them, and tells it how that ended.

mod attempt;
pub mod dead_letter;
mod outcome;
mod partition_group;

pub use outcome::Outcome;
pub use partition_group::PartitionGroup;

pub use crate::operator::RunningNode;
pub use crate::store::{Change, ChangeSet};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::{FailureKind, RecordFailure};
use crate::ids::{BatchId, InputIndex, NodeIndex, Offset, Partition, StoreIndex, TaskId, Timestamp};
use crate::operator::{Failed, Origin, Recorded, TaskEnv};
use crate::protocol::failure::Verdict;
use crate::record::{BatchInfo, InputRecord, Outbox};
use crate::store::Base;
use crate::time::{Clock, Schedules};
use crate::topology::{ApplicationTopology, SourceNode};

/// What a task is told when it is made.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::task::TaskSettings;
///
/// # let mut topology = Topology::builder();
/// # topology.on_failure(FailurePolicy::dead_letter("orders-failed"));
/// # topology.source("orders", "orders", (Utf8, Utf8)).sink("copies", "copies", (Utf8, Utf8));
/// # let topology = topology.build()?.for_application("shop")?;
/// let partitions_of = |topic: &str| if topic == "copies" { 8 } else { 1 }; // the cluster says it
/// let output_partitions = topology.outputs().iter().map(|topic| partitions_of(topic)).collect();
/// let settings = TaskSettings { cache_bytes_max: 16 << 20, output_partitions };
/// assert_eq!(*settings.output_partitions, [8, 1]); // of "copies" and "orders-failed"
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TaskSettings {
    /// The bound on the clean values that each of its stores keeps decoded, in bytes.
    pub cache_bytes_max: usize,
    /// How many partitions each output topic has, in the order of the topology's outputs.
    pub output_partitions: Arc<[u32]>,
}

impl ApplicationTopology {
    /// Makes a task. It stands nowhere yet: [`start`](Task::start) says where.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::task::TaskSettings;
    /// # let mut topology = Topology::builder();
    /// # topology.source("orders", "orders", (Utf8, Utf8)).sink("out", "out", (Utf8, Utf8));
    /// # let topology = topology.build()?.for_application("shop")?;
    /// let settings = TaskSettings { cache_bytes_max: 16 << 20, output_partitions: [8].into() };
    /// let task = topology.task(&TaskId::new("orders", Partition::new(3)), &settings);
    /// assert_eq!(task.id().to_string(), "orders_3");
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Panics
    /// If the settings do not say how many partitions each output has, or the task is not of this topology.
    pub fn task(&self, id: &TaskId, settings: &TaskSettings) -> Task {
        assert!(settings.output_partitions.len() == self.outputs().len(), "a task knows every output's partitions");
        let part = self.subtopology_of(id);
        let mut sources = Vec::new();
        let mut inputs = Vec::new();
        for (node, indexes) in self.instantiate(part) {
            inputs.extend(indexes.into_iter().map(|index| Input::new(index, self, sources.len())));
            sources.push(node);
        }
        inputs.sort_by_key(|input| input.index);
        let stores = part.store_makers.iter().zip(0..);
        let stores = stores.map(|(maker, index)| maker.0(StoreIndex::new(index), settings.cache_bytes_max));
        let env = TaskEnv {
            task: id.clone(),
            stores: stores.collect(),
            outbox: Outbox::default(),
            stream_time: None,
            origin: Origin {
                topic: Arc::from(""),
                partition: id.partition,
                offset: Offset::new(0),
                batch: BatchInfo { id: BatchId::NONE, index: 0, size: 0, now: Timestamp::new(0) },
            },
            node: RunningNode::new(NodeIndex::new(0)),
            failure: None,
            schedules: Schedules::default(),
            commit_requested: false,
            output_partitions: settings.output_partitions.clone(),
        };
        Task {
            topology: self.clone(),
            sources,
            inputs,
            env,
            committed_stream_time: None,
            opened: false,
            punctuated: false,
            condemned: Vec::new(),
        }
    }
}

/// A running instance of a sub-topology.
///
/// [`start`](Self::start) gives it a position. Then, batch by batch: [`process`](Self::process)
/// each record and send what is in the [`outbox`](Self::outbox), take its writes with
/// [`collect_changes`](Self::collect_changes), commit, write them to the base, and say
/// [`applied`](Self::applied). Where the commit did not happen: [`abandon`](Self::abandon).
///
/// ```
#[doc = include_str!("example.txt")]
/// # let topology = sums(FailurePolicy::fail()).for_application("app")?;
/// # let mut base = State::default();
/// let settings = TaskSettings { cache_bytes_max: 16 << 20, output_partitions: [1].into() };
/// let mut task = topology.task(&TaskId::new("numbers", Partition::new(0)), &settings);
/// task.start(&[(InputIndex::new(0), Offset::new(10))], None, secs(60))?;
///
/// // A batch of one record, which adds 5 to the sum of "ann".
/// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
/// assert!(matches!(outcome, Outcome::Done));
/// task.outbox().clear(); // after its outputs were sent
/// let mut changes = ChangeSet::default();
/// task.collect_changes(&mut changes)?; // for the changelog
/// // The transaction has committed: apply.
/// base.apply(&changes);
/// task.applied();
///
/// // The next batch does not commit, and leaves nothing.
/// let outcome = task.process(0, &polled(11, "ann", 7), batch(0), &base);
/// assert!(matches!(outcome, Outcome::Done));
/// task.abandon();
/// assert_eq!(task.offsets().next(), Some((InputIndex::new(0), Offset::new(11))));
/// task.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Task {
    topology: ApplicationTopology,
    sources: Vec<Box<dyn SourceNode>>,
    inputs: Vec<Input>,
    env: TaskEnv,
    /// Stream time as of the last commit.
    committed_stream_time: Option<Timestamp>,
    opened: bool,
    /// A wall-clock punctuation has sent something since the last commit.
    punctuated: bool,
    condemned: Vec<Condemned>,
}

struct Input {
    index: InputIndex,
    topic: Arc<str>,
    /// Its place among the task's sources.
    source: usize,
    /// The next record to process, as committed and as of now; `None` before [`Task::start`].
    committed: Option<Offset>,
    next: Option<Offset>,
    /// The record that is being tried again, and how often it was.
    retried: Option<(Offset, u32)>,
}

/// A record whose outputs the broker has refused.
struct Condemned {
    input: usize,
    offset: Offset,
    failed: Failed,
}

impl Input {
    fn new(index: InputIndex, topology: &ApplicationTopology, source: usize) -> Self {
        let topic = topology.inputs()[index.slot()].clone();
        Self { index, topic, source, committed: None, next: None, retried: None }
    }

    fn retried(&self, offset: Offset) -> u32 {
        self.retried.filter(|(of, _)| *of == offset).map_or(0, |(_, times)| times)
    }
}

impl Task {
    /// The task's id.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// assert_eq!(*task.id(), TaskId::new("numbers", Partition::new(0)));
    /// ```
    pub fn id(&self) -> &TaskId {
        &self.env.task
    }

    /// The task's partition number.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// assert_eq!(task.partition(), task.id().partition); // of all its inputs, and its changelogs
    /// ```
    pub fn partition(&self) -> Partition {
        self.env.task.partition
    }

    /// The topics it reads, in the order of the sub-topology's inputs.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// let topics = task.topology().inputs();
    /// let names: Vec<_> = task.inputs().map(|input| &*topics[input.slot()]).collect();
    /// assert_eq!(names, ["numbers"]);
    /// ```
    pub fn inputs(&self) -> impl Iterator<Item = InputIndex> {
        self.inputs.iter().map(|input| input.index)
    }

    /// Which of its nodes runs, for whoever watches from another thread.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// let running = task.running_node(); // for the thread that watches
    /// let outcome = task.process(0, &polled(10, "ann", -1), batch(0), &base);
    /// assert!(!outcome.is_past());
    /// assert_eq!(task.topology().node_name(running.get()), "sum"); // ran last: it has failed
    /// ```
    pub fn running_node(&self) -> RunningNode {
        self.env.node.clone()
    }

    /// The topology that it is a part of.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// assert_eq!(task.topology().application_id(), "app");
    /// ```
    pub fn topology(&self) -> &ApplicationTopology {
        &self.topology
    }

    /// How many stores it has.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// assert_eq!(task.stores_len(), task.topology().subtopology_of(task.id()).stores.len());
    /// # assert_eq!(task.stores_len(), 1);
    /// ```
    pub fn stores_len(&self) -> usize {
        self.env.stores.len()
    }

    /// Takes a position: what is committed for each input, and the stream time that was committed with it. Whatever
    /// was cached or uncommitted is forgotten, and schedules are as the operators' `open` made them. Operators are opened
    /// the first time. `now` is the time of day.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// # let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// assert!(task.has_uncommitted());
    /// // It was assigned once more; another worker has committed meanwhile.
    /// task.start(&[(InputIndex::new(0), Offset::new(42))], Some(secs(41)), secs(60))?;
    /// assert!(!task.has_uncommitted());
    /// assert_eq!(task.offsets().next(), Some((InputIndex::new(0), Offset::new(42))));
    /// assert_eq!(task.stream_time(), Some(secs(41)));
    /// # Ok::<(), processor_core::error::RecordFailure>(())
    /// ```
    ///
    /// # Errors
    /// An operator's `open` failed.
    ///
    /// # Panics
    /// If an input of the task is missing from `committed`.
    pub fn start(
        &mut self,
        committed: &[(InputIndex, Offset)],
        stream_time: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), RecordFailure> {
        for input in &mut self.inputs {
            let found = committed.iter().find(|(index, _)| *index == input.index);
            let (_, offset) = found.expect("EO-12: a task starts with an absolute offset for every input");
            (input.committed, input.next) = (Some(*offset), Some(*offset));
        }
        self.env.stores.iter_mut().for_each(|store| store.forget());
        self.env.outbox.clear();
        self.env.stream_time = stream_time;
        self.committed_stream_time = stream_time;
        self.punctuated = false;
        self.env.commit_requested = false;
        self.open()?;
        let schedules = &mut self.env.schedules;
        schedules.start();
        schedules.anchor(Clock::WallClock, now);
        if let Some(stream_time) = stream_time {
            schedules.anchor(Clock::StreamTime, stream_time);
        }
        schedules.applied();
        Ok(())
    }

    fn open(&mut self) -> Result<(), RecordFailure> {
        if std::mem::replace(&mut self.opened, true) {
            return Ok(());
        }
        let opened = self.sources.iter_mut().try_for_each(|source| source.open(&mut self.env));
        self.env.schedules.opened();
        opened.map_err(|Recorded| {
            let failed = self.env.failure.take();
            failed.expect("a failure is written down before it is returned").failure
        })
    }

    /// The timestamp that decides when a waiting record's turn comes. One that has none, or cannot
    /// be decoded, comes at once, so that its policy can say what becomes of it. `input` is the
    /// place of its input in [`inputs`](Self::inputs), `now` the time of day.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// let record = polled(10, "ann", 5); // its timestamp is 10 s
    /// assert_eq!(task.time_of(0, &record, secs(60)), secs(10));
    /// ```
    ///
    /// # Panics
    /// If there is no such input.
    pub fn time_of(&self, input: usize, record: &dyn InputRecord, now: Timestamp) -> Timestamp {
        let source = &self.sources[self.inputs[input].source];
        let found = catch_unwind(AssertUnwindSafe(|| source.timestamp(record, now)));
        found.ok().flatten().unwrap_or(Timestamp::new(i64::MIN))
    }

    /// How many bytes its stores have in memory beyond what their caches may keep, about: what was written counts little before
    /// it is committed.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let task = started(FailurePolicy::fail());
    /// assert_eq!(task.uncached_bytes(), 0); // nothing was read or written
    /// ```
    pub fn uncached_bytes(&self) -> usize {
        self.env.stores.iter().map(|store| store.uncached_bytes()).sum()
    }

    /// Reads ahead what the records that come next will look up, by their keys, where batches before had to read much.
    /// Records of which this is not known, and what cannot be read, are passed over: they have their turn.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// let record = polled(10, "ann", 5);
    /// task.read_ahead([(0, &record)].into_iter(), &base); // nothing was read before, so nothing is read ahead
    /// assert!(task.process(0, &record, batch(0), &base).is_past());
    /// # task.outbox().clear();
    /// ```
    pub fn read_ahead<'r, R: InputRecord + 'r>(
        &mut self,
        records: impl Iterator<Item = (usize, &'r R)>,
        base: &dyn Base,
    ) {
        let Self { sources, inputs, env, .. } = self;
        if !env.stores.iter().any(|store| store.reads_ahead()) {
            return;
        }
        env.stores.iter_mut().for_each(|store| store.begin_ahead());
        for (nth, (input, record)) in records.enumerate() {
            let source = &sources[inputs[input].source];
            let wanted = catch_unwind(AssertUnwindSafe(|| source.want(nth, record, &mut env.stores)));
            if wanted.is_err() {
                break; // a codec panics: it does so again when the record's turn comes
            }
        }
        env.stores.iter_mut().for_each(|store| store.warm(base));
    }

    /// Processes one record, and the stream-time punctuations that it makes due. `input` is the
    /// place of its input in [`inputs`](Self::inputs). What it sent is in the
    /// [`outbox`](Self::outbox).
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// assert!(matches!(outcome, Outcome::Done));
    /// assert_eq!(task.outbox().len(), 1);
    /// task.outbox().clear(); // after it was sent
    /// assert_eq!(task.offsets().next(), Some((InputIndex::new(0), Offset::new(11))));
    /// ```
    ///
    /// # Panics
    /// If the record is not behind the one before it in its partition (EO-8), the outputs of the
    /// record before are still in the outbox (EO-6), or the task was not started.
    pub fn process(&mut self, input: usize, record: &dyn InputRecord, batch: BatchInfo, base: &dyn Base) -> Outcome {
        let offset = record.offset();
        let Input { topic, next, .. } = &self.inputs[input];
        let expected = next.expect("a task is started before it processes");
        assert!(offset >= expected, "EO-8: {topic}-{}@{offset} came after {expected} was due", self.env.task.partition);
        assert!(self.env.outbox.is_empty(), "EO-6: the outputs of the record before were sent");
        if !Arc::ptr_eq(&self.env.origin.topic, topic) {
            self.env.origin.topic = topic.clone();
        }
        (self.env.origin.offset, self.env.origin.batch) = (offset, batch);
        let attempted = match self.condemnation(input, offset) {
            Some(failed) => Err(failed),
            None => self.attempt(input, record, base),
        };
        let outcome = match attempted {
            Ok(()) => Outcome::Done,
            Err(failed) => self.settle(input, record, failed),
        };
        if outcome.is_past() {
            self.inputs[input].next = Some(offset.next());
        }
        outcome
    }

    /// What becomes of a record that failed, by its policy. Where the fault is not the record's, the task stops.
    fn settle(&mut self, input: usize, record: &dyn InputRecord, failed: Failed) -> Outcome {
        let Failed { node, failure } = failed;
        if !FailureKind::WITH_POLICY.contains(&failure.kind) {
            return Outcome::Failed(failure);
        }
        let offset = record.offset();
        let retried = self.inputs[input].retried(offset);
        match self.topology.policy(node, failure.kind).verdict(retried) {
            Verdict::Fail => Outcome::Failed(failure),
            Verdict::Skip => Outcome::Skipped(failure),
            Verdict::DeadLetter(topic) => {
                let topic = self.topology.output_index(topic).expect("outputs holds every dead-letter topic");
                dead_letter::push(&mut self.env, topic, record, &failure);
                Outcome::DeadLettered(failure)
            }
            Verdict::RetryAfter(after) => {
                self.inputs[input].retried = Some((offset, retried + 1));
                self.condemned.retain(|condemned| condemned.input != input || condemned.offset != offset);
                Outcome::Again { after, failure }
            }
        }
    }

    fn condemnation(&self, input: usize, offset: Offset) -> Option<Failed> {
        let mut condemned = self.condemned.iter();
        let found = condemned.find(|condemned| condemned.input == input && condemned.offset == offset)?;
        Some(found.failed.clone())
    }

    /// The broker has refused an output of a record, so its batch was abandoned: when the record is processed again, the
    /// policy of the sink says what becomes of it, and the operators do not see it.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::skip()), State::default());
    /// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// assert!(matches!(outcome, Outcome::Done));
    /// let sink = task.outbox().records().find_map(|output| output.sink).expect("one output");
    /// // The broker refuses that output.
    /// task.abandon();
    /// task.condemn(0, Offset::new(10), sink, "too large");
    /// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// let Outcome::Skipped(failure) = outcome else { panic!("{outcome:?}") }; // the sink's policy
    /// assert_eq!(failure.to_string(), "writing the output failed in node 'sums': too large");
    /// ```
    pub fn condemn(&mut self, input: usize, offset: Offset, sink: NodeIndex, reason: &str) {
        let node = self.topology.node_name(sink).to_owned();
        let failure = RecordFailure { kind: FailureKind::Produce, node, message: reason.to_owned() };
        if self.condemnation(input, offset).is_none() {
            self.condemned.push(Condemned { input, offset, failed: Failed { node: sink, failure } });
        }
    }

    /// Fires the wall-clock schedules that are due at the time of the batch, and says how many those were. What they
    /// sent is in the outbox.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// // The operator sends a record every ten seconds.
    /// let at = |now| BatchInfo { id: BatchId::new(1), index: 0, size: 0, now };
    /// assert_eq!(task.punctuate(at(secs(69)), &base)?, 0);
    /// assert_eq!(task.punctuate(at(secs(70)), &base)?, 1);
    /// assert_eq!(task.outbox().len(), 1);
    /// assert!(task.has_uncommitted());
    /// # Ok::<(), processor_core::error::RecordFailure>(())
    /// ```
    ///
    /// # Errors
    /// A punctuation failed and the task stops; none of them has left anything.
    ///
    /// # Panics
    /// If the outputs of the record before are still in the outbox (EO-6).
    pub fn punctuate(&mut self, batch: BatchInfo, base: &dyn Base) -> Result<usize, RecordFailure> {
        assert!(self.env.outbox.is_empty(), "EO-6: the outputs of the record before were sent");
        if self.next_wall_clock().is_none_or(|due| batch.now < due) {
            return Ok(0);
        }
        self.env.origin.batch = batch;
        let fired = self.attempt_wall_clock(batch.now, base).map_err(|failed| failed.failure)?;
        self.punctuated |= !self.env.outbox.is_empty();
        if !self.has_uncommitted() {
            // What left nothing needs no commit to have happened.
            self.env.schedules.applied();
        }
        Ok(fired)
    }

    /// When the next wall-clock schedule is due; `None`: there is none.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// // Every ten seconds, and the task was started at 60.
    /// assert_eq!(task.next_wall_clock(), Some(secs(70)));
    /// ```
    pub fn next_wall_clock(&self) -> Option<Timestamp> {
        self.env.schedules.next_due(Clock::WallClock)
    }

    /// Whether an operator has asked for a commit since this was last asked.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// // The operator asks for a commit behind a 0.
    /// let outcome = task.process(0, &polled(10, "ann", 0), batch(0), &base);
    /// assert!(outcome.is_past());
    /// assert!(task.take_commit_request()); // the batch ends here
    /// assert!(!task.take_commit_request());
    /// ```
    pub fn take_commit_request(&mut self) -> bool {
        std::mem::take(&mut self.env.commit_requested)
    }

    /// The outputs of the last record; the runtime sends and clears them.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// assert!(outcome.is_past());
    /// let topics = task.topology().outputs().to_vec();
    /// for output in task.outbox().records() {
    ///     assert_eq!((&*topics[output.topic.slot()], output.key), ("sums", Some(&b"ann"[..])));
    /// }
    /// task.outbox().clear();
    /// ```
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.env.outbox
    }

    /// Whether the task has processed anything, written a store or sent anything since it was last committed.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// assert!(!task.has_uncommitted());
    /// let outcome = task.process(0, &polled(10, "ann", 5), batch(0), &base);
    /// assert!(task.has_uncommitted());
    /// # assert!(outcome.is_past());
    /// ```
    pub fn has_uncommitted(&self) -> bool {
        let moved = self.inputs.iter().any(|input| input.next != input.committed);
        moved || self.punctuated || self.env.stores.iter().any(|store| store.dirty_len() > 0)
    }

    /// Appends what the batch wrote to the stores.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// for (offset, value) in [(10, 5), (11, 7)] {
    ///     assert!(task.process(0, &polled(offset, "ann", value), batch(0), &base).is_past());
    ///     task.outbox().clear();
    /// }
    /// let mut changes = ChangeSet::default();
    /// task.collect_changes(&mut changes)?;
    /// let keys: Vec<_> = changes.changes().map(|change| change.key).collect();
    /// assert_eq!(keys, [b"ann"]); // its last value only
    /// # Ok::<(), processor_core::error::RecordFailure>(())
    /// ```
    ///
    /// # Errors
    /// A value cannot be encoded; the batch cannot commit.
    pub fn collect_changes(&self, changes: &mut ChangeSet) -> Result<(), RecordFailure> {
        self.env.stores.iter().try_for_each(|store| store.collect(changes)).map_err(|error| RecordFailure {
            kind: FailureKind::Encode,
            node: self.env.task.subtopology.to_string(),
            message: format!("a store's value: {error}"),
        })
    }

    /// The offset to commit for every input of the task (EO-12): last processed + 1, or what was committed before.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// let input = InputIndex::new(0);
    /// assert_eq!(task.offsets().collect::<Vec<_>>(), [(input, Offset::new(10))]);
    /// assert!(task.process(0, &polled(10, "ann", 5), batch(0), &base).is_past());
    /// assert_eq!(task.offsets().collect::<Vec<_>>(), [(input, Offset::new(11))]);
    /// ```
    ///
    /// # Panics
    /// If the task was not started.
    pub fn offsets(&self) -> impl Iterator<Item = (InputIndex, Offset)> {
        self.inputs.iter().map(|input| (input.index, input.next.expect("a task is started before it commits")))
    }

    /// The highest timestamp seen, uncommitted records included; `None` before the first record.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// assert_eq!(task.stream_time(), None);
    /// assert!(task.process(0, &polled(10, "ann", 5), batch(0), &base).is_past());
    /// assert_eq!(task.stream_time(), Some(secs(10)));
    /// ```
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.env.stream_time
    }

    /// The batch is committed and in the base.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, mut base) = (started(FailurePolicy::fail()), State::default());
    /// assert!(task.process(0, &polled(10, "ann", 5), batch(0), &base).is_past());
    /// task.outbox().clear();
    /// let mut changes = ChangeSet::default();
    /// task.collect_changes(&mut changes)?;
    /// base.apply(&changes); // the transaction has committed
    /// task.applied();
    /// assert!(!task.has_uncommitted());
    /// # Ok::<(), processor_core::error::RecordFailure>(())
    /// ```
    pub fn applied(&mut self) {
        assert!(self.env.stream_time >= self.committed_stream_time, "EO-8: stream time never goes back");
        self.committed_stream_time = self.env.stream_time;
        self.inputs.iter_mut().for_each(|input| input.committed = input.next);
        self.env.stores.iter_mut().for_each(|store| store.applied());
        self.env.schedules.applied();
        self.punctuated = false;
        let inputs = &self.inputs;
        self.condemned.retain(|condemned| Some(condemned.offset) >= inputs[condemned.input].committed);
    }

    /// The batch is void: the task stands where it was committed. How often a record was tried, and which ones are
    /// condemned, is remembered.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// assert!(task.process(0, &polled(10, "ann", 5), batch(0), &base).is_past());
    /// task.abandon(); // its transaction was aborted
    /// assert!(!task.has_uncommitted() && task.outbox().is_empty());
    /// assert_eq!(task.offsets().next(), Some((InputIndex::new(0), Offset::new(10))));
    /// assert_eq!(task.stream_time(), None);
    /// ```
    pub fn abandon(&mut self) {
        self.env.outbox.clear();
        self.env.stream_time = self.committed_stream_time;
        self.env.commit_requested = false;
        self.inputs.iter_mut().for_each(|input| input.next = input.committed);
        self.env.stores.iter_mut().for_each(|store| store.abandon());
        self.env.schedules.abandon();
        self.punctuated = false;
    }

    /// Closes the operators, if they were opened.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let mut task = started(FailurePolicy::fail());
    /// task.close();
    /// assert!(CLOSED.load(Ordering::Relaxed)); // which the operator's `close` sets
    /// ```
    pub fn close(&mut self) {
        if self.opened {
            self.sources.iter_mut().for_each(|source| source.close());
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.id())
    }
}

#[cfg(test)]
mod tests;
