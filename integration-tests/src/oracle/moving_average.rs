//! The moving average, computed again: for each reading the mean of its key's last readings.
//!
//! Keys are UTF-8, values Java doubles (8 bytes, big-endian). An average has its reading's key, timestamp and
//! partition. It carries no source offset, so a reading and its average are matched by key and timestamp; the producers
//! give each reading of a partition a timestamp of its own. Means are compared bit by bit: the sum runs from the oldest
//! value to the newest and starts at +0.

use std::collections::{HashMap, VecDeque};
use std::fmt::Arguments;

use super::alignment::{Place, align};
use super::state::{State, value_of_doubles};
use super::verdict::{Kind, Verdict};
use super::{LogRecord, PartitionLog, by_partition};

/// What a reading and its average have in common.
type Identity<'a> = (Option<&'a [u8]>, i64);

/// Checks the averages of the last `window` readings of each key against the readings.
///
/// # Panics
/// A reading is not 8 bytes: the input is the test's own.
pub fn check_moving_average(input: &[PartitionLog], output: &[PartitionLog], window: usize) -> Verdict {
    assert!(window > 0, "a mean of nothing is not defined");
    let mut verdict = Verdict::new("readings", "averages");
    for (partition, readings, averages) in by_partition(input, output) {
        verdict.inputs += readings.len() as u64;
        verdict.outputs += averages.len() as u64;
        check_partition(&mut verdict, partition, readings, averages, window);
    }
    verdict
}

fn check_partition(
    verdict: &mut Verdict,
    partition: i32,
    readings: &[LogRecord],
    averages: &[LogRecord],
    window: usize,
) {
    let expected = means(readings, window);
    let (places, lost) = align(&identities(readings), &identities(averages));
    for (average, place) in averages.iter().zip(places) {
        let at = format_args!("{partition}@{}", average.offset);
        match place {
            Place::InOrder(cause) => check_value(verdict, at, average, expected[cause]),
            Place::OutOfOrder(cause) => {
                check_value(verdict, at, average, expected[cause]);
                verdict.violate(Kind::Reordered, at, || ("the input's order".into(), describe(average)));
            }
            Place::Doubled(cause) => verdict.violate(Kind::Doubled, at, || {
                (
                    format!("one average for the reading at offset {}", readings[cause].offset),
                    format!("another one, {}", describe(average)),
                )
            }),
            Place::Unknown => {
                verdict.violate(Kind::Wrong, at, || ("the average of a reading".into(), describe(average)));
            }
        }
    }
    for cause in lost {
        let reading = &readings[cause];
        let at = format_args!("input {partition}@{}", reading.offset);
        verdict.violate(Kind::Lost, at, || {
            (format!("{} for key {}", expected[cause], reading.key_text()), "nothing".into())
        });
    }
}

fn check_value(verdict: &mut Verdict, at: Arguments<'_>, average: &LogRecord, expected: f64) {
    let found = average.value.as_deref().and_then(double);
    if found.map(f64::to_bits) != Some(expected.to_bits()) {
        verdict.violate(Kind::Wrong, at, || (format!("{expected}"), describe(average)));
    }
}

/// The state that the readings lead to: the last ones of each key.
///
/// # Panics
/// As [`check_moving_average`].
pub fn expected_windows(input: &[PartitionLog], window: usize) -> State {
    let mut values: HashMap<Vec<u8>, Vec<f64>> = HashMap::new();
    for reading in input.iter().flat_map(|log| &log.records) {
        let value = reading.value.as_deref().and_then(double).expect("a reading is a double of 8 bytes");
        values.entry(reading.key.clone().unwrap_or_default()).or_default().push(value);
    }
    let last = |values: Vec<f64>| value_of_doubles(values[values.len().saturating_sub(window)..].iter());
    values.into_iter().map(|(key, values)| (key, last(values))).collect()
}

/// The mean after each reading.
fn means(readings: &[LogRecord], window: usize) -> Vec<f64> {
    let mut last: HashMap<Option<&[u8]>, VecDeque<f64>> = HashMap::new();
    let mut means = Vec::with_capacity(readings.len());
    for reading in readings {
        let values = last.entry(reading.key.as_deref()).or_default();
        if values.len() == window {
            values.pop_front();
        }
        values.push_back(reading.value.as_deref().and_then(double).expect("a reading is a double of 8 bytes"));
        means.push(mean(values));
    }
    means
}

fn mean(values: &VecDeque<f64>) -> f64 {
    let mut sum = 0.0;
    for value in values {
        sum += value;
    }
    sum / values.len() as f64
}

fn identities(records: &[LogRecord]) -> Vec<Identity<'_>> {
    records.iter().map(|record| (record.key.as_deref(), record.timestamp)).collect()
}

fn double(bytes: &[u8]) -> Option<f64> {
    bytes.try_into().ok().map(f64::from_be_bytes)
}

fn describe(average: &LogRecord) -> String {
    let value = match (&average.value, average.value.as_deref().and_then(double)) {
        (_, Some(value)) => value.to_string(),
        (Some(bytes), None) => format!("{} bytes", bytes.len()),
        (None, None) => "no value".to_owned(),
    };
    format!("{value} for key {} at time {}", average.key_text(), average.timestamp)
}
