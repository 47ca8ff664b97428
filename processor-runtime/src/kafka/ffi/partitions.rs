//! Lists of partitions with offsets.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use processor_core::ids::{Partition, TopicPartition};
use rdkafka::bindings as rd;

use super::{Code, c_count, c_string, text};

/// An owned list. The functions it is given to copy what they keep.
pub(in crate::kafka) struct PartitionList(NonNull<rd::rd_kafka_topic_partition_list_t>);

// SAFETY: plain memory without ties to a client or a thread.
unsafe impl Send for PartitionList {}

impl PartitionList {
    pub(in crate::kafka) fn with_capacity(capacity: usize) -> Self {
        // SAFETY: no precondition; librdkafka aborts when memory is out.
        let list = unsafe { rd::rd_kafka_topic_partition_list_new(c_count(capacity)) };
        Self(NonNull::new(list).expect("librdkafka aborts when memory is out"))
    }

    /// A list of partitions with one offset each.
    pub(in crate::kafka) fn of<'a>(entries: impl ExactSizeIterator<Item = (&'a TopicPartition, i64)>) -> Self {
        let mut list = Self::with_capacity(entries.len());
        for (partition, offset) in entries {
            list.push(partition, offset);
        }
        list
    }

    pub(in crate::kafka) fn push(&mut self, partition: &TopicPartition, offset: i64) {
        let topic = c_string(&partition.topic);
        // SAFETY: the list is alive and the name is copied; the entry returned is valid until the next change.
        unsafe {
            let entry =
                rd::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition.partition.get());
            (*entry).offset = offset;
        }
    }

    pub(in crate::kafka) fn push_with_metadata(&mut self, partition: &TopicPartition, offset: i64, metadata: &str) {
        let topic = c_string(&partition.topic);
        // SAFETY: as in `push`. The metadata must be memory of librdkafka's allocator, because the list frees it; it is
        // filled before it is attached, and `metadata.len()` bytes were asked for (one more, so never none).
        unsafe {
            let bytes = rd::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len() + 1).cast::<u8>();
            assert!(!bytes.is_null(), "librdkafka aborts when memory is out");
            ptr::copy_nonoverlapping(metadata.as_ptr(), bytes, metadata.len());
            bytes.add(metadata.len()).write(0);
            let entry =
                rd::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition.partition.get());
            (*entry).offset = offset;
            (*entry).metadata = bytes.cast::<c_void>();
            (*entry).metadata_size = metadata.len();
        }
    }

    pub(super) fn as_ptr(&self) -> *const rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned, and dropped once.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) };
    }
}

/// One partition of a list that librdkafka answered with.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct PartitionEntry {
    pub(in crate::kafka) partition: TopicPartition,
    pub(in crate::kafka) offset: i64,
    pub(in crate::kafka) metadata: String,
    pub(in crate::kafka) code: Code,
}

/// Copies a list that someone else owns.
///
/// # Safety
/// `list` is null or valid for the call.
pub(super) unsafe fn entries(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<PartitionEntry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: valid by the contract; `elems` points to `cnt` valid entries.
    unsafe {
        let count = usize::try_from((*list).cnt).expect("a list's length is not negative");
        (0..count).map(|index| entry((*list).elems.add(index))).collect()
    }
}

/// Copies one entry.
///
/// # Safety
/// `raw` is a valid entry.
pub(super) unsafe fn entry(raw: *const rd::rd_kafka_topic_partition_t) -> PartitionEntry {
    // SAFETY: by the contract. The code is read as a number because it may be none of the `enum`'s; metadata, where
    // there is any, is `metadata_size` bytes.
    unsafe {
        let metadata = if (*raw).metadata.is_null() {
            String::new()
        } else {
            let bytes = std::slice::from_raw_parts((*raw).metadata.cast::<u8>(), (*raw).metadata_size);
            String::from_utf8_lossy(bytes).into_owned()
        };
        let topic = if (*raw).topic.is_null() { String::new() } else { text(CStr::from_ptr((*raw).topic).as_ptr()) };
        PartitionEntry {
            partition: TopicPartition::new(topic, Partition::new((*raw).partition)),
            offset: (*raw).offset,
            metadata,
            code: Code(ptr::addr_of!((*raw).err).cast::<i32>().read()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_gives_back_what_was_put_in() {
        let mut list = PartitionList::with_capacity(0);
        let (first, second) =
            (TopicPartition::new("a", Partition::new(3)), TopicPartition::new("b", Partition::new(0)));
        list.push(&first, 17);
        list.push_with_metadata(&second, 4, "{\"batch\":1}");
        // SAFETY: the list is alive.
        let back = unsafe { entries(list.as_ptr()) };
        assert_eq!(back.len(), 2);
        assert_eq!((&back[0].partition, back[0].offset, back[0].metadata.as_str()), (&first, 17, ""));
        assert_eq!((&back[1].partition, back[1].offset, back[1].metadata.as_str()), (&second, 4, "{\"batch\":1}"));
        assert_eq!(back[1].code, Code::NONE);
    }
}
