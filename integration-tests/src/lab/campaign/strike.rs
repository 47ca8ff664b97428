//! How each fault is carried out, and what is waited for behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use processor_runtime::config::transactional_id;
use processor_runtime::failpoints::Failpoint;
use processor_simulator::SplitMix64;

use super::cluster::Cluster;
use super::faults::{Fault, Means};
use super::load::now_ms;
use super::network::Lost;
use super::segment::{EXTRA, ON_DISK, Segment, all_partitions};
use super::wrong;
use crate::lab::interrupt::Interrupt;
use crate::proxy::{Fault as NetworkFault, Proxy, Rule};
use crate::scene::copy_directory;

/// How long a worker may take until it has come past the place where it dies.
const DEATH_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a rule of the proxy waits for a commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a full disk is waited for to be seen.
const SEEN_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a worker may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How much becomes visible while something odd goes on.
const MEANWHILE: u64 = 2_000;
const REFUSED: i32 = 1;
/// How many lines of a log say enough.
const LOG_LINES: usize = 8;

/// What came of a strike.
#[derive(Debug)]
pub(super) struct Struck {
    pub(super) fault: Fault,
    /// Who, and what is to be known of it.
    pub(super) victim: String,
    /// How many partitions it owned or led.
    pub(super) owned: usize,
    /// How many outputs became visible since the last fault.
    pub(super) before: u64,
    /// How long it took until all that it owned went on.
    pub(super) recovery: Duration,
    /// The longest that a record was on its way.
    pub(super) delay: Duration,
    /// Whether it hit what it was meant to hit.
    pub(super) hit: bool,
}

/// What a fault did.
struct Done {
    victim: String,
    owned: usize,
    recovery: Duration,
    hit: bool,
}

/// Everything that a strike needs.
pub(super) struct Striker<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) segment: &'a mut Segment,
    pub(super) random: &'a mut SplitMix64,
    pub(super) means: &'a Means,
    pub(super) interrupt: &'a Interrupt,
}

impl<'a> Striker<'a> {
    /// Strikes, heals, and waits until everything goes on.
    pub(super) fn strike(&mut self, fault: Fault) -> Result<Struck> {
        let before = self.segment.since_last()?;
        self.segment.visible.take_delay();
        let done = match fault {
            Fault::WorkerKill => self.worker_kill(),
            Fault::WorkerGone => self.worker_gone(),
            Fault::WorkerPause => self.worker_pause(),
            Fault::WorkerFailpoint => self.worker_failpoint(),
            Fault::WorkerStop => self.worker_stop(),
            Fault::RollingRestart => self.rolling_restart(),
            Fault::Scale => self.scale(),
            Fault::BrokerKill => self.broker_kill(),
            Fault::BrokerStop => self.broker_stop(),
            Fault::BrokerPause => self.broker_pause(),
            Fault::CoordinatorKill => self.coordinator_kill(),
            Fault::BrokersRoll => self.brokers_roll(),
            Fault::NetworkCut => self.network_cut(),
            Fault::BrokersDown => self.brokers_down(),
            Fault::NetworkStorm => self.network_storm(),
            Fault::NetworkPartition => self.network_partition(),
            Fault::AnswerLost => self.answer_lost(),
            Fault::CommitLate => self.commit_late(),
            Fault::DiskFull => self.disk_full(),
            Fault::StateDamage => self.state_damage(),
            Fault::StateLost => self.state_lost(),
            Fault::StateStale => self.state_stale(),
            Fault::ClockJump => self.clock_jump(),
        }?;
        let delay = self.segment.visible.take_delay();
        self.segment.settle(self.interrupt)?;
        self.segment.visible_before = self.segment.visible.count()?;
        let Done { victim, owned, recovery, hit } = done;
        Ok(Struck { fault, victim, owned, before, recovery, delay, hit })
    }

    // ---- workers ------------------------------------------------------------------------------------------------------

    fn worker_kill(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let since = now_ms();
        self.segment.crew[at].kill()?;
        self.segment.crew[at].start();
        self.back(at, "", &owned, since)
    }

    fn worker_gone(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let since = now_ms();
        self.segment.crew[at].kill()?;
        let done = self.back(at, "", &owned, since);
        self.segment.crew[at].start();
        done
    }

