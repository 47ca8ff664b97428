//! What chance would seldom tell: a few turns in a given order, with which a schedule may begin.

use super::{PARTITIONS, World};

/// How many turns a part of a story may take.
const TURNS_MAX: usize = 400;

/// A worker asks for the committed offset of a task, and the answer is long in coming. Meanwhile the task moves to a new
/// worker, which commits, dies, and the task comes back: the answer is of another assignment, and too old.
///
/// # Panics
/// If a worker stops.
pub(super) fn an_answer_of_another_assignment(world: &mut World) {
    const LAST: i32 = PARTITIONS - 1;
    let newcomer = world.workers() - 1;
    let owner = newcomer - 1;
    world.die(newcomer, 0);
    world.expire(newcomer);
    world.produce(LAST, "k0", 1);
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
    world.produce(LAST, "k0", 1);
    until(world, &(0..=newcomer).collect::<Vec<_>>(), World::is_done);
    world.die(newcomer, 0);
    world.expire(newcomer);
    world.produce(LAST, "k0", 1);
    until(world, &(0..=owner).collect::<Vec<_>>(), World::is_done);
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
