//! What the builder's handles write down: nodes, how they are connected, and how to make each one's part of a task.

use std::any::TypeId;
use std::cell::RefCell;
use std::rc::Rc;

use super::codec_pair::AnyCodecPair;
use super::nodes::{Erased, SourceNode, Wiring};
use super::{StoreMaker, TopologyError};
use crate::ids::OutputIndex;
use crate::protocol::failure::{FailurePolicy, Policy};
use crate::store::StoreSpec;

/// The graph of a builder, shared with its stream handles.
pub(super) type SharedGraph = Rc<RefCell<Graph>>;

pub(super) struct Graph {
    pub(super) nodes: Vec<Draft>,
    /// What the handles found wrong; `build()` refuses the first.
    pub(super) errors: Vec<TopologyError>,
    /// Of nodes that have none of their own.
    pub(super) policy: Policy,
}

impl Default for Graph {
    fn default() -> Self {
        Self { nodes: Vec::new(), errors: Vec::new(), policy: FailurePolicy::fail().into() }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.name)).finish()
    }
}

/// A node.
pub(crate) struct Draft {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) parents: Vec<usize>,
    pub(crate) children: Vec<usize>,
    pub(crate) stores: Vec<StoreDraft>,
    /// What becomes of records that fail in it, where that differs from the topology's policy.
    pub(crate) policy: Option<Policy>,
}

pub(crate) enum Kind {
    Source(SourceDraft),
    Process {
        make: Box<dyn Fn(Wiring) -> Erased + Send + Sync>,
        /// Whether it does nothing but hand records on, so that it is of no use with nothing behind it.
        only_forwards: bool,
    },
    Sink(SinkDraft),
}

pub(crate) struct SourceDraft {
    pub(crate) topics: Vec<TopicName>,
    pub(crate) codecs: AnyCodecPair,
    pub(crate) invalid_timestamps: Option<Policy>,
    /// How many partitions its topic shall have, where that is an internal one and somebody has said.
    pub(crate) partitions: Option<u32>,
    pub(crate) make: Box<dyn Fn(Wiring) -> Box<dyn SourceNode> + Send + Sync>,
}

pub(crate) struct SinkDraft {
    pub(crate) topics: Vec<TopicName>,
    /// Whether it writes to the partition with the number of the task's.
    pub(crate) to_source_partition: bool,
    pub(crate) codecs: AnyCodecPair,
    pub(crate) make: Box<dyn Fn(Wiring, Vec<OutputIndex>) -> Erased + Send + Sync>,
}

pub(crate) struct StoreDraft {
    pub(crate) name: &'static str,
    pub(crate) types: (TypeId, TypeId),
    /// Where it lives and what its changelog is like; or the setting that cannot be, and why.
    pub(crate) spec: Result<StoreSpec, (&'static str, &'static str)>,
    pub(crate) maker: StoreMaker,
}

/// A topic as the topology names it, before it is known for which application it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicName {
    /// Named by the user.
    Given(String),
    /// Between two sub-topologies: `<application.id>-<name>-repartition`.
    Repartition(String),
}

impl TopicName {
    /// The topic's name for an application.
    pub(crate) fn resolved(&self, application_id: &str) -> String {
        match self {
            Self::Given(topic) => topic.clone(),
            Self::Repartition(name) => format!("{application_id}-{name}-repartition"),
        }
    }
}

impl std::fmt::Display for TopicName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given(topic) => f.write_str(topic),
            Self::Repartition(name) => write!(f, "{name}-repartition"),
        }
    }
}

impl Draft {
    pub(crate) fn source(&self) -> Option<&SourceDraft> {
        match &self.kind {
            Kind::Source(source) => Some(source),
            Kind::Process { .. } | Kind::Sink(_) => None,
        }
    }

    pub(crate) fn sink(&self) -> Option<&SinkDraft> {
        match &self.kind {
            Kind::Sink(sink) => Some(sink),
            Kind::Process { .. } | Kind::Source(_) => None,
        }
    }
}

impl Graph {
    /// Adds a node behind these.
    pub(super) fn add(&mut self, name: String, kind: Kind, parents: &[usize]) -> usize {
        let node = self.nodes.len();
        for &parent in parents {
            assert!(
                parent < node,
                "'{name}' is connected to a topology that was built: connect everything before .build()"
            );
            self.nodes[parent].children.push(node);
        }
        let parents = parents.to_vec();
        self.nodes.push(Draft { name, kind, parents, children: Vec::new(), stores: Vec::new(), policy: None });
        node
    }

    /// The name of a node that was given none: `<parent>-<what it does>`, then `<parent>-<what it does>-2` and so on.
    pub(super) fn name_behind(&self, parent: usize, what: &str) -> String {
        assert!(
            parent < self.nodes.len(),
            "a {what} is connected to a topology that was built: connect everything before .build()"
        );
        let first = format!("{}-{what}", self.nodes[parent].name);
        let taken = |name: &String| self.nodes.iter().any(|node| node.name == *name);
        let numbered = (2..).map(|number| format!("{first}-{number}"));
        let mut names = std::iter::once(first.clone()).chain(numbered);
        names.find(|name| !taken(name)).expect("there are more numbers than nodes")
    }
}
