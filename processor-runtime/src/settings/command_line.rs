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
            if matches.value_source(&key(setting)) != Some(ValueSource::CommandLine) {
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
