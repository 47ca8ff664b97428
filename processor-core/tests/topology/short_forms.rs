//! The short forms: what they do, and how they are named.

use processor_core::prelude::*;
use processor_core::testing::secs;

use crate::driver;

#[test]
fn short_forms_change_records_as_they_say() {
    let driver = driver(|topology| {
        topology
            .source("in", "in", (Utf8, JavaLong))
            .filter(|record| record.value > 0)
            .map(|record| Record::new(record.value, record.key, record.timestamp))
            .flat_map(|record| (0..record.key).map(move |n| Record::new(n, record.value.clone(), record.timestamp)))
            .map_values(|text| text.to_uppercase())
            .inspect(|record| assert!(record.key < 2))
            .sink("out", "out", (JavaLong, Utf8));
    });
    let input = driver.input::<String, i64>("in");
    input.pipe_at(secs(1), "a", 0);
    input.pipe_at(secs(2), "b", 2);
    let expected = [0, 1].map(|key| Record::new(key, "B".to_owned(), secs(2)));
    assert_eq!(driver.output::<i64, String>("out").records(), expected);
}

#[test]
fn a_record_goes_along_the_first_arm_that_fits() {
    let driver = driver(|topology| {
        let mut branch = topology.source("in", "in", (Utf8, JavaLong)).branch();
        let large = branch.when("large", |record| record.value > 100);
        let even = branch.when("even", |record| record.value % 2 == 0);
        let rest = branch.otherwise("rest");
        for (stream, name) in [(large, "l"), (even, "e"), (rest, "r")] {
            stream.sink(name, name, (Utf8, JavaLong));
        }
    });
    let input = driver.input::<String, i64>("in");
    for value in [102, 2, 1] {
        input.pipe_at(secs(1), "a", value);
    }
    let values = ["l", "e", "r"].map(|sink| driver.output::<String, i64>(sink).values());
    assert_eq!(values, [vec![102], vec![2], vec![1]]);
}

#[test]
fn nodes_without_a_name_are_named_after_the_one_before() {
    let mut topology = Topology::builder();
    let stream = topology.source("in", "in", (Utf8, JavaLong));
    let one = stream.map_values(|value| value);
    let two = stream.map_values(|value| value);
    let three = two.filter(|_| true).named("chosen").filter(|_| true);
    one.merge(&three).sink("out", "out", (Utf8, JavaLong));
    let text = topology.build().expect("it is right").describe();
    let names = ["in-map-values", "in-map-values-2", "chosen", "chosen-filter", "in-map-values-merge"];
    for name in names {
        assert!(text.contains(&format!("Processor: {name} ")), "{name} in\n{text}");
    }
}
