//! Kafka Streams' own form, as its `TopologyDescription` prints it.

use std::fmt::Write;

use super::super::Topology;
use super::super::draft::Kind;
use super::topics;

pub(super) fn text(topology: &Topology) -> String {
    let mut text = String::from("Topologies:\n ");
    for (number, part) in topology.subtopologies().iter().enumerate() {
        write_to(&mut text, format_args!("  Sub-topology: {number}\n"));
        for node in topology.nodes_of(part) {
            write_node(&mut text, topology, node);
        }
        text.push('\n');
    }
    text
}

fn write_node(text: &mut String, topology: &Topology, node: usize) {
    let draft = &topology.nodes()[node];
    let name = &draft.name;
    let after = listed(&topology.names(&draft.children));
    let before = listed(&topology.names(&draft.parents));
    match &draft.kind {
        Kind::Source(_) => {
            let topics = topics(draft).join(", ");
            write_to(text, format_args!("    Source: {name} (topics: [{topics}])\n      --> {after}\n"));
        }
        Kind::Process { .. } => {
            let stores: Vec<&str> = draft.stores.iter().map(|store| store.name).collect();
            let stores = stores.join(", ");
            write_to(text, format_args!("    Processor: {name} (stores: [{stores}])\n"));
            write_to(text, format_args!("      --> {after}\n      <-- {before}\n"));
        }
        Kind::Sink(_) => {
            let to = match topics(draft).as_slice() {
                [topic] => format!("topic: {topic}"),
                topics => format!("topics: [{}]", topics.join(", ")),
            };
            write_to(text, format_args!("    Sink: {name} ({to})\n      <-- {before}\n"));
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn write_to(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a string cannot fail");
}
