//! The command line of every application.

use std::io::{IsTerminal, Write as _};
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
use crate::commands::{CommandError, dead_letters, reset, stand_in, stores, topology};
use crate::config::Config;
use crate::kafka::cluster::ClusterSettings;

/// Exit code: the application could not start, or stopped because of an error.
const FAILED: u8 = 1;
/// Exit code: the command line does not make sense.
const MISUSED: u8 = 2;

/// The entry of an application: parses the command line, builds the topology from the application's own arguments and
/// runs it, or does what another command says.
///
/// The application's own arguments stand beside those of `run` and `reset` and need names of their own; `--help` of these
/// shows which are taken. Where a command needs none of them (`stores`, `topology`), `topology` is called with stand-ins for
/// those that must be there, so it should do nothing but build.
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
    let RunArgs { run, application } = match Cli::<A>::parse().command {
        Command::Run(args) => args,
        answering @ (Command::Topology(_) | Command::Stores(_) | Command::Reset(_) | Command::DeadLetters(_)) => {
            return ended(carry_out(answering, topology));
        }
    };
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

/// Carries out a command that gives an answer and ends.
fn carry_out<A: Args>(
    command: Command<A>,
    topology: impl FnOnce(&A) -> Result<Topology, TopologyError>,
) -> Result<(), CommandError> {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(std::io::stderr);
    subscriber.with_target(false).without_time().init();
    let built = |application: &A| {
        topology(application).map_err(|error| CommandError::Misused(format!("the topology cannot be built: {error}")))
    };
    let mut out = std::io::stdout().lock();
    match command {
        Command::Run(_) => unreachable!("`run` has no answer"),
        Command::Topology(args) => {
            let own = stand_in::arguments(args.own()).map_err(CommandError::Misused)?;
            topology::run(&args, &built(&own)?, &mut out)
        }
        Command::Stores(args) => {
            let own = stand_in::arguments(args.own()).map_err(CommandError::Misused)?;
            stores::run(&args, &built(&own)?, &mut out)
        }
        Command::DeadLetters(args) => dead_letters::run(&args.verb, &args.connection.settings()?, &mut out),
        Command::Reset(args) => reset::run(&args.run.config(), &built(&args.application)?, &args.options, &mut out),
    }
}

/// The exit code of a command; says on standard error what went wrong.
fn ended(outcome: Result<(), CommandError>) -> ExitCode {
    let (code, error) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read the answer has seen enough of it.
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(error @ CommandError::Misused(_)) => (MISUSED, error),
        Err(error @ (CommandError::Failed(_) | CommandError::Output(_))) => (FAILED, error),
    };
    // Nobody can be told where standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
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
    /// Shows what the application is made of: nodes, stores and topics.
    ///
    /// A topic that one of the application's own arguments names is shown by the argument's name, unless it is given behind
    /// `--`.
    #[command(
        after_help = "Example:\n  moving-average topology --format mermaid -- --input readings --output averages"
    )]
    Topology(topology::TopologyArgs),
    /// Shows what is in the stores on this machine's disk, whether a worker runs on it or not.
    ///
    /// Needs the state directory and nothing else: no broker, and none of the application's own arguments. Nothing on disk
    /// is changed.
    Stores(stores::StoresArgs),
    /// Makes the application begin anew, as if it had never run.
    ///
    /// Removes its internal topics, its state on this machine and its committed offsets; inputs and outputs stay as they are.
    /// Takes the arguments of `run`. Refused while workers run. If it is cut short, workers refuse to start until it is run
    /// again. Needs the rights to Delete the internal topics and the group, and to Read the group and the inputs.
    #[command(after_help = RESET_EXAMPLE)]
    Reset(ResetArgs<A>),
    /// Lists, shows and replays the records that the topology could not process.
    #[command(subcommand_value_name = "WHAT")]
    DeadLetters(DeadLettersArgs),
}

#[derive(Debug, Args)]
struct DeadLettersArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: dead_letters::Verb,
}

/// How to reach the brokers as the application.
#[derive(Debug, Args)]
struct Connection {
    /// host:port of some brokers, with commas between.
    #[arg(long, env = "PROCESSOR_BOOTSTRAP_SERVERS", global = true)]
    bootstrap_servers: Option<String>,
    /// The application's id.
    #[arg(long, env = "PROCESSOR_APPLICATION_ID", global = true)]
    application_id: Option<String>,
    /// A librdkafka property, name=value; may be repeated. Prefixes `consumer.` and `producer.` address one client.
    #[arg(long = "kafka", value_name = "NAME=VALUE", value_parser = property, global = true)]
    kafka: Vec<(String, String)>,
}

impl Connection {
    fn settings(&self) -> Result<ClusterSettings, CommandError> {
        let given = |value: &Option<String>, option: &str| {
            value.clone().ok_or_else(|| CommandError::Misused(format!("{option} is missing: give it as to `run`")))
        };
        let servers = given(&self.bootstrap_servers, "--bootstrap-servers")?;
        let mut settings = ClusterSettings::new(servers, given(&self.application_id, "--application-id")?);
        settings.properties = self.kafka.iter().cloned().collect();
        Ok(settings)
    }
}

const RESET_EXAMPLE: &str = "Example, for `run` replaced by `reset`:
  moving-average reset --dry-run --bootstrap-servers localhost:9092 --application-id averages \\
      --input readings --output averages --state-dir /var/lib/averages";

#[derive(Debug, Args)]
struct ResetArgs<A: Args> {
    #[command(flatten)]
    options: reset::ResetOptions,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    application: A,
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
        config
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("it must have the form name=value, such as security.protocol=ssl")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

fn log(format: LogFormat) {
    let filter = filter("info");
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Args)]
    struct Own {
        #[arg(long)]
        _input: String,
        _place: String,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::<Own>::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself_with_an_example() {
        let mut whole = Cli::<Own>::command();
        whole.build();
        let mut leaves = Vec::new();
        let mut open: Vec<_> = whole.get_subcommands().filter(|command| command.get_name() != "help").collect();
        while let Some(command) = open.pop() {
            if command.has_subcommands() {
                open.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
            } else {
                leaves.push(command);
            }
        }
        assert!(leaves.len() >= 10, "{}", leaves.len());
        for command in leaves.into_iter().filter(|command| command.get_name() != "run") {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.contains("Example"), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn looking_at_state_asks_for_none_of_the_applications_own_arguments() {
        let line = |arguments: &[&str]| Cli::<Own>::try_parse_from([&["app"], arguments].concat());
        line(&["stores", "list", "--state-dir", "/s"]).expect("nothing is missing");
        line(&["stores", "get", "a", "b", "--state-dir", "/s", "--", "--input", "x", "y"]).expect("they may be given");
        line(&["dead-letters", "replay", "--letter", "0:1,1:2", "--topic", "t"]).expect("nothing is missing");
        line(&["dead-letters", "replay", "--letter", "0:1", "--all", "--topic", "t"])
            .expect_err("it is one or the other");
        line(&["topology", "--format", "dot"]).expect("nothing is missing");
        line(&["reset", "--application-id", "a"]).expect_err("it takes what `run` takes");
    }
}
