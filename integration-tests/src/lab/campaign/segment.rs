//! One stretch of the campaign: an application with fresh topics, its workers, its load and what watches them. Faults
//! strike it, and at its end everything that it has processed is verified; see `proof`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use processor_runtime::seeded_bugs::Rule;
use processor_runtime::state::{application_directory, read_task_offline};

use super::bank::Bank;
use super::cluster::Cluster;
use super::load::{Load, now_ms};
use super::resources::Resources;
use super::visible::Visible;
use super::wrong;
use crate::disk::Disk;
use crate::lab::interrupt::{Interrupt, Interrupted};
use crate::lab::program::OWN_FILE;
use crate::scene::{Scene, Subject, Watch};
use crate::worker::{OVERWRITE_FREED, Worker, WorkerConfig};

/// How many partitions the topics have.
pub(super) const PARTITIONS: i32 = 8;
/// Who runs all the time.
const CREW: [&str; 3] = ["one", "two", "three"];
/// Who comes and goes.
pub(super) const EXTRA: &str = "four";
/// Whose state lies on a small disk, where there can be one.
pub(super) const ON_DISK: &str = "three";
const DISK_BYTES: u64 = 96 << 20;
const KEYS: u64 = 2_000;
/// How long each record takes where a rule is switched off.
const SLOW_US: u32 = 1_000;
/// Longer than any bound: what does not go on by then does not go on.
pub(super) const STUCK: Duration = Duration::from_mins(2);

/// An application under faults.
pub(super) struct Segment {
    pub(super) scene: Scene,
    pub(super) crew: Vec<Member>,
    pub(super) visible: Visible,
    pub(super) watch: Option<Watch>,
    pub(super) load: Option<Load>,
    pub(super) bank: Bank,
    pub(super) resources: Resources,
    /// How many outputs were visible when the last fault was over.
    pub(super) visible_before: u64,
    /// Whose state of which partition was damaged: what nobody has read since may still be.
    pub(super) damaged: BTreeSet<(usize, i32)>,
}

/// A worker by name, whether it runs or not.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) config: WorkerConfig,
    pub(super) worker: Option<Worker>,
    pub(super) disk: Option<Disk>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("scene", &self.scene).finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn new(scene: &Scene, name: &str, disk: Option<Disk>, without: Option<Rule>) -> Self {
        let config = scene.worker(name).with("instance-id", name);
        // A transaction that is open for most of the time shows what is missing sooner.
        let config = without
            .into_iter()
            .fold(config, |config, rule| config.with("without", rule.name()).with("pause-us", SLOW_US));
        let config = match &disk {
            Some(disk) => disk.worker(config),
            None => config,
        };
        let config = unblocked(config).with_variable(OVERWRITE_FREED.0, OVERWRITE_FREED.1);
        Self { name: name.to_owned(), config, worker: None, disk }
    }

    /// Starts it as it is always started.
    pub(super) fn start(&mut self) {
        self.worker = Some(self.config.start());
    }

    /// Starts it in another way.
    pub(super) fn start_as(&mut self, change: impl FnOnce(WorkerConfig) -> WorkerConfig) {
        self.worker = Some(change(self.config.clone()).start());
    }

    pub(super) fn running(&mut self) -> &mut Worker {
        self.worker.as_mut().expect("it runs unless a fault is under way")
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.running().kill()?;
        self.worker = None;
        Ok(())
    }

    /// SIGTERM, which must end it with exit code 0.
    pub(super) fn stop(&mut self) -> Result<()> {
        let worker = self.worker.take().expect("it runs unless a fault is under way");
        worker.stop().map_err(|error| wrong(format!("{}: {error:#}", self.name)))
    }

    /// What it owns, as far as its log says.
    pub(super) fn assigned(&self) -> Vec<i32> {
        self.worker.as_ref().map(Worker::assigned).unwrap_or_default()
    }

    /// Where the files of its state can be reached from here.
    fn state_dir(&self, scene: &Scene) -> PathBuf {
        self.disk.as_ref().map_or_else(|| scene.state_dir(&self.name), Disk::path)
    }

    /// Its state of the application.
    pub(super) fn application_dir(&self, scene: &Scene) -> PathBuf {
        application_directory(&self.state_dir(scene), &scene.name)
    }

    /// Its state of a task.
    pub(super) fn task_dir(&self, scene: &Scene, partition: i32) -> PathBuf {
        self.application_dir(scene).join(scene.task(partition).to_string())
    }
}

/// The lab blocks signals, and programs that it starts would inherit that: they are started by way of `lab exec`.
fn unblocked(mut config: WorkerConfig) -> WorkerConfig {
    let mut words: Vec<String> = [OWN_FILE, "exec", "--"].map(str::to_owned).to_vec();
    words.append(&mut config.within);
    config.within = words;
    config
}

impl Segment {
    /// Makes topics and starts everything; returns when every partition shows outputs.
    pub(super) fn begin(name: &str, directory: &Path, cluster: &Cluster, setting: &Setting<'_>) -> Result<Self> {
        let dir = directory.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (brokers, proxied) = (cluster.kafka.bootstrap_servers(), cluster.proxied());
        let mut scene = Scene::placed(Subject::LEDGER, name, dir, (&brokers, &proxied), PARTITIONS);
        scene.keys = KEYS;
        cluster.await_topics(&[scene.input(), scene.output()], setting.interrupt)?;
        let watch = Some(scene.watch());
        let visible = Visible::watch(&brokers, &scene.output(), PARTITIONS)?;
        let load = Some(Load::start(&scene, setting.rate, setting.seed)?);
        let mut crew = Vec::new();
        for name in CREW {
            let on_disk = setting.small_disk && name == ON_DISK;
            let disk = on_disk.then(|| Disk::new(&scene.state_dir(name), DISK_BYTES)).transpose()?;
            crew.push(Member::new(&scene, name, disk, setting.without));
        }
        crew.push(Member::new(&scene, EXTRA, None, setting.without));
        let bank = Bank::open(&format!("{name}-bank"), directory, cluster, setting)?;
        let resources = Resources::default();
        let mut segment =
            Self { scene, crew, visible, watch, load, bank, resources, visible_before: 0, damaged: BTreeSet::new() };
        segment.crew.iter_mut().filter(|member| member.name != EXTRA).for_each(Member::start);
        segment.settle(setting.interrupt)?;
        Ok(segment)
    }

