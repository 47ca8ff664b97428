//! Any serde type in bincode 2, `config::standard()`: compact, for data that only Rust programs read.

use ::bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bounded::BoundedSeed;
use super::{Codec, present};
use crate::error::CodecError;

/// The largest value that is read or written, in bytes of memory as bincode counts them: eight for each 64-bit number,
/// however short it is written.
const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// bincode 2 `config::standard()` (little-endian, variable-length integers) of any type with serde derives.
///
/// The format is not self-describing: adding a field changes it, and types that look ahead (`#[serde(untagged)]`,
/// `#[serde(flatten)]`) cannot be read. Use [`Json`](super::Json) for those.
///
/// ```
/// use processor_core::prelude::*;
///
/// let mut bytes = Vec::new();
/// Bincode.encode(&("sensor".to_owned(), 300_u32), &mut bytes)?;
/// assert_eq!(bytes, b"\x06sensor\xfb\x2c\x01");
/// let value: (String, u32) = Bincode.decode(Some(&bytes))?;
/// assert_eq!(value, ("sensor".to_owned(), 300));
/// # Ok::<(), CodecError>(())
/// ```
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
        // bincode reserves what a length asks for before it looks whether so much is there; the seed does not let it.
        let seed = BoundedSeed::<T>::new(bytes.len());
        let (value, read) = ::bincode::serde::seed_decode_from_slice(seed, bytes, CONFIG).map_err(CodecError::new)?;
        if read == bytes.len() {
            Ok(value)
        } else {
            Err(CodecError::new(format_args!("{} bytes are left behind the value", bytes.len() - read)))
        }
    }
}
