//! Thousands of orders in which things can go wrong, for a topology of your own, in a test without Kafka.
//!
//! The runtime's real loop, its transactions, its restore and its rebalance run on a model of Kafka and of disks, on one thread,
//! from a seed: the seed decides who turns when, what the brokers do, where a worker dies. At the end everything is healed, and
//! outputs, stores, changelogs and offsets must be what a run without faults leaves. [`Simulation`] is where to begin.
//!
//! What is simulated, and how the model is checked against a real broker, is in docs/guarantees.md.

pub mod fake;
mod random;
mod reference;
mod schedule;
mod search;
mod simulation;
mod stories;
mod strike;
mod workload;
mod world;

pub use self::random::SplitMix64;
pub use self::schedule::{Blow, Ended, run};
pub use self::search::{Search, Wrong, search};
pub use self::simulation::{Simulation, Summary};
pub use self::workload::{InputRecord, Workload};
pub use self::world::{Brokers, Members, World};
