//! The kinds of values: how each is read from text, which bounds it keeps, and how it is written.
//!
//! What is written can be read again and gives the same value.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use processor_core::protocol::client_id::HttpAddress;

use crate::config::Config;

/// One field of [`Config`]: how to reach it, whatever holds the [`Config`].
///
/// ```
/// use processor_runtime::config::Config;
/// use processor_runtime::settings::Kind;
/// use processor_runtime::settings::table::find;
///
/// let setting = find("threads").expect("it is in the table");
/// let Kind::Count(_, threads) = setting.kind else { panic!("it is a number") };
/// let mut config = Config::new("app", "localhost:9092", "/var/lib/app");
/// *(threads.get_mut)(&mut config) = 4;
/// assert_eq!((config.threads, *(threads.get)(&config)), (4, 4));
/// ```
pub struct Field<T: 'static> {
    /// Reads it.
    pub get: fn(&Config) -> &T,
    /// Gives it to be written.
    pub get_mut: fn(&mut Config) -> &mut T,
}

impl<T> Copy for Field<T> {}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field")
    }
}

/// The least and the greatest value, both allowed.
///
/// ```
/// use std::time::Duration;
///
/// use processor_runtime::settings::Kind;
/// use processor_runtime::settings::table::find;
///
/// let setting = find("session.timeout").expect("it is in the table");
/// let Kind::Duration(bounds, _) = setting.kind else { panic!("it is a time") };
/// assert_eq!((bounds.min, bounds.max), (Duration::from_secs(1), Duration::from_mins(30)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    /// The least.
    pub min: T,
    /// The greatest.
    pub max: T,
}

/// One of a few values.
///
/// ```
/// use processor_runtime::config::{Config, LogFormat};
/// use processor_runtime::settings::Kind;
/// use processor_runtime::settings::table::find;
///
/// let setting = find("log.format").expect("it is in the table");
/// let Kind::Choice(choices) = setting.kind else { panic!("it is one of a few") };
/// let json = choices.iter().find(|choice| choice.name == "json").expect("it is one of them");
/// let mut config = Config::new("app", "localhost:9092", "/var/lib/app");
/// assert!(!(json.is_chosen)(&config));
/// (json.choose)(&mut config);
/// assert_eq!(config.log_format, LogFormat::Json);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// How it is written.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether it is chosen.
    pub is_chosen: fn(&Config) -> bool,
    /// Chooses it.
    pub choose: fn(&mut Config),
}

/// What a setting holds, and where in [`Config`] it stands.
///
/// ```
/// use processor_runtime::settings::Kind;
/// use processor_runtime::settings::table::find;
///
/// let kind = find("memory.budget").expect("it is in the table").kind;
/// assert!(matches!(kind, Kind::Size(..)));
/// assert_eq!(kind.form(), "size, such as 64MiB");
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text; empty is not set.
    Text(Field<String>),
    /// Text that need not be there.
    OptionalText(Field<Option<String>>),
    /// A directory; empty is not set.
    Directory(Field<PathBuf>),
    /// A file that need not be named.
    OptionalFile(Field<Option<PathBuf>>),
    /// An address and a port of this machine, that need not be there.
    OptionalAddress(Field<Option<SocketAddr>>),
    /// A host and a port by which others reach this machine, that need not be there.
    OptionalHost(Field<Option<HttpAddress>>),
    /// A whole number.
    Count(Bounds<usize>, Field<usize>),
    /// A whole number that need not be there.
    OptionalCount(Bounds<usize>, Field<Option<usize>>),
    /// Bytes, written with their unit: `64MiB`.
    Size(Bounds<usize>, Field<usize>),
    /// Time, written with its unit: `10s`, `500ms`.
    Duration(Bounds<Duration>, Field<Duration>),
    /// `true` or `false`.
    Switch(Field<bool>),
    /// One of a few words.
    Choice(&'static [Choice]),
    /// The file of settings itself.
    SettingsFile,
    /// Properties of librdkafka, each `name=value`.
    Properties,
}

