//! Keys of any length: texts and bytes; and byte arrays, which have one.
//!
//! Whole, a text is its bytes. As a part it ends with two zero bytes, and a zero byte inside is written 0, 255: the end
//! sorts before everything that could follow instead.

use super::{KeyPart, StoreKey, take, whole};
use crate::error::CodecError;

const ESCAPE: u8 = 0;
const END: u8 = 0;
const ESCAPED_ZERO: u8 = 255;

impl StoreKey for Vec<u8> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl KeyPart for Vec<u8> {
    fn encode_part(&self, bytes: &mut Vec<u8>) {
        encode_delimited(self, bytes);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        decode_delimited(bytes)
    }
}

impl StoreKey for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(std::str::from_utf8(bytes).map_err(not_utf8)?.to_owned())
    }
}

impl KeyPart for String {
    fn encode_part(&self, bytes: &mut Vec<u8>) {
        encode_delimited(self.as_bytes(), bytes);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        Self::from_utf8(decode_delimited(bytes)?).map_err(not_utf8)
    }
}

impl<const N: usize> StoreKey for [u8; N] {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.encode_part(bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        whole(bytes)
    }
}

impl<const N: usize> KeyPart for [u8; N] {
    fn encode_part(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        take(bytes)
    }
}

fn not_utf8(error: impl std::fmt::Display) -> CodecError {
    CodecError::new(format_args!("the key is not UTF-8 ({error}): it is of another type"))
}

fn encode_delimited(part: &[u8], bytes: &mut Vec<u8>) {
    for &byte in part {
        bytes.push(byte);
        if byte == ESCAPE {
            bytes.push(ESCAPED_ZERO);
        }
    }
    bytes.extend_from_slice(&[ESCAPE, END]);
}

fn decode_delimited(bytes: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut part = Vec::new();
    loop {
        match take(bytes)? {
            [ESCAPE] => match take(bytes)? {
                [END] => return Ok(part),
                [ESCAPED_ZERO] => part.push(0),
                [other] => {
                    return Err(CodecError::new(format_args!(
                        "the key has {other} behind a zero byte, where 0 or 255 stands: it is of another type"
                    )));
                }
            },
            [byte] => part.push(byte),
        }
    }
}
