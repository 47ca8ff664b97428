//! Producing and transactions.

use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_vtype_t as Kind;

use super::super::RecordHeaders;
use super::{Client, Code, Fault, NativeGroup, PartitionList, c_millis, c_string, raw};

/// A topic as the producer knows it: looked up once, so that sending a record looks up nothing.
pub(in crate::kafka) struct TopicHandle {
    raw: NonNull<rd::rd_kafka_topic_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's topic handles are counted references that may be used and given back on any thread.
unsafe impl Send for TopicHandle {}

impl fmt::Debug for TopicHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicHandle").field(&self.raw).finish()
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once, before the client.
        unsafe { rd::rd_kafka_topic_destroy(self.raw.as_ptr()) };
    }
}

/// A record as the C library takes it.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) struct NativeRecord<'a> {
    /// Negative: the partitioner chooses by the key.
    pub(in crate::kafka) partition: i32,
    pub(in crate::kafka) timestamp: i64,
    pub(in crate::kafka) key: Option<&'a [u8]>,
    pub(in crate::kafka) value: Option<&'a [u8]>,
    pub(in crate::kafka) headers: RecordHeaders<'a>,
    /// Comes back with the delivery report.
    pub(in crate::kafka) opaque: u64,
}

/// The arguments of one `rd_kafka_produceva`. They are 72 bytes each, of which most stay unused: only what is set is
/// written.
struct Arguments {
    list: [MaybeUninit<rd::rd_kafka_vu_t>; 8],
    count: usize,
}

impl Arguments {
    fn new() -> Self {
        Self { list: [const { MaybeUninit::uninit() }; 8], count: 0 }
    }

    /// Adds an argument; `set` writes the member of the union that belongs to `kind`.
    fn push(&mut self, kind: Kind, set: impl FnOnce(*mut rd::rd_kafka_vu_s__bindgen_ty_1)) {
        let slot = self.list[self.count].as_mut_ptr();
        // SAFETY: the slot is inside the array; only the tag and the member that goes with it are written, and librdkafka
        // reads no other.
        unsafe {
            ptr::addr_of_mut!((*slot).vtype).write(kind);
            set(ptr::addr_of_mut!((*slot).u));
        }
        self.count += 1;
    }
}

impl TopicHandle {
    /// Looks a topic up. Nothing is asked of the cluster yet.
    pub(in crate::kafka) fn new(client: &Arc<Client>, name: &str) -> Self {
        let c_name = c_string(name);
        // SAFETY: the handle is alive; the name is copied; no configuration means the client's own.
        let topic = unsafe { rd::rd_kafka_topic_new(client.raw(), c_name.as_ptr(), ptr::null_mut()) };
        Self { raw: NonNull::new(topic).expect("a valid topic name was given"), client: client.clone() }
    }

    /// Hands over one record; key, value and header are copied.
    pub(in crate::kafka) fn send(&self, record: &NativeRecord<'_>) -> Result<(), Fault> {
        let mut arguments = Arguments::new();
        let topic = self.raw.as_ptr();
        // SAFETY (all of the writes below): `push` passes the union of a slot of ours, and each closure writes the
        // member that belongs to the kind it names.
        arguments.push(Kind::RD_KAFKA_VTYPE_RKT, |slot| unsafe { (*slot).rkt = topic });
        arguments.push(Kind::RD_KAFKA_VTYPE_PARTITION, |slot| unsafe { (*slot).i32_ = record.partition });
        arguments.push(Kind::RD_KAFKA_VTYPE_MSGFLAGS, |slot| unsafe { (*slot).i = rd::RD_KAFKA_MSG_F_COPY });
        arguments.push(Kind::RD_KAFKA_VTYPE_TIMESTAMP, |slot| unsafe { (*slot).i64_ = record.timestamp });
        arguments.push(Kind::RD_KAFKA_VTYPE_OPAQUE, |slot| unsafe {
            (*slot).ptr = record.opaque as usize as *mut c_void;
        });
        if let Some(key) = record.key {
            arguments.push(Kind::RD_KAFKA_VTYPE_KEY, |slot| unsafe { (*slot).mem = memory(key) });
        }
        if let Some(value) = record.value {
            arguments.push(Kind::RD_KAFKA_VTYPE_VALUE, |slot| unsafe { (*slot).mem = memory(value) });
        }
        let headers = (!record.headers.is_empty()).then(|| headers(&record.headers));
        if let Some(headers) = headers {
            arguments.push(Kind::RD_KAFKA_VTYPE_HEADERS, |slot| unsafe { (*slot).headers = headers });
        }
        // SAFETY: client and topic are alive; `count` arguments are written; key and value live through the call and are
        // copied (`F_COPY`; keys always are). Headers go over to the message when the call succeeds, else they are ours.
        let error =
            unsafe { rd::rd_kafka_produceva(self.client.raw(), arguments.list.as_ptr().cast(), arguments.count) };
        if let (false, Some(headers)) = (error.is_null(), headers) {
            // SAFETY: the call failed, so the headers are still ours.
            unsafe { rd::rd_kafka_headers_destroy(headers) };
        }
        Fault::take(error)
    }
}

