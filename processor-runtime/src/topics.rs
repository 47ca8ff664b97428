//! The topics an application needs: inputs and outputs must be there and fit, changelogs are made or checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use processor_core::topology::{SubTopology, Topology};

use crate::config::{Config, ConfigError, changelog_topic};
use crate::kafka::admin::{Admin, BrokerInfo, TopicInfo, TopicShape};
use crate::state::{Layout, StoreLayout};
use crate::stream_thread::ChangelogTopic;

/// How far in the future a record's timestamp may lie.
pub const TIMESTAMP_BOUND: &str = "message.timestamp.after.max.ms";
/// Kafka's default of `delete.retention.ms`: one day.
const DELETE_RETENTION_DEFAULT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What was found and made.
#[derive(Clone, Debug)]
pub struct CheckedTopics {
    /// Per sub-topology: how many partitions, and so tasks, it has.
    pub partitions: BTreeMap<Arc<str>, usize>,
    /// Per sub-topology: its changelogs, in the order of its stores.
    pub changelogs: BTreeMap<Arc<str>, Vec<ChangelogTopic>>,
    /// Per sub-topology with stores: what its tasks keep on disk.
    pub layouts: BTreeMap<Arc<str>, Layout>,
    /// The brokers.
    pub brokers: Vec<BrokerInfo>,
}

/// The broker setting that makes a partition refuse records of a transaction it was not added to.
pub const VERIFICATION: &str = "transaction.partition.verification.enable";

impl CheckedTopics {
    /// Whether all brokers say that they verify that a partition was added to the transaction that writes to it. One that
    /// does not, or does not say, weakens the guarantee.
    pub fn transactions_verified(&self) -> bool {
        !self.brokers.is_empty() && self.brokers.iter().all(verifies_transactions)
    }
}

/// Whether a broker says that it verifies transactions.
pub fn verifies_transactions(broker: &BrokerInfo) -> bool {
    broker.configs.as_ref().and_then(|configs| configs.get(VERIFICATION)).is_some_and(|value| value == "true")
}

/// Checks all topics and makes changelogs that are missing.
///
/// # Errors
/// What does not fit, with the command that repairs it.
pub fn check(
    config: &Config,
    topology: &Topology,
    brokers: Vec<BrokerInfo>,
    admin: &Admin,
) -> Result<CheckedTopics, ConfigError> {
    let cluster_id = admin.cluster_id().map_err(|error| ConfigError(error.message))?;
    for output in topology.outputs() {
        existing(config, admin, output, "output")?;
    }
    let mut checked =
        CheckedTopics { partitions: BTreeMap::new(), changelogs: BTreeMap::new(), layouts: BTreeMap::new(), brokers };
    for subtopology in topology.subtopologies() {
        let partitions = co_partitioned(config, topology, admin, subtopology)?;
        checked.partitions.insert(subtopology.name.clone(), partitions);
        let mut topics = Vec::new();
        let mut stores = Vec::new();
        for store in &subtopology.stores {
            let topic = changelog_topic(&config.application_id, store);
            let info = changelog(config, admin, &topic, partitions)?;
            stores.push(StoreLayout { name: store.clone(), changelog_topic_id: info.topic_id.clone() });
            let delete_retention_ms = delete_retention_ms(&info);
            topics.push(ChangelogTopic { store: store.clone(), topic, delete_retention_ms });
        }
        if !stores.is_empty() {
            checked.changelogs.insert(subtopology.name.clone(), topics);
            let layout = Layout { stores, cluster_id: cluster_id.clone() };
            checked.layouts.insert(subtopology.name.clone(), layout);
        }
    }
    Ok(checked)
}

fn existing(config: &Config, admin: &Admin, topic: &str, what: &str) -> Result<TopicShape, ConfigError> {
    let found = admin.topic_shape(topic).map_err(|error| ConfigError(error.message))?;
    found.ok_or_else(|| {
        ConfigError(format!(
            "the {what} topic '{topic}' does not exist: make it with kafka-topics --bootstrap-server {} --create --topic {topic} \
             --partitions <n> --replication-factor <n>, or correct its name",
            config.bootstrap_servers
        ))
    })
}

