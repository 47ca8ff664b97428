//! A topology as text for people and for the tools they use.

mod dot;
mod mermaid;
mod text;

use super::draft::{Draft, Kind};
use super::{SubTopology, Topology};

impl Topology {
    /// The form that Kafka Streams describes topologies in, which its visualisers read. Internal topics stand there
    /// without the application's id.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut topology = Topology::builder();
    /// topology.source("in", "words", (Utf8, Utf8)).filter(|word| !word.value.is_empty()).sink("out", "kept", (Utf8, Utf8));
    /// let text = topology.build()?.describe();
    /// assert!(text.starts_with("Topologies:\n   Sub-topology: 0\n    Source: in (topics: [words])\n      --> in-filter\n"));
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn describe(&self) -> String {
        text::text(self)
    }

    /// A Mermaid flowchart, which code hosts and many editors draw.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology.source("in", "words", (Utf8, Utf8)).sink("out", "copies", (Utf8, Utf8));
    /// let chart = topology.build()?.describe_mermaid();
    /// assert!(chart.starts_with("flowchart TD\n") && chart.contains("n0 --> n1"), "{chart}");
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn describe_mermaid(&self) -> String {
        mermaid::mermaid(self)
    }

    /// A graph in Graphviz's language.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let mut topology = Topology::builder();
    /// topology.source("in", "words", (Utf8, Utf8)).sink("out", "copies", (Utf8, Utf8));
    /// let graph = topology.build()?.describe_dot(); // for `dot -Tsvg`
    /// assert!(graph.starts_with("digraph topology {") && graph.contains(r#""in" -> "out";"#), "{graph}");
    /// # Ok::<(), TopologyError>(())
    /// ```
    pub fn describe_dot(&self) -> String {
        dot::dot(self)
    }

    /// The nodes of a sub-topology: those with more behind them first, then by name.
    fn nodes_of(&self, part: &SubTopology) -> Vec<usize> {
        let mut nodes = part.nodes.clone();
        self.sort(&mut nodes);
        nodes
    }

    fn sort(&self, nodes: &mut [usize]) {
        let sizes = self.sizes();
        nodes.sort_by(|&a, &b| sizes[b].cmp(&sizes[a]).then_with(|| self.nodes()[a].name.cmp(&self.nodes()[b].name)));
    }

    /// For each node how many nodes are behind it, itself included, and counted once for each way to them.
    fn sizes(&self) -> Vec<u64> {
        let mut sizes = vec![1_u64; self.nodes().len()];
        // A node is always added after its parents.
        for (node, draft) in self.nodes().iter().enumerate().rev() {
            let behind = draft.children.iter().fold(0_u64, |sum, &child| sum.saturating_add(sizes[child]));
            sizes[node] = behind.saturating_add(1);
        }
        sizes
    }

    fn names(&self, nodes: &[usize]) -> Vec<&str> {
        let mut nodes = nodes.to_vec();
        self.sort(&mut nodes);
        nodes.into_iter().map(|node| self.nodes()[node].name.as_str()).collect()
    }
}

/// The topics that a node reads or writes.
fn topics(draft: &Draft) -> Vec<String> {
    let topics = match &draft.kind {
        Kind::Source(source) => &source.topics[..],
        Kind::Sink(sink) => &sink.topics,
        Kind::Process { .. } => &[],
    };
    topics.iter().map(ToString::to_string).collect()
}

/// An edge between a node and a topic: out of the topic into a source, out of a sink into the topic.
fn topic_edges(topology: &Topology) -> Vec<(usize, String, bool)> {
    let mut edges = Vec::new();
    for (node, draft) in topology.nodes().iter().enumerate() {
        let reads = draft.source().is_some();
        edges.extend(topics(draft).into_iter().map(|topic| (node, topic, reads)));
    }
    edges
}

#[cfg(test)]
mod tests;
