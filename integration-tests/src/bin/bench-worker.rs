//! The works of the benchmark that no example does: each the same, record for record, as Kafka Streams does it in
//! `integration-tests/peer`.

use std::process::ExitCode;

use processor_core::prelude::*;
use processor_core::topology::Processed;
use serde::{Deserialize, Serialize};

/// The last values of each key, oldest first; a topology uses as many of these as it is told.
const WINDOWS: [KeyValueStoreDef<String, Vec<f64>>; 3] =
    [KeyValueStoreDef::new("window-0"), KeyValueStoreDef::new("window-1"), KeyValueStoreDef::new("window-2")];
/// The last value of each key, as it came.
const LAST: KeyValueStoreDef<String, Vec<u8>> = KeyValueStoreDef::new("last");

#[derive(Debug, clap::Args)]
struct Args {
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    #[arg(long, value_enum)]
    work: Work,
    /// How many values make an average.
    #[arg(long, default_value_t = 10)]
    window: usize,
    /// In how many stores each window is kept, in each of them the same.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=WINDOWS.len() as i64))]
    stores: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// The mean of the last values of each key: doubles in and out.
    Average,
    /// The same, with readings and averages as JSON.
    JsonAverage,
    /// Three operators in a row: scale, drop what is negative, average.
    Chain,
    /// Keeps the last value of each key, and sends it on.
    Last,
}

/// A number as JSON: `{"value":21.5}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Reading {
    value: f64,
}

/// Averages the last `size` values of each key, in each of its stores.
struct Average {
    size: usize,
    stores: usize,
}

impl Operator for Average {
    type KeyIn = String;
    type ValueIn = f64;
    type KeyOut = String;
    type ValueOut = f64;

    fn process(
        &mut self,
        record: Record<String, f64>,
        ctx: &mut Context<'_, String, f64>,
    ) -> Result<(), OperatorError> {
        let mut mean = 0.0;
        for store in &WINDOWS[..self.stores] {
            mean = ctx.store(store).update(&record.key, |window| {
                window.push(record.value);
                if window.len() > self.size {
                    window.remove(0);
                }
                window.iter().sum::<f64>() / window.len() as f64
            })?;
        }
        ctx.forward(record.with_value(mean))
    }
}

fn averaged(stream: &Stream<String, f64>, args: &Args) -> Processed<String, f64> {
    let (size, stores) = (args.window, usize::from(args.stores));
    let averages = stream.process("average", move || Average { size, stores });
    WINDOWS[..stores].iter().fold(averages, Processed::with_store)
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    let mut topology = Topology::builder();
    match args.work {
        Work::Average => {
            let readings = topology.source("readings", &args.input, (Utf8, JavaDouble));
            averaged(&readings, args).sink("averages", &args.output, (Utf8, JavaDouble)).to_source_partition();
        }
        Work::JsonAverage => {
            let readings = topology.source("readings", &args.input, (Utf8, Json));
            let averages = averaged(&readings.map_values(|reading: Reading| reading.value), args);
            let averages = averages.map_values(|value| Reading { value });
            averages.sink("averages", &args.output, (Utf8, Json)).to_source_partition();
        }
        Work::Chain => {
            let readings = topology.source("readings", &args.input, (Utf8, JavaDouble));
            let scaled = readings.map_values(|value| value * 1.8 + 32.0).filter(|record| record.value >= 0.0);
            averaged(&scaled, args).sink("averages", &args.output, (Utf8, JavaDouble)).to_source_partition();
        }
        Work::Last => {
            let values = topology.source("values", &args.input, (Utf8, Raw));
            let last =
                values.each("last", |record: Record<String, Vec<u8>>, ctx: &mut Context<'_, String, Vec<u8>>| {
                    ctx.store(&LAST).put(&record.key, record.value.clone());
                    ctx.forward(record)
                });
            last.with_store(&LAST).sink("copies", &args.output, (Utf8, Raw)).to_source_partition();
        }
    }
    topology.build()
}

fn main() -> ExitCode {
    processor_runtime::main::<Args>(topology)
}
