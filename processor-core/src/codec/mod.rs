//! Codecs: how typed keys and values become the bytes of a record, and back.
//!
//! Decoders read bytes that anyone with write access to a topic can choose: they return an error for what they do not
//! understand, never panic, and allocate no more than a small multiple of what they were given.

mod bincode;
mod bounded;
mod json;
mod numeric;
mod text;

pub use self::bincode::Bincode;
pub use json::Json;
pub use numeric::{JavaBoolean, JavaDouble, JavaFloat, JavaInteger, JavaLong, JavaShort};
pub use text::{DecimalText, JavaUuid, Utf8};

use crate::error::CodecError;

/// Translates between a type and the bytes of a record's key or value.
///
/// ```
/// use processor_core::prelude::*;
///
/// /// A money amount in cents, as `12.50`.
/// #[derive(Clone, Copy, Debug)]
/// struct Cents;
///
/// impl Codec<i64> for Cents {
///     fn encode(&self, value: &i64, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
///         let (sign, cents) = (if *value < 0 { "-" } else { "" }, value.unsigned_abs());
///         bytes.extend_from_slice(format!("{sign}{}.{:02}", cents / 100, cents % 100).as_bytes());
///         Ok(true)
///     }
///
///     fn decode(&self, bytes: Option<&[u8]>) -> Result<i64, CodecError> {
///         let text: String = Utf8.decode(bytes)?; // refuses a null
///         let wrong = || CodecError::new(format_args!("'{text}' is no amount such as 12.50"));
///         let (whole, cents) = text.split_once('.').filter(|(_, cents)| cents.len() == 2).ok_or_else(wrong)?;
///         format!("{whole}{cents}").parse().map_err(|_| wrong())
///     }
/// }
///
/// let mut bytes = Vec::new();
/// assert_eq!(Cents.encode(&-5, &mut bytes), Ok(true));
/// assert_eq!(bytes, b"-0.05");
/// assert_eq!(Cents.decode(Some(&bytes)), Ok(-5));
/// assert!(Cents.decode(Some(b"12.5")).is_err() && Cents.decode(None).is_err());
/// ```
///
/// # Contract
/// `decode(encode(x))` gives back `x`, and equal values have equal bytes: keys are partitioned and compared as bytes.
pub trait Codec<T>: Clone + Send + Sync + 'static {
    /// Appends the bytes of `value`; `Ok(false)` means Kafka's null, and nothing was appended.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut bytes = b"level=".to_vec();
    /// assert_eq!(DecimalText.encode(&-7_i64, &mut bytes), Ok(true));
    /// assert_eq!(Optional(DecimalText).encode(&None::<i64>, &mut bytes), Ok(false)); // a null
    /// assert_eq!(bytes, b"level=-7");
    /// ```
    ///
    /// # Errors
    /// The value has no such bytes. The record fails, of kind [`Encode`](crate::error::FailureKind::Encode).
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<bool, CodecError>;

    /// Reads a value; `None` is Kafka's null, which of the codecs here only [`Optional`] accepts.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let level = |bytes| -> Result<i64, CodecError> { DecimalText.decode(bytes) };
    /// assert_eq!(level(Some(b"-7")), Ok(-7));
    /// assert!(level(Some(b"low")).is_err() && level(None).is_err());
    /// ```
    ///
    /// # Errors
    /// The bytes are no such value. The record fails, of kind [`Decode`](crate::error::FailureKind::Decode).
    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, CodecError>;
}

/// Bytes as they are.
///
/// ```
/// use processor_core::prelude::*;
///
/// assert_eq!(Raw.decode(Some(b"\xff\x00")), Ok(vec![0xff, 0]));
/// assert!(Raw.decode(None).is_err(), "null is not the same as no bytes");
/// ```
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
///
/// ```
/// use processor_core::prelude::*;
///
/// assert_eq!(Optional(Utf8).decode(None), Ok(None));
/// assert_eq!(Optional(Utf8).decode(Some(b"")), Ok(Some(String::new())));
/// assert!(Utf8.decode(None).is_err());
///
/// let mut bytes = Vec::new();
/// assert_eq!(Optional(Utf8).encode(&None, &mut bytes), Ok(false)); // a null is written: it deletes where a topic is compacted
/// ```
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
mod tests;
