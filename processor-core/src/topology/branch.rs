//! The arms of a branch, as they are added to it.

use std::sync::Arc;

use super::draft::Kind;
use super::nodes;
use super::stream::Stream;
use crate::operator::{Branch, Predicate};
use crate::record::Record;

/// Splits a stream into arms; see [`Stream::branch`]. What goes along no arm ends here.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// let mut topology = Topology::builder();
/// let mut by_sign = topology.source("amounts", "amounts", (Utf8, JavaLong)).branch();
/// by_sign.when("credits", |amount| amount.value > 0).sink("to-credits", "credits", (Utf8, JavaLong));
/// by_sign.when("debits", |amount| amount.value < 0).sink("to-debits", "debits", (Utf8, JavaLong));
/// let driver = TopologyTestDriver::new(topology.build()?)?;
/// for amount in [5, 0, -3] {
///     driver.input::<String, i64>("amounts").pipe_at(secs(1), "ann", amount);
/// }
/// assert_eq!(driver.output::<String, i64>("to-credits").values(), [5]);
/// assert_eq!(driver.output::<String, i64>("to-debits").values(), [-3]); // and 0 is gone
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    ///
    /// The name is that of the arm's node; an arm must lead somewhere.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// let mut by_amount = orders.branch();
    /// by_amount.when("huge", |order| order.value >= 1_000).sink("to-huge", "huge", (Utf8, JavaLong));
    /// by_amount.when("large", |order| order.value >= 100).sink("to-large", "large", (Utf8, JavaLong));
    /// by_amount.otherwise("small").sink("to-small", "small", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 5_000);
    /// assert_eq!(driver.output::<String, i64>("to-huge").values(), [5_000]);
    /// assert!(driver.output::<String, i64>("to-large").values().is_empty(), "only the first arm has it");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// # let orders = topology.source("orders", "orders", (Utf8, JavaLong));
    /// let mut by_amount = orders.branch();
    /// by_amount.when("large", |order| order.value >= 100).sink("to-large", "large", (Utf8, JavaLong));
    /// by_amount.otherwise("small").sink("to-small", "small", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// driver.input::<String, i64>("orders").pipe_at(secs(1), "ann", 5);
    /// assert_eq!(driver.output::<String, i64>("to-small").values(), [5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn otherwise(mut self, name: impl Into<String>) -> Stream<K, V> {
        self.when(name, |_| true)
    }
}

impl<K, V> std::fmt::Debug for Branches<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Branches({:?}, {} arms)", self.branch, self.arms.len())
    }
}
