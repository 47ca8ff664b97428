//! The librdkafka properties of the user, with those that are secret kept from sight.
//!
//! A name may carry the prefix `consumer.` or `producer.`. Which values are secret follows from the name alone, so one
//! cannot be shown because somebody forgot to say so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ffi, properties};
use crate::secret::{HIDDEN, Secret};

/// Words in the names of secret properties, such as `sasl.password` and `sasl.oauthbearer.client.secret`.
const SECRET_WORDS: [&str; 4] = ["password", "passphrase", "secret", "key.pem"];
/// Secret properties whose names do not show it: the text may hold credentials.
const SECRET_NAMES: [&str; 2] = ["sasl.oauthbearer.config", "sasl.oauthbearer.assertion.file"];

/// The properties of the user, by name.
///
/// ```
/// use processor_runtime::config::ClientProperties;
///
/// let mut properties = ClientProperties::default();
/// properties.insert("security.protocol", "sasl_ssl");
/// properties.insert("sasl.password", "hunter2");
/// let shown = format!("{properties:?}");
/// assert!(shown.contains("sasl_ssl") && !shown.contains("hunter2"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientProperties(BTreeMap<String, PropertyValue>);

/// The value of a property.
///
/// ```
/// use processor_runtime::config::ClientProperties;
///
/// let mut properties = ClientProperties::default();
/// properties.insert("sasl.password", "hunter2");
/// let password = properties.get("sasl.password").expect("it was set");
/// assert_eq!((password.expose(), password.shown()), ("hunter2", "(hidden)"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyValue {
    /// One that may be shown.
    Open(String),
    /// One that may not.
    Hidden(Secret),
}

impl PropertyValue {
    /// What the client is given.
    ///
    /// ```
    /// use processor_runtime::config::ClientProperties;
    ///
    /// let mut properties = ClientProperties::default();
    /// properties.insert("sasl.password", "hunter2");
    /// assert_eq!(properties.get("sasl.password").map(|value| value.expose()), Some("hunter2"));
    /// ```
    pub fn expose(&self) -> &str {
        match self {
            Self::Open(text) => text,
            Self::Hidden(secret) => secret.expose(),
        }
    }

    /// What people are shown.
    ///
    /// ```
    /// use processor_runtime::config::ClientProperties;
    ///
    /// let mut properties = ClientProperties::default();
    /// properties.insert("sasl.password", "hunter2");
    /// assert_eq!(properties.get("sasl.password").map(|value| value.shown()), Some("(hidden)"));
    /// ```
    pub fn shown(&self) -> &str {
        match self {
            Self::Open(text) => text,
            Self::Hidden(_) => HIDDEN,
        }
    }
}

impl ClientProperties {
    /// Sets one, in place of an earlier value.
    ///
    /// A name may carry the prefix `consumer.` or `producer.`. Nothing is checked here: names that librdkafka does not
    /// know, and those that the guarantee needs, are refused at start.
    ///
    /// ```
    /// use processor_runtime::config::ClientProperties;
    ///
    /// let mut properties = ClientProperties::default();
    /// properties.insert("producer.linger.ms", "5");
    /// properties.insert("producer.linger.ms", "20");
    /// assert_eq!(properties.get("producer.linger.ms").map(|value| value.expose()), Some("20"));
    /// assert_eq!(properties.iter().count(), 1);
    /// ```
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        let value =
            if is_secret(&name) { PropertyValue::Hidden(Secret::new(value)) } else { PropertyValue::Open(value) };
        self.0.insert(name, value);
    }

    /// The value of one.
    ///
    /// ```
    /// use processor_runtime::config::ClientProperties;
    ///
    /// let mut properties = ClientProperties::default();
    /// properties.insert("security.protocol", "ssl");
    /// assert_eq!(properties.get("security.protocol").map(|value| value.shown()), Some("ssl"));
    /// assert!(properties.get("producer.security.protocol").is_none()); // a name is taken with its prefix
    /// ```
    pub fn get(&self, name: &str) -> Option<&PropertyValue> {
        self.0.get(name)
    }

    /// All of them, by name.
    ///
    /// ```
    /// use processor_runtime::config::ClientProperties;
    ///
    /// let mut properties = ClientProperties::default();
    /// properties.insert("sasl.username", "averages");
    /// properties.insert("sasl.password", "hunter2");
    /// let shown: Vec<_> = properties.iter().map(|(name, value)| (name, value.shown())).collect();
    /// assert_eq!(shown, [("sasl.password", "(hidden)"), ("sasl.username", "averages")]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PropertyValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl FromIterator<(String, String)> for ClientProperties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(properties: I) -> Self {
        let mut all = Self::default();
        for (name, value) in properties {
            all.insert(name, value);
        }
        all
    }
}

/// Whether the value of a property must not be shown.
///
/// ```
/// use processor_runtime::kafka::client_properties::is_secret;
///
/// assert!(is_secret("sasl.password") && is_secret("consumer.ssl.key.pem"));
/// assert!(!is_secret("sasl.username"));
/// ```
pub fn is_secret(name: &str) -> bool {
    let bare = properties::bare(name);
    SECRET_NAMES.contains(&bare) || SECRET_WORDS.iter().any(|word| bare.contains(word))
}

/// Whether librdkafka has a property of this name.
///
/// ```
/// use processor_runtime::kafka::client_properties::is_known;
///
/// assert!(is_known("producer.linger.ms") && !is_known("linger.mss"));
/// ```
pub fn is_known(name: &str) -> bool {
    ffi::knows_property(properties::bare(name))
}

/// The names of librdkafka's properties, without those that nearly nobody sets: to find the one that was meant.
pub fn known_names() -> &'static [String] {
    ffi::property_names()
}

/// Why a property cannot have this value, if it cannot. The text holds no secret.
pub fn problem(name: &str, value: &PropertyValue, transaction_timeout: Duration) -> Option<String> {
    if let Err(error) = properties::check_property(name, value, transaction_timeout) {
        return Some(error.message);
    }
    let refused = ffi::check_property(properties::bare(name), value.expose()).err()?;
    Some(match value {
        PropertyValue::Open(_) => format!("librdkafka refuses the property {name}: {refused}; correct it"),
        PropertyValue::Hidden(_) => format!("librdkafka refuses the value of {name} (not shown); correct it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_that_hold_credentials_are_secret_under_every_prefix() {
        let secrets = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
            "consumer.sasl.password",
        ];
        for name in secrets {
            assert!(is_secret(name), "{name}");
            let properties = ClientProperties::from_iter([(name.to_owned(), "hunter2".to_owned())]);
            assert!(!format!("{properties:?}").contains("hunter2"), "{name}");
        }
        for name in ["sasl.username", "ssl.ca.location", "ssl.key.location", "ssl.certificate.pem", "linger.ms"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn every_secret_that_librdkafka_knows_by_name_is_one_here() {
        for name in known_names().iter().filter(|name| name.contains("password") || name.contains("secret")) {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_are_checked_against_librdkafka() {
        for name in ["linger.ms", "sasl.password", "producer.batch.size", "ssl.ca.location", "message.timeout.ms"] {
            assert!(is_known(name), "{name}");
        }
        assert!(!is_known("lingering.ms"));
    }

    #[test]
    fn a_secret_is_not_part_of_what_is_wrong_with_it() {
        let value = PropertyValue::Hidden(Secret::new("hunter2\0"));
        let problem = problem("sasl.password", &value, Duration::from_secs(10)).expect("no C string");
        assert!(problem.contains("sasl.password") && !problem.contains("hunter2"), "{problem}");
    }
}
