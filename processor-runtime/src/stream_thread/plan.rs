//! What a stream thread needs to know before it starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::restore::StartRule;
use processor_core::topology::ApplicationTopology;

use crate::kafka::{Kafka, KafkaError, Member, PRODUCERS, TransactionalId};
use crate::state::Layout;

/// What a stream thread needs to know; the same for all threads of an application but for the identity.
#[derive(Clone, Debug)]
pub struct ThreadPlan {
    /// The topology.
    pub topology: ApplicationTopology,
    /// How many partitions each output topic has, in the topology's order.
    pub output_partitions: Arc<[u32]>,
    /// The transactional id of the thread's first producer, which stands for the thread.
    pub transactional_id: TransactionalId,
    /// The thread's place in the group.
    pub member: Member,
    /// Per sub-topology: the changelog topic of each store with its `delete.retention.ms`; `None` for a store without one.
    pub changelogs: BTreeMap<Arc<str>, Vec<Option<ChangelogTopic>>>,
    /// Per sub-topology with stores: what its tasks keep on disk.
    pub layouts: BTreeMap<Arc<str>, Layout>,
    /// Where inputs begin that have no committed offset.
    pub start_rule: StartRule,
    /// The bounds of a transaction.
    pub batch: BatchBounds,
    /// How many records a poll takes at the most: what was read a moment ago is still warm when it is processed.
    pub poll_records_max: usize,
    /// The most bytes of keys and values in a transaction.
    pub batch_bytes_max: usize,
    /// `max.task.idle`: how long a task with several inputs waits for one that is empty and has more.
    pub max_task_idle: Duration,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
    /// How long a member that was told it is out of date waits for the rebalance before it recovers by itself.
    pub rebalance_wait: Duration,
    /// How long the thread may be out of the group, after the group took its partitions away, before its client is
    /// replaced.
    pub lost_wait: Duration,
    /// The same where it has not joined yet, or gave its partitions up for a rebalance that has not ended.
    pub outside_wait: Duration,
    /// Whether the broker does not verify transactions (`transaction.partition.verification.enable=false`): then every
    /// producer that replaces a tainted one begins with a fence transaction, which keeps a late `TxnOffsetCommit` of its
    /// predecessor out.
    pub fence_after_rebuild: bool,
    /// The most bytes of clean values that each store of a task keeps decoded.
    pub cache_bytes_max: usize,
    /// Whether to leave the group when the thread stops: partitions move at once, instead of waiting for a restart.
    pub leave_on_stop: bool,
}

/// A changelog topic.
#[derive(Clone, Debug)]
pub struct ChangelogTopic {
    /// The store it belongs to.
    pub store: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// A thread's two producers, to be initialised.
///
/// # Errors
/// One of them cannot be made.
pub fn producers<K: Kafka>(plan: &ThreadPlan, kafka: &K) -> Result<[K::Producer; PRODUCERS], KafkaError> {
    let topics = producer_topics(plan);
    let [first, second] = plan.transactional_id.of_both();
    Ok([kafka.producer(&first, &topics)?, kafka.producer(&second, &topics)?])
}

/// All topics that a thread's producers write: the outputs, in the topology's order, then the changelogs.
pub fn producer_topics(plan: &ThreadPlan) -> Vec<Arc<str>> {
    let changelogs = plan.changelogs.values().flatten().flatten().map(|changelog| changelog.topic.clone());
    plan.topology.outputs().iter().cloned().chain(changelogs).collect()
}
