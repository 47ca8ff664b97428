//! What runs in a schedule, what it reads, and what must come of it.

use processor_core::topology::ApplicationTopology;

use crate::fake::log::Written;
use crate::random::SplitMix64;
use crate::world::World;

/// What runs in a schedule.
pub trait Workload: Sync {
    /// The topology.
    fn topology(&self) -> &ApplicationTopology;

    /// How many partitions a topic has that the application does not make itself.
    fn partitions(&self, topic: &str) -> u32;

    /// A record for an input topic of this world.
    fn record(&self, world: &World, topic: &str, random: &mut SplitMix64) -> InputRecord;

    /// What must hold at the end, when everything is processed, beside what holds for any topology.
    ///
    /// # Panics
    /// If it does not hold.
    fn verify(&self, world: &World);
}

/// A record for an input topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRecord {
    /// The partition that it goes to.
    pub partition: i32,
    /// What is written.
    pub record: Written,
}
