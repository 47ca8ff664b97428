//! A graph in Graphviz's language: topics are ellipses, operators boxes, stores cylinders.

use super::super::Topology;
use super::topic_edges;

pub(super) fn dot(topology: &Topology) -> String {
    let mut lines = vec!["digraph topology {".to_owned()];
    for (number, part) in topology.subtopologies().iter().enumerate() {
        lines.push(format!("  subgraph cluster_{number} {{"));
        lines.push(format!("    label=\"{}\";", part.name));
        let nodes = topology.nodes_of(part);
        let name = |node: usize| &topology.nodes()[node].name;
        lines.extend(nodes.iter().map(|&node| format!("    \"{}\" [shape=box];", name(node))));
        lines.extend(
            part.stores.iter().map(|store| format!("    \"store {store}\" [label=\"{store}\", shape=cylinder];")),
        );
        for &node in &nodes {
            let draft = &topology.nodes()[node];
            lines.extend(draft.children.iter().map(|&child| format!("    \"{}\" -> \"{}\";", draft.name, name(child))));
            let stores = draft.stores.iter();
            let edge = |store: &str| format!("    \"{}\" -> \"store {store}\" [dir=none, style=dashed];", draft.name);
            lines.extend(stores.map(|store| edge(store.name)));
        }
        lines.push("  }".to_owned());
    }
    for (node, topic, reads) in topic_edges(topology) {
        let name = &topology.nodes()[node].name;
        let (from, to) =
            if reads { (format!("topic {topic}"), name.clone()) } else { (name.clone(), format!("topic {topic}")) };
        lines.push(format!("  \"topic {topic}\" [label=\"{topic}\", shape=ellipse];"));
        lines.push(format!("  \"{from}\" -> \"{to}\";"));
    }
    lines.push("}".to_owned());
    lines.join("\n") + "\n"
}
