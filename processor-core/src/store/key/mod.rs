//! Keys of stores, encoded so that the order of the bytes is the order of the keys.
//!
//! A key by itself is written *whole*; a component that another one follows is written as a *part*, which says where it
//! ends. So whatever begins with the same components begins with the same bytes, and is found together.

mod bytes;
mod json;
mod number;
mod prefix;
mod tuple;

pub use number::TotalF64;
pub use prefix::KeyPrefix;

use std::hash::Hash;

use serde_json::Value;

use crate::error::CodecError;

/// What can be a store's key: texts, bytes, integers, `bool`, [`TotalF64`], [`Timestamp`](crate::ids::Timestamp), `Uuid`,
/// `Option`s and tuples of these.
///
/// The order of a tuple is that of its components, and a negative number comes before a positive one:
///
/// ```
/// use processor_core::prelude::*;
///
/// let bytes = |key: (String, i32)| {
///     let mut bytes = Vec::new();
///     key.encode(&mut bytes);
///     bytes
/// };
/// let keys = [("a", -1), ("a", 2), ("ab", -7), ("b", 0)].map(|(text, number)| (text.to_owned(), number));
/// assert!(keys.iter().cloned().map(bytes).is_sorted());
/// ```
///
/// What has no total order is refused:
///
/// ```compile_fail
/// # use processor_core::prelude::*;
/// const BY_PRICE: KeyValueStoreDef<f64, String> = KeyValueStoreDef::new("by-price"); // a `TotalF64` can be a key
/// ```
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
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut bytes = Vec::new();
    /// 7_u32.encode(&mut bytes);
    /// assert_eq!(bytes, [0, 0, 0, 7]); // the order of the bytes is that of the numbers
    /// ```
    fn encode(&self, bytes: &mut Vec<u8>);

    /// Reads a key.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(u32::decode(&[0, 0, 0, 7]), Ok(7));
    /// assert!(u32::decode(&[0, 7]).is_err()); // too short
    /// assert_eq!(String::decode(b"kitchen"), Ok("kitchen".to_owned()));
    /// ```
    ///
    /// # Errors
    /// The bytes are no such key.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;

    /// The key as JSON, for people who look at state: its encoded bytes as text with escapes, unless the type says
    /// otherwise. A type of one's own leans on the same type as in `encode`.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let key = ("kitchen".to_owned(), b"\x07a".to_vec());
    /// assert_eq!(key.to_json()?.to_string(), r#"["kitchen","\\x07a"]"#);
    /// assert_eq!(<(String, Vec<u8>)>::from_json(&key.to_json()?)?, key);
    /// # Ok::<(), CodecError>(())
    /// ```
    ///
    /// # Errors
    /// JSON cannot hold it.
    fn to_json(&self) -> Result<Value, CodecError> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Ok(json::escaped(&bytes))
    }

    /// Reads a key that somebody has asked for, written as [`to_json`](Self::to_json) shows it.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let json = ("kitchen".to_owned(), 7_u32).to_json()?;
    /// assert_eq!(<(String, u32)>::from_json(&json)?, ("kitchen".to_owned(), 7));
    /// assert!(u32::from_json(&json).is_err()); // it is a pair
    /// # Ok::<(), CodecError>(())
    /// ```
    ///
    /// # Errors
    /// It is no such key.
    fn from_json(json: &Value) -> Result<Self, CodecError> {
        Self::decode(&json::unescaped(json)?)
    }
}

/// A key that another one can follow, in a tuple.
///
/// ```
/// use processor_core::prelude::*;
///
/// #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
/// impl KeyPart for AccountId {
///     fn encode_part(&self, bytes: &mut Vec<u8>) {
///         self.0.encode_part(bytes);
///     }
///
///     fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
///         u64::decode_part(bytes).map(Self)
///     }
/// }
///
/// /// What each account has paid at each time: all of one account by `.prefix(&(account,))`.
/// const PAYMENTS: KeyValueStoreDef<(AccountId, Timestamp), i64> = KeyValueStoreDef::new("payments");
///
/// let (mut bytes, payment) = (Vec::new(), (AccountId(7), Timestamp::new(1)));
/// payment.encode(&mut bytes);
/// assert_eq!(StoreKey::decode(&bytes), Ok(payment));
/// # let _ = PAYMENTS;
/// ```
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
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let (mut whole, mut part) = (Vec::new(), Vec::new());
    /// let kitchen = "kitchen".to_owned();
    /// kitchen.encode(&mut whole);
    /// kitchen.encode_part(&mut part);
    /// assert!(part.starts_with(&whole) && part.len() > whole.len()); // it says where it ends
    /// ```
    fn encode_part(&self, bytes: &mut Vec<u8>);

    /// Reads a part and takes its bytes off the front.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut bytes = Vec::new();
    /// ("kitchen".to_owned(), 7_u32).encode(&mut bytes);
    /// let mut rest = &bytes[..];
    /// assert_eq!(String::decode_part(&mut rest)?, "kitchen");
    /// assert_eq!(rest, [0, 0, 0, 7]); // the last component, whole
    /// # Ok::<(), CodecError>(())
    /// ```
    ///
    /// # Errors
    /// The bytes do not begin with such a part.
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
