//! `lab campaign`: faults by the thousand, and proof that nothing was lost or doubled.
//!
//! With `--sim` in the simulation: the real loop on a cluster and disks in memory, one schedule a seed. What was done is
//! kept in `target/campaign`, and the next call goes on behind it, as long as it is of the same commit.

#![expect(clippy::print_stdout, reason = "this is a command line")]

mod sim;

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, value_parser};
use processor_runtime::seeded_bugs::Rule;

/// Strike workers, brokers and the network by the thousand, and check every record.
#[derive(Args, Debug)]
pub struct CampaignArgs {
    /// In the simulation, where every schedule comes from a seed and can be run again.
    #[arg(long)]
    sim: bool,
    /// For how long. What was done before by the same commit counts, and is not done again.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u64).range(1..=120))]
    minutes: u64,
    /// How many schedules of the simulation at most.
    #[arg(long, requires = "sim")]
    schedules: Option<u64>,
    /// The first seed; without it, the one behind the last that was run.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the schedule of --seed alone, and shows each of its steps.
    #[arg(long, requires_all = ["sim", "seed"])]
    trace: bool,
    /// Switches a rule of the protocol off and looks for a schedule in which that is seen: exit code 0 if there is one.
    #[arg(long, value_name = "RULE", requires = "sim", value_parser = Rule::find, conflicts_with = "trace")]
    without: Option<Rule>,
}

/// Runs `lab campaign`, with `target` being the directory for run-time data.
///
/// # Errors
/// Something went wrong that must not, or could not be started.
pub fn run(args: &CampaignArgs, target: &Path) -> Result<()> {
    if args.sim {
        return sim::run(args, target);
    }
    bail!("only the simulation has a campaign yet: add --sim")
}
