//! Which broker serves what, and which of them is away.
//!
//! A model of what clients see of a fail-over: while a broker is away, the partitions that it leads take and give nothing,
//! the transactions and the group that it coordinates answer nothing, and markers for its partitions wait. What was
//! acknowledged is on the other replicas, so nothing is lost; whether an end of a transaction that nobody answered was
//! decided is for the broker to know. When it is back, or others are elected, everything goes on.

use processor_core::ids::TopicPartition;
use processor_runtime::kafka::TransactionalId;

/// As many as a small cluster has.
pub(super) const BROKERS: usize = 3;

/// The brokers of a cluster.
#[derive(Debug, Default)]
pub(super) struct Brokers {
    /// The one that is away, and whether it has decided what it does not answer any more.
    away: Option<(usize, bool)>,
}

impl Brokers {
    pub(super) fn lose(&mut self, broker: usize, decides: bool) {
        self.away = Some((broker % BROKERS, decides));
    }

    pub(super) fn elect(&mut self) {
        self.away = None;
    }

    pub(super) fn is_any_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether nobody leads this partition.
    pub(super) fn is_leaderless(&self, partition: &TopicPartition) -> bool {
        self.is_away(number(&partition.topic) + partition.partition.get().unsigned_abs() as usize)
    }

    /// Whether nobody coordinates the group.
    pub(super) fn is_group_away(&self) -> bool {
        self.is_away(0)
    }

    /// Whether nobody coordinates the transactions of this id; and if so, whether the one that did has decided what it was
    /// asked last.
    pub(super) fn lost_coordinator(&self, id: &TransactionalId) -> Option<bool> {
        let (_, decides) = self.away?;
        self.is_away(number(&id.0)).then_some(decides)
    }

    fn is_away(&self, number: usize) -> bool {
        self.away.is_some_and(|(broker, _)| number % BROKERS == broker)
    }
}

fn number(name: &str) -> usize {
    name.bytes().map(usize::from).sum()
}
