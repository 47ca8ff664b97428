//! Topologies of every kind go through the simulation, and one that is not exactly once is found out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use processor_core::prelude::*;
use processor_simulator::{Simulation, SplitMix64};

const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");
const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals").in_memory();
const SEEN: KeyValueStoreDef<i64, i64> = KeyValueStoreDef::new("seen");

/// What is said when the schedules go wrong.
fn wrong(simulation: &Simulation, schedules: u64) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| simulation.run(schedules))).expect_err("it goes wrong");
    let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| payload.downcast_ref::<String>().cloned()).expect("it is said in words")
}

fn number(random: &mut SplitMix64) -> (String, i64) {
    (format!("key-{}", random.below(6)), random.below(50) as i64)
}

/// Three sub-topologies, stores of both kinds, two sinks, dead letters.
#[test]
fn a_chain_with_repartitions_and_dead_letters_ends_exactly_once() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology.on_failure(FailurePolicy::dead_letter("failed"));
    let counted = topology
        .source("numbers", "numbers", (Utf8, JavaLong))
        .each("check", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
            if record.value == 7 {
                return Err(OperatorError::message("seven is refused"));
            }
            ctx.forward(record)
        })
        .repartition("by-value", |record| format!("value-{}", record.value % 9), (Utf8, JavaLong))
        .each("count", |record, ctx| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(record.with_value(count))
        })
        .with_store(&COUNTS);
    counted.sink("counts", "counts", (Utf8, JavaLong));
    counted
        .repartition("all", |_| "all".to_owned(), (Utf8, JavaLong))
        .with_partitions(2)
        .each("total", |record, ctx: &mut Context<'_, String, i64>| {
            let total = ctx.store(&TOTALS).update(&record.key, |total| {
                *total += 1;
                *total
            })?;
            ctx.forward(record.with_value(total))
        })
        .with_store(&TOTALS)
        .sink("totals", "totals", (Utf8, JavaLong));
    let summary = Simulation::new(&topology.build()?)?
        .input("numbers", (Utf8, JavaLong), number)
        .check(|world| {
            let count = |topic: &str| world.cluster.read_committed(topic).len();
            assert_eq!(count("numbers"), count("totals") + count("failed"), "each record is totalled or a dead letter");
        })
        .run(400);
    assert!(summary.faults > 400 && summary.strokes > 400 && summary.rebalances > 400, "{summary}");
    Ok(())
}

/// A store that two inputs share: their records are merged as they come, so only the state is compared, and the sums.
#[test]
fn a_task_with_two_inputs_keeps_its_sums() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("both", ["left", "right"], (Utf8, JavaLong))
        .each("sum", |record, ctx: &mut Context<'_, String, i64>| {
            ctx.store(&COUNTS).update(&record.key, |sum| *sum += record.value)?;
            Ok(())
        })
        .with_store(&COUNTS);
    Simulation::new(&topology.build()?)?
        .partitions(4)
        .input("left", (Utf8, JavaLong), number)
        .input("right", (Utf8, JavaLong), number)
        .run(200);
    Ok(())
}

/// Many partitions behind few, and a sink that keeps them.
#[test]
fn sub_topologies_of_different_width_are_simulated() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("numbers", "numbers", (Utf8, JavaLong))
        .repartition("wide", |record| record.value.to_string(), (Utf8, JavaLong))
        .with_partitions(5)
        .each("count", |record, ctx: &mut Context<'_, String, i64>| {
            let count = ctx.store(&COUNTS).update(&record.key, |count| {
                *count += 1;
                *count
            })?;
            ctx.forward(record.with_value(count))
        })
        .with_store(&COUNTS)
        .sink("counts", "counts", (Utf8, JavaLong))
        .to_source_partition();
    let topology = topology.build()?;
    Simulation::new(&topology)?.partitions_of("numbers", 2).input("numbers", (Utf8, JavaLong), number).run(100);
    Ok(())
}

