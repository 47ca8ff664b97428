//! A store as people see it: a key that somebody typed becomes bytes, and stored bytes become JSON.
//!
//! Made where the types are known, so that whoever shows a store needs only its bytes. Texts, integers, `bool` and `Uuid`
//! are typed and shown as they are; any other key as `0x` and the hexadecimal digits of its bytes.

use std::any::{TypeId, type_name};
use std::fmt::{Display, Write};
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{StoreKey, StoreValue, ValueFormat};
use crate::error::CodecError;

/// How to show a store's entries, whatever their types.
#[derive(Clone, Copy, Debug)]
pub struct StoreView {
    parse_key: fn(&str) -> Result<Vec<u8>, CodecError>,
    key: fn(&[u8]) -> Result<Value, CodecError>,
    value: fn(&[u8]) -> Result<Value, CodecError>,
}

impl StoreView {
    /// Of a store with these types.
    pub fn of<K: StoreKey, V: StoreValue>() -> Self {
        Self { parse_key: parse_key::<K>, key: show_key::<K>, value: show_value::<V> }
    }

    /// The stored bytes of a key as somebody types it.
    ///
    /// ```
    /// use processor_core::store::StoreView;
    ///
    /// let view = StoreView::of::<u16, String>();
    /// assert_eq!(view.parse_key("258"), Ok(vec![1, 2]));
    /// assert!(view.parse_key("many").is_err());
    /// ```
    ///
    /// # Errors
    /// The text is no key of this store.
    pub fn parse_key(&self, text: &str) -> Result<Vec<u8>, CodecError> {
        (self.parse_key)(text)
    }

    /// A stored key as JSON.
    ///
    /// # Errors
    /// The bytes are no key of this store.
    pub fn key(&self, bytes: &[u8]) -> Result<Value, CodecError> {
        (self.key)(bytes)
    }

    /// A stored value as JSON.
    ///
    /// # Errors
    /// The bytes are no value of this store, or JSON cannot hold it.
    pub fn value(&self, bytes: &[u8]) -> Result<Value, CodecError> {
        (self.value)(bytes)
    }
}

/// Tries the key types that are typed and shown as they are.
macro_rules! as_plain {
    ($as:ident, $key:ty, $given:expr) => {
        $as::<$key, String>($given)
            .or_else(|| $as::<$key, u8>($given))
            .or_else(|| $as::<$key, u16>($given))
            .or_else(|| $as::<$key, u32>($given))
            .or_else(|| $as::<$key, u64>($given))
            .or_else(|| $as::<$key, u128>($given))
            .or_else(|| $as::<$key, i8>($given))
            .or_else(|| $as::<$key, i16>($given))
            .or_else(|| $as::<$key, i32>($given))
            .or_else(|| $as::<$key, i64>($given))
            .or_else(|| $as::<$key, i128>($given))
            .or_else(|| $as::<$key, bool>($given))
            .or_else(|| $as::<$key, Uuid>($given))
    };
}

fn parse_key<K: StoreKey>(text: &str) -> Result<Vec<u8>, CodecError> {
    if let Some(parsed) = as_plain!(parse_as, K, text) {
        return parsed;
    }
    let refused = |why: &dyn Display| {
        CodecError::new(format_args!(
            "'{text}' is no key of type {}: {why}; it is typed as 0x and the hexadecimal digits of its bytes",
            type_name::<K>()
        ))
    };
    let bytes = text.strip_prefix("0x").and_then(from_hex).ok_or_else(|| refused(&"it has another form"))?;
    K::decode(&bytes).map_err(|error| refused(&error))?;
    Ok(bytes)
}

/// `None`: keys are not of this type.
fn parse_as<K: StoreKey, T: StoreKey + FromStr<Err: Display>>(text: &str) -> Option<Result<Vec<u8>, CodecError>> {
    (TypeId::of::<K>() == TypeId::of::<T>()).then(|| {
        let key: T = text.parse().map_err(|error| {
            CodecError::new(format_args!("'{text}' is no key of type {}: {error}", type_name::<T>()))
        })?;
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        Ok(bytes)
    })
}

fn show_key<K: StoreKey>(bytes: &[u8]) -> Result<Value, CodecError> {
    if let Some(shown) = as_plain!(show_as, K, bytes) {
        return shown;
    }
    K::decode(bytes)?;
    Ok(Value::String(format!("0x{}", to_hex(bytes))))
}

