//! Numbers as Kafka's Java serializers write them: fixed width, big-endian.

use super::{Codec, present};
use crate::error::CodecError;

/// A 64-bit signed integer as Kafka's `LongSerializer` writes it: 8 bytes, big-endian.
#[derive(Clone, Copy, Debug, Default)]
pub struct JavaLong;

impl Codec<i64> for JavaLong {
    fn encode(&self, value: &i64, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.extend_from_slice(&value.to_be_bytes());
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<i64, CodecError> {
        eight(bytes).map(i64::from_be_bytes)
    }
}

/// A double as Kafka's `DoubleSerializer` writes it: 8 bytes of IEEE 754, big-endian.
#[derive(Clone, Copy, Debug, Default)]
pub struct JavaDouble;

impl Codec<f64> for JavaDouble {
    fn encode(&self, value: &f64, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.extend_from_slice(&value.to_be_bytes());
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<f64, CodecError> {
        eight(bytes).map(f64::from_be_bytes)
    }
}

fn eight(bytes: Option<&[u8]>) -> Result<[u8; 8], CodecError> {
    let bytes = present(bytes)?;
    bytes.try_into().map_err(|_| CodecError::new(format_args!("it has {} bytes, not 8", bytes.len())))
}
