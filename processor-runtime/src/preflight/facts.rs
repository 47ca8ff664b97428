//! What the cluster says about itself. A fact that may not be read is missing, and the check goes on without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor_core::topology::ApplicationTopology;

use crate::config::{Config, changelog_topics};
use crate::kafka::admin::{Admin, BrokerInfo};
use crate::kafka::cluster::GroupProtocol;

/// Where Kafka keeps committed offsets.
const OFFSETS: &str = "__consumer_offsets";
/// Where Kafka keeps the state of transactions.
const TRANSACTIONS: &str = "__transaction_state";

/// How many replicas must have a record before it counts as written.
pub(super) const IN_SYNC: &str = "min.insync.replicas";
/// Whether a replica that lags may become leader.
pub(super) const UNCLEAN: &str = "unclean.leader.election.enable";

/// All that is known.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// How commands reach the cluster.
    pub bootstrap_servers: String,
    /// The application's transaction time-out.
    pub transaction_timeout: Duration,
    /// How the application's group shares out partitions.
    pub group_protocol: GroupProtocol,
    /// The topics that the guarantee rests on.
    pub topics: Vec<TopicFacts>,
    /// The brokers.
    pub brokers: Vec<BrokerInfo>,
}

/// What a topic is to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRole {
    /// It is read.
    Input,
    /// It is written.
    Output,
    /// It holds a store.
    Changelog,
    /// It is written and read, between two sub-topologies.
    Repartition,
    /// Kafka's own.
    Internal,
}

/// What is known of a topic.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// Its name.
    pub name: Arc<str>,
    /// What it is to the application.
    pub role: TopicRole,
    /// Whether it is there; if not, what follows is what it would be made with.
    pub is_made: bool,
    /// The replicas of the partition that has fewest.
    pub replicas: Option<usize>,
    /// Its settings.
    pub configs: Option<BTreeMap<String, String>>,
}

/// Asks the cluster. Inputs and outputs that are missing are left out: without them there is no start anyway.
pub fn gather(config: &Config, topology: &ApplicationTopology, brokers: &[BrokerInfo], admin: &Admin) -> ClusterFacts {
    let mut roles: BTreeMap<Arc<str>, TopicRole> = BTreeMap::new();
    let changelogs = changelog_topics(&config.application_id, topology).map(|topic| (topic, TopicRole::Changelog));
    let repartitions =
        topology.internal_topics().iter().map(|internal| (internal.topic.clone(), TopicRole::Repartition));
    let inputs = topology.inputs().iter().map(|topic| (topic.clone(), TopicRole::Input));
    let outputs = topology.outputs().iter().map(|topic| (topic.clone(), TopicRole::Output));
    for (name, role) in changelogs.chain(repartitions).chain(inputs).chain(outputs) {
        roles.entry(name).or_insert(role);
    }
    let kafkas = [OFFSETS, TRANSACTIONS].map(|name| (Arc::from(name), TopicRole::Internal));
    let shown = brokers.iter().find_map(|broker| broker.configs.as_ref());
    let topics = roles.into_iter().chain(kafkas).map(|(name, role)| topic(admin, name, role));
    let topics = topics.filter(|topic| topic.is_made || !matches!(topic.role, TopicRole::Input | TopicRole::Output));
    let judged = topics.map(|topic| match shown {
        Some(shown) if !topic.is_made => to_be_made(topic, shown, config.replication_factor),
        _ => topic,
    });
    ClusterFacts {
        bootstrap_servers: config.bootstrap_servers.clone(),
        transaction_timeout: config.transaction_timeout,
        group_protocol: config.group_protocol,
        topics: judged.collect(),
        brokers: brokers.to_vec(),
    }
}

fn topic(admin: &Admin, name: Arc<str>, role: TopicRole) -> TopicFacts {
    let shape = admin.topic_shape(&name);
    let is_made = !matches!(shape, Ok(None));
    let replicas = shape.ok().flatten().map(|shape| shape.replicas_min);
    let configs = if is_made { admin.topic_configs(&name).ok() } else { None };
    TopicFacts { name, role, is_made, replicas, configs }
}

/// What a topic would be, by the settings of a broker, and for the application's own by ours.
fn to_be_made(topic: TopicFacts, broker: &BTreeMap<String, String>, own_replicas: Option<usize>) -> TopicFacts {
    let (factor, in_sync, ours) = match &*topic.name {
        OFFSETS => ("offsets.topic.replication.factor", IN_SYNC, None),
        TRANSACTIONS => ("transaction.state.log.replication.factor", "transaction.state.log.min.isr", None),
        _ => ("default.replication.factor", IN_SYNC, own_replicas),
    };
    let number = |name: &str| broker.get(name).and_then(|text| text.parse().ok());
    let same = |(from, to): (&str, &str)| Some((to.to_owned(), broker.get(from)?.clone()));
    let configs = [(in_sync, IN_SYNC), (UNCLEAN, UNCLEAN)].into_iter().filter_map(same).collect();
    TopicFacts { replicas: ours.or_else(|| number(factor)), configs: Some(configs), ..topic }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_not_there_yet_is_judged_by_what_it_would_be_made_with() {
        let settings = [
            ("offsets.topic.replication.factor", "3"),
            ("transaction.state.log.replication.factor", "2"),
            ("default.replication.factor", "1"),
            (IN_SYNC, "1"),
            ("transaction.state.log.min.isr", "2"),
            (UNCLEAN, "false"),
        ];
        let broker = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let made = |name: &str, ours| {
            let role = TopicRole::Internal;
            let unknown = TopicFacts { name: name.into(), role, is_made: false, replicas: None, configs: None };
            let made = to_be_made(unknown, &broker, ours);
            (made.replicas, made.configs.and_then(|configs| configs.get(IN_SYNC).cloned()))
        };
        assert_eq!(made(OFFSETS, Some(4)), (Some(3), Some("1".to_owned())));
        assert_eq!(made(TRANSACTIONS, Some(4)), (Some(2), Some("2".to_owned())));
        assert_eq!(made("app-s-changelog", None), (Some(1), Some("1".to_owned())));
        assert_eq!(made("app-s-changelog", Some(4)), (Some(4), Some("1".to_owned())));
    }
}
