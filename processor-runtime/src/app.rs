//! An application: start-up checks, its stream threads, and a clean end.
//!
//! Order at start: settings → state directory → the cluster → topics → the producers of every thread, all initialised, so that whatever
//! this worker left open in an earlier life is ended → only then the threads join the group.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use processor_core::ids::{Partition, TaskId};
use processor_core::protocol::client_id::HttpAddress;
use processor_core::protocol::slow::SlowLimits;
use processor_core::store::StoreSpec;
use processor_core::topology::{ApplicationTopology, Topology};

use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, ids_of, member, transactional_id};
use crate::kafka::admin::Admin;
use crate::kafka::cluster::{Cluster, GroupProtocol};
use crate::kafka::owners::Owners;
use crate::kafka::{Kafka, PRODUCERS, TransactionalId, TxnError, TxnErrorKind};
use crate::metrics::Metrics;
use crate::preflight;
use crate::purge::Purger;
use crate::query::{Advertised, Figures, Server, Shown, Token};
use crate::service_manager::{Heartbeat, heartbeats};
use crate::state::{RocksDirectory, StateSettings};
use crate::status::{Snapshot, ThreadState, ThreadStatus, Watcher, WorkerStatus};
use crate::stream_thread::{Instruments, StreamThread, ThreadError, ThreadPlan, producer_topics};
use crate::topics::{self, CheckedTopics};
use crate::transaction::{self, Clean, Initialised, Initialising};

/// How long one call that initialises a producer may take before the stop flag is looked at.
const INIT_SLICE: Duration = Duration::from_millis(500);
/// How long a member that was told it is out of date waits for a callback where the broker assigns. Its epoch rises without
/// one when it keeps all that it has, and a commit under way just then is refused: nothing follows.
const EPOCH_WAIT: Duration = Duration::from_secs(2);
/// How long brokers may be away before a member that lost its place looks as if it hung.
const BROKER_PAUSE: Duration = Duration::from_secs(10);
/// A turn that takes longer than a transaction may stay open, thrice, hangs; but not before this.
const TURN_MAX_LEAST: Duration = Duration::from_secs(30);
/// See [`ThreadPlan::poll_records_max`].
const POLL_RECORDS_MAX: usize = 10_000;
/// The least that each store of a task may cache.
const CACHE_BYTES_MIN: usize = 64 << 10;

/// Why an application has stopped.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_runtime::app::{AppError, run};
/// use processor_runtime::config::Config;
///
/// let mut topology = Topology::builder();
/// topology.source("in", "originals", (Raw, Raw)).sink("out", "copies", (Raw, Raw));
/// let topology = topology.build()?;
/// let config = Config::new("an id with spaces", "localhost:9092", "/var/lib/copier");
/// match run(&config, &topology, &std::sync::Arc::default()) {
///     Err(AppError::Start(why)) => assert!(why.contains("application.id 'an id with spaces'"), "{why}"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppError {
    /// A setting, a topic or the state directory does not fit: nothing was processed.
    #[error("{0}")]
    Start(String),
    /// A stream thread could not go on; what it had committed is safe.
    #[error("{0}")]
    Thread(String),
}

impl From<ConfigError> for AppError {
    fn from(error: ConfigError) -> Self {
        Self::Start(error.0)
    }
}

