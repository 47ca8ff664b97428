//! Questions and changes at start-up, and who owns what. These calls wait for their answers; nothing of the running loop
//! uses them.

mod logs;
mod removal;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use processor_core::ids::TopicPartition;
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::advice::{about, about_trouble, is_final};
use super::cluster::{Cluster, ClusterSettings};
use super::ffi::{Client, Code, Event, EventQueue, Fault, PartitionEntry, SettingsOf, TopicFacts};
use super::properties::Role;
use super::{KafkaError, KafkaErrorKind};

/// How long the cluster may take over one question.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);
/// How long a topic may take until all brokers know that it was made or deleted.
const CHANGED_WAIT_MAX: Duration = Duration::from_secs(15);
/// How often it is looked for.
const CHANGED_POLL: Duration = Duration::from_millis(50);
/// How often a question that waits looks at what keeps its client from the brokers.
const TROUBLE_POLL: Duration = Duration::from_millis(50);
/// How long it may take over who owns what: somebody waits for an answer to another question.
const OWNERS_WAIT_MAX: Duration = Duration::from_secs(1);

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

/// How a topic is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions it has.
    pub partitions: usize,
    /// The replicas of the partition that has fewest.
    pub replicas_min: usize,
    /// The id that changes when a topic is deleted and made again.
    pub topic_id: String,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub id: i32,
    /// Its settings; `None` where it does not show them.
    pub configs: Option<BTreeMap<String, String>>,
}

/// A connection for start-up. One whose question was not answered is not to be asked again: the answer may still come, and
/// would be taken for that to the next question.
pub struct Admin {
    queue: EventQueue,
    client: Arc<Client>,
    bootstrap_servers: String,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admin").field(&self.bootstrap_servers).finish()
    }
}

/// Looks again until a broker knows what was made, or for as long as changes may take to spread.
fn once_known<T>(look: impl Fn() -> Result<Option<T>, KafkaError>) -> Result<Option<T>, KafkaError> {
    let deadline = Instant::now() + CHANGED_WAIT_MAX;
    loop {
        match look()? {
            None if Instant::now() < deadline => std::thread::sleep(CHANGED_POLL),
            found => return Ok(found),
        }
    }
}

impl Admin {
    /// Makes the client; the first question connects.
    ///
    /// # Errors
    /// Kind `Config`, as from [`Cluster::new`].
    pub fn connect(settings: &ClusterSettings) -> Result<Self, KafkaError> {
        let client = Cluster::new(settings.clone())?.client(Role::Admin)?;
        let queue = EventQueue::new(&client);
        Ok(Self { queue, client, bootstrap_servers: settings.bootstrap_servers.clone() })
    }

    /// The cluster's id: state on disk belongs to one cluster.
    pub fn cluster_id(&self) -> Result<String, KafkaError> {
        self.answer("cannot read the cluster's id", EventQueue::ask_cluster, Event::cluster_id)
    }

    /// The ids of the brokers.
    pub fn broker_ids(&self) -> Result<Vec<i32>, KafkaError> {
        self.answer("cannot list the brokers", EventQueue::ask_cluster, Event::broker_ids)
    }

    /// The brokers and what they show of themselves.
    pub fn brokers(&self) -> Result<Vec<BrokerInfo>, KafkaError> {
        let shown = |id| match self.broker_config(id) {
            Ok(configs) => BrokerInfo { id, configs: Some(configs) },
            Err(error) => {
                tracing::debug!("broker {id} does not show its settings: {error}");
                BrokerInfo { id, configs: None }
            }
        };
        Ok(self.broker_ids()?.into_iter().map(shown).collect())
    }

    /// What a topic is; `None` where there is none of that name.
    pub fn describe_topic(&self, name: &str) -> Result<Option<TopicInfo>, KafkaError> {
        let Some(TopicShape { partitions, topic_id, .. }) = self.topic_shape(name)? else { return Ok(None) };
        // Another worker may have made it a moment ago, and the broker that is asked now has not heard of it.
        let configs = once_known(|| {
            let answered = self.ask(
                ANSWER_WAIT_MAX,
                |queue, wait| queue.ask_settings(SettingsOf::Topic, name, wait),
                Event::settings,
            );
            self.if_known(&format!("cannot read the settings of {name}"), answered)
        });
        Ok(configs?.map(|configs| TopicInfo { partitions, topic_id, configs }))
    }

    /// How a topic is laid out, which needs no right to its settings; `None` where there is none of that name.
    pub fn topic_shape(&self, name: &str) -> Result<Option<TopicShape>, KafkaError> {
        let answered = self.ask(ANSWER_WAIT_MAX, |queue, wait| queue.ask_topic(name, wait), Event::topic);
        let facts = self.if_known(&format!("cannot describe the topic {name}"), answered)?;
        Ok(facts.map(|TopicFacts { partitions, replicas_min, id }| TopicShape {
            partitions,
            replicas_min,
            topic_id: id,
        }))
    }

    /// How a topic is laid out that was made a moment ago, whoever made it: brokers that have not heard of it are asked again.
    pub fn made_topic_shape(&self, name: &str) -> Result<Option<TopicShape>, KafkaError> {
        once_known(|| self.topic_shape(name))
    }

    /// What a topic is that was made a moment ago; the same.
    pub fn describe_made_topic(&self, name: &str) -> Result<Option<TopicInfo>, KafkaError> {
        once_known(|| self.describe_topic(name))
    }