/// A topic between two sub-topologies that the application does not make itself, and that others may write, too.
#[test]
fn a_topic_that_is_written_and_read_is_compared() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology.source("first", "a", (Utf8, JavaLong)).map_values(|value: i64| value + 1).named("more").sink(
        "to-b",
        "b",
        (Utf8, JavaLong),
    );
    topology.source("second", "b", (Utf8, JavaLong)).sink("out", "c", (Utf8, JavaLong));
    Simulation::new(&topology.build()?)?
        .input("a", (Utf8, JavaLong), number)
        .input("b", (Utf8, JavaLong), number)
        .run(100);
    Ok(())
}

/// A record that waits for its next try does so for minutes, which pass quickly here.
#[test]
fn long_retries_come_to_their_end() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("in", "in", (Utf8, JavaLong))
        .each("refuse", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
            if record.value % 10 == 0 {
                return Err(OperatorError::message("not this one"));
            }
            ctx.forward(record)
        })
        .on_failure(FailurePolicy::retry(5, Duration::from_secs(10)).then(FailurePolicy::dead_letter("failed")))
        .sink("out", "out", (Utf8, JavaLong));
    Simulation::new(&topology.build()?)?.input("in", (Utf8, JavaLong), number).run(40);
    Ok(())
}

/// A schedule of stream time, with records that come late and time that stands still.
#[test]
fn stream_time_schedules_fire_as_without_faults() -> Result<(), TopologyError> {
    struct EveryMinute;

    impl Operator for EveryMinute {
        type KeyIn = String;
        type ValueIn = i64;
        type KeyOut = String;
        type ValueOut = i64;

        fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
            ctx.schedule(Duration::from_mins(1), Clock::StreamTime);
            Ok(())
        }

        fn process(
            &mut self,
            record: Record<String, i64>,
            ctx: &mut Context<'_, String, i64>,
        ) -> Result<(), OperatorError> {
            ctx.store(&TOTALS).update(&record.key, |total| *total += record.value)?;
            Ok(())
        }

        fn punctuate(
            &mut self,
            punctuation: Punctuation,
            ctx: &mut Context<'_, String, i64>,
        ) -> Result<(), OperatorError> {
            for (key, total) in ctx.store(&TOTALS).all().collect()? {
                ctx.forward(Record::new(key, total, punctuation.now))?;
            }
            Ok(())
        }
    }

    let mut topology = Topology::builder();
    topology.source("in", "in", (Utf8, JavaLong)).process("totals", || EveryMinute).with_store(&TOTALS).sink(
        "out",
        "out",
        (Utf8, JavaLong),
    );
    let fired = Arc::new(AtomicUsize::new(0));
    let seen = fired.clone();
    Simulation::new(&topology.build()?)?
        .input_records("in", (Utf8, JavaLong), |random| {
            let (key, value) = number(random);
            Record::new(key, value, Timestamp::new(1 + random.below(3_600) as i64 * 1_000))
        })
        .check(move |world| {
            seen.fetch_add(world.cluster.read_committed("out").len(), Ordering::Relaxed);
        })
        .run(100);
    assert!(fired.load(Ordering::Relaxed) > 100, "schedules have fired");
    Ok(())
}

/// State that the runtime does not know is lost with the worker, and kept where the batch is given up.
#[test]
fn state_beside_the_stores_is_found_out() -> Result<(), TopologyError> {
    struct Counter(i64);

    impl Operator for Counter {
        type KeyIn = String;
        type ValueIn = i64;
        type KeyOut = String;
        type ValueOut = i64;

        fn process(
            &mut self,
            record: Record<String, i64>,
            ctx: &mut Context<'_, String, i64>,
        ) -> Result<(), OperatorError> {
            self.0 += 1;
            ctx.forward(record.with_value(self.0))
        }
    }

    let mut topology = Topology::builder();
    topology.source("numbers", "numbers", (Utf8, JavaLong)).process("count", || Counter(0)).sink(
        "counts",
        "counts",
        (Utf8, JavaLong),
    );
    let simulation = Simulation::new(&topology.build()?)?.input("numbers", (Utf8, JavaLong), number);
    let said = wrong(&simulation, 100);
    assert!(said.contains("O1: counts-") && said.contains("PROCESSOR_SEED="), "{said}");
    Ok(())
}

