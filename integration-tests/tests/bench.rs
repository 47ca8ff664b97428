//! A quick run of the benchmark, to see that it works: every output is checked, the figures of a busy machine mean nothing.

use std::fs;
use std::process::Command;

use processor_integration_tests::broker::test_dir;
use serde_json::Value;

#[test]
fn a_quick_run_measures_what_is_right() {
    let target = test_dir("bench").expect("the target directory can be written");
    let (json, page) = (target.join("figures.json"), target.join("page.md"));
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
    lab.env_remove("PROCESSOR_PEER").arg("--target").arg(&target);
    lab.args(["bench", "--quick", "--wait-quiet", "0", "--only", "small-state,latency"]);
    let output = lab.arg("--json").arg(&json).arg("--page").arg(&page).output().expect("the lab can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}:\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_slice(&fs::read(&json).expect("it was asked for")).expect("it is JSON");
    let runs = &figures["rates"][0]["runs"];
    for subject in ["HandLoop", "Processor"] {
        let rate = runs[subject][0]["records_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 1_000.0), "{subject}: {runs}");
    }
    let page = fs::read_to_string(&page).expect("it was asked for");
    assert!(page.contains("| processor |") && page.contains("## latency"), "{page}");
    let chart = fs::read_to_string(target.join("page.svg")).expect("it is beside the page");
    assert!(
        chart.starts_with("<svg") && chart.contains(">processor</text>") && chart.trim_end().ends_with("</svg>"),
        "{chart}"
    );
}