    /// The settings of a topic, also those with default values.
    pub fn topic_configs(&self, name: &str) -> Result<BTreeMap<String, String>, KafkaError> {
        self.settings(SettingsOf::Topic, name)
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
        match self.wait(ANSWER_WAIT_MAX).and_then(|event| event.created()) {
            Ok(()) => self.await_topic(name, true),
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) => {
                self.await_topic(name, true)
            }
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
        let members = self.ask(OWNERS_WAIT_MAX, |queue, _| queue.ask_members(group, 0), Event::owners);
        let members = members.map_err(|fault| self.error(&format!("cannot describe the group {group}"), &fault))?;
        let of_member = |(client_id, owned): (String, Vec<PartitionEntry>)| {
            owned.into_iter().map(move |entry| (entry.partition, client_id.clone()))
        };
        Ok(members.into_iter().flat_map(of_member).collect())
    }

    /// The settings of a broker.
    pub fn broker_config(&self, broker_id: i32) -> Result<BTreeMap<String, String>, KafkaError> {
        self.settings(SettingsOf::Broker, &broker_id.to_string())
    }

    /// Waits until a topic that was made shows, or one that was deleted does not: every broker learns of it a moment after
    /// the controller.
    fn await_topic(&self, name: &str, is_there: bool) -> Result<(), KafkaError> {
        let deadline = Instant::now() + CHANGED_WAIT_MAX;
        while Instant::now() < deadline {
            if self.describe_topic(name).is_ok_and(|topic| topic.is_some() == is_there) {
                return Ok(());
            }
            std::thread::sleep(CHANGED_POLL);
        }
        let what = if is_there { "made and does not show" } else { "deleted and still shows" };
        let message = format!("the topic {name} was {what}; look at the brokers' logs");
        Err(KafkaError { kind: KafkaErrorKind::Retry, message })
    }

    fn settings(&self, kind: SettingsOf, name: &str) -> Result<BTreeMap<String, String>, KafkaError> {
        let ask = |queue: &EventQueue, wait| queue.ask_settings(kind, name, wait);
        self.answer(&format!("cannot read the settings of {name}"), ask, Event::settings)
    }

    fn answer<T>(
        &self,
        what: &str,
        ask: impl Fn(&EventQueue, Duration),
        read: impl Fn(&Event) -> Result<T, Fault>,
    ) -> Result<T, KafkaError> {
        self.ask(ANSWER_WAIT_MAX, ask, read).map_err(|fault| self.error(what, &fault))
    }

    /// The answer to a question that does no harm when it is asked twice: it is asked again where its connection was
    /// lost, which librdkafka does for none of them. It is told how long it may take.
    fn ask<T>(
        &self,
        wait: Duration,
        ask: impl Fn(&EventQueue, Duration),
        read: impl Fn(&Event) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ask(&self.queue, left);
            match self.wait(left).and_then(|event| read(&event)) {
                Err(fault) if ASKED_AGAIN.contains(&fault.code) && Instant::now() < deadline => {
                    std::thread::sleep(CHANGED_POLL);
                }
                outcome => return outcome,
            }
        }
    }

    /// `None` where the broker knows no such topic.
    fn if_known<T>(&self, what: &str, answered: Result<T, Fault>) -> Result<Option<T>, KafkaError> {
        match answered {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
            Err(fault) => Err(self.error(what, &fault)),
        }
    }

    /// The answer to the one question that is open. What keeps the client from its brokers for good ends the wait.
    fn wait(&self, wait: Duration) -> Result<Event, Fault> {
        // librdkafka ends every question by itself, but for those to coordinators; the second is for its own work.
        let deadline = Instant::now() + wait + Duration::from_secs(1);
        let mut trouble = None;
        loop {
            if let Some(event) = self.queue.poll(TROUBLE_POLL) {
                let is_late = event.check().is_err_and(|fault| LATE.contains(&fault.code));
                return trouble.filter(|_| is_late).map_or(Ok(event), Err);
            }
            self.client.serve_deliveries(Duration::ZERO); // and errors, which alone a client without records has
            trouble = self.client.callbacks().take_trouble().or(trouble);
            match &trouble {
                Some(trouble) if is_final(trouble.code) => return Err(trouble.clone()),
                _ if Instant::now() < deadline => {}
                _ => return Err(trouble.unwrap_or_else(|| Fault::bare(LATE[0], "no answer"))),
            }
        }
    }

    fn error(&self, what: &str, fault: &Fault) -> KafkaError {
        let error = KafkaError::from_fault(&format!("{what} at {}", self.bootstrap_servers), fault);
        let is_told = about(fault.code).is_some();
        let message = if is_told || !UNREACHABLE.contains(&fault.code) {
            error.message
        } else {
            format!("{}: {}", error.message, about_trouble(fault))
        };
        KafkaError { message, ..error }
    }
}

/// What a question ends with that no broker has answered.
const LATE: [Code; 2] = [Code::of(E::RD_KAFKA_RESP_ERR__TIMED_OUT), CONNECTION_LOST];
const CONNECTION_LOST: Code = Code::of(E::RD_KAFKA_RESP_ERR__TRANSPORT);
/// Behind what a question is asked again. "All brokers are down" may be the newest that is known of a lost connection.
const ASKED_AGAIN: [Code; 2] = [CONNECTION_LOST, Code::of(E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)];
/// What is said of brokers that were not reached.
const UNREACHABLE: [Code; 3] = [LATE[0], LATE[1], Code::of(E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)];

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