/// A slice for C. An empty slice has a pointer that is not null, so empty and absent stay apart.
fn memory(bytes: &[u8]) -> rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: bytes.as_ptr().cast_mut().cast(), size: bytes.len() }
}

/// A header list.
fn headers(wanted: &RecordHeaders<'_>) -> *mut rd::rd_kafka_headers_t {
    let length = |len: usize| isize::try_from(len).expect("a slice is shorter than isize::MAX");
    // SAFETY: makes a list of our own, with room for so many headers.
    let headers = unsafe { rd::rd_kafka_headers_new(wanted.len()) };
    wanted.visit(|name, value| {
        // A null pointer is a null value; an empty slice has a pointer that is not null.
        let (pointer, size) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
        // SAFETY: the list is ours; name and value are copied.
        let added = unsafe {
            raw::rd_kafka_header_add(headers, name.as_ptr().cast(), length(name.len()), pointer.cast(), length(size))
        };
        assert_eq!(Code(added), Code::NONE, "adding to a list of our own cannot fail");
    });
    headers
}

/// What a transactional producer does. All of it may be called from the thread that owns the producer only: two calls at
/// once are refused by librdkafka, not unsafe.
impl Client {
    /// Serves delivery reports; waits for the first at most `wait`.
    pub(in crate::kafka) fn serve_deliveries(&self, wait: Duration) {
        // SAFETY: the handle is alive.
        unsafe { rd::rd_kafka_poll(self.raw(), c_millis(wait)) };
    }

    /// Waits until every record is delivered or failed, and serves the reports; ignores `linger.ms`.
    pub(in crate::kafka) fn flush(&self, wait: Duration) -> Code {
        // SAFETY: the handle is alive.
        Code(unsafe { raw::rd_kafka_flush(self.raw(), c_millis(wait)) })
    }

    /// Throws away the records that are not on the wire. Does not wait.
    pub(in crate::kafka) fn purge(&self) {
        let flags = rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: the handle is alive.
        let _ = unsafe { raw::rd_kafka_purge(self.raw(), flags) };
    }

    pub(in crate::kafka) fn init_transactions(&self, wait: Duration) -> Result<(), Fault> {
        // SAFETY: the handle is alive; the error, if any, is ours. So for the four below.
        Fault::take(unsafe { rd::rd_kafka_init_transactions(self.raw(), c_millis(wait)) })
    }

    pub(in crate::kafka) fn begin_transaction(&self) -> Result<(), Fault> {
        // SAFETY: see `init_transactions`.
        Fault::take(unsafe { rd::rd_kafka_begin_transaction(self.raw()) })
    }

    pub(in crate::kafka) fn send_offsets(
        &self,
        offsets: &PartitionList,
        group: &NativeGroup,
        wait: Duration,
    ) -> Result<(), Fault> {
        let millis = c_millis(wait);
        // SAFETY: see `init_transactions`; list and group are alive and copied.
        Fault::take(unsafe {
            rd::rd_kafka_send_offsets_to_transaction(self.raw(), offsets.as_ptr(), group.raw.0.as_ptr(), millis)
        })
    }

    pub(in crate::kafka) fn commit_transaction(&self, wait: Duration) -> Result<(), Fault> {
        // SAFETY: see `init_transactions`.
        Fault::take(unsafe { rd::rd_kafka_commit_transaction(self.raw(), c_millis(wait)) })
    }

    pub(in crate::kafka) fn abort_transaction(&self, wait: Duration) -> Result<(), Fault> {
        // SAFETY: see `init_transactions`.
        Fault::take(unsafe { rd::rd_kafka_abort_transaction(self.raw(), c_millis(wait)) })
    }
}
