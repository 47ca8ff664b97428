//! The string that travels with every committed offset.
//!
//! `p1;b=<batch>;t=<stream time>;x=<transactional id>;<store>=<changelog end>;…`: the version, the number of the task's
//! batch, its stream time in milliseconds (absent before the first record), whose transaction it was, and for each
//! store the changelog offset behind what this and earlier transactions wrote: nothing behind it belongs to the state. No part can hold a `;`
//! or a `=`: names are letters, digits, `.`, `_` and `-`, an id may add `:`.

use std::fmt::Write;
use std::sync::Arc;

use crate::ids::{BatchId, ChangelogOffset, Timestamp};

/// How many bytes the metadata of an offset may have. Brokers take 4,096 by default, Azure Event
/// Hubs 1,024.
///
/// ```
/// use processor_core::protocol::metadata::{METADATA_BYTES_MAX, OffsetMetadata};
///
/// let fits = |stores: usize| {
///     let names: Vec<_> = (0..stores).map(|number| format!("store-{number:02}").into()).collect();
///     OffsetMetadata::bytes_max("app:worker-1:0", &names) <= METADATA_BYTES_MAX
/// };
/// assert!(fits(10) && !fits(100)); // stores of one sub-topology
/// ```
pub const METADATA_BYTES_MAX: usize = 1_024;

const VERSION: &str = "p1";

/// What a commit says about a task beside its offsets.
///
/// ```
/// use processor_core::ids::{BatchId, ChangelogOffset, Timestamp};
/// use processor_core::protocol::metadata::OffsetMetadata;
///
/// let metadata = OffsetMetadata {
///     batch: BatchId::new(7),
///     stream_time: Some(Timestamp::new(1_000)),
///     transactional_id: "app:one:0".into(),
///     changelog_ends: vec![("totals".into(), ChangelogOffset::new(42))],
/// };
/// let mut text = String::new();
/// metadata.write(&mut text);
/// assert_eq!(text, "p1;b=7;t=1000;x=app:one:0;totals=42");
/// assert_eq!(OffsetMetadata::parse(&text)?, metadata);
/// # Ok::<(), processor_core::protocol::metadata::MetadataError>(())
/// ```
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
    ///
    /// ```
    /// # use processor_core::ids::BatchId;
    /// # use processor_core::protocol::metadata::OffsetMetadata;
    /// let metadata = OffsetMetadata {
    ///     batch: BatchId::new(1),
    ///     stream_time: None, // no record was seen yet
    ///     transactional_id: "app:one:0".into(),
    ///     changelog_ends: Vec::new(),
    /// };
    /// let mut text = "of another task".to_owned();
    /// metadata.write(&mut text);
    /// assert_eq!(text, "p1;b=1;x=app:one:0");
    /// ```
    ///
    /// # Panics
    /// If it is longer than [`METADATA_BYTES_MAX`]; [`bytes_max`](Self::bytes_max) says beforehand
    /// whether it can be.
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
    ///
    /// ```
    /// # use processor_core::ids::{BatchId, ChangelogOffset, Timestamp};
    /// # use processor_core::protocol::metadata::OffsetMetadata;
    /// # let metadata = OffsetMetadata {
    /// #     batch: BatchId::new(u64::MAX),
    /// #     stream_time: Some(Timestamp::new(i64::MAX)),
    /// #     transactional_id: "app:one:0".into(),
    /// #     changelog_ends: vec![("totals".into(), ChangelogOffset::new(i64::MAX))],
    /// # };
    /// # let mut text = String::new();
    /// metadata.write(&mut text); // the largest numbers that there are
    /// assert!(text.len() <= OffsetMetadata::bytes_max("app:one:0", &["totals".into()]));
    /// ```
    pub fn bytes_max(transactional_id: &str, stores: &[Arc<str>]) -> usize {
        const NUMBER: usize = 20;
        let fixed = VERSION.len() + ";b=;t=;x=".len() + 2 * NUMBER + transactional_id.len();
        fixed + stores.iter().map(|store| store.len() + ";=".len() + NUMBER).sum::<usize>()
    }

    /// Reads it.
    ///
    /// ```
    /// # use processor_core::protocol::metadata::OffsetMetadata;
    /// let metadata = OffsetMetadata::parse("p1;b=7;x=app:one:0;totals=42")?;
    /// assert_eq!((metadata.batch.get(), metadata.stream_time), (7, None));
    /// assert!(OffsetMetadata::parse("").is_err(), "offsets that a person has set carry nothing");
    /// # Ok::<(), processor_core::protocol::metadata::MetadataError>(())
    /// ```
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

    /// The end of a store's changelog as this commit names it; `None`: the commit did not know the
    /// store.
    ///
    /// ```
    /// # use processor_core::ids::ChangelogOffset;
    /// # use processor_core::protocol::metadata::OffsetMetadata;
    /// let metadata = OffsetMetadata::parse("p1;b=7;x=app:one:0;totals=42")?;
    /// assert_eq!(metadata.changelog_end("totals"), Some(ChangelogOffset::new(42)));
    /// assert_eq!(metadata.changelog_end("added-later"), None);
    /// # Ok::<(), processor_core::protocol::metadata::MetadataError>(())
    /// ```
    pub fn changelog_end(&self, store: &str) -> Option<ChangelogOffset> {
        self.changelog_ends.iter().find(|(name, _)| &**name == store).map(|&(_, end)| end)
    }
}

/// Metadata that cannot be read.
///
/// ```
/// use processor_core::protocol::metadata::OffsetMetadata;
///
/// let error = OffsetMetadata::parse("checkpoint 7").unwrap_err();
/// let said = "the metadata 'checkpoint 7' of a committed offset cannot be read";
/// assert!(error.to_string().starts_with(said), "{error}");
/// ```
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
