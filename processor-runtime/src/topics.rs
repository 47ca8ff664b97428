//! The topics an application needs: inputs and outputs must be there and fit, changelogs are made or checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use processor_core::store::ChangelogSpec;
use processor_core::topology::{SubTopology, Topology};

use crate::config::{Config, ConfigError, changelog_topic};
use crate::kafka::admin::{Admin, TopicInfo};
use crate::state::{Layout, StoreLayout};
use crate::stream_thread::ChangelogTopic;

/// How far in the future a record's timestamp may lie.
const TIMESTAMP_BOUND: &str = "message.timestamp.after.max.ms";
/// Its largest value.
const NO_TIMESTAMP_BOUND: &str = "9223372036854775807";
/// Kafka's default of `delete.retention.ms`: one day.
const DELETE_RETENTION_DEFAULT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What was found and made.
#[derive(Clone, Debug)]
pub struct CheckedTopics {
    /// Per sub-topology: how many partitions, and so tasks, it has.
    pub partitions: BTreeMap<Arc<str>, usize>,
    /// Per sub-topology: its changelogs, in the order of its stores; `None` for a store without one.
    pub changelogs: BTreeMap<Arc<str>, Vec<Option<ChangelogTopic>>>,
    /// Per sub-topology with stores: what its tasks keep on disk.
    pub layouts: BTreeMap<Arc<str>, Layout>,
    /// Whether the brokers verify that a partition was added to the transaction that writes to it.
    pub transactions_verified: bool,
}

/// Checks all topics and makes changelogs that are missing.
///
/// # Errors
/// What does not fit, with the command that repairs it.
pub fn check(config: &Config, topology: &Topology, admin: &Admin) -> Result<CheckedTopics, ConfigError> {
    let cluster_id = admin.cluster_id().map_err(|error| ConfigError(error.message))?;
    for output in topology.outputs() {
        existing(config, admin, output, "output")?;
    }
    let mut checked = CheckedTopics {
        partitions: BTreeMap::new(),
        changelogs: BTreeMap::new(),
        layouts: BTreeMap::new(),
        transactions_verified: transactions_verified(admin),
    };
    for subtopology in topology.subtopologies() {
        let partitions = co_partitioned(config, topology, admin, subtopology)?;
        checked.partitions.insert(subtopology.name.clone(), partitions);
        let mut topics = Vec::new();
        let mut stores = Vec::new();
        for store in &subtopology.store_specs {
            let (topic, topic_id) = match &store.changelog {
                Some(spec) => {
                    let topic = changelog_topic(&config.application_id, &store.name);
                    let info = changelog(config, admin, &topic, partitions, spec)?;
                    let delete_retention_ms = delete_retention_ms(&info);
                    (
                        Some(ChangelogTopic { store: store.name.clone(), topic, delete_retention_ms }),
                        Some(info.topic_id),
                    )
                }
                None => (None, None),
            };
            topics.push(topic);
            let (name, in_memory) = (store.name.clone(), store.in_memory);
            stores.push(StoreLayout { name, in_memory, changelog_topic_id: topic_id });
        }
        if !stores.is_empty() {
            checked.changelogs.insert(subtopology.name.clone(), topics);
            let layout = Layout { stores, cluster_id: cluster_id.clone() };
            checked.layouts.insert(subtopology.name.clone(), layout);
        }
    }
    Ok(checked)
}

/// Asks every broker whether it verifies transactions; one that does not, or does not say, weakens the guarantee.
fn transactions_verified(admin: &Admin) -> bool {
    const SETTING: &str = "transaction.partition.verification.enable";
    let brokers = admin.broker_ids().unwrap_or_default();
    let says_so = |broker: &i32| match admin.broker_config(*broker) {
        Ok(settings) => settings.get(SETTING).is_some_and(|value| value == "true"),
        Err(error) => {
            tracing::debug!("broker {broker} does not show its settings: {error}");
            false
        }
    };
    let verified = !brokers.is_empty() && brokers.iter().all(says_so);
    if !verified {
        tracing::warn!(
            "the brokers do not say that {SETTING}=true: a request of a dead producer that arrives late could still be taken. Fence \
             transactions keep late offsets out, a late record they do not: the guarantee is weaker here. Set it to true (the default since 3.6), \
             and allow this application to DescribeConfigs on the cluster"
        );
    }
    verified
}

