//! Settings as options of the command line: one for every row of the table.

use clap::builder::{PossibleValue, PossibleValuesParser, StyledStr};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::kind::Kind;
use super::origin::Origin;
use super::resolve::Given;
use super::table::{Otherwise, PROPERTIES, SETTINGS, Setting};
use crate::config::Config;

const HEADING: &str = "Settings";

/// What the options set. Flatten it into the arguments of a command that needs settings.
///
/// ```
/// use clap::Parser;
/// use processor_runtime::settings::CommandLine;
///
/// #[derive(clap::Parser)]
/// struct Inspect {
///     #[command(flatten)]
///     settings: CommandLine,
/// }
///
/// Inspect::try_parse_from(["inspect", "--session-timeout", "9s", "--kafka", "linger.ms=1"]).unwrap();
/// assert!(Inspect::try_parse_from(["inspect", "--session-timeout", "9"]).is_err()); // the unit is missing
/// ```
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    given: Vec<Given>,
}

impl CommandLine {
    pub(super) fn given(&self) -> &[Given] {
        &self.given
    }
}

/// The key of a setting's option in clap. A space keeps it apart from the fields of an application's own arguments.
fn key(setting: &Setting) -> String {
    format!("setting {}", setting.name)
}

impl Args for CommandLine {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(option))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CommandLine {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut command_line = Self::default();
        command_line.update_from_arg_matches(matches)?;
        Ok(command_line)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            // A command may have the options of a part of the settings only.
            let is_there = matches.try_contains_id(&key(setting)).is_ok();
            if !is_there || matches.value_source(&key(setting)) != Some(ValueSource::CommandLine) {
                continue;
            }
            let origin = Origin::CommandLine(setting.option());
            for value in matches.get_many::<String>(&key(setting)).into_iter().flatten() {
                let (name, value) = match value.split_once('=').filter(|_| setting.name == PROPERTIES) {
                    Some((property, value)) => (format!("{PROPERTIES}.{}", property.trim()), value.trim()),
                    None => (setting.name.to_owned(), value.as_str()),
                };
                self.given.push(Given { name, value: value.to_owned(), origin: origin.clone() });
            }
        }
        Ok(())
    }
}

/// The options that say how to reach the cluster as the application, for a command that needs no other. They may stand before
/// and behind a command below it.
///
/// ```
/// use clap::Parser;
/// use processor_runtime::settings::Connection;
///
/// #[derive(clap::Parser)]
/// struct Look {
///     #[command(flatten)]
///     connection: Connection,
/// }
///
/// Look::try_parse_from(["look", "--bootstrap-servers", "host:9092", "--kafka", "security.protocol=ssl"]).unwrap();
/// assert!(Look::try_parse_from(["look", "--session-timeout", "9s"]).is_err()); // it joins no group
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connection(CommandLine);

impl Connection {
    /// The settings that have an option.
    const NAMES: [&str; 5] = ["config", "application.id", "bootstrap.servers", "transaction.timeout", PROPERTIES];

    /// What the options set.
    ///
    /// ```
    /// use clap::Parser;
    /// use processor_runtime::config::Config;
    /// use processor_runtime::settings::{Connection, Environment, Places, resolve_without};
    ///
    /// #[derive(clap::Parser)]
    /// struct Look {
    ///     #[command(flatten)]
    ///     connection: Connection,
    /// }
    ///
    /// let arguments = ["look", "--bootstrap-servers", "host:9092", "--application-id", "app"];
    /// let look = Look::try_parse_from(arguments).unwrap();
    /// let places = Places {
    ///     code: Config::new("", "", ""),
    ///     environment: &Environment::default(),
    ///     other_variables: &[],
    ///     command_line: look.connection.command_line(),
    /// };
    /// let settings = resolve_without(places, &["state.dir"]).unwrap();
    /// assert_eq!(settings.config.bootstrap_servers, "host:9092");
    /// ```
    pub fn command_line(&self) -> &CommandLine {
        &self.0
    }
}

