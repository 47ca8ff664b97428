//! What `deploy/` says about metrics is what the workers export: the dashboard is made from their list, and alerts and
//! documents name no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use processor_runtime::metrics::definitions::{self as d, Definition, Kind};
use serde_json::{Value, json};

/// The rows of the dashboard, the most asked first.
const ROWS: &[(&str, &[&Definition])] = &[
    (
        "Does it keep up?",
        &[&d::INPUT_LAG, &d::RECORDS_PROCESSED, &d::RECORDS_DROPPED, &d::E2E_LATENCY, &d::LATENESS, &d::TIME_TO_LOSS],
    ),
    ("What holds the input back?", &[&d::LSO_LAG, &d::LSO_STANDS]),
    ("Does it run?", &[&d::STATE, &d::TASKS, &d::TURN_AGE, &d::OPERATORS_BUSY, &d::SLOW_RECORDS]),
    (
        "Where does the time go?",
        &[&d::LOOP_SECONDS, &d::COMMIT_SECONDS, &d::BATCH_RECORDS, &d::PROCESS_SECONDS, &d::STORE_OP_SECONDS],
    ),
    ("Transactions", &[&d::COMMITS, &d::PRODUCER_REBUILDS, &d::TXN_TAINTED, &d::FENCED]),
    ("The group", &[&d::REBALANCES, &d::SESSIONS_LOST, &d::REJOINS]),
    ("Restore", &[&d::RESTORE_REMAINING, &d::RESTORE_RECORDS, &d::RESTORE_ETA]),
    ("State", &[&d::STORE_KEYS, &d::STORE_BYTES, &d::SST_BYTES, &d::MEMORY_USED, &d::MEMORY_BUDGET]),
    ("Disk", &[&d::MEMTABLE_BYTES, &d::PENDING_COMPACTION_BYTES, &d::WRITE_STOPPED, &d::DELAYED_WRITE_RATE]),
    ("The program", &[&d::BUILD_INFO, &d::INVARIANT_VIOLATIONS]),
];

/// Counters that always move, shown a second. What others count is rare, and is shown as events in five minutes.
const BUSY: &[&Definition] = &[&d::RECORDS_PROCESSED, &d::COMMITS, &d::RESTORE_RECORDS];

/// Grafana divides a row into so many columns.
const COLUMNS: usize = 24;
const PANELS_IN_A_LINE: usize = 3;
const PANEL_HEIGHT: usize = 8;
/// What every query is limited to: the choices at the top of the dashboard.
const CHOSEN: &str = r#"job=~"$job", instance=~"$instance""#;

#[test]
fn every_metric_is_on_the_dashboard_once() {
    let shown: Vec<&str> = ROWS.iter().flat_map(|(_, metrics)| *metrics).map(|metric| metric.name).collect();
    let distinct: BTreeSet<&str> = shown.iter().copied().collect();
    let all: BTreeSet<&str> = d::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(distinct, all, "a metric is missing in ROWS");
    assert_eq!(shown.len(), distinct.len(), "a metric stands in two rows");
}

