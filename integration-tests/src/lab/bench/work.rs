//! What is done with which records, and how its outputs are checked.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::WINDOW;
use super::subject::Subject;
use crate::client::{Workload, produce_json_readings, produce_lines, produce_readings, produce_values};
use crate::oracle::{LogRecord, PartitionLog, check_moving_average, check_word_count, words_of};

/// A program's task, the same for all who do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Kind {
    /// The mean of the last values of each key.
    Average,
    /// The same, with JSON in and out.
    JsonAverage,
    /// Three operators in a row.
    Chain,
    /// Words are counted by way of an internal topic.
    Count,
    /// The last value of each key is kept and sent on.
    Last,
}

impl Kind {
    /// As the programs know it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::JsonAverage => "json-average",
            Self::Chain => "chain",
            Self::Count => "count",
            Self::Last => "last",
        }
    }

    /// Whether all is done when the offsets of its input are committed: what goes by way of an internal topic is not.
    pub(super) fn is_done_with_its_input(self) -> bool {
        self != Self::Count
    }

    /// Whether this subject can do it.
    pub(super) fn is_done_by(self, subject: Subject) -> bool {
        match subject {
            Subject::Processor => true,
            Subject::HandLoop => self == Self::Average,
            Subject::KafkaStreams => self != Self::Last,
        }
    }
}

/// A work and its size.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Work {
    /// In the names of topics and groups.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) records: u64,
    pub(super) keys: u64,
    pub(super) partitions: i32,
    /// Of a record of [`Kind::Last`].
    pub(super) value_bytes: usize,
    /// How many stores hold each average.
    pub(super) stores: u8,
    /// How many processes share the work.
    pub(super) workers: usize,
    /// Options of the processor for this work.
    #[serde(skip)]
    pub(super) processor_options: &'static [(&'static str, &'static str)],
}

impl Work {
    /// The moving average of 2,000,000 records of 8 bytes, over 10,000 keys and 4 partitions.
    pub(super) const fn average(name: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Average,
            records: 2_000_000,
            keys: 10_000,
            partitions: 4,
            value_bytes: 8,
            stores: 1,
            workers: 1,
            processor_options: &[],
        }
    }

    /// Writes its input.
    pub(super) fn produce(&self, bootstrap: &str, topic: &str) -> Result<()> {
        let workload = Workload { keys: self.keys, ..Workload::new(topic, self.records, self.partitions) };
        match self.kind {
            Kind::Average | Kind::Chain => produce_readings(bootstrap, &workload),
            Kind::JsonAverage => produce_json_readings(bootstrap, &workload),
            Kind::Count => produce_lines(bootstrap, &workload),
            Kind::Last => produce_values(bootstrap, &workload, self.value_bytes),
        }
    }

    /// How many steps it has: its records, or the words that are counted.
    pub(super) fn steps(&self, input: &[PartitionLog]) -> u64 {
        if self.kind.is_done_with_its_input() { self.records } else { words_of(input) }
    }

    /// Fails if the outputs are not those of the input.
    pub(super) fn check(&self, subject: Subject, input: &[PartitionLog], output: &[PartitionLog]) -> Result<()> {
        let verdict = match self.kind {
            Kind::Average => check_moving_average(input, output, WINDOW),
            Kind::JsonAverage => check_moving_average(&with(input, from_json)?, &with(output, from_json)?, WINDOW),
            Kind::Chain => check_moving_average(&with(input, scaled)?, output, WINDOW),
            // It gives a count the latest time of its word so far, not that of its line.
            Kind::Count if subject == Subject::KafkaStreams => check_word_count(&timeless(input), &timeless(output)),
            Kind::Count => check_word_count(input, output),
            Kind::Last => return self.check_copies(input, output),
        };
        // Of words there is another number than of lines.
        let is_complete = self.kind == Kind::Count || verdict.inputs == self.records;
        if !verdict.is_ok() || !is_complete {
            bail!("{} is wrong, so its speed means nothing: {verdict}", self.name);
        }
        Ok(())
    }

    /// The outputs are the inputs, in each partition.
    fn check_copies(&self, input: &[PartitionLog], output: &[PartitionLog]) -> Result<()> {
        let mut records = 0;
        for of in input {
            let copies =
                output.iter().find(|log| log.partition == of.partition).context("a partition has no outputs")?;
            let same = |(of, copy): (&LogRecord, &LogRecord)| (&of.key, &of.value) == (&copy.key, &copy.value);
            if of.records.len() != copies.records.len() || !of.records.iter().zip(&copies.records).all(same) {
                bail!("{} is wrong in partition {}, so its speed means nothing", self.name, of.partition);
            }
            records += of.records.len() as u64;
        }
        ensure!(records == self.records, "{} has read {records} records of {}", self.name, self.records);
        Ok(())
    }
}

/// The same records with other values.
fn with(logs: &[PartitionLog], value: impl Fn(&[u8]) -> Result<f64>) -> Result<Vec<PartitionLog>> {
    let record = |record: &LogRecord| {
        let number = value(record.value.as_deref().context("a record has no value")?)?;
        Ok(LogRecord { value: Some(number.to_be_bytes().to_vec()), ..record.clone() })
    };
    let log = |log: &PartitionLog| {
        let records = log.records.iter().map(record).collect::<Result<_>>()?;
        Ok(PartitionLog { partition: log.partition, records })
    };
    logs.iter().map(log).collect()
}

/// The same records, all of one time.
fn timeless(logs: &[PartitionLog]) -> Vec<PartitionLog> {
    let record = |record: &LogRecord| LogRecord { timestamp: 0, ..record.clone() };
    let log = |log: &PartitionLog| PartitionLog {
        partition: log.partition,
        records: log.records.iter().map(record).collect(),
    };
    logs.iter().map(log).collect()
}

fn from_json(bytes: &[u8]) -> Result<f64> {
    let value: serde_json::Value = serde_json::from_slice(bytes).context("a value is no JSON")?;
    value.get("value").and_then(serde_json::Value::as_f64).with_context(|| format!("{value} has no value"))
}

fn scaled(bytes: &[u8]) -> Result<f64> {
    Ok(f64::from_be_bytes(bytes.try_into().context("a value has not 8 bytes")?) * 1.8 + 32.0)
}
