//! Every rule of the protocol is switched off in turn, and the simulation must see it: an oracle that cannot fail proves
//! nothing. A switch holds for a whole process, so each has one of its own.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use processor_integration_tests::worker::WorkerConfig;
use processor_runtime::failpoints::Failpoint;
use processor_runtime::seeded_bugs::Rule;

/// Between these lines of docs/guarantees.md stands what [`lists`] makes.
const MARKS: [&str; 2] = ["<!-- failpoints and rules: made from the code -->\n", "<!-- end -->\n"];

/// The failpoints and the rules, as the documents show them.
fn lists() -> String {
    let mut text = "\n| a worker dies | what is done and what is not |\n|---|---|\n".to_owned();
    for at in Failpoint::ALL {
        writeln!(text, "| `{}` | {} |", at.name(), at.text()).expect("a string takes it");
    }
    text += "\n| rule that is switched off | what is done instead |\n|---|---|\n";
    for rule in Rule::ALL {
        writeln!(text, "| `{}` | {} |", rule.name(), rule.text()).expect("a string takes it");
    }
    text + "\n"
}

#[test]
fn the_guarantees_list_every_failpoint_and_every_rule() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guarantees.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let (before, rest) = page.split_once(MARKS[0]).expect("the page has the first mark");
    let (listed, behind) = rest.split_once(MARKS[1]).expect("the page has the second mark");
    let made = lists();
    if std::env::var_os("PROCESSOR_BLESS").is_some() {
        let page = [before, MARKS[0], &made, MARKS[1], behind].concat();
        return std::fs::write(path, page).expect("the page can be written");
    }
    assert!(
        listed == made,
        "docs/guarantees.md is out of date: PROCESSOR_BLESS=1 ./x cargo test --test seeded_bugs writes it"
    );
}

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
