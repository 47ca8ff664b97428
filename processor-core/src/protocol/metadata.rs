//! The string that travels with every committed offset.
//!
//! `p1;b=<batch>;t=<stream time>;x=<transactional id>;<store>=<changelog end>;…`: the version, the number of the task's
//! batch, its stream time in milliseconds (absent before the first record), whose transaction it was, and for each
//! store the changelog offset behind what this and earlier transactions wrote: nothing behind it belongs to the state. No part can hold a `;`
//! or a `=`: names are letters, digits, `.`, `_` and `-`, an id may add `:`.

use std::fmt::Write;
use std::sync::Arc;

use crate::ids::{BatchId, ChangelogOffset, Timestamp};

/// Brokers take 4,096 bytes by default, Azure Event Hubs 1,024.
pub const METADATA_BYTES_MAX: usize = 1_024;

const VERSION: &str = "p1";

/// What a commit says about a task beside its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// The batch that was committed.
    pub batch: BatchId,
    /// The task's stream time behind it.
    pub stream_time: Option<Timestamp>,
    /// The producer of the transaction.
    pub transactional_id: Arc<str>,
    /// The end of each store's changelog partition, as far as it belongs to the state; absent: the commit did not know the store.
    pub changelog_ends: Vec<(Arc<str>, ChangelogOffset)>,
}

impl OffsetMetadata {
    /// Writes it into `text`, which is emptied first.
    pub fn write(&self, text: &mut String) {
        text.clear();
        let mut write = |part: std::fmt::Arguments<'_>| text.write_fmt(part).expect("writing to a string cannot fail");
        write(format_args!("{VERSION};b={};", self.batch));
        if let Some(time) = self.stream_time {
            write(format_args!("t={time};"));
        }
        write(format_args!("x={}", self.transactional_id));
        for (store, end) in &self.changelog_ends {
            write(format_args!(";{store}={end}"));
        }
        assert!(text.len() <= METADATA_BYTES_MAX, "offset metadata is bounded at start, when names are checked");
    }

    /// The most bytes that metadata of these names can take.
    pub fn bytes_max(transactional_id: &str, stores: &[Arc<str>]) -> usize {
        const NUMBER: usize = 20;
        let fixed = VERSION.len() + ";b=;t=;x=".len() + 2 * NUMBER + transactional_id.len();
        fixed + stores.iter().map(|store| store.len() + ";=".len() + NUMBER).sum::<usize>()
    }

    /// Reads it.
    ///
    /// # Errors
    /// It was not written by this program, or by a newer one.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        let refuse = |why: &str| MetadataError { text: text.chars().take(80).collect(), why: why.to_owned() };
        let mut parts = text.split(';');
        if parts.next() != Some(VERSION) {
            return Err(refuse("it does not begin with the version p1"));
        }
        let (mut batch, mut time, mut id, mut ends) = (None, None, None, Vec::new());
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| refuse("a part has no '='"))?;
            let number = || value.parse::<i64>().map_err(|_| refuse("a number is none"));
            match name {
                "b" if batch.is_none() => batch = Some(value.parse().map_err(|_| refuse("the batch is no number"))?),
                "t" if time.is_none() && ends.is_empty() && id.is_none() => time = Some(Timestamp::new(number()?)),
                "x" if id.is_none() => id = Some(Arc::from(value)),
                _ => ends.push((Arc::from(name), ChangelogOffset::new(number()?))),
            }
        }
        Ok(Self {
            batch: BatchId::new(batch.ok_or_else(|| refuse("the batch is missing"))?),
            stream_time: time,
            transactional_id: id.ok_or_else(|| refuse("the transactional id is missing"))?,
            changelog_ends: ends,
        })
    }

    /// The end of a store's changelog as this commit names it.
    pub fn changelog_end(&self, store: &str) -> Option<ChangelogOffset> {
        self.changelog_ends.iter().find(|(name, _)| &**name == store).map(|&(_, end)| end)
    }
}

/// Metadata that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata '{text}' of a committed offset cannot be read: {why}; it was committed by another program")]
pub struct MetadataError {
    text: String,
    why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            batch in any::<u64>(), time in any::<Option<i64>>(), id in "[a-zA-Z0-9._:-]{1,80}",
            ends in prop::collection::btree_map("[a-zA-Z0-9._-]{1,20}", 0..i64::MAX, 0..8),
        ) {
            let metadata = OffsetMetadata {
                batch: BatchId::new(batch), stream_time: time.map(Timestamp::new), transactional_id: id.into(),
                changelog_ends: ends.into_iter().map(|(name, end)| (name.into(), ChangelogOffset::new(end))).collect(),
            };
            let mut text = String::new();
            metadata.write(&mut text);
            prop_assert_eq!(OffsetMetadata::parse(&text).expect("it was written here"), metadata.clone());
            let names: Vec<_> = metadata.changelog_ends.iter().map(|(name, _)| name.clone()).collect();
            prop_assert!(text.len() <= OffsetMetadata::bytes_max(&metadata.transactional_id, &names));
        }

        #[test]
        fn hostile_text_is_an_error_or_metadata_but_never_a_panic(text in "(p1;)?[a-z=;0-9-]{0,60}") {
            let _ = OffsetMetadata::parse(&text);
        }
    }

    #[test]
    fn a_store_may_be_named_like_a_field() {
        let ends = ["b", "t", "x"].map(|name| (Arc::from(name), ChangelogOffset::new(7)));
        let metadata = OffsetMetadata {
            batch: BatchId::new(1),
            stream_time: None,
            transactional_id: "app:1:0".into(),
            changelog_ends: ends.to_vec(),
        };
        let mut text = String::new();
        metadata.write(&mut text);
        assert_eq!(OffsetMetadata::parse(&text).expect("it was written here"), metadata);
    }
}