/// `None`: keys are not of this type. Numbers that JSON's readers may round or refuse are a text.
fn show_as<K: StoreKey, T: StoreKey + Serialize + Display>(bytes: &[u8]) -> Option<Result<Value, CodecError>> {
    (TypeId::of::<K>() == TypeId::of::<T>()).then(|| {
        let key = T::decode(bytes)?;
        if TypeId::of::<T>() == TypeId::of::<u128>() || TypeId::of::<T>() == TypeId::of::<i128>() {
            Ok(Value::String(key.to_string()))
        } else {
            to_json(&key)
        }
    })
}

fn show_value<V: StoreValue>(bytes: &[u8]) -> Result<Value, CodecError> {
    to_json(&ValueFormat::decode::<V>(bytes)?)
}

fn to_json(value: &impl Serialize) -> Result<Value, CodecError> {
    serde_json::to_value(value).map_err(|error| CodecError::new(format_args!("JSON cannot hold it: {error}")))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |at| Some(digit(at)? << 4 | digit(at + 1)?);
    digits.len().is_multiple_of(2).then(|| (0..digits.len()).step_by(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stored<V: StoreValue>(value: &V) -> Vec<u8> {
        let mut bytes = Vec::new();
        ValueFormat::Bincode.encode(value, &mut bytes).expect("it can be written");
        bytes
    }

    #[test]
    fn texts_and_integers_are_typed_and_shown_as_they_are() {
        let text = StoreView::of::<String, i64>();
        assert_eq!(text.parse_key("0xab"), Ok(b"0xab".to_vec()));
        assert_eq!(text.key("ä/b".as_bytes()), Ok(json!("ä/b")));
        assert_eq!(text.value(&stored(&-7_i64)), Ok(json!(-7)));
        let wide = StoreView::of::<u128, u8>();
        let most = u128::MAX.to_string();
        assert_eq!(wide.parse_key(&most).and_then(|key| wide.key(&key)), Ok(json!(most)));
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let by_id = StoreView::of::<Uuid, u8>();
        assert_eq!(by_id.parse_key(id).and_then(|key| by_id.key(&key)), Ok(json!(id)));
        let number = StoreView::of::<i32, Vec<f64>>();
        let key = number.parse_key("-5").expect("a number");
        assert_eq!(number.key(&key), Ok(json!(-5)));
        assert_eq!(number.value(&stored(&vec![1.5, 2.0])), Ok(json!([1.5, 2.0])));
    }

    #[test]
    fn other_keys_are_hexadecimal_both_ways() {
        let view = StoreView::of::<Vec<u8>, String>();
        let key = view.parse_key("0x00ff1a").expect("digits");
        assert_eq!(key, [0, 255, 26]);
        assert_eq!(view.key(&key), Ok(json!("0x00ff1a")));
    }

    #[test]
    fn what_is_no_key_or_no_value_is_refused_with_a_reason() {
        let number = StoreView::of::<u8, String>();
        for text in ["", "256", "-1", "a", "0x01"] {
            let refused = number.parse_key(text).expect_err("no number of 8 bits");
            assert!(refused.0.contains("is no key of type u8"), "{refused}");
        }
        for text in ["", "00", "0x0", "0xzz", "0xä"] {
            assert!(StoreView::of::<Vec<u8>, String>().parse_key(text).is_err(), "{text}");
        }
        assert!(number.key(&[1, 2]).is_err());
        assert!(number.value(&[]).is_err());
        assert!(number.value(&[9, 0]).is_err());
        let unlike_json = StoreView::of::<u8, BTreeMap<Vec<u8>, u8>>();
        let refused = unlike_json.value(&stored(&BTreeMap::from([(vec![1], 1)]))).expect_err("its keys are no texts");
        assert!(refused.0.contains("JSON cannot hold it"), "{refused}");
    }

    proptest! {
        #[test]
        fn hostile_text_and_bytes_are_never_a_panic(text in ".*", bytes in any::<Vec<u8>>()) {
            for view in [StoreView::of::<String, Vec<String>>(), StoreView::of::<u64, f64>(), StoreView::of::<Vec<u8>, ()>()] {
                let _ = (view.parse_key(&text), view.key(&bytes), view.value(&bytes));
            }
        }
    }
}
