//! Topologies of every kind go through the simulation, and one that is not exactly once is found out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use processor_core::prelude::*;
use processor_simulator::{Simulation, SplitMix64};

const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");
const TOTALS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("totals").in_memory();
const SEEN: KeyValueStoreDef<i64, i64> = KeyValueStoreDef::new("seen");

/// What is said when the schedules go wrong.
fn wrong(simulation: &Simulation, schedules: u64) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| simulation.run(schedules))).expect_err("it goes wrong");
    payload.downcast_ref::<String>().cloned().expect("it is said in words")
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
    let told = Simulation::new(&topology.build()?)?
        .input("numbers", (Utf8, JavaLong), number)
        .check(|world| {
            let count = |topic: &str| world.cluster.read_committed(topic).len();
            assert_eq!(count("numbers"), count("totals") + count("failed"), "each record is totalled or a dead letter");
        })
        .run(400);
    assert!(told.faults > 400 && told.deaths > 400 && told.rebalances > 400, "{told}");
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
    let told = Simulation::new(&topology)?.input("numbers", (Utf8, JavaLong), number).without_reference().run(100);
    assert_eq!(told.schedules, 100, "and is exact all the same");
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
    let simulation = Simulation::new(&topology)?;
    let refused = catch_unwind(AssertUnwindSafe(|| simulation.input("middle", (Utf8, JavaLong), number)));
    let said = refused.expect_err("there is no such input").downcast::<String>().expect("it is said in words");
    assert!(said.contains("does not read 'middle', but left, right"), "{said}");
    Ok(())
}
