//! The real loop, rebalance, restore and transactions on a cluster and disks in memory: one thread, one seed, no Kafka.
//!
//! Workers take turns in an order that a seed decides; the seed also decides when a commit times out (and whether it
//! took effect), when a request comes late, when a worker dies inside a transaction or loses its newest state, when the
//! group rebalances. At the end everything is healed, and outputs, stores, changelogs and offsets must be what the
//! input says. The same seed gives the same schedule, to the byte.

mod search;
mod stories;
mod strike;
mod world;

use std::collections::BTreeMap;

use processor_core::protocol::outcome::TxnErrorKind;

use self::world::{COUNTS_CHANGELOG, OUTPUT};
use crate::client::SplitMix64;
use crate::fake::{Fault, Happened};
use processor_runtime::failpoints::Failpoint;

pub use self::search::{Search, Wrong, search};
pub use self::world::{Brokers, CHANGELOG, Members, PARTITIONS, World};

const KEYS: u64 = 7;

/// What a schedule has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// What has happened to the cluster.
    pub happened: Happened,
    /// What has happened to the workers.
    pub blows: BTreeMap<Blow, u64>,
    /// How often a worker has died at each failpoint.
    pub struck: BTreeMap<Failpoint, u64>,
    /// Everything that was ever written, aborted and control records included.
    logs: [Vec<String>; 3],
}

/// What can happen to a worker besides the faults of single calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// `kill -9`, or a power loss.
    Died,
    /// It was thought dead and was not.
    SessionExpired,
    /// Its open transaction was aborted by the broker.
    TransactionTimedOut,
    /// Its client lost its place and said nothing any more.
    Hung,
    /// Its directory was lost while it did not run.
    DirectoryLost,
    /// Its disk refused to write until it was opened again.
    DiskRefused,
    /// It was stopped, as SIGTERM does.
    Stopped,
    /// Its machine was lost for good.
    MachineLost,
    /// A store of one of its tasks was damaged on disk.
    StateDamaged,
}

/// One schedule: everything that may happen, in an order that only the seed decides. Every other one has brokers that
/// verify nothing.
///
/// # Panics
/// If it ends wrong.
pub fn run(seed: u64) -> Ended {
    let brokers = if seed.is_multiple_of(2) { Brokers::Verify } else { Brokers::VerifyNothing };
    let mut random = SplitMix64::new(seed);
    let members = if random.below(3) == 0 { Members::Static } else { Members::Dynamic };
    let mut world = World::new(1 + random.below(3) as usize, brokers, members);
    for worker in 0..world.workers() {
        world.start(worker);
    }
    if world.workers() > 1 && members == Members::Dynamic && random.below(16) == 0 {
        stories::an_answer_of_another_assignment(&mut world);
    }
    world.cluster.delay_answers_between(0, random.below(4) as usize);
    let mut blows = BTreeMap::new();
    for _ in 0..(100 + random.below(300)) {
        if let Some(blow) = step(&mut world, &mut random) {
            *blows.entry(blow).or_default() += 1;
        }
        world.watch_offsets();
    }
    world.finish();
    world.verify();
    let logs = [OUTPUT, CHANGELOG, COUNTS_CHANGELOG]
        .map(|topic| (0..PARTITIONS).map(|p| format!("{:?}", world.cluster.entries(topic, p))).collect());
    Ended { happened: world.cluster.happened(), blows, struck: world.struck, logs }
}

