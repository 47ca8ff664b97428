//! Keys as they lie in a changelog and on disk. Range scans rest on it that bytes are ordered as the keys are.

#![no_main]

// For its allocator.
use processor_fuzz as _;

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use processor_core::store::{StoreKey, TotalF64};

fn bytes_of<K: StoreKey>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

fn check<K: StoreKey + Debug>(first: &[u8], second: &[u8]) {
    let Ok(one) = K::decode(first) else { return };
    assert_eq!(bytes_of(&one), first, "a key has one form only");
    if let Ok(json) = one.to_json() {
        assert_eq!(K::from_json(&json).as_ref(), Ok(&one), "what is shown of a key finds it");
    }
    let Ok(other) = K::decode(second) else { return };
    assert_eq!(one.cmp(&other), first.cmp(second), "{one:?} and {other:?}");
}

fuzz_target!(|pair: (&[u8], &[u8])| {
    let (first, second) = pair;
    check::<String>(first, second);
    check::<Vec<u8>>(first, second);
    check::<u32>(first, second);
    check::<i64>(first, second);
    check::<TotalF64>(first, second);
    check::<(String, i64)>(first, second);
    check::<(u16, String, Vec<u8>)>(first, second);
    check::<(String, TotalF64)>(first, second);
});
