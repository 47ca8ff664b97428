//! Topologies as a user builds and tests them: everything here goes through the public API and the test driver.

mod context;
mod failures;
mod graph;
mod refused;
mod repartition;
mod rollback;
mod short_forms;
mod sinks;
mod time;

use processor_core::prelude::*;
use processor_core::testing::TopologyTestDriver;

fn driver(build: impl FnOnce(&mut TopologyBuilder)) -> TopologyTestDriver {
    driver_of(1, build)
}

fn driver_of(partitions: u32, build: impl FnOnce(&mut TopologyBuilder)) -> TopologyTestDriver {
    let mut topology = Topology::builder();
    build(&mut topology);
    let topology = topology.build().expect("the topology is right");
    TopologyTestDriver::with_partitions(&topology, partitions).expect("operators open")
}
