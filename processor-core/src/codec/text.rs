//! Text: UTF-8 strings, and numbers and ids written as text.

use uuid::Uuid;

use super::{Codec, present};
use crate::error::CodecError;

/// How much of a text that is none of what was expected is quoted in the error.
const QUOTED_CHARS_MAX: usize = 40;

/// UTF-8 text; what Kafka's `StringSerializer` writes.
///
/// ```
/// use processor_core::prelude::*;
///
/// assert_eq!(Utf8.decode(Some("tea".as_bytes())), Ok("tea".to_owned()));
/// assert!(Utf8.decode(Some(b"\xff")).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Codec<String> for Utf8 {
    fn encode(&self, value: &String, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<String, CodecError> {
        text(bytes).map(str::to_owned)
    }
}

/// A number as decimal text, such as `21.5` or `42`: the shortest text that reads back as the same number. Spaces and
/// line breaks around it are overlooked.
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut bytes = Vec::new();
/// DecimalText.encode(&21.5, &mut bytes)?;
/// assert_eq!(bytes, b"21.5");
/// let count: u64 = DecimalText.decode(Some(b"42\n"))?;
/// assert_eq!(count, 42);
/// let wrong: Result<u64, CodecError> = DecimalText.decode(Some(b"-1"));
/// assert!(wrong.is_err(), "not negative");
/// # Ok::<(), CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DecimalText;

macro_rules! decimal_text {
    ($($type:ty, $expected:literal;)*) => {$(
        impl Codec<$type> for DecimalText {
            fn encode(&self, value: &$type, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
                use std::io::Write;
                write!(bytes, "{value}").map_err(CodecError::new)?;
                Ok(true)
            }

            fn decode(&self, bytes: Option<&[u8]>) -> Result<$type, CodecError> {
                let text = text(bytes)?;
                text.trim().parse().map_err(|_| unexpected(text, $expected))
            }
        }
    )*};
}

decimal_text! {
    f64, "a decimal number such as 21.5";
    i32, "a whole number that 32 bits hold, such as -42";
    u32, "a whole number that 32 bits hold, such as 42, and not negative";
    i64, "a whole number that 64 bits hold, such as -42";
    u64, "a whole number that 64 bits hold, such as 42, and not negative";
}

/// A UUID as Kafka's `UUIDSerializer` writes it: its text of 36 characters, in UTF-8.
///
/// Upper and lower case are read, lower case is written.
///
/// ```
/// use processor_core::prelude::*;
///
/// let text = b"67e55044-10b1-426f-9247-bb680e5fe0c8";
/// let id = JavaUuid.decode(Some(text))?;
/// assert_eq!(id.as_bytes()[0], 0x67);
/// assert!(JavaUuid.decode(Some(b"67e5504410b1426f9247bb680e5fe0c8")).is_err(), "the hyphens belong to it");
/// # Ok::<(), CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct JavaUuid;

impl Codec<Uuid> for JavaUuid {
    fn encode(&self, value: &Uuid, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        bytes.extend_from_slice(value.hyphenated().encode_lower(&mut text).as_bytes());
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<Uuid, CodecError> {
        let text = text(bytes)?;
        // The other forms that a UUID can be written in have other lengths.
        let hyphenated = Some(text).filter(|text| text.len() == uuid::fmt::Hyphenated::LENGTH);
        let parsed = hyphenated.and_then(|text| Uuid::try_parse(text).ok());
        parsed.ok_or_else(|| unexpected(text, "a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8"))
    }
}

fn text(bytes: Option<&[u8]>) -> Result<&str, CodecError> {
    std::str::from_utf8(present(bytes)?).map_err(|error| CodecError::new(format_args!("not UTF-8: {error}")))
}

fn unexpected(text: &str, expected: &str) -> CodecError {
    let quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    let dots = if quoted.len() < text.len() { "…" } else { "" };
    CodecError::new(format_args!("'{quoted}{dots}' is not {expected}"))
}
