//! Something that is neither a factory of operators nor a function of a record.

use processor_core::prelude::*;

fn main() {
    let mut topology = Topology::builder();
    topology.source("in", "in", (Utf8, JavaLong)).process("nothing", 5);
}