/// Runs a topology until `stop` is set or a thread cannot go on. Blocks; call it from a thread of its own where signals
/// are to be heard meanwhile.
///
/// [`main`](crate::main) does this, and more: it reads the settings, hears SIGTERM and SIGINT, and writes the log.
/// Whoever calls `run` sets up a `tracing` subscriber to see it.
///
/// ```no_run
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use processor_core::prelude::*;
/// use processor_runtime::app;
/// use processor_runtime::config::Config;
///
/// let mut topology = Topology::builder();
/// topology.source("in", "originals", (Raw, Raw)).sink("out", "copies", (Raw, Raw));
/// let topology = topology.build()?;
/// let config = Config::new("copier", "localhost:9092", "/var/lib/copier");
///
/// let stop = Arc::new(AtomicBool::new(false));
/// let worker = std::thread::spawn({
///     let stop = stop.clone();
///     move || app::run(&config, &topology, &stop)
/// });
/// // … what the program does beside, and when it is to end:
/// stop.store(true, Ordering::Relaxed);
/// worker.join().expect("the worker does not panic")?; // the batch in hand is committed
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`AppError`].
pub fn run(config: &Config, topology: &Topology, stop: &Arc<AtomicBool>) -> Result<(), AppError> {
    config.check(topology)?;
    let topology = topology.for_application(&config.application_id);
    let topology = &topology.map_err(|error| AppError::Start(error.to_string()))?;
    let cluster = Cluster::new(config.cluster_settings()).map_err(|error| AppError::Start(error.message))?;
    let settings = StateSettings { memory_budget_bytes: config.memory_budget_bytes, ..StateSettings::default() };
    let directory = RocksDirectory::open(&config.state_dir, &config.application_id, settings);
    let directory = Arc::new(directory.map_err(|error| AppError::Start(error.message))?);
    let clock = SystemClock::default();
    let turn_max = (config.transaction_timeout * 3).max(TURN_MAX_LEAST);
    let status = Arc::new(WorkerStatus::new(config.threads, clock, turn_max));
    let metrics = if config.http_listen.is_some() { Metrics::on() } else { Metrics::off() };
    // Before anything that waits for brokers, so that probes are answered meanwhile.
    let advertised =
        config.instance_id.as_ref().map(|id| Arc::new(Advertised::new(ids_of(&config.application_id, id))));
    let show =
        |address| serve(config, address, shown(config, topology, &status, &metrics, &directory, advertised.clone()));
    let server = config.http_listen.map(show).transpose()?;
    let http = server.as_ref().and_then(|server| config.advertised(server.address()));
    if let (Some(advertised), Some(http)) = (&advertised, &http) {
        advertised.set(http.clone());
    }
    let admin = Admin::connect(&config.cluster_settings()).map_err(|error| AppError::Start(error.message))?;
    let brokers = admin.brokers().map_err(|error| AppError::Start(error.message))?;
    preflight::check(config, topology, &brokers, &admin)?;
    let topics = topics::check(config, topology, brokers, &admin)?;
    if metrics.is_on() {
        status.know_retention(retention(topology, &admin));
    }
    drop(admin);
    status.know_tasks(tasks_of(topology, &topics));
    let instance_id = match &config.instance_id {
        Some(id) => id.clone(),
        None => directory.instance_id().map_err(|error| AppError::Start(error.message))?,
    };
    log_start(config, topology, &topics, &instance_id, http.as_ref());
    let cluster = Arc::new(cluster);
    let plans: Vec<_> =
        (0..config.threads).map(|thread| plan(config, topology, &topics, &instance_id, thread, http.clone())).collect();
    let Some(producers) = initialised(&cluster, &plans, stop)? else { return Ok(()) };
    let _purger = purger(config, topology, &status)?;
    let heartbeats = heartbeats(plans.len(), clock);
    let (alive, all_ended) = mpsc::channel();
    let shows = status.threads().iter().zip(heartbeats).map(|(status, heartbeat)| Shows {
        metrics: metrics.clone(),
        status: status.clone(),
        heartbeat,
        clock,
        alive: alive.clone(),
    });
    let threads = plans.into_iter().zip(producers).zip(shows).map(|((plan, producers), shows)| {
        spawn(plan, cluster.clone(), directory.clone(), producers, stop.clone(), shows)
    });
    let threads: Result<Vec<_>, AppError> = threads.collect();
    drop(alive);
    if threads.is_ok() {
        watch(&mut watcher(config, &status, &metrics, clock), &all_ended);
    }
    let outcome = threads.and_then(|threads| join(threads, stop, &metrics));
    stop.store(true, Ordering::Relaxed);
    outcome
}

