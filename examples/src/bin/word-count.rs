//! The word count: how often each word has been seen, over all lines of all partitions.
//!
//! Words of one line belong to different tasks, so they go through an internal topic, keyed by the word, to the task that
//! counts it. Every hop is a transaction of its own, and each word still counts once.
//!
//! ```text
//! word-count run --bootstrap-servers localhost:9092 --application-id words \
//!     --input lines --output counts --state-dir /var/lib/words
//! ```

use std::process::ExitCode;

use processor_core::prelude::*;

/// How often each word has been seen.
const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");

/// The application's own arguments; the rest of the command line comes with the runtime.
#[derive(Debug, clap::Args)]
struct Args {
    /// The topic of lines: the value is text, the key is not looked at.
    #[arg(long)]
    input: String,
    /// The topic of counts: the key is the word, the value an 8-byte big-endian integer, as Kafka's Java
    /// `LongSerializer` writes it.
    #[arg(long)]
    output: String,
}

/// The words of a line, in small letters, without what stands around them.
fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

fn topology(args: &Args) -> Result<Topology, TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("lines", &args.input, (Optional(Raw), Utf8))
        .flat_map(|line| {
            let timestamp = line.timestamp;
            words(&line.value).into_iter().map(move |word| Record::new((), word, timestamp))
        })
        .repartition("by-word", |word| word.value.clone(), (Utf8, Utf8))
        .each("count", |record, ctx| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(record.with_value(count))
        })
        .with_store(&COUNTS)
        .sink("counts", &args.output, (Utf8, JavaLong));
    topology.build()
}

fn main() -> ExitCode {
    processor_runtime::main::<Args>(topology)
}

#[cfg(test)]
mod tests {
    use processor_core::testing::{TopologyTestDriver, secs};
    use processor_simulator::Simulation;

    use super::*;

    #[test]
    fn words_of_all_partitions_count_together() -> Result<(), Box<dyn std::error::Error>> {
        let args = Args { input: "lines".to_owned(), output: "counts".to_owned() };
        let mut driver = TopologyTestDriver::with_partitions(&topology(&args)?, 3)?;
        for partition in 0..3 {
            let lines = driver.input::<Option<Vec<u8>>, String>("lines").partition(partition);
            lines.pipe_at(secs(1), None, "To be, or not to be");
        }
        assert_eq!(driver.output::<String, i64>("counts").values().len(), 18);
        driver.crash_and_restore()?;
        let counts = driver.store(&COUNTS);
        let of = |word: &str| counts.get(&word.to_owned());
        assert_eq!((of("to"), of("be"), of("or"), of("not")), (Some(6), Some(6), Some(3), Some(3)));
        Ok(())
    }

    #[test]
    fn each_word_counts_once_whatever_goes_wrong() -> Result<(), TopologyError> {
        let args = Args { input: "lines".to_owned(), output: "counts".to_owned() };
        Simulation::new(&topology(&args)?)?
            .input("lines", (Optional(Raw), Utf8), |random| {
                (None::<Vec<u8>>, format!("word{} and word{}", random.below(9), random.below(9)))
            })
            .run(100);
        Ok(())
    }
}
