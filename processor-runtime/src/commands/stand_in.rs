//! The application's own arguments, where a command does not need what they say.
//!
//! What is in a store is known from its types, and these come with the topology, which the application makes from its own
//! arguments. But no store's type depends on the name of a topic. So a command that only looks asks for none of them, and
//! makes the topology with stand-ins for those that must be there: an option's own name where it takes text, else its first
//! possible value or a small number. Whoever needs others gives them behind `--`.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Args, Command};

/// Tried in turn for what takes neither its own name nor has a list of values.
const VALUES: [&str; 5] = ["1", "0", "true", "1s", "localhost:1"];

/// The application's arguments: what was given, and stand-ins for what was not and must be there.
///
/// # Errors
/// What was given makes no sense, or something has no stand-in: the message says what to give.
pub(crate) fn arguments<A: Args>(given: &[OsString]) -> Result<A, String> {
    let command = A::augment_args(Command::new("--").no_binary_name(true).disable_help_flag(true));
    let parsed = command.clone().mut_args(|arg| arg.required(false)).try_get_matches_from(given).map_err(explained)?;
    let mut line = given.to_vec();
    for arg in command.get_arguments().filter(|arg| arg.is_required_set()) {
        if parsed.value_source(arg.get_id().as_str()).is_none() {
            line.extend(stand_in(arg));
        }
    }
    let matches = command.try_get_matches_from(line).map_err(explained)?;
    A::from_arg_matches(&matches).map_err(explained)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn explained(error: clap::Error) -> String {
    let what = error.to_string();
    let what = what.trim().trim_start_matches("error: ");
    format!(
        "the topology is made from the application's own arguments, and {what}\ngive what is missing behind `--` at the end, as it is \
         given to `run`"
    )
}

/// An argument with a value that it takes; nothing if none is found.
fn stand_in(arg: &Arg) -> Option<OsString> {
    let own_name = arg.get_id().as_str().replace('_', "-");
    let listed = arg.get_possible_values().into_iter().map(|value| value.get_name().to_owned());
    let values = listed.chain([own_name]).chain(VALUES.map(str::to_owned));
    let value = values.into_iter().find(|value| is_taken(arg, OsStr::new(value)))?;
    Some(match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}={value}").into(),
        (None, Some(short)) => format!("-{short}={value}").into(),
        (None, None) => value.into(),
    })
}

fn is_taken(arg: &Arg, value: &OsStr) -> bool {
    let alone = Arg::new("value").value_parser(arg.get_value_parser().clone());
    let command = Command::new("--").no_binary_name(true).disable_help_flag(true).arg(alone);
    command.try_get_matches_from([value]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
    enum Format {
        Binary,
        Text,
    }

    #[derive(Debug, Args)]
    struct Own {
        #[arg(long)]
        input_topic: String,
        #[arg(long)]
        output: String,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..9))]
        size: u16,
        #[arg(long, value_enum)]
        format: Format,
        #[arg(short)]
        short: i64,
        #[arg(long)]
        maybe: Option<u8>,
        #[arg(long, default_value_t = 7)]
        window: u8,
        place: String,
    }

    #[test]
    fn nothing_needs_to_be_given() {
        let own: Own = arguments(&[]).expect("all of it has a stand-in");
        assert_eq!(
            (own.input_topic.as_str(), own.output.as_str(), own.place.as_str()),
            ("input-topic", "output", "place")
        );
        assert_eq!((own.size, own.format, own.short, own.maybe, own.window), (1, Format::Binary, 1, None, 7));
    }

    #[test]
    fn what_is_given_counts() {
        let given = ["--format", "text", "--window=3", "--output", "out"].map(OsString::from);
        let own: Own = arguments(&given).expect("the rest has a stand-in");
        assert_eq!(
            (own.format, own.window, own.output.as_str(), own.input_topic.as_str()),
            (Format::Text, 3, "out", "input-topic")
        );
    }

    #[derive(Debug, Args)]
    struct Hard {
        #[arg(long, value_parser = |text: &str| if text == "xyzzy" { Ok(text.to_owned()) } else { Err("no magic") })]
        _magic: String,
    }

    #[test]
    fn what_has_no_stand_in_is_asked_for() {
        let error = arguments::<Hard>(&[]).expect_err("nobody guesses it");
        assert!(error.contains("--magic") && error.contains("behind `--`"), "{error}");
        arguments::<Hard>(&["--magic=xyzzy".into()]).expect("it is given");
        let error = arguments::<Hard>(&["--magic=abc".into()]).expect_err("it is wrong");
        assert!(error.contains("no magic"), "{error}");
    }
}
