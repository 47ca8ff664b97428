//! A topology that has not been told its application cannot make tasks.

use processor_core::prelude::*;
use processor_core::task::TaskSettings;

fn main() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology.source::<String, i64, _, _>("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    let settings = TaskSettings { cache_bytes_max: 0, output_partitions: [1].into() };
    topology.build()?.task(&TaskId::new("in", Partition::new(0)), &settings);
    Ok(())
}
