//! From the four places to one [`Config`]: later places win, everything that is wrong is listed at once.
//!
//! Order: code, file, environment, command line; then secrets are looked up; then bounds, properties and the relations
//! between settings are checked on what came out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::command_line::CommandLine;
use super::environment::Environment;
use super::file;
use super::kind::Kind;
use super::nearest::suggestion;
use super::origin::Origin;
use super::table::{self, Otherwise, PROPERTIES, SETTINGS, Setting};
use crate::config::Config;
use crate::kafka::client_properties::{PropertyValue, is_known, is_secret, known_names, problem};
use crate::kafka::cluster::Cluster;
use crate::secret::{Secret, is_reference};

/// A value as it was given: the name of a setting, or `kafka.<property>`. It may be a secret, so its `Debug` hides it.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The places that settings come from, beside the file that they name.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
///
/// // The application has an argument of its own, `#[arg(long, env = "PROCESSOR_INPUT")]`.
/// let environment: Environment = [("PROCESSOR_INPUT", "readings")].into_iter().collect();
/// let command_line = CommandLine::default();
/// let own = ["PROCESSOR_INPUT".to_owned()];
/// let places = |other_variables| Places {
///     code: Config::new("app", "localhost:9092", "/var/lib/app"),
///     environment: &environment,
///     other_variables,
///     command_line: &command_line,
/// };
/// assert!(resolve(places(&own)).is_ok());
/// assert!(resolve(places(&[])).is_err()); // nobody knows the variable
/// ```
#[derive(Debug)]
pub struct Places<'a> {
    /// What the application's code made of the defaults.
    pub code: Config,
    /// The environment.
    pub environment: &'a Environment,
    /// Variables with the prefix `PROCESSOR_` that belong to the application's own arguments.
    pub other_variables: &'a [String],
    /// The options of the command line.
    pub command_line: &'a CommandLine,
}

/// Settings that make sense, and where each came from.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
///
/// let environment: Environment = [("PROCESSOR_THREADS", "4")].into_iter().collect();
/// let settings = resolve(Places {
///     code: Config::new("app", "localhost:9092", "/var/lib/app"),
///     environment: &environment,
///     other_variables: &[],
///     command_line: &CommandLine::default(),
/// })?;
/// assert_eq!(settings.config.threads, 4);
/// let threads = settings.entries.iter().find(|entry| entry.name == "threads").expect("all are listed");
/// assert_eq!((threads.value.as_deref(), threads.origin.place()), (Some("4"), "environment"));
/// assert!(settings.table().contains("PROCESSOR_THREADS")); // for people
/// assert!(settings.json()["settings"].is_array()); // for machines
/// # Ok::<(), processor_runtime::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// What they come to.
    pub config: Config,
    /// Each of them, in the order of the table, then the properties by name.
    pub entries: Vec<Entry>,
}

/// One setting as it came out, fit to be shown.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Entry, Environment, Origin, Places, resolve};
///
/// # let (environment, command_line) = (Environment::default(), CommandLine::default());
/// let mut code = Config::new("app", "localhost:9092", "/var/lib/app");
/// code.kafka.insert("ssl.key.password", "hunter2");
/// # let places =
/// #     Places { code, environment: &environment, other_variables: &[], command_line: &command_line };
/// let entries = resolve(places)?.entries;
/// let password = entries.iter().find(|entry| entry.name == "kafka.ssl.key.password");
/// let shown = Some("(hidden)".to_owned());
/// let expected = Entry { name: "kafka.ssl.key.password".to_owned(), value: shown, origin: Origin::Code };
/// assert_eq!(password, Some(&expected));
/// # Ok::<(), processor_runtime::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its value; `None` where it is not set. Of a secret only the reference, or that it is hidden.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// All that is wrong with the settings, one problem a line: where, what, and what to do.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
///
/// let environment: Environment = [("PROCESSOR_THREADS", "0"), ("PROCESSOR_THREDS", "4")].into_iter().collect();
/// let error = resolve(Places {
///     code: Config::new("app", "localhost:9092", ""),
///     environment: &environment,
///     other_variables: &[],
///     command_line: &CommandLine::default(),
/// })
/// .unwrap_err();
/// let said = |words: &str| error.problems.iter().any(|problem| problem.contains(words));
/// assert!(said("threads: it must lie between 1 and 64"), "{error}");
/// assert!(said("PROCESSOR_THREDS: no setting has this variable"), "{error}");
/// assert!(said("state.dir is not set: give it as --state-dir"), "{error}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub struct SettingsError {
    /// The problems.
    pub problems: Vec<String>,
}