    fn worker_pause(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let pause = Duration::from_millis(1_000 + self.random.below(19_000));
        self.segment.crew[at].running().freeze()?;
        let paused = self.pause(pause);
        self.segment.crew[at].running().thaw()?;
        paused?;
        self.back(at, &format!(" for {:.1} s", pause.as_secs_f32()), &owned, now_ms())
    }

    /// The worker is stopped and started again as one that dies at a place; what counts is that death.
    fn worker_failpoint(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let places: Vec<Failpoint> = Failpoint::ALL.into_iter().filter(|place| can_be_reached(*place)).collect();
        let place = places[self.random.below(places.len() as u64) as usize];
        let pass = match place {
            Failpoint::MidProcess => 1 + self.random.below(3_000),
            place if in_turn(place) => 1 + self.random.below(100),
            _ => 1,
        };
        self.segment.crew[at].kill()?;
        if in_restore(place) {
            self.lose_state(at)?;
        }
        let member = &mut self.segment.crew[at];
        member.start_as(|config| config.with("die-at", format!("{}:{pass}", place.name())));
        if place == Failpoint::InClose {
            self.segment.await_back(&owned, now_ms(), self.interrupt)?;
            self.segment.crew[at].running().terminate()?;
        }
        let mut worker = self.segment.crew[at].worker.take().expect("it was just started");
        let hit = self.interrupt.wait_until(DEATH_TIMEOUT, || Ok(!worker.is_alive()))?;
        let since = now_ms();
        if hit {
            worker.dies(DEATH_TIMEOUT).map_err(|error| wrong(format!("at {}: {error:#}", place.name())))?;
        } else {
            worker.kill()?;
        }
        self.segment.crew[at].start();
        let done = self.back(at, &format!(" at {}:{pass}", place.name()), &owned, since)?;
        Ok(Done { hit, ..done })
    }

    fn worker_stop(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        self.restart(at, &owned)
    }

    fn rolling_restart(&mut self) -> Result<Done> {
        let mut slowest = Duration::ZERO;
        let members: Vec<usize> =
            (0..self.segment.crew.len()).filter(|at| self.segment.crew[*at].worker.is_some()).collect();
        for at in members {
            let owned = self.segment.crew[at].assigned();
            slowest = slowest.max(self.restart(at, &owned)?.recovery);
        }
        Ok(Done { victim: "all workers".to_owned(), owned: all_partitions().len(), recovery: slowest, hit: true })
    }

    fn restart(&mut self, at: usize, owned: &[i32]) -> Result<Done> {
        let since = now_ms();
        self.segment.crew[at].stop()?;
        self.segment.crew[at].start();
        self.back(at, "", owned, since)
    }

    fn scale(&mut self) -> Result<Done> {
        let at = self.member(EXTRA);
        let since = now_ms();
        self.segment.crew[at].start_as(|config| config.with_flag("leave"));
        self.segment.settle(self.interrupt)?;
        let joined = self.segment.await_back(&all_partitions(), since, self.interrupt)?;
        self.segment.await_visible(self.segment.since_last()? + MEANWHILE, self.interrupt)?;
        let owned = self.segment.crew[at].assigned();
        let since = now_ms();
        self.segment.crew[at].stop()?;
        let left = self.back(at, " joins and leaves", &owned, since)?;
        Ok(Done { recovery: left.recovery.max(joined), ..left })
    }

    // ---- brokers ------------------------------------------------------------------------------------------------------

    fn broker_kill(&mut self) -> Result<Done> {
        let (node, led) = self.leading_broker()?;
        self.kill_broker(node, led)
    }

    fn kill_broker(&mut self, node: u16, led: usize) -> Result<Done> {
        let since = now_ms();
        self.cluster.kafka.kill(node)?;
        self.cluster.kafka.spawn_node(node)?;
        self.broker_back(node, led, since)
    }

    fn broker_stop(&mut self) -> Result<Done> {
        let (node, led) = self.leading_broker()?;
        let since = now_ms();
        // A broker that does not stop in time is killed, which is a fault as well.
        if let Err(error) = self.cluster.kafka.stop(node) {
            tracing::debug!(error = format!("{error:#}"), "stopping a broker");
        }
        self.cluster.kafka.spawn_node(node)?;
        self.broker_back(node, led, since)
    }

