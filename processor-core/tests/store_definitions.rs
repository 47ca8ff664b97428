//! What a store's definition tells the runtime, and what `build()` refuses of it.

use processor_core::prelude::*;
use processor_core::store::ValueFormat;

const COUNTS: KeyValueStoreDef<String, i64> = KeyValueStoreDef::new("counts");

struct Pass;

impl Operator for Pass {
    type KeyIn = String;
    type ValueIn = i64;
    type KeyOut = String;
    type ValueOut = i64;

    fn process(
        &mut self,
        record: Record<String, i64>,
        ctx: &mut Context<'_, String, i64>,
    ) -> Result<(), OperatorError> {
        ctx.forward(record)
    }
}

/// Two operators in a row, each with a store.
fn build(
    first: &KeyValueStoreDef<String, i64>,
    second: &KeyValueStoreDef<String, i64>,
) -> Result<Topology, TopologyError> {
    let mut topology = Topology::builder();
    let numbers = topology.source("numbers", "numbers", (Utf8, JavaLong));
    let passed = numbers.process("one", || Pass).with_store(first);
    passed.process("two", || Pass).with_store(second).sink("out", "out", (Utf8, JavaLong));
    topology.build()
}

#[test]
fn the_runtime_is_told_where_each_store_lives() {
    let cache = KeyValueStoreDef::new("cache").in_memory().without_changelog();
    let counts = COUNTS.with_json_values().with_changelog_setting("segment.ms", "60000");
    let topology = build(&counts, &cache).expect("the definitions are right");
    let subtopology = &topology.subtopologies()[0];
    let [counts, cache] = &subtopology.store_specs[..] else { panic!("there are two stores") };
    assert_eq!(subtopology.stores, [counts.name.clone(), cache.name.clone()]);
    assert!(!counts.in_memory && counts.values == ValueFormat::Json);
    let settings = counts.changelog.as_ref().map(|changelog| changelog.settings.get("segment.ms").copied());
    assert_eq!(settings, Some(Some("60000")));
    assert!(cache.in_memory && cache.changelog.is_none());
}

#[test]
fn one_store_is_kept_in_one_way() {
    assert!(build(&COUNTS, &COUNTS).is_ok(), "operators may share a store");
    let others = [
        COUNTS.in_memory(),
        COUNTS.without_changelog(),
        COUNTS.with_json_values(),
        COUNTS.with_changelog_setting("segment.ms", "1"),
    ];
    for other in others {
        let refused = build(&COUNTS, &other).expect_err("it is another store of the same name");
        assert!(refused.to_string().contains("store 'counts' is defined twice"), "{refused}");
    }
}

#[test]
fn a_changelog_setting_that_would_lose_state_is_refused() {
    let refused =
        build(&COUNTS.with_changelog_setting("cleanup.policy", "delete"), &COUNTS).expect_err("state would go");
    let said = refused.to_string();
    assert!(said.contains("store 'counts' cannot set cleanup.policy") && said.contains("remove the setting"), "{said}");
}
