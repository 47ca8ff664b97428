//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from, weakest first.
///
/// ```
/// use processor_runtime::settings::Origin;
///
/// let file = Origin::File { path: "app.toml".into(), line: 3 };
/// assert_eq!((file.place(), file.to_string().as_str()), ("file", "app.toml:3"));
/// let option = Origin::CommandLine("session-timeout".to_owned());
/// assert_eq!((option.place(), option.to_string().as_str()), ("command-line", "--session-timeout"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The application's own code.
    Code,
    /// The settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The option of this name, without the dashes.
    CommandLine(String),
}

impl Origin {
    /// The place in one word, for machines.
    ///
    /// ```
    /// use processor_runtime::settings::Origin;
    ///
    /// assert_eq!((Origin::Default.place(), Origin::Code.place()), ("default", "code"));
    /// assert_eq!(Origin::Environment("PROCESSOR_THREADS".to_owned()).place(), "environment");
    /// ```
    pub fn place(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Code => "code",
            Self::File { .. } => "file",
            Self::Environment(_) => "environment",
            Self::CommandLine(_) => "command-line",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Code => f.write_str("code"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::CommandLine(option) => write!(f, "--{option}"),
        }
    }
}
