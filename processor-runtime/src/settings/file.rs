//! Settings in a TOML file. Dotted keys and tables are the same: `session.timeout = "9s"`, or `timeout = "9s"` under
//! `[session]`. Properties of librdkafka stand under `[kafka]`.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::suggestion;
use super::origin::Origin;
use super::resolve::Given;
use super::table::{self, PROPERTIES, SETTINGS};
use crate::kafka::client_properties::is_known;

/// What a file sets, in the order of its lines.
pub(super) fn given(path: &Path, text: &str, given: &mut Vec<Given>, problems: &mut Vec<String>) {
    let file = File { path, text };
    match DeTable::parse(text) {
        Ok(table) => {
            let mut leaves = Vec::new();
            flatten("", table.get_ref(), &mut leaves);
            leaves.sort_by_key(|leaf| leaf.at);
            for leaf in leaves {
                match file.setting(&leaf) {
                    Ok(setting) => given.push(setting),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        // The message alone: the parser's own display quotes the line, and that may hold a secret.
        Err(error) => {
            let line = file.line(error.span().map_or(0, |span| span.start));
            problems.push(format!("{}:{line}: not TOML: {}; correct it", path.display(), error.message()));
        }
    }
}

/// A value in the file: its dotted name, and where its key stands.
struct Leaf<'a> {
    name: String,
    at: usize,
    value: &'a DeValue<'a>,
}

fn flatten<'a>(above: &str, table: &'a DeTable<'a>, leaves: &mut Vec<Leaf<'a>>) {
    for (key, value) in table {
        let name = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&name, inner, leaves),
            leaf => leaves.push(Leaf { name, at: Spanned::span(key).start, value: leaf }),
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    fn setting(&self, leaf: &Leaf<'_>) -> Result<Given, String> {
        let line = self.line(leaf.at);
        let refuse = |problem: String| format!("{}:{line}: {problem}", self.path.display());
        let name = leaf.name.as_str();
        if !name.starts_with(&format!("{PROPERTIES}.")) {
            match table::find(name).filter(|setting| setting.name != PROPERTIES) {
                Some(setting) if setting.is_allowed_in_file() => {}
                Some(_) => {
                    return Err(refuse(format!("'{name}' cannot be set in a file; use the option or the variable")));
                }
                None => return Err(refuse(unknown(name))),
            }
        }
        let value = scalar(leaf.value).map_err(|problem| refuse(format!("{name}: {problem}")))?;
        let origin = Origin::File { path: self.path.to_owned(), line };
        Ok(Given { name: name.to_owned(), value, origin })
    }
}

fn unknown(name: &str) -> String {
    if name == PROPERTIES {
        return format!("'{name}' is a table; write each property under [{name}]");
    }
    if is_known(name) {
        return format!("'{name}' is a property of librdkafka; write it under [{PROPERTIES}]");
    }
    let known = SETTINGS.iter().filter(|setting| setting.is_allowed_in_file()).map(|setting| setting.name);
    let near = suggestion(name, known);
    format!("there is no setting '{name}'{near}; correct it or remove it")
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "the number is out of range; lower it".to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(switch) => Ok(switch.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err("a setting is a text, a number, true or false; write it so".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Vec<(String, String, usize)>, Vec<String>) {
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        given(Path::new("app.toml"), text, &mut all, &mut problems);
        let shown = all.into_iter().map(|it| {
            let Origin::File { line, .. } = it.origin else { panic!("it comes from a file") };
            (it.name, it.value, line)
        });
        (shown.collect(), problems)
    }

    #[test]
    fn dotted_keys_and_tables_are_the_same_and_each_knows_its_line() {
        let (given, problems) = read(
            "threads = 0x2\nsession.timeout = \"9s\"\n\n[transaction]\ntimeout = '20s'\n[kafka]\n\
             security.protocol = \"ssl\"\n\"sasl.username\" = \"me\"\nlinger.ms = 5\n",
        );
        let expected = [
            ("threads", "2", 1),
            ("session.timeout", "9s", 2),
            ("transaction.timeout", "20s", 5),
            ("kafka.security.protocol", "ssl", 7),
            ("kafka.sasl.username", "me", 8),
            ("kafka.linger.ms", "5", 9),
        ];
        assert_eq!(problems, [""; 0]);
        assert_eq!(given, expected.map(|(name, value, line)| (name.to_owned(), value.to_owned(), line)));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
        let (given, problems) = read("threads = 2\n[session]\ntimeuot = \"9s\"\n");
        assert_eq!(given.len(), 1);
        assert_eq!(
            problems,
            [
                "app.toml:3: there is no setting 'session.timeuot' (the nearest is 'session.timeout'); correct it or remove it"
            ]
        );
        let (_, problems) = read("kafka = 'linger.ms=3'");
        assert_eq!(problems, ["app.toml:1: 'kafka' is a table; write each property under [kafka]"]);
        let (_, problems) = read("security.protocol = 'ssl'\nconfig = 'other.toml'\nthreads = [1]\n");
        assert!(problems[0].starts_with("app.toml:1:") && problems[0].contains("under [kafka]"), "{problems:?}");
        assert!(problems[1].starts_with("app.toml:2: 'config' cannot be set in a file"), "{problems:?}");
        assert!(problems[2].starts_with("app.toml:3: threads:"), "{problems:?}");
    }

    #[test]
    fn broken_toml_is_refused_with_its_line_and_without_quoting_it() {
        let (given, problems) = read("threads = 2\n[kafka]\nsasl.password = \"hunter2\n");
        assert!(given.is_empty());
        assert!(problems[0].starts_with("app.toml:3: not TOML"), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }

    const SECRET: &str = "secret-of-mine";

    /// Lines of pieces that mean something in TOML or here, and of any characters.
    fn hostile_file() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "threads",
                "session.timeout",
                "[kafka]",
                "[[kafka]]",
                "[transaction]",
                "timeout",
                ".",
                "=",
                " = ",
                "\"9s\"",
                "'",
                "\"\"\"",
                "\n",
                "\\u0000",
                "1e400",
                "inf",
                "0x2",
                "true",
                "{",
                "}",
                "[",
                "]",
                ",",
                "#",
                "1979-05-27",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,8}",
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_is_a_setting_or_a_problem_with_its_place(text in hostile_file()) {
            let text = format!("[kafka]\nsasl.password = \"{SECRET}\"\n{text}");
            let (given, problems) = read(&text);
            let lines = text.lines().count().max(1) + 1;
            prop_assert!(given.iter().all(|(_, _, line)| (1..=lines).contains(line)), "{given:?}");
            for problem in problems {
                prop_assert!(problem.starts_with("app.toml:"), "{problem}");
                prop_assert!(!problem.contains(SECRET), "{problem}");
            }
        }
    }
}