impl Args for Connection {
    fn augment_args(command: Command) -> Command {
        let needed = SETTINGS.iter().filter(|setting| Self::NAMES.contains(&setting.name));
        command.args(needed.map(|setting| option(setting).global(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Connection {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        CommandLine::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

fn option(setting: &'static Setting) -> Arg {
    let arg = Arg::new(key(setting)).long(setting.option()).help(help(setting)).help_heading(HEADING);
    let check = move |text: &str| setting.kind.read(text, &mut Config::new("", "", "")).map(|()| text.to_owned());
    match setting.kind {
        Kind::Choice(choices) => {
            let values = choices.iter().map(|choice| PossibleValue::new(choice.name).help(choice.meaning));
            arg.value_name("CHOICE").value_parser(PossibleValuesParser::new(values))
        }
        Kind::Switch(_) => {
            let arg = arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true");
            arg.value_parser(check)
        }
        Kind::Properties => arg.value_name("NAME=VALUE").action(ArgAction::Append).value_parser(property),
        Kind::Text(_) | Kind::OptionalText(_) => arg.value_name("TEXT").value_parser(check),
        Kind::Directory(_) => arg.value_name("DIRECTORY").value_parser(check),
        Kind::SettingsFile | Kind::OptionalFile(_) => arg.value_name("FILE").value_parser(check),
        Kind::OptionalAddress(_) => arg.value_name("ADDRESS").value_parser(check),
        Kind::OptionalHost(_) => arg.value_name("HOST:PORT").value_parser(check),
        Kind::Count(..) | Kind::OptionalCount(..) => arg.value_name("NUMBER").value_parser(check),
        Kind::Size(..) => arg.value_name("SIZE").value_parser(check),
        Kind::Duration(..) => arg.value_name("DURATION").value_parser(check),
    }
}

fn help(setting: &Setting) -> StyledStr {
    let default = match setting.otherwise {
        Otherwise::Required => "required, here or elsewhere".to_owned(),
        Otherwise::Unset(words) => format!("default: {words}"),
        Otherwise::Default => {
            format!("default: {}", setting.kind.write(&Config::new("", "", "")).unwrap_or_default())
        }
    };
    let each = if matches!(setting.kind, Kind::Properties) { "_<NAME>" } else { "" };
    format!("{} [{default}] [env: {}{each}]", setting.meaning, setting.variable()).into()
}

fn property(text: &str) -> Result<String, String> {
    let (name, _) = text.split_once('=').ok_or("it must have the form name=value, such as security.protocol=ssl")?;
    if name.trim().is_empty() { Err("a name must stand before the '='".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Vec<(String, String)>, String> {
        let command = CommandLine::augment_args(Command::new("app"));
        let matches =
            command.try_get_matches_from([&["app"], arguments].concat()).map_err(|error| error.to_string())?;
        let parsed = CommandLine::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        Ok(parsed.given.into_iter().map(|it| (it.name, it.value)).collect())
    }

    #[test]
    fn options_set_what_they_name_and_nothing_else() {
        let given = parse(&["--session-timeout", "9s", "--strict", "--kafka", "linger.ms=1", "--kafka", "debug = a=b"]);
        let expected =
            [("session.timeout", "9s"), ("strict", "true"), ("kafka.linger.ms", "1"), ("kafka.debug", "a=b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(given, Ok(expected.to_vec()));
        assert_eq!(parse(&[]), Ok(Vec::new()));
        assert_eq!(parse(&["--strict=false"]), Ok(vec![("strict".to_owned(), "false".to_owned())]));
    }

    #[test]
    fn a_wrong_option_is_refused_with_what_it_should_be() {
        let cases: [(&[&str], &str); 5] = [
            (&["--session-timeout", "9"], "with its unit"),
            (&["--threads", "65"], "between 1 and 64"),
            (&["--auto-offset-reset", "error"], "earliest"),
            (&["--kafka", "x"], "name=value"),
            (&["--sesion-timeout", "9s"], "--session-timeout"),
        ];
        for (arguments, words) in cases {
            let refused = parse(arguments).expect_err("it makes no sense");
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn a_connection_has_its_own_options_before_and_behind_a_command_below() {
        let parse = |arguments: &[&str]| {
            let command = Connection::augment_args(Command::new("look")).subcommand(Command::new("list"));
            let matches = command.try_get_matches_from([&["look"], arguments].concat()).map_err(|it| it.to_string())?;
            let parsed = Connection::from_arg_matches(&matches).map_err(|error| error.to_string())?;
            Ok::<_, String>(parsed.0.given.into_iter().map(|it| (it.name, it.value)).collect::<Vec<_>>())
        };
        let expected = Ok(vec![("kafka.linger.ms".to_owned(), "1".to_owned())]);
        assert_eq!(parse(&["--kafka", "linger.ms=1", "list"]), expected);
        assert_eq!(parse(&["list", "--kafka", "linger.ms=1"]), expected);
        assert!(parse(&["list", "--state-dir", "/state"]).is_err());
        for name in Connection::NAMES {
            assert!(super::super::table::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn every_choice_of_the_table_is_a_choice_here() {
        for setting in SETTINGS {
            let Kind::Choice(choices) = setting.kind else { continue };
            for choice in choices {
                let option = format!("--{}", setting.option());
                assert!(parse(&[&option, choice.name]).is_ok(), "{} {}", setting.name, choice.name);
            }
        }
    }
}
