//! Any serde type in bincode 2, `config::standard()`: compact, for data that only Rust programs read.

use ::bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, present};
use crate::error::CodecError;

/// The largest value that is read or written, in bytes: a bound on what hostile bytes can make a decoder allocate.
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// bincode 2 `config::standard()` (little-endian, variable-length integers) of any type with serde derives.
///
/// The format is not self-describing: adding a field changes it. Values in stores carry a format version for that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

const CONFIG: Configuration<LittleEndian, Varint, Limit<VALUE_BYTES_MAX>> = standard().with_limit::<VALUE_BYTES_MAX>();

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        ::bincode::serde::encode_into_std_write(value, bytes, CONFIG).map_err(CodecError::new)?;
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, CodecError> {
        let bytes = present(bytes)?;
        let (value, read) = ::bincode::serde::decode_from_slice(bytes, CONFIG).map_err(CodecError::new)?;
        if read == bytes.len() {
            Ok(value)
        } else {
            Err(CodecError::new(format_args!("{} bytes are left behind the value", bytes.len() - read)))
        }
    }
}
