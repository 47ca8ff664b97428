//! A real cluster: the factory of the clients.

use std::sync::Arc;
use std::time::Duration;

use super::changelog::Changelog;
use super::client_properties::ClientProperties;
use super::consumer::Consumer;
use super::ffi::{Client, Kind};
use super::patience::Patience;
use super::producer::Producer;
use super::properties::{self, Role};
use super::{Isolation, Kafka, KafkaError, KafkaErrorKind, Member, TransactionalId};

/// How long a producer waits at first until the group's coordinator has taken offsets; in the end for a whole transaction.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(2);

/// How to reach a cluster, and how its clients behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `host:port` of some brokers, with commas between.
    pub bootstrap_servers: String,
    /// The application's id: also its consumer group.
    pub application_id: String,
    /// librdkafka properties of the user: security, tuning. A name may carry the prefix `consumer.` or `producer.`.
    pub properties: ClientProperties,
    /// How the group shares out partitions.
    pub group_protocol: GroupProtocol,
    /// After this long without a heartbeat the group gives a member's partitions to others.
    pub session_timeout: Duration,
    /// How often a member shows that it lives; at most a third of the session time-out.
    pub heartbeat_interval: Duration,
    /// After this long without a poll a member gives its partitions up.
    pub max_poll_interval: Duration,
    /// After this long the broker aborts a transaction that its producer left open.
    pub transaction_timeout: Duration,
    /// Whether the group member is told every few seconds what open transactions hold back.
    pub measures: bool,
}

impl ClusterSettings {
    /// The defaults: 6 s session, a heartbeat every 500 ms, 5 min between polls, 10 s transaction.
    pub fn new(bootstrap_servers: impl Into<String>, application_id: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            application_id: application_id.into(),
            properties: ClientProperties::default(),
            group_protocol: GroupProtocol::Classic,
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(500),
            max_poll_interval: Duration::from_mins(5),
            transaction_timeout: Duration::from_secs(10),
            measures: false,
        }
    }
}

/// How a group shares out its partitions.
///
/// [`Config::group_protocol`](crate::config::Config::group_protocol) chooses it.
///
/// ```
/// use processor_runtime::config::{Config, GroupProtocol};
///
/// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
/// assert_eq!(config.group_protocol, GroupProtocol::Classic); // any cluster has it
/// config.group_protocol = GroupProtocol::Consumer; // Kafka 4.0 or newer
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// A member shares out, and every change stops all of them for a moment.
    Classic,
    /// The broker shares out (KIP-848), and the session and the heartbeats are its settings.
    Consumer,
}

/// A cluster that is reached through librdkafka.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: ClusterSettings,
    /// Of all its producers: one that replaces another has learned from it.
    offsets_patience: Patience,
}

impl Cluster {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// Kind `Config`: a property that the guarantee does not allow, or time-outs that do not fit each other.
    pub fn new(settings: ClusterSettings) -> Result<Self, KafkaError> {
        properties::check(&settings)?;
        let offsets_patience = Patience::new(OFFSETS_PATIENCE, settings.transaction_timeout);
        Ok(Self { settings, offsets_patience })
    }

    /// What it was made with.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Makes a native client for a role.
    pub(super) fn client(&self, role: Role<'_>) -> Result<Arc<Client>, KafkaError> {
        let kind = match role {
            Role::Consumer(_) | Role::Changelog { .. } => Kind::Consumer,
            Role::Producer(_) | Role::Admin => Kind::Producer,
        };
        Client::new(kind, &properties::resolve(&self.settings, role)).map_err(|reason| KafkaError {
            kind: KafkaErrorKind::Config,
            message: format!("the kafka client cannot be made: {reason}; correct the property"),
        })
    }
}

impl Kafka for Cluster {
    type Consumer = Consumer;
    type Producer = Producer;
    type Changelog = Changelog;

    fn consumer(&self, member: &Member, inputs: &[Arc<str>]) -> Result<Consumer, KafkaError> {
        let (cluster, client_id) = (self.clone(), format!("{}-questions", member.client_id));
        let make_own =
            move || cluster.client(Role::Changelog { client_id: &client_id, isolation: Isolation::ReadCommitted });
        let client = self.client(Role::Consumer(member))?;
        let Self { settings: ClusterSettings { application_id, group_protocol, .. }, .. } = self;
        Consumer::new(client, application_id, *group_protocol, inputs, Box::new(make_own))
    }

    fn producer(&self, id: &TransactionalId, topics: &[Arc<str>]) -> Result<Producer, KafkaError> {
        let patience = self.offsets_patience.clone();
        Ok(Producer::new(self.client(Role::Producer(id))?, id.clone(), topics, patience))
    }

    fn changelog(&self, client_id: &str, isolation: Isolation) -> Result<Changelog, KafkaError> {
        Changelog::new(self.client(Role::Changelog { client_id, isolation })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_can_be_made_without_a_broker() {
        let cluster = Cluster::new(ClusterSettings::new("127.0.0.1:1", "app")).expect("the defaults are consistent");
        let member = Member { client_id: "app-i-0".to_owned(), group_instance_id: Some("i-0".to_owned()) };
        cluster.consumer(&member, &["in".into()]).expect("every property is known to librdkafka");
        cluster.producer(&TransactionalId("app|i|0".into()), &["out".into()]).expect("as above");
        cluster.changelog("app-i-0-restore", Isolation::ReadCommitted).expect("as above");
        cluster.client(Role::Admin).expect("as above");
    }

    #[test]
    fn a_member_of_either_protocol_can_be_made() {
        let mut settings = ClusterSettings::new("127.0.0.1:1", "app");
        settings.group_protocol = GroupProtocol::Consumer;
        let cluster = Cluster::new(settings).expect("the defaults are consistent");
        let member = Member { client_id: "app-i-0".to_owned(), group_instance_id: Some("i-0".to_owned()) };
        cluster.consumer(&member, &["in".into()]).expect("librdkafka takes what it is given");
    }

    #[test]
    fn a_wrong_property_is_a_config_error_that_names_it() {
        let mut settings = ClusterSettings::new("127.0.0.1:1", "app");
        settings.properties.insert("consumer.fetch.wait.max", "1");
        let cluster = Cluster::new(settings).expect("names are checked by librdkafka");
        let error = cluster.changelog("r", Isolation::ReadCommitted).expect_err("there is no such property");
        assert_eq!(error.kind, KafkaErrorKind::Config);
        assert!(error.message.contains("fetch.wait.max"), "{error}");
    }
}
