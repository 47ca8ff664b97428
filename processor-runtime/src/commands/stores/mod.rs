//! `stores`: what is in the stores, on this machine's disk, or as workers that run have it.
//!
//! On disk it is the committed state of one moment, task by task, whether a worker runs on it or not. A task's directory
//! stays behind when the task moves to another worker, so each answer says of which task it is, and `list` says when that
//! task was last written here. Over HTTP it is what the owners have now, of all tasks that can be asked.

mod disk;
mod found;
mod http;
mod owners;
mod remote;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use processor_core::topology::Topology;

use self::owners::WorkerUrl;
use super::CommandError;

/// The arguments of `stores`.
#[derive(Debug, Args)]
pub(crate) struct StoresArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the stores of each task, with their size and how far they are.
    ///
    /// Sizes are estimates; `count` counts. On disk a task that has moved to another worker stays behind as it was: look at
    /// when it was written. A worker that runs tells sizes only.
    #[command(after_help = "Examples:\n  moving-average stores list --state-dir /var/lib/averages\n  \
                            moving-average stores list --url http://127.0.0.1:8080")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Shows the value of a key. Exits with 1 if it has none.
    #[command(after_help = "Examples:\n  moving-average stores get window sensor-1 --state-dir /var/lib/averages\n  \
                            moving-average stores get window sensor-1 --url http://worker-1:8080 \\\n      --token-file token --follow")]
    Get {
        /// The store's name.
        store: String,
        /// The key: as JSON, or as plain text.
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// Shows the entries between two keys, in key order, task by task.
    #[command(
        after_help = "Example:\n  moving-average stores range window --from sensor-1 --to sensor-2 --limit 10 \\\n      --state-dir /var/lib/averages"
    )]
    Range {
        /// The store's name.
        store: String,
        /// The first key; all from the first, if it is not given.
        #[arg(long)]
        from: Option<String>,
        /// The key behind the last; all to the last, if it is not given.
        #[arg(long)]
        to: Option<String>,
        /// From the last key to the first.
        #[arg(long)]
        reverse: bool,
        /// The most entries to show; how many more there are is said.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Counts the entries of a store, task by task.
    #[command(after_help = "Example:\n  moving-average stores count window --state-dir /var/lib/averages")]
    Count {
        /// The store's name.
        store: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the state is.
#[derive(Debug, Args)]
struct Place {
    /// The state directory, as given to `run`. With --url it is not looked at.
    #[arg(long, env = "PROCESSOR_STATE_DIR", required_unless_present = "url")]
    state_dir: Option<PathBuf>,
    /// The application's id; needed only where the directory holds the state of several.
    #[arg(long, env = "PROCESSOR_APPLICATION_ID")]
    application_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
    /// Answers with a JSON document.
    #[arg(long)]
    json: bool,
    /// The application's own arguments, needed only where the stores' types depend on them.
    #[arg(last = true, value_name = "OWN ARGUMENTS")]
    own: Vec<OsString>,
}

/// Which worker to ask, and how.
#[derive(Clone, Debug, Args)]
struct Remote {
    /// Asks the worker at http://host:port (its http.listen) instead of the disk, and the others for the tasks that they run.
    ///
    /// The worker names the owners of the tasks that it does not run, with the addresses that they advertise
    /// (http.advertised). What of the store could not be had is named, and the exit code is 1.
    #[arg(long, value_name = "URL")]
    url: Option<WorkerUrl>,
    /// A file with the workers' token (http.token.file). It is sent to the worker of --url and, without --follow, to no other.
    #[arg(long, env = "PROCESSOR_HTTP_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sends the token to the other workers too, wherever the consumer group says that they are.
    ///
    /// Whoever may join the group can name an address. Without a token there is nothing to lose, and they are asked anyway.
    #[arg(long, requires = "url")]
    follow: bool,
    /// How long to wait, in all, for what passes by itself: a rebalance, a restore, a worker that restarts.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

impl Verb {
    fn place(&self) -> &Place {
        match self {
            Self::List { place } | Self::Get { place, .. } | Self::Range { place, .. } | Self::Count { place, .. } => {
                place
            }
        }
    }
}

/// Answers. The topology is made only if it is needed, from the application's own arguments, as far as they were given.
pub(crate) fn run(
    args: &StoresArgs,
    topology: impl FnOnce(&[OsString]) -> Result<Topology, CommandError>,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let place = args.verb.place();
    match &place.remote.url {
        Some(url) => remote::run(&args.verb, url, &place.remote, place.json, out),
        None => disk::run(&args.verb, place, &topology(&place.own)?, out),
    }
}
