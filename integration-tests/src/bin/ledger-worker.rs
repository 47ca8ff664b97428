//! The ledger: the application under test of the exactly-once suite. Balances by account; every output says which
//! record it comes from, and which batch of its task it belongs to, so that an oracle can check it without the engine.

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use processor_core::prelude::*;
use processor_integration_tests::crash::tell_of_crashes;
use processor_runtime::Application;
use processor_runtime::failpoints::{Failpoint, strike_everywhere};
use processor_runtime::seeded_bugs::{Rule, switch_off};

/// Balance, and number of entries, of each account.
const ACCOUNTS: KeyValueStoreDef<String, (i64, u64)> = KeyValueStoreDef::new("accounts");

#[derive(Clone, Copy)]
struct Ledger {
    pause: Duration,
    fail_at: Option<Place>,
    panic_at: Option<Place>,
}

/// A record of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    partition: i32,
    offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('@').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("'{text}' is not a place: write partition@offset, such as 1@500"))
    }
}

impl Operator for Ledger {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = Vec<u8>;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, Vec<u8>>,
    ) -> Result<(), OperatorError> {
        // A slow operator keeps its transaction open for long: that is where a kill shall hit.
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        let (balance, count) = ctx.store(&ACCOUNTS).update(&record.key, |account| {
            account.0 += record.value;
            account.1 += 1;
            *account
        })?;
        let from = ctx.metadata().expect("a record is in process");
        let batch = ctx.batch();
        let mut entry = Vec::with_capacity(48);
        entry.extend_from_slice(&from.partition.get().to_be_bytes());
        entry.extend_from_slice(&0_i32.to_be_bytes());
        entry.extend_from_slice(&from.offset.get().to_be_bytes());
        entry.extend_from_slice(&batch.id.get().to_be_bytes());
        entry.extend_from_slice(&batch.index.to_be_bytes());
        entry.extend_from_slice(&batch.size.to_be_bytes());
        entry.extend_from_slice(&balance.to_be_bytes());
        entry.extend_from_slice(&count.to_be_bytes());
        let at = Some(Place { partition: from.partition.get(), offset: from.offset.get() });
        ctx.forward(record.with_value(entry))?;
        // Behind all that it does, so that there is something to undo.
        assert!(at != self.panic_at, "told to panic here");
        if at == self.fail_at { Err(OperatorError::message("told to fail here")) } else { Ok(()) }
    }
}

#[derive(Debug, clap::Args)]
struct Args {
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    /// How long to pause at each record, in microseconds.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
    /// Fails at this record, partition@offset, when all is done for it.
    #[arg(long)]
    fail_at: Option<Place>,
    /// Panics at this record, partition@offset, when all is done for it.
    #[arg(long)]
    panic_at: Option<Place>,
    /// Kills itself at this failpoint, or when it comes past it for the so-manieth time: after-commit, mid-process:100.
    #[arg(long)]
    die_at: Option<Death>,
    /// Pauses whenever it comes past this failpoint, for so many milliseconds: between-restore-batches:200.
    #[arg(long)]
    pause_at: Option<Pause>,
    /// Switches a rule of the protocol off, such as tainted-producer-is-replaced.
    #[arg(long, value_name = "RULE", value_parser = Rule::find)]
    without: Vec<Rule>,
}

/// Where to die.
#[derive(Clone, Copy, Debug)]
struct Death {
    at: Failpoint,
    pass: u64,
}

impl FromStr for Death {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pass) = text.split_once(':').unwrap_or((text, "1"));
        Ok(Self { at: Failpoint::find(name)?, pass: pass.parse().map_err(|_| format!("'{pass}' is no number"))? })
    }
}

/// Where to pause, and how long.
#[derive(Clone, Copy, Debug)]
struct Pause {
    at: Failpoint,
    time: Duration,
}

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, millis) = text.split_once(':').ok_or("a pause is a failpoint, a colon and milliseconds")?;
        let millis = millis.parse().map_err(|_| format!("'{millis}' is no number"))?;
        Ok(Self { at: Failpoint::find(name)?, time: Duration::from_millis(millis) })
    }
}

/// Waits for the places where something is to happen.
fn await_places(death: Option<Death>, pause: Option<Pause>) {
    let passed = AtomicU64::new(0);
    strike_everywhere(move |at| {
        if let Some(pause) = pause.filter(|pause| pause.at == at) {
            std::thread::sleep(pause.time);
        }
        if let Some(death) = death.filter(|death| death.at == at)
            && passed.fetch_add(1, Ordering::Relaxed) + 1 == death.pass
        {
            let killed = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            killed.expect("a process may kill itself");
        }
    });
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    args.without.iter().for_each(|rule| switch_off(*rule));
    if args.die_at.is_some() || args.pause_at.is_some() {
        await_places(args.die_at, args.pause_at);
    }
    let pause = Duration::from_micros(args.pause_us);
    let ledger = Ledger { pause, fail_at: args.fail_at, panic_at: args.panic_at };
    let mut topology = Topology::builder();
    topology
        .source("entries", &args.input, (Utf8, JavaLong))
        .process("ledger", move || ledger)
        .with_store(&ACCOUNTS)
        .sink("balances", &args.output, (Utf8, Raw))
        .to_source_partition();
    topology.build()
}

fn main() -> ExitCode {
    tell_of_crashes();
    Application::<Args, _>::new(topology).configure(|config| config.batch_records_max = 50_000).main()
}
