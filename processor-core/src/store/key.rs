//! Keys of stores, encoded so that the order of the bytes is the order of the keys.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;

/// What can be a store's key.
///
/// # Contract
/// `decode(encode(k))` gives back `k`, and `a < b` exactly if `encode(a) < encode(b)` as bytes: ranges are scanned on
/// disk in byte order.
///
/// The serde derives are for people who look at state: keys are shown and asked for as JSON.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a store's key",
    note = "keys are `String`, `Vec<u8>`, or an integer; or implement `StoreKey` with an order-preserving encoding, and derive serde's traits"
)]
pub trait StoreKey: Clone + Eq + Ord + Hash + Serialize + DeserializeOwned + Send + 'static {
    /// Appends the key's bytes.
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Reads a key.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

impl StoreKey for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(std::str::from_utf8(bytes).map_err(CodecError::new)?.to_owned())
    }
}

impl StoreKey for Vec<u8> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

/// Big-endian, with the sign bit flipped for signed types so that negative numbers sort first.
macro_rules! integer_keys {
    ($($type:ty, $flip:expr;)*) => {$(
        impl StoreKey for $type {
            fn encode(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&(*self ^ $flip).to_be_bytes());
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                let fixed = bytes.try_into().map_err(|_| {
                    CodecError::new(format_args!("a key of {} bytes, not {}", bytes.len(), size_of::<$type>()))
                })?;
                Ok(<$type>::from_be_bytes(fixed) ^ $flip)
            }
        }
    )*};
}

integer_keys! {
    u8, 0;
    u16, 0;
    u32, 0;
    u64, 0;
    i32, i32::MIN;
    i64, i64::MIN;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of<K: StoreKey>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    }

    fn order_is_kept<K: StoreKey + std::fmt::Debug>(a: &K, b: &K) {
        assert_eq!(a.cmp(b), bytes_of(a).cmp(&bytes_of(b)));
        assert_eq!(&K::decode(&bytes_of(a)).expect("what was written can be read"), a);
    }

    proptest! {
        #[test]
        fn byte_order_is_key_order(
            text in any::<(String, String)>(), bytes in any::<(Vec<u8>, Vec<u8>)>(), unsigned in any::<(u64, u64)>(),
            signed in any::<(i64, i64)>(), small in any::<(i32, i32)>(),
        ) {
            order_is_kept(&text.0, &text.1);
            order_is_kept(&bytes.0, &bytes.1);
            order_is_kept(&unsigned.0, &unsigned.1);
            order_is_kept(&signed.0, &signed.1);
            order_is_kept(&small.0, &small.1);
        }
    }
}
