//! An operator whose input types are not the stream's.

use processor_core::prelude::*;

struct Upper;

impl Operator for Upper {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn process(&mut self, record: Record<String, String>, ctx: &mut Context<'_, String, String>) -> Result<(), OperatorError> {
        ctx.forward(record)
    }
}

fn main() {
    let mut topology = Topology::builder();
    topology.source("in", "in", (Utf8, JavaLong)).process("upper", || Upper);
}
