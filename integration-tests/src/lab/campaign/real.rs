//! The campaign on three real brokers, with workers as processes of their own.
//!
//! The order of events: a cluster, and on it one segment after the other, each with fresh topics. In a segment faults follow
//! each other, the next one when all has healed and at least a thousand more records are committed; then the load ends and
//! everything is verified. What is wrong, or stands still, is a violation: its data are kept, and the run goes on with a new
//! cluster. So it does where a broker itself has dropped the end of a transaction, which says nothing of its clients; such
//! a segment does not count.

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use processor_simulator::SplitMix64;

use super::cluster::Cluster;
use super::faults::{Fault, Means};
use super::network::Network;
use super::report::{COMMITTED_MIN, Tally, Violation};
use super::schedule::Schedule;
use super::segment::{Segment, Setting};
use super::strike::{Striker, Struck};
use super::view::View;
use super::{CampaignArgs, Wrong, panic_text};
use crate::client::delete_topic;
use crate::lab::interrupt::{Interrupt, Interrupted};
use crate::oracle::grouped;

/// A segment ends after so many faults, or so many records: everything is read again at its end.
const FAULTS_A_SEGMENT: usize = 40;
const RECORDS_A_SEGMENT: u64 = 600_000;
/// A run that cannot finish a segment so many times in a row is broken itself.
const BROKEN_MAX: usize = 3;

pub(super) fn run(args: &CampaignArgs, target: &Path) -> Result<()> {
    let network = Network::enter()?;
    let interrupt = Interrupt::watch()?;
    // A run that must go wrong has nothing to do with the others.
    let directory = target.join(if args.without.is_some() { "campaign-without" } else { "campaign" });
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let directory = fs::canonicalize(&directory).context("the campaign's directory")?;
    let _lock = claim(&directory)?;
    let mut run = Run::new(args, directory, network, &interrupt)?;
    let ended = run.go_on_until_the_time_is_over();
    run.view.finish();
    run.tally.seconds += run.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
    run.tally.write(&run.directory)?;
    run.view.event(&format!("\n{}", run.tally.markdown()));
    run.view.event(&format!("{0}/report.md and {0}/report.json have it", run.directory.display()));
    ended?;
    let violations = run.tally.violations.len();
    if let Some(rule) = args.without {
        ensure!(violations > 0, "without {} nothing went wrong: the campaign does not see it", rule.name());
        return Ok(());
    }
    ensure!(violations == 0, "{violations} violation(s): see {}/report.md", run.directory.display());
    Ok(())
}

fn claim(directory: &Path) -> Result<File> {
    let file = directory.join("lock");
    let lock = File::create(&file).with_context(|| format!("cannot create {}", file.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("another campaign of this checkout runs: wait for it, or end it"),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock the campaign's directory"),
    }
}

/// One run.
struct Run<'a> {
    args: &'a CampaignArgs,
    directory: PathBuf,
    interrupt: &'a Interrupt,
    view: View,
    means: Means,
    schedule: Schedule,
    seed: u64,
    random: SplitMix64,
    tally: Tally,
    /// When the first segment was under way: until then nothing can be struck.
    began: Option<Instant>,
    /// Of the segments of this run.
    number: u64,
}

/// A segment that was not verified.
struct Broken {
    name: String,
    error: anyhow::Error,
    struck: Vec<Struck>,
}

impl<'a> Run<'a> {
    fn new(args: &'a CampaignArgs, directory: PathBuf, network: Network, interrupt: &'a Interrupt) -> Result<Self> {
        let view = View::new();
        if let Network::Shared(why) = &network {
            view.event(&format!("network-partition is done by the proxies: {why}"));
        }
        let means = Means::find(&directory, network);
        let mut tally = if args.without.is_some() { Tally::default() } else { Tally::continued(&directory)? };
        let mut faults = Vec::new();
        for fault in args.faults()? {
            match fault.why_not(&means) {
                Some(why) => {
                    view.event(&format!("not run: {}: {why}", fault.name()));
                    tally.not_run.insert(fault.name().to_owned(), why.to_owned());
                }
                None => faults.push(fault),
            }
        }
        ensure!(!faults.is_empty(), "none of the faults can be done here: see above for what is missing");
        let seed = args.seed.unwrap_or_else(from_the_clock);
        tally.seeds.push(seed);
        view.event(&format!(
            "campaign: {} minute(s), seed {seed}, {} kinds of faults; of this commit before: {} faults, {} records. Ctrl-C ends it and keeps what was done",
            args.minutes,
            faults.len(),
            grouped(tally.counted()),
            grouped(tally.records_verified)
        ));
        let (schedule, random) = (Schedule::new(faults), SplitMix64::new(seed));
        Ok(Self { args, directory, interrupt, view, means, schedule, seed, random, tally, began: None, number: 0 })
    }

