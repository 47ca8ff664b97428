//! The settings of an application, and who its threads are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use processor_core::protocol::batch::BatchBounds;
use processor_core::protocol::client_id::ClientId;
pub use processor_core::protocol::client_id::HttpAddress;
use processor_core::protocol::metadata::{METADATA_BYTES_MAX, OffsetMetadata};
pub use processor_core::protocol::restore::StartRule;
use processor_core::topology::{ApplicationTopology, Topology};

pub use crate::kafka::client_properties::{ClientProperties, PropertyValue};
use crate::kafka::cluster::ClusterSettings;
pub use crate::kafka::cluster::GroupProtocol;
use crate::kafka::{Member, TransactionalId};
use crate::settings::table;

/// What stands between the parts of a transactional id. No part can hold it.
const SEPARATOR: char = ':';
/// Kafka's default of `group.consumer.session.timeout.ms`.
const BROKER_SESSION: Duration = Duration::from_secs(45);
/// The longest application or instance id.
const ID_BYTES_MAX: usize = 200;

/// The settings of an application.
///
/// A program that calls [`main`](crate::main) need not know them: [`settings`](crate::settings) fills them from the
/// command line, the environment and a file, and lists their bounds.
///
/// ```
/// use std::time::Duration;
///
/// use processor_core::prelude::*;
/// use processor_runtime::config::{Config, GroupProtocol, LogFormat, StartRule};
///
/// let mut config = Config::new("copier", "kafka-1:9093,kafka-2:9093", "/var/lib/copier");
/// config.instance_id = Some("worker-1".to_owned()); // the same after a restart
/// config.threads = 2;
/// config.auto_offset_reset = StartRule::Latest;
/// config.group_protocol = GroupProtocol::Consumer;
/// config.batch_time_max = Duration::from_millis(50);
/// config.http_listen = Some("127.0.0.1:8080".parse()?);
/// config.log_format = LogFormat::Json;
/// config.kafka.insert("security.protocol", "ssl");
/// config.kafka.insert("producer.linger.ms", "20");
///
/// let mut topology = Topology::builder();
/// topology.source("in", "originals", (Raw, Raw)).sink("out", "copies", (Raw, Raw));
/// let topology = topology.build()?;
/// assert_eq!(config.check(&topology), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The application's id: its consumer group, and the prefix of its topics, transactional ids and directories.
    pub application_id: String,
    /// `host:port` of some brokers, with commas between.
    pub bootstrap_servers: String,
    /// Where state is kept; the application's own directory is made below it.
    pub state_dir: PathBuf,
    /// The worker's name, the same after a restart: with it each thread is a static member of the group, and a restart
    /// within the session time-out moves no partition. Without it a name is made once and kept in the state directory.
    pub instance_id: Option<String>,
    /// Whether a worker that has an instance id leaves the group when it stops, because it is not expected back. One
    /// without leaves in any case.
    pub leave: bool,
    /// How many stream threads this process runs.
    pub threads: usize,
    /// Where an input begins that has no committed offset.
    pub auto_offset_reset: StartRule,
    /// librdkafka properties that pass through; those that the guarantee needs are refused.
    pub kafka: ClientProperties,
    /// `group.protocol`: how the group shares out partitions.
    pub group_protocol: GroupProtocol,
    /// `session.timeout.ms`: how long the group waits for a silent member before it moves its partitions.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`: at most a third of the session time-out.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// `max.task.idle`: how long a task with several inputs holds records back while another input is empty and its log is
    /// known to have more; zero for not at all.
    pub max_task_idle: Duration,
    /// `transaction.timeout.ms`: how long the broker lets a transaction stay open whose producer is silent.
    pub transaction_timeout: Duration,
    /// How many partitions' replicas a changelog topic gets when it is made; `None`: the brokers' default.
    pub replication_factor: Option<usize>,
    /// `repartition.purge.interval`: how often records of internal topics are deleted that were processed; zero for never.
    pub repartition_purge_interval: Duration,
    /// Whether a cluster that can lose acknowledged records is refused at start, not only warned of.
    pub strict: bool,
    /// Memory of all state databases together: block cache, write buffers and commits that wait to be written.
    pub memory_budget_bytes: usize,
    /// Memory of all decoded, clean values together.
    pub cache_bytes: usize,
    /// The most records in one transaction.
    pub batch_records_max: usize,
    /// The most bytes of keys and values in one transaction.
    pub batch_bytes_max: usize,
    /// How long a turn may take under load before batches shrink.
    pub batch_time_max: Duration,
    /// The form of log lines, where the command line writes them.
    pub log_format: LogFormat,
    /// `http.listen`: where the worker shows health, metrics, tasks and state; port 0 is any free one, which the log names.
    /// `None`: nowhere, and nothing is measured. Off by default: whoever can reach the address can read the state.
    pub http_listen: Option<SocketAddr>,
    /// `http.advertised`: by which name others reach it; port 0: the one that it listens on. `None`: see
    /// [`advertised`](Self::advertised).
    pub http_advertised: Option<HttpAddress>,
    /// `http.token.file`: what requests must carry to see tasks and state. An address other than loopback needs it.
    pub http_token_file: Option<PathBuf>,
}

