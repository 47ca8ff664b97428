//! The topics an application needs: inputs and outputs must be there and fit, changelogs are made or checked.
//!
//! It is the runtime's own, and no stable API.

use std::collections::BTreeMap;
use std::sync::Arc;

use processor_core::store::ChangelogSpec;
use processor_core::topology::{ApplicationTopology, InternalPartitions, InternalTopic, SubTopology};

use crate::config::{Config, ConfigError, changelog_topic};
use crate::kafka::admin::{Admin, BrokerInfo, TopicInfo, TopicShape};
use crate::state::{Layout, StoreLayout};
use crate::stream_thread::ChangelogTopic;

/// How far in the future a record's timestamp may lie.
pub const TIMESTAMP_BOUND: &str = "message.timestamp.after.max.ms";
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
    /// How many partitions each output topic has, in the topology's order.
    pub output_partitions: Arc<[u32]>,
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
    topology: &ApplicationTopology,
    brokers: Vec<BrokerInfo>,
    admin: &Admin,
) -> Result<CheckedTopics, ConfigError> {
    let cluster_id = admin.cluster_id().map_err(|error| ConfigError(error.message))?;
    // Those that are not the application's to make come first: a name that is wrong leaves nothing behind.
    for input in topology.inputs().iter().filter(|input| !topology.is_internal(input)) {
        existing(config, topology, admin, input, "input")?;
    }
    let mut outputs = BTreeMap::new();
    for output in topology.outputs().iter().filter(|output| !topology.is_internal(output)) {
        outputs.insert(output, existing(config, topology, admin, output, "output")?);
    }
    make_internal_topics(config, topology, admin)?;
    for output in topology.outputs().iter().filter(|output| topology.is_internal(output)) {
        outputs.insert(output, existing(config, topology, admin, output, "internal")?);
    }
    let partitions = |output| u32::try_from(outputs[output].partitions).expect("Kafka counts partitions in 31 bits");
    let output_partitions: Arc<[u32]> = topology.outputs().iter().map(partitions).collect();
    let mut checked = CheckedTopics {
        partitions: BTreeMap::new(),
        changelogs: BTreeMap::new(),
        layouts: BTreeMap::new(),
        output_partitions,
        brokers,
    };
    for subtopology in topology.subtopologies() {
        let partitions = co_partitioned(config, topology, admin, subtopology)?;
        check_as_wide(config, topology, subtopology, partitions, &checked.output_partitions)?;
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

fn existing(
    config: &Config,
    topology: &ApplicationTopology,
    admin: &Admin,
    topic: &str,
    what: &str,
) -> Result<TopicShape, ConfigError> {
    // An internal one was made before this, here or by another worker, and the broker that is asked may not know it yet.
    let found = if topology.is_internal(topic) { admin.made_topic_shape(topic) } else { admin.topic_shape(topic) };
    let is_for_letters = topology.dead_letter_topics().contains(&topic);
    let for_what = if is_for_letters { ", and dead letters go there" } else { "" };
    found.map_err(|error| ConfigError(error.message))?.ok_or_else(|| {
        ConfigError(format!(
            "the {what} topic '{topic}' does not exist{for_what}: make it with kafka-topics --bootstrap-server {} --create --topic {topic} \
             --partitions <n> --replication-factor <n>, or correct its name",
            config.bootstrap_servers
        ))
    })
}

/// Makes the internal topics that are missing, and checks those that are there.
fn make_internal_topics(config: &Config, topology: &ApplicationTopology, admin: &Admin) -> Result<(), ConfigError> {
    let mut found = BTreeMap::new();
    for topic in topology.inputs() {
        let shape = admin.topic_shape(topic).map_err(|error| ConfigError(error.message))?;
        found.extend(shape.map(|shape| (topic.clone(), shape)));
    }
    let count = |topic: &str| found.get(topic).and_then(|shape| u32::try_from(shape.partitions).ok());
    let needed = topology.internal_partitions(count);
    for (internal, partitions) in topology.internal_topics().iter().zip(needed) {
        let topic = &*internal.topic;
        match (found.get(topic), partitions) {
            (Some(_), _) => {
                let info = admin.describe_topic(topic).map_err(|error| ConfigError(error.message))?;
                info.map_or(Ok(()), |info| check_internal(config, topic, internal, &info))?;
            }
            (None, Some(partitions)) => make_internal(config, admin, topic, partitions)?,
            (None, None) => {
                return Err(ConfigError(format!(
                    "the internal topic '{topic}' is to have as many partitions as the inputs of the sub-topology that writes it, and those \
                     do not exist: make the input topics first, or say .with_partitions(n) behind the repartition"
                )));
            }
        }
    }
    Ok(())
}

/// Nothing of it may go before it is processed.
fn make_internal(config: &Config, admin: &Admin, topic: &str, partitions: u32) -> Result<(), ConfigError> {
    let configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), "delete".to_owned()),
        ("retention.ms".to_owned(), "-1".to_owned()),
        ("message.timestamp.type".to_owned(), "CreateTime".to_owned()),
    ]);
    let made = admin.create_topic(topic, partitions as usize, config.replication_factor, &configs);
    made.map_err(|error| ConfigError(error.message))?;
    tracing::info!(topic, partitions, "internal topic made");
    Ok(())
}