fn plan(
    config: &Config,
    topology: &ApplicationTopology,
    topics: &CheckedTopics,
    instance_id: &str,
    thread: usize,
    http: Option<HttpAddress>,
) -> ThreadPlan {
    let id = transactional_id(&config.application_id, instance_id, thread);
    let store_tasks =
        topology.subtopologies().iter().map(|sub| sub.stores.len() * topics.partitions[&sub.name]).sum::<usize>();
    ThreadPlan {
        topology: topology.clone(),
        output_partitions: topics.output_partitions.clone(),
        member: member(instance_id, config.instance_id.is_some(), thread, &id, http),
        transactional_id: id,
        changelogs: topics.changelogs.clone(),
        layouts: topics.layouts.clone(),
        start_rule: config.auto_offset_reset,
        batch: config.batch_bounds(),
        poll_records_max: POLL_RECORDS_MAX,
        batch_bytes_max: config.batch_bytes_max,
        max_task_idle: config.max_task_idle,
        transaction_timeout: config.transaction_timeout,
        rebalance_wait: match config.group_protocol {
            GroupProtocol::Classic => config.session_timeout * 2,
            GroupProtocol::Consumer => EPOCH_WAIT,
        },
        lost_wait: config.expected_session() * 2 + BROKER_PAUSE,
        outside_wait: config.max_poll_interval + config.expected_session(),
        fence_after_rebuild: !topics.transactions_verified(),
        cache_bytes_max: (config.cache_bytes / store_tasks.max(1)).max(CACHE_BYTES_MIN),
        // Under the consumer protocol a static member that stops gives back its name, and keeps its partitions.
        leave_on_stop: config.leave || config.instance_id.is_none() || config.group_protocol == GroupProtocol::Consumer,
    }
}

/// What the HTTP server shows.
fn shown(
    config: &Config,
    topology: &ApplicationTopology,
    status: &Arc<WorkerStatus<SystemClock>>,
    metrics: &Metrics,
    directory: &Arc<RocksDirectory>,
    advertised: Option<Arc<Advertised>>,
) -> Shown {
    let (directory, owners) = (directory.clone(), Owners::new(config.cluster_settings()));
    let figures = move || Figures {
        stores: directory.figures(),
        memory_used_bytes: directory.memory_used_bytes(),
        memory_budget_bytes: directory.settings().memory_budget_bytes,
    };
    Shown {
        application_id: config.application_id.clone(),
        topology: topology.clone(),
        status: status.clone(),
        metrics: metrics.clone(),
        figures: Box::new(figures),
        owners: Box::new(move || {
            let owned = owners.owned().map_err(|error| error.message)?;
            if let Some(advertised) = &advertised {
                advertised.compare(&owned);
            }
            Ok(owned)
        }),
    }
}

fn serve(config: &Config, address: SocketAddr, shown: Shown) -> Result<Server, AppError> {
    let token = config.http_token_file.as_deref().map(Token::read).transpose();
    token.and_then(|token| Server::start(address, token, shown)).map_err(AppError::Start)
}

/// What keeps internal topics small, where there are any.
fn purger(
    config: &Config,
    topology: &ApplicationTopology,
    status: &Arc<WorkerStatus<SystemClock>>,
) -> Result<Option<Purger>, AppError> {
    let topics: BTreeSet<Arc<str>> = topology.internal_topics().iter().map(|internal| internal.topic.clone()).collect();
    let every = config.repartition_purge_interval;
    if topics.is_empty() || every.is_zero() {
        return Ok(None);
    }
    let purger = Purger::start(config.application_id.clone(), topics, every, config.cluster_settings(), status.clone());
    purger.map(Some).map_err(|error| AppError::Start(format!("the operating system gives no thread: {error}")))
}

/// Every task that the application has, whoever runs it.
fn tasks_of(topology: &ApplicationTopology, topics: &CheckedTopics) -> Vec<TaskId> {
    let of = |name: &Arc<str>| {
        let partitions = i32::try_from(topics.partitions[name]).expect("Kafka counts partitions in 32 bits");
        (0..partitions).map(|partition| TaskId::new(name.clone(), Partition::new(partition))).collect::<Vec<_>>()
    };
    topology.subtopologies().iter().flat_map(|subtopology| of(&subtopology.name)).collect()
}

/// For how long the inputs keep records, of those that delete by time; one whose settings may not be read is left out.
fn retention(topology: &ApplicationTopology, admin: &Admin) -> BTreeMap<Arc<str>, Duration> {
    let of = |topic: &Arc<str>| {
        let configs = admin.topic_configs(topic).ok()?;
        let deletes = configs.get("cleanup.policy")?.contains("delete");
        // -1: for ever.
        let millis = configs.get("retention.ms")?.parse().ok().filter(|_| deletes)?;
        Some((topic.clone(), Duration::from_millis(millis)))
    };
    topology.inputs().iter().filter_map(of).collect()
}

