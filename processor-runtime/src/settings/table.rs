//! The only list of settings.

use std::time::Duration;

use processor_core::protocol::restore::StartRule;

use super::kind::{Bounds, Choice, Field, Kind};
use crate::config::{Config, LogFormat};
use crate::kafka::cluster::GroupProtocol;

/// One setting.
///
/// ```
/// use std::time::Duration;
///
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::table::find;
///
/// let setting = find("session.timeout").expect("it is in the table");
/// assert_eq!((&*setting.option(), &*setting.variable()), ("session-timeout", "PROCESSOR_SESSION_TIMEOUT"));
/// assert_eq!(setting.kind.bounds(), Some(("1s".to_owned(), "30m".to_owned())));
/// let mut config = Config::new("app", "localhost:9092", "/var/lib/app");
/// setting.kind.read("9s", &mut config)?;
/// assert_eq!(config.session_timeout, Duration::from_secs(9));
/// assert_eq!(setting.kind.write(&config).as_deref(), Some("9s"));
/// assert!(setting.kind.read("9", &mut config).is_err(), "the unit is missing");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name: the key in the file. With dashes it is the option, in capitals with underscores the variable.
    pub name: &'static str,
    /// What it holds, and its bounds.
    pub kind: Kind,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
    /// What counts where nobody sets it and there is no fixed default.
    pub otherwise: Otherwise,
}

/// What counts where nobody sets a setting.
///
/// ```
/// use processor_runtime::settings::table::{Otherwise, find};
///
/// let otherwise = |name| find(name).map(|setting| setting.otherwise);
/// assert_eq!(otherwise("state.dir"), Some(Otherwise::Required));
/// assert_eq!(otherwise("threads"), Some(Otherwise::Default));
/// assert_eq!(otherwise("config"), Some(Otherwise::Unset("no file")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It must be set.
    Required,
    /// The default in [`Config::new`].
    Default,
    /// What these words say.
    Unset(&'static str),
}

impl Setting {
    /// The option of the command line, without the dashes.
    ///
    /// ```
    /// use processor_runtime::settings::table::find;
    ///
    /// let setting = find("application.id").expect("it is in the table");
    /// assert_eq!(setting.option(), "application-id"); // --application-id
    /// ```
    pub fn option(&self) -> String {
        self.name.replace('.', "-")
    }

    /// The environment variable.
    ///
    /// ```
    /// use processor_runtime::settings::table::find;
    ///
    /// let setting = find("application.id").expect("it is in the table");
    /// assert_eq!(setting.variable(), "PROCESSOR_APPLICATION_ID");
    /// ```
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Whether a file may hold it.
    ///
    /// ```
    /// use processor_runtime::settings::table::SETTINGS;
    ///
    /// let elsewhere: Vec<_> = SETTINGS.iter().filter(|setting| !setting.is_allowed_in_file()).collect();
    /// assert_eq!(elsewhere.iter().map(|setting| setting.name).collect::<Vec<_>>(), ["config"]); // the file itself
    /// ```
    pub fn is_allowed_in_file(&self) -> bool {
        !matches!(self.kind, Kind::SettingsFile)
    }
}

/// What all variables begin with.
///
/// ```
/// use processor_runtime::settings::table::{SETTINGS, VARIABLE_PREFIX};
///
/// assert!(SETTINGS.iter().all(|setting| setting.variable().starts_with(VARIABLE_PREFIX)));
/// ```
pub const VARIABLE_PREFIX: &str = "PROCESSOR_";
/// The table of client properties in the file, and their option.
///
/// ```
/// use processor_runtime::settings::Kind;
/// use processor_runtime::settings::table::{PROPERTIES, find};
///
/// let setting = find(PROPERTIES).expect("it is in the table");
/// assert!(matches!(setting.kind, Kind::Properties));
/// assert_eq!(setting.option(), "kafka"); // --kafka linger.ms=20
/// ```
pub const PROPERTIES: &str = "kafka";

