//! A merge of streams of different types.

use processor_core::prelude::*;

fn main() {
    let mut topology = Topology::builder();
    let numbers = topology.source::<String, i64, _, _>("numbers", "numbers", (Utf8, JavaLong));
    let texts = topology.source::<String, String, _, _>("texts", "texts", (Utf8, Utf8));
    numbers.merge(&texts);
}
