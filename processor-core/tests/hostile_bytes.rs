//! Bytes that were made to hurt: a decoder answers with an error, and takes no more memory than a small multiple of them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use processor_core::prelude::*;
use serde::{Deserialize, Serialize};

/// How many bytes a decoder may take for one byte of input; a `BTreeMap`'s or a `serde_json::Value`'s node is the most.
const MEMORY_FACTOR: u64 = 64;
/// What the text of an error and the first growth of a collection may take.
const MEMORY_FIXED: u64 = 2 * 1024;

/// Decodes, and counts the memory that it took at its height.
fn decode<T>(codec: &impl Codec<T>, bytes: &[u8]) -> Result<T, CodecError> {
    let mut decoded = None;
    let memory = allocation_counter::measure(|| decoded = Some(codec.decode(Some(bytes))));
    let bound = MEMORY_FIXED + MEMORY_FACTOR * bytes.len() as u64;
    assert!(memory.bytes_max <= bound, "{} bytes were taken for {} bytes of input", memory.bytes_max, bytes.len());
    decoded.expect("it was decoded")
}

fn refused<T: Debug>(codec: &impl Codec<T>, bytes: &[u8]) {
    let decoded = decode(codec, bytes);
    assert!(decoded.is_err(), "{bytes:02x?} is {decoded:?}");
}

/// bincode's variable-length integers: 253 announces eight bytes.
fn with_length(length: u64, rest: &[u8]) -> Vec<u8> {
    [&[253], &length.to_le_bytes()[..], rest].concat()
}

#[derive(Debug, Serialize, Deserialize)]
struct Nested {
    name: String,
    inner: Vec<Nested>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Text(String),
    Points(Vec<(f64, f64)>),
    Named { by: BTreeMap<String, Vec<u8>> },
}

#[test]
fn a_forged_length_is_refused_before_memory_is_taken_for_it() {
    // Below bincode's own limit, at the edge of what a usize or an isize holds, and beyond.
    for length in [300, 60 << 20, 1 << 32, 1 << 40, i64::MAX as u64, u64::MAX] {
        let forged = with_length(length, b"short");
        refused::<String>(&Bincode, &forged);
        refused::<Vec<u8>>(&Bincode, &forged);
        refused::<Vec<u64>>(&Bincode, &forged);
        refused::<Vec<[u64; 16]>>(&Bincode, &forged);
        refused::<Vec<String>>(&Bincode, &forged);
        refused::<BTreeMap<u64, String>>(&Bincode, &forged);
        refused::<std::collections::VecDeque<(String, u64)>>(&Bincode, &forged);
        refused::<Option<String>>(&Bincode, &[&[1], &forged[..]].concat());
        refused::<Nested>(&Bincode, &[&[0], &forged[..]].concat());
        for variant in 0..3 {
            refused::<Shape>(&Bincode, &[&[variant], &forged[..]].concat());
        }
    }
}

#[test]
fn a_large_value_that_is_really_there_is_read() {
    let value: Vec<(String, u64)> = (0..20_000).map(|number| (format!("key-{number}"), number)).collect();
    for_both(&value);
    for_both(&"x".repeat(1 << 20));
    for_both(&BTreeMap::from([(vec![1_u8; 1_000], Some([2_u32; 8]))]).into_iter().collect::<Vec<_>>());
}

fn for_both<T: PartialEq + Debug + Serialize + serde::de::DeserializeOwned>(value: &T) {
    let (mut bincode, mut json) = (Vec::new(), Vec::new());
    Bincode.encode(value, &mut bincode).expect("it can be written");
    Json.encode(value, &mut json).expect("it can be written");
    assert!(decode::<T>(&Bincode, &bincode).as_ref() == Ok(value), "bincode reads what it wrote");
    assert!(decode::<T>(&Json, &json).as_ref() == Ok(value), "JSON reads what it wrote");
}

#[test]
fn nesting_without_end_does_not_overflow_the_stack() {
    let depth = 1_000_000;
    refused::<serde_json::Value>(&Json, &b"[".repeat(depth));
    refused::<serde_json::Value>(&Json, &br#"{"a":"#.repeat(depth));
    refused::<Nested>(&Json, &br#"{"name":"","inner":["#.repeat(depth));
    let deep = [b"[".repeat(200), b"]".repeat(200)].concat();
    refused::<serde_json::Value>(&Json, &deep);
}

/// Each of these has broken a decoder somewhere; none is a value of any of the types it is tried as.
#[test]
fn the_corpus_of_nasty_inputs_is_refused() {
    let corpus: &[&[u8]] = &[
        b"\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xfc\xff\xff\xff\xff",
        b"\xfd\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xfe\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x05\xed\xa0\x80\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{\"name\":\"\\ud800\",\"inner\":[]}",
        b"{\"name\":\"a\",\"name\":\"b\",\"inner\":[]}",
        b"1e999999999",
        b"-",
        b"\"\\u12",
        b"nul",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ];
    for bytes in corpus {
        refused::<Nested>(&Json, bytes);
        refused::<Shape>(&Bincode, bytes);
        refused::<Nested>(&Bincode, bytes);
        refused::<bool>(&JavaBoolean, &[bytes, &[7; 2][..]].concat());
        refused::<uuid::Uuid>(&JavaUuid, bytes);
        refused::<i64>(&DecimalText, bytes);
    }
}
