//! The bank ledger: transfers between accounts, none of which may be overdrawn, and a sum that never changes.
//!
//! A transfer touches two accounts that may belong to two tasks on two machines. The task of the paying account takes the
//! amount and sends the credit through an internal topic to the task of the other account: each step is one transaction,
//! and no step is lost or taken twice, so once all credits have arrived, the balances add up to what was there.
//! Money comes from the account `bank`, which alone may be below zero, so the sum of all balances is 0. What cannot be read
//! as a transfer goes to a topic of its own, with the reason, and can be replayed from there.
//!
//! ```text
//! bank-ledger run --bootstrap-servers localhost:9092 --application-id ledger \
//!     --transfers transfers --balances balances --refused refused --unreadable unreadable --state-dir /var/lib/ledger
//! ```

use std::process::ExitCode;

use processor_core::prelude::*;
use serde::{Deserialize, Serialize};

/// The balance of each account, in the smallest unit of the currency.
const BALANCES: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("balances");

/// The account that money comes from.
const BANK: &str = "bank";

/// A transfer; its key is the paying account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Transfer {
    to: String,
    amount: u32,
}

/// What became of a transfer at the paying account.
#[derive(Clone, Debug)]
struct Debit {
    transfer: Transfer,
    /// The balance behind it; none if the account does not have the amount.
    balance: Option<i64>,
}

/// The application's own arguments; the rest of the command line comes with the runtime.
#[derive(Debug, clap::Args)]
struct Args {
    /// The topic of transfers: the key is the paying account, the value JSON such as {"to":"anna","amount":250}.
    #[arg(long)]
    transfers: String,
    /// The topic of balances: the key is the account, the value its balance as an 8-byte big-endian integer.
    #[arg(long)]
    balances: String,
    /// The topic of transfers that the paying account could not cover, as they came.
    #[arg(long)]
    refused: String,
    /// The topic of dead letters: records that cannot be read as a transfer.
    #[arg(long)]
    unreadable: String,
}

fn debit(record: Record<String, Transfer>, ctx: &mut Context<'_, String, Debit>) -> Result<(), OperatorError> {
    let amount = i64::from(record.value.amount);
    let mut balances = ctx.store(&BALANCES);
    let before = balances.get(&record.key)?.unwrap_or(0);
    let covered = record.key == BANK || before >= amount;
    let balance = covered.then_some(before - amount);
    if let Some(balance) = balance {
        balances.put(&record.key, balance);
    }
    let Record { key, value: transfer, timestamp } = record;
    ctx.forward(Record::new(key, Debit { transfer, balance }, timestamp))
}

fn credit(record: Record<String, Transfer>, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
    let amount = i64::from(record.value.amount);
    let balance = ctx.store(&BALANCES).update(&record.key, |balance| {
        *balance += amount;
        *balance
    })?;
    ctx.forward(record.with_value(balance))
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    let mut topology = Topology::builder();
    let mut debits = topology
        .source("transfers", &args.transfers, (Utf8, Json))
        .on_failure(FailurePolicy::dead_letter(&args.unreadable))
        .process("debit", debit)
        .with_store(&BALANCES)
        .branch();
    let refused = debits.when("refused", |debit| debit.value.balance.is_none());
    let taken = debits.otherwise("taken");

    refused.map_values(|debit| debit.transfer).sink("refusals", &args.refused, (Utf8, Json));
    let paid = taken.map_values(|debit| debit.balance.unwrap_or_default());
    taken
        .map_values(|debit| debit.transfer)
        .repartition("credits", |transfer| transfer.value.to.clone(), (Utf8, Json))
        .process("credit", credit)
        .with_store(&BALANCES) // the same store: accounts are debited and credited by one task
        .merge(&paid)
        .sink("balances", &args.balances, (Utf8, JavaLong));
    topology.build()
}

fn main() -> ExitCode {
    processor_runtime::main::<Args>(topology)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use processor_core::testing::{TopologyTestDriver, secs};
    use processor_simulator::Simulation;

    use super::*;

    fn args() -> Args {
        let [transfers, balances, refused, unreadable] =
            ["transfers", "balances", "refused", "unreadable"].map(str::to_owned);
        Args { transfers, balances, refused, unreadable }
    }

    #[test]
    fn money_moves_and_the_sum_stays() -> Result<(), Box<dyn std::error::Error>> {
        let mut driver = TopologyTestDriver::with_partitions(&topology(&args())?, 4)?;
        let transfers = driver.input::<String, Transfer>("transfers");
        let pay = |second, from: &str, to: &str, amount| {
            transfers.pipe_at(secs(second), from, Transfer { to: to.to_owned(), amount });
        };
        pay(1, BANK, "anna", 100);
        pay(2, "anna", "ben", 60);
        pay(3, "anna", "carl", 60); // anna has 40
        driver.crash_and_restore()?;
        pay(4, "ben", "carl", 60);
        pay(5, "carl", "carl", 10);
        transfers.try_pipe_bytes(Some(secs(6)), Some(b"carl"), Some(b"10 to anna"))?;

        let refusals = driver.output::<String, Transfer>("refusals").records();
        assert_eq!(refusals, [Record::new("anna".to_owned(), Transfer { to: "carl".to_owned(), amount: 60 }, secs(3))]);
        let mut entries = driver.store(&BALANCES).entries();
        entries.sort();
        let expected = [("anna", 40), (BANK, -100), ("ben", 0), ("carl", 60)];
        assert_eq!(entries, expected.map(|(account, balance)| (account.to_owned(), balance)));
        assert_eq!(entries.iter().map(|(_, balance)| balance).sum::<i64>(), 0);
        assert_eq!(driver.output::<String, i64>("balances").values().len(), 8, "each step shows its balance");
        let unreadable = driver.dead_letters();
        assert_eq!(unreadable.len(), 1, "{unreadable:?}");
        assert_eq!((&*unreadable[0].topic, unreadable[0].value.as_deref()), ("unreadable", Some(&b"10 to anna"[..])));
        Ok(())
    }

    #[test]
    fn no_money_is_made_or_lost_whatever_goes_wrong() -> Result<(), TopologyError> {
        Simulation::new(&topology(&args())?)?
            .input("transfers", (Utf8, Json), |random| {
                let account = |number| if number == 0 { BANK.to_owned() } else { format!("account-{number}") };
                let transfer = Transfer { to: account(1 + random.below(6)), amount: 1 + random.below(100) as u32 };
                (account(random.below(7)), transfer)
            })
            // Debits and credits of an account are merged as they arrive, so who is refused is chance. The sum is not.
            .without_reference()
            .check(|world| {
                let steps = world.records("balances", (Utf8, JavaLong)).into_iter();
                let last: BTreeMap<String, i64> = steps.map(|step| (step.key, step.value)).collect();
                assert_eq!(last.values().sum::<i64>(), 0);
            })
            .run(100);
        Ok(())
    }
}
