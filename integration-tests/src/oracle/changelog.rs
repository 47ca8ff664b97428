//! The ledger's changelog, read by hand: the second witness of its state.
//!
//! A key is the account in UTF-8. A value is the format version 1, then what bincode 2 writes with its standard
//! configuration for (balance: i64, count: u64): variable-length little-endian integers, signed ones in zigzag. No
//! value means deleted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::ledger::LedgerState;
use super::{LogRecord, PartitionLog};

/// The first byte of every value.
const FORMAT_VERSION: u8 = 1;

/// The state that a changelog holds: per account its last value, without the deleted ones.
///
/// # Errors
/// A record cannot be decoded, or an account stands in two partitions.
pub fn fold_changelog(logs: &[PartitionLog]) -> Result<LedgerState> {
    let mut home: BTreeMap<String, i32> = BTreeMap::new();
    let mut state = LedgerState::new();
    for log in logs {
        for record in &log.records {
            let place = || format!("changelog {}@{}", log.partition, record.offset);
            let (account, value) = decode(record).with_context(place)?;
            let first = *home.entry(account.clone()).or_insert(log.partition);
            ensure!(first == log.partition, "{}: account {account} is in partition {first} too", place());
            match value {
                Some(value) => drop(state.insert(account, value)),
                None => drop(state.remove(&account)),
            }
        }
    }
    Ok(state)
}

/// The state that a store's entries on disk hold; they are written as changelog records are.
///
/// # Errors
/// An entry cannot be decoded.
pub fn decode_store(entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<LedgerState> {
    let decoded = entries.iter().map(|(key, value)| {
        let account = String::from_utf8(key.clone()).context("an account is not UTF-8")?;
        Ok((account, decode_value(value)?))
    });
    decoded.collect()
}

type Change = (String, Option<(i64, u64)>);

fn decode(record: &LogRecord) -> Result<Change> {
    let key = record.key.clone().context("a changelog record has no key")?;
    let account = String::from_utf8(key).context("an account is not UTF-8")?;
    let value = record.value.as_deref().map(decode_value).transpose()?;
    Ok((account, value))
}

fn decode_value(bytes: &[u8]) -> Result<(i64, u64)> {
    let Some((version, rest)) = bytes.split_first() else { bail!("an empty value") };
    ensure!(*version == FORMAT_VERSION, "format version {version}, expected {FORMAT_VERSION}");
    let (zigzag, rest) = varint(rest).context("balance")?;
    let (count, rest) = varint(rest).context("count")?;
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok((unzigzag(zigzag), count))
}

/// Below 251: the byte itself. 251, 252, 253: two, four, eight bytes follow.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let Some((first, rest)) = bytes.split_first() else { bail!("no byte left") };
    let length = match first {
        0..=250 => return Ok((u64::from(*first), rest)),
        251 => 2,
        252 => 4,
        253 => 8,
        254.. => bail!("length mark {first} does not belong to a 64-bit integer"),
    };
    let Some((number, rest)) = rest.split_at_checked(length) else {
        bail!("{length} bytes wanted, {} left", rest.len())
    };
    let mut value = [0_u8; 8];
    value[..length].copy_from_slice(number);
    Ok((u64::from_le_bytes(value), rest))
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::decode_value;

    #[test]
    fn values_as_bincode_2_writes_them_are_read() {
        // Written by bincode 2.0.1, `encode_to_vec(value, config::standard())`, behind the version byte.
        let cases: [(&[u8], (i64, u64)); 6] = [
            (&[1, 0, 0], (0, 0)),
            (&[1, 1, 1], (-1, 1)),
            (&[1, 250, 250], (125, 250)),
            (&[1, 251, 251, 0, 251, 251, 0], (-126, 251)),
            (&[1, 252, 0x80, 0x1a, 6, 0, 252, 0x40, 0x42, 0x0f, 0], (200_000, 1_000_000)),
            (&[1, 253, 255, 255, 255, 255, 255, 255, 255, 255, 253, 0, 0, 0, 0, 1, 0, 0, 0], (i64::MIN, 1 << 32)),
        ];
        for (bytes, value) in cases {
            assert_eq!(decode_value(bytes).expect("a sound value"), value);
        }
    }

    #[test]
    fn unsound_values_are_refused() {
        for bytes in [&[][..], &[2, 0, 0], &[1, 0], &[1, 0, 0, 0], &[1, 253, 0, 0], &[1, 254, 0, 0], &[1, 255]] {
            assert!(decode_value(bytes).is_err(), "{bytes:?}");
        }
    }
}
