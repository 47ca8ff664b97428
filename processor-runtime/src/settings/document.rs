//! The page of settings, docs/configuration.md, made from the table.

use std::fmt::Write;

use super::kind::Kind;
use super::table::{Otherwise, SETTINGS, Setting};
use crate::config::Config;

const HEAD: &str = "\
# Configuration

<!-- Made from processor-runtime/src/settings/table.rs; UPDATE_DOCS=1 ./x cargo test --workspace --lib configuration_page writes it. -->

A setting has one name. In the file it is the key (`session.timeout`), on the command line the option (`--session-timeout`), in the environment the variable
(`PROCESSOR_SESSION_TIMEOUT`), in code a field of `Config`. Each place is stronger than the one before:

1. code: `processor_runtime::Application::new(topology).configure(|config| ..)`
2. the TOML file that `--config` or `PROCESSOR_CONFIG` names
3. environment variables
4. the command line

`<program> config` shows every setting, its value and where it came from (`--json` for machines), and exits with 2 if they do not make sense; nothing is connected
to. Unknown names, in the file or with the prefix `PROCESSOR_`, are refused with the place and the nearest name that exists. The settings are read once, at start.

```toml
application.id = \"averages\"
bootstrap.servers = \"kafka-1:9093,kafka-2:9093\"
state.dir = \"/var/lib/averages\"
session.timeout = \"6s\"
memory.budget = \"256MiB\"
strict = true

[kafka] # properties of librdkafka; a prefix `consumer.` or `producer.` addresses one kind of client
security.protocol = \"sasl_ssl\"
sasl.mechanism = \"SCRAM-SHA-512\"
sasl.username = \"averages\"
sasl.password = \"file:/run/credentials/averages/password\"
consumer.fetch.wait.max.ms = 20
```

Durations carry their unit (`500ms`, `10s`, `5m`), sizes too (`64MiB`, `1GiB`).

";

const TAIL: &str = "
## Properties of librdkafka

Under `[kafka]` in the file, as `--kafka name=value` (repeatable), or as `PROCESSOR_KAFKA_` with the name in capitals and underscores for dots
(`PROCESSOR_KAFKA_SASL_USERNAME`). What the guarantee rests on is refused, with the reason.

## Secrets

Passwords, passphrases, client secrets and private keys are shown nowhere: not in logs, not by `config`. Write them as references, which are read at start:
`file:/path` (the line end behind the secret is dropped) or `env:NAME` (a variable without the prefix `PROCESSOR_`). A secret on the command line can be read by
every user of the machine.

## In Kubernetes

A Service named `processor` makes variables such as `PROCESSOR_SERVICE_HOST` in every pod of its namespace, and they are refused as unknown: name it otherwise, or
set `enableServiceLinks: false`.
";

/// The whole page.
///
/// ```
/// assert!(processor_runtime::settings::markdown().starts_with("# Configuration"));
/// ```
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| setting | form | default | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let line = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            setting.name,
            form(setting),
            default(setting),
            setting.meaning.replace('|', "\\|")
        );
        line.expect("writing into a String cannot fail");
    }
    page.push_str(TAIL);
    page
}

fn form(setting: &Setting) -> String {
    if let Kind::Choice(choices) = setting.kind {
        let each = choices.iter().map(|choice| format!("`{}` ({})", choice.name, choice.meaning));
        return each.collect::<Vec<_>>().join(", ");
    }
    let bounds = setting.kind.bounds().map(|(min, max)| format!("; {min} to {max}"));
    let place = if setting.is_allowed_in_file() { "" } else { "; not in a file" };
    format!("{}{}{place}", setting.kind.form(), bounds.unwrap_or_default())
}

fn default(setting: &Setting) -> String {
    match setting.otherwise {
        Otherwise::Required => "required".to_owned(),
        Otherwise::Unset(words) => words.to_owned(),
        Otherwise::Default => format!("`{}`", setting.kind.write(&Config::new("", "", "")).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_configuration_page_is_made_from_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, markdown()).expect("the page can be written");
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            page == markdown(),
            "docs/configuration.md is not what the table says: \
             UPDATE_DOCS=1 ./x cargo test --workspace --lib configuration_page writes it"
        );
    }

    #[test]
    fn the_example_of_the_page_makes_sense() {
        let page = markdown();
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("there is one");
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        super::super::file::given(Path::new("app.toml"), example, &mut given, &mut problems);
        assert_eq!(problems, [""; 0]);
        assert!(given.len() > 10);
    }
}