/// The form of log lines.
///
/// ```
/// use processor_runtime::config::{Config, LogFormat};
///
/// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
/// assert_eq!(config.log_format, LogFormat::Text);
/// config.log_format = LogFormat::Json; // or `log.format = "json"` in the settings file
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The defaults.
    ///
    /// ```
    /// use std::time::Duration;
    /// use processor_runtime::config::Config;
    ///
    /// let config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// assert_eq!((config.threads, config.session_timeout), (1, Duration::from_secs(6)));
    /// assert!(config.instance_id.is_none() && config.http_listen.is_none());
    /// ```
    pub fn new(
        application_id: impl Into<String>,
        bootstrap_servers: impl Into<String>,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        let cluster = ClusterSettings::new(bootstrap_servers, application_id);
        Self {
            application_id: cluster.application_id,
            bootstrap_servers: cluster.bootstrap_servers,
            state_dir: state_dir.into(),
            instance_id: None,
            leave: false,
            threads: 1,
            auto_offset_reset: StartRule::Earliest,
            kafka: cluster.properties,
            group_protocol: cluster.group_protocol,
            session_timeout: cluster.session_timeout,
            heartbeat_interval: cluster.heartbeat_interval,
            max_poll_interval: cluster.max_poll_interval,
            max_task_idle: Duration::from_millis(100),
            transaction_timeout: cluster.transaction_timeout,
            replication_factor: None,
            repartition_purge_interval: Duration::from_secs(30),
            strict: false,
            memory_budget_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            batch_records_max: 400_000,
            batch_bytes_max: 16 << 20,
            batch_time_max: Duration::from_millis(150),
            log_format: LogFormat::Text,
            http_listen: None,
            http_advertised: None,
            http_token_file: None,
        }
    }

    /// Checks what does not need the cluster.
    ///
    /// [`app::run`](crate::app::run) does it first. The properties in `kafka` are checked behind it, when the clients
    /// are set up, still before anything is connected to.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use processor_runtime::config::Config;
    ///
    /// # let mut topology = Topology::builder();
    /// # topology.source("in", "originals", (Raw, Raw)).sink("out", "copies", (Raw, Raw));
    /// # let topology = topology.build()?;
    /// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// config.threads = 65;
    /// let refused = config.check(&topology).unwrap_err();
    /// assert_eq!(refused.to_string(), "threads = 65: it must lie between 1 and 64");
    /// # Ok::<(), TopologyError>(())
    /// ```
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self, topology: &Topology) -> Result<(), ConfigError> {
        if let Some((_, problem)) = table::out_of_bounds(self).next() {
            return Err(ConfigError(problem));
        }
        self.check_relations()?;
        self.check_metadata(topology)
    }

    /// What settings demand of each other, and of the form of ids.
    pub(crate) fn check_relations(&self) -> Result<(), ConfigError> {
        check_id("application.id", &self.application_id)?;
        if let Some(instance_id) = &self.instance_id {
            check_id("instance.id", instance_id)?;
        }
        if self.bootstrap_servers.is_empty() {
            return Err(ConfigError("bootstrap.servers is empty: name at least one broker as host:port".to_owned()));
        }
        if self.transaction_timeout < self.batch_time_max * 4 {
            return Err(ConfigError(format!(
                "transaction.timeout {:?} is under four times batch.time.max {:?}: a slow batch would be aborted; change one of the two",
                self.transaction_timeout, self.batch_time_max
            )));
        }
        if self.strict && self.replication_factor.is_some_and(|factor| factor < 3) {
            return Err(ConfigError(
                "strict is true and replication.factor under 3: the changelogs could lose committed state; raise it or leave it to the brokers"
                    .to_owned(),
            ));
        }
        self.check_http()
    }

    fn check_http(&self) -> Result<(), ConfigError> {
        if let (None, Some(advertised)) = (self.http_listen, &self.http_advertised) {
            return Err(ConfigError(format!(
                "http.advertised={advertised} is set and http.listen is not: name an address to listen on, such as 0.0.0.0:8080"
            )));
        }
        match (self.http_listen, &self.http_token_file) {
            (Some(address), None) if !address.ip().is_loopback() => Err(ConfigError(format!(
                "http.listen={address} can be reached from other machines, and so could the state: set http.token.file to a file with a secret \
                 (openssl rand -hex 32), or listen on 127.0.0.1"
            ))),
            (None, Some(_)) => Err(ConfigError(
                "http.token.file is set and http.listen is not: name an address, such as 127.0.0.1:8080".to_owned(),
            )),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Offset metadata must fit what brokers take, whatever the numbers in it.
    fn check_metadata(&self, topology: &Topology) -> Result<(), ConfigError> {
        let longest_instance = self.instance_id.clone().unwrap_or_else(|| "x".repeat(32));
        let id = transactional_id(&self.application_id, &longest_instance, self.threads);
        for subtopology in topology.subtopologies() {
            let with_changelog = subtopology.store_specs.iter().filter(|store| store.changelog.is_some());
            let names: Vec<_> = with_changelog.map(|store| store.name.clone()).collect();
            let bytes = OffsetMetadata::bytes_max(&id.0, &names);
            if bytes > METADATA_BYTES_MAX {
                return Err(ConfigError(format!(
                    "the metadata of committed offsets could take {bytes} bytes, and only {METADATA_BYTES_MAX} are sure to be taken by brokers: \
                     shorten the application id, the instance id or the store names of sub-topology '{}'",
                    subtopology.name
                )));
            }
        }
        Ok(())
    }

    /// What others are told to ask, of a worker that listens on `listening`. An address that others have elsewhere, or that
    /// is none at all, is told nobody: a loopback address only if it was configured.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use processor_runtime::config::Config;
    ///
    /// let everywhere = SocketAddr::from(([0, 0, 0, 0], 8080));
    /// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// assert_eq!(config.advertised(everywhere), None);
    /// config.http_advertised = Some("worker-1:0".parse()?);
    /// let told = config.advertised(everywhere).map(|address| address.to_string());
    /// assert_eq!(told.as_deref(), Some("worker-1:8080"));
    /// # Ok::<(), String>(())
    /// ```
    pub fn advertised(&self, listening: SocketAddr) -> Option<HttpAddress> {
        match &self.http_advertised {
            Some(address) if address.port() == 0 => Some(address.clone().with_port(listening.port())),
            Some(address) => Some(address.clone()),
            None if listening.ip().is_loopback() || listening.ip().is_unspecified() => None,
            None => Some(HttpAddress::from(listening)),
        }
    }

    /// The part that the clients need.
    ///
    /// ```
    /// use processor_runtime::config::Config;
    ///
    /// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// config.kafka.insert("security.protocol", "ssl");
    /// let settings = config.cluster_settings();
    /// assert_eq!((&*settings.application_id, settings.session_timeout), ("copier", config.session_timeout));
    /// assert_eq!(settings.properties, config.kafka);
    /// ```
    #[doc(hidden)]
    pub fn cluster_settings(&self) -> ClusterSettings {
        let mut settings = ClusterSettings::new(self.bootstrap_servers.clone(), self.application_id.clone());
        settings.properties.clone_from(&self.kafka);
        settings.group_protocol = self.group_protocol;
        settings.session_timeout = self.session_timeout;
        settings.heartbeat_interval = self.heartbeat_interval;
        settings.max_poll_interval = self.max_poll_interval;
        settings.transaction_timeout = self.transaction_timeout;
        settings.measures = self.http_listen.is_some();
        settings
    }

    /// How long the group waits for a silent member, as far as it is known: under the consumer protocol it is the brokers'
    /// setting, of which this is the default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use processor_runtime::config::{Config, GroupProtocol};
    ///
    /// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// assert_eq!(config.expected_session(), Duration::from_secs(6));
    /// config.group_protocol = GroupProtocol::Consumer;
    /// assert_eq!(config.expected_session(), Duration::from_secs(45));
    /// ```
    pub fn expected_session(&self) -> Duration {
        match self.group_protocol {
            GroupProtocol::Classic => self.session_timeout,
            GroupProtocol::Consumer => BROKER_SESSION,
        }
    }

    /// The bounds of a transaction.
    ///
    /// ```
    /// use processor_runtime::config::Config;
    ///
    /// let mut config = Config::new("copier", "localhost:9092", "/var/lib/copier");
    /// let bounds = config.batch_bounds();
    /// assert_eq!((bounds.records_start, bounds.records_max), (1_000, 400_000));
    /// config.batch_records_max = 10;
    /// assert_eq!(config.batch_bounds().records_start, 10);
    /// ```
    pub fn batch_bounds(&self) -> BatchBounds {
        BatchBounds {
            records_start: self.batch_records_max.min(1_000),
            records_max: self.batch_records_max,
            turn_max: self.batch_time_max,
        }
    }
}

/// A setting that cannot work: which, why, and what would be right. [`Config::check`] gives it.
///
/// ```
/// # use processor_core::prelude::*;
/// use processor_runtime::app::AppError;
/// use processor_runtime::config::Config;
///
/// # let mut topology = Topology::builder();
/// # topology.source("in", "originals", (Raw, Raw)).sink("out", "copies", (Raw, Raw));
/// # let topology = topology.build()?;
/// let refused = Config::new("copier", "", "/var/lib/copier").check(&topology).unwrap_err();
/// assert_eq!(refused.0, "bootstrap.servers is empty: name at least one broker as host:port");
/// assert!(matches!(AppError::from(refused), AppError::Start(_)));
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

fn check_id(name: &str, id: &str) -> Result<(), ConfigError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && id.len() <= ID_BYTES_MAX && id.chars().all(legal) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{name} '{id}' must begin with a letter or digit and may hold only letters, digits, '.', '_' and '-', at most {ID_BYTES_MAX}: it becomes \
         part of topic names, transactional ids and directories"
    )))
}

