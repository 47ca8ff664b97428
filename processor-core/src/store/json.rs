//! A store's keys and values as JSON, for whoever looks at state from outside and does not know its types.
//!
//! JSON shows every serde type, to people and to programs. It is never what is stored.

use std::fmt;

use serde_json::{Value, json};

use super::{StoreKey, StoreValue, ValueFormat};
use crate::error::CodecError;

/// How many bytes of what cannot be shown are shown all the same.
const BEGINNING_BYTES_MAX: usize = 1_024;

/// Reads the keys and values of one store, whose types it hides.
///
/// ```
/// use processor_core::store::StoreJson;
///
/// let json = StoreJson::of::<(String, u32), Vec<f64>>();
/// let key = json.key_from_text(r#"["kitchen",7]"#)?; // as somebody has typed it
/// assert_eq!(json.key(&key)?.to_string(), r#"["kitchen",7]"#);
/// assert_eq!(json.value(b" [21.5]")?.to_string(), "[21.5]");
/// assert!(json.key_from_text("kitchen").unwrap_err().0.contains("write it as its JSON"));
///
/// // One entry that is damaged hides no other.
/// let shown = json.value_or_why(b"\x01\x09");
/// assert_eq!((&shown["length"], &shown["bytes"]), (&2.into(), &r"\x01\t".into()));
/// assert_eq!(json.key_or_why(&key), json.key(&key)?);
/// # Ok::<(), processor_core::error::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StoreJson {
    key_from_text: fn(&str) -> Result<Vec<u8>, CodecError>,
    key: fn(&[u8]) -> Result<Value, CodecError>,
    value: fn(&[u8]) -> Result<Value, CodecError>,
}

impl StoreJson {
    /// Of a store with these types.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let json = StoreJson::of::<String, Vec<f64>>(); // as in the store's definition
    /// assert_eq!(json.value(b" [20.5,21]")?.to_string(), "[20.5,21.0]");
    /// # Ok::<(), processor_core::error::CodecError>(())
    /// ```
    pub fn of<K: StoreKey, V: StoreValue>() -> Self {
        Self { key_from_text: key_from_text::<K>, key: key::<K>, value: value::<V> }
    }

    /// The stored bytes of a key that a person has written: as JSON, where it reads as such a key, else as plain text.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let rooms = StoreJson::of::<String, f64>();
    /// assert_eq!(rooms.key_from_text("kitchen")?, b"kitchen");
    /// assert_eq!(rooms.key_from_text(r#""kitchen""#)?, b"kitchen"); // as JSON
    /// assert!(StoreJson::of::<u64, f64>().key_from_text("kitchen").is_err());
    /// # Ok::<(), processor_core::error::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// It is no key of this store.
    pub fn key_from_text(&self, text: &str) -> Result<Vec<u8>, CodecError> {
        (self.key_from_text)(text)
    }

    /// A stored key.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let rooms = StoreJson::of::<String, f64>();
    /// assert_eq!(rooms.key(b"kitchen")?, "kitchen");
    /// assert!(rooms.key(b"\xff").is_err()); // no UTF-8
    /// # Ok::<(), processor_core::error::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// The bytes are no key of this store, or JSON cannot hold it.
    pub fn key(&self, bytes: &[u8]) -> Result<Value, CodecError> {
        (self.key)(bytes)
    }

    /// A stored value.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let rooms = StoreJson::of::<String, u64>();
    /// assert_eq!(rooms.value(b"\x01\x15")?, 21); // in bincode
    /// assert_eq!(rooms.value(b" 21")?, 21); // in JSON
    /// assert!(rooms.value(b"").is_err());
    /// # Ok::<(), processor_core::error::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// The bytes are no value of this store, or JSON cannot hold it.
    pub fn value(&self, bytes: &[u8]) -> Result<Value, CodecError> {
        (self.value)(bytes)
    }

    /// A stored key, or in its place why it cannot be shown: see [`unreadable`](Self::unreadable). So one entry that is
    /// damaged hides no other.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let rooms = StoreJson::of::<String, u64>();
    /// assert_eq!(rooms.key_or_why(b"kitchen"), "kitchen");
    /// assert_eq!(rooms.key_or_why(b"a\xff")["bytes"], r"a\xff");
    /// ```
    pub fn key_or_why(&self, bytes: &[u8]) -> Value {
        self.key(bytes).unwrap_or_else(|error| Self::unreadable(error, bytes, bytes.len()))
    }

    /// A stored value, or in its place why it cannot be shown.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// let rooms = StoreJson::of::<String, u64>();
    /// assert_eq!(rooms.value_or_why(b" 21"), 21);
    /// let damaged = rooms.value_or_why(b" 2x");
    /// let why = damaged["unreadable"].as_str().unwrap_or_default();
    /// assert!(why.starts_with("its value is not of the store's type"), "{damaged}");
    /// ```
    pub fn value_or_why(&self, bytes: &[u8]) -> Value {
        self.value(bytes).unwrap_or_else(|error| Self::unreadable(error, bytes, bytes.len()))
    }