    fn is_over(&self) -> bool {
        let seen = self.args.without.is_some() && !self.tally.violations.is_empty();
        seen || self.began.is_some_and(|began| began.elapsed() >= Duration::from_mins(self.args.minutes))
    }

    fn go_on_until_the_time_is_over(&mut self) -> Result<()> {
        let mut broken_in_a_row = 0;
        while !self.is_over() {
            let home = self.directory.join("run");
            if home.exists() {
                fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
            }
            self.view.event("starting three brokers ..");
            let cluster = Cluster::start(&home.join("kafka"))?;
            let verified_before = self.tally.segments;
            let Some(broken) = self.on_one_cluster(&cluster, &home)? else { break };
            broken_in_a_row = if self.tally.segments > verified_before { 1 } else { broken_in_a_row + 1 };
            let dropped = cluster.dropped_markers()?;
            drop(cluster);
            self.judge(broken, dropped, &home)?;
            self.tally.write(&self.directory)?;
            ensure!(
                broken_in_a_row < BROKEN_MAX,
                "{BROKEN_MAX} segments in a row could not be verified: see the report"
            );
        }
        Ok(())
    }

    /// Segments until one breaks, or the time is over.
    fn on_one_cluster(&mut self, cluster: &Cluster, home: &Path) -> Result<Option<Broken>> {
        while !self.is_over() {
            self.number += 1;
            let name = format!("campaign-{}", self.number);
            let mut struck = Vec::new();
            match unpanicked(|| self.segment(&name, cluster, home, &mut struck)) {
                Ok(()) => {}
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => return Ok(Some(Broken { name, error, struck })),
            }
            self.tally.write(&self.directory)?;
        }
        Ok(None)
    }

