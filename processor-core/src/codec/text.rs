//! Text: UTF-8 strings, and numbers written as decimal text.

use super::{Codec, present};
use crate::error::CodecError;

/// UTF-8 text; what Kafka's `StringSerializer` writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Codec<String> for Utf8 {
    fn encode(&self, value: &String, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<String, CodecError> {
        let text = std::str::from_utf8(present(bytes)?)
            .map_err(|error| CodecError::new(format_args!("not UTF-8: {error}")))?;
        Ok(text.to_owned())
    }
}

/// A double as decimal text, such as `21.5`: the shortest text that reads back as the same number.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecimalText;

impl Codec<f64> for DecimalText {
    fn encode(&self, value: &f64, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        use std::io::Write;
        write!(bytes, "{value}").map_err(CodecError::new)?;
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<f64, CodecError> {
        let text = Utf8.decode(bytes)?;
        text.trim().parse().map_err(|_| CodecError::new(format_args!("'{text}' is not a decimal number such as 21.5")))
    }
}