/// The number of partitions that all inputs of a sub-topology share.
fn co_partitioned(
    config: &Config,
    topology: &Topology,
    admin: &Admin,
    subtopology: &SubTopology,
) -> Result<usize, ConfigError> {
    let mut counts = Vec::new();
    for input in &subtopology.inputs {
        let topic = &topology.inputs()[input.slot()];
        counts.push((topic, existing(config, admin, topic, "input")?.partitions));
    }
    let (first, partitions) = counts[0];
    match counts.iter().find(|(_, count)| *count != partitions) {
        None => Ok(partitions),
        Some((other, count)) => Err(ConfigError(format!(
            "the inputs of sub-topology '{}' must have the same number of partitions, and '{first}' has {partitions}, '{other}' {count}: \
             copy one of them into a topic with as many partitions as the other",
            subtopology.name
        ))),
    }
}

/// A changelog topic: made where it is missing, checked where it is not.
fn changelog(config: &Config, admin: &Admin, topic: &str, partitions: usize) -> Result<TopicInfo, ConfigError> {
    let describe = || admin.describe_topic(topic).map_err(|error| ConfigError(error.message));
    let info = if let Some(info) = describe()? {
        info
    } else {
        let configs = BTreeMap::from([
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("message.timestamp.type".to_owned(), "CreateTime".to_owned()),
            (TIMESTAMP_BOUND.to_owned(), i64::MAX.to_string()),
        ]);
        let made = admin.create_topic(topic, partitions, config.replication_factor, &configs);
        made.map_err(|error| ConfigError(error.message))?;
        tracing::info!(topic, partitions, "changelog topic made");
        let found = describe()?;
        found.ok_or_else(|| ConfigError(format!("the changelog topic '{topic}' was made and is gone again")))?
    };
    check_changelog(config, topic, partitions, &info)?;
    Ok(info)
}

fn check_changelog(config: &Config, topic: &str, partitions: usize, info: &TopicInfo) -> Result<(), ConfigError> {
    let servers = &config.bootstrap_servers;
    if info.partitions != partitions {
        return Err(ConfigError(format!(
            "the changelog topic '{topic}' has {} partitions, but the inputs have {partitions}: state would be lost or read by the wrong task. \
             If the inputs were given more partitions, keys have moved and the state cannot be kept: start over with another application id, \
             or, if the state may go, stop all workers, delete the topic and the state directories ({state_dir}), and take the changelog's end out of the \
             committed offsets: kafka-topics --bootstrap-server {servers} --delete --topic {topic} && kafka-consumer-groups --bootstrap-server {servers} \
             --group {group} --all-topics --reset-offsets --to-current --execute",
            info.partitions,
            state_dir = config.state_dir.display(),
            group = config.application_id
        )));
    }
    let policy = info.configs.get("cleanup.policy").map_or("", String::as_str);
    let policies: Vec<&str> = policy.split(',').map(str::trim).collect();
    if policies != ["compact"] {
        return Err(ConfigError(format!(
            "the changelog topic '{topic}' has cleanup.policy={policy}, so state would be deleted after a while: repair it with kafka-configs \
             --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact"
        )));
    }
    Ok(())
}

fn delete_retention_ms(info: &TopicInfo) -> i64 {
    let text = info.configs.get("delete.retention.ms");
    text.and_then(|text| text.parse().ok()).unwrap_or(DELETE_RETENTION_DEFAULT_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(partitions: usize, policy: &str) -> TopicInfo {
        let configs = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
        TopicInfo { partitions, topic_id: "id".to_owned(), configs }
    }

    #[test]
    fn a_changelog_that_would_lose_state_is_refused_with_the_repair() {
        let config = Config::new("app", "host:9092", "/tmp/state");
        let check = |info| check_changelog(&config, "app-s-changelog", 4, &info).map_err(|error| error.0);
        assert_eq!(check(info(4, "compact")), Ok(()));
        let wrong_count = check(info(3, "compact")).expect_err("3 is not 4");
        assert!(wrong_count.contains("has 3 partitions") && wrong_count.contains("kafka-topics"), "{wrong_count}");
        for policy in ["delete", "compact,delete", "delete, compact", ""] {
            let refused = check(info(4, policy)).expect_err("such a topic loses state");
            assert!(refused.contains("--add-config cleanup.policy=compact"), "{refused}");
        }
    }
}