impl Kind {
    /// The kind, with its unit and form, for people.
    ///
    /// ```
    /// use processor_runtime::settings::table::find;
    ///
    /// let form = |name| find(name).map(|setting| setting.kind.form());
    /// assert_eq!(form("threads"), Some("whole number"));
    /// assert_eq!(form("batch.time.max"), Some("duration, such as 10s or 500ms"));
    /// ```
    pub fn form(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::OptionalText(_) => "text",
            Self::Directory(_) => "directory",
            Self::OptionalAddress(_) => "address:port",
            Self::OptionalHost(_) => "host:port",
            Self::Count(..) | Self::OptionalCount(..) => "whole number",
            Self::Size(..) => "size, such as 64MiB",
            Self::Duration(..) => "duration, such as 10s or 500ms",
            Self::Switch(_) => "true or false",
            Self::Choice(_) => "one of",
            Self::SettingsFile | Self::OptionalFile(_) => "file",
            Self::Properties => "name=value",
        }
    }

    /// The least and the greatest value, both allowed, as they are written; `None` for a kind without bounds.
    ///
    /// ```
    /// use processor_runtime::settings::table::find;
    ///
    /// let bounds = |name| find(name).and_then(|setting| setting.kind.bounds());
    /// assert_eq!(bounds("threads"), Some(("1".to_owned(), "64".to_owned())));
    /// assert_eq!(bounds("memory.budget"), Some(("1MiB".to_owned(), "1TiB".to_owned())));
    /// assert_eq!(bounds("instance.id"), None);
    /// ```
    pub fn bounds(&self) -> Option<(String, String)> {
        match self {
            Self::Count(bounds, _) | Self::OptionalCount(bounds, _) => {
                Some((bounds.min.to_string(), bounds.max.to_string()))
            }
            Self::Size(bounds, _) => Some((size_text(bounds.min), size_text(bounds.max))),
            Self::Duration(bounds, _) => Some((duration_text(bounds.min), duration_text(bounds.max))),
            Self::Text(_)
            | Self::OptionalText(_)
            | Self::Directory(_)
            | Self::OptionalFile(_)
            | Self::OptionalAddress(_)
            | Self::OptionalHost(_)
            | Self::Switch(_)
            | Self::Choice(_)
            | Self::SettingsFile
            | Self::Properties => None,
        }
    }

    /// Reads a value into a [`Config`]. The settings file and the properties are no field of their own: of these kinds
    /// every text is taken, and changes nothing.
    ///
    /// ```
    /// use processor_runtime::config::Config;
    /// use processor_runtime::settings::table::find;
    ///
    /// let budget = find("memory.budget").expect("it is in the table").kind;
    /// let mut config = Config::new("app", "localhost:9092", "/var/lib/app");
    /// budget.read("256MiB", &mut config)?;
    /// assert_eq!(config.memory_budget_bytes, 256 << 20);
    /// let refused = budget.read("1KiB", &mut config).unwrap_err();
    /// assert_eq!(refused, "it must lie between 1MiB and 1TiB");
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// What the text should be instead; the [`Config`] is as it was.
    pub fn read(&self, text: &str, config: &mut Config) -> Result<(), String> {
        if text.trim().is_empty() {
            return Err("it is empty; give a value, or leave the setting out".to_owned());
        }
        match self {
            Self::Text(field) => text.clone_into((field.get_mut)(config)),
            Self::OptionalText(field) => *(field.get_mut)(config) = Some(text.to_owned()),
            Self::Directory(field) => *(field.get_mut)(config) = PathBuf::from(text),
            Self::OptionalFile(field) => *(field.get_mut)(config) = Some(PathBuf::from(text)),
            Self::OptionalAddress(field) => {
                let address =
                    text.parse().map_err(|_| "it must be an address with its port, such as 127.0.0.1:8080")?;
                *(field.get_mut)(config) = Some(address);
            }
            Self::OptionalHost(field) => *(field.get_mut)(config) = Some(text.parse()?),
            Self::Count(bounds, field) => *(field.get_mut)(config) = count(text, *bounds)?,
            Self::OptionalCount(bounds, field) => *(field.get_mut)(config) = Some(count(text, *bounds)?),
            Self::Size(bounds, field) => *(field.get_mut)(config) = size(text, *bounds)?,
            Self::Duration(bounds, field) => *(field.get_mut)(config) = duration(text, *bounds)?,
            Self::Switch(field) => {
                *(field.get_mut)(config) = text.parse().map_err(|_| "it must be true or false".to_owned())?;
            }
            Self::Choice(choices) => {
                let chosen = choices.iter().find(|choice| choice.name == text);
                (chosen.ok_or_else(|| format!("it must be one of {}", names(choices)))?.choose)(config);
            }
            Self::SettingsFile | Self::Properties => {}
        }
        Ok(())
    }

    /// The value in a [`Config`], in the form in which it is [read](Self::read); `None` where it is not set.
    ///
    /// ```
    /// use processor_runtime::config::Config;
    /// use processor_runtime::settings::table::find;
    ///
    /// let config = Config::new("app", "localhost:9092", "/var/lib/app");
    /// let written = |name| find(name).and_then(|setting| setting.kind.write(&config));
    /// assert_eq!(written("batch.time.max").as_deref(), Some("150ms"));
    /// assert_eq!(written("batch.bytes.max").as_deref(), Some("16MiB"));
    /// assert_eq!(written("instance.id"), None);
    /// ```
    pub fn write(&self, config: &Config) -> Option<String> {
        match self {
            Self::Text(field) => Some((field.get)(config).clone()).filter(|text| !text.is_empty()),
            Self::OptionalText(field) => (field.get)(config).clone(),
            Self::Directory(field) => Some((field.get)(config).display().to_string()).filter(|path| !path.is_empty()),
            Self::OptionalFile(field) => (field.get)(config).as_ref().map(|path| path.display().to_string()),
            Self::OptionalAddress(field) => (field.get)(config).map(|address| address.to_string()),
            Self::OptionalHost(field) => (field.get)(config).as_ref().map(HttpAddress::to_string),
            Self::Count(_, field) => Some((field.get)(config).to_string()),
            Self::OptionalCount(_, field) => (field.get)(config).map(|count| count.to_string()),
            Self::Size(_, field) => Some(size_text(*(field.get)(config))),
            Self::Duration(_, field) => Some(duration_text(*(field.get)(config))),
            Self::Switch(field) => Some((field.get)(config).to_string()),
            Self::Choice(choices) => {
                let chosen = choices.iter().find(|choice| (choice.is_chosen)(config));
                chosen.map(|choice| choice.name.to_owned())
            }
            Self::SettingsFile | Self::Properties => None,
        }
    }
}