fn step(world: &mut World, random: &mut SplitMix64) -> Option<Blow> {
    let worker = random.below(world.workers() as u64) as usize;
    let what = random.below(100);
    tracing::debug!(worker, what, "step");
    match what {
        0..30 => {
            for _ in 0..random.below(12) {
                let partition = random.below(PARTITIONS as u64) as i32;
                let (key, value) = (format!("k{}", random.below(KEYS)), random.below(100) as i64 - 30);
                world.produce(partition, &key, value);
            }
        }
        30..78 => {
            if let Some(reason) = world.turn(worker) {
                assert!(may_stop(&reason), "O6: worker {worker} stopped: {reason}");
            }
        }
        78..86 => {
            let fault = any_fault(random);
            tracing::debug!(worker, ?fault, "scripted");
            world.cluster.script_for(&World::id(worker), fault);
        }
        86..90 if world.runs(worker) => {
            let at = Failpoint::ALL[random.below(Failpoint::ALL.len() as u64) as usize];
            if at == Failpoint::InClose {
                world.strike(worker, at, 0);
                world.stop(worker);
            } else {
                world.strike(worker, at, random.below(4) as u32);
            }
        }
        86..90 => {}
        90 if random.below(2) == 0 => drop(world.cluster.deliver_late_requests()),
        90 if world.cluster.lacks_a_broker() => world.cluster.elect(),
        90 => world.cluster.lose_broker(random.below(3) as usize, random.below(2) == 0),
        91 if random.below(2) == 0 => world.cluster.release_markers(),
        91 => (0..=random.below(3)).for_each(|_| world.cluster.release_marker(random.below(1 << 16) as usize)),
        92 => {
            if random.below(2) == 0 {
                world.cluster.overtake(&World::id(worker).to_string(), random.below(20) as u32);
            }
            world.cluster.rebalance();
        }
        93..=98 => return strike(world, worker, what, random),
        _ => {
            if !world.runs(worker) && !world.is_gone(worker) {
                // A static member may be back before its session is over, and then takes its own place.
                if world.members() == Members::Dynamic || random.below(2) == 0 {
                    world.expire(worker);
                }
                world.start(worker);
            }
        }
    }
    None
}

fn strike(world: &mut World, worker: usize, what: u64, random: &mut SplitMix64) -> Option<Blow> {
    let runs = world.runs(worker);
    match what {
        93 => {
            world.expire(worker);
            runs.then_some(Blow::SessionExpired)
        }
        94 => world.cluster.time_out_transaction(&World::id(worker)).then_some(Blow::TransactionTimedOut),
        95 => {
            world.cluster.hang_member(&World::id(worker).to_string());
            runs.then_some(Blow::Hung)
        }
        96 if random.below(3) == 0 => {
            world.stop(worker);
            runs.then_some(Blow::Stopped)
        }
        97 if random.below(8) == 0 => world.lose(worker).then_some(Blow::MachineLost),
        96..98 => {
            let lost = random.below(3) as usize;
            world.die(worker, lost);
            runs.then_some(Blow::Died)
        }
        _ if random.below(3) == 0 => world.damage(worker, random.below(1 << 16) as usize).then_some(Blow::StateDamaged),
        _ if runs => {
            world.directory(worker).refuse_writes_until_reopened();
            Some(Blow::DiskRefused)
        }
        _ => {
            world.directory(worker).lose_all();
            Some(Blow::DirectoryLost)
        }
    }
}

/// A worker may stop where it was fenced too often.
fn may_stop(reason: &str) -> bool {
    reason.contains("fenced")
}

fn any_fault(random: &mut SplitMix64) -> Fault {
    let kinds = [
        TxnErrorKind::Abortable,
        TxnErrorKind::Fatal,
        TxnErrorKind::Moved,
        TxnErrorKind::Retriable,
        TxnErrorKind::TimedOut,
    ];
    let kind = kinds[random.below(kinds.len() as u64) as usize];
    match random.below(11) {
        0 => Fault::CommitTimesOut { took_effect: true },
        1 => Fault::CommitTimesOut { took_effect: false },
        2 => Fault::CommitFails(kind),
        3 => Fault::CommitLeavesLateCopy,
        4 => Fault::CommitHoldsMarkers,
        5 => Fault::SendFails(kind),
        6 => Fault::DrainFails(kind),
        7 => Fault::SendOffsetsFails(kind),
        8 => Fault::AbortLeavesLateCopy,
        9 => Fault::SendOffsetsLeavesLateCopy,
        _ => Fault::AbortFails(TxnErrorKind::Fatal),
    }
}
