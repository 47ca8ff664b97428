//! Deduplication: of the records with the same id, the first goes on and the others are dropped, also across restarts.
//!
//! The id is the record's key. An id is remembered for `--remember`, counted in stream time from when it was first seen,
//! so late records are compared like all others. What is remembered is bounded: a second store holds the ids by time, and
//! once a second of stream time the oldest are forgotten, which reads those and no others.
//!
//! ```text
//! dedup run --bootstrap-servers localhost:9092 --application-id orders-once \
//!     --input orders --output orders-once --remember 24h --state-dir /var/lib/orders-once
//! ```

use std::process::ExitCode;
use std::time::Duration;

use processor_core::prelude::*;

/// When each id that is remembered was first seen, in milliseconds of stream time.
const SEEN: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("seen");
/// The same ids, the oldest first.
const BY_TIME: KeyValueStoreDef<(Timestamp, String), ()> = KeyValueStoreDef::new("seen-by-time");

/// How often ids are forgotten, in stream time.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// How many at once: a gap in time must not forget all of a large store in one transaction.
const FORGET_MAX: usize = 100_000;

/// Drops records whose id is remembered.
struct Dedup {
    remember_ms: i64,
}

impl Dedup {
    /// Ids that were first seen before this are forgotten, whether they are still stored or not.
    fn horizon(&self, now: Timestamp) -> Timestamp {
        Timestamp::new(now.get().saturating_sub(self.remember_ms).saturating_add(1))
    }
}

impl Operator for Dedup {
    type KeyIn = String;
    type ValueIn = String;
    type KeyOut = String;
    type ValueOut = String;

    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        ctx.schedule(FORGET_EVERY, Clock::StreamTime);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        ctx: &mut Context<'_, String, String>,
    ) -> Result<(), OperatorError> {
        let now = ctx.stream_time().unwrap_or(record.timestamp);
        if let Some(seen) = ctx.store(&SEEN).get(&record.key)? {
            if seen >= self.horizon(now).get() {
                return Ok(());
            }
            ctx.store(&BY_TIME).delete(&(Timestamp::new(seen), record.key.clone()));
        }
        ctx.store(&SEEN).put(&record.key, now.get());
        ctx.store(&BY_TIME).put(&(now, record.key.clone()), ());
        ctx.forward(record)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String, String>,
    ) -> Result<(), OperatorError> {
        let end = (self.horizon(punctuation.now), String::new());
        let forgotten = ctx.store(&BY_TIME).range(..end).limit(FORGET_MAX).collect()?;
        for (key, ()) in forgotten {
            ctx.store(&SEEN).delete(&key.1);
            ctx.store(&BY_TIME).delete(&key);
        }
        Ok(())
    }
}

/// The application's own arguments; the rest of the command line comes with the runtime.
#[derive(Debug, clap::Args)]
struct Args {
    /// The topic of records: the key is the id, key and value are text.
    #[arg(long)]
    input: String,
    /// The topic of records without the repeated ones, with as many partitions as the input.
    #[arg(long)]
    output: String,
    /// How long an id is remembered, such as 24h or 30m, in the time of the records.
    #[arg(long, default_value = "24h")]
    remember: humantime::Duration,
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    let remember_ms = i64::try_from(args.remember.as_millis()).unwrap_or(i64::MAX);
    let mut topology = Topology::builder();
    topology
        .source("records", &args.input, (Utf8, Utf8))
        .process("dedup", move || Dedup { remember_ms })
        .with_store(&SEEN)
        .with_store(&BY_TIME)
        .sink("firsts", &args.output, (Utf8, Utf8))
        .to_source_partition();
    topology.build()
}

fn main() -> ExitCode {
    processor_runtime::main::<Args>(topology)
}

#[cfg(test)]
mod tests {
    use processor_core::testing::{TopologyTestDriver, millis, secs};

    use super::*;

    #[test]
    fn an_id_goes_on_once_while_it_is_remembered() -> Result<(), Box<dyn std::error::Error>> {
        let [input, output] = ["records", "firsts"].map(str::to_owned);
        let args = Args { input, output, remember: Duration::from_secs(10).into() };
        let mut driver = TopologyTestDriver::new(topology(&args)?)?;
        let records = driver.input::<String, String>("records");
        records.pipe_at(secs(1), "a", "a1");
        records.pipe_at(secs(3), "b", "b1");
        records.pipe_at(secs(3), "a", "a2");
        driver.crash_and_restore()?;
        records.pipe_at(secs(2), "b", "b2"); // late, and known after the crash
        records.pipe_at(secs(2), "c", "c1"); // late and new: remembered from second 3 on, as the stream is there
        records.pipe_at(millis(10_999), "a", "a3");
        let firsts = driver.output::<String, String>("firsts");
        assert_eq!(firsts.values(), ["a1", "b1", "c1"]);

        records.pipe_at(secs(11), "a", "a4"); // it is new again, ten seconds later
        let entries = |driver: &TopologyTestDriver| driver.store(&SEEN).entries();
        let seen = |id: &str, second: i64| (id.to_owned(), second * 1_000);
        assert_eq!((firsts.values(), entries(&driver).len()), (vec!["a4".to_owned()], 3));
        records.pipe_at(secs(13), "d", "d1");
        assert_eq!(entries(&driver), [seen("a", 11), seen("d", 13)], "what is over is forgotten");
        assert_eq!(driver.store(&BY_TIME).entries().len(), 2);
        driver.crash_and_restore()?;
        assert_eq!(entries(&driver), [seen("a", 11), seen("d", 13)]);
        Ok(())
    }
}
