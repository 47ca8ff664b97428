//! Every rule of the protocol is switched off in turn, and the simulation must see it: an oracle that cannot fail proves
//! nothing. A switch holds for a whole process, so each has one of its own.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use processor_integration_tests::worker::WorkerConfig;
use processor_runtime::seeded_bugs::Rule;

#[test]
fn every_seeded_bug_is_caught_and_named() {
    let lab = WorkerConfig::new("lab", "/dev/null").program;
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(rule) = Rule::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let output = Command::new(&lab).args(["campaign", "--sim", "--without", rule.name()]).output();
                    let output = output.expect("the lab is built");
                    eprint!("{}", String::from_utf8_lossy(&output.stdout));
                    if !output.status.success() {
                        let said = String::from_utf8_lossy(&output.stderr).into_owned();
                        missed.lock().expect("nobody panics with it").push(said);
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("nobody panics with it");
    assert!(missed.is_empty(), "{} rules are missed:\n{}", missed.len(), missed.join("\n"));
}
