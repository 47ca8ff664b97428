//! The command line of every application.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, CommandFactory, FromArgMatches as _, Parser, Subcommand};
use processor_core::topology::{Topology, TopologyError};
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::commands::{CommandError, dead_letters, reset, stand_in, stores, topology};
use crate::config::{Config, LogFormat};
use crate::settings::{self, CommandLine, Connection, Environment, Places, Settings};

/// Exit code: the application could not start, or stopped because of an error.
const FAILED: u8 = 1;
/// Exit code: the command line, or another setting, does not make sense.
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
    Application::new(topology).main()
}

/// An application whose code has a say in its settings; [`main`] is for those that leave them as they are.
///
/// ```no_run
/// # use processor_core::prelude::*;
/// # #[derive(Debug, clap::Args)]
/// # struct Args {}
/// # fn topology(_: &Args) -> Result<Topology, TopologyError> { Topology::builder().build() }
/// fn main() -> std::process::ExitCode {
///     processor_runtime::Application::<Args, _>::new(topology)
///         .configure(|config| {
///             config.threads = 2;
///             config.kafka.insert("producer.linger.ms", "20");
///         })
///         .main()
/// }
/// ```
#[derive(Debug)]
pub struct Application<A, F> {
    topology: F,
    config: Config,
    arguments: PhantomData<fn(&A)>,
}

impl<A: Args, F: FnOnce(&A) -> Result<Topology, TopologyError>> Application<A, F> {
    /// An application that builds its topology from its own arguments.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// use std::cell::Cell;
    ///
    /// #[derive(Debug, clap::Args)]
    /// struct NoArgs {}
    ///
    /// let is_built = Cell::new(false);
    /// let application = processor_runtime::Application::<NoArgs, _>::new(|_| {
    ///     is_built.set(true);
    ///     Topology::builder().build()
    /// });
    /// assert!(!is_built.get(), "it is built when a command needs it");
    /// # drop(application);
    /// ```
    pub fn new(topology: F) -> Self {
        Self { topology, config: Config::new("", "", ""), arguments: PhantomData }
    }

    /// Changes the defaults of settings. The file, the environment and the command line are stronger.
    ///
    /// What is wrong with them is said when they are resolved, together with what is wrong elsewhere.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # #[derive(Debug, clap::Args)]
    /// # struct Args {}
    /// # fn topology(_: &Args) -> Result<Topology, TopologyError> { Topology::builder().build() }
    /// let application = processor_runtime::Application::<Args, _>::new(topology)
    ///     .configure(|config| config.threads = 2)
    ///     .configure(|config| assert_eq!(config.threads, 2));
    /// # drop(application);
    /// ```
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Parses the command line and does what it says.
    ///
    /// Exit codes: 0 done, or stopped as told; 1 it could not start or could not go on; 2 the command line, another
    /// setting or the topology does not make sense.
    ///
    /// ```no_run
    /// # use processor_core::prelude::*;
    /// # #[derive(Debug, clap::Args)]
    /// # struct Args {}
    /// # fn topology(_: &Args) -> Result<Topology, TopologyError> { Topology::builder().build() }
    /// fn main() -> std::process::ExitCode {
    ///     processor_runtime::Application::<Args, _>::new(topology).main()
    /// }
    /// ```
    pub fn main(self) -> ExitCode {
        match Cli::<A>::of_this_process().command {
            Command::Run(RunArgs { settings: given, application }) => match settings::<A>(self.config, &given) {
                Ok(settings) => run(&settings.config, (self.topology)(&application)),
                Err(code) => code,
            },
            Command::Config(ConfigArgs { settings: given, json }) => match settings::<A>(self.config, &given) {
                Ok(settings) => print_settings(&settings, json),
                Err(code) => code,
            },
            Command::Reset(ResetArgs { options, settings: given, application }) => {
                match settings::<A>(self.config, &given) {
                    Ok(settings) => ended(answer(|out| {
                        reset::run(&settings.config, &built(self.topology, &application)?, &options, out)
                    })),
                    Err(code) => code,
                }
            }
            Command::Topology(args) => ended(answer(|out| {
                let own = stand_in::arguments(args.own()).map_err(CommandError::Misused)?;
                topology::run(&args, &built(self.topology, &own)?, out)
            })),
            Command::Stores(args) => ended(answer(|out| {
                let topology = |own: &[OsString]| {
                    let own = stand_in::arguments(own).map_err(CommandError::Misused)?;
                    built(self.topology, &own)
                };
                stores::run(&args, topology, out)
            })),
            Command::DeadLetters(args) => {
                let given = args.connection.command_line();
                match settings_without::<A>(self.config, given, &["state.dir"]) {
                    Ok(settings) => {
                        let cluster = settings.config.cluster_settings();
                        ended(answer(|out| dead_letters::run(&args.verb, &cluster, out)))
                    }
                    Err(code) => code,
                }
            }
        }
    }
}

fn built<A>(
    topology: impl FnOnce(&A) -> Result<Topology, TopologyError>,
    application: &A,
) -> Result<Topology, CommandError> {
    topology(application).map_err(|error| CommandError::Misused(format!("the topology cannot be built: {error}")))
}

