//! Codecs: how typed keys and values become the bytes of a record, and back.
//!
//! Decoders read bytes that anyone with write access to a topic can choose: they return an error for what they do not
//! understand, never panic, and allocate no more than a small multiple of what they were given.

mod bincode;
mod numeric;
mod text;

pub use self::bincode::Bincode;
pub use numeric::{JavaDouble, JavaLong};
pub use text::{DecimalText, Utf8};

use crate::error::CodecError;

/// Translates between a type and the bytes of a record's key or value.
///
/// # Contract
/// `decode(encode(x))` gives back `x`, and equal values have equal bytes: keys are partitioned and compared as bytes.
pub trait Codec<T>: Clone + Send + Sync + 'static {
    /// Appends the bytes of `value`; `Ok(false)` means Kafka's null, and nothing was appended.
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<bool, CodecError>;

    /// Reads a value; `None` is Kafka's null, which only [`Optional`] accepts.
    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, CodecError>;
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.extend_from_slice(value);
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<Vec<u8>, CodecError> {
        Ok(present(bytes)?.to_vec())
    }
}

/// Makes Kafka's null a value: `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Optional<C>(pub C);

impl<T, C: Codec<T>> Codec<Option<T>> for Optional<C> {
    fn encode(&self, value: &Option<T>, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        match value {
            Some(value) => self.0.encode(value, bytes),
            None => Ok(false),
        }
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<Option<T>, CodecError> {
        bytes.map(|bytes| self.0.decode(Some(bytes))).transpose()
    }
}

/// The bytes, or the error that a null deserves.
pub(crate) fn present(bytes: Option<&[u8]>) -> Result<&[u8], CodecError> {
    bytes.ok_or_else(|| CodecError::new("it is null, which this codec does not read; `Optional` does"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip<T: PartialEq + std::fmt::Debug>(codec: &impl Codec<T>, value: &T) {
        let mut bytes = vec![7];
        let present = codec.encode(value, &mut bytes).expect("every value of these types can be written");
        let decoded = codec.decode(present.then_some(&bytes[1..])).expect("what was written can be read");
        assert_eq!(&decoded, value);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            text in ".*", long in any::<i64>(), double in proptest::num::f64::NORMAL, raw in any::<Vec<u8>>(),
            optional in any::<Option<i64>>(), list in any::<Vec<(String, Option<u32>)>>(),
        ) {
            round_trip(&Utf8, &text);
            round_trip(&JavaLong, &long);
            round_trip(&JavaDouble, &double);
            round_trip(&DecimalText, &double);
            round_trip(&Raw, &raw);
            round_trip(&Optional(JavaLong), &optional);
            round_trip(&Bincode, &list);
        }

        #[test]
        fn hostile_bytes_are_an_error_or_a_value_but_never_a_panic(bytes in any::<Vec<u8>>()) {
            let bytes = Some(bytes.as_slice());
            let _: Result<String, _> = Utf8.decode(bytes);
            let _: Result<i64, _> = JavaLong.decode(bytes);
            let _: Result<f64, _> = JavaDouble.decode(bytes);
            let _: Result<f64, _> = DecimalText.decode(bytes);
            let _: Result<Vec<(String, Option<u32>)>, _> = Bincode.decode(bytes);
        }
    }

    #[test]
    fn null_is_only_read_by_optional() {
        assert!(Utf8.decode(None).is_err());
        assert_eq!(Optional(Utf8).decode(None), Ok(None));
        assert_eq!(Optional(Utf8).decode(Some(b"")), Ok(Some(String::new())));
    }
}