    /// The one form of what cannot be shown: why, how many bytes are stored, and the first 1,024 of them, with escapes for
    /// those that are no printable ASCII. `beginning` may be all of them, or less.
    ///
    /// ```
    /// use processor_core::store::StoreJson;
    ///
    /// // Of a value of 40,000 bytes only the first two were read.
    /// let shown = StoreJson::unreadable("it is too large to show", b"\x01a", 40_000);
    /// assert_eq!(shown["unreadable"], "it is too large to show");
    /// assert_eq!((&shown["length"], &shown["bytes"]), (&40_000.into(), &r"\x01a".into()));
    /// ```
    pub fn unreadable(why: impl fmt::Display, beginning: &[u8], length: usize) -> Value {
        let shown = &beginning[..beginning.len().min(BEGINNING_BYTES_MAX)];
        json!({ "unreadable": why.to_string(), "length": length, "bytes": shown.escape_ascii().to_string() })
    }
}

fn key_from_text<K: StoreKey>(text: &str) -> Result<Vec<u8>, CodecError> {
    // A text may look like a number, and a quoted text like JSON: it is tried as what it looks like first.
    let as_json = serde_json::from_str(text).map_err(CodecError::new).and_then(|json| K::from_json(&json));
    let key = as_json.or_else(|error| K::from_json(&Value::from(text)).map_err(|_| error)).map_err(|error| {
        CodecError::new(format_args!(
            "'{text}' is no key of this store ({error}): write it as its JSON, such as 7 or [\"a\",7]"
        ))
    })?;
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    Ok(bytes)
}

fn key<K: StoreKey>(bytes: &[u8]) -> Result<Value, CodecError> {
    K::decode(bytes)?.to_json()
}

fn value<V: StoreValue>(bytes: &[u8]) -> Result<Value, CodecError> {
    let value: V = ValueFormat::decode(bytes)?;
    serde_json::to_value(value).map_err(|error| CodecError::new(format_args!("it cannot be shown as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Timestamp;
    use crate::store::TotalF64;

    fn through<K: StoreKey>(text: &str) -> Value {
        let json = StoreJson::of::<K, u8>();
        json.key(&json.key_from_text(text).expect("it is a key")).expect("what was written can be read")
    }

    #[test]
    fn a_key_is_read_as_json_or_as_plain_text() {
        assert_eq!(through::<u64>("7"), json!(7));
        assert_eq!(through::<i32>("-7"), json!(-7));
        assert_eq!(through::<String>("sensor-1"), json!("sensor-1"));
        assert_eq!(through::<String>("7"), json!("7"), "a text that looks like a number is a text");
        assert_eq!(through::<String>("\"7\""), json!("7"));
        assert_eq!(through::<String>("[1]"), json!("[1]"));
        assert_eq!(through::<Vec<u8>>(r"a\x00\xff\\"), json!(r"a\x00\xff\\"));
        assert_eq!(through::<(String, Option<u64>)>(r#"["a",7]"#), json!(["a", 7]));
        assert_eq!(through::<(bool, TotalF64, [u8; 2])>(r#"[true,"-inf","ab"]"#), json!([true, "-inf", "ab"]));
        assert_eq!(through::<Option<Timestamp>>("null"), json!(null));
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(through::<uuid::Uuid>(uuid), json!(uuid));
    }

    #[test]
    fn what_is_no_key_is_refused_with_an_instruction() {
        let error = StoreJson::of::<u64, u8>().key_from_text("seven").expect_err("it is no number");
        assert!(error.0.contains("'seven'") && error.0.contains("write it as its JSON"), "{error}");
        let of_pair = |text: &str| StoreJson::of::<(u8, u8), u8>().key_from_text(text);
        assert!(of_pair("[1]").is_err() && of_pair("[1,2,3]").is_err() && of_pair("[1,256]").is_err());
        assert!(StoreJson::of::<Vec<u8>, u8>().key_from_text(r"\x7").is_err());
    }

    #[test]
    fn values_are_shown_whatever_they_are_and_hostile_bytes_are_an_error() {
        let json = StoreJson::of::<String, (Option<u8>, Vec<f64>)>();
        assert_eq!(json.value(&[1, 1, 9, 1, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]), Ok(json!([9, [0.5]])));
        assert!(json.value(&[]).is_err() && json.value(&[9, 9]).is_err() && json.value(&[1, 7]).is_err());
        assert!(json.key(b"\xff").is_err());
    }

    #[test]
    fn what_cannot_be_read_says_why_and_shows_its_beginning() {
        let json = StoreJson::of::<String, u8>();
        assert_eq!(json.key_or_why(b"a"), "a");
        assert_eq!(json.value_or_why(&[1, 7]), 7);
        let key = json.key_or_why(b"\xffa");
        assert_eq!((&key["length"], &key["bytes"]), (&json!(2), &json!(r"\xffa")));
        assert!(key["unreadable"].as_str().is_some_and(|why| !why.is_empty()), "{key}");
        let long = json.value_or_why(&[0xee; 5_000]);
        assert_eq!((&long["length"], long["bytes"].as_str().map(str::len)), (&json!(5_000), Some(4 * 1_024)));
    }
}