fn existing(config: &Config, admin: &Admin, topic: &str, what: &str) -> Result<TopicInfo, ConfigError> {
    let found = admin.describe_topic(topic).map_err(|error| ConfigError(error.message))?;
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
fn changelog(
    config: &Config,
    admin: &Admin,
    topic: &str,
    partitions: usize,
    spec: &ChangelogSpec,
) -> Result<TopicInfo, ConfigError> {
    let describe = || admin.describe_topic(topic).map_err(|error| ConfigError(error.message));
    let info = if let Some(info) = describe()? {
        info
    } else {
        let of_all = [
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "CreateTime"),
            (TIMESTAMP_BOUND, NO_TIMESTAMP_BOUND),
        ];
        let of_store = spec.settings.iter().map(|(&name, &value)| (name, value));
        let settings = of_all.into_iter().chain(of_store);
        let configs = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let made = admin.create_topic(topic, partitions, config.replication_factor, &configs);
        made.map_err(|error| ConfigError(error.message))?;
        tracing::info!(topic, partitions, "changelog topic made");
        let found = describe()?;
        found.ok_or_else(|| ConfigError(format!("the changelog topic '{topic}' was made and is gone again")))?
    };
    check_changelog(config, topic, partitions, &info)?;
    warn_of_timestamp_bound(config, topic, &info);
    for difference in differences(config, topic, spec, &info) {
        tracing::warn!(topic, "{difference}");
    }
    Ok(info)
}

/// What a store has asked for and its changelog topic has not, each with the command that repairs it. State is safe
/// without; so the start goes on.
fn differences(config: &Config, topic: &str, spec: &ChangelogSpec, info: &TopicInfo) -> Vec<String> {
    let servers = &config.bootstrap_servers;
    let differing =
        spec.settings.iter().filter(|(name, wanted)| info.configs.get(**name).map(String::as_str) != Some(wanted));
    let said = differing.map(|(name, wanted)| {
        let found = info.configs.get(*name).map_or("no value", String::as_str);
        format!(
            "the changelog topic '{topic}' has {found} for {name}, and its store asks for {wanted}: repair it with kafka-configs \
             --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config {name}={wanted}"
        )
    });
    said.collect()
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

/// Changelog records carry stream time. A topic that takes no timestamps of the future would refuse the state that follows
/// from one input record with such a timestamp, and stop the task for good.
fn warn_of_timestamp_bound(config: &Config, topic: &str, info: &TopicInfo) {
    let bound = info.configs.get(TIMESTAMP_BOUND).and_then(|text| text.parse::<i64>().ok());
    if bound.is_some_and(|bound| bound < i64::MAX) {
        tracing::warn!(
            "the changelog topic '{topic}' refuses timestamps of the future ({TIMESTAMP_BOUND}), so one input record with such a timestamp \
             would stop its task: kafka-configs --bootstrap-server {} --alter --entity-type topics --entity-name {topic} --add-config {TIMESTAMP_BOUND}={}",
            config.bootstrap_servers,
            i64::MAX
        );
    }
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

    #[test]
    fn a_changelog_that_differs_from_its_store_is_named_with_the_repair() {
        let config = Config::new("app", "host:9092", "/tmp/state");
        let spec = ChangelogSpec { settings: BTreeMap::from([("segment.ms", "60000"), ("min.insync.replicas", "2")]) };
        let mut info = info(4, "compact");
        info.configs.insert("segment.ms".to_owned(), "60000".to_owned());
        info.configs.insert("min.insync.replicas".to_owned(), "1".to_owned());
        let [difference] = &differences(&config, "app-s-changelog", &spec, &info)[..] else { panic!("one differs") };
        assert!(
            difference.contains("has 1 for min.insync.replicas") && difference.contains("asks for 2"),
            "{difference}"
        );
        assert!(
            difference.ends_with("--entity-name app-s-changelog --add-config min.insync.replicas=2"),
            "{difference}"
        );
        info.configs.insert("min.insync.replicas".to_owned(), "2".to_owned());
        assert_eq!(differences(&config, "app-s-changelog", &spec, &info), [""; 0]);
    }
}