/// What depends on the size of the batch comes out otherwise in another batch.
#[test]
fn what_depends_on_the_batch_is_found_out() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("numbers", "numbers", (Utf8, JavaLong))
        .each("note", |record, ctx: &mut Context<'_, String, i64>| {
            let size = i64::from(ctx.batch().size);
            ctx.store(&SEEN).update(&size, |times| *times += 1)?;
            ctx.forward(record)
        })
        .with_store(&SEEN)
        .sink("out", "out", (Utf8, JavaLong));
    let topology = topology.build()?;
    let simulation = Simulation::new(&topology)?.input("numbers", (Utf8, JavaLong), number);
    let said = wrong(&simulation, 100);
    assert!(said.contains("O2: simulated-seen-changelog-"), "{said}");
    let summary = Simulation::new(&topology)?.input("numbers", (Utf8, JavaLong), number).without_reference().run(100);
    assert_eq!(summary.schedules, 100, "and is exact all the same");
    Ok(())
}

/// What a store without a changelog holds may go, and nobody can say when.
#[test]
fn a_store_without_a_changelog_has_no_reference() -> Result<(), TopologyError> {
    const CACHE: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("cache").without_changelog();
    let mut topology = Topology::builder();
    topology
        .source("in", "in", (Utf8, JavaLong))
        .each("cache", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
            ctx.store(&CACHE).put(&record.key, record.value);
            ctx.forward(record)
        })
        .with_store(&CACHE)
        .sink("out", "out", (Utf8, JavaLong));
    let simulation = Simulation::new(&topology.build()?)?.input("in", (Utf8, JavaLong), number);
    let said = wrong(&simulation, 1);
    assert!(said.contains("the store 'cache' has no changelog") && said.contains(".without_reference()"), "{said}");
    simulation.without_reference().run(100);
    Ok(())
}

/// A check of the user's own is an oracle like others.
#[test]
fn a_check_that_fails_names_the_seed() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    let simulation = Simulation::new(&topology.build()?)?.input("in", (Utf8, JavaLong), number);
    let said = wrong(&simulation.check(|world| assert!(world.workers() < 3, "three are many")), 100);
    assert!(said.starts_with("seed ") && said.contains("three are many"), "{said}");
    Ok(())
}

/// An operator that fails for good stops its worker, whatever the schedule: that is no simulation's fault, and is said.
#[test]
fn a_worker_that_stops_is_told_with_its_reason() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology
        .source("in", "in", (Utf8, JavaLong))
        .each("refuse", |record: Record<String, i64>, ctx: &mut Context<'_, String, i64>| {
            if record.value > 40 {
                return Err(OperatorError::message("over forty"));
            }
            ctx.forward(record)
        })
        .sink("out", "out", (Utf8, JavaLong));
    let simulation = Simulation::new(&topology.build()?)?.input("in", (Utf8, JavaLong), number);
    let said = wrong(&simulation, 100);
    assert!(said.contains("O6: worker") && said.contains("over forty"), "{said}");
    Ok(())
}

#[test]
fn inputs_without_records_and_topics_that_are_none_are_refused() -> Result<(), TopologyError> {
    let mut topology = Topology::builder();
    topology.source("in", ["left", "right"], (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    let topology = topology.build()?;
    let simulation = Simulation::new(&topology)?.input("left", (Utf8, JavaLong), number);
    assert!(wrong(&simulation, 1).contains("the input 'right' has no records"));
    assert!(wrong(&simulation, 0).contains("no schedule"));
    let halved = Simulation::new(&topology)?.partitions_of("left", 2).input("left", (Utf8, JavaLong), number);
    let said = wrong(&halved.input("right", (Utf8, JavaLong), number), 1);
    assert!(said.contains("the inputs of sub-topology 'in' must have the same number of partitions"), "{said}");
    let simulation = Simulation::new(&topology)?;
    let refused = catch_unwind(AssertUnwindSafe(|| simulation.input("middle", (Utf8, JavaLong), number)));
    let said = refused.expect_err("there is no such input").downcast::<String>().expect("it is said in words");
    assert!(said.contains("does not read 'middle', but left, right"), "{said}");
    Ok(())
}
