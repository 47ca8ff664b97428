//! The command line of every application.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use processor_core::protocol::restore::StartRule;
use processor_core::topology::{Topology, TopologyError};
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::config::Config;

/// Exit code: the application could not start, or stopped because of an error.
const FAILED: u8 = 1;
/// Exit code: the command line does not make sense.
const MISUSED: u8 = 2;

/// The entry of an application: parses the command line, builds the topology from the application's own arguments and
/// runs it.
///
/// ```no_run
/// use processor_core::prelude::*;
///
/// #[derive(Debug, clap::Args)]
/// struct Args {
///     /// The topic to read.
///     #[arg(long)]
///     input: String,
/// }
///
/// fn topology(args: &Args) -> Result<Topology, TopologyError> {
///     let mut topology = Topology::builder();
///     topology.source("lines", &args.input, (Utf8, Utf8)).sink("copies", "copies", (Utf8, Utf8));
///     topology.build()
/// }
///
/// fn main() -> std::process::ExitCode {
///     processor_runtime::main::<Args>(topology)
/// }
/// ```
pub fn main<A: Args>(topology: impl FnOnce(&A) -> Result<Topology, TopologyError>) -> ExitCode {
    let Cli { command: Command::Run(RunArgs { run, application }) } = Cli::<A>::parse();
    log(run.log_format);
    let topology = match topology(&application) {
        Ok(topology) => topology,
        Err(error) => return failed(MISUSED, &format!("the topology cannot be built: {error}")),
    };
    match run_until_signal(&run.config(), &topology) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(FAILED, &error.to_string()),
    }
}

#[derive(Debug, Parser)]
#[command(version, about = "A stream processor that processes every record exactly once.")]
struct Cli<A: Args> {
    #[command(subcommand)]
    command: Command<A>,
}

#[derive(Debug, Subcommand)]
enum Command<A: Args> {
    /// Processes records until it is told to stop (SIGTERM, SIGINT).
    Run(RunArgs<A>),
}

#[derive(Debug, Args)]
struct RunArgs<A: Args> {
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    application: A,
}