/// The setting of a name; `None` where there is none. Names have dots, in small letters.
///
/// ```
/// use processor_runtime::settings::table::find;
///
/// assert_eq!(find("session.timeout").map(|setting| setting.name), Some("session.timeout"));
/// assert!(find("session-timeout").is_none());
/// ```
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The settings whose values break their bounds, and what would be right.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::table::out_of_bounds;
///
/// let mut config = Config::new("app", "localhost:9092", "/var/lib/app");
/// assert_eq!(out_of_bounds(&config).count(), 0);
/// config.threads = 0;
/// let (setting, problem) = out_of_bounds(&config).next().expect("there is no thread");
/// assert_eq!((setting.name, &*problem), ("threads", "threads = 0: it must lie between 1 and 64"));
/// ```
pub fn out_of_bounds(config: &Config) -> impl Iterator<Item = (&'static Setting, String)> {
    SETTINGS.iter().filter_map(|setting| {
        let text = setting.kind.write(config)?;
        let problem = setting.kind.read(&text, &mut config.clone()).err()?;
        Some((setting, format!("{} = {text}: {problem}", setting.name)))
    })
}

macro_rules! field {
    ($($path:ident).+) => {
        Field { get: |config: &Config| &config.$($path).+, get_mut: |config: &mut Config| &mut config.$($path).+ }
    };
}

const MINUTE: Duration = Duration::from_mins(1);
const MIB: usize = 1 << 20;
const TIB: usize = 1 << 40;

const fn between<T: Copy>(min: T, max: T) -> Bounds<T> {
    Bounds { min, max }
}

const fn millis(min: u64, max: Duration) -> Bounds<Duration> {
    Bounds { min: Duration::from_millis(min), max }
}

/// One value of a field that takes a few.
macro_rules! choice {
    ($field:ident = $value:expr, $name:literal: $meaning:literal) => {
        Choice {
            name: $name,
            meaning: $meaning,
            is_chosen: |config| config.$field == $value,
            choose: |config| config.$field = $value,
        }
    };
}

const RESETS: &[Choice] = &[
    choice!(auto_offset_reset = StartRule::Earliest, "earliest": "at the first record that is still there"),
    choice!(auto_offset_reset = StartRule::Latest, "latest": "behind the last record"),
    choice!(auto_offset_reset = StartRule::Refuse, "none": "nowhere: the worker stops, a person decides"),
];

const GROUP_PROTOCOLS: &[Choice] = &[
    choice!(group_protocol = GroupProtocol::Classic, "classic": "a member shares out; any cluster"),
    choice!(group_protocol = GroupProtocol::Consumer, "consumer": "the broker shares out, KIP-848; Kafka 4.0 or newer"),
];

const LOG_FORMATS: &[Choice] = &[
    choice!(log_format = LogFormat::Text, "text": "lines for people"),
    choice!(log_format = LogFormat::Json, "json": "one JSON object a line"),
];

