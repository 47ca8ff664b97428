//! Which code is tried: what one run has shown counts for another only where both ran the same.

use std::process::Command;

use anyhow::{Context, Result};

/// What is tried, and what tries it. Documents, the deployment's files and the benchmarks may change between two runs.
const TRIED: [&str; 10] = [
    ":/Cargo.toml",
    ":/Cargo.lock",
    ":/rust-toolchain.toml",
    ":/processor-core",
    ":/processor-runtime",
    ":/processor-simulator",
    ":/examples",
    ":/integration-tests/src",
    ":(top,exclude)integration-tests/src/lab/bench*",
    ":/integration-tests/Cargo.toml",
];

/// The commit that this was built from, with a `+` if the tree holds more, or where there is no git.
pub(super) fn commit() -> Result<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let more = !git(&["status", "--porcelain"])?.is_empty();
    Ok(if commit.is_empty() { "unknown+".to_owned() } else { format!("{commit}{}", if more { "+" } else { "" }) })
}

/// Whether two commits try the same code. A tree that holds more than its commit is another one each time.
pub(super) fn is_same(known: &str, now: &str) -> bool {
    if known.ends_with('+') || now.ends_with('+') {
        return false;
    }
    let mut unchanged = vec!["diff", "--quiet", known, now, "--"];
    unchanged.extend(TRIED);
    known == now || Command::new("git").args(unchanged).output().is_ok_and(|output| output.status.success())
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).output().context("cannot start git")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn a_tree_that_holds_more_than_its_commit_is_another_one() {
        assert!(is_same("0123456789ab", "0123456789ab"));
        assert!(!is_same("0123456789ab+", "0123456789ab+") && !is_same("0123456789ab", "0123456789ab+"));
    }

    #[test]
    fn a_commit_that_is_not_there_is_another_one() {
        assert!(!is_same("0123456789ab", "ba9876543210"));
    }
}