/// The transactional id of a thread's first producer, which stands for the thread: `<application id>:<instance id>:<thread>`.
///
/// ```
/// use processor_runtime::config::transactional_id;
///
/// assert_eq!(transactional_id("copier", "worker-1", 0).to_string(), "copier:worker-1:0");
/// ```
#[doc(hidden)]
pub fn transactional_id(application_id: &str, instance_id: &str, thread: usize) -> TransactionalId {
    TransactionalId(Arc::from(format!("{}{thread}", ids_of(application_id, instance_id))))
}

/// What the transactional ids of a worker's threads begin with, and no other worker's do.
pub(crate) fn ids_of(application_id: &str, instance_id: &str) -> String {
    format!("{application_id}{SEPARATOR}{instance_id}{SEPARATOR}")
}

/// The place of a thread in the group. Its client id names its transactional id, so that whoever finds the one knows
/// whether the other is alive, and where its worker can be asked. Kafka takes only the characters of a topic name in a
/// `group.instance.id`, so there the thread stands behind the last `-`.
///
/// ```
/// use processor_runtime::config::{member, transactional_id};
///
/// let id = transactional_id("copier", "worker-1", 0);
/// let member = member("worker-1", true, 0, &id, "worker-1.example:8080".parse().ok());
/// assert_eq!(member.client_id, "copier:worker-1:0@worker-1.example:8080");
/// assert_eq!(member.group_instance_id.as_deref(), Some("worker-1-0"));
/// ```
#[doc(hidden)]
pub fn member(
    instance_id: &str,
    is_configured: bool,
    thread: usize,
    id: &TransactionalId,
    http: Option<HttpAddress>,
) -> Member {
    Member {
        client_id: ClientId { transactional_id: id.to_string(), http }.to_string(),
        group_instance_id: is_configured.then(|| format!("{instance_id}-{thread}")),
    }
}