    fn broker_pause(&mut self) -> Result<Done> {
        let (node, led) = self.leading_broker()?;
        let pause = Duration::from_millis(5_000 + self.random.below(10_000));
        self.cluster.kafka.pause(node)?;
        let paused = self.pause(pause);
        self.cluster.kafka.resume(node)?;
        paused?;
        self.broker_back(node, led, now_ms())
    }

    /// The proxy holds a worker's commit for a moment, so that the broker dies before, while or after it decides.
    fn coordinator_kill(&mut self) -> Result<Done> {
        let (at, _) = self.victim();
        let node = self.coordinator(at)?;
        let before_it_arrives = self.random.below(2) == 0;
        let fault =
            if before_it_arrives { NetworkFault::Delay(Duration::from_millis(50)) } else { NetworkFault::DropResponse };
        let injection = self.cluster.proxy(node).inject(self.commit_of(at, fault));
        let hit = injection.wait_fired(COMMIT_TIMEOUT);
        let led = self.partitions_led_by(node)?;
        let done = self.kill_broker(node, led)?;
        let moment = if before_it_arrives { "before the commit arrives" } else { "after the commit was answered" };
        let victim = format!("{}, coordinator of {}, {moment}", done.victim, self.segment.crew[at].name);
        Ok(Done { victim, owned: led.max(1), hit, ..done })
    }

    fn brokers_roll(&mut self) -> Result<Done> {
        let mut slowest = Duration::ZERO;
        for node in self.cluster.kafka.node_ids() {
            slowest = slowest.max(self.kill_broker(node, 1)?.recovery);
        }
        Ok(Done { victim: "all brokers".to_owned(), owned: all_partitions().len(), recovery: slowest, hit: true })
    }

    /// Less is in sync than `min.insync.replicas` wants, and the cluster has no controller.
    fn brokers_down(&mut self) -> Result<Done> {
        let kafka = &self.cluster.kafka;
        let stays = self.random.below(kafka.node_ids().count() as u64) as u16 + 1;
        let nodes: Vec<u16> = kafka.node_ids().filter(|node| *node != stays).collect();
        let time = Duration::from_millis(5_000 + self.random.below(10_000));
        for node in &nodes {
            kafka.kill(*node)?;
        }
        let paused = self.pause(time);
        for node in &nodes {
            kafka.spawn_node(*node)?;
        }
        paused?;
        for node in &nodes {
            kafka.await_node(*node)?;
        }
        let since = now_ms();
        let recovery = self.segment.await_back(&all_partitions(), since, self.interrupt)?;
        self.cluster.await_in_sync(self.interrupt)?;
        let victim = format!("brokers {nodes:?} for {:.1} s", time.as_secs_f32());
        Ok(Done { victim, owned: all_partitions().len(), recovery, hit: true })
    }

    /// Behind every broker that was away: every partition goes on, and then every replica is in sync again.
    fn broker_back(&mut self, node: u16, led: usize, since: i64) -> Result<Done> {
        let recovery = self.segment.await_back(&all_partitions(), since, self.interrupt)?;
        self.cluster.kafka.await_node(node)?;
        self.cluster.await_in_sync(self.interrupt)?;
        Ok(Done { victim: format!("broker {node}"), owned: led, recovery, hit: true })
    }

    // ---- network ------------------------------------------------------------------------------------------------------

    fn network_cut(&mut self) -> Result<Done> {
        let (proxies, which) = self.one_or_all();
        let since = now_ms();
        for proxy in &proxies {
            proxy.cut();
        }
        let victim = format!("the connections to {which}");
        let recovery = self.segment.await_back(&all_partitions(), since, self.interrupt)?;
        Ok(Done { victim, owned: all_partitions().len(), recovery, hit: true })
    }

    fn network_storm(&mut self) -> Result<Done> {
        let time = Duration::from_millis(1_000 + self.random.below(7_000));
        let until = Instant::now() + time;
        self.interrupt.wait_until(time, || {
            self.cut_all();
            Ok(Instant::now() >= until)
        })?;
        let recovery = self.segment.await_back(&all_partitions(), now_ms(), self.interrupt)?;
        let victim = format!("all connections for {:.1} s", time.as_secs_f32());
        Ok(Done { victim, owned: all_partitions().len(), recovery, hit: true })
    }