/// Reads and checks all settings.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
///
/// let places = Places {
///     code: Config::new("app", "localhost:9092", "/var/lib/app"),
///     environment: &Environment::default(),
///     other_variables: &[],
///     command_line: &CommandLine::default(),
/// };
/// let settings = resolve(places).unwrap();
/// assert_eq!(settings.config.threads, 1);
/// ```
///
/// # Errors
/// Unknown names, values that cannot be read, settings that are missing or contradict each other.
pub fn resolve(places: Places<'_>) -> Result<Settings, SettingsError> {
    resolve_without(places, &[])
}

/// As [`resolve`], for whoever needs no value for some of the settings that must be there.
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::{CommandLine, Environment, Places, resolve, resolve_without};
///
/// let (environment, command_line) = (Environment::default(), CommandLine::default());
/// let places = || Places {
///     code: Config::new("app", "localhost:9092", ""), // no state directory
///     environment: &environment,
///     other_variables: &[],
///     command_line: &command_line,
/// };
/// assert!(resolve(places()).is_err());
/// assert!(resolve_without(places(), &["state.dir"]).is_ok());
/// ```
///
/// # Errors
/// As [`resolve`].
pub fn resolve_without(places: Places<'_>, unneeded: &[&str]) -> Result<Settings, SettingsError> {
    let (mut stronger, mut problems) = (Vec::new(), Vec::new());
    let (mut resolving, mut given) = Resolving::new(places.code);
    places.environment.given(places.other_variables, &mut stronger, &mut problems);
    stronger.extend_from_slice(places.command_line.given());
    if let Some(named) = stronger.iter().rev().find(|it| it.name == "config") {
        match std::fs::read_to_string(&named.value) {
            Ok(text) => file::given(Path::new(&named.value), &text, &mut given, &mut problems),
            Err(error) => problems.push(format!(
                "{}: cannot read the settings file {}: {error}; correct the path or its rights",
                named.origin, named.value
            )),
        }
    }
    given.extend(stronger);
    for it in given {
        if let Err(problem) = resolving.take(&it, places.environment) {
            problems.push(format!("{}: {problem}", it.origin));
        }
    }
    resolving.check(unneeded, &mut problems);
    if problems.is_empty() { Ok(resolving.settings()) } else { Err(SettingsError { problems }) }
}

struct Resolving {
    config: Config,
    origins: BTreeMap<String, Origin>,
    /// What people are shown in place of a value: the file's path, and references to secrets.
    shown: BTreeMap<String, String>,
}

impl Resolving {
    /// The properties of the code are read like those of the other places: a secret may be a reference there too.
    fn new(mut code: Config) -> (Self, Vec<Given>) {
        let blank = Config::new("", "", "");
        let is_changed = |setting: &&Setting| setting.kind.write(&code) != setting.kind.write(&blank);
        let changed = SETTINGS.iter().filter(is_changed);
        let origins = changed.map(|setting| (setting.name.to_owned(), Origin::Code)).collect();
        let given = |(name, value): (&str, &PropertyValue)| Given {
            name: property_key(name),
            value: value.expose().to_owned(),
            origin: Origin::Code,
        };
        let properties = std::mem::take(&mut code.kafka).iter().map(given).collect();
        (Self { config: code, origins, shown: BTreeMap::new() }, properties)
    }

    fn take(&mut self, given: &Given, environment: &Environment) -> Result<(), String> {
        let Given { name, value, origin } = given;
        self.shown.remove(name);
        if let Some(setting) = table::find(name) {
            setting.kind.read(value, &mut self.config).map_err(|problem| format!("{name}: {problem}"))?;
            if matches!(setting.kind, Kind::SettingsFile) {
                self.shown.insert(name.clone(), value.clone());
            }
        } else {
            let property = name.strip_prefix(PROPERTIES).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
            self.take_property(property, value, environment)?;
        }
        self.origins.insert(name.clone(), origin.clone());
        Ok(())
    }

    fn take_property(&mut self, name: &str, value: &str, environment: &Environment) -> Result<(), String> {
        if !is_known(name) {
            let near = suggestion(name, known_names().iter().map(String::as_str));
            return Err(format!("librdkafka has no property {name}{near}; correct it or remove it"));
        }
        if !is_secret(name) {
            self.config.kafka.insert(name, value);
            return Ok(());
        }
        let secret = Secret::read(value, |variable| environment.get(variable).map(ToOwned::to_owned));
        let secret = secret.map_err(|problem| format!("the secret {name}: {problem}"))?;
        if is_reference(value) {
            self.shown.insert(property_key(name), value.to_owned());
        }
        self.config.kafka.insert(name, secret.expose());
        Ok(())
    }

    fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// Bounds, properties, what is missing; then, if nothing else is wrong, the relations between settings.
    fn check(&self, unneeded: &[&str], problems: &mut Vec<String>) {
        let beyond = table::out_of_bounds(&self.config);
        problems.extend(beyond.map(|(setting, problem)| format!("{}: {problem}", self.origin(setting.name))));
        let is_missing =
            |setting: &&Setting| setting.kind.write(&self.config).is_none() && !unneeded.contains(&setting.name);
        let required = SETTINGS.iter().filter(|setting| setting.otherwise == Otherwise::Required);
        problems.extend(required.filter(is_missing).map(missing));
        for (name, value) in self.config.kafka.iter() {
            if let Some(problem) = problem(name, value, self.config.transaction_timeout) {
                problems.push(format!("{}: {problem}", self.origin(&property_key(name))));
            }
        }
        if problems.is_empty() {
            problems.extend(self.config.check_relations().err().map(|error| error.0));
            problems.extend(Cluster::new(self.config.cluster_settings()).err().map(|error| error.message));
        }
    }

    fn settings(self) -> Settings {
        let entry = |name: String, value: Option<String>| Entry {
            origin: self.origin(&name),
            value: self.shown.get(&name).cloned().or(value),
            name,
        };
        let rows = SETTINGS.iter().filter(|setting| setting.name != PROPERTIES);
        let mut entries: Vec<Entry> =
            rows.map(|setting| entry(setting.name.to_owned(), setting.kind.write(&self.config))).collect();
        let properties = self.config.kafka.iter();
        entries.extend(properties.map(|(name, value)| entry(property_key(name), Some(value.shown().to_owned()))));
        Settings { entries, config: self.config }
    }
}

fn property_key(name: &str) -> String {
    format!("{PROPERTIES}.{name}")
}