/// The name of a store's changelog topic.
///
/// ```
/// use processor_runtime::config::changelog_topic;
///
/// assert_eq!(&*changelog_topic("averages", "window"), "averages-window-changelog");
/// ```
pub fn changelog_topic(application_id: &str, store: &str) -> Arc<str> {
    Arc::from(format!("{application_id}-{store}-changelog"))
}

/// The changelog topics of all stores that have one.
pub(crate) fn changelog_topics<'a>(
    application_id: &'a str,
    topology: &'a ApplicationTopology,
) -> impl Iterator<Item = Arc<str>> + 'a {
    let stores = topology.subtopologies().iter().flat_map(|part| &part.store_specs);
    stores.filter(|store| store.changelog.is_some()).map(|store| changelog_topic(application_id, &store.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_be_taken_for_others_are_refused() {
        for id in ["", "a:b", "a/b", ".", "..", "-a", "ä", "a b", &"x".repeat(201)] {
            assert!(check_id("application.id", id).is_err(), "{id:?}");
        }
        for id in ["a", "orders-1.eu_west", "0"] {
            assert_eq!(check_id("application.id", id), Ok(()), "{id:?}");
        }
    }

    #[test]
    fn state_is_shown_to_other_machines_with_a_token_only() {
        let check = |address: &str, token: Option<&str>| {
            let mut config = Config::new("app", "host:9092", "/tmp/state");
            config.http_listen = (!address.is_empty()).then(|| address.parse().expect("an address"));
            config.http_token_file = token.map(PathBuf::from);
            config.check_http().map_err(|error| error.0)
        };
        for address in ["127.0.0.1:0", "[::1]:8080", ""] {
            assert_eq!(check(address, None), Ok(()));
        }
        for address in ["0.0.0.0:80", "10.1.1.1:80", "[::]:80"] {
            assert!(check(address, None).expect_err("anybody could read").contains("http.token.file"), "{address}");
            assert_eq!(check(address, Some("token")), Ok(()));
        }
        assert!(check("", Some("token")).expect_err("it guards nothing").contains("http.listen"));
    }

    #[test]
    fn others_are_told_an_address_that_leads_here_from_where_they_are() {
        let told = |listening: &str, configured: Option<&str>| {
            let mut config = Config::new("app", "host:9092", "/tmp/state");
            config.http_listen = Some(listening.parse().expect("an address"));
            config.http_advertised = configured.map(|text| text.parse().expect("host:port"));
            assert_eq!(config.check_http().is_ok(), listening.starts_with("127."), "the others need a token");
            config.advertised(listening.parse().expect("an address")).map(|address| address.to_string())
        };
        assert_eq!(told("127.0.0.1:8080", None), None);
        assert_eq!(told("0.0.0.0:8080", None), None);
        assert_eq!(told("[::]:8080", None), None);
        assert_eq!(told("10.0.0.7:8080", None).as_deref(), Some("10.0.0.7:8080"));
        assert_eq!(told("127.0.0.1:8080", Some("127.0.0.1:0")).as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(told("0.0.0.0:8080", Some("worker-1:80")).as_deref(), Some("worker-1:80"));
        let mut config = Config::new("app", "host:9092", "/tmp/state");
        config.http_advertised = "worker-1:80".parse().ok();
        assert!(config.check_http().expect_err("nobody listens").0.contains("http.listen"));
    }

    #[test]
    fn a_client_id_names_the_transactional_id_and_the_address() {
        let (id, http) = (transactional_id("app", "one", 0), "worker-1:80".parse().ok());
        assert_eq!(member("one", true, 0, &id, None).client_id, "app:one:0");
        assert_eq!(member("one", true, 0, &id, http).client_id, "app:one:0@worker-1:80");
    }

    #[test]
    fn different_threads_have_different_ids() {
        let of = |app: &str, instance: &str, thread| transactional_id(app, instance, thread);
        let ids = [of("a", "b", 0), of("a", "b", 1), of("a-b", "c", 0), of("a", "b-c", 0), of("a", "b-1", 0)];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        let static_ids = [("pod", 1), ("pod-1", 0), ("pod-1", 1), ("pod", 10)];
        let members =
            static_ids.map(|(instance, thread)| member(instance, true, thread, &ids[0], None).group_instance_id);
        let distinct: std::collections::BTreeSet<_> = members.iter().collect();
        assert_eq!(distinct.len(), members.len());
    }
}