    /// The topics that it reads and writes.
    pub(super) fn topics(&self) -> Vec<String> {
        [self.scene.input()].into_iter().chain(self.scene.written()).collect()
    }

    /// What was damaged and lies there unread is removed, as a person would who has found it, and made again from the
    /// changelog. It must say itself that it is damaged: what can be read is judged at the end, like any other.
    pub(super) fn mend_what_is_damaged(&mut self, interrupt: &Interrupt) -> Result<()> {
        let damaged = std::mem::take(&mut self.damaged);
        for (at, member) in self.crew.iter_mut().enumerate() {
            let mut partitions = damaged.iter().filter(|(of, _)| *of == at).map(|(_, partition)| *partition).peekable();
            if partitions.peek().is_none() {
                continue;
            }
            // Only the state of a worker that does not run can be looked at.
            let runs = member.worker.is_some();
            if runs {
                member.kill()?;
            }
            for partition in partitions {
                let task = self.scene.task(partition);
                if read_task_offline(&member.application_dir(&self.scene), &task).is_err() {
                    let directory = member.task_dir(&self.scene, partition);
                    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
                }
            }
            if runs {
                member.start();
            }
        }
        self.settle(interrupt)
    }

    /// Everyone who runs.
    pub(super) fn on_duty(&self) -> impl Iterator<Item = &Member> {
        self.crew.iter().filter(|member| member.worker.is_some())
    }

    /// Waits until the workers that run share all partitions, each has some, and each partition goes on.
    pub(super) fn settle(&mut self, interrupt: &Interrupt) -> Result<()> {
        let shared = interrupt.wait_until(STUCK, || {
            self.ensure_all_run()?;
            let owned: Vec<Vec<i32>> = self.on_duty().map(Member::assigned).collect();
            let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
            let assigned: usize = owned.iter().map(Vec::len).sum();
            Ok(owned.iter().all(|owned| !owned.is_empty())
                && (all.len(), assigned) == (PARTITIONS as usize, PARTITIONS as usize))
        })?;
        if !shared {
            let owned: Vec<_> = self.on_duty().map(|member| (&member.name, member.assigned())).collect();
            return Err(wrong(format!("after {STUCK:?} the workers do not share all partitions: {owned:?}")));
        }
        self.await_back(&all_partitions(), now_ms(), interrupt)?;
        Ok(())
    }

    /// Waits until these partitions show outputs of records that were produced at this time or later; how long that took.
    pub(super) fn await_back(&mut self, partitions: &[i32], since: i64, interrupt: &Interrupt) -> Result<Duration> {
        self.visible.expect(partitions, since);
        let back = interrupt.wait_until(STUCK, || {
            self.ensure_all_run()?;
            self.visible.count()?;
            Ok(self.visible.back_after().is_some())
        })?;
        if !back {
            let waiting = self.visible.waiting();
            return Err(wrong(format!("after {STUCK:?} the partitions {waiting:?} do not go on")));
        }
        Ok(self.visible.back_after().expect("it was asked for just now"))
    }

    /// Waits until so many outputs became visible since the last fault.
    pub(super) fn await_visible(&mut self, count: u64, interrupt: &Interrupt) -> Result<()> {
        let enough = interrupt.wait_until(STUCK, || {
            self.ensure_all_run()?;
            Ok(self.since_last()? >= count)
        })?;
        if enough { Ok(()) } else { Err(wrong(format!("after {STUCK:?} not even {count} outputs became visible"))) }
    }

    /// How many outputs became visible since the last fault.
    pub(super) fn since_last(&self) -> Result<u64> {
        Ok(self.visible.count()?.saturating_sub(self.visible_before))
    }

    /// Writes down where every worker stands when something went wrong, for whoever wants to know why it does not go on.
    pub(super) fn with_stacks<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.as_ref().is_err_and(|error| !error.is::<Interrupted>()) {
            let running = self.crew.iter().chain(&self.bank.crew).filter_map(|member| member.worker.as_ref());
            running.for_each(Worker::write_stacks);
        }
        outcome
    }

    /// Nobody may have ended by itself.
    pub(super) fn ensure_all_run(&mut self) -> Result<()> {
        self.load.as_ref().map_or(Ok(()), Load::ensure_runs)?;
        self.crew.iter_mut().try_for_each(ensure_alive)?;
        self.bank.ensure_all_run()
    }
}

/// Fails if a worker has ended by itself.
pub(super) fn ensure_alive(member: &mut Member) -> Result<()> {
    let Some(worker) = &mut member.worker else { return Ok(()) };
    if worker.is_alive() {
        return Ok(());
    }
    let tail = worker.log_tail(8);
    Err(wrong(format!("{} has ended by itself; its log ends:\n{tail}", member.name)))
}

/// All partitions of its topics.
pub(super) fn all_partitions() -> Vec<i32> {
    (0..PARTITIONS).collect()
}

/// What a segment is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) rate: u64,
    pub(super) seed: u64,
    pub(super) small_disk: bool,
    /// A rule that the workers do not keep.
    pub(super) without: Option<Rule>,
    pub(super) interrupt: &'a Interrupt,
}
