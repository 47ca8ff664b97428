//! A Mermaid flowchart: topics are round, operators square, stores are drawn as stores.

use std::collections::BTreeSet;

use super::super::Topology;
use super::topic_edges;

pub(super) fn mermaid(topology: &Topology) -> String {
    let mut lines = vec!["flowchart TD".to_owned()];
    let edges = topic_edges(topology);
    let topics: BTreeSet<&str> = edges.iter().map(|(_, topic, _)| topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    lines.extend(topics.iter().enumerate().map(|(at, topic)| format!("  t{at}([\"{topic}\"])")));
    for (number, part) in topology.subtopologies().iter().enumerate() {
        lines.push(format!("  subgraph s{number}[\"{}\"]", part.name));
        let nodes = topology.nodes_of(part);
        lines.extend(nodes.iter().map(|&node| format!("    n{node}[\"{}\"]", topology.nodes()[node].name)));
        let stores = part.stores.iter().enumerate();
        lines.extend(stores.map(|(at, store)| format!("    s{number}_{at}[(\"{store}\")]")));
        for &node in &nodes {
            let draft = &topology.nodes()[node];
            lines.extend(draft.children.iter().map(|child| format!("    n{node} --> n{child}")));
            for store in &draft.stores {
                let at = part.stores.iter().position(|known| **known == *store.name);
                let at = at.expect("a node's stores are stores of its sub-topology");
                lines.push(format!("    n{node} -.- s{number}_{at}"));
            }
        }
        lines.push("  end".to_owned());
    }
    for (node, topic, reads) in &edges {
        let at = topics.binary_search(&topic.as_str()).expect("topics holds every edge's");
        lines.push(if *reads { format!("  t{at} --> n{node}") } else { format!("  n{node} --> t{at}") });
    }
    lines.join("\n") + "\n"
}
