//! Any serde type as JSON: what every other program reads, at some cost in space and time.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, present};
use crate::error::CodecError;

/// JSON text of any type with serde derives, without spaces and line breaks.
///
/// Nesting deeper than 128 levels is refused. JSON has no number for NaN and the infinities: they are written as `null`
/// and cannot be read back. As a key, use types whose order of fields is fixed (no `HashMap`): keys are compared as
/// bytes.
///
/// ```
/// use processor_core::prelude::*;
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Order { customer: String, amount: f64 }
///
/// let order = Order { customer: "ann".to_owned(), amount: 9.5 };
/// let mut bytes = Vec::new();
/// Json.encode(&order, &mut bytes)?;
/// assert_eq!(bytes, br#"{"customer":"ann","amount":9.5}"#);
/// assert_eq!(Json.decode(Some(&bytes)), Ok(order));
/// # Ok::<(), CodecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        let start = bytes.len();
        serde_json::to_writer(&mut *bytes, value).map_err(|error| {
            bytes.truncate(start);
            CodecError::new(format_args!("it cannot be written as JSON: {error}"))
        })?;
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, CodecError> {
        serde_json::from_slice(present(bytes)?)
            .map_err(|error| CodecError::new(format_args!("it is not the JSON that was expected: {error}")))
    }
}
