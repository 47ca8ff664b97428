//! A short campaign on three real brokers: the same code that runs for hours, with the faults that need no luck.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use processor_integration_tests::broker::test_dir;
use serde_json::Value;

fn campaign(target: &Path, arguments: &[&str]) -> Output {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
    lab.arg("--target").arg(target).arg("campaign").args(arguments);
    lab.output().expect("the lab can be started")
}

fn directory(name: &str) -> PathBuf {
    test_dir(name).expect("the target directory can be written")
}

fn report(target: &Path, of: &str) -> (Value, String) {
    let read = |name: &str| fs::read_to_string(target.join(of).join(name)).expect("there is a report");
    (serde_json::from_str(&read("report.json")).expect("it is JSON"), read("report.md"))
}

/// Workers die, stop, lose their state and their connections, and commits are late: everything is verified, and the report
/// says what was done.
#[test]
fn a_minute_of_faults_loses_and_doubles_nothing() {
    const FAULTS: [&str; 6] =
        ["worker-kill", "worker-stop", "worker-failpoint", "state-lost", "network-cut", "commit-late"];
    let target = directory("campaign");
    let output = campaign(&target, &["--minutes", "1", "--seed", "1", "--rate", "1500", "--faults", &FAULTS.join(",")]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}:\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));

    let (figures, text) = report(&target, "campaign");
    assert_eq!(figures["violations"].as_array().map(Vec::len), Some(0), "{text}");
    assert_eq!(figures["not_counted"].as_array().map(Vec::len), Some(0), "{text}");
    assert!(figures["records_verified"].as_u64().is_some_and(|records| records > 10_000), "{text}");
    let counted = |fault: &&str| figures["faults"][fault]["counted"].as_u64().unwrap_or(0);
    let seen: u64 = FAULTS.iter().map(counted).sum();
    assert!(seen >= 3, "{seen} faults count:\n{text}");
    assert!(text.contains("| fault | counted |"), "{text}");
}

/// A fault that nobody knows is refused before anything is started, with those that there are.
#[test]
fn a_fault_that_does_not_exist_is_named() {
    let output = campaign(&directory("campaign-unknown"), &["--faults", "worker-kill,worker-tickle"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no fault 'worker-tickle', but worker-kill, "), "{said}");
}