#[derive(Debug, Args)]
struct RunOptions {
    /// host:port of some brokers, with commas between.
    #[arg(long, env = "PROCESSOR_BOOTSTRAP_SERVERS")]
    bootstrap_servers: String,
    /// The application's id: its consumer group, and the prefix of its topics and ids.
    #[arg(long, env = "PROCESSOR_APPLICATION_ID")]
    application_id: String,
    /// Where state is kept; the application's directory is made below it.
    #[arg(long, env = "PROCESSOR_STATE_DIR")]
    state_dir: PathBuf,
    /// This worker's name, the same after a restart and its own: a restart within the session time-out then moves no
    /// partition. Without it, a name is made once and kept in the state directory.
    #[arg(long, env = "PROCESSOR_INSTANCE_ID")]
    instance_id: Option<String>,
    /// How many stream threads to run.
    #[arg(long, env = "PROCESSOR_THREADS", default_value_t = 1)]
    threads: usize,
    /// Where an input begins that has no committed offset.
    #[arg(long, env = "PROCESSOR_AUTO_OFFSET_RESET", value_enum, default_value_t = OffsetReset::Earliest)]
    auto_offset_reset: OffsetReset,
    /// A librdkafka property, name=value; may be repeated. Prefixes `consumer.` and `producer.` address one client.
    #[arg(long = "kafka", value_name = "NAME=VALUE", value_parser = property)]
    kafka: Vec<(String, String)>,
    /// session.timeout.ms: how long the group waits for a silent worker before its partitions move.
    #[arg(long, env = "PROCESSOR_SESSION_TIMEOUT_MS", default_value_t = 6_000)]
    session_timeout_ms: u64,
    /// heartbeat.interval.ms: at most a third of the session time-out.
    #[arg(long, env = "PROCESSOR_HEARTBEAT_INTERVAL_MS", default_value_t = 1_500)]
    heartbeat_interval_ms: u64,
    /// transaction.timeout.ms: how long a silent worker's transaction stays open.
    #[arg(long, env = "PROCESSOR_TRANSACTION_TIMEOUT_MS", default_value_t = 10_000)]
    transaction_timeout_ms: u64,
    /// Replicas of changelog topics that are made; the brokers' default if not given.
    #[arg(long, env = "PROCESSOR_REPLICATION_FACTOR")]
    replication_factor: Option<usize>,
    /// Memory of all state databases together (block cache and write buffers), in MiB.
    #[arg(long, env = "PROCESSOR_MEMORY_BUDGET_MIB", default_value_t = 64)]
    memory_budget_mib: usize,
    /// Memory of all decoded values kept between batches, in MiB.
    #[arg(long, env = "PROCESSOR_CACHE_MIB", default_value_t = 64)]
    cache_mib: usize,
    /// Shows health, metrics, tasks and state over HTTP on this address, such as 127.0.0.1:8080; port 0 is a free one, which
    /// the log names. An address that other machines can reach needs --http-token-file.
    #[arg(long = "http", env = "PROCESSOR_HTTP_LISTEN", value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// A file with the token that HTTP requests for tasks and state must carry (Authorization: Bearer).
    #[arg(long, env = "PROCESSOR_HTTP_TOKEN_FILE", value_name = "FILE")]
    http_token_file: Option<PathBuf>,
    /// The form of log lines on standard error; what is logged is chosen with `RUST_LOG`.
    #[arg(long, env = "PROCESSOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OffsetReset {
    /// At the first record that is still there.
    Earliest,
    /// Behind the last record.
    Latest,
    /// Nowhere: stop, a person decides.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl RunOptions {
    fn config(&self) -> Config {
        let mut config =
            Config::new(self.application_id.clone(), self.bootstrap_servers.clone(), self.state_dir.clone());
        config.instance_id.clone_from(&self.instance_id);
        config.threads = self.threads;
        config.auto_offset_reset = match self.auto_offset_reset {
            OffsetReset::Earliest => StartRule::Earliest,
            OffsetReset::Latest => StartRule::Latest,
            OffsetReset::None => StartRule::Refuse,
        };
        config.kafka = self.kafka.iter().cloned().collect();
        config.session_timeout = Duration::from_millis(self.session_timeout_ms);
        config.heartbeat_interval = Duration::from_millis(self.heartbeat_interval_ms);
        config.transaction_timeout = Duration::from_millis(self.transaction_timeout_ms);
        config.replication_factor = self.replication_factor;
        config.memory_budget_bytes = self.memory_budget_mib << 20;
        config.cache_bytes = self.cache_mib << 20;
        config.http_listen = self.http_listen;
        config.http_token_file.clone_from(&self.http_token_file);
        config
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("it must have the form name=value, such as security.protocol=ssl")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let in_colour = std::io::stderr().is_terminal();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(in_colour);
    match format {
        LogFormat::Text => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

fn failed(code: u8, message: &str) -> ExitCode {
    tracing::error!("{message}");
    ExitCode::from(code)
}

/// Runs in a thread of its own, while this one waits for a signal.
fn run_until_signal(config: &Config, topology: &Topology) -> Result<(), Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, mut is_over) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let application = {
        let (config, topology, stop) = (config.clone(), topology.clone(), stop.clone());
        std::thread::Builder::new().name("application".to_owned()).spawn(move || {
            let outcome = app::run(&config, &topology, &stop);
            // Nobody listens any more where a signal came first.
            let _ = ended.send(());
            outcome
        })?
    };
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let name = tokio::select! {
            _ = &mut is_over => return Ok::<(), std::io::Error>(()),
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: the batch in hand is finished and committed, then this worker stops");
        stop.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    match application.join() {
        Ok(outcome) => {
            outcome?;
            tracing::info!("stopped");
            Ok(())
        }
        Err(_) => Err("the application's thread panicked; the message stands above".into()),
    }
}
