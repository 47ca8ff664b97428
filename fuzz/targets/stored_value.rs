//! Values as they lie in a changelog and on disk: of any type, written by anybody who may write to the topic.

#![no_main]

// For its allocator.
use processor_fuzz as _;

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use processor_core::store::{StoreValue, ValueFormat};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Text(String),
    Points(Vec<(i32, i64)>),
    Nested { by: BTreeMap<String, Vec<u8>>, inner: Option<Box<Shape>> },
}

fn check<V: StoreValue + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(value) = ValueFormat::decode::<V>(bytes) else { return };
    for format in [ValueFormat::Bincode, ValueFormat::Json] {
        let mut written = Vec::new();
        match format.encode(&value, &mut written) {
            Ok(()) => assert_eq!(ValueFormat::decode::<V>(&written).as_ref(), Ok(&value), "{format:?}"),
            // It nests too deep for JSON.
            Err(_) => assert_eq!(format, ValueFormat::Json),
        }
    }
}

/// A double in a format that has no NaN is what it was or is refused.
fn check_optional(bytes: &[u8]) {
    let Ok(value) = ValueFormat::decode::<Option<f64>>(bytes) else { return };
    let mut written = Vec::new();
    if ValueFormat::Json.encode(&value, &mut written).is_ok() {
        assert_eq!(ValueFormat::decode::<Option<f64>>(&written).as_ref(), Ok(&value));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check_optional(bytes);
    check::<u64>(bytes);
    check::<(i64, u64)>(bytes);
    check::<String>(bytes);
    check::<Vec<Option<String>>>(bytes);
    check::<BTreeMap<String, i64>>(bytes);
    check::<Shape>(bytes);
});