fn check_internal(config: &Config, topic: &str, internal: &InternalTopic, info: &TopicInfo) -> Result<(), ConfigError> {
    let servers = &config.bootstrap_servers;
    if let InternalPartitions::Exactly(partitions) = internal.partitions
        && info.partitions != partitions as usize
    {
        return Err(ConfigError(format!(
            "the internal topic '{topic}' has {} partitions, and the topology says {partitions}: a key would move to another task than its \
             state. Give the repartition another name, or start over with another application id",
            info.partitions
        )));
    }
    let setting = |name: &str| info.configs.get(name).map_or("", String::as_str);
    for (name, wanted) in [("cleanup.policy", "delete"), ("retention.ms", "-1")] {
        let found = setting(name);
        if found != wanted {
            return Err(ConfigError(format!(
                "the internal topic '{topic}' has {name}={found}, so records could go before they are processed: repair it with \
                 kafka-configs --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} --add-config {name}={wanted}"
            )));
        }
    }
    Ok(())
}

/// The number of partitions that all inputs of a sub-topology share.
fn co_partitioned(
    config: &Config,
    topology: &ApplicationTopology,
    admin: &Admin,
    subtopology: &SubTopology,
) -> Result<usize, ConfigError> {
    let mut counts = Vec::new();
    for input in &subtopology.inputs {
        let topic = &topology.inputs()[input.slot()];
        counts.push((topic, existing(config, topology, admin, topic, "input")?.partitions));
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

/// A sink that writes to the partition of its input finds one in its topic, whatever the task.
fn check_as_wide(
    config: &Config,
    topology: &ApplicationTopology,
    subtopology: &SubTopology,
    partitions: usize,
    output_partitions: &[u32],
) -> Result<(), ConfigError> {
    let mut sinks = topology.sinks_to_source_partition(subtopology);
    let narrow = sinks.find(|(_, output)| (output_partitions[output.slot()] as usize) < partitions);
    let Some((sink, output)) = narrow else { return Ok(()) };
    let topic = &topology.outputs()[output.slot()];
    Err(ConfigError(format!(
        "the output topic '{topic}' has {} partitions, and the inputs of sub-topology '{}' {partitions}, and the sink '{sink}' writes each \
         record to the partition with its input's number: give it as many with kafka-topics --bootstrap-server {} --alter --topic {topic} \
         --partitions {partitions}, or take .to_source_partition() off the sink, so that the key chooses",
        output_partitions[output.slot()],
        subtopology.name,
        config.bootstrap_servers
    )))
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
        let found = admin.describe_made_topic(topic).map_err(|error| ConfigError(error.message))?;
        found.ok_or_else(|| ConfigError(format!("the changelog topic '{topic}' was made and is gone again")))?
    };
    check_changelog(config, topic, partitions, &info)?;
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
    fn an_internal_topic_that_would_lose_records_is_refused_with_the_repair() {
        let config = Config::new("app", "host:9092", "/tmp/state");
        let internal = InternalTopic {
            topic: "app-x-repartition".into(),
            input: processor_core::ids::InputIndex::new(0),
            output: processor_core::ids::OutputIndex::new(0),
            read_by: "x".into(),
            partitions: InternalPartitions::Exactly(4),
        };
        let check = |partitions, retention: &str| {
            let mut info = info(partitions, "delete");
            info.configs.insert("retention.ms".to_owned(), retention.to_owned());
            check_internal(&config, "app-x-repartition", &internal, &info).map_err(|error| error.0)
        };
        assert_eq!(check(4, "-1"), Ok(()));
        let wrong_count = check(3, "-1").expect_err("3 is not 4");
        assert!(wrong_count.contains("has 3 partitions"), "{wrong_count}");
        let refused = check(4, "604800000").expect_err("such a topic loses records");
        assert!(refused.contains("--add-config retention.ms=-1"), "{refused}");
    }

    #[test]
    fn an_output_that_is_narrower_than_its_input_is_refused_where_partitions_are_kept() {
        use processor_core::prelude::*;

        let config = Config::new("app", "host:9092", "/tmp/state");
        let mut topology = Topology::builder();
        let readings = topology.source("readings", "in", (Utf8, Utf8));
        readings.sink("by-key", "a-narrow", (Utf8, Utf8));
        readings.sink("same", "out", (Utf8, Utf8)).to_source_partition();
        let topology = topology.build().expect("the topology is right");
        let topology = topology.for_application("app").expect("its names are");
        let check = |output_partitions: [u32; 2]| {
            let checked = check_as_wide(&config, &topology, &topology.subtopologies()[0], 4, &output_partitions);
            checked.map_err(|error| error.0)
        };
        assert_eq!((check([1, 4]), check([1, 6])), (Ok(()), Ok(())));
        let refused = check([1, 3]).expect_err("partition 3 of the input has none in the output");
        for words in ["'out' has 3", "sink 'same'", "--alter --topic out --partitions 4"] {
            assert!(refused.contains(words), "{refused}");
        }
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
