//! The world of a simulation: a topology on a cluster and disks in memory, workers that live and die in it, and what must hold of
//! any topology at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use processor_core::codec::Codec;
use processor_core::ids::{BatchId, InputIndex, Offset, Partition, StoreIndex, TaskId, Timestamp, TopicPartition};
use processor_core::protocol::metadata::OffsetMetadata;
use processor_core::record::Record;
use processor_core::store::StoreSpec;
use processor_core::topology::{ApplicationTopology, SubTopology};
use processor_runtime::config::{changelog_topic, member, transactional_id};
use processor_runtime::failpoints::Failpoint;
use processor_runtime::kafka::TransactionalId;
use processor_runtime::state::{Layout, Positions, StoreLayout};
use processor_runtime::stream_thread::{ChangelogTopic, StreamThread, ThreadPlan, producers};
use processor_runtime::transaction::{Initialised, Initialising};

use crate::fake::log::{Entry, Outcome, Written};
use crate::fake::{Entries, FakeClock, FakeCluster, FakeDirectory, FakeKafka, thread_plan};
use crate::strike::{self, Killed, Strike};

/// Every fault that was scripted and has not struck may cost the longest wait of the engine, `outside_wait`.
const TURNS_TO_HEAL_MAX: usize = 20_000;
/// How far the clock moves with every turn.
const TURN: Duration = Duration::from_millis(20);
/// After so many turns in which nothing is committed somebody may wait for a time, such as that of a retry, and it passes faster.
const TURNS_IDLE: usize = 100;
const IDLE: Duration = Duration::from_secs(1);
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

type Thread = StreamThread<FakeKafka, FakeDirectory, FakeClock>;

#[derive(Debug)]
struct Worker {
    directory: FakeDirectory,
    thread: Option<Thread>,
    /// Where in its turn it is to die, if it is.
    strike: Option<Strike>,
    /// Its machine is lost for good: it never starts again.
    gone: bool,
}

/// What the brokers do with offsets that belong to no open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brokers {
    /// They refuse them.
    Verify,
    /// They take them, as with `transaction.partition.verification.enable=false`. The workers know, and every producer of
    /// theirs begins with a fence transaction.
    VerifyNothing,
}

/// What the workers are to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Whoever starts is somebody new, and whoever stops leaves.
    Dynamic,
    /// They have names, and are expected back.
    Static,
}

/// A cluster with the topics of a topology, and its workers.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub cluster: FakeCluster,
    topology: ApplicationTopology,
    clock: FakeClock,
    workers: Vec<Worker>,
    brokers: Brokers,
    members: Members,
    /// The group's offsets when they were last looked at.
    offsets: BTreeMap<TopicPartition, Offset>,
    /// How often a worker has died at each failpoint.
    pub struck: BTreeMap<Failpoint, u64>,
}

impl World {
    /// A world with so many workers, none of which runs yet. `partitions` counts those of topics that the application does not
    /// make itself; an output has as many as a sink needs that keeps partitions.
    ///
    /// # Panics
    /// If the inputs of a sub-topology do not have the same number of partitions.
    pub fn new(
        topology: ApplicationTopology,
        partitions: impl Fn(&str) -> u32,
        workers: usize,
        brokers: Brokers,
        members: Members,
    ) -> Self {
        let cluster = FakeCluster::new();
        if brokers != Brokers::Verify {
            cluster.verify_nothing();
        }
        create_topics(&cluster, &topology, &partitions);
        let worker = |_| Worker { directory: FakeDirectory::new(), thread: None, strike: None, gone: false };
        Self {
            cluster,
            topology,
            clock: FakeClock::ticking(Duration::from_millis(1)),
            workers: (0..workers).map(worker).collect(),
            struck: BTreeMap::new(),
            brokers,
            members,
            offsets: BTreeMap::new(),
        }
    }

    /// What runs here.
    pub fn topology(&self) -> &ApplicationTopology {
        &self.topology
    }

    /// How many workers there are, running or not.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What the workers are to the group.
    pub fn members(&self) -> Members {
        self.members
    }

    /// Whether a worker runs.
    pub fn runs(&self, worker: usize) -> bool {
        self.workers[worker].thread.is_some()
    }

