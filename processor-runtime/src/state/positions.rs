//! How positions are written down, in the column family `positions` of a task's database.
//!
//! They are written in the same `WriteBatch` as the values they speak of (EO-3), and carry the origin of those values:
//! the cluster and the incarnation of the changelog topic. Integers are big-endian, texts are UTF-8 to the end of the
//! value. The keys are plain text, so that RocksDB's own `ldb` tool shows them:
//!
//! | key            | value                                                                                           |
//! |----------------|-------------------------------------------------------------------------------------------------|
//! | `store/<name>` | 1 byte format (1), 8 bytes changelog offset (the next record to replay), rest: changelog topic id |
//! | `task`         | 1 byte format (1), 1 byte flags (bit 0: there is a stream time), 8 bytes stream time (0 if none), 8 bytes batch id (unsigned), 8 bytes written at (ms since 1970), rest: cluster id |
//!
//! A store without a key has no state: nothing of its changelog was replayed yet, and its column family is empty.
//! Bytes that do not read as above are damage, never a panic.

use processor_core::ids::{BatchId, ChangelogOffset, Timestamp};

/// The column family that holds the positions.
pub(super) const FAMILY: &str = "positions";

/// The key of [`TaskRecord`].
pub(super) const TASK_KEY: &[u8] = b"task";

/// What every key of a [`StoreRecord`] begins with.
const STORE_PREFIX: &[u8] = b"store/";

const FORMAT: u8 = 1;
const HAS_STREAM_TIME: u8 = 1;

/// How far one store's changelog is contained in its values, and which changelog that was.
///
/// ```
#[doc = include_str!("example_state.txt")]
/// # use processor_core::ids::{Partition, TaskId};
/// # use processor_runtime::state::{TaskView, application_directory};
/// # let directory = application_directory(state_dir.path(), "averages");
/// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
/// let window = view.stores()["window"].as_ref().expect("batches were applied");
/// assert_eq!((window.offset.get(), &*window.topic_id), (2, "topic-1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    /// The next changelog record to replay.
    pub offset: ChangelogOffset,
    /// The id that the cluster gave the changelog topic when it was created.
    pub topic_id: String,
}

/// What a task's last applied batch carried besides the changelog positions.
///
/// ```
#[doc = include_str!("example_state.txt")]
/// # use processor_core::ids::{Partition, TaskId};
/// # use processor_runtime::state::{TaskView, application_directory};
/// # let directory = application_directory(state_dir.path(), "averages");
/// # let view = TaskView::open(&directory, &TaskId::new("readings", Partition::new(3)))?.expect("it has state");
/// let last = view.task().expect("batches were applied");
/// assert_eq!((last.batch.get(), last.written_at.get()), (7, 1_500));
/// assert_eq!(last.stream_time.map(|time| time.get()), Some(1_000));
/// assert_eq!(last.cluster_id, "cluster-1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// The highest timestamp the task had seen; `None`: it had seen none.
    pub stream_time: Option<Timestamp>,
    /// The last batch that was applied.
    pub batch: BatchId,
    /// The wall clock when it was applied; while a task is restored, that of the state that is continued.
    pub written_at: Timestamp,
    /// The cluster that the changelogs live on.
    pub cluster_id: String,
}

/// Bytes in the positions family that nothing of ours has written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionsError {
    /// The value ends too early.
    #[error("it has {found} bytes and needs at least {needed}")]
    TooShort {
        /// How many bytes there are.
        found: usize,
        /// How many a value of this kind has at least.
        needed: usize,
    },
    /// The format is not one that this version knows.
    #[error("its format is {0}, and only format {FORMAT} is known")]
    Format(u8),
    /// Flags that this version does not know.
    #[error("it has unknown flags {0:#010b}")]
    Flags(u8),
    /// A stream time where the flags say there is none.
    #[error("it has a stream time that its flags deny")]
    StreamTime,
    /// An offset below zero.
    #[error("its changelog offset is {0}")]
    Offset(i64),
    /// An id that is not UTF-8.
    #[error("its id is not UTF-8")]
    Text,
    /// A key of neither kind.
    #[error("its key is neither `task` nor `store/<name>`")]
    Key,
}

/// What a key of the positions family speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// The task.
    Task,
    /// The store of this name.
    Store(&'a str),
}

/// Reads a key.
pub(super) fn subject(key: &[u8]) -> Result<Subject<'_>, PositionsError> {
    if key == TASK_KEY {
        return Ok(Subject::Task);
    }
    let name = key.strip_prefix(STORE_PREFIX).ok_or(PositionsError::Key)?;
    std::str::from_utf8(name).map(Subject::Store).map_err(|_| PositionsError::Key)
}

/// The key of a store's record.
pub(super) fn store_key(name: &str) -> Vec<u8> {
    [STORE_PREFIX, name.as_bytes()].concat()
}

impl StoreRecord {
    const LENGTH_MIN: usize = 1 + 8;

    /// The bytes of a record.
    pub(super) fn encode(offset: ChangelogOffset, topic_id: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH_MIN + topic_id.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&offset.get().to_be_bytes());
        bytes.extend_from_slice(topic_id.as_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PositionsError> {
        let mut fields = Fields::of(bytes, Self::LENGTH_MIN)?;
        let offset = i64::from_be_bytes(fields.take());
        if offset < 0 {
            return Err(PositionsError::Offset(offset));
        }
        Ok(Self { offset: ChangelogOffset::new(offset), topic_id: fields.text()? })
    }
}

impl TaskRecord {
    const LENGTH_MIN: usize = 1 + 1 + 8 + 8 + 8;