#[test]
fn the_dashboard_is_made_from_the_list_of_metrics() {
    let path = deploy().join("grafana/processor.json");
    let made = serde_json::to_string_pretty(&dashboard()).expect("JSON can be written") + "\n";
    if std::env::var_os("PROCESSOR_BLESS").is_some() {
        fs::write(&path, &made).expect("the dashboard can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "{} is out of date: PROCESSOR_BLESS=1 ./x cargo test -p processor-integration-tests --test deploy writes it",
        path.display()
    );
}

#[test]
fn alerts_and_documents_name_metrics_that_exist() {
    let all: BTreeSet<&str> = d::ALL.iter().map(|metric| metric.name).collect();
    for page in ["prometheus/rules.yml", "prometheus/rules.test.yml", "../docs/operating.md"] {
        let text = fs::read_to_string(deploy().join(page)).expect("the page is there");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("processor_")) {
            let is_known = |name: &str| all.contains(name);
            let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|part| word.strip_suffix(part));
            assert!(
                is_known(word) || of_histogram.into_iter().any(is_known),
                "{page} names {word}, which no worker exports"
            );
        }
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn dashboard() -> Value {
    json!({
        "uid": "processor",
        "title": "Processor",
        "description": "Made from the list of metrics in processor-runtime; docs/operating.md says how to read it.",
        "tags": ["processor", "kafka"],
        "schemaVersion": 39,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": [data_source(), choice("job", ""), choice("instance", r#"job=~"$job""#)] },
        "panels": panels(),
    })
}

fn data_source() -> Value {
    json!({ "name": "source", "label": "source", "type": "datasource", "query": "prometheus" })
}

/// What can be chosen at the top: all values of a label.
fn choice(label: &str, among: &str) -> Value {
    json!({
        "name": label,
        "label": label,
        "type": "query",
        "datasource": source(),
        "query": format!("label_values({}{{{among}}}, {label})", d::BUILD_INFO.name),
        "includeAll": true,
        "multi": true,
        "allValue": ".*",
        "current": { "text": "All", "value": "$__all" },
        "refresh": 2,
        "sort": 1,
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${source}" })
}

/// Every row begins with its title, a line high; its panels follow, so many in a line.
fn panels() -> Vec<Value> {
    let mut panels = Vec::new();
    let mut y = 0;
    for (title, metrics) in ROWS {
        let at = json!({ "x": 0, "y": y, "w": COLUMNS, "h": 1 });
        panels.push(json!({ "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false, "gridPos": at, "panels": [] }));
        y += 1;
        for line in metrics.chunks(PANELS_IN_A_LINE) {
            let width = COLUMNS / line.len();
            for (index, metric) in line.iter().enumerate() {
                let at = json!({ "x": index * width, "y": y, "w": width, "h": PANEL_HEIGHT });
                panels.push(panel(panels.len() + 1, metric, &at));
            }
            y += PANEL_HEIGHT;
        }
    }
    panels
}

fn panel(id: usize, metric: &Definition, at: &Value) -> Value {
    let targets: Vec<Value> = queries(metric)
        .into_iter()
        .zip('A'..='Z')
        .map(|((query, legend), letter)| {
            json!({ "refId": letter.to_string(), "datasource": source(), "expr": query, "legendFormat": legend })
        })
        .collect();
    json!({
        "id": id,
        "type": "timeseries",
        "title": title(metric),
        "description": metric.meaning,
        "datasource": source(),
        "gridPos": at,
        "fieldConfig": {
            "defaults": { "unit": unit(metric), "min": 0, "custom": { "showPoints": "never", "fillOpacity": 10 } },
            "overrides": [],
        },
        "options": { "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi" } },
        "targets": targets,
    })
}

/// The queries of a metric, each with the legend of its series. Threads, tasks and partitions are summed: there may be
/// hundreds, and which of them it was is the second question.
fn queries(metric: &Definition) -> Vec<(String, String)> {
    let name = metric.name;
    let is_detail = |label: &&str| ["thread", "task", "partition"].contains(label);
    let kept: Vec<&str> =
        ["instance"].into_iter().chain(metric.labels.iter().copied().filter(|l| !is_detail(l))).collect();
    let legend = kept.iter().map(|label| format!("{{{{{label}}}}}")).collect::<Vec<_>>().join(" ");
    let by = kept.join(", ");
    let rate = |series: &str| format!("rate({name}{series}{{{CHOSEN}}}[$__rate_interval])");
    match metric.kind {
        Kind::Counter if is_busy(metric) => vec![(format!("sum by ({by}) ({})", rate("")), legend)],
        Kind::Counter => vec![(format!("sum by ({by}) (increase({name}{{{CHOSEN}}}[5m]))"), legend)],
        // Times do not add up; of what is left the least counts.
        Kind::Gauge if metric.name == d::TIME_TO_LOSS.name => {
            vec![(format!("min by ({by}) ({name}{{{CHOSEN}}})"), legend)]
        }
        Kind::Gauge if name.ends_with("_seconds") => vec![(format!("max by ({by}) ({name}{{{CHOSEN}}})"), legend)],
        Kind::Gauge => vec![(format!("sum by ({by}) ({name}{{{CHOSEN}}})"), legend)],
        // The share of each phase in the time says more than how long one lasts.
        Kind::Histogram(_) if metric.name == d::LOOP_SECONDS.name => {
            vec![(format!("sum by ({by}) ({})", rate("_sum")), legend)]
        }
        Kind::Histogram(_) => [0.5, 0.99]
            .map(|quantile| {
                let query = format!("histogram_quantile({quantile}, sum by (le, {by}) ({}))", rate("_bucket"));
                (query, format!("{legend} p{}", quantile * 100.0))
            })
            .to_vec(),
    }
}

fn is_busy(metric: &Definition) -> bool {
    BUSY.iter().any(|busy| busy.name == metric.name)
}

/// The metric's name as words.
fn title(metric: &Definition) -> String {
    let bare = metric.name.trim_start_matches("processor_").trim_end_matches("_total");
    bare.trim_end_matches("_seconds").trim_end_matches("_bytes").replace('_', " ")
}

/// Grafana's name of a unit.
fn unit(metric: &Definition) -> &'static str {
    match metric.kind {
        Kind::Counter if is_busy(metric) => "ops",
        Kind::Histogram(_) if metric.name == d::LOOP_SECONDS.name => "percentunit",
        Kind::Gauge | Kind::Histogram(_) if metric.name.ends_with("_bytes_per_second") => "Bps",
        Kind::Gauge | Kind::Histogram(_) if metric.name.ends_with("_bytes") => "bytes",
        Kind::Gauge | Kind::Histogram(_) if metric.name.ends_with("_seconds") => "s",
        Kind::Counter | Kind::Gauge | Kind::Histogram(_) => "short",
    }
}
