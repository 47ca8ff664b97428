//! A real Kafka on this machine: one or three nodes that can be killed, paused and started again.
//!
//! A node is a plain `java` process in KRaft combined mode (broker and controller), on loopback only. Its files are
//! in `<dir>/node-<id>`: `server.properties`, `kafka.log` (everything it printed, over all its lives) and `data`.
//! Node ids start at 1.
//!
//! No node outlives its owner: dropping the cluster kills it, and the kernel kills it when the process that started it
//! dies in any other way. A `detached` cluster (`./x kafka start`) is the exception: it stays once it is ready.

mod java;
pub mod ports;
mod probe;
pub mod process;
mod properties;
mod raw_log;
pub mod secure;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;

pub use self::ports::NodePorts;
pub use self::raw_log::{RawBatch, RawDecision, RawKind, RawLog, RawOffset, RawRecords};
use crate::log_file;

/// Three nodes on two busy cores need about 20 s.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// 1 or 3.
    pub nodes: u16,
    /// Where the nodes keep their files. A directory that holds a cluster of the same size continues it.
    pub dir: PathBuf,
    /// Written last into every `server.properties`, so that they win over the harness's own.
    pub broker_properties: Vec<(String, String)>,
    /// Handed to Kafka's storage tool, which makes the cluster: users that are there from the beginning.
    pub format_arguments: Vec<String>,
    /// The jars of another Kafka than the usual one; see [`libs_of`].
    pub libs: Option<PathBuf>,
    /// One entry a node; free ports are chosen when absent.
    pub ports: Option<Vec<NodePorts>>,
    /// One entry a node, or empty: where a fault-injecting proxy listens for that node. Each node then has a second
    /// listener, [`NodePorts::behind_proxy`], that advertises the proxy's port: clients that enter through a proxy stay
    /// behind proxies, while brokers talk to each other directly.
    pub proxy_ports: Vec<u16>,
    /// The nodes outlive this process.
    pub detached: bool,
}

impl ClusterConfig {
    /// One node: replication factor 1.
    pub fn single(dir: impl Into<PathBuf>) -> Self {
        Self {
            nodes: 1,
            dir: dir.into(),
            broker_properties: Vec::new(),
            format_arguments: Vec::new(),
            libs: None,
            ports: None,
            proxy_ports: Vec::new(),
            detached: false,
        }
    }

    /// Three nodes: replication factor 3, at least 2 in sync.
    pub fn three(dir: impl Into<PathBuf>) -> Self {
        Self { nodes: 3, ..Self::single(dir) }
    }

