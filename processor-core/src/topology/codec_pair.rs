//! A source's or a sink's codecs behind one type, for those that have the types of a stream but not its codecs.

use std::any::Any;
use std::sync::Arc;

use crate::codec::Codec;
use crate::error::CodecError;

/// Key and value as bytes; `None` is Kafka's null.
pub(crate) type PairBytes = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The codecs of a key and a value.
pub(crate) trait CodecPair<K, V>: Send + Sync {
    fn encode(&self, key: &K, value: &V) -> Result<PairBytes, CodecError>;
    fn decode(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(K, V), CodecError>;
}

/// A [`CodecPair`] without its types.
#[derive(Clone)]
pub(crate) struct AnyCodecPair(Arc<dyn Any + Send + Sync>);

impl AnyCodecPair {
    pub(super) fn new<K: 'static, V: 'static>(key: impl Codec<K>, value: impl Codec<V>) -> Self {
        let pair: Arc<dyn CodecPair<K, V>> = Arc::new((key, value));
        Self(Arc::new(pair))
    }

    /// The codecs, if these are their types.
    pub(crate) fn typed<K: 'static, V: 'static>(&self) -> Option<&Arc<dyn CodecPair<K, V>>> {
        self.0.downcast_ref()
    }
}

impl<K, V, KC: Codec<K>, VC: Codec<V>> CodecPair<K, V> for (KC, VC) {
    fn encode(&self, key: &K, value: &V) -> Result<PairBytes, CodecError> {
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let key_there = self.0.encode(key, &mut key_bytes)?;
        let value_there = self.1.encode(value, &mut value_bytes)?;
        Ok((key_there.then_some(key_bytes), value_there.then_some(value_bytes)))
    }

    fn decode(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(K, V), CodecError> {
        Ok((self.0.decode(key)?, self.1.decode(value)?))
    }
}
