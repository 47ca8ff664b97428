//! What the demo says at its end: the verdict in words, some averages, and where to look further.

#![expect(clippy::print_stdout, reason = "this is a command line")]

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::kept::Files;
use super::{APPLICATION, Format, INPUT, OUTPUT, WINDOW};
use crate::lab::program::Program;
use crate::oracle::{PartitionLog, Verdict, grouped};

const SENSORS_SHOWN: usize = 5;

/// What became of the worker that was killed.
#[derive(Clone, Debug)]
pub(super) struct Revival {
    /// Which one.
    pub(super) worker: String,
    /// When it was back; nothing if no new input came for its partitions.
    pub(super) back_after: Option<Duration>,
}

/// Prints the verdict: one sentence, then each violation on a line of its own.
pub(super) fn verdict(outputs: &Verdict, offsets: &Verdict, revival: Option<&Revival>) {
    let text = outputs.to_string();
    let (sentence, violations) = text.split_once('\n').unwrap_or((&text, ""));
    let end = match revival {
        None => "no worker killed, since half of the averages were never visible".to_owned(),
        Some(Revival { back_after: Some(time), .. }) => {
            format!("1 worker killed, back after {:.1} s", time.as_secs_f32())
        }
        Some(Revival { worker, back_after: None }) => format!("1 worker killed, no new average of {worker} was seen"),
    };
    println!("\n{sentence}; {end}");
    if !violations.is_empty() {
        println!("{violations}");
    }
    if offsets.is_ok() {
        println!("the committed offsets of all {} partitions end where the input ends\n", offsets.inputs);
    } else {
        println!("committed offsets: {offsets}\n");
    }
}

/// The last average of some sensors.
#[derive(Debug)]
pub(super) struct Averages(Vec<Row>);

#[derive(Debug)]
struct Row {
    sensor: String,
    partition: i32,
    readings: u64,
    last: Option<f64>,
}

impl Averages {
    /// From the outputs, with binary values.
    pub(super) fn of(output: &[PartitionLog]) -> Self {
        let mut rows: BTreeMap<(usize, String), Row> = BTreeMap::new();
        for log in output {
            for record in &log.records {
                let sensor = String::from_utf8_lossy(record.key.as_deref().unwrap_or(b"no key")).into_owned();
                // Numbers in their own order: sensor-2 before sensor-10.
                let row = rows.entry((sensor.len(), sensor.clone()));
                let row = row.or_insert(Row { sensor, partition: log.partition, readings: 0, last: None });
                row.readings += 1;
                row.last = record.value.as_deref().and_then(|value| value.try_into().ok()).map(f64::from_be_bytes);
            }
        }
        Self(rows.into_values().take(SENSORS_SHOWN).collect())
    }
}

impl fmt::Display for Averages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<12} {:>9} {:>9}   mean of the last {WINDOW}", "sensor", "partition", "readings")?;
        for row in &self.0 {
            let last = row.last.map_or_else(|| "not a number".to_owned(), |mean| format!("{mean:.3}"));
            writeln!(f, "  {:<12} {:>9} {:>9}   {last}", row.sensor, row.partition, grouped(row.readings))?;
        }
        Ok(())
    }
}

/// Where to look when everything has ended.
pub(super) fn look_further(files: &Files, workers: &[String]) {
    let first = workers.first().map_or("worker-1", String::as_str);
    println!("what the workers said     less {}", shown(&files.log(first)));
    println!("what they keep on disk    find {}", shown(&files.state(first)));
    println!("what the broker said      less {}", shown(&files.kafka().join("node-1/kafka.log")));
    println!("another run               ./x demo --seed 2 --workers 3 --format text");
    println!("keep it running           ./x demo --keep");
    println!("a Kafka of your own       ./x kafka start, then ./x run moving-average run --help");
}

/// What was left running.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bootstrap: String,
    pub(super) kafka_pid: u32,
    pub(super) workers: Vec<(Program, u32)>,
}

/// How to use and end what was left running.
pub(super) fn kept(files: &Files, kept: &Kept) {
    let bootstrap = &kept.bootstrap;
    println!("kept running: Kafka (pid {}) on {bootstrap}", kept.kafka_pid);
    println!("  topics                  {INPUT} -> {OUTPUT}, state in {APPLICATION}-window-changelog");
    for (worker, pid) in &kept.workers {
        println!(
            "  {:<23} pid {pid}, less {}, find {}",
            worker.name,
            shown(&worker.log),
            shown(&files.state(&worker.name))
        );
    }
    let java =
        format!("java -cp \"{}/*\"", env::var("PROCESSOR_KAFKA_LIBS").unwrap_or_else(|_| "$KAFKA_HOME/libs".into()));
    println!("read the averages\n  {}", console_consumer(&java, bootstrap, kept));
    if is_text(kept) {
        println!("send a reading\n  {}", console_producer(&java, bootstrap));
    }
    println!("see what is committed");
    println!("  {java} org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server {bootstrap} \\");
    println!("    --describe --group {APPLICATION}");
    if let Some((worker, pid)) = kept.workers.first() {
        println!("kill {} and start it again", worker.name);
        println!(
            "  kill -9 {pid}; {} {} >>{} 2>&1 &",
            shown(&worker.path),
            worker.arguments.join(" "),
            shown(&worker.log)
        );
    }
    println!("stop it all               ./x demo --stop");
}

fn console_consumer(java: &str, bootstrap: &str, kept: &Kept) -> String {
    let kind = if is_text(kept) { "String" } else { "Double" };
    format!(
        "{java} org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server {bootstrap} \\\n    \
         --topic {OUTPUT} --from-beginning --isolation-level read_committed --max-messages 20 --property print.key=true \\\n    \
         --value-deserializer org.apache.kafka.common.serialization.{kind}Deserializer"
    )
}

fn console_producer(java: &str, bootstrap: &str) -> String {
    format!(
        "echo sensor-1:21.5 | {java} org.apache.kafka.tools.ConsoleProducer --bootstrap-server {bootstrap} \\\n    \
         --topic {INPUT} --property parse.key=true --property key.separator=:"
    )
}

fn is_text(kept: &Kept) -> bool {
    let text = Format::Text.name();
    kept.workers.iter().any(|(worker, _)| worker.arguments.iter().any(|argument| argument == text))
}

/// A path as it is typed from the current directory.
fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::LogRecord;

    #[test]
    fn sensors_are_shown_by_number_with_their_last_average() {
        let record = |sensor: &str, mean: f64| LogRecord {
            key: Some(sensor.into()),
            value: Some(mean.to_be_bytes().to_vec()),
            ..LogRecord::default()
        };
        let records = vec![record("sensor-10", 1.0), record("sensor-9", 2.0), record("sensor-9", 3.5)];
        let text = Averages::of(&[PartitionLog { partition: 3, records }]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("sensor-9 ") && lines[1].ends_with("2   3.500"), "{text}");
        assert!(lines[2].contains("sensor-10"), "{text}");
    }
}
