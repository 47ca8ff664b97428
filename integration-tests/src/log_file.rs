//! The log of a process that was started here: what a failed test shows of it.

use std::fs;
use std::path::Path;

const QUOTED_LINES: usize = 30;

/// The text of a log; empty while there is none.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The last lines of a log.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = read(path);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The last lines of a log for the end of a message: on lines of their own, indented, behind the file's name.
pub fn quoted_tail(path: &Path) -> String {
    format!(" the end of {}:\n  {}", path.display(), tail(path, QUOTED_LINES).replace('\n', "\n  "))
}
