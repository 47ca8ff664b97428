//! What `build()` refuses, with the node and the remedy.

use processor_core::prelude::*;

const STORE: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("store");
const OTHER_TYPES: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("store");

fn pass(record: Record<String, i64>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    ctx.forward(record)
}

#[track_caller]
fn refused(build: impl FnOnce(&mut TopologyBuilder), expected: &str) {
    let mut topology = Topology::builder();
    build(&mut topology);
    let error = topology.build().expect_err("the topology is wrong");
    assert_eq!(error.to_string().split(':').next(), Some(expected));
}

#[test]
fn what_cannot_run_is_refused_with_the_node() {
    let codecs = (Utf8, JavaLong);
    refused(|_| {}, "the topology has no source");
    refused(
        |topology| {
            topology.source("a", "a", codecs).process("a", pass);
        },
        "two nodes are named 'a'",
    );
    refused(|topology| drop(topology.source("a", "a", codecs)), "nothing is connected to node 'a'");
    refused(
        |topology| drop(topology.source("a", "a", codecs).filter(|_| true)),
        "nothing is connected to node 'a-filter'",
    );
    refused(
        |topology| {
            topology.source("a", "t", codecs).process("p", pass);
            topology.source("b", ["u", "t"], codecs).process("q", pass);
        },
        "sources 'a' and 'b' both read topic 't'",
    );
    refused(
        |topology| drop(topology.source("a", Vec::<String>::new(), codecs).process("p", pass)),
        "node 'a' has no topic",
    );
    refused(
        |topology| drop(topology.source("a", ["t", "t"], codecs).process("p", pass)),
        "node 'a' names topic 't' twice",
    );
    refused(
        |topology| {
            drop(topology.source("a", "a", codecs).repartition("r", |_| 1, (JavaLong, JavaLong)).with_partitions(0));
        },
        "repartition 'r' is given no partitions",
    );
    let illegal = "a node's name 'a/b' may hold only letters, digits, '.', '_' and '-', at most 200 of them, and at least one \
                   that is not '.'";
    refused(|topology| drop(topology.source("a/b", "a", codecs)), illegal);
}

#[test]
fn wrong_stores_streams_and_policies_are_refused() {
    let codecs = (Utf8, JavaLong);
    refused(
        |topology| {
            let stream = topology.source("a", "a", codecs);
            stream.process("p", pass).with_store(&STORE).process("q", pass).with_store(&OTHER_TYPES);
        },
        "store 'store' is defined twice with different types",
    );
    refused(
        |topology| drop(topology.source("a", "a", codecs).process("p", pass).with_store(&STORE).with_store(&STORE)),
        "node 'p' is given store 'store' twice",
    );
    refused(
        |topology| {
            let stream = topology.source("a", "a", codecs);
            stream.merge(&stream).process("p", pass);
        },
        "stream 'a' is merged with itself",
    );
    refused(
        |topology| {
            let stream = Topology::builder().source::<String, i64, _, _>("b", "b", codecs);
            topology.source("a", "a", codecs).merge(&stream).process("p", pass);
        },
        "'a-merge' merges streams of two topologies",
    );
    refused(
        |topology| {
            topology.on_failure(FailurePolicy::dead_letter("a"));
            topology.source("in", "a", codecs).process("p", pass);
        },
        "topic 'a' takes the dead letters of node 'in' and is an input",
    );
    refused(
        |topology| {
            let source = topology.source("a", "a", codecs).wall_clock_timestamps();
            source.timestamps_by(|_, _| None).process("p", pass);
        },
        "source 'a' is told twice where its timestamps come from",
    );
}