/// The names of choices, with commas between.
fn names(choices: &[Choice]) -> String {
    choices.iter().map(|choice| choice.name).collect::<Vec<_>>().join(", ")
}

fn within<T: PartialOrd>(value: T, bounds: &Bounds<T>, shown: impl Fn(&T) -> String) -> Result<T, String> {
    if value < bounds.min || value > bounds.max {
        return Err(format!("it must lie between {} and {}", shown(&bounds.min), shown(&bounds.max)));
    }
    Ok(value)
}

fn count(text: &str, bounds: Bounds<usize>) -> Result<usize, String> {
    let count =
        text.parse().map_err(|_| format!("it must be a whole number between {} and {}", bounds.min, bounds.max))?;
    within(count, &bounds, usize::to_string)
}

fn size(text: &str, bounds: Bounds<usize>) -> Result<usize, String> {
    let size =
        text.parse::<ByteSize>().map_err(|_| "it must be a size with its unit, such as 64MiB or 1GiB".to_owned())?;
    let size = usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    within(size, &bounds, |size| size_text(*size))
}

fn duration(text: &str, bounds: Bounds<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "it must be a duration with its unit, such as 10s, 500ms or 5m".to_owned())?;
    within(duration, &bounds, |duration| duration_text(*duration))
}

/// In the greatest unit that gives a whole number.
fn size_text(bytes: usize) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |shift: &u32| bytes != 0 && bytes.trailing_zeros() >= *shift;
    match units.iter().find(|(_, shift)| fits(shift)) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY: Bounds<usize> = Bounds { min: 0, max: usize::MAX };
    const ALWAYS: Bounds<Duration> = Bounds { min: Duration::ZERO, max: Duration::MAX };

    #[test]
    fn numbers_carry_their_unit() {
        assert_eq!(size("64MiB", ANY), Ok(64 << 20));
        assert_eq!(size("1 GB", ANY), Ok(1_000_000_000));
        assert_eq!(size("4096", ANY), Ok(4_096));
        assert_eq!(duration("1s 500ms", ALWAYS), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("5m", ALWAYS), Ok(Duration::from_mins(5)));
        for text in ["10", "ten", "-1s", "10 parsecs"] {
            assert!(duration(text, ALWAYS).is_err_and(|message| message.contains("such as")), "{text}");
        }
        for text in ["-1", "64MiBs", "much"] {
            assert!(size(text, ANY).is_err_and(|message| message.contains("such as")), "{text}");
        }
    }

    #[test]
    fn bounds_are_allowed_and_nothing_beyond_them() {
        let bounds = Bounds { min: 1, max: 64 };
        assert_eq!((count("1", bounds), count("64", bounds)), (Ok(1), Ok(64)));
        for text in ["0", "65", "-1", "1.5", "many"] {
            assert!(count(text, bounds).is_err_and(|message| message.contains("between 1 and 64")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_value(bytes in 0_usize..1 << 50, shift in 0_u32..14, millis: u32) {
            let bytes = bytes << shift;
            prop_assert_eq!(size(&size_text(bytes), ANY), Ok(bytes));
            let time = Duration::from_millis(millis.into());
            prop_assert_eq!(duration(&duration_text(time), ALWAYS), Ok(time));
        }
    }
}
