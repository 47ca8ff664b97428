//! Numbers and truth values as Kafka's Java serializers write them: fixed width, big-endian.

use super::{Codec, present};
use crate::error::CodecError;

/// A codec for each fixed-width number of Kafka's Java serializers.
macro_rules! java_numbers {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Codec<$type> for $name {
            fn encode(&self, value: &$type, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
                bytes.extend_from_slice(&value.to_be_bytes());
                Ok(true)
            }

            fn decode(&self, bytes: Option<&[u8]>) -> Result<$type, CodecError> {
                fixed(bytes).map(<$type>::from_be_bytes)
            }
        }
    )*};
}

java_numbers! {
    /// A 16-bit signed integer as Kafka's `ShortSerializer` writes it: 2 bytes, big-endian.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(JavaShort.decode(Some(&[0xff, 0xfe])), Ok(-2));
    /// ```
    JavaShort(i16);
    /// A 32-bit signed integer as Kafka's `IntegerSerializer` writes it: 4 bytes, big-endian.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(JavaInteger.decode(Some(&[0, 0, 1, 2])), Ok(258));
    /// ```
    JavaInteger(i32);
    /// A 64-bit signed integer as Kafka's `LongSerializer` writes it: 8 bytes, big-endian.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// let mut bytes = Vec::new();
    /// JavaLong.encode(&-2, &mut bytes)?;
    /// assert_eq!(bytes, [255, 255, 255, 255, 255, 255, 255, 254]);
    /// assert_eq!(JavaLong.decode(Some(&bytes)), Ok(-2));
    /// # Ok::<(), CodecError>(())
    /// ```
    JavaLong(i64);
    /// A float as Kafka's `FloatSerializer` writes it: 4 bytes of IEEE 754, big-endian.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(JavaFloat.decode(Some(&[0x3f, 0xc0, 0, 0])), Ok(1.5));
    /// ```
    JavaFloat(f32);
    /// A double as Kafka's `DoubleSerializer` writes it: 8 bytes of IEEE 754, big-endian.
    ///
    /// ```
    /// use processor_core::prelude::*;
    ///
    /// assert_eq!(JavaDouble.decode(Some(&[0x3f, 0xf8, 0, 0, 0, 0, 0, 0])), Ok(1.5));
    /// assert!(JavaDouble.decode(Some(b"1.5")).is_err(), "it has 3 bytes, not 8");
    /// ```
    JavaDouble(f64);
}

/// A truth value as Kafka's `BooleanSerializer` writes it: the byte 0 or 1.
///
/// ```
/// use processor_core::prelude::*;
///
/// assert_eq!(JavaBoolean.decode(Some(&[1])), Ok(true));
/// assert!(JavaBoolean.decode(Some(&[2])).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct JavaBoolean;

impl Codec<bool> for JavaBoolean {
    fn encode(&self, value: &bool, bytes: &mut Vec<u8>) -> Result<bool, CodecError> {
        bytes.push(u8::from(*value));
        Ok(true)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<bool, CodecError> {
        match fixed(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(CodecError::new(format_args!("its byte is {other}, not 0 or 1"))),
        }
    }
}

fn fixed<const N: usize>(bytes: Option<&[u8]>) -> Result<[u8; N], CodecError> {
    let bytes = present(bytes)?;
    bytes.try_into().map_err(|_| CodecError::new(format_args!("it has {} bytes, not {N}", bytes.len())))
}
