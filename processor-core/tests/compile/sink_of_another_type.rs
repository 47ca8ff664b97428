//! A sink whose codec does not write the stream's values.

use processor_core::prelude::*;

fn main() {
    let mut topology = Topology::builder();
    topology.source::<String, i64, _, _>("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaDouble));
}
