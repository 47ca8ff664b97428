//! Keys of stores, encoded so that the order of the bytes is the order of the keys.
//!
//! A key by itself is written *whole*; a component that another one follows is written as a *part*, which says where it
//! ends. So whatever begins with the same components begins with the same bytes, and is found together.

mod bytes;
mod number;
mod prefix;
mod tuple;

pub use number::TotalF64;
pub use prefix::KeyPrefix;

use std::hash::Hash;

use crate::error::CodecError;

/// What can be a store's key: texts, bytes, integers, `bool`, [`TotalF64`], [`Timestamp`](crate::ids::Timestamp), `Uuid`,
/// `Option`s and tuples of these.
///
/// # Contract
/// `decode(encode(k))` gives back `k`, and `a < b` exactly if `encode(a) < encode(b)` as bytes: ranges are scanned on
/// disk in byte order. Bytes that are no key give an error.
///
/// A type of one's own leans on one of these:
///
/// ```
/// use processor_core::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
/// struct AccountId(u64);
///
/// impl StoreKey for AccountId {
///     fn encode(&self, bytes: &mut Vec<u8>) {
///         self.0.encode(bytes);
///     }
///
///     fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
///         u64::decode(bytes).map(Self)
///     }
/// }
///
/// /// What each account has paid at each time.
/// const PAYMENTS: KeyValueStoreDef<(u64, Timestamp), i64> = KeyValueStoreDef::new("payments");
/// const BALANCES: KeyValueStoreDef<AccountId, i64> = KeyValueStoreDef::new("balances");
/// # let _ = (PAYMENTS, BALANCES);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a store's key",
    note = "keys are texts, bytes, integers, `bool`, `TotalF64`, `Timestamp`, `Uuid`, options and tuples of these; or implement `StoreKey` with an order-preserving encoding"
)]
pub trait StoreKey: Clone + Eq + Ord + Hash + Send + 'static {
    /// Appends the key's bytes.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Reads a key.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

/// A key that another one can follow, in a tuple.
///
/// # Contract
/// As that of [`StoreKey`], for `encode_part` and `decode_part`, which read back what they wrote whatever follows it: the
/// bytes of one part are never the beginning of another's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can only be the last component of a key",
    note = "implement `KeyPart` for it, with an encoding that says where it ends"
)]
pub trait KeyPart: StoreKey {
    /// Appends the part's bytes.
    fn encode_part(&self, bytes: &mut Vec<u8>);

    /// Reads a part and takes its bytes off the front.
    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError>;
}

/// The first `N` bytes of a key, taken off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or_else(|| {
        CodecError::new(format_args!("the key ends after {} of {N} bytes: it is of another type", bytes.len()))
    })?;
    *bytes = rest;
    Ok(*taken)
}

/// Reads a key of which the whole form is the form as a part.
fn whole<K: KeyPart>(mut bytes: &[u8]) -> Result<K, CodecError> {
    let key = K::decode_part(&mut bytes)?;
    if bytes.is_empty() {
        Ok(key)
    } else {
        Err(CodecError::new(format_args!("the key has {} bytes too many: it is of another type", bytes.len())))
    }
}

#[cfg(test)]
mod tests;
