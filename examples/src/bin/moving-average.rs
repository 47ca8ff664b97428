//! The moving average: the mean of the last few readings of each sensor.
//!
//! One operator with one store. Every reading updates the window of its sensor and sends the mean on, under the same
//! key, to the same partition, with the same timestamp. Kill it, move it, run three of it: each reading counts once.
//!
//! ```text
//! moving-average run --bootstrap-servers localhost:9092 --application-id averages \
//!     --input readings --output averages --state-dir /var/lib/averages
//! ```

use std::process::ExitCode;

use processor_core::prelude::*;

/// The last readings of each sensor, oldest first.
const WINDOW: KeyValueStoreDef<String, Vec<f64>> = KeyValueStoreDef::new("window");

/// Averages the last `size` readings of each sensor.
struct MovingAverage {
    size: usize,
}

impl Operator for MovingAverage {
    type KeyIn = String;
    type ValueIn = f64;
    type KeyOut = String;
    type ValueOut = f64;

    fn process(
        &mut self,
        record: Record<String, f64>,
        ctx: &mut Context<'_, String, f64>,
    ) -> Result<(), OperatorError> {
        let mean = ctx.store(&WINDOW).update(&record.key, |window| {
            window.push(record.value);
            if window.len() > self.size {
                window.remove(0);
            }
            window.iter().sum::<f64>() / window.len() as f64
        })?;
        ctx.forward(record.with_value(mean))
    }
}

/// The application's own arguments; the rest of the command line comes with the runtime.
#[derive(Debug, clap::Args)]
struct Args {
    /// The topic of readings: the key is the sensor, the value a number.
    #[arg(long)]
    input: String,
    /// The topic of averages, with as many partitions as the input.
    #[arg(long)]
    output: String,
    /// How many readings make an average.
    #[arg(long, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    window: usize,
    /// How numbers are written: as Java doubles or as decimal text.
    #[arg(long, value_enum, default_value_t = Format::Binary)]
    format: Format,
    /// The topic of dead letters: readings that are no numbers. Without it the first of them stops the worker.
    #[arg(long)]
    dead_letters: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// 8 bytes, big-endian, as Kafka's Java `DoubleSerializer` writes them.
    Binary,
    /// Decimal text, such as 21.5.
    Text,
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    match args.format {
        Format::Binary => averages(args, JavaDouble),
        Format::Text => averages(args, DecimalText),
    }
}

fn averages(args: &Args, number: impl Codec<f64>) -> Result<Topology, TopologyError> {
    let size = args.window;
    let mut topology = Topology::builder();
    if let Some(topic) = &args.dead_letters {
        topology.on_failure(FailurePolicy::dead_letter(topic));
    }
    topology
        .source("readings", &args.input, (Utf8, number.clone()))
        .process("moving-average", move || MovingAverage { size }) // a factory: one operator per task
        .with_store(&WINDOW) // in RocksDB, with a changelog topic
        .sink("averages", &args.output, (Utf8, number))
        .to_source_partition();
    topology.build()
}

fn main() -> ExitCode {
    processor_runtime::main::<Args>(topology)
}

#[cfg(test)]
mod tests {
    use processor_core::testing::{TopologyTestDriver, secs};

    use super::*;

    fn driver(format: Format, dead_letters: Option<&str>) -> Result<TopologyTestDriver, Box<dyn std::error::Error>> {
        let [input, output] = ["readings", "averages"].map(str::to_owned);
        let args = Args { input, output, window: 2, format, dead_letters: dead_letters.map(str::to_owned) };
        Ok(TopologyTestDriver::with_partitions(&topology(&args)?, 3)?)
    }

    #[test]
    fn the_mean_of_the_last_readings_survives_a_crash() -> Result<(), Box<dyn std::error::Error>> {
        for format in [Format::Binary, Format::Text] {
            let mut driver = driver(format, None)?;
            let readings = driver.input::<String, f64>("readings").partition(2); // not the key's partition
            readings.pipe_at(secs(1), "kitchen", 20.0);
            readings.pipe_at(secs(2), "cellar", 8.0);
            readings.pipe_at(secs(3), "kitchen", 21.0);
            driver.crash_and_restore()?;
            readings.pipe_at(secs(4), "kitchen", 24.0);
            let averages = driver.output::<String, f64>("averages").received();
            assert!(averages.iter().all(|average| average.partition.get() == 2), "an average stays with its reading");
            let averages: Vec<_> = averages.into_iter().map(|average| average.record).collect();
            let expected = [("kitchen", 20.0, 1), ("cellar", 8.0, 2), ("kitchen", 20.5, 3), ("kitchen", 22.5, 4)];
            assert_eq!(averages, expected.map(|(sensor, mean, at)| Record::new(sensor.to_owned(), mean, secs(at))));
            assert_eq!(driver.store(&WINDOW).get(&"kitchen".to_owned()), Some(vec![21.0, 24.0]));
        }
        Ok(())
    }

    #[test]
    fn what_is_no_number_in_the_format_stops_the_task_or_is_a_dead_letter() -> Result<(), Box<dyn std::error::Error>> {
        let (binary, text) = (21.5_f64.to_be_bytes(), b"21.5");
        for (format, right, wrong) in [(Format::Binary, &binary[..], &text[..]), (Format::Text, text, &binary)] {
            let strict = driver(format, None)?.input::<String, f64>("readings");
            assert!(strict.try_pipe_bytes(Some(secs(1)), Some(b"hall"), Some(wrong)).is_err(), "{format:?}");
            let driver = driver(format, Some("failed"))?;
            let readings = driver.input::<String, f64>("readings");
            for value in [wrong, right] {
                readings.try_pipe_bytes(Some(secs(1)), Some(b"hall"), Some(value))?;
            }
            assert_eq!(driver.output::<String, f64>("averages").values(), [21.5]);
            assert_eq!(driver.dead_letters()[0].value.as_deref(), Some(wrong));
        }
        Ok(())
    }
}

#[cfg(test)]
mod whatever_goes_wrong {
    use processor_simulator::Simulation;

    use super::*;

    #[test]
    fn averages_and_dead_letters_are_those_of_a_run_without_faults() -> Result<(), TopologyError> {
        let [input, output, failed] = ["readings", "averages", "failed"].map(str::to_owned);
        let args = Args { input, output, window: 3, format: Format::Text, dead_letters: Some(failed) };
        let summary = Simulation::new(&topology(&args)?)?
            .input("readings", (Utf8, Utf8), |random| {
                let reading = random.below(50);
                let text = if reading == 0 { "broken".to_owned() } else { reading.to_string() };
                (format!("sensor-{}", random.below(5)), text)
            })
            .run(200);
        assert!(summary.strokes > 200, "{summary}");
        Ok(())
    }
}
