//! Stores of any types, as bytes: what a changelog and a store on disk hold, beside what they should.
//!
//! Expected entries are encoded by hand from the description of the format: a value is the version byte 1 and what
//! bincode 2 writes with its standard configuration; a number in a key is big-endian with the sign bit flipped.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::PartitionLog;
use super::verdict::{Kind, Verdict};

/// The entries of a store, as their bytes.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The version byte of a value in bincode.
const BINCODE: u8 = 1;

/// The state that a changelog holds: per key its last value, without the deleted ones.
///
/// # Errors
/// A record has no key, or a key stands in two partitions.
pub fn fold(logs: &[PartitionLog]) -> Result<State> {
    let mut home: BTreeMap<&[u8], i32> = BTreeMap::new();
    let mut state = State::new();
    for log in logs {
        for record in &log.records {
            let place = || format!("changelog {}@{}", log.partition, record.offset);
            let key = record.key.as_deref().context("a changelog record has no key").with_context(place)?;
            let first = *home.entry(key).or_insert(log.partition);
            ensure!(first == log.partition, "{}: key {} is in partition {first} too", place(), record.key_text());
            match &record.value {
                Some(value) => drop(state.insert(key.to_vec(), value.clone())),
                None => drop(state.remove(key)),
            }
        }
    }
    Ok(state)
}

/// Compares a witness of a state with the expected one, byte by byte.
pub fn check_state(expected: &State, found: &State) -> Verdict {
    let mut verdict = Verdict::new("entries", "entries");
    verdict.inputs = expected.len() as u64;
    verdict.outputs = found.len() as u64;
    for (key, expected) in expected {
        match found.get(key) {
            None => verdict.violate(Kind::Lost, key.escape_ascii(), || (format!("{expected:?}"), "nothing".into())),
            Some(found) if found != expected => {
                verdict.violate(Kind::Wrong, key.escape_ascii(), || (format!("{expected:?}"), format!("{found:?}")));
            }
            Some(_) => {}
        }
    }
    for (key, found) in found.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        verdict.violate(Kind::Wrong, key.escape_ascii(), || ("no such key".into(), format!("{found:?}")));
    }
    verdict
}

/// A value that is an `i64`: in zigzag, of variable length.
pub(super) fn value_of_i64(number: i64) -> Vec<u8> {
    let mut bytes = vec![BINCODE];
    varint((number << 1 ^ number >> 63) as u64, &mut bytes);
    bytes
}

/// A value that is a `Vec<f64>`: how many, then 8 bytes each, little-endian.
pub(super) fn value_of_doubles<'a>(doubles: impl ExactSizeIterator<Item = &'a f64>) -> Vec<u8> {
    let mut bytes = vec![BINCODE];
    varint(doubles.len() as u64, &mut bytes);
    doubles.for_each(|double| bytes.extend(double.to_le_bytes()));
    bytes
}

/// A value that is `()`.
pub(super) fn value_of_nothing() -> Vec<u8> {
    vec![BINCODE]
}

/// A key of a time and a text.
pub(super) fn key_of_time_and_text(time: i64, text: &[u8]) -> Vec<u8> {
    let mut bytes = (time as u64 ^ 1 << 63).to_be_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// Below 251 the byte itself; else 251, 252 or 253, and two, four or eight bytes.
fn varint(number: u64, bytes: &mut Vec<u8>) {
    match number {
        0..=250 => bytes.push(number as u8),
        251..=0xffff => {
            bytes.push(251);
            bytes.extend((number as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(252);
            bytes.extend((number as u32).to_le_bytes());
        }
        0x1_0000_0000.. => {
            bytes.push(253);
            bytes.extend(number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_bincode_2_writes_them() {
        // Written by bincode 2.0.1, `encode_to_vec(value, config::standard())`, behind the version byte.
        let cases: [(&[u8], i64); 6] = [
            (&[1, 0], 0),
            (&[1, 1], -1),
            (&[1, 250], 125),
            (&[1, 251, 251, 0], -126),
            (&[1, 252, 0x80, 0x1a, 6, 0], 200_000),
            (&[1, 253, 255, 255, 255, 255, 255, 255, 255, 255], i64::MIN),
        ];
        for (bytes, value) in cases {
            assert_eq!(value_of_i64(value), bytes);
        }
        assert_eq!(value_of_doubles([1.0].iter()), [1, 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(key_of_time_and_text(2, b"a"), [0x80, 0, 0, 0, 0, 0, 0, 2, b'a']);
    }
}
