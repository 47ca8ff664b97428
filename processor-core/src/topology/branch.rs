//! The arms of a branch, as they are added to it.

use std::sync::Arc;

use super::draft::Kind;
use super::nodes;
use super::stream::Stream;
use crate::operator::{Branch, Predicate};
use crate::record::Record;

/// Splits a stream into arms; see [`Stream::branch`]. What goes along no arm ends here.
pub struct Branches<K, V> {
    branch: Stream<K, V>,
    arms: Vec<Predicate<K, V>>,
}

impl<K: Clone + 'static, V: Clone + 'static> Branches<K, V> {
    pub(super) fn behind(stream: &Stream<K, V>) -> Self {
        let name = stream.graph.borrow().name_behind(stream.node, "branch");
        let branch = stream.add_operator(name, || Branch::<K, V> { arms: Vec::new() }, true);
        Self { branch, arms: Vec::new() }
    }

    /// An arm for the records for which the predicate holds and none before it did.
    pub fn when(
        &mut self,
        name: impl Into<String>,
        predicate: impl Fn(&Record<K, V>) -> bool + Send + Sync + 'static,
    ) -> Stream<K, V> {
        self.arms.push(Arc::new(predicate));
        let arms = self.arms.clone();
        let make = Box::new(move |wiring| nodes::process(wiring, Branch { arms: arms.clone() }));
        let mut graph = self.branch.graph.borrow_mut();
        graph.nodes[self.branch.node].kind = Kind::Process { make, only_forwards: true };
        let arm = Kind::Process { make: Box::new(nodes::pass::<K, V>), only_forwards: true };
        let node = graph.add(name.into(), arm, &[self.branch.node]);
        Stream::new(self.branch.graph.clone(), node)
    }

    /// The last arm: for the records that went along no other.
    pub fn otherwise(mut self, name: impl Into<String>) -> Stream<K, V> {
        self.when(name, |_| true)
    }
}

impl<K, V> std::fmt::Debug for Branches<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Branches({:?}, {} arms)", self.branch, self.arms.len())
    }
}
