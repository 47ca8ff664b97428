//! Which timestamp a record of a source has.

use std::sync::Arc;

use crate::ids::Timestamp;

/// Where a source's records get their timestamps from.
pub(crate) enum Timestamps<K, V> {
    /// The record's own, given by its producer or its broker.
    OfRecord,
    /// The time of the batch, supplied by the runtime.
    WallClock,
    /// What a closure finds in the key and the value.
    Extracted(Arc<Extractor<K, V>>),
}

pub(crate) type Extractor<K, V> = dyn Fn(&K, &V) -> Option<Timestamp> + Send + Sync;

impl<K, V> Clone for Timestamps<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::OfRecord => Self::OfRecord,
            Self::WallClock => Self::WallClock,
            Self::Extracted(extractor) => Self::Extracted(extractor.clone()),
        }
    }
}

/// A record has no timestamp that time could go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTimestamp {
    #[error("it has no timestamp (message format 0, or the extractor found none)")]
    Missing,
    #[error("its timestamp is {0}, before 1970")]
    Negative(Timestamp),
}

impl<K, V> Timestamps<K, V> {
    /// The timestamp of a record whose key and value are decoded.
    pub(crate) fn of(
        &self,
        of_record: Option<Timestamp>,
        now: Timestamp,
        key: &K,
        value: &V,
    ) -> Result<Timestamp, InvalidTimestamp> {
        checked(match self {
            Self::OfRecord => of_record,
            Self::WallClock => Some(now),
            Self::Extracted(extractor) => extractor(key, value),
        })
    }
}

fn checked(timestamp: Option<Timestamp>) -> Result<Timestamp, InvalidTimestamp> {
    match timestamp {
        None => Err(InvalidTimestamp::Missing),
        Some(timestamp) if timestamp.get() < 0 => Err(InvalidTimestamp::Negative(timestamp)),
        Some(timestamp) => Ok(timestamp),
    }
}
