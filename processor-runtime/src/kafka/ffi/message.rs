//! Messages: owned ones that were polled, and the delivery reports that callbacks see.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;

use super::{Client, Code, c_millis, raw, text};

/// How many messages are taken from librdkafka's queue at once.
const TAKE_MAX: usize = 256;

/// A polled message: a record, or something librdkafka has to say about a partition. It keeps its bytes, and its client,
/// until it is dropped.
pub(in crate::kafka) struct Message {
    raw: NonNull<rd::rd_kafka_message_t>,
    _client: Arc<Client>,
}

// SAFETY: the message is owned by this value alone; librdkafka counts its references to the fetch buffer and to the
// partition atomically, and lets a message be destroyed on any thread.
unsafe impl Send for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .field("code", &self.code())
            .finish_non_exhaustive()
    }
}

impl Message {
    /// `NONE` for a record.
    pub(in crate::kafka) fn code(&self) -> Code {
        // SAFETY: owned and alive; the field is an `int` in C, read as such because the number may be none of the `enum`'s.
        // For that reason no reference to the whole structure is ever made.
        Code(unsafe { ptr::addr_of!((*self.raw.as_ptr()).err).cast::<i32>().read() })
    }

    /// What librdkafka says, for a message that is no record.
    pub(in crate::kafka) fn error_text(&self) -> String {
        // SAFETY: owned and alive; the string, if any, lives as long as the message.
        unsafe { text(rd::rd_kafka_message_errstr(self.raw.as_ptr())) }
    }

    /// An identity of the topic that holds while the partition is assigned; 0 where the message is about no topic.
    pub(in crate::kafka) fn topic_key(&self) -> usize {
        // SAFETY: owned and alive.
        (unsafe { (*self.raw.as_ptr()).rkt }) as usize
    }

    /// The topic's name.
    pub(in crate::kafka) fn topic(&self) -> Option<String> {
        // SAFETY: owned and alive; the topic handle of a living message is alive, and so is its name.
        let topic = unsafe { (*self.raw.as_ptr()).rkt };
        // SAFETY: as above.
        (!topic.is_null()).then(|| unsafe { text(rd::rd_kafka_topic_name(topic)) })
    }

    pub(in crate::kafka) fn partition(&self) -> i32 {
        // SAFETY: owned and alive.
        unsafe { (*self.raw.as_ptr()).partition }
    }

    pub(in crate::kafka) fn offset(&self) -> i64 {
        // SAFETY: owned and alive.
        unsafe { (*self.raw.as_ptr()).offset }
    }

    pub(in crate::kafka) fn key(&self) -> Option<&[u8]> {
        let message = self.raw.as_ptr();
        // SAFETY: owned and alive; a key that is not null has `key_len` bytes and lives as long as the message.
        unsafe { bytes((*message).key, (*message).key_len) }
    }

    pub(in crate::kafka) fn value(&self) -> Option<&[u8]> {
        let message = self.raw.as_ptr();
        // SAFETY: owned and alive; a payload that is not null has `len` bytes and lives as long as the message.
        unsafe { bytes((*message).payload, (*message).len) }
    }

    /// Milliseconds since 1970, where the record has a timestamp.
    pub(in crate::kafka) fn timestamp(&self) -> Option<i64> {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: owned and alive; `kind` is one of three values that librdkafka itself chooses.
        let millis = unsafe { rd::rd_kafka_message_timestamp(self.raw.as_ptr(), &raw mut kind) };
        (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(millis)
    }

    /// Visits all headers in their order: name, and value, which may be null. A name that is not UTF-8 is shown with
    /// replacement characters. Costs next to nothing where a record has no headers.
    pub(in crate::kafka) fn visit_headers(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: as in `header`.
        if Code(unsafe { raw::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers) }) != Code::NONE {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the headers live as long as the message; past the last one nothing is written and an error returned.
            let found =
                unsafe { raw::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
            if Code(found) != Code::NONE {
                return;
            }
            // SAFETY: what was found is a string that ends in zero, and `size` bytes or null, alive as long as the message.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value.cast_mut(), size)) };
            visit(&name.to_string_lossy(), value);
        }
    }

    /// The value of the last header of this name. Costs next to nothing where a record has no headers.
    pub(in crate::kafka) fn header(&self, name: &CStr) -> Option<&[u8]> {
        let mut headers = ptr::null_mut();
        let (mut value, mut size) = (ptr::null(), 0);
        // SAFETY: owned and alive; headers and their values live as long as the message. Headers are parsed on the first
        // call, which only the owner can make.
        unsafe {
            if Code(raw::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers)) != Code::NONE {
                return None;
            }
            let found = Code(raw::rd_kafka_header_get_last(headers, name.as_ptr(), &raw mut value, &raw mut size));
            if found == Code::NONE { bytes(value.cast_mut(), size) } else { None }
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: owned, dropped once, and before the client that it holds.
        unsafe { rd::rd_kafka_message_destroy(self.raw.as_ptr()) };
    }
}

/// The bytes at a pointer; null is `None`, so that empty and absent differ.
///
/// # Safety
/// A pointer that is not null points to `len` bytes that live and stay as they are for `'a`.
unsafe fn bytes<'a>(pointer: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), len) })
}