/// Carries out a command that gives an answer on standard output and ends.
fn answer(
    command: impl FnOnce(&mut std::io::StdoutLock<'static>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter("warn")).with_writer(std::io::stderr);
    subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).without_time().init();
    command(&mut std::io::stdout().lock())
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

fn run(config: &Config, topology: Result<Topology, TopologyError>) -> ExitCode {
    log(config.log_format);
    let topology = match topology {
        Ok(topology) => topology,
        Err(error) => return failed(MISUSED, &format!("the topology cannot be built: {error}")),
    };
    match run_until_signal(config, &topology) {
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

impl<A: Args> Cli<A> {
    /// What this process was started with; prints help, or what is wrong, and ends where that is the answer.
    fn of_this_process() -> Self {
        let program = std::env::args_os().next().map(PathBuf::from);
        let program =
            program.as_deref().and_then(Path::file_name).map_or_else(|| EXAMPLE.into(), OsStr::to_string_lossy);
        let matches = in_examples(Self::command(), &program).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The program in the examples of the help texts as they are written.
const EXAMPLE: &str = "moving-average";

/// With the examples of a command and those below it as they are typed for this program.
fn in_examples(command: clap::Command, program: &str) -> clap::Command {
    let example = command.get_after_help().map(|help| help.to_string().replace(EXAMPLE, program));
    let command = command.mut_subcommands(|below| in_examples(below, program));
    match example {
        Some(example) => command.after_help(example),
        None => command,
    }
}

#[derive(Debug, Subcommand)]
enum Command<A: Args> {
    /// Processes records until it is told to stop (SIGTERM, SIGINT).
    Run(RunArgs<A>),
    /// Shows every setting, its value and where it came from; exits with 2 if they do not make sense.
    Config(ConfigArgs),
    /// Shows what the application is made of: nodes, stores and topics.
    ///
    /// A topic that one of the application's own arguments names is shown by the argument's name, unless it is given behind
    /// `--`. Nothing runs, so none of the settings is taken.
    #[command(after_help = "Example:\n  moving-average topology --format mermaid -- <the application's own arguments>")]
    Topology(topology::TopologyArgs),
    /// Shows what is in the stores: on this machine's disk, or over HTTP as workers have it now.
    ///
    /// Needs the state directory, whether a worker runs on it or not, or the URL of a worker, and nothing else: no broker,
    /// and none of the application's own arguments. Nothing is changed.
    Stores(stores::StoresArgs),
    /// Makes the application begin anew, as if it had never run.
    ///
    /// Removes its internal topics, its state on this machine and its committed offsets; inputs and outputs stay as they are.
    /// Takes the arguments of `run`. Refused while workers run (--dry-run is not). If it is cut short, workers refuse to start until it is run
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

const RESET_EXAMPLE: &str = "Example, for `run` replaced by `reset`:
  moving-average reset --dry-run --bootstrap-servers localhost:9092 --application-id averages \\
      --state-dir /var/lib/averages <the application's own arguments>";

#[derive(Debug, Args)]
struct ResetArgs<A: Args> {
    #[command(flatten)]
    options: reset::ResetOptions,
    #[command(flatten)]
    application: A,
    #[command(flatten)]
    settings: CommandLine,
}

#[derive(Debug, Args)]
struct RunArgs<A: Args> {
    #[command(flatten)]
    application: A,
    #[command(flatten)]
    settings: CommandLine,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: CommandLine,
}

/// The settings of all places, or the exit code after what is wrong was said.
fn settings<A: Args>(code: Config, command_line: &CommandLine) -> Result<Settings, ExitCode> {
    settings_without::<A>(code, command_line, &[])
}

/// As [`settings`], where these need not be set.
fn settings_without<A: Args>(
    code: Config,
    command_line: &CommandLine,
    unneeded: &[&str],
) -> Result<Settings, ExitCode> {
    let (environment, other_variables) = (Environment::of_this_process(), variables(&Cli::<A>::command()));
    let places = Places { code, environment: &environment, other_variables: &other_variables, command_line };
    settings::resolve_without(places, unneeded).map_err(|error| {
        for problem in error.problems {
            eprintln!("error: {problem}");
        }
        ExitCode::from(MISUSED)
    })
}

/// The environment variables that a command and those below it read for their own arguments.
fn variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

fn print_settings(settings: &Settings, as_json: bool) -> ExitCode {
    let text = if as_json { format!("{:#}\n", settings.json()) } else { settings.table() };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads may have seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot print: {error}");
            ExitCode::from(FAILED)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
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
    use super::*;

    #[derive(Debug, Args)]
    struct Nothing {}

    #[test]
    fn examples_are_typed_for_this_program() {
        let mut command = in_examples(Cli::<Nothing>::command(), "shop");
        let reset = command.find_subcommand_mut("reset").expect("it is a command").render_long_help().to_string();
        assert!(reset.contains("  shop reset --dry-run"), "{reset}");
        let stores = command.find_subcommand_mut("stores").expect("it is a command");
        let get = stores.find_subcommand_mut("get").expect("it is a verb").render_help().to_string();
        assert!(get.contains("  shop stores get window") && !get.contains(EXAMPLE), "{get}");
    }

    /// A line that a terminal breaks cannot be copied.
    #[test]
    fn examples_fit_into_a_terminal() {
        const COLUMNS: usize = 100;
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long = help.lines().find(|line| line.len() > COLUMNS);
            assert_eq!(long, None, "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::<Nothing>::command());
    }
}