    /// Whoever is cut off keeps its connections, and what it has sent may arrive when it has long given up on it.
    fn network_partition(&mut self) -> Result<Done> {
        let (proxies, which) = self.one_or_all();
        let lost = Lost::ALL[self.random.below(Lost::ALL.len() as u64) as usize];
        let time = Duration::from_millis(2_000 + self.random.below(10_000));
        let parted = self.means.network.part(&proxies, lost).and_then(|()| self.pause(time));
        self.means.network.heal(&proxies)?;
        parted?;
        let recovery = self.segment.await_back(&all_partitions(), now_ms(), self.interrupt)?;
        let victim = format!("packets of {which}, {}, for {:.1} s", lost.text(), time.as_secs_f32());
        Ok(Done { victim, owned: all_partitions().len(), recovery, hit: true })
    }

    /// The proxies before one broker or all of them.
    fn one_or_all(&mut self) -> (Vec<&'a Proxy>, String) {
        let proxies = self.cluster.proxies.each();
        let choice = self.random.below(proxies.len() as u64 + 1) as usize;
        match proxies.get(choice) {
            Some(proxy) => (vec![proxy], format!("broker {}", choice + 1)),
            None => (proxies.iter().collect(), "all brokers".to_owned()),
        }
    }

    fn cut_all(&self) {
        self.cluster.proxies.each().iter().for_each(Proxy::cut);
    }

    fn answer_lost(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let reset = self.random.below(2) == 0;
        let fault = if reset { NetworkFault::ResetAfterForward } else { NetworkFault::DropResponse };
        let node = self.coordinator(at)?;
        let injection = self.cluster.proxy(node).inject(self.commit_of(at, fault));
        let hit = injection.wait_fired(COMMIT_TIMEOUT);
        let how = if reset { ", connection reset" } else { ", connection open" };
        let done = self.back(at, how, &owned, now_ms())?;
        Ok(Done { hit, ..done })
    }

    /// The commit is late by as long as it takes until the worker has replaced its producer and gone on.
    fn commit_late(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let node = self.coordinator(at)?;
        let injection = self.cluster.proxy(node).inject(self.commit_of(at, NetworkFault::HoldAndReset));
        let hit = injection.wait_fired(COMMIT_TIMEOUT);
        let done = self.back(at, "", &owned, now_ms());
        injection.release();
        let done = done?;
        self.segment.await_back(&owned, now_ms(), self.interrupt)?;
        Ok(Done { hit, ..done })
    }

    fn commit_of(&self, at: usize, fault: NetworkFault) -> Rule {
        Rule::end_txn(true, fault)
            .client_id_contains(&format!("{}:{}:", self.segment.scene.name, self.segment.crew[at].name))
    }

    /// The coordinator of one of a worker's two producers.
    fn coordinator(&mut self, at: usize) -> Result<u16> {
        let id = transactional_id(&self.segment.scene.name, &self.segment.crew[at].name, 0);
        let ids = id.of_both();
        self.cluster.coordinator(&ids[self.random.below(ids.len() as u64) as usize].0)
    }

    // ---- disks and clocks ---------------------------------------------------------------------------------------------

    /// The disk is filled again and again, since RocksDB gives room back; a worker that has enough in its own files is
    /// killed, and comes upon the full disk when it starts.
    fn disk_full(&mut self) -> Result<Done> {
        const CLOSED: &str = "the state is closed, and opened again in";
        let at = self.member(ON_DISK);
        let owned = self.segment.crew[at].assigned();
        let member = &mut self.segment.crew[at];
        let disk = member.disk.take().context("it is chosen only where there is a disk")?;
        let worker = member.running();
        let began = worker.log().len();
        let full = || disk.fill();
        let mut seen = self.interrupt.wait_until(SEEN_TIMEOUT, || {
            full()?;
            Ok(worker.log().get(began..).is_some_and(|new| new.contains(CLOSED)))
        })?;
        let mut how = ", seen while it ran";
        if !seen {
            how = ", seen at the start";
            member.kill()?;
            full()?;
            let mut worker = member.config.start();
            seen = self.interrupt.wait_until(DEATH_TIMEOUT, || {
                full()?;
                Ok(worker.log_since_start().contains(CLOSED) || !worker.is_alive())
            })?;
            if worker.is_alive() {
                member.worker = Some(worker);
            } else {
                how = ", refused at the start";
                let (status, log) = (worker.wait(Duration::ZERO)?, worker.log_tail(LOG_LINES));
                if status.code() != Some(REFUSED) {
                    return Err(wrong(format!("on a full disk {} ended with {status}:\n{log}", member.name)));
                }
            }
        }
        disk.free()?;
        member.disk = Some(disk);
        if member.worker.is_none() {
            member.start();
        }
        let done = self.back(at, how, &owned, now_ms())?;
        Ok(Done { hit: seen, ..done })
    }

