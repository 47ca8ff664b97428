//! Values that no log, message or listing shows, and how they are referred to.
//!
//! A secret is written as itself, or, better, as a reference that is resolved once, at start: `file:/path` takes the
//! content of a file, without the line end behind it, and `env:NAME` the value of an environment variable.

use std::fmt;

/// A value that is not shown: its [`Debug`](fmt::Debug) form hides it, and it has no other.
///
/// ```
/// use processor_runtime::secret::Secret;
///
/// let password = Secret::new("hunter2");
/// assert_eq!(format!("{password:?}"), "(hidden)");
/// assert_eq!(password.expose(), "hunter2");
/// ```
///
/// It cannot be displayed by accident:
/// ```compile_fail
/// println!("{}", processor_runtime::secret::Secret::new("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands for a secret wherever one would be shown.
///
/// ```
/// use processor_runtime::secret::{HIDDEN, Secret};
///
/// assert_eq!(format!("{:?}", Secret::new("hunter2")), HIDDEN);
/// ```
pub const HIDDEN: &str = "(hidden)";

impl Secret {
    /// Takes a value into custody.
    ///
    /// ```
    /// use processor_runtime::secret::Secret;
    ///
    /// let password = Secret::new("env:PASSWORD"); // the text itself: `read` takes references
    /// assert_eq!(password.expose(), "env:PASSWORD");
    /// ```
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for whoever must send it.
    ///
    /// ```
    /// use processor_runtime::secret::Secret;
    ///
    /// let password = Secret::new("hunter2");
    /// let header = format!("Bearer {}", password.expose()); // from here on somebody could show it
    /// assert_eq!(header, "Bearer hunter2");
    /// ```
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Resolves `file:/path` and `env:NAME`; any other text is the secret itself.
    ///
    /// ```
    /// use processor_runtime::secret::Secret;
    ///
    /// let variable = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
    /// assert_eq!(Secret::read("env:PASSWORD", variable)?.expose(), "hunter2");
    /// assert_eq!(Secret::read("hunter2", variable)?.expose(), "hunter2");
    /// let missing = Secret::read("file:/no/such/file", variable).unwrap_err();
    /// assert!(missing.contains("file:/no/such/file"), "{missing}");
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// What the reference points to is not there, is not text or is empty. The message holds the reference only.
    pub fn read(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let found = if let Some(path) = text.strip_prefix("file:") {
            let content = std::fs::read_to_string(path);
            let content =
                content.map_err(|error| format!("cannot read {text}: {error}; correct the path or its rights"))?;
            content.strip_suffix('\n').map_or(&*content, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned()
        } else if let Some(name) = text.strip_prefix("env:") {
            variable(name).ok_or_else(|| format!("{text} names a variable that is not set; set it"))?
        } else {
            return Ok(Self::new(text));
        };
        if found.is_empty() {
            return Err(format!("{text} holds nothing; write the secret there"));
        }
        Ok(Self(found))
    }
}

/// Whether a text refers to a secret instead of being one.
///
/// ```
/// use processor_runtime::secret::is_reference;
///
/// assert!(is_reference("file:/run/credentials/password") && is_reference("env:PASSWORD"));
/// assert!(!is_reference("hunter2"));
/// ```
pub fn is_reference(text: &str) -> bool {
    text.starts_with("file:") || text.starts_with("env:")
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_file_gives_its_content_without_the_line_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        let reference = format!("file:{}", path.display());
        for (content, secret) in [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("two\nlines\r\n", "two\nlines")] {
            std::fs::write(&path, content).expect("a writable directory");
            assert_eq!(Secret::read(&reference, none).map(|it| it.expose().to_owned()), Ok(secret.to_owned()));
        }
    }

    #[test]
    fn a_variable_gives_its_value_and_other_text_is_the_secret() {
        let variable = |name: &str| (name == "PASSWORD").then(|| "s3cret".to_owned());
        assert_eq!(Secret::read("env:PASSWORD", variable), Ok(Secret::new("s3cret")));
        assert_eq!(Secret::read("s3cret", none), Ok(Secret::new("s3cret")));
    }

    #[test]
    fn a_reference_to_nothing_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("empty"), "\n").expect("a writable directory");
        let empty = format!("file:{}", dir.path().join("empty").display());
        for reference in ["file:/no/such/file", "env:NO_SUCH_VARIABLE", &empty] {
            let message = Secret::read(reference, none).expect_err("there is nothing");
            assert!(message.contains(reference), "{message}");
        }
    }
}
