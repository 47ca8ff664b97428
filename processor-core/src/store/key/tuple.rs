//! Keys that are made of others. A tuple is its components as parts, the last one whole.

use super::{KeyPart, StoreKey, take};
use crate::error::CodecError;

macro_rules! tuple_keys {
    ($(($($part:ident $place:tt),*; $last:ident $last_place:tt);)*) => {$(
        impl<$($part: KeyPart,)* $last: StoreKey> StoreKey for ($($part,)* $last) {
            fn encode(&self, bytes: &mut Vec<u8>) {
                $(self.$place.encode_part(bytes);)*
                self.$last_place.encode(bytes);
            }

            fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
                Ok(($($part::decode_part(&mut bytes)?,)* $last::decode(bytes)?))
            }
        }

        impl<$($part: KeyPart,)* $last: KeyPart> KeyPart for ($($part,)* $last) {
            fn encode_part(&self, bytes: &mut Vec<u8>) {
                $(self.$place.encode_part(bytes);)*
                self.$last_place.encode_part(bytes);
            }

            fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
                Ok(($($part::decode_part(bytes)?,)* $last::decode_part(bytes)?))
            }
        }
    )*};
}

tuple_keys! {
    (A 0; B 1);
    (A 0, B 1; C 2);
    (A 0, B 1, C 2; D 3);
}

/// `None` is 0 and sorts first, `Some` is 1 and what is in it.
impl<K: StoreKey> StoreKey for Option<K> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode(bytes);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        if is_some(&mut bytes)? {
            return K::decode(bytes).map(Some);
        }
        if bytes.is_empty() {
            Ok(None)
        } else {
            Err(CodecError::new("the key has bytes behind None: it is of another type"))
        }
    }
}

impl<K: KeyPart> KeyPart for Option<K> {
    fn encode_part(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_part(bytes);
        }
    }

    fn decode_part(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        if is_some(bytes)? { K::decode_part(bytes).map(Some) } else { Ok(None) }
    }
}

fn is_some(bytes: &mut &[u8]) -> Result<bool, CodecError> {
    let [tag] = take(bytes)?;
    match tag {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::new(format_args!("the key has {other} where 0 or 1 stands: it is of another type"))),
    }
}
