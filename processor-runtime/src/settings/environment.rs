//! Settings in environment variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use super::nearest::suggestion;
use super::origin::Origin;
use super::resolve::Given;
use super::table::{self, PROPERTIES, SETTINGS, VARIABLE_PREFIX};
use crate::kafka::client_properties::known_names;

/// What `./x` of the workspace knows by our prefix: whoever develops with it starts programs with them set.
const OF_THE_WORKSPACE: [&str; 4] =
    ["PROCESSOR_CACHE", "PROCESSOR_KAFKA_LIBS", "PROCESSOR_KAFKA_VERSION", "PROCESSOR_BLESS"];

/// The variables of a process. Any may hold a secret, so `Debug` does not show them.
///
/// ```
/// use processor_runtime::settings::Environment;
///
/// let environment: Environment = [("PROCESSOR_THREADS", "4")].into_iter().collect(); // for a test
/// assert_eq!(environment.get("PROCESSOR_THREADS"), Some("4"));
/// assert_eq!(environment.get("PROCESSOR_STATE_DIR"), None);
/// let _ = Environment::of_this_process();
/// ```
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Variables with our prefix whose value is not text.
    unreadable: Vec<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Environment {
    /// Those of this process, as they are now. One whose value is not UTF-8 is passed over, and found by
    /// [`resolve`](fn@super::resolve) if it begins with `PROCESSOR_`.
    ///
    /// ```
    /// use processor_runtime::settings::Environment;
    ///
    /// let environment = Environment::of_this_process();
    /// assert_eq!(environment.get("PATH"), std::env::var("PATH").ok().as_deref());
    /// ```
    pub fn of_this_process() -> Self {
        Self::read(std::env::vars_os())
    }

    fn read(all: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in all {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) if name.starts_with(VARIABLE_PREFIX) => environment.unreadable.push(name),
                Err(_) => {}
            }
        }
        environment
    }

    /// The value of a variable; `None` where it is not set, or not UTF-8.
    ///
    /// ```
    /// use processor_runtime::settings::Environment;
    ///
    /// let environment: Environment = [("PASSWORD", "hunter2")].into_iter().collect();
    /// assert_eq!((environment.get("PASSWORD"), environment.get("password")), (Some("hunter2"), None));
    /// ```
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// What the variables with our prefix set. Those in `others` belong to arguments of commands; where such an argument
    /// is a setting, too (`dead-letters --application-id`), its variable sets both.
    pub(super) fn given(&self, others: &[String], given: &mut Vec<Given>, problems: &mut Vec<String>) {
        for name in &self.unreadable {
            problems.push(format!("{name}: its value is not UTF-8; write it in UTF-8"));
        }
        for (variable, value) in &self.variables {
            if !variable.starts_with(VARIABLE_PREFIX) || OF_THE_WORKSPACE.contains(&variable.as_str()) {
                continue;
            }
            match name(variable) {
                Some(name) => {
                    given.push(Given { name, value: value.clone(), origin: Origin::Environment(variable.clone()) });
                }
                None if others.contains(variable) => {}
                None => problems.push(unknown(variable)),
            }
        }
    }
}

/// The setting, or `kafka.<property>`, that a variable stands for.
fn name(variable: &str) -> Option<String> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == variable && setting.name != PROPERTIES)
    {
        return Some(setting.name.to_owned());
    }
    let property = variable.strip_prefix(&properties_prefix())?.to_lowercase().replace('_', ".");
    (!property.is_empty()).then(|| format!("{PROPERTIES}.{property}"))
}

fn properties_prefix() -> String {
    format!("{}_", table::find(PROPERTIES).map_or_else(String::new, table::Setting::variable))
}

fn unknown(variable: &str) -> String {
    let settings = SETTINGS.iter().filter(|setting| setting.name != PROPERTIES);
    let mut known: Vec<String> = settings.map(table::Setting::variable).collect();
    let prefix = properties_prefix();
    known.extend(known_names().iter().map(|name| format!("{prefix}{}", name.replace('.', "_").to_uppercase())));
    let near = suggestion(variable, known.iter().map(String::as_str));
    format!("{variable}: no setting has this variable{near}; correct it or unset it")
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(variables: I) -> Self {
        Self::read(variables.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> (Vec<(String, String)>, Vec<String>) {
        let environment = Environment::read(variables.iter().map(|(name, value)| (name.into(), value.into())));
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        let others = ["PROCESSOR_OF_THE_APPLICATION", "PROCESSOR_APPLICATION_ID"].map(str::to_owned);
        environment.given(&others, &mut given, &mut problems);
        (given.into_iter().map(|it| (it.name, it.value)).collect(), problems)
    }

    #[test]
    fn variables_name_settings_and_properties() {
        let (given, problems) = given(&[
            ("PROCESSOR_SESSION_TIMEOUT", "9s"),
            ("PROCESSOR_KAFKA_SASL_PASSWORD", "hunter2"),
            ("PROCESSOR_KAFKA_CONSUMER_FETCH_WAIT_MAX_MS", "7"),
            ("PROCESSOR_OF_THE_APPLICATION", "1"),
            ("PROCESSOR_APPLICATION_ID", "averages"),
            ("PATH", "/bin"),
        ]);
        let of = |name: &str| given.iter().find(|it| it.0 == name).map(|it| it.1.as_str());
        assert_eq!(problems, [""; 0]);
        assert_eq!(given.len(), 4);
        assert_eq!(
            of("application.id"),
            Some("averages"),
            "a setting, although `dead-letters` reads the variable, too"
        );
        assert_eq!(of("session.timeout"), Some("9s"));
        assert_eq!(of("kafka.sasl.password"), Some("hunter2"));
        assert_eq!(of("kafka.consumer.fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn what_the_workspace_sets_for_itself_is_no_setting() {
        let (given, problems) =
            given(&[("PROCESSOR_CACHE", "/tmp/cache"), ("PROCESSOR_KAFKA_LIBS", "/opt/kafka/libs")]);
        assert_eq!((given, problems), (Vec::new(), Vec::new()));
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest_name() {
        let (_, problems) = given(&[("PROCESSOR_SESION_TIMEOUT", "9s"), ("PROCESSOR_KAFKA_", "a=b")]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|it| it.contains("the nearest is 'PROCESSOR_SESSION_TIMEOUT'")), "{problems:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;
        let wrong = OsString::from_vec(vec![0xff]);
        let environment = Environment::read([("PROCESSOR_STATE_DIR".into(), wrong)].into_iter());
        let (mut given, mut problems) = (Vec::new(), Vec::new());
        environment.given(&[], &mut given, &mut problems);
        assert!(given.is_empty() && problems[0].contains("PROCESSOR_STATE_DIR"), "{problems:?}");
    }
}
