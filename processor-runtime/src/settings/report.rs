//! What `config` prints: every setting, its value, where it came from.

use std::fmt::Write;

use serde_json::{Value, json};

use super::origin::Origin;
use super::resolve::{Entry, Settings};

impl Settings {
    /// As a table for people.
    ///
    /// ```
    /// # use processor_runtime::config::Config;
    /// # use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
    /// # let environment: Environment = [("PROCESSOR_THREADS", "4")].into_iter().collect();
    /// # let settings = resolve(Places {
    /// #     code: Config::new("app", "localhost:9092", "/var/lib/app"),
    /// #     environment: &environment,
    /// #     other_variables: &[],
    /// #     command_line: &CommandLine::default(),
    /// # })?;
    /// let table = settings.table();
    /// let threads = table.lines().find(|line| line.starts_with("threads ")).expect("each has a line");
    /// assert_eq!(threads.split_whitespace().collect::<Vec<_>>(), ["threads", "4", "PROCESSOR_THREADS"]);
    /// # Ok::<(), processor_runtime::settings::SettingsError>(())
    /// ```
    pub fn table(&self) -> String {
        let unset = "-";
        let value = |entry: &Entry| entry.value.clone().unwrap_or_else(|| unset.to_owned());
        let width = |title: &str, of: &dyn Fn(&Entry) -> String| {
            let widths = self.entries.iter().map(|entry| of(entry).chars().count());
            widths.chain([title.len()]).max().unwrap_or(0)
        };
        let (names, values) = (width("SETTING", &|entry| entry.name.clone()), width("VALUE", &value));
        let mut text = format!("{:names$}  {:values$}  FROM\n", "SETTING", "VALUE");
        for entry in &self.entries {
            let line = writeln!(text, "{:names$}  {:values$}  {}", entry.name, value(entry), entry.origin);
            line.expect("writing into a String cannot fail");
        }
        text
    }

    /// As one JSON object for machines: under `settings` the name and the value of each, `null` where it is not set,
    /// and `from`, the [place](Origin::place), with the file and the line, the variable or the option.
    ///
    /// ```
    /// # use processor_runtime::config::Config;
    /// # use processor_runtime::settings::{CommandLine, Environment, Places, resolve};
    /// # let environment: Environment = [("PROCESSOR_THREADS", "4")].into_iter().collect();
    /// # let settings = resolve(Places {
    /// #     code: Config::new("app", "localhost:9092", "/var/lib/app"),
    /// #     environment: &environment,
    /// #     other_variables: &[],
    /// #     command_line: &CommandLine::default(),
    /// # })?;
    /// let json = settings.json();
    /// let entries = json["settings"].as_array().expect("a list");
    /// let threads = entries.iter().find(|entry| entry["name"] == "threads").expect("all are listed");
    /// assert_eq!((&threads["value"], &threads["from"]), (&"4".into(), &"environment".into()));
    /// assert_eq!(threads["variable"], "PROCESSOR_THREADS");
    /// # Ok::<(), processor_runtime::settings::SettingsError>(())
    /// ```
    pub fn json(&self) -> Value {
        let entries: Vec<Value> = self.entries.iter().map(entry).collect();
        json!({ "settings": entries })
    }
}

fn entry(entry: &Entry) -> Value {
    let mut object = json!({ "name": entry.name, "value": entry.value, "from": entry.origin.place() });
    let (key, at) = match &entry.origin {
        Origin::Default | Origin::Code => return object,
        Origin::File { path, line } => {
            object["line"] = json!(line);
            ("path", path.display().to_string())
        }
        Origin::Environment(variable) => ("variable", variable.clone()),
        Origin::CommandLine(option) => ("option", option.clone()),
    };
    object[key] = json!(at);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings() -> Settings {
        let entry = |name: &str, value: Option<&str>, origin| Entry {
            name: name.to_owned(),
            value: value.map(ToOwned::to_owned),
            origin,
        };
        let line = Origin::File { path: "app.toml".into(), line: 3 };
        let entries = vec![
            entry("threads", Some("2"), line),
            entry("instance.id", None, Origin::Default),
            entry("session.timeout", Some("9s"), Origin::CommandLine("session-timeout".to_owned())),
        ];
        Settings { config: Config::new("app", "host:9092", "/state"), entries }
    }

    #[test]
    fn people_get_columns() {
        let expected = [
            "SETTING          VALUE  FROM",
            "threads          2      app.toml:3",
            "instance.id      -      default",
            "session.timeout  9s     --session-timeout",
        ];
        assert_eq!(settings().table().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn machines_get_places() {
        let expected = json!({ "settings": [
            { "name": "threads", "value": "2", "from": "file", "path": "app.toml", "line": 3 },
            { "name": "instance.id", "value": null, "from": "default" },
            { "name": "session.timeout", "value": "9s", "from": "command-line", "option": "session-timeout" },
        ]});
        assert_eq!(settings().json(), expected);
    }
}
