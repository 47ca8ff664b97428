//! Questions and changes at start-up, and who owns what. These calls wait for their answers; nothing of the running loop
//! uses them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use processor_core::ids::TopicPartition;
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::cluster::{Cluster, ClusterSettings};
use super::ffi::{Code, Event, EventQueue, Fault, PartitionEntry, SettingsOf};
use super::properties::Role;
use super::{KafkaError, KafkaErrorKind};

/// How long the cluster may take over one question.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long it may take over who owns what: somebody waits for an answer to another question.
const OWNERS_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a new topic may take until it can be described.
const CREATED_WAIT_MAX: Duration = Duration::from_secs(15);
/// How often a new topic is looked for.
const CREATED_POLL: Duration = Duration::from_millis(50);

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// How many partitions it has.
    pub partitions: usize,
    /// The id that changes when a topic is deleted and made again.
    pub topic_id: String,
    /// Its settings, also those with default values.
    pub configs: BTreeMap<String, String>,
}

/// A connection for start-up.
pub struct Admin {
    queue: EventQueue,
    bootstrap_servers: String,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admin").field(&self.bootstrap_servers).finish()
    }
}

impl Admin {
    /// Makes the client; the first question connects.
    ///
    /// # Errors
    /// Kind `Config`, as from [`Cluster::new`].
    pub fn connect(settings: &ClusterSettings) -> Result<Self, KafkaError> {
        let client = Cluster::new(settings.clone())?.client(Role::Admin)?;
        Ok(Self { queue: EventQueue::new(&client), bootstrap_servers: settings.bootstrap_servers.clone() })
    }

    /// The cluster's id: state on disk belongs to one cluster.
    pub fn cluster_id(&self) -> Result<String, KafkaError> {
        self.queue.ask_cluster(ANSWER_WAIT_MAX);
        self.answer("cannot read the cluster's id", Event::cluster_id)
    }

    /// The ids of the brokers.
    pub fn broker_ids(&self) -> Result<Vec<i32>, KafkaError> {
        self.queue.ask_cluster(ANSWER_WAIT_MAX);
        self.answer("cannot list the brokers", Event::broker_ids)
    }

    /// What a topic is; `None` where there is none of that name.
    pub fn describe_topic(&self, name: &str) -> Result<Option<TopicInfo>, KafkaError> {
        self.queue.ask_topic(name, ANSWER_WAIT_MAX);
        let facts = match self.wait().and_then(|event| event.topic()) {
            Ok(facts) => facts,
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
            Err(fault) => return Err(self.error(&format!("cannot describe the topic {name}"), &fault)),
        };
        let configs = self.settings(SettingsOf::Topic, name)?;
        Ok(Some(TopicInfo { partitions: facts.partitions, topic_id: facts.id, configs }))
    }

    /// Makes a topic, and waits until it can be described. Without a `replication` the brokers' default counts. That it
    /// exists already is no error, whoever made it: compare with [`describe_topic`](Self::describe_topic).
    pub fn create_topic(
        &self,
        name: &str,
        partitions: usize,
        replication: Option<usize>,
        configs: &BTreeMap<String, String>,
    ) -> Result<(), KafkaError> {
        let what = format!("cannot make the topic {name} with {partitions} partitions");
        self.queue
            .ask_to_create(name, partitions, replication, configs, ANSWER_WAIT_MAX)
            .map_err(|reason| KafkaError { kind: KafkaErrorKind::Config, message: format!("{what}: {reason}") })?;
        match self.wait().and_then(|event| event.created()) {
            Ok(()) => self.await_topic(name),
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) => self.await_topic(name),
            Err(fault) => {
                let error = self.error(&what, &fault);
                let kind = if error.kind == KafkaErrorKind::Retry && !is_passing(fault.code) {
                    KafkaErrorKind::Config
                } else {
                    error.kind
                };
                Err(KafkaError { kind, ..error })
            }
        }
    }

    /// The members of a group by what they own now: their client ids.
    pub fn owners(&self, group: &str) -> Result<BTreeMap<TopicPartition, String>, KafkaError> {
        self.queue.ask_members(group, OWNERS_WAIT_MAX, 0);
        let members = self.answer(&format!("cannot describe the group {group}"), Event::owners)?;
        let of_member = |(client_id, owned): (String, Vec<PartitionEntry>)| {
            owned.into_iter().map(move |entry| (entry.partition, client_id.clone()))
        };
        Ok(members.into_iter().flat_map(of_member).collect())
    }

    /// The settings of a broker.
    pub fn broker_config(&self, broker_id: i32) -> Result<BTreeMap<String, String>, KafkaError> {
        self.settings(SettingsOf::Broker, &broker_id.to_string())
    }

    /// Every broker learns of a new topic a moment after the controller made it.
    fn await_topic(&self, name: &str) -> Result<(), KafkaError> {
        let deadline = Instant::now() + CREATED_WAIT_MAX;
        while Instant::now() < deadline {
            if self.describe_topic(name).is_ok_and(|topic| topic.is_some()) {
                return Ok(());
            }
            std::thread::sleep(CREATED_POLL);
        }
        let message = format!("the topic {name} was made and does not show; look at the brokers' logs");
        Err(KafkaError { kind: KafkaErrorKind::Retry, message })
    }

    fn settings(&self, kind: SettingsOf, name: &str) -> Result<BTreeMap<String, String>, KafkaError> {
        self.queue.ask_settings(kind, name, ANSWER_WAIT_MAX);
        self.answer(&format!("cannot read the settings of {name}"), Event::settings)
    }

    fn answer<T>(&self, what: &str, read: impl FnOnce(&Event) -> Result<T, Fault>) -> Result<T, KafkaError> {
        self.wait().and_then(|event| read(&event)).map_err(|fault| self.error(what, &fault))
    }

    /// The answer to the one question that is open.
    fn wait(&self) -> Result<Event, Fault> {
        let late = Code::of(E::RD_KAFKA_RESP_ERR__TIMED_OUT);
        // librdkafka ends every question by itself; the second is for its own work.
        let wait = ANSWER_WAIT_MAX + Duration::from_secs(1);
        self.queue.poll(wait).ok_or_else(|| Fault::bare(late, "no answer"))
    }

    fn error(&self, what: &str, fault: &Fault) -> KafkaError {
        KafkaError::from_fault(&format!("{what} at {}", self.bootstrap_servers), fault)
    }
}

/// Whether making a topic may succeed the next time without anybody's help.
fn is_passing(code: Code) -> bool {
    [
        Code::of(E::RD_KAFKA_RESP_ERR__TIMED_OUT),
        Code::of(E::RD_KAFKA_RESP_ERR__TRANSPORT),
        Code::of(E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT),
        Code::of(E::RD_KAFKA_RESP_ERR_NOT_CONTROLLER),
        Code::of(E::RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE),
    ]
    .contains(&code)
}
