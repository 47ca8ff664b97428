//! `lab campaign`: faults by the thousand, and proof that nothing was lost or doubled.
//!
//! On three real brokers with workers as processes (`real`), or with `--sim` in the simulation: the real loop on a cluster
//! and disks in memory, one schedule a seed. What was done is kept in `target/campaign`, and the next call goes on behind
//! it, as long as the code is the same.

mod bank;
mod clock;
mod cluster;
mod code;
mod faults;
mod load;
mod network;
mod proof;
mod real;
mod report;
mod resources;
mod schedule;
mod segment;
mod sim;
mod strike;
mod view;
mod visible;

use std::path::Path;

use anyhow::Result;
use clap::{Args, value_parser};
use processor_runtime::seeded_bugs::Rule;

/// Strike workers, brokers and the network by the thousand, and check every record.
#[derive(Args, Debug)]
pub struct CampaignArgs {
    /// In the simulation, where every schedule comes from a seed and can be run again.
    #[arg(long)]
    sim: bool,
    /// For how long. What was done before by the same code counts, and is not done again.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// How many schedules of the simulation at most.
    #[arg(long, requires = "sim")]
    schedules: Option<u64>,
    /// Decides the faults; in the simulation the first seed, and without it the one behind the last that was run.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults, with commas between: worker-kill,broker-kill.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "sim")]
    faults: Vec<String>,
    /// How many records are produced a second.
    #[arg(long, default_value_t = 2_000, value_parser = value_parser!(u64).range(100..=50_000), conflicts_with = "sim")]
    rate: u64,
    /// Runs the schedule of --seed alone, and shows each of its steps.
    #[arg(long, requires_all = ["sim", "seed"])]
    trace: bool,
    /// Switches a rule of the protocol off and looks for a fault after which that is seen: exit code 0 if there is one.
    #[arg(long, value_name = "RULE", value_parser = Rule::find, conflicts_with = "trace")]
    without: Option<Rule>,
}

/// Runs `lab campaign`, with `target` being the directory for run-time data.
///
/// # Errors
/// Something went wrong that must not, or could not be started.
pub fn run(args: &CampaignArgs, target: &Path) -> Result<()> {
    if args.sim { sim::run(args, target) } else { real::run(args, target) }
}

/// Something went wrong that must not.
#[derive(Debug)]
struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

fn wrong(what: String) -> anyhow::Error {
    Wrong(what).into()
}

/// What a panic says.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
