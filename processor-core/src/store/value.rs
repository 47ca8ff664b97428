//! How the values of a store are written down, in its changelog as on disk: a byte that says how, then the value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Bincode, Codec, Json};
use crate::error::CodecError;

/// What can be a store's value: any plain type with serde derives.
///
/// `Clone` keeps the value as it was before the record in process, in case that record fails (EO-9).
///
/// Mind changes. Bincode names no fields: one that is added or moved makes stored values unreadable, which stops the
/// task, or wrongly read. Give the store another name then: it begins anew, once the old state is removed as the start
/// says. Or begin with an enum of versions, behind whose variants a new one can stand. Of [JSON values](super::KeyValueStoreDef::with_json_values) a field with
/// `#[serde(default)]` may be added.
///
/// ```
/// use processor_core::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, Default, Serialize, Deserialize)]
/// struct Total {
///     orders: u64,
///     cents: i64,
/// }
///
/// const TOTALS: KeyValueStoreDef<String, Total> = KeyValueStoreDef::new("totals"); // `update` needs `Default`, too
/// # let _ = TOTALS;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a store's value",
    note = "derive `Clone`, `serde::Serialize` and `serde::Deserialize` for it; it must own its data"
)]
pub trait StoreValue: Clone + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + 'static> StoreValue for T {}

/// How a store writes its values.
///
/// A value begins with the version of its format, and is read in the format that it begins with; so a store may change
/// its format, and values written before are read until they are written again.
///
/// ```
/// use processor_core::store::ValueFormat;
///
/// let (mut old, mut new) = (Vec::new(), Vec::new());
/// ValueFormat::default().encode(&21.5, &mut old)?; // in bincode
/// ValueFormat::Json.encode(&21.5, &mut new)?;
/// assert_eq!(new, b" 21.5");
/// assert_eq!(ValueFormat::decode(&old), Ok(21.5)); // both are read
/// assert_eq!(ValueFormat::decode(&new), Ok(21.5));
/// # Ok::<(), processor_core::error::CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueFormat {
    /// [`Bincode`]: compact and fast.
    #[default]
    Bincode,
    /// [`Json`]: for changelogs that others read. Its version is a space, which JSON allows in front of a value.
    Json,
}

impl ValueFormat {
    /// The first byte of a value of this format.
    ///
    /// ```
    /// # use processor_core::store::ValueFormat;
    /// assert_eq!((ValueFormat::Bincode.version(), ValueFormat::Json.version()), (1, b' '));
    /// ```
    pub const fn version(self) -> u8 {
        match self {
            Self::Bincode => 1,
            Self::Json => b' ',
        }
    }

    /// Appends the version and the value.
    ///
    /// ```
    /// # use processor_core::store::ValueFormat;
    /// let mut bytes = Vec::new();
    /// ValueFormat::Bincode.encode(&300_u32, &mut bytes)?;
    /// assert_eq!(bytes, [1, 0xfb, 0x2c, 0x01]);
    /// # Ok::<(), processor_core::error::CodecError>(())
    /// ```
    ///
    /// # Errors
    /// The value cannot be written in this format.
    pub fn encode<V: StoreValue>(self, value: &V, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.push(self.version());
        let start = bytes.len();
        let present = match self {
            Self::Bincode => Bincode.encode(value, bytes),
            Self::Json => Json.encode(value, bytes),
        }?;
        if self == Self::Json {
            check_json(value, &bytes[start..])?;
        }
        assert!(present, "neither format writes a value as null, which deletes");
        Ok(())
    }

    /// Reads a value in the format that it begins with.
    ///
    /// ```
    /// use processor_core::store::ValueFormat;
    ///
    /// assert_eq!(ValueFormat::decode(b"\x01\x07"), Ok(7_u32));
    /// assert_eq!(ValueFormat::decode(b" 7"), Ok(7_u32));
    /// assert!(ValueFormat::decode::<u32>(b"\x09\x07").is_err(), "a format of some later version");
    /// ```
    ///
    /// # Errors
    /// It was written by a newer program, or as another type.
    pub fn decode<V: StoreValue>(bytes: &[u8]) -> Result<V, CodecError> {
        const BINCODE: u8 = ValueFormat::Bincode.version();
        const JSON: u8 = ValueFormat::Json.version();
        let decoded = match bytes.split_first() {
            Some((&BINCODE, value)) => Bincode.decode(Some(value)),
            Some((&JSON, value)) => Json.decode(Some(value)),
            Some((version, _)) => {
                return Err(CodecError::new(format_args!(
                    "its value has format version {version}, and this program knows {BINCODE} (bincode) and {JSON} (JSON): a newer \
                 program wrote it; run that one again, or start over with another application id"
                )));
            }
            None => {
                return Err(CodecError::new(
                    "its value is empty, without even a format version: something else wrote to the changelog; keep others from it",
                ));
            }
        };
        decoded.map_err(|error| {
            CodecError::new(format_args!(
                "its value is not of the store's type ({error}): if the type was changed, bring the old one back, or give the store \
                 another name and remove the old state, to begin anew"
            ))
        })
    }
}

