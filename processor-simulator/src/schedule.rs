//! One schedule: everything that may happen to a topology, in an order that only a seed decides.

use std::collections::BTreeMap;

use processor_core::protocol::outcome::TxnErrorKind;
use processor_runtime::failpoints::Failpoint;

use crate::fake::{Fault, Happened};
use crate::random::SplitMix64;
use crate::stories;
use crate::workload::{InputRecord, Workload};
use crate::world::{Brokers, Members, World, may_stop};

/// What a schedule has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// What has happened to the cluster.
    pub happened: Happened,
    /// What has happened to the workers.
    pub blows: BTreeMap<Blow, u64>,
    /// How often a worker has died at each failpoint.
    pub struck: BTreeMap<Failpoint, u64>,
    /// Everything that the application ever wrote, aborted and control records included.
    logs: Vec<String>,
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
    /// A store of one of its tasks was damaged on disk, or a file of the state was torn.
    StateDamaged,
}

/// Runs one schedule. Every other one has brokers that verify nothing.
///
/// # Panics
/// If it ends wrong.
pub fn run(workload: &impl Workload, seed: u64) -> Ended {
    let brokers = if seed.is_multiple_of(2) { Brokers::Verify } else { Brokers::VerifyNothing };
    let mut random = SplitMix64::new(seed);
    let members = if random.below(3) == 0 { Members::Static } else { Members::Dynamic };
    let workers = 1 + random.below(3) as usize;
    let mut world =
        World::new(workload.topology().clone(), |topic| workload.partitions(topic), workers, brokers, members);
    for worker in 0..world.workers() {
        world.start(worker);
    }
    if world.workers() > 1 && members == Members::Dynamic && random.below(16) == 0 {
        stories::an_answer_of_another_assignment(&mut world, workload, &mut random);
    }
    world.cluster.delay_answers_between(0, random.below(4) as usize);
    let mut blows = BTreeMap::new();
    for _ in 0..(100 + random.below(300)) {
        if let Some(blow) = step(&mut world, workload, &mut random) {
            *blows.entry(blow).or_default() += 1;
        }
        world.watch_offsets();
    }
    world.finish();
    world.verify_stores();
    workload.verify(&world);
    let partitions: Vec<_> = world.written_topics().flat_map(|topic| world.partitions_of(&topic)).collect();
    let entries = |of| format!("{:?}", world.cluster.entries_of(of));
    let logs = partitions.iter().map(entries).collect();
    Ended { happened: world.cluster.happened(), blows, struck: world.struck, logs }
}

fn step(world: &mut World, workload: &impl Workload, random: &mut SplitMix64) -> Option<Blow> {
    let worker = random.below(world.workers() as u64) as usize;
    let what = random.below(100);
    tracing::debug!(worker, what, "step");
    match what {
        0..30 => produce(world, workload, random),
        30..78 => {
            if let Some(reason) = world.turn(worker) {
                assert!(may_stop(&reason), "O6: worker {worker} stopped: {reason}");
            }
        }
        78..86 => {
            let fault = any_fault(random);
            tracing::debug!(worker, ?fault, "scripted");
            world.cluster.script_for(&world.id(worker), fault);
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
                world.cluster.overtake(&world.id(worker).to_string(), random.below(20) as u32);
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

/// Some records of one of the inputs.
fn produce(world: &World, workload: &impl Workload, random: &mut SplitMix64) {
    let inputs = world.external_inputs().count() as u64;
    let topic = world.external_inputs().nth(random.below(inputs) as usize).expect("it is one of them").clone();
    for _ in 0..random.below(12) {
        let InputRecord { partition, record } = workload.record(world, &topic, random);
        world.cluster.write(&topic, partition, record);
    }
}

fn strike(world: &mut World, worker: usize, what: u64, random: &mut SplitMix64) -> Option<Blow> {
    let runs = world.runs(worker);
    match what {
        93 => {
            world.expire(worker);
            runs.then_some(Blow::SessionExpired)
        }
        94 => world.time_out_transaction(worker).then_some(Blow::TransactionTimedOut),
        95 => {
            world.cluster.hang_member(&world.id(worker).to_string());
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

fn any_fault(random: &mut SplitMix64) -> Fault {
    let kinds = [
        TxnErrorKind::Abortable,
        TxnErrorKind::Fatal,
        TxnErrorKind::Moved,
        TxnErrorKind::Retriable,
        TxnErrorKind::TimedOut,
    ];
    let kind = kinds[random.below(kinds.len() as u64) as usize];
    match random.below(13) {
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
        10 => Fault::InitTakes(1 + random.below(30) as u32),
        11 => Fault::CommitTorn,
        _ => Fault::AbortFails(TxnErrorKind::Fatal),
    }
}
