//! A partition as it lies in a broker's files: who wrote what, and how each transaction ended.
//!
//! No client says which producer wrote a record, nor where the markers of transactions stand; the files do. They are read
//! while the broker runs, when nobody writes to the partition any more. Format: Kafka's documentation, "Record Batch"
//! (magic 2) and "Control Batches"; the records of `__consumer_offsets`: `OffsetCommitKey.json` and
//! `OffsetCommitValue.json` in Kafka's source, of which every version begins alike; those of `__transaction_state`:
//! `TransactionLogValue.json`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// From the start of a batch to its first record.
const HEADER_BYTES: usize = 61;
/// Offset and length, which the length does not count.
const PREFIX_BYTES: usize = 12;
const MAGIC: u8 = 2;
const COMPRESSION: i16 = 0b111;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// `PREPARE_COMMIT` of `TransactionState`.
const PREPARE_COMMIT: u8 = 2;
/// The highest version of a key in `__consumer_offsets` that names a committed offset.
const OFFSET_KEY_MAX: i16 = 1;

/// One batch of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBatch {
    /// The offset of its first record.
    pub offset: i64,
    /// How many records it has.
    pub records: u64,
    /// Its producer's id and epoch; -1 if it has none.
    pub producer: (i64, i16),
    /// The time of its last record.
    pub at_ms: i64,
    /// What it is.
    pub kind: RawKind,
}

/// What a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// Records of no transaction.
    Plain,
    /// Records of a transaction.
    InTransaction,
    /// The end of its producer's transaction.
    Marker {
        /// Whether that was committed.
        committed: bool,
    },
}

/// An offset as it stands in `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOffset {
    /// The offset of the record that says so.
    pub at: i64,
    /// Whose it is.
    pub producer: (i64, i16),
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that was committed.
    pub offset: i64,
}

/// A commit that a coordinator has decided, as it stands in `__transaction_state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawDecision {
    /// Whose transaction.
    pub producer: (i64, i16),
    /// When.
    pub at_ms: i64,
    /// Topic and partition of everything that takes part.
    pub partitions: BTreeSet<(String, i32)>,
}

/// Which records of a partition are read, besides what batches say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawRecords {
    /// None.
    Unread,
    /// The offsets of `__consumer_offsets`.
    Offsets,
    /// The decided commits of `__transaction_state`.
    Decisions,
}

/// A partition's batches, from the first one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLog {
    /// In the order of their offsets.
    pub batches: Vec<RawBatch>,
    /// The offsets that they commit, if this is a partition of `__consumer_offsets`.
    pub offsets: Vec<RawOffset>,
    /// The commits that were decided, if this is a partition of `__transaction_state`.
    pub decisions: Vec<RawDecision>,
}

impl RawLog {
    /// Reads the directory of a partition.
    ///
    /// # Errors
    /// It cannot be read, or is not in this format.
    pub(super) fn read(directory: &Path, records: RawRecords) -> Result<Self> {
        let mut log = Self::default();
        let files = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        let mut segments: Vec<_> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
        segments.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        for segment in segments {
            let bytes = fs::read(&segment).with_context(|| format!("cannot read {}", segment.display()))?;
            log.take(&bytes, records).with_context(|| format!("in {}", segment.display()))?;
        }
        Ok(log)
    }

    /// The offset behind its last record.
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.offset + batch.records as i64)
    }

    /// Whether a transaction in it has not come to its end.
    pub fn has_an_open_transaction(&self) -> bool {
        let mut open = BTreeSet::new();
        for RawBatch { producer, kind, .. } in &self.batches {
            match kind {
                RawKind::Plain => {}
                RawKind::InTransaction => drop(open.insert(producer.0)),
                RawKind::Marker { .. } => drop(open.remove(&producer.0)),
            }
        }
        !open.is_empty()
    }

    fn take(&mut self, mut segment: &[u8], read: RawRecords) -> Result<()> {
        // What is being written may end anywhere, in the files of a broker that was killed too.
        while segment.len() >= HEADER_BYTES {
            let length = PREFIX_BYTES + usize::try_from(i32::from_be_bytes(field(segment, 8))).context("a length")?;
            let Some((bytes, rest)) = segment.split_at_checked(length.max(HEADER_BYTES)) else { break };
            ensure!(bytes[16] == MAGIC, "a batch of format {}, not {MAGIC}", bytes[16]);
            let offset = i64::from_be_bytes(field(bytes, 0));
            let attributes = i16::from_be_bytes(field(bytes, 21));
            // Compaction may take records out of a batch and leaves its range of offsets.
            let records = u64::from(u32::from_be_bytes(field(bytes, 23))) + 1;
            let kind = if attributes & CONTROL != 0 {
                // key: version, type; 0 aborts, 1 commits.
                let (key, _) = record(&bytes[HEADER_BYTES..])?.0;
                let kind = key.and_then(|key| key.get(2..4)).context("a control record without a type")?;
                RawKind::Marker { committed: kind == [0, 1] }
            } else if attributes & TRANSACTIONAL != 0 {
                RawKind::InTransaction
            } else {
                RawKind::Plain
            };
            let producer = (i64::from_be_bytes(field(bytes, 43)), i16::from_be_bytes(field(bytes, 51)));
            let at_ms = i64::from_be_bytes(field(bytes, 35));
            if read != RawRecords::Unread && attributes & CONTROL == 0 {
                ensure!(attributes & COMPRESSION == 0, "the records are compressed");
                match read {
                    RawRecords::Offsets => self.take_offsets(offset, producer, &bytes[HEADER_BYTES..])?,
                    RawRecords::Decisions => self.take_decisions(at_ms, &bytes[HEADER_BYTES..])?,
                    RawRecords::Unread => {}
                }
            }
            self.batches.push(RawBatch { offset, records, producer, at_ms, kind });
            segment = rest;
        }
        Ok(())
    }

    fn take_offsets(&mut self, base: i64, producer: (i64, i16), mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let ((key, value), delta, rest) = record(records)?;
            records = rest;
            let (Some(mut key), Some(value)) = (key, value) else { continue };
            if i16::from_be_bytes(take(&mut key)?) > OFFSET_KEY_MAX {
                continue; // about the group's members
            }
            let (group, topic) = (text(&mut key)?, text(&mut key)?);
            let partition = i32::from_be_bytes(take(&mut key)?);
            let mut value = value.get(2..).context("a value without a version")?;
            let offset = i64::from_be_bytes(take(&mut value)?);
            self.offsets.push(RawOffset { at: base + delta, producer, group, topic, partition, offset });
        }
        Ok(())
    }
}