fn missing(setting: &Setting) -> String {
    format!(
        "{} is not set: give it as --{}, as {}, or as {} in the settings file",
        setting.name,
        setting.option(),
        setting.variable(),
        setting.name
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::secret::HIDDEN;

    fn command_line(arguments: &[&str]) -> CommandLine {
        let command = CommandLine::augment_args(Command::new("app").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("the options make sense");
        CommandLine::from_arg_matches(&matches).expect("they were parsed")
    }

    fn resolved(code: Config, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Settings, SettingsError> {
        let environment: Environment = variables.iter().copied().collect();
        let command_line = command_line(arguments);
        resolve(Places { code, environment: &environment, other_variables: &[], command_line: &command_line })
    }

    fn code() -> Config {
        Config::new("app", "host:9092", "/state")
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("app.toml");
        std::fs::write(&path, text).expect("a writable directory");
        (dir, path.display().to_string())
    }

    fn entry(settings: &Settings, name: &str) -> Entry {
        settings.entries.iter().find(|entry| entry.name == name).expect("it is listed").clone()
    }

    #[test]
    fn each_place_is_stronger_than_the_one_before() {
        let (_dir, path) = file("threads = 3\n[kafka]\nlinger.ms = 3\n");
        let variables = [("PROCESSOR_THREADS", "4"), ("PROCESSOR_KAFKA_LINGER_MS", "4")];
        let mut code = code();
        code.threads = 2;
        code.kafka.insert("linger.ms", "2");
        let options: [&[&str]; 2] = [&["--config", &path], &["--threads", "5", "--kafka", "linger.ms=5"]];
        let from_file = Origin::File { path: path.clone().into(), line: 1 };
        let cases = [
            (resolved(Config::new("a", "b:1", "/c"), &[], &[]), "1", Origin::Default),
            (resolved(code.clone(), &[], &[]), "2", Origin::Code),
            (resolved(code.clone(), &[], options[0]), "3", from_file),
            (resolved(code.clone(), &variables, options[0]), "4", Origin::Environment("PROCESSOR_THREADS".into())),
            (resolved(code, &variables, &options.concat()), "5", Origin::CommandLine("threads".into())),
        ];
        for (settings, value, origin) in cases {
            let settings = settings.expect("they make sense");
            let threads = entry(&settings, "threads");
            assert_eq!((threads.value.as_deref(), threads.origin), (Some(value), origin));
            assert_eq!(settings.config.threads.to_string(), value);
            if let Some(linger) = settings.config.kafka.get("linger.ms") {
                assert_eq!(linger.expose(), value);
            }
        }
    }

    #[test]
    fn the_option_names_a_stronger_file_than_the_variable() {
        let (_dir, path) = file("threads = 3\n");
        let settings = resolved(code(), &[("PROCESSOR_CONFIG", "/no/such/file")], &["--config", &path]);
        let settings = settings.expect("the variable's file is not read");
        assert_eq!(settings.config.threads, 3);
        assert_eq!(entry(&settings, "config").value, Some(path));
        let error = resolved(code(), &[("PROCESSOR_CONFIG", "/no/such/file")], &[]).expect_err("there is none");
        assert!(error.to_string().contains("PROCESSOR_CONFIG: cannot read the settings file /no/such/file"), "{error}");
    }

    #[test]
    fn all_problems_are_listed_with_their_places() {
        let (_dir, path) = file("threds = 3\nsession.timeout = 6\n[kafka]\nlingr.ms = 1\nacks = 1\n");
        let variables = [("PROCESSOR_CONFIG", path.as_str()), ("PROCESSOR_THREADS", "many")];
        let error = resolved(Config::new("", "", "/state"), &variables, &[]).expect_err("nothing is right");
        let text = error.to_string();
        for words in [
            format!("{path}:1: there is no setting 'threds' (the nearest is 'threads')"),
            format!("{path}:2: session.timeout: it must be a duration with its unit"),
            format!("{path}:4: librdkafka has no property lingr.ms (the nearest is 'linger.ms')"),
            format!("{path}:5: the property acks cannot be set"),
            "PROCESSOR_THREADS: threads: it must be a whole number between 1 and 64".to_owned(),
            "application.id is not set: give it as --application-id, as PROCESSOR_APPLICATION_ID".to_owned(),
            "bootstrap.servers is not set".to_owned(),
        ] {
            assert!(text.contains(&words), "'{words}' is not in:\n{text}");
        }
        assert_eq!(error.problems.len(), 7, "{text}");
    }

    #[test]
    fn contradictions_are_refused() {
        for (arguments, words) in [
            (["--heartbeat-interval", "3s"], "over a third of the session time-out"),
            (["--transaction-timeout", "10m"], "is not under the poll interval"),
            (["--batch-time-max", "5s"], "batch.time.max"),
            (["--instance-id", "a:b"], "instance.id 'a:b'"),
            (["--kafka", "linger.ms=soon"], "--kafka: librdkafka refuses the property linger.ms"),
        ] {
            let error = resolved(code(), &[], &arguments).expect_err("it is a contradiction");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = resolved(code(), &[], &["--strict", "--replication-factor", "2"]).expect_err("two are few");
        assert!(error.to_string().contains("replication.factor under 3"), "{error}");
        let mut wrong = code();
        wrong.threads = 65;
        let error = resolved(wrong, &[], &[]).expect_err("code has bounds too");
        assert_eq!(error.to_string(), "code: threads = 65: it must lie between 1 and 64");
    }

    #[test]
    fn secrets_are_used_and_never_shown() {
        let (_dir, password) = file("hunter2\n");
        let reference = format!("file:{password}");
        let variables =
            [("PROCESSOR_KAFKA_SASL_PASSWORD", reference.as_str()), ("PEM", "hunter3"), ("PROCESSOR_THREADS", "2")];
        let arguments = ["--kafka", "ssl.key.password=hunter4", "--kafka", "ssl.keystore.password=env:PEM"];
        let settings = resolved(code(), &variables, &arguments).expect("they make sense");
        let value = |name: &str| settings.config.kafka.get(name).map(|value| value.expose().to_owned());
        assert_eq!(value("sasl.password").as_deref(), Some("hunter2"));
        assert_eq!(value("ssl.keystore.password").as_deref(), Some("hunter3"));
        assert_eq!(value("ssl.key.password").as_deref(), Some("hunter4"));
        assert_eq!(entry(&settings, "kafka.sasl.password").value.as_deref(), Some(reference.as_str()));
        assert_eq!(entry(&settings, "kafka.ssl.key.password").value.as_deref(), Some(HIDDEN));
        let all = format!("{settings:?}{:?}{}{}", command_line(&arguments), settings.table(), settings.json());
        assert!(!all.contains("hunter"), "{all}");
    }

    #[test]
    fn durations_and_sizes_reach_the_configuration() {
        let arguments = ["--transaction-timeout", "20s", "--cache-size", "1GiB", "--auto-offset-reset", "none"];
        let config = resolved(code(), &[], &arguments).expect("they make sense").config;
        assert_eq!((config.transaction_timeout, config.cache_bytes), (Duration::from_secs(20), 1 << 30));
    }
}
