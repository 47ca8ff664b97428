//! `lab kafka`: a Kafka that stays on this machine until it is stopped, for trying things out by hand.
//!
//! Its files are under `./target/kafka`; `cluster.json` there tells scripts where it listens and which processes it has,
//! from when it is ready until it is stopped. The data stays for the next start. What runs is asked of the kernel and
//! not of that file, so that an interrupted start is found and a reused process id is left alone.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::broker::{ClusterConfig, KafkaCluster, NodePorts, ports, process};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const FIRST_PORT: u16 = 9092;

/// Keep a Kafka on this machine, its data under ./target/kafka.
#[derive(Args, Debug)]
pub struct KafkaArgs {
    #[command(subcommand)]
    verb: Verb,
    /// How many nodes `start` starts: 1 or 3.
    #[arg(long, global = true, default_value_t = 1)]
    nodes: u16,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Verb {
    /// Start it, or say that it runs.
    Start,
    /// Stop it; its data stays.
    Stop,
    /// Say whether it runs; the exit code is 1 when it does not.
    Status,
}

/// Runs `lab kafka`, with `target` being the directory for run-time data.
pub fn run(args: &KafkaArgs, target: &Path) -> Result<()> {
    let target = absolute(target).with_context(|| format!("no path: {}", target.display()))?;
    let dir = target.join("kafka");
    match args.verb {
        Verb::Start => start(&dir, args.nodes),
        Verb::Stop => stop(&dir),
        Verb::Status => status(&dir),
    }
}

/// The content of `cluster.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Cluster {
    bootstrap: String,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    id: u16,
    pid: u32,
    ports: NodePorts,
}

fn start(dir: &Path, nodes: u16) -> Result<()> {
    if !running(dir).is_empty() {
        ensure!(running(dir).len() == usize::from(nodes), "another number of nodes runs: ./x kafka stop, then start");
        println!("Kafka already runs on {}", read(dir)?.bootstrap);
        return Ok(());
    }
    println!("starting Kafka, {nodes} node(s), in {} ..", dir.display());
    let began = Instant::now();
    let ports = Some(ports::preferred(nodes, FIRST_PORT)?);
    let kafka = KafkaCluster::start(ClusterConfig { nodes, ports, detached: true, ..ClusterConfig::single(dir) })?;
    write(dir, &Cluster::of(&kafka)?)?;
    println!("Kafka is ready after {:.1} s", began.elapsed().as_secs_f32());
    println!("  bootstrap.servers  {}", kafka.bootstrap_servers());
    println!("  logs               {}/node-*/kafka.log", dir.display());
    println!("  next               ./x kafka status | ./x kafka stop | ./x clean (removes its data)");
    Ok(())
}

fn status(dir: &Path) -> Result<()> {
    let running = running(dir);
    if running.is_empty() {
        bail!("no Kafka of this checkout runs: ./x kafka start");
    }
    let cluster = read(dir)?;
    println!("bootstrap.servers  {}", cluster.bootstrap);
    for node in &cluster.nodes {
        let state = if running.contains(&node.pid) { "runs" } else { "has ended" };
        println!("node {}  pid {}  port {}  {state}", node.id, node.pid, node.ports.client);
    }
    ensure!(running.len() == cluster.nodes.len(), "not all nodes run: ./x kafka stop, then ./x kafka start");
    Ok(())
}

fn stop(dir: &Path) -> Result<()> {
    let pids = running(dir);
    for pid in &pids {
        process::signal(*pid, Signal::SIGCONT)?;
        process::signal(*pid, Signal::SIGTERM)?;
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while !running(dir).is_empty() && Instant::now() < deadline {
        thread::sleep(POLL_INTERVAL);
    }
    for pid in running(dir) {
        println!("process {pid} did not stop within {STOP_TIMEOUT:?} and is killed");
        process::signal(pid, Signal::SIGKILL)?;
    }
    if file(dir).exists() {
        fs::remove_file(file(dir)).with_context(|| format!("cannot remove {}", file(dir).display()))?;
    }
    println!("{}", if pids.is_empty() { "no Kafka of this checkout runs" } else { "Kafka is stopped" });
    Ok(())
}

/// The process ids of the brokers whose files are in `dir`.
fn running(dir: &Path) -> Vec<u32> {
    (1..=3).filter_map(|id| process::find_kafka(&dir.join(format!("node-{id}/server.properties")))).collect()
}

impl Cluster {
    fn of(kafka: &KafkaCluster) -> Result<Self> {
        let node = |id| {
            let pid = kafka.pid(id).with_context(|| format!("Kafka node {id} ended right after its start"))?;
            Ok(Node { id, pid, ports: kafka.ports(id) })
        };
        Ok(Self { bootstrap: kafka.bootstrap_servers(), nodes: kafka.node_ids().map(node).collect::<Result<_>>()? })
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

fn read(dir: &Path) -> Result<Cluster> {
    let file = file(dir);
    let text = fs::read(&file).with_context(|| format!("a start was interrupted, there is no {}", file.display()));
    let cluster = text.and_then(|text| Ok(serde_json::from_slice(&text)?));
    cluster.context("what runs is not known in full: ./x kafka stop, then ./x kafka start")
}

fn write(dir: &Path, cluster: &Cluster) -> Result<()> {
    let text = serde_json::to_vec_pretty(cluster).context("cannot write a cluster as JSON")?;
    fs::write(file(dir), text).with_context(|| format!("cannot write {}", file(dir).display()))
}