/// All settings, in the order in which they are listed.
///
/// ```
/// use processor_runtime::settings::table::{Otherwise, SETTINGS};
///
/// let required = SETTINGS.iter().filter(|setting| setting.otherwise == Otherwise::Required);
/// let names: Vec<_> = required.map(|setting| setting.name).collect();
/// assert_eq!(names, ["application.id", "bootstrap.servers", "state.dir"]);
/// ```
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "config",
        kind: Kind::SettingsFile,
        meaning: "A TOML file of settings.",
        otherwise: Otherwise::Unset("no file"),
    },
    Setting {
        name: "application.id",
        kind: Kind::Text(field!(application_id)),
        meaning: "The application's id: its consumer group, and the prefix of its topics, transactional ids and directories.",
        otherwise: Otherwise::Required,
    },
    Setting {
        name: "bootstrap.servers",
        kind: Kind::Text(field!(bootstrap_servers)),
        meaning: "host:port of some brokers, with commas between.",
        otherwise: Otherwise::Required,
    },
    Setting {
        name: "state.dir",
        kind: Kind::Directory(field!(state_dir)),
        meaning: "Where state is kept; the application's own directory is made below it. On a local disk that survives restarts.",
        otherwise: Otherwise::Required,
    },
    Setting {
        name: "instance.id",
        kind: Kind::OptionalText(field!(instance_id)),
        meaning: "This worker's name, the same after a restart and its own: a restart within the session time-out then moves no partition.",
        otherwise: Otherwise::Unset("a name is made once and kept in the state directory, and a stop leaves the group"),
    },
    Setting {
        name: "leave",
        kind: Kind::Switch(field!(leave)),
        meaning: "Whether a worker with an instance id leaves the group when it stops: its partitions move at once, and not when its session times out. For one that is not expected back.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "threads",
        kind: Kind::Count(between(1, 64), field!(threads)),
        meaning: "How many stream threads this process runs.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "auto.offset.reset",
        kind: Kind::Choice(RESETS),
        meaning: "Where an input begins that has no committed offset. An offset that is lost later always stops the task.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "group.protocol",
        kind: Kind::Choice(GROUP_PROTOCOLS),
        meaning: "How the group shares out partitions. Under `consumer` session and heartbeats are the brokers' settings; all workers of an application must agree.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "session.timeout",
        kind: Kind::Duration(millis(1_000, Duration::from_mins(30)), field!(session_timeout)),
        meaning: "session.timeout.ms: how long the group waits for a silent worker before its partitions move.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "heartbeat.interval",
        kind: Kind::Duration(millis(100, Duration::from_mins(10)), field!(heartbeat_interval)),
        meaning: "heartbeat.interval.ms: how often a worker shows that it lives; at most a third of the session time-out.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "max.poll.interval",
        kind: Kind::Duration(millis(1_000, Duration::from_hours(24)), field!(max_poll_interval)),
        meaning: "max.poll.interval.ms: after this long without a poll a worker gives its partitions up; above the session and the transaction time-out.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "max.task.idle",
        kind: Kind::Duration(millis(0, MINUTE), field!(max_task_idle)),
        meaning: "How long a task with several inputs, which are merged lowest timestamp first, holds records back while another input is empty and its log is known to have more, open transactions included. 0 is not at all.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "transaction.timeout",
        kind: Kind::Duration(millis(1_000, Duration::from_hours(24)), field!(transaction_timeout)),
        meaning: "transaction.timeout.ms: how long a silent worker's transaction stays open; at most the brokers' transaction.max.timeout.ms (15 min).",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "replication.factor",
        kind: Kind::OptionalCount(between(1, 1_000), field!(replication_factor)),
        meaning: "Replicas of changelog and internal topics that are made.",
        otherwise: Otherwise::Unset("the brokers' default.replication.factor"),
    },
    Setting {
        name: "repartition.purge.interval",
        kind: Kind::Duration(millis(0, Duration::from_hours(24)), field!(repartition_purge_interval)),
        meaning: "How often records of internal topics are deleted that were committed past a round ago. 0 is never: then the topics grow as far as their retention lets them.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "strict",
        kind: Kind::Switch(field!(strict)),
        meaning: "Whether a cluster that can lose acknowledged records is refused at start, not only warned of.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "memory.budget",
        kind: Kind::Size(between(MIB, TIB), field!(memory_budget_bytes)),
        meaning: "Memory of all state databases together: block cache, write buffers and commits that wait to be written.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "cache.size",
        kind: Kind::Size(between(0, TIB), field!(cache_bytes)),
        meaning: "Memory of all decoded values kept between batches.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "batch.records.max",
        kind: Kind::Count(between(1, 10_000_000), field!(batch_records_max)),
        meaning: "The most records in one transaction.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "batch.bytes.max",
        kind: Kind::Size(between(1, 1 << 30), field!(batch_bytes_max)),
        meaning: "The most bytes of keys and values in one transaction.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "batch.time.max",
        kind: Kind::Duration(millis(1, MINUTE), field!(batch_time_max)),
        meaning: "How long a turn may take under load before batches shrink; at most a quarter of the transaction time-out.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: "http.listen",
        kind: Kind::OptionalAddress(field!(http_listen)),
        meaning: "Shows health, metrics, tasks and state over HTTP on this address; port 0 is a free one, which the log names. An address that other machines can reach needs http.token.file.",
        otherwise: Otherwise::Unset("no HTTP, and nothing is measured"),
    },
    Setting {
        name: "http.advertised",
        kind: Kind::OptionalHost(field!(http_advertised)),
        meaning: "host:port by which others reach this worker's HTTP: who asks another worker for a key of this one is told it. Port 0 is the one that it listens on. The consumer group shows it.",
        otherwise: Otherwise::Unset("the address of http.listen, unless that is loopback or all addresses"),
    },
    Setting {
        name: "http.token.file",
        kind: Kind::OptionalFile(field!(http_token_file)),
        meaning: "A file with the token that HTTP requests for tasks and state must carry (Authorization: Bearer).",
        otherwise: Otherwise::Unset("no token is asked for"),
    },
    Setting {
        name: "log.format",
        kind: Kind::Choice(LOG_FORMATS),
        meaning: "The form of log lines on standard error; what is logged is chosen with RUST_LOG.",
        otherwise: Otherwise::Default,
    },
    Setting {
        name: PROPERTIES,
        kind: Kind::Properties,
        meaning: "Properties of librdkafka, name=value; prefixes `consumer.` and `producer.` address one kind of client. Secret values are better given as file:/path or env:NAME.",
        otherwise: Otherwise::Unset("librdkafka's defaults, and a few of ours"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_settings_share_a_name_and_none_is_the_table_of_another() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[index + 1..] {
                assert_ne!(setting.name, other.name);
                let nested = |outer: &str, inner: &str| inner.starts_with(&format!("{outer}."));
                assert!(!nested(setting.name, other.name) && !nested(other.name, setting.name), "{}", other.name);
            }
        }
    }

    #[test]
    fn every_default_keeps_its_own_bounds() {
        let defaults = Config::new("app", "host:9092", "/state");
        for setting in SETTINGS {
            let Some(text) = setting.kind.write(&defaults) else { continue };
            let mut config = defaults.clone();
            assert_eq!(setting.kind.read(&text, &mut config), Ok(()), "{}", setting.name);
            assert_eq!(setting.kind.write(&config), Some(text), "{}", setting.name);
        }
    }

    #[test]
    fn a_required_setting_has_no_default() {
        let blank = Config::new("", "", "");
        for setting in SETTINGS {
            let has_value = setting.kind.write(&blank).is_some();
            assert_eq!(has_value, setting.otherwise == Otherwise::Default, "{}", setting.name);
        }
    }

    #[test]
    fn names_give_options_and_variables() {
        let setting = find("session.timeout").expect("it is in the table");
        assert_eq!(setting.option(), "session-timeout");
        assert_eq!(setting.variable(), "PROCESSOR_SESSION_TIMEOUT");
    }

    #[test]
    fn an_input_may_begin_earliest_latest_or_nowhere() {
        let mut config = Config::new("app", "host:9092", "/state");
        let reset = find("auto.offset.reset").expect("it is in the table");
        for (name, rule) in
            [("latest", StartRule::Latest), ("none", StartRule::Refuse), ("earliest", StartRule::Earliest)]
        {
            assert_eq!(reset.kind.read(name, &mut config), Ok(()));
            assert_eq!(config.auto_offset_reset, rule);
        }
        assert!(reset.kind.read("error", &mut config).is_err());
    }
}
