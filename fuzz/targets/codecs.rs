//! Keys and values of input records, by every codec.

#![no_main]

// For its allocator.
use processor_fuzz as _;

use std::collections::BTreeMap;
use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use processor_core::prelude::*;

/// What was read is written, and reads as the same.
fn check<T: PartialEq + Debug, C: Codec<T>>(codec: &C, bytes: Option<&[u8]>) {
    let Ok(value) = codec.decode(bytes) else { return };
    let mut written = Vec::new();
    let present = codec.encode(&value, &mut written).expect("what was read can be written");
    assert_eq!(codec.decode(present.then_some(&written[..])).as_ref(), Ok(&value));
}

fuzz_target!(|bytes: Option<&[u8]>| {
    check::<String, _>(&Utf8, bytes);
    check::<Vec<u8>, _>(&Raw, bytes);
    check::<Vec<(String, u64)>, _>(&Bincode, bytes);
    check::<BTreeMap<String, Vec<i64>>, _>(&Json, bytes);
    check::<i16, _>(&JavaShort, bytes);
    check::<i32, _>(&JavaInteger, bytes);
    check::<i64, _>(&JavaLong, bytes);
    check::<bool, _>(&JavaBoolean, bytes);
    check::<Option<String>, _>(&Optional(Utf8), bytes);
    // A NaN is not equal to itself.
    let _: Result<f64, _> = JavaDouble.decode(bytes);
    let _: Result<f64, _> = DecimalText.decode(bytes);
});