    /// Whether the worker's machine is lost for good.
    pub fn is_gone(&self, worker: usize) -> bool {
        self.workers[worker].gone
    }

    /// A worker's disk.
    pub fn directory(&self, worker: usize) -> &FakeDirectory {
        &self.workers[worker].directory
    }

    /// The transactional id that stands for a worker, which is also its client id.
    pub fn id(&self, worker: usize) -> TransactionalId {
        transactional_id(self.topology.application_id(), &name(worker), 0)
    }

    /// The transaction of a worker has outlived its time: it is aborted, its producer fenced. Says whether it had one.
    pub fn time_out_transaction(&self, worker: usize) -> bool {
        self.id(worker).of_both().iter().any(|id| self.cluster.time_out_transaction(id))
    }

    /// The topics that are read and that the application does not make itself.
    pub fn external_inputs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topology.inputs().iter().filter(|topic| !self.topology.is_internal(topic))
    }

    /// The timestamp of a record that comes a millisecond after the one before it in the partition.
    pub fn next_timestamp(&self, topic: &str, partition: i32) -> Timestamp {
        Timestamp::new(1_000 + self.cluster.high_watermark(topic, partition))
    }

    /// What a `read_committed` reader sees of a topic, partition by partition.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_simulator::Simulation;
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let simulation = Simulation::new(&topology.build()?)?.input("in", (Utf8, JavaLong), |_| ("a".to_owned(), 1));
    /// let simulation = simulation.check(|world| {
    ///     let out: Vec<Record<String, i64>> = world.records("out", (Utf8, JavaLong));
    ///     assert!(out.iter().all(|record| record.value == 1));
    /// });
    /// # simulation.run(4);
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Panics
    /// If there is no such topic, or a record is not of these types.
    #[expect(clippy::needless_pass_by_value, reason = "codecs are given as sources and sinks take them")]
    pub fn records<K, V>(&self, topic: &str, codecs: (impl Codec<K>, impl Codec<V>)) -> Vec<Record<K, V>> {
        let decoded = self.cluster.read_committed(topic).into_iter().map(|(partition, offset, written)| {
            let Written { key, value, timestamp, .. } = written;
            let key = codecs.0.decode(key.as_deref());
            let record = key.and_then(|key| Ok(Record::new(key, codecs.1.decode(value.as_deref())?, timestamp)));
            record.unwrap_or_else(|error| panic!("{topic}-{partition}@{offset}: {error}"))
        });
        decoded.collect()
    }

    /// Starts a worker.
    pub fn start(&mut self, worker: usize) {
        let plan = self.plan(worker);
        let kafka = Arc::new(self.cluster.worker(&name(worker)));
        let producers = producers(&plan, &*kafka).expect("a new life").map(|producer| {
            let mut initialising = Initialising::new(producer, &self.clock);
            loop {
                match initialising.step(&self.clock, Duration::ZERO, Duration::from_secs(100)).expect("a new life") {
                    Initialised::Done(producer) => break producer,
                    Initialised::Pending(same) => initialising = same,
                    Initialised::GivenUp => panic!("O6: initialising never ends"),
                }
                // Markers of an earlier life may be held back, or a broker away; a start waits as long as it takes.
                self.cluster.elect();
                self.cluster.release_markers();
            }
        });
        let directory = Arc::new(self.workers[worker].directory.clone());
        let thread = StreamThread::new(plan, kafka, directory, self.clock.clone(), producers);
        self.workers[worker].thread = Some(thread.expect("a new life"));
    }

    /// One turn of a worker; one that stops is dead, and must say why in words that the caller expects. One that dies where
    /// it was to die says nothing.
    pub fn turn(&mut self, worker: usize) -> Option<String> {
        self.clock.advance(TURN);
        let Worker { thread, strike, .. } = &mut self.workers[worker];
        let thread = thread.as_mut()?;
        let _entered = tracing::info_span!("worker", worker).entered();
        let ended = match strike::run(strike, || thread.turn()) {
            Ok(turned) => Some(turned.err()?.0),
            Err(Killed(point)) => {
                tracing::debug!("dies at {}", point.name());
                *self.struck.entry(point).or_default() += 1;
                None
            }
        };
        self.die(worker, 0);
        ended
    }

    /// Stops a worker, as SIGTERM does; it may be that it dies over it.
    pub fn stop(&mut self, worker: usize) {
        let Worker { thread, strike, .. } = &mut self.workers[worker];
        let Some(thread) = thread.take() else { return };
        match strike::run(strike, || thread.run(&AtomicBool::new(true), |_| {})) {
            Ok(stopped) => stopped.expect("O6: a worker that is told to stop has no reason not to"),
            Err(Killed(point)) => *self.struck.entry(point).or_default() += 1,
        }
        self.bury(worker, 0);
    }

    /// The worker is to die when it comes past a failpoint for the so-manieth time from now.
    pub fn strike(&mut self, worker: usize, at: Failpoint, passes: u32) {
        self.workers[worker].strike = Some(Strike { at, passes_left: passes });
    }

    /// The worker's machine is lost for good, with its disk. Not the last one.
    pub fn lose(&mut self, worker: usize) -> bool {
        let others = self.workers.iter().enumerate().any(|(other, it)| other != worker && !it.gone);
        if others && !self.workers[worker].gone {
            self.die(worker, 0);
            self.workers[worker].gone = true;
            return true;
        }
        false
    }

    /// Damages a store that a worker has on disk, or a file of it; whether it has one.
    pub fn damage(&self, worker: usize, nth: usize) -> bool {
        let directory = &self.workers[worker].directory;
        let tasks = directory.tasks();
        let Some(task) = tasks.get(nth % tasks.len().max(1)) else { return false };
        if (nth >> 8).is_multiple_of(2) {
            directory.tear(task);
            return true;
        }
        let stores = self.topology.subtopology_of(task).stores.len();
        directory.damage(task, StoreIndex::new(((nth >> 9) % stores) as u16));
        true
    }

    /// `kill -9`, or, with batches lost, a power loss.
    pub fn die(&mut self, worker: usize, batches_lost: usize) {
        if self.workers[worker].thread.take().is_some() {
            self.bury(worker, batches_lost);
        }
    }

    /// Cuts the connections of a worker whose thread is no more.
    fn bury(&mut self, worker: usize, batches_lost: usize) {
        self.cluster.crash(&name(worker));
        self.workers[worker].directory.crash(batches_lost);
        self.workers[worker].strike = None;
    }

    /// Ends the session of a worker.
    pub fn expire(&self, worker: usize) {
        self.cluster.expire_session(&self.id(worker).to_string());
    }

    /// Whether every record of every input, internal ones included, is processed, and none is on its way.
    pub fn is_done(&self) -> bool {
        let committed = self.cluster.committed();
        let is_done = |partition: &TopicPartition| {
            let from = committed.get(partition).map_or(0, |(offset, _)| offset.get());
            let waits = |entry: &Entry| match entry {
                Entry::Record { outcome, .. } => *outcome != Outcome::Aborted,
                Entry::Marker { .. } => false,
            };
            !self.cluster.any_from(partition, from, waits)
        };
        self.topology.inputs().iter().flat_map(|topic| self.partitions_of(topic)).all(|partition| is_done(&partition))
    }

    /// Heals everything but what is lost for good, and runs all workers until everything is processed (O6).
    ///
    /// # Panics
    /// If that never comes.
    pub fn finish(&mut self) {
        self.cluster.elect();
        self.cluster.release_markers();
        self.cluster.delay_answers(0);
        for worker in 0..self.workers.len() {
            self.workers[worker].strike = None;
            if self.workers[worker].thread.is_none() {
                self.expire(worker);
                if !self.workers[worker].gone {
                    self.start(worker);
                }
            }
        }
        let alive: Vec<usize> = (0..self.workers.len()).filter(|worker| !self.workers[*worker].gone).collect();
        let mut idle = 0;
        for _ in 0..TURNS_TO_HEAL_MAX {
            self.end_what_only_others_can();
            for &worker in &alive {
                if let Some(reason) = self.turn(worker) {
                    assert!(may_stop(&reason), "O6: worker {worker} stopped: {reason}");
                    self.expire(worker);
                    self.start(worker);
                }
            }
            self.cluster.deliver_late_requests();
            self.cluster.release_markers();
            idle = if self.watch_offsets() { 0 } else { idle + 1 };
            if self.is_done() && self.all_run() {
                return;
            }
            if idle > TURNS_IDLE {
                self.clock.advance(IDLE);
            }
        }
        let tasks: Vec<_> = self.workers.iter().map(|worker| worker.thread.as_ref().map(Thread::tasks)).collect();
        let open =
            self.cluster.open_transactions().into_iter().map(|id| (self.cluster.written_in_transaction(&id), id));
        let open: Vec<_> = open.collect();
        panic!("O6: not done after healing: {open:?} open, committed {:?}, tasks {tasks:?}", self.cluster.committed());
    }

    /// Who died for good in a transaction without a changelog record has named itself nowhere, unless it had committed
    /// before: the broker's time-out ends that transaction. Late offsets of it, taken by brokers that verify nothing, hang
    /// until a person ends them.
    fn end_what_only_others_can(&self) {
        for worker in (0..self.workers.len()).filter(|worker| self.workers[*worker].gone) {
            for id in self.id(worker).of_both() {
                let written = self.cluster.written_in_transaction(&id);
                if !written.iter().any(|partition| self.is_changelog(&partition.topic)) {
                    self.cluster.time_out_transaction(&id);
                }
                if self.brokers == Brokers::VerifyNothing {
                    self.cluster.abort_hanging(&id);
                }
            }
        }
    }

    /// Whether every task runs, and at one worker only: a restored store is complete only then. One that has not heard yet
    /// that it has lost its tasks says that it runs them, too; its state is not the newest.
    pub fn all_run(&self) -> bool {
        let mut running = BTreeSet::new();
        for (index, worker) in self.workers.iter().enumerate() {
            let tasks = worker.thread.as_ref().map(Thread::tasks).unwrap_or_default();
            for (task, _) in tasks.into_iter().filter(|(_, runs)| *runs) {
                if !self.cluster.is_up_to_date(&self.id(index).0) || !running.insert(task) {
                    return false;
                }
            }
        }
        running.len() == self.tasks().len()
    }

    /// O3: no committed offset goes back between two looks. Says whether one has moved.
    ///
    /// # Panics
    /// If one goes back.
    pub fn watch_offsets(&mut self) -> bool {
        let mut moved = false;
        for (partition, (offset, _)) in self.cluster.committed() {
            let before = self.offsets.insert(partition.clone(), offset);
            assert!(
                before.is_none_or(|before| before <= offset),
                "O3: {partition}: offset {offset} comes after {before:?}"
            );
            moved |= before != Some(offset);
        }
        moved
    }

    /// What must hold of any topology when all is processed: no transaction is open (O7), and all that is kept of a store, on
    /// disks and in memory, is what its changelog says, as of the last commit (O2, EO-4, EO-10).
    ///
    /// # Panics
    /// If it does not.
    pub fn verify_stores(&self) {
        let open = self.cluster.open_transactions();
        assert!(open.is_empty(), "O7: transactions stay open: {open:?}");
        let committed = self.cluster.committed();
        for task in self.tasks() {
            let part = self.topology.subtopology_of(&task);
            let batches = part.inputs.iter().filter_map(|input| {
                let (_, metadata) = committed.get(&self.partition(&task, *input))?;
                Some(OffsetMetadata::parse(metadata).expect("ours").batch)
            });
            match batches.max() {
                Some(batch) if !part.stores.is_empty() => self.verify_task(&task, part, batch),
                Some(_) => {}
                None => {
                    let changelogs = part.store_specs.iter().filter_map(|spec| self.changelog(spec));
                    for changelog in changelogs {
                        let fold = self.fold(&changelog, task.partition);
                        assert!(
                            fold.is_empty(),
                            "O2: task {task} has committed nothing, and {changelog} holds {fold:?}"
                        );
                    }
                }
            }
        }
    }

    fn verify_task(&self, task: &TaskId, part: &SubTopology, batch: BatchId) {
        let changelogs: Vec<_> = part.store_specs.iter().map(|spec| self.changelog(spec)).collect();
        let ends: Vec<_> = changelogs.iter().map(|topic| Some(self.end_of(topic.as_ref()?, task))).collect();
        let mut newest: Option<(BTreeMap<Arc<str>, Entries>, Positions)> = None;
        for worker in &self.workers {
            let Some((stores, positions)) = worker.directory.dump(task) else { continue };
            let within = positions.changelogs.iter().zip(&ends);
            let within = within.map(|(position, end)| position.map(|position| Some(position.get()) <= *end));
            assert!(within.into_iter().all(|within| within != Some(false)), "EO-4: {positions:?} of {ends:?}");
            if newest.as_ref().is_none_or(|(_, known)| positions.batch > known.batch) {
                newest = Some((stores, positions));
            }
        }
        let (on_disk, positions) = newest.expect("O2: somebody has the state");
        assert_eq!(positions.batch, batch, "O2: task {task}: the newest state is of the last commit");
        let runs = |worker: &&Worker| {
            let tasks = worker.thread.as_ref().map(Thread::tasks).unwrap_or_default();
            tasks.into_iter().any(|(of, runs)| of == *task && runs)
        };
        let owner = self.workers.iter().find(runs).expect("O6: every task runs somewhere");
        let (in_use, _) = owner.directory.dump(task).expect("its state is open");
        for (spec, changelog) in part.store_specs.iter().zip(changelogs) {
            let Some(changelog) = changelog else { continue };
            let fold = self.fold(&changelog, task.partition);
            assert_eq!(in_use[&spec.name], fold, "O2: task {task}: store {} where the task runs", spec.name);
            if !spec.in_memory {
                assert_eq!(on_disk[&spec.name], fold, "O2: task {task}: the newest store {}", spec.name);
            }
        }
    }

    /// The last value of every key of a changelog partition.
    pub fn fold(&self, changelog: &str, partition: Partition) -> Entries {
        let records = self.cluster.read_committed(changelog).into_iter().filter(|(of, _, _)| *of == partition);
        let mut fold = Entries::new();
        for (_, _, Written { key, value, .. }) in records {
            let key = key.expect("changelogs have keys");
            match value {
                Some(value) => drop(fold.insert(key, value)),
                None => drop(fold.remove(&key)),
            }
        }
        fold
    }

    /// Every topic that the application writes: its outputs, internal ones included, and its changelogs.
    pub fn written_topics(&self) -> impl Iterator<Item = Arc<str>> {
        self.topology.outputs().iter().cloned().chain(self.changelogs())
    }

    /// The changelogs of all stores that have one.
    pub fn changelogs(&self) -> impl Iterator<Item = Arc<str>> {
        let specs = self.topology.subtopologies().iter().flat_map(|part| &part.store_specs);
        specs.filter_map(|spec| self.changelog(spec))
    }

    /// All partitions of a topic.
    pub fn partitions_of(&self, topic: &Arc<str>) -> impl Iterator<Item = TopicPartition> + use<> {
        let (topic, partitions) = (topic.clone(), 0..self.cluster.partitions(topic));
        partitions.map(move |partition| TopicPartition::new(topic.clone(), Partition::new(partition)))
    }

    /// The changelog of a store, if it has one.
    pub fn changelog(&self, spec: &StoreSpec) -> Option<Arc<str>> {
        spec.changelog.as_ref().map(|_| changelog_topic(self.topology.application_id(), &spec.name))
    }

    fn is_changelog(&self, topic: &str) -> bool {
        self.changelogs().any(|changelog| *changelog == *topic)
    }

    fn end_of(&self, topic: &str, task: &TaskId) -> i64 {
        self.cluster.high_watermark(topic, task.partition.get())
    }

    fn partition(&self, task: &TaskId, input: InputIndex) -> TopicPartition {
        TopicPartition::new(self.topology.inputs()[input.slot()].clone(), task.partition)
    }

    /// All tasks, whoever runs them.
    pub fn tasks(&self) -> Vec<TaskId> {
        let of = |part: &SubTopology| {
            let name = part.name.clone();
            let partitions = 0..tasks_of(&self.cluster, &self.topology, part);
            partitions.map(move |partition| TaskId::new(name.clone(), Partition::new(partition)))
        };
        self.topology.subtopologies().iter().flat_map(of).collect()
    }

    fn plan(&self, worker: usize) -> ThreadPlan {
        let (mut changelogs, mut layouts) = (BTreeMap::new(), BTreeMap::new());
        for part in self.topology.subtopologies().iter().filter(|part| !part.stores.is_empty()) {
            let topics = part.store_specs.iter().map(|spec| {
                let topic = self.changelog(spec)?;
                Some(ChangelogTopic { store: spec.name.clone(), topic, delete_retention_ms: DAY_MS })
            });
            let stores = part.store_specs.iter().map(|spec| StoreLayout {
                name: spec.name.clone(),
                in_memory: spec.in_memory,
                changelog_topic_id: self.changelog(spec).map(|topic| format!("id-of-{topic}")),
            });
            let layout = Layout { stores: stores.collect(), cluster_id: "cluster-1".to_owned() };
            changelogs.insert(part.name.clone(), topics.collect());
            layouts.insert(part.name.clone(), layout);
        }
        let plan = thread_plan(&name(worker), self.topology.clone(), 0);
        let partitions = |topic: &Arc<str>| self.cluster.partitions(topic).unsigned_abs();
        ThreadPlan {
            output_partitions: self.topology.outputs().iter().map(partitions).collect(),
            member: member(&name(worker), self.members == Members::Static, 0, &plan.transactional_id, None),
            leave_on_stop: self.members == Members::Dynamic,
            changelogs,
            layouts,
            fence_after_rebuild: self.brokers == Brokers::VerifyNothing,
            ..plan
        }
    }
}

