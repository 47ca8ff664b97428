//! The nodes of a task: how bytes become records at a source, pass the operators, and become bytes at a sink.

mod pass;
mod process;
mod sink;
mod source;

pub(super) use pass::pass;
pub(super) use process::process;
pub(super) use sink::{Partitioning, SinkWiring, Targets, sink};
pub(crate) use source::SourceNode;
pub(super) use source::source;

use std::any::Any;
use std::sync::Arc;

use crate::ids::{NodeIndex, StoreIndex};
use crate::operator::{Children, Receive, Shared};

/// A node without its types, on its way from the builder's closures into its parents.
pub(crate) struct Erased {
    node: Box<dyn Any>,
    share: fn(Box<dyn Any>) -> Ways,
}

/// Makes a way to a shared node for each of its parents, one by one.
pub(crate) type Ways = Box<dyn FnMut() -> Erased>;

/// What a node is connected with.
pub(crate) struct Wiring {
    pub(crate) index: NodeIndex,
    pub(crate) name: Arc<str>,
    pub(crate) stores: Vec<(&'static str, StoreIndex)>,
    pub(crate) children: Vec<Erased>,
}

impl Erased {
    fn new<K: 'static, V: 'static>(node: Box<dyn Receive<K, V>>) -> Self {
        Self { node: Box::new(node), share: share::<K, V> }
    }

    fn typed<K: 'static, V: 'static>(self) -> Box<dyn Receive<K, V>> {
        let node = self.node.downcast::<Box<dyn Receive<K, V>>>();
        *node.expect("the stream handles' types connect only nodes of the same types")
    }

    /// Turns a node that has several parents into a way for each.
    pub(crate) fn ways(self) -> Ways {
        (self.share)(self.node)
    }
}

fn share<K: 'static, V: 'static>(node: Box<dyn Any>) -> Ways {
    let mut ways = Shared::ways(Erased { node, share: share::<K, V> }.typed::<K, V>());
    Box::new(move || Erased::new::<K, V>(Box::new(ways())))
}

fn children<K: 'static, V: 'static>(children: Vec<Erased>) -> Children<K, V> {
    Children(children.into_iter().map(Erased::typed).collect())
}
