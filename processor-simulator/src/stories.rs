//! What chance would seldom tell: a few turns in a given order, with which a schedule may begin.

use crate::random::SplitMix64;
use crate::workload::Workload;
use crate::world::World;

/// How many turns a part of a story may take.
const TURNS_MAX: usize = 400;
/// How many records are drawn until one is of the last partition.
const DRAWN_MAX: usize = 200;

/// A worker asks for the committed offset of a task, and the answer is long in coming. Meanwhile the task moves to a new
/// worker, which commits, dies, and the task comes back: the answer is of another assignment, and too old.
///
/// # Panics
/// If a worker stops.
pub(crate) fn an_answer_of_another_assignment(world: &mut World, workload: &impl Workload, random: &mut SplitMix64) {
    let newcomer = world.workers() - 1;
    let owner = newcomer - 1;
    world.die(newcomer, 0);
    world.expire(newcomer);
    produce_in_the_last_partition(world, workload, random);
    until(world, &(0..newcomer).collect::<Vec<_>>(), World::is_done);
    world.cluster.delay_answers(100);
    world.cluster.rebalance();
    for _ in 0..8 {
        for worker in 0..newcomer {
            turn(world, worker);
        }
    }
    world.cluster.delay_answers(0);
    world.start(newcomer);
    produce_in_the_last_partition(world, workload, random);
    until(world, &(0..=newcomer).collect::<Vec<_>>(), World::is_done);
    world.die(newcomer, 0);
    world.expire(newcomer);
    produce_in_the_last_partition(world, workload, random);
    until(world, &(0..=owner).collect::<Vec<_>>(), World::is_done);
}

/// A record of each input for the last partition, which the last worker has.
fn produce_in_the_last_partition(world: &World, workload: &impl Workload, random: &mut SplitMix64) {
    for topic in world.external_inputs() {
        let last = world.cluster.partitions(topic) - 1;
        let mut drawn = (0..DRAWN_MAX).map(|_| workload.record(world, topic, random));
        if let Some(drawn) = drawn.find(|drawn| drawn.partition == last) {
            world.cluster.write(topic, last, drawn.record);
        }
    }
}

/// Turns these workers until something holds, or long enough.
fn until(world: &mut World, workers: &[usize], holds: impl Fn(&World) -> bool) {
    for _ in 0..TURNS_MAX {
        for &worker in workers {
            turn(world, worker);
        }
        if holds(world) {
            return;
        }
    }
}

fn turn(world: &mut World, worker: usize) {
    let stopped = world.turn(worker);
    assert_eq!(stopped, None, "O6: worker {worker} stopped");
}