/// What is written must read back as what it was, or the state is another one after a restore, or none. JSON has no NaN
/// and no infinity, and writes `null` for them, which no `f64` reads, and which an `Option<f64>` reads as `None`; and it is
/// not read where it nests too deep. So what holds a null, or nests deep, is read back, and compared by its length in
/// bincode, which tells a number from none and does not depend on the order of a map.
fn check_json<V: StoreValue>(value: &V, json: &[u8]) -> Result<(), CodecError> {
    if !is_doubtful(json) {
        return Ok(());
    }
    let refused = |why: &dyn std::fmt::Display| {
        CodecError::new(format_args!(
            "it could not be read back ({why}): JSON has no NaN and no infinity, and nests 127 levels at most"
        ))
    };
    let read: V = Json.decode(Some(json)).map_err(|error| refused(&error))?;
    let (mut was, mut is) = (Vec::new(), Vec::new());
    Bincode.encode(value, &mut was)?;
    Bincode.encode(&read, &mut is)?;
    if was.len() == is.len() { Ok(()) } else { Err(refused(&"a number has become none")) }
}

/// Whether JSON holds a null, or nests deep; strings may make it seem so.
fn is_doubtful(json: &[u8]) -> bool {
    const NULL: &[u8] = b"null";
    const DEEP: usize = 100;
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in json {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        deepest = deepest.max(depth);
    }
    deepest > DEEP || json.windows(NULL.len()).any(|window| window == NULL)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn encoded<V: StoreValue>(format: ValueFormat, value: &V) -> Vec<u8> {
        let mut bytes = Vec::new();
        format.encode(value, &mut bytes).expect("these values can be written");
        bytes
    }

    /// These bytes are in changelogs and databases: a change here is a new format version.
    #[test]
    fn the_bytes_are_the_documented_ones() {
        let value = (300_u64, -1_i32, "é".to_owned(), Some(true), vec![0.5_f64], BTreeMap::from([(7_u8, 9_u8)]));
        assert_eq!(
            encoded(ValueFormat::Bincode, &value),
            [
                &[1][..],                           // format version
                &[0xfb, 0x2c, 0x01],                // 300: 16 bits follow
                &[1],                               // -1, zigzag
                &[2, 0xc3, 0xa9],                   // a text of two bytes
                &[1, 1],                            // Some, true
                &[1, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f], // one double
                &[1, 7, 9],                         // one entry
            ]
            .concat()
        );
        assert_eq!(encoded(ValueFormat::Json, &value), r#" [300,-1,"é",true,[0.5],{"7":9}]"#.as_bytes());
    }

    #[test]
    fn values_are_read_in_the_format_they_begin_with() {
        for format in [ValueFormat::Bincode, ValueFormat::Json] {
            assert_eq!(ValueFormat::decode(&encoded(format, &vec![1_u32, 2])), Ok(vec![1_u32, 2]));
        }
        let json = encoded(ValueFormat::Json, &vec![1_u32, 2]);
        assert_eq!(
            serde_json::from_slice::<Vec<u32>>(&json).expect("plain JSON"),
            [1, 2],
            "others read it, version and all"
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_an_instruction() {
        let refused = |bytes: &[u8]| ValueFormat::decode::<u64>(bytes).expect_err("these are no values").0;
        let newer = refused(&[2, 7]);
        assert!(
            newer.contains("format version 2") && newer.contains("a newer program wrote it; run that one again"),
            "{newer}"
        );
        assert!(refused(&[]).contains("keep others from it"));
        assert!(refused(&[1, 7, 7]).contains("give the store another name"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error_or_a_value_but_never_a_panic(version in prop_oneof![Just(1), Just(b' '), any::<u8>()], rest in any::<Vec<u8>>()) {
            let bytes = [&[version], &rest[..]].concat();
            let _ = ValueFormat::decode::<Vec<(String, Option<u64>)>>(&bytes);
        }
    }

    #[test]
    fn json_that_would_read_back_as_something_else_is_refused() {
        let written = |value: &Option<f64>| {
            let mut bytes = Vec::new();
            ValueFormat::Json.encode(value, &mut bytes).map(|()| bytes)
        };
        assert_eq!(written(&None), Ok(b" null".to_vec()));
        assert!(written(&Some(f64::NAN)).is_err_and(|error| error.0.contains("a number has become none")));
        let mut bytes = Vec::new();
        let refused = ValueFormat::Json.encode(&f64::INFINITY, &mut bytes).expect_err("no f64 reads null");
        assert!(refused.0.contains("JSON has no NaN"), "{refused:?}");
    }

    /// Found by the fuzz target `stored_value`.
    #[test]
    fn json_that_nests_too_deep_to_be_read_is_refused() {
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        struct Nested(Vec<Nested>);
        let nested = |levels| (1..levels).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
        for levels in [10, 101, 127] {
            let mut bytes = Vec::new();
            ValueFormat::Json.encode(&nested(levels), &mut bytes).expect("it can be read");
            ValueFormat::decode::<Nested>(&bytes).expect("it can be read");
        }
        let refused = ValueFormat::Json.encode(&nested(128), &mut Vec::new()).expect_err("it could not be read");
        assert!(refused.0.contains("127 levels"), "{refused:?}");
    }
}