type Producers = [Clean<<Cluster as Kafka>::Producer>; PRODUCERS];

/// The producers of every thread, each with its predecessor fenced; `None` if the stop came first.
fn initialised(cluster: &Cluster, plans: &[ThreadPlan], stop: &AtomicBool) -> Result<Option<Vec<Producers>>, AppError> {
    // All are asked before one is waited for.
    let mut started = Vec::new();
    for plan in plans {
        let [first, second] = plan.transactional_id.of_both();
        started.push([Start::of(cluster, plan, first)?, Start::of(cluster, plan, second)?]);
    }
    let mut producers = Vec::new();
    for [first, second] in started {
        let Some(first) = first.wait(stop)? else { return Ok(None) };
        let Some(second) = second.wait(stop)? else { return Ok(None) };
        producers.push([first, second]);
    }
    Ok(Some(producers))
}

/// A producer that fences its predecessor.
struct Start<'a> {
    cluster: &'a Cluster,
    plan: &'a ThreadPlan,
    id: TransactionalId,
    answer: Result<Initialised<<Cluster as Kafka>::Producer>, TxnError>,
}

impl<'a> Start<'a> {
    fn of(cluster: &'a Cluster, plan: &'a ThreadPlan, id: TransactionalId) -> Result<Self, AppError> {
        let clock = SystemClock::default();
        let made = cluster.producer(&id, &producer_topics(plan)).map_err(|error| AppError::Start(error.message))?;
        let answer = Initialising::new(made, &clock).step(&clock, Duration::ZERO, plan.transaction_timeout);
        Ok(Self { cluster, plan, id, answer })
    }

    fn wait(mut self, stop: &AtomicBool) -> Result<Option<Clean<<Cluster as Kafka>::Producer>>, AppError> {
        let (clock, patience) = (SystemClock::default(), self.plan.transaction_timeout);
        while !stop.load(Ordering::Relaxed) {
            let Self { cluster, plan, id, answer } = self;
            let again = |id| Self::of(cluster, plan, id);
            self = match answer {
                Ok(Initialised::Done(producer)) => return Ok(Some(producer)),
                Ok(Initialised::Pending(same)) => {
                    Self { cluster, plan, id, answer: same.step(&clock, INIT_SLICE, patience) }
                }
                Ok(Initialised::GivenUp) => {
                    tracing::warn!(
                        "'{id}' is not initialised after {patience:?}: no transaction coordinator answers. Waiting, with a new client; \
                         are all brokers up, and does __transaction_state have its leaders?"
                    );
                    again(id)?
                }
                Err(error) if matches!(error.kind, TxnErrorKind::Retriable | TxnErrorKind::TimedOut) => {
                    tracing::warn!("initialising '{id}' goes on: {error}");
                    again(id)?
                }
                Err(error) => {
                    return Err(AppError::Start(format!("the transactional id '{id}' cannot be initialised: {error}")));
                }
            };
        }
        Ok(None)
    }
}

type Running = JoinHandle<Result<(), ThreadError>>;

fn spawn(
    plan: ThreadPlan,
    cluster: Arc<Cluster>,
    directory: Arc<RocksDirectory>,
    producers: Producers,
    stop: Arc<AtomicBool>,
    shows: Shows,
) -> Result<Running, AppError> {
    let name = plan.transactional_id.to_string();
    let span = tracing::info_span!("thread", id = %name);
    let run = move || {
        let _entered = span.entered();
        // However this thread ends, the others end with it: a worker that does part of its work looks healthy.
        let ends_all = StopOnDrop(stop.clone(), shows.status.clone());
        let Shows { metrics, status, heartbeat, clock, alive } = shows;
        let instruments = Instruments::new(metrics.thread(status.number), status);
        let thread = StreamThread::new(plan, cluster, directory, clock, producers)?;
        let ended = thread.with_instruments(instruments).run(&stop, |turn| heartbeat.beat(turn.member));
        drop((ends_all, alive));
        ended
    };
    let spawned = std::thread::Builder::new().name(name).spawn(run);
    spawned.map_err(|error| AppError::Start(format!("the operating system gives no thread: {error}")))
}

/// Where a thread shows what it does.
struct Shows {
    metrics: Metrics,
    status: Arc<ThreadStatus>,
    heartbeat: Heartbeat<SystemClock>,
    clock: SystemClock,
    /// Dropped when the thread ends.
    alive: Sender<Infallible>,
}