    fn state_damage(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let since = now_ms();
        self.segment.crew[at].kill()?;
        let mut damaged = Vec::new();
        for partition in &owned {
            let Some(file) = self.damage_one(at, *partition)? else { continue };
            damaged.push(file);
            self.segment.damaged.insert((at, *partition));
        }
        self.segment.crew[at].start();
        let done = self.back(at, &format!(": {}", damaged.join(", ")), &owned, since)?;
        Ok(Done { hit: !damaged.is_empty(), ..done })
    }

    /// Damages one file of a task's state: flips bits in it or cuts it in half. What it was.
    fn damage_one(&mut self, at: usize, partition: i32) -> Result<Option<String>> {
        let directory = self.segment.crew[at].task_dir(&self.segment.scene, partition);
        let files: Vec<PathBuf> = match fs::read_dir(&directory) {
            Ok(files) => files.filter_map(|file| Some(file.ok()?.path())).filter(|file| can_be_damaged(file)).collect(),
            Err(_) => return Ok(None),
        };
        if files.is_empty() {
            return Ok(None);
        }
        let file = &files[self.random.below(files.len() as u64) as usize];
        let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let cut = self.random.below(3) == 0;
        if cut {
            bytes.truncate(bytes.len() / 2);
        } else {
            let (from, to) = (bytes.len() / 4, (bytes.len() * 3 / 4).max(1));
            bytes[from..to].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
        }
        fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(format!("{name} of {partition} {}", if cut { "cut" } else { "flipped" })))
    }

    fn state_lost(&mut self) -> Result<Done> {
        let (at, owned) = self.victim();
        let since = now_ms();
        self.segment.crew[at].kill()?;
        self.lose_state(at)?;
        self.segment.crew[at].start();
        self.back(at, "", &owned, since)
    }

    /// What it has is not wrong, it is old; so it is what is lost when a machine loses power.
    fn state_stale(&mut self) -> Result<Done> {
        let (at, _) = self.victim();
        self.segment.crew[at].kill()?;
        let (directory, kept) =
            (self.segment.crew[at].application_dir(&self.segment.scene), self.segment.scene.dir.join("stale"));
        if kept.exists() {
            fs::remove_dir_all(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
        }
        if directory.exists() {
            copy_directory(&directory, &kept);
        }
        self.segment.crew[at].start();
        self.segment.settle(self.interrupt)?;
        self.segment.await_visible(self.segment.since_last()? + MEANWHILE, self.interrupt)?;
        let (owned, since) = (self.segment.crew[at].assigned(), now_ms());
        self.segment.crew[at].kill()?;
        self.lose_state(at)?;
        let hit = kept.exists();
        if hit {
            copy_directory(&kept, &directory);
        }
        self.segment.crew[at].start();
        let done = self.back(at, "", &owned, since)?;
        Ok(Done { hit, ..done })
    }

    /// The clock of a worker is an hour off from its start on, and right again when it is started the next time. It does not
    /// jump under a running process: librdkafka waits for times of the wall clock, and for an hour if that goes back.
    /// The wall clock of a worker is set while it works: it takes part in the group as before.
    fn clock_jump(&mut self) -> Result<Done> {
        let clock = self.means.clock.clone().map_err(anyhow::Error::msg)?;
        let offset = if self.random.below(2) == 0 { "+3600" } else { "-3600" };
        let (at, owned) = self.victim();
        clock.set("+0")?;
        let since = now_ms();
        self.segment.crew[at].kill()?;
        self.segment.crew[at].start_as(|worker| clock.given_to(worker));
        self.back(at, "", &owned, since)?;
        let owned = self.segment.crew[at].assigned();
        ensure!(!owned.is_empty(), wrong("under a clock of its own the worker has no part of the work".to_owned()));
        let since = now_ms();
        clock.set(offset)?;
        let jumped = self.back(at, &format!(" by {offset} s"), &owned, since)?;
        self.segment.await_visible(self.segment.since_last()? + MEANWHILE, self.interrupt)?;
        let worker = self.segment.crew[at].running();
        let goes_on = worker.assigned() == owned;
        worker.terminate()?;
        let status = worker.wait(STOP_TIMEOUT)?;
        let log = worker.log_since_start();
        ensure!(status.success(), wrong(format!("under a clock that was set the worker ends with {status}:\n{log}")));
        let said_at = log.lines().last().and_then(|line| line.split_whitespace().next()?.parse::<Timestamp>().ok());
        let is_far = |said: Timestamp| (said.as_millisecond() - now_ms()).abs() > 1_800_000;
        let since = now_ms();
        self.segment.crew[at].kill()?;
        self.segment.crew[at].start();
        let restarted = self.back(at, "", &owned, since)?;
        let hit = goes_on && said_at.is_some_and(is_far);
        Ok(Done { recovery: jumped.recovery.max(restarted.recovery), hit, ..jumped })
    }

    // ---- what they share ----------------------------------------------------------------------------------------------

    /// A worker that owns something, and what that is.
    fn victim(&mut self) -> (usize, Vec<i32>) {
        let owning: Vec<usize> =
            (0..self.segment.crew.len()).filter(|at| !self.segment.crew[*at].assigned().is_empty()).collect();
        let at = owning[self.random.below(owning.len() as u64) as usize];
        (at, self.segment.crew[at].assigned())
    }

    fn member(&self, name: &str) -> usize {
        self.segment.crew.iter().position(|member| member.name == name).expect("it is in every crew")
    }

    /// A broker that leads partitions of the application, and how many.
    fn leading_broker(&mut self) -> Result<(u16, usize)> {
        let leading = self.cluster.leading(&self.segment.topics())?;
        ensure!(!leading.is_empty(), "no broker leads any partition");
        let node = leading[self.random.below(leading.len() as u64) as usize];
        Ok((node, self.partitions_led_by(node)?))
    }

    fn partitions_led_by(&self, node: u16) -> Result<usize> {
        let mut led = 0;
        for topic in self.segment.topics() {
            led += self.cluster.leaders(&topic)?.into_values().filter(|leader| *leader == node).count();
        }
        Ok(led)
    }

    fn back(&mut self, at: usize, how: &str, owned: &[i32], since: i64) -> Result<Done> {
        let recovery = self.segment.await_back(owned, since, self.interrupt)?;
        Ok(Done { victim: format!("{}{how}", self.segment.crew[at].name), owned: owned.len(), recovery, hit: true })
    }

    /// Lets time pass: this is the fault.
    fn pause(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        self.interrupt.wait_until(time, || Ok(Instant::now() >= until)).map(drop)
    }

    fn lose_state(&self, at: usize) -> Result<()> {
        let directory = self.segment.crew[at].application_dir(&self.segment.scene);
        if directory.exists() {
            fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }
}

/// The places that a worker under a steady load comes past; the others need a batch that takes too long, or a fence.
fn can_be_reached(place: Failpoint) -> bool {
    !matches!(place, Failpoint::AfterAbort | Failpoint::AfterRebuild)
}

/// The places that it comes past again and again.
fn in_turn(place: Failpoint) -> bool {
    matches!(
        place,
        Failpoint::AfterPoll
            | Failpoint::MidProcess
            | Failpoint::AfterProcess
            | Failpoint::AfterChangelog
            | Failpoint::AfterDrain
            | Failpoint::AfterOffsets
            | Failpoint::AfterCommit
            | Failpoint::MidApply
            | Failpoint::AfterApply
    )
}

/// The places that it comes past only if there is much to restore.
fn in_restore(place: Failpoint) -> bool {
    matches!(
        place,
        Failpoint::InRestore | Failpoint::BetweenRestoreBatches | Failpoint::BeforePosition | Failpoint::AfterRestore
    )
}

/// The files that make a database: its tables, its manifest, its log, and what names the manifest.
fn can_be_damaged(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let kind = name == "CURRENT" || name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log");
    kind && fs::metadata(file).is_ok_and(|file| file.len() > 0)
}