    /// The bytes of the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LENGTH_MIN + self.cluster_id.len());
        bytes.push(FORMAT);
        bytes.push(if self.stream_time.is_some() { HAS_STREAM_TIME } else { 0 });
        bytes.extend_from_slice(&self.stream_time.map_or(0, Timestamp::get).to_be_bytes());
        bytes.extend_from_slice(&self.batch.get().to_be_bytes());
        bytes.extend_from_slice(&self.written_at.get().to_be_bytes());
        bytes.extend_from_slice(self.cluster_id.as_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PositionsError> {
        let mut fields = Fields::of(bytes, Self::LENGTH_MIN)?;
        let [flags] = fields.take();
        let stream_time = i64::from_be_bytes(fields.take());
        let stream_time = match (flags, stream_time) {
            (HAS_STREAM_TIME, time) => Some(Timestamp::new(time)),
            (0, 0) => None,
            (0, _) => return Err(PositionsError::StreamTime),
            (unknown, _) => return Err(PositionsError::Flags(unknown)),
        };
        Ok(Self {
            stream_time,
            batch: BatchId::new(u64::from_be_bytes(fields.take())),
            written_at: Timestamp::new(i64::from_be_bytes(fields.take())),
            cluster_id: fields.text()?,
        })
    }
}

/// The bytes of a record that are not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Checks the format and the length, so that the fixed fields can be taken without a look.
    fn of(bytes: &'a [u8], needed: usize) -> Result<Self, PositionsError> {
        let (&format, rest) = bytes.split_first().ok_or(PositionsError::TooShort { found: 0, needed })?;
        if format != FORMAT {
            return Err(PositionsError::Format(format));
        }
        if bytes.len() < needed {
            return Err(PositionsError::TooShort { found: bytes.len(), needed });
        }
        Ok(Self(rest))
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("`of` has checked the length of all fixed fields");
        self.0 = rest;
        *field
    }

    fn text(self) -> Result<String, PositionsError> {
        std::str::from_utf8(self.0).map(str::to_owned).map_err(|_| PositionsError::Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task_record() -> TaskRecord {
        TaskRecord {
            stream_time: Some(Timestamp::new(0x0102)),
            batch: BatchId::new(7),
            written_at: Timestamp::new(9),
            cluster_id: "c".to_owned(),
        }
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(StoreRecord::encode(ChangelogOffset::new(258), "id"), [1, 0, 0, 0, 0, 0, 0, 1, 2, b'i', b'd']);
        assert_eq!(
            task_record().encode(),
            [1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, b'c']
        );
        assert_eq!(store_key("totals"), b"store/totals");
    }

    #[test]
    fn keys_of_neither_kind_are_refused() {
        assert_eq!(subject(b"task"), Ok(Subject::Task));
        assert_eq!(subject(b"store/a/b"), Ok(Subject::Store("a/b")));
        assert_eq!(subject(b"tasks"), Err(PositionsError::Key));
        assert_eq!(subject(b"store/\xff"), Err(PositionsError::Key));
    }

    #[test]
    fn damage_has_a_name() {
        assert_eq!(StoreRecord::decode(&[]), Err(PositionsError::TooShort { found: 0, needed: 9 }));
        assert_eq!(StoreRecord::decode(&[1, 0]), Err(PositionsError::TooShort { found: 2, needed: 9 }));
        assert_eq!(StoreRecord::decode(&[2; 9]), Err(PositionsError::Format(2)));
        assert_eq!(StoreRecord::decode(&[1, 255, 255, 255, 255, 255, 255, 255, 255]), Err(PositionsError::Offset(-1)));
        let mut bytes = task_record().encode();
        bytes[1] = 3;
        assert_eq!(TaskRecord::decode(&bytes), Err(PositionsError::Flags(3)));
        bytes[1] = 0;
        assert_eq!(TaskRecord::decode(&bytes), Err(PositionsError::StreamTime));
    }

    proptest! {
        #[test]
        fn store_records_come_back(offset in 0..=i64::MAX, topic_id in ".*") {
            let bytes = StoreRecord::encode(ChangelogOffset::new(offset), &topic_id);
            let record = StoreRecord { offset: ChangelogOffset::new(offset), topic_id };
            prop_assert_eq!(StoreRecord::decode(&bytes), Ok(record));
        }

        #[test]
        fn task_records_come_back(time: Option<i64>, batch: u64, written_at: i64, cluster_id in ".*") {
            let record = TaskRecord {
                stream_time: time.map(Timestamp::new),
                batch: BatchId::new(batch),
                written_at: Timestamp::new(written_at),
                cluster_id,
            };
            prop_assert_eq!(TaskRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn hostile_bytes_never_panic_and_read_back_as_written(bytes: Vec<u8>) {
            if let Ok(record) = StoreRecord::decode(&bytes) {
                prop_assert_eq!(StoreRecord::encode(record.offset, &record.topic_id), bytes.clone());
            }
            if let Ok(record) = TaskRecord::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
