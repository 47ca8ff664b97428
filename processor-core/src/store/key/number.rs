//! Keys of a fixed width: integers, doubles, truth values, times and UUIDs.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use serde_json::Value;
use uuid::Uuid;

use super::{KeyPart, StoreKey, json, take, whole};
use crate::error::CodecError;
use crate::ids::Timestamp;

/// Keys of a fixed width: from the key to its bytes, and back; to JSON, and back.
macro_rules! fixed_keys {
    ($($type:ty, $to:expr, $from:expr, $to_json:expr, $from_json:expr;)*) => {$(
        impl StoreKey for $type {
            fn encode(&self, bytes: &mut Vec<u8>) {
                self.encode_part(bytes);
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                whole(bytes)
            }

            fn to_json(&self) -> Result<Value, CodecError> {
                $to_json(*self)
            }

            fn from_json(json: &Value) -> Result<Self, CodecError> {
                $from_json(json)
            }
        }

        impl KeyPart for $type {
            fn encode_part(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&$to(*self));
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                take(bytes).map($from)
            }
        }
    )*};
}

/// Big-endian, with the sign bit flipped for signed types so that negative numbers sort first.
macro_rules! integer_keys {
    ($($type:ty, $flip:expr;)*) => {fixed_keys! {$(
        $type, |key: $type| (key ^ $flip).to_be_bytes(), |bytes| <$type>::from_be_bytes(bytes) ^ $flip,
        |key: $type| json::written(&key), json::read;
    )*}};
}

integer_keys! {
    u8, 0;
    u16, 0;
    u32, 0;
    u64, 0;
    u128, 0;
    i8, i8::MIN;
    i16, i16::MIN;
    i32, i32::MIN;
    i64, i64::MIN;
    i128, i128::MIN;
}

const SIGN: u64 = 1 << 63;

fixed_keys! {
    Timestamp,
        |key: Timestamp| (key.get() ^ i64::MIN).to_be_bytes(),
        |bytes| Timestamp::new(i64::from_be_bytes(bytes) ^ i64::MIN),
        |key: Timestamp| json::written(&key.get()),
        |json| json::read(json).map(Timestamp::new);
    TotalF64,
        // Negative numbers have all bits flipped, others the sign: then the bits sort as the numbers do.
        |key: TotalF64| {
            let bits = key.0.to_bits();
            (if bits & SIGN == 0 { bits ^ SIGN } else { !bits }).to_be_bytes()
        },
        |bytes| {
            let bits = u64::from_be_bytes(bytes);
            TotalF64(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN }))
        },
        |TotalF64(key)| if key.is_finite() { json::written(&key) } else { Ok(Value::from(not_finite(key))) },
        |json: &Value| match json.as_str() {
            Some(text) => read_text(text).map(TotalF64),
            None => json::read(json).map(TotalF64),
        };
    Uuid, |key: Uuid| key.into_bytes(), Uuid::from_bytes, |key: Uuid| json::written(&key), json::read;
}

/// What JSON has no number for. There are many NaNs, and each is a key of its own: all but the usual one show their bits.
fn not_finite(key: f64) -> String {
    if key.is_nan() && key.to_bits() != f64::NAN.to_bits() {
        return format!("{NAN_BITS}{:016x}", key.to_bits());
    }
    key.to_string()
}

fn read_text(text: &str) -> Result<f64, CodecError> {
    match text.strip_prefix(NAN_BITS) {
        Some(bits) => u64::from_str_radix(bits, 16).map(f64::from_bits).map_err(CodecError::new),
        None => text.parse().map_err(CodecError::new),
    }
}

/// What stands before the bits of a NaN.
const NAN_BITS: &str = "NaN:";

impl StoreKey for bool {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.encode_part(bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        whole(bytes)
    }

    fn to_json(&self) -> Result<Value, CodecError> {
        json::written(self)
    }

    fn from_json(json: &Value) -> Result<Self, CodecError> {
        json::read(json)
    }
}

impl KeyPart for bool {
    fn encode_part(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        match take(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => {
                Err(CodecError::new(format_args!("the key has {other} where 0 or 1 stands: it is of another type")))
            }
        }
    }
}

/// A double as a key, in IEEE 754's total order: -NaN, -∞, …, -0, +0, …, ∞, NaN. Keys are equal if their bits are, so -0
/// and +0 are two keys.
///
/// ```
/// use processor_core::store::TotalF64;
///
/// assert!(TotalF64(-1.5) < TotalF64(0.0));
/// assert_eq!(TotalF64(f64::NAN), TotalF64(f64::NAN));
/// assert_ne!(TotalF64(-0.0), TotalF64(0.0));
/// assert!(TotalF64(f64::NAN) > TotalF64(f64::INFINITY));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TotalF64(
    /// The number.
    pub f64,
);

impl PartialEq for TotalF64 {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for TotalF64 {}

impl PartialOrd for TotalF64 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TotalF64 {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Hash for TotalF64 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