    /// Sets a property of every broker.
    #[must_use]
    pub fn with(mut self, property: &str, value: impl Into<String>) -> Self {
        self.broker_properties.push((property.to_owned(), value.into()));
        self
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct KafkaCluster {
    nodes: Vec<Node>,
    detached: bool,
    /// False once a detached cluster is up.
    kill_on_drop: bool,
}

#[derive(Debug)]
struct Node {
    id: u16,
    ports: NodePorts,
    dir: PathBuf,
    libs: Option<PathBuf>,
    process: Mutex<Option<Child>>,
}

impl KafkaCluster {
    /// Starts the nodes and waits until each of them sees all of them.
    pub fn start(mut config: ClusterConfig) -> Result<Self> {
        config.dir = std::path::absolute(&config.dir).with_context(|| format!("no path: {}", config.dir.display()))?;
        ensure!(matches!(config.nodes, 1 | 3), "a cluster has 1 or 3 nodes, not {}", config.nodes);
        let ports = config.ports.clone().map_or_else(|| ports::free(config.nodes), Ok)?;
        ensure!(ports.len() == usize::from(config.nodes), "`ports` needs one entry for each of {} nodes", config.nodes);
        let proxied = config.proxy_ports.len();
        ensure!(proxied == 0 || proxied == ports.len(), "`proxy_ports` needs one entry a node, or none");

        let nodes: Vec<Node> =
            (1..=config.nodes).zip(&ports).map(|(id, ports)| Node::new(&config, id, *ports)).collect();
        let formatted = formatted_nodes(&config.dir)?;
        ensure!(
            formatted == 0 || formatted == nodes.len(),
            "{} holds a cluster of {formatted} nodes, not {}: remove it or start it with its own size",
            config.dir.display(),
            nodes.len()
        );
        for (index, node) in nodes.iter().enumerate() {
            fs::create_dir_all(&node.dir).with_context(|| format!("cannot create {}", node.dir.display()))?;
            let text = properties::server_properties(index, &ports, &node.data(), &config);
            fs::write(node.properties(), text)
                .with_context(|| format!("cannot write {}", node.properties().display()))?;
        }
        if formatted == 0 {
            let properties: Vec<_> = nodes.iter().map(Node::properties).collect();
            java::format_storage(&properties, &config.format_arguments, config.libs.as_deref())?;
        }

        let mut cluster = Self { nodes, detached: config.detached, kill_on_drop: true };
        cluster.start_all()?;
        cluster.kill_on_drop = !config.detached;
        Ok(cluster)
    }

    /// Every node, as a client's `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports.client)).collect();
        addresses.join(",")
    }

    /// The level at which a feature such as `transaction.version` is finalized; 0 where the cluster does not have it.
    pub fn feature(&self, name: &str) -> Result<i16> {
        let node = self.nodes.first().context("a cluster has nodes")?;
        let arguments = ["--bootstrap-server", &self.bootstrap_servers(), "describe"];
        let told = java::tool("org.apache.kafka.tools.FeatureCommand", &arguments, node.libs.as_deref())?;
        let Some(line) = told.lines().find(|line| line.split_whitespace().nth(1) == Some(name)) else { return Ok(0) };
        let level = line.split_whitespace().skip_while(|word| *word != "FinalizedVersionLevel:").nth(1);
        level.and_then(|level| level.parse().ok()).with_context(|| format!("no level of {name} in '{line}'"))
    }

    /// The ids of all nodes, running or not.
    pub fn node_ids(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(|node| node.id)
    }

    /// The port clients use.
    pub fn port(&self, node: u16) -> u16 {
        self.ports(node).client
    }

    /// All ports of a node.
    pub fn ports(&self, node: u16) -> NodePorts {
        self.node(node).ports
    }

    /// The directory of a node's files.
    pub fn node_dir(&self, node: u16) -> &Path {
        &self.node(node).dir
    }

    /// The process id while the node runs (a paused node runs).
    pub fn pid(&self, node: u16) -> Option<u32> {
        self.node(node).process().as_ref().map(Child::id)
    }

    /// `kill -9`; returns when the process is gone.
    pub fn kill(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        let mut child = node.process().take().ok_or_else(|| node.not_running())?;
        child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot kill Kafka node {}", node.id))?;
        Ok(())
    }

    /// A clean shutdown; returns when the process is gone. A node that takes too long is killed, and that is an error.
    pub fn stop(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        let mut child = node.process().take().ok_or_else(|| node.not_running())?;
        let asked = process::signal(child.id(), Signal::SIGCONT).and(process::signal(child.id(), Signal::SIGTERM));
        let ended = asked.and_then(|()| wait_until(STOP_TIMEOUT, || Ok(child.try_wait()?.is_some())));
        if !matches!(ended, Ok(true)) {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot kill Kafka node {}", node.id))?;
            ended?;
            bail!("Kafka node {} did not stop within {STOP_TIMEOUT:?} and was killed;{}", node.id, node.log_tail());
        }
        Ok(())
    }

    /// Freezes a node as a long garbage collection would; returns when it no longer runs.
    pub fn pause(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        let pid = self.pid(node.id).ok_or_else(|| node.not_running())?;
        process::signal(pid, Signal::SIGSTOP)?;
        let stopped = wait_until(STOP_TIMEOUT, || Ok(process::state(pid) == Some('T')))?;
        ensure!(stopped, "Kafka node {} (pid {pid}) still runs after SIGSTOP", node.id);
        Ok(())
    }

    /// Ends a pause.
    pub fn resume(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        process::signal(self.pid(node.id).ok_or_else(|| node.not_running())?, Signal::SIGCONT)
    }

    /// Starts a node again on its ports and data, and waits until it serves clients.
    ///
    /// Two of three nodes must be up for that: after losing more, use [`Self::spawn_node`] for each of them and then
    /// [`Self::await_node`].
    pub fn start_node(&self, node: u16) -> Result<()> {
        self.spawn_node(node)?;
        self.await_node(node)
    }

    /// What lies in a partition's files, on the node that has the most of it: for when nobody writes to it any more.
    pub fn raw_log(&self, topic: &str, partition: i32, records: RawRecords) -> Result<RawLog> {
        let directories = self.nodes.iter().map(|node| node.data().join(format!("{topic}-{partition}")));
        let logs: Result<Vec<_>> = directories
            .filter(|directory| directory.exists())
            .map(|directory| RawLog::read(&directory, records))
            .collect();
        logs?.into_iter().max_by_key(RawLog::end).with_context(|| format!("no node has {topic}-{partition}"))
    }

    /// The partitions of which a node has files.
    pub fn partitions_on_disk(&self) -> Result<BTreeSet<(String, i32)>> {
        let mut partitions = BTreeSet::new();
        for node in &self.nodes {
            let data = node.data();
            for entry in fs::read_dir(&data).with_context(|| format!("cannot list {}", data.display()))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let parts =
                    name.rsplit_once('-').and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)));
                partitions.extend(parts);
            }
        }
        Ok(partitions)
    }

    /// How many times, in all its lives, a node has dropped the markers of a decided transaction.
    ///
    /// Seen with Kafka 4.3.1: a broker dies after it has decided a transaction and before its markers are written, and
    /// comes back while its old session still counts. It resumes as coordinator; then the controller fences that session,
    /// so every partition is without a leader for a moment, and the coordinator takes those of the transaction for deleted
    /// topics ("likely deleted already and hence can be skipped") and calls the transaction complete. What it wrote and the
    /// offsets it holds stay undecided; no client has a call that mends it.
    pub fn dropped_markers(&self, node: u16) -> Result<usize> {
        let log = self.node(node).log();
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(text.lines().filter(|line| line.contains("likely deleted already and hence can be skipped")).count())
    }

    /// Starts a node's process and does not wait for it.
    pub fn spawn_node(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        let mut process = node.process();
        ensure!(process.is_none(), "Kafka node {} already runs; stop or kill it first", node.id);
        *process = Some(java::spawn_kafka(&node.properties(), &node.log(), self.detached, node.libs.as_deref())?);
        Ok(())
    }

    /// Waits until a node is part of the cluster and answers clients.
    pub fn await_node(&self, node: u16) -> Result<()> {
        let node = self.node(node);
        node.await_ready(&[node.id])
    }

    /// Stops every node, waiting a bounded time before killing it.
    ///
    /// All are asked at once: the last one of three has no quorum left to leave properly.
    pub fn shutdown(self) -> Result<()> {
        let children: Vec<(u16, Child)> =
            self.nodes.iter().filter_map(|node| node.process().take().map(|child| (node.id, child))).collect();
        for (_, child) in &children {
            process::signal(child.id(), Signal::SIGCONT)?;
            process::signal(child.id(), Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for (id, mut child) in children {
            let left = deadline.saturating_duration_since(Instant::now());
            if !wait_until(left, || Ok(child.try_wait()?.is_some()))? {
                child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot kill Kafka node {id}"))?;
            }
        }
        Ok(())
    }

    fn start_all(&self) -> Result<()> {
        let ids: Vec<u16> = self.node_ids().collect();
        for id in &ids {
            self.spawn_node(*id)?;
        }
        self.nodes.iter().try_for_each(|node| node.await_ready(&ids))
    }

    fn node(&self, id: u16) -> &Node {
        let found = self.nodes.iter().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("no Kafka node {id}: this cluster has 1 to {}", self.nodes.len()))
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        if !self.kill_on_drop {
            return;
        }
        for node in &self.nodes {
            if let Some(mut child) = node.process().take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Node {
    fn new(config: &ClusterConfig, id: u16, ports: NodePorts) -> Self {
        let (dir, libs) = (config.dir.join(format!("node-{id}")), config.libs.clone());
        Self { id, ports, dir, libs, process: Mutex::new(None) }
    }

    fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("kafka.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_running(&self) -> anyhow::Error {
        anyhow!("Kafka node {} does not run; start it with `start_node({})`", self.id, self.id)
    }

    /// Waits until this node tells clients about all of `brokers`.
    fn await_ready(&self, brokers: &[u16]) -> Result<()> {
        let mut last = Ok(Vec::new());
        let ready = wait_until(READY_TIMEOUT, || {
            self.ensure_alive()?;
            last = probe::live_brokers(self.ports.client);
            Ok(matches!(&last, Ok(live) if brokers.iter().all(|broker| live.contains(broker))))
        })?;
        let seen = match last {
            _ if ready => return Ok(()),
            Ok(live) => format!("it knows of the brokers {live:?} of {brokers:?}"),
            Err(error) => format!("{error:#}"),
        };
        bail!("Kafka node {} was not ready within {READY_TIMEOUT:?}: {seen};{}", self.id, self.log_tail())
    }

    fn ensure_alive(&self) -> Result<()> {
        let mut process = self.process();
        let Some(child) = process.as_mut() else { bail!("Kafka node {} was ended while it started", self.id) };
        if let Some(status) = child.try_wait().context("cannot ask for a child's status")? {
            *process = None;
            bail!("Kafka node {} ended with {status} instead of starting;{}", self.id, self.log_tail());
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        log_file::quoted_tail(&self.log())
    }
}

/// The cluster that the tests of one test binary share: one node, started by the first test that asks.
///
/// It ends with the process. Tests keep apart by the names of their topics, groups and transactional ids.
pub fn shared() -> &'static KafkaCluster {
    static SHARED: OnceLock<KafkaCluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let started = test_dir("shared").and_then(|dir| KafkaCluster::start(ClusterConfig::single(dir)));
        started.unwrap_or_else(|error| panic!("the shared Kafka did not start: {error:#}"))
    })
}

/// Where `./x` puts the jars of a version of Kafka.
pub fn libs_of(version: &str) -> PathBuf {
    java::libs_of(version)
}

/// A directory for a test's files, `<repository>/target/test-kafka/<pid>/<name>`.
///
/// It stays when the test ends, so that the log of a failed one can be read, and goes when a later test process calls
/// this.
pub fn test_dir(name: &str) -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-kafka");
    fs::create_dir_all(&tests).with_context(|| format!("cannot create {}", tests.display()))?;
    let tests = tests.canonicalize().with_context(|| format!("cannot resolve {}", tests.display()))?;
    remove_directories_of_dead_processes(&tests)?;
    let dir = tests.join(std::process::id().to_string()).join(name);
    ensure!(!dir.exists(), "{} is in use: give every cluster of a test process its own name", dir.display());
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn remove_directories_of_dead_processes(tests: &Path) -> Result<()> {
    for entry in fs::read_dir(tests).with_context(|| format!("cannot list {}", tests.display()))? {
        let entry = entry?;
        let pid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if pid.is_some_and(|pid| process::state(pid).is_none()) {
            // Another test process may be removing the same directory.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn formatted_nodes(dir: &Path) -> Result<usize> {
    if !dir.exists() {
        return Ok(0);
    }
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries.filter_map(Result::ok).filter(|entry| entry.path().join("data/meta.properties").exists()).count())
}

/// Asks until the answer is yes or the time is over; the answer says which.
fn wait_until(timeout: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        if condition()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
