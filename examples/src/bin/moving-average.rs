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