/// The queue of a consumer: records, and everything else that its poll serves.
pub(in crate::kafka) struct MessageQueue {
    raw: NonNull<rd::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues do their own locking.
unsafe impl Send for MessageQueue {}

impl fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MessageQueue").field(&self.client).finish()
    }
}

impl MessageQueue {
    pub(in crate::kafka) fn of(client: &Arc<Client>) -> Self {
        // SAFETY: the handle is alive; a consumer with a group id always has the queue, and we own this reference to it.
        let raw = unsafe { rd::rd_kafka_queue_get_consumer(client.raw()) };
        Self { raw: NonNull::new(raw).expect("a consumer with a group.id has a queue"), client: client.clone() }
    }

    /// Waits for one message, serving rebalances on the way; a rebalance ends the wait.
    pub(in crate::kafka) fn wait(&self, wait: Duration) -> Option<Message> {
        // SAFETY: the handle is alive; the message, if any, is ours.
        let raw = unsafe { rd::rd_kafka_consumer_poll(self.client.raw(), c_millis(wait)) };
        NonNull::new(raw).map(|raw| Message { raw, _client: self.client.clone() })
    }

    /// Takes at most `count_max` messages that are there, without waiting, and serves rebalances that it meets. Returns
    /// how many it took.
    ///
    /// A rebalance callback does not end the collecting inside the C call (`rdkafka_queue.c:803-808`), so records that
    /// were taken before a revoke can be among them: the caller drops them.
    pub(in crate::kafka) fn take(&self, count_max: usize, mut each: impl FnMut(Message)) -> usize {
        let mut taken: [*mut rd::rd_kafka_message_t; TAKE_MAX] = [ptr::null_mut(); TAKE_MAX];
        let wanted = count_max.min(TAKE_MAX);
        // SAFETY: queue and array are alive, and the array has room for `wanted` pointers.
        let count = unsafe { rd::rd_kafka_consume_batch_queue(self.raw.as_ptr(), 0, taken.as_mut_ptr(), wanted) };
        let count = usize::try_from(count).unwrap_or(0);
        for raw in &taken[..count] {
            let raw = NonNull::new(*raw).expect("librdkafka counts only messages it gave");
            each(Message { raw, _client: self.client.clone() });
        }
        count
    }
}

impl Drop for MessageQueue {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once, before the client.
        unsafe { rd::rd_kafka_queue_destroy(self.raw.as_ptr()) };
    }
}

/// The parts of a delivery report that matter.
pub(super) struct Report {
    pub(super) code: Code,
    pub(super) topic: *mut rd::rd_kafka_topic_t,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// What the record was sent with.
    pub(super) opaque: usize,
}

impl Report {
    /// Reads a report inside its callback.
    ///
    /// # Safety
    /// `message` is valid.
    pub(super) unsafe fn read(message: *const rd::rd_kafka_message_t) -> Self {
        // SAFETY: by the contract; the code is read as a number.
        unsafe {
            Self {
                code: Code(ptr::addr_of!((*message).err).cast::<i32>().read()),
                topic: (*message).rkt,
                partition: (*message).partition,
                offset: (*message).offset,
                opaque: (*message)._private as usize,
            }
        }
    }
}
