//! What a scrape shows.

use std::time::Duration;

use processor_core::ids::Timestamp;

use super::*;

#[test]
fn every_series_of_a_thread_is_there_before_anything_happened() {
    let metrics = Metrics::on();
    let _thread = metrics.thread(3);
    let page = metrics.render(&Gauges::default());
    for series in [
        "processor_records_processed_total{thread=\"3\"} 0",
        "processor_commits_total{thread=\"3\",result=\"unknown\"} 0",
        "processor_loop_duration_seconds_count{thread=\"3\",phase=\"apply\"} 0",
        "processor_commit_duration_seconds_bucket{thread=\"3\",le=\"0.0005\"} 0",
    ] {
        assert!(page.contains(series), "no {series} in\n{page}");
    }
}

#[test]
fn observations_are_counted_in_seconds_and_in_the_buckets_of_the_definition() {
    let metrics = Metrics::on();
    let thread = metrics.thread(0);
    thread.phase(Phase::Offsets, Duration::from_millis(3));
    thread.committed(250, Duration::from_millis(5), Duration::from_millis(40));
    thread.late(Duration::from_secs(7));
    thread.visible(Timestamp::new(1_000), Timestamp::new(9_000), Timestamp::new(3_500));
    metrics.upkeep();
    let page = metrics.render(&Gauges::default());
    for series in [
        "processor_loop_duration_seconds_bucket{thread=\"0\",phase=\"offsets\",le=\"0.0025\"} 0",
        "processor_loop_duration_seconds_bucket{thread=\"0\",phase=\"offsets\",le=\"0.005\"} 1",
        "processor_batch_records_sum{thread=\"0\"} 250",
        "processor_commits_total{thread=\"0\",result=\"ok\"} 1",
        "processor_process_duration_seconds_sum{thread=\"0\"} 0.00002",
        "processor_record_lateness_seconds_bucket{thread=\"0\",le=\"10\"} 1",
        "processor_e2e_latency_seconds_sum{thread=\"0\",record=\"first\"} 2.5",
        "processor_e2e_latency_seconds_sum{thread=\"0\",record=\"last\"} 0",
    ] {
        assert!(page.contains(series), "no {series} in\n{page}");
    }
}

#[test]
fn rare_events_get_a_series_when_they_happen() {
    let metrics = Metrics::on();
    let thread = metrics.thread(1);
    thread.passed_over("skipped", "decode", 2);
    thread.passed_over("skipped", "decode", 1);
    thread.passed_over("dead-lettered", "process", 1);
    thread.tainted("EndTxn");
    metrics.invariant_violated();
    let page = metrics.render(&Gauges::default());
    for series in [
        "processor_records_dropped_total{thread=\"1\",outcome=\"skipped\",reason=\"decode\"} 3",
        "processor_records_dropped_total{thread=\"1\",outcome=\"dead-lettered\",reason=\"process\"} 1",
        "processor_txn_tainted_total{thread=\"1\",api=\"EndTxn\"} 1",
        "processor_invariant_violations_total 1",
    ] {
        assert!(page.contains(series), "no {series} in\n{page}");
    }
}

#[test]
fn what_has_gone_is_gone_from_the_next_scrape() {
    let metrics = Metrics::on();
    let before = Gauges::default();
    before.set(&definitions::INPUT_LAG, &["in", "0"], 7.0);
    before.set(&definitions::INPUT_LAG, &["in", "1"], 8.0);
    let after = Gauges::default();
    after.set(&definitions::INPUT_LAG, &["in", "1"], 9.0);
    assert!(metrics.render(&before).contains("processor_input_lag_records{topic=\"in\",partition=\"0\"} 7"));
    let page = metrics.render(&after);
    assert!(page.contains("processor_input_lag_records{topic=\"in\",partition=\"1\"} 9"), "{page}");
    assert!(!page.contains("partition=\"0\""), "{page}");
}

#[test]
fn nothing_is_measured_where_nobody_asks() {
    let metrics = Metrics::off();
    metrics.thread(0).committed(1, Duration::ZERO, Duration::from_secs(1));
    assert!(metrics.thread(0).store_reads().is_none());
    metrics.upkeep();
    assert_eq!(metrics.render(&Gauges::default()), "");
}

/// `increase()` of a series that is born at 1 is 0: an alert on it would miss the first.
#[test]
fn every_counter_is_there_at_zero_before_anything_is_counted() {
    let metrics = Metrics::on();
    let (_thread, _slow) = (metrics.thread(0), metrics.slow_records(0));
    let page = metrics.render(&Gauges::default());
    for definition in definitions::ALL.iter().filter(|definition| definition.kind == Kind::Counter) {
        let is_series = |line: &&str| line.starts_with(definition.name) && line.ends_with(" 0");
        assert!(page.lines().any(|line| is_series(&line)), "{} is not in:\n{page}", definition.name);
    }
}
