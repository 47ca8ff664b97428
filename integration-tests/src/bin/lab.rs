//! Runs what needs a Kafka on this machine: the demo, the benchmarks, a Kafka to try things out with.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use processor_integration_tests::lab::bench::hand_loop::{self, HandLoopArgs};
use processor_integration_tests::lab::bench::{self, BenchArgs};
use processor_integration_tests::lab::campaign::{self, CampaignArgs};
use processor_integration_tests::lab::demo::{self, DemoArgs};
use processor_integration_tests::lab::interrupt::{self, Interrupted};
use processor_integration_tests::lab::kafka::{self, KafkaArgs};
use processor_integration_tests::lab::late::{self, LateArgs};
use processor_integration_tests::lab::program::{self, ExecArgs};

/// Runs what needs a Kafka on this machine. Start it through ./x.
#[derive(Parser)]
#[command(name = "lab")]
struct Lab {
    /// The directory for run-time data.
    #[arg(long, global = true, default_value = "target")]
    target: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(DemoArgs),
    Bench(BenchArgs),
    Campaign(CampaignArgs),
    Late(LateArgs),
    Kafka(KafkaArgs),
    #[command(hide = true)]
    HandLoop(HandLoopArgs),
    #[command(hide = true)]
    Exec(ExecArgs),
}

fn main() -> ExitCode {
    match run(&Lab::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            if error.is::<Interrupted>() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(lab: &Lab) -> Result<()> {
    match &lab.command {
        Command::Demo(args) => demo::run(args, &lab.target),
        Command::Bench(args) => bench::run(args, &lab.target),
        Command::Campaign(args) => campaign::run(args, &lab.target),
        Command::Late(args) => late::run(args, &lab.target),
        Command::HandLoop(args) => hand_loop::run(args),
        Command::Kafka(args) => kafka::run(args, &lab.target),
        Command::Exec(args) => match program::exec(args)? {},
    }
}