    fn segment(&mut self, name: &str, cluster: &Cluster, home: &Path, struck: &mut Vec<Struck>) -> Result<()> {
        let setting = Setting {
            rate: self.args.rate,
            seed: self.seed ^ self.number,
            without: self.args.without,
            small_disk: self.means.small_disk.is_ok(),
            interrupt: self.interrupt,
        };
        cluster.await_in_sync(self.interrupt)?;
        let mut segment = Segment::begin(name, home, cluster, &setting)?;
        self.began.get_or_insert_with(Instant::now);
        let all_struck = self.strike_again_and_again(name, cluster, &mut segment, struck);
        segment.with_stacks(all_struck)?;
        self.stand(&segment, struck, "verifying");
        let began = Instant::now();
        let (held, kills) = (segment.resources.held(), segment.bank.kills);
        let topics: Vec<String> = segment.topics().into_iter().chain(segment.bank.topics()).collect();
        let directories = [segment.scene.dir.clone(), segment.bank.scene.dir.clone()];
        let records = segment.prove(cluster, self.interrupt).with_context(|| format!("at the end of {name}"))?;
        self.tally.add(name, records, struck, held);
        self.tally.bank_kills += kills;
        self.view.event(&format!(
            "{name}: {} records and {} transfers verified in {:.0} s; in all {} faults, {} records, {} violation(s)",
            grouped(records[0]),
            grouped(records[1]),
            began.elapsed().as_secs_f32(),
            grouped(self.tally.counted()),
            grouped(self.tally.records_verified),
            self.tally.violations.len()
        ));
        // What was verified is not needed any more.
        for topic in topics {
            delete_topic(&cluster.kafka.bootstrap_servers(), &topic)?;
        }
        directories
            .iter()
            .try_for_each(|dir| fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display())))
    }

    fn strike_again_and_again(
        &mut self,
        name: &str,
        cluster: &Cluster,
        segment: &mut Segment,
        struck: &mut Vec<Struck>,
    ) -> Result<()> {
        while !self.is_over() && struck.len() < FAULTS_A_SEGMENT && segment.visible.count()? < RECORDS_A_SEGMENT {
            let fault = self.schedule.next(&mut self.random);
            segment.await_visible(COMMITTED_MIN, self.interrupt)?;
            self.look_at_workers(segment)?;
            self.stand(segment, struck, &format!("now {}", fault.name()));
            if self.random.below(2) == 0 {
                segment.bank.strike(&mut self.random)?;
            }
            let (random, means, interrupt) = (&mut self.random, &self.means, self.interrupt);
            let outcome = Striker { cluster, segment, random, means, interrupt }.strike(fault);
            let done = outcome.with_context(|| format!("{} in {name}", fault.name()))?;
            self.view.event(&done.line());
            self.tally.load_averages.extend(load_average());
            struck.push(done);
            let dropped = if fault.hits_brokers() { cluster.dropped_markers()? } else { 0 };
            ensure!(dropped == 0, "a broker has dropped the end of a transaction");
        }
        Ok(())
    }

    /// O10.
    fn look_at_workers(&self, segment: &mut Segment) -> Result<()> {
        let seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        let pids: Vec<u32> =
            segment.crew.iter().filter_map(|member| member.worker.as_ref().map(crate::worker::Worker::pid)).collect();
        for pid in pids {
            segment.resources.sample(pid, seconds).map_err(super::wrong)?;
        }
        Ok(())
    }

    /// What stands at the bottom of the screen.
    fn stand(&self, segment: &Segment, struck: &[Struck], now: &str) {
        let last = struck.last().map_or_else(String::new, |last| {
            format!(", the last {} back after {:.1} s", last.fault.name(), last.recovery.as_secs_f32())
        });
        let in_segment = struck.iter().filter(|struck| Tally::counts(struck)).count() as u64;
        self.view.standing(format!(
            "{now}; {} faults{last}; {} records verified, {} to be verified; {} violation(s)",
            grouped(self.tally.counted() + in_segment),
            grouped(self.tally.records_verified),
            grouped(segment.visible.count().unwrap_or(0)),
            self.tally.violations.len()
        ));
    }

    /// Says what became of a segment that was not verified, and keeps its data where somebody must look.
    fn judge(&mut self, broken: Broken, dropped_markers: usize, home: &Path) -> Result<()> {
        let Broken { name, error, struck } = broken;
        if dropped_markers > 0 {
            let why = format!("{name}, {} fault(s): the broker dropped a marker ({error:#})", struck.len());
            self.view.event(&format!("not counted: {why}"));
            self.tally.not_counted.push(why);
            return Ok(());
        }
        let kept =
            (1..u32::MAX).map(|number| self.directory.join(format!("violation-{number}"))).find(|kept| !kept.exists());
        let kept = kept.expect("there are numbers enough");
        fs::rename(home, &kept).with_context(|| format!("cannot keep {}", home.display()))?;
        let history: Vec<String> = struck.iter().map(Struck::line).collect();
        let what = format!("{error:#}");
        let text = format!("seed {}, {name}\n{what}\n\n{}\n", self.seed, history.join("\n"));
        fs::write(kept.join("violation.txt"), &text).context("cannot write what went wrong")?;
        if error.chain().any(<dyn std::error::Error>::is::<Wrong>) {
            self.view.event(&format!("VIOLATION in {name}: {what}"));
            let (seed, kept) = (self.seed, kept.display().to_string());
            self.tally.violations.push(Violation { segment: name, seed, what, history, kept });
        } else {
            let why = format!(
                "{name} of seed {}: the campaign itself could not go on ({what}); see {}",
                self.seed,
                kept.display()
            );
            self.view.event(&format!("not counted: {why}"));
            self.tally.not_counted.push(why);
        }
        Ok(())
    }
}

fn load_average() -> Option<f32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The harness says in panics what it could not do.
fn unpanicked(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| bail!("{}", panic_text(&*panic)))
}

fn from_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl CampaignArgs {
    /// Those that were asked for.
    fn faults(&self) -> Result<Vec<Fault>> {
        let known = || Fault::ALL.map(Fault::name).join(", ");
        let find = |name: &String| {
            let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name);
            fault.with_context(|| format!("there is no fault '{name}', but {}", known()))
        };
        if self.faults.is_empty() { Ok(Fault::ALL.to_vec()) } else { self.faults.iter().map(find).collect() }
    }
}