struct StopOnDrop(Arc<AtomicBool>, Arc<ThreadStatus>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.publish(Snapshot { state: ThreadState::Stopped, tasks: Vec::new() });
    }
}

/// Watches the operators of all threads, while there is nothing to do but wait for the end of them.
fn watch(watcher: &mut Watcher<SystemClock>, all_ended: &Receiver<Infallible>) {
    while all_ended.recv_timeout(watcher.look_every()) == Err(RecvTimeoutError::Timeout) {
        watcher.look();
    }
}

fn watcher(
    config: &Config,
    status: &WorkerStatus<SystemClock>,
    metrics: &Metrics,
    clock: SystemClock,
) -> Watcher<SystemClock> {
    let limits = SlowLimits {
        transaction: transaction::budget(config.transaction_timeout),
        max_poll_interval: config.max_poll_interval,
    };
    let threads = status.threads().iter().map(|thread| (thread.clone(), metrics.slow_records(thread.number)));
    Watcher::new(threads, limits, clock)
}

fn join(threads: Vec<Running>, stop: &AtomicBool, metrics: &Metrics) -> Result<(), AppError> {
    let mut outcome = Ok(());
    for thread in threads {
        let id = thread.thread().name().unwrap_or("stream thread").to_owned();
        let ended = match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(AppError::Thread(format!("{id}: {error}"))),
            Err(panic) => {
                metrics.invariant_violated();
                Err(AppError::Thread(format!(
                    "{id}: a law of the engine was broken, so it stopped: {}",
                    message(&*panic)
                )))
            }
        };
        if let Err(error) = &ended {
            tracing::error!("{error}");
            stop.store(true, Ordering::Relaxed);
        }
        outcome = outcome.and(ended);
    }
    outcome
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// A store's name, and what is special about it.
fn described(store: &StoreSpec) -> String {
    let place = if store.in_memory { " (in memory)" } else { "" };
    let changelog = if store.changelog.is_none() { " (no changelog)" } else { "" };
    format!("{}{place}{changelog}", store.name)
}

/// What runs where, in a few lines.
fn log_start(
    config: &Config,
    topology: &ApplicationTopology,
    topics: &CheckedTopics,
    instance_id: &str,
    http: Option<&HttpAddress>,
) {
    let Config { application_id, bootstrap_servers, state_dir, threads, .. } = config;
    tracing::info!("processor {}: application '{application_id}', instance '{instance_id}'", env!("CARGO_PKG_VERSION"));
    tracing::info!(
        "brokers {bootstrap_servers}, {threads} stream thread(s), state in {}",
        state_dir.join(application_id).display()
    );
    for subtopology in topology.subtopologies() {
        let names = |topics: Vec<&str>| topics.join(", ");
        let inputs = names(subtopology.inputs.iter().map(|input| &*topology.inputs()[input.slot()]).collect());
        let stores: Vec<_> = subtopology.store_specs.iter().map(described).collect();
        let stores = stores.join(", ");
        let partitions = topics.partitions[&subtopology.name];
        tracing::info!("sub-topology '{}': {partitions} task(s), reads {inputs}; stores: {stores}", subtopology.name);
    }
    tracing::info!("writes {}", topology.outputs().join(", "));
    let session = match config.group_protocol {
        GroupProtocol::Classic => {
            format!("session {:?}, heartbeat {:?}", config.session_timeout, config.heartbeat_interval)
        }
        GroupProtocol::Consumer => "session and heartbeat of the brokers".to_owned(),
    };
    let Config { transaction_timeout, max_poll_interval, .. } = config;
    tracing::info!("time-outs: {session}, transaction {transaction_timeout:?}, between polls {max_poll_interval:?}");
    let member = if config.instance_id.is_some() {
        "static: a restart moves no partition"
    } else {
        "dynamic: a stop leaves the group"
    };
    tracing::info!("group member: {member}");
    match (config.http_listen, http) {
        (Some(_), Some(http)) => {
            tracing::info!("the group tells whoever asks another worker for keys of this one: {http}");
        }
        (Some(_), None) => {
            tracing::info!("other workers cannot tell where to ask this one for its keys: set http.advertised");
        }
        (None, _) => {}
    }
}
