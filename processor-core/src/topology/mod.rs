//! Topologies: which operators a record passes, from its input topic to the outputs.
//!
//! A topology is built once, checked by [`TopologyBuilder::build`], and then instantiated for every task. Names, never
//! ordinals, reach topics and disk, so that adding an operator does not move anybody's state.

mod builder;
mod error;
mod nodes;

pub use builder::{Processed, Sink, Stream, TopologyBuilder};
pub use error::TopologyError;
pub(crate) use nodes::{Erased, SourceNode, Wiring};

use std::sync::Arc;

use crate::ids::{InputIndex, StoreIndex, TaskId};
use crate::store::{AnyOverlay, StoreSpec, StoreView};

/// A checked topology. Cheap to clone; shared by all threads.
#[derive(Clone)]
pub struct Topology(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) inputs: Vec<Arc<str>>,
    pub(crate) outputs: Vec<Arc<str>>,
    pub(crate) subtopologies: Vec<SubTopology>,
    pub(crate) nodes: Vec<Node>,
}

/// Operators that are connected with each other: the unit that becomes a task for every partition of its inputs.
#[derive(Clone, Debug)]
pub struct SubTopology {
    /// The name of its alphabetically first source node.
    pub name: Arc<str>,
    /// The topics it reads; they must have the same number of partitions.
    pub inputs: Vec<InputIndex>,
    /// The names of its stores, in the order of [`StoreIndex`].
    pub stores: Vec<Arc<str>>,
    /// Where each of its stores lives and what its changelog is like, in the same order.
    pub store_specs: Vec<StoreSpec>,
    pub(crate) store_makers: Vec<StoreMaker>,
    /// How to show them, in the same order.
    pub store_views: Vec<StoreView>,
    pub(crate) sources: Vec<(InputIndex, usize)>,
}

/// Makes a store's overlay: (its index in the task, the bound of its cache in bytes).
#[derive(Clone)]
pub(crate) struct StoreMaker(pub(crate) Arc<dyn Fn(StoreIndex, usize) -> Box<dyn AnyOverlay> + Send + Sync>);

impl std::fmt::Debug for StoreMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreMaker")
    }
}

/// A node of the graph and how to make its part of a task.
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) children: Vec<usize>,
    pub(crate) stores: Vec<&'static str>,
    pub(crate) instantiate: Box<dyn Fn(Wiring) -> Erased + Send + Sync>,
}

impl Topology {
    /// Starts a topology.
    pub fn builder() -> TopologyBuilder {
        TopologyBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The input topics, in the order of [`InputIndex`].
    pub fn inputs(&self) -> &[Arc<str>] {
        &self.0.inputs
    }

    /// The output topics, in the order of [`crate::ids::OutputIndex`].
    pub fn outputs(&self) -> &[Arc<str>] {
        &self.0.outputs
    }

    /// The sub-topologies, by name.
    pub fn subtopologies(&self) -> &[SubTopology] {
        &self.0.subtopologies
    }

    /// The sub-topology that a task belongs to.
    ///
    /// # Panics
    /// If the task is not of this topology.
    pub fn subtopology_of(&self, task: &TaskId) -> &SubTopology {
        let found = self.0.subtopologies.iter().find(|subtopology| subtopology.name == task.subtopology);
        found.unwrap_or_else(|| panic!("task {task} is not of this topology"))
    }

    pub(crate) fn instantiate(&self, node: usize, subtopology: &SubTopology) -> Erased {
        let node = &self.0.nodes[node];
        let stores = node.stores.iter().map(|&name| {
            let slot = subtopology.stores.iter().position(|known| &**known == name);
            let slot = slot.expect("a node's stores are stores of its sub-topology");
            (name, StoreIndex::new(u16::try_from(slot).expect("build() bounds the number of stores")))
        });
        let wiring = Wiring {
            name: node.name.clone(),
            stores: stores.collect(),
            children: node.children.iter().map(|&child| self.instantiate(child, subtopology)).collect(),
        };
        (node.instantiate)(wiring)
    }
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.subtopologies).finish()
    }
}