/// A worker may stop where its own id was fenced too often, and for no other reason.
pub(crate) fn may_stop(reason: &str) -> bool {
    reason.starts_with("the transactional id '") && reason.contains("' was fenced ")
}

fn name(worker: usize) -> String {
    format!("w{worker}")
}

/// Makes all topics that the topology reads and writes.
fn create_topics(cluster: &FakeCluster, topology: &ApplicationTopology, partitions: &impl Fn(&str) -> u32) {
    let external = |topic: &&Arc<str>| !topology.is_internal(topic);
    let create = |topic: &str, partitions: u32| {
        cluster.create_topic(topic, i32::try_from(partitions).expect("a simulation has few partitions"));
    };
    topology.inputs().iter().filter(external).for_each(|topic| create(topic, partitions(topic)));
    let known = |topic: &str| Some(cluster.partitions(topic).unsigned_abs()).filter(|count| *count > 0);
    for (internal, needed) in topology.internal_topics().iter().zip(topology.internal_partitions(known)) {
        create(&internal.topic, needed.expect("the inputs are there, so it is known"));
    }
    let mut needed: BTreeMap<&str, u32> = BTreeMap::new();
    for part in topology.subtopologies() {
        let tasks = tasks_of(cluster, topology, part);
        for (_, output) in topology.sinks_to_source_partition(part) {
            let needed = needed.entry(&topology.outputs()[output.slot()]).or_default();
            *needed = tasks.unsigned_abs().max(*needed);
        }
        for spec in part.store_specs.iter().filter(|spec| spec.changelog.is_some()) {
            cluster.create_topic(&changelog_topic(topology.application_id(), &spec.name), tasks);
        }
    }
    for topic in topology.outputs().iter().filter(external).filter(|topic| known(topic).is_none()) {
        create(topic, needed.get(&**topic).copied().unwrap_or_default().max(partitions(topic)));
    }
}

/// How many tasks a sub-topology has: one for each partition of its inputs.
fn tasks_of(cluster: &FakeCluster, topology: &ApplicationTopology, part: &SubTopology) -> i32 {
    let counts = part.inputs.iter().map(|input| {
        let topic = &topology.inputs()[input.slot()];
        (topic, cluster.partitions(topic))
    });
    let counts: Vec<_> = counts.collect();
    let (first, tasks) = counts[0];
    let other = counts.iter().find(|(_, count)| *count != tasks);
    if let Some((other, count)) = other {
        panic!(
            "the inputs of sub-topology '{}' must have the same number of partitions, and '{first}' has {tasks}, '{other}' {count}",
            part.name
        );
    }
    tasks
}
