//! Keys as JSON, as people see them and ask for them: numbers and texts as such, bytes as text with escapes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CodecError;

/// What serde makes of it.
pub(super) fn written(key: &impl Serialize) -> Result<Value, CodecError> {
    serde_json::to_value(key).map_err(|error| CodecError::new(format_args!("it cannot be shown as JSON: {error}")))
}

/// What serde reads from it.
pub(super) fn read<T: DeserializeOwned>(json: &Value) -> Result<T, CodecError> {
    T::deserialize(json).map_err(CodecError::new)
}

/// Bytes as text: printable ASCII as it is, the rest as `\xNN` and the escapes of Rust.
pub(super) fn escaped(bytes: &[u8]) -> Value {
    Value::from(bytes.escape_ascii().to_string())
}

/// Reads what [`escaped`] has written; other text stands for its UTF-8.
pub(super) fn unescaped(json: &Value) -> Result<Vec<u8>, CodecError> {
    let text = json
        .as_str()
        .ok_or_else(|| CodecError::new(format_args!("{json} is no text, and bytes are written as text")))?;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        let unescaped = if byte == b'\\' { escape(&mut rest) } else { Some(byte) };
        bytes.push(unescaped.ok_or_else(|| {
            CodecError::new(format_args!(
                "'{text}' has a \\ that begins no escape: write \\\\ for itself, \\x07 for a byte"
            ))
        })?);
    }
    Ok(bytes)
}

/// What stands behind a backslash.
fn escape(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    match rest.next()? {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        plain @ (b'\\' | b'\'' | b'"') => Some(plain),
        b'x' => {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high << 4 | low).ok()
        }
        _ => None,
    }
}