impl RawLog {
    fn take_decisions(&mut self, at_ms: i64, mut records: &[u8]) -> Result<()> {
        while !records.is_empty() {
            let ((_, value), _, rest) = record(records)?;
            records = rest;
            let Some(mut value) = value else { continue };
            let version = i16::from_be_bytes(take(&mut value)?);
            let producer = (i64::from_be_bytes(take(&mut value)?), i16::from_be_bytes(take(&mut value)?));
            let _timeout: [u8; 4] = take(&mut value)?;
            let [status] = take(&mut value)?;
            if status == PREPARE_COMMIT {
                let partitions = partitions_of_a_decision(version, &mut value)?;
                self.decisions.push(RawDecision { producer, at_ms, partitions });
            }
        }
        Ok(())
    }
}

/// An array of topics with their partitions; from version 1 on in the compact form.
fn partitions_of_a_decision(version: i16, value: &mut &[u8]) -> Result<BTreeSet<(String, i32)>> {
    let compact = version >= 1;
    let length = |value: &mut &[u8]| -> Result<usize> {
        if compact {
            Ok(usize::try_from(unsigned_varint(value)?)?.saturating_sub(1))
        } else {
            Ok(usize::try_from(i32::from_be_bytes(take(value)?)).unwrap_or(0))
        }
    };
    let mut all = BTreeSet::new();
    for _ in 0..length(value)? {
        let topic = if compact {
            let bytes = usize::try_from(unsigned_varint(value)?)?.saturating_sub(1);
            let (topic, rest) = value.split_at_checked(bytes).context("a topic beyond its record")?;
            *value = rest;
            String::from_utf8(topic.to_vec()).context("a name is not UTF-8")?
        } else {
            text(value)?
        };
        for _ in 0..length(value)? {
            all.insert((topic.clone(), i32::from_be_bytes(take(value)?)));
        }
        if compact {
            ensure!(unsigned_varint(value)? == 0, "a tagged field of a newer Kafka");
        }
    }
    Ok(all)
}

fn unsigned_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0_u64;
    for at in 0..10 {
        let [byte] = take(bytes)?;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number without an end")
}

/// A record's key and value, its place in the batch, and what is behind it.
type Record<'a> = ((Option<&'a [u8]>, Option<&'a [u8]>), i64, &'a [u8]);

fn record(bytes: &[u8]) -> Result<Record<'_>> {
    let (length, bytes) = varint(bytes)?;
    let (mut record, rest) = bytes.split_at_checked(usize::try_from(length)?).context("a record beyond its batch")?;
    let [_attributes] = take(&mut record)?;
    let (_timestamp, record) = varint(record)?;
    let (delta, record) = varint(record)?;
    let (key, record) = bytes_or_null(record)?;
    let (value, _headers) = bytes_or_null(record)?;
    Ok(((key, value), delta, rest))
}

fn bytes_or_null(bytes: &[u8]) -> Result<(Option<&[u8]>, &[u8])> {
    let (length, bytes) = varint(bytes)?;
    if length < 0 {
        return Ok((None, bytes));
    }
    let (value, rest) = bytes.split_at_checked(usize::try_from(length)?).context("a field beyond its record")?;
    Ok((Some(value), rest))
}

/// Protocol Buffers' variable length, in zigzag.
fn varint(bytes: &[u8]) -> Result<(i64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[at + 1..]));
        }
    }
    bail!("a number without an end")
}

fn text(bytes: &mut &[u8]) -> Result<String> {
    let length = usize::from(u16::from_be_bytes(take(bytes)?));
    let (text, rest) = bytes.split_at_checked(length).context("a text beyond its record")?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).context("a name is not UTF-8")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk().context("a record is too short")?;
    *bytes = rest;
    Ok(*taken)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has this length")
}
