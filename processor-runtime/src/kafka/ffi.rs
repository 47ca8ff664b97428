//! librdkafka behind a safe surface: the only file that calls unsafe code.
//!
//! The rules it keeps:
//! - Everything made by a client (topic handles, queues, messages, events, group metadata) holds the [`Client`] by `Arc`,
//!   so `rd_kafka_destroy` runs when nothing of it is left.
//! - The state that callbacks write ([`Callbacks`]) outlives the native handle, and no callback unwinds.
//! - Error codes are plain numbers: a newer broker may send one that librdkafka's enumeration does not have, and such a
//!   value must never be held in a Rust `enum`. Functions that return codes are declared again here, returning `i32`.
//!
//! librdkafka's own functions may be called from any thread; what is documented otherwise is said at the place.

#![expect(unsafe_code, reason = "the one audited boundary to librdkafka; nothing else that runs is unsafe")]

mod admin;
mod incremental;
mod known;
mod message;
mod partitions;
mod producing;
mod raw;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use processor_core::ids::{Partition, TopicPartition};
use rdkafka::bindings as rd;

pub(super) use self::admin::{Event, EventQueue, SettingsOf, Spec, TopicFacts};
pub(super) use self::known::{check_property, knows_property, property_names};
pub(super) use self::message::{Message, MessageQueue};
pub(super) use self::partitions::{PartitionEntry, PartitionList};
pub(super) use self::producing::{NativeRecord, TopicHandle};
use super::Membership;
use super::deliveries::{Deliveries, tag_and_number};
use super::requests::{Api, Requests};
use super::stable_ends::StableEnds;

/// How long dropping a client waits for librdkafka's threads to end. They normally need a few milliseconds; a thread in
/// a name lookup or a TLS handshake can need many seconds, and then it ends without an audience.
const DESTROY_WAIT_MAX: Duration = Duration::from_millis(500);

/// An error code of Kafka or (below zero) of librdkafka.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Code(pub(super) i32);

impl Code {
    pub(super) const NONE: Self = Self(0);

    /// The constant of the C library.
    pub(super) const fn of(code: rd::rd_kafka_resp_err_t) -> Self {
        Self(code as i32)
    }

    /// The name Kafka or librdkafka gives it.
    pub(super) fn name(self) -> &'static str {
        // SAFETY: takes any number and returns a static string.
        let name = unsafe { CStr::from_ptr(raw::rd_kafka_err2name(self.0)) };
        name.to_str().unwrap_or("unnamed")
    }

    /// What it means, in librdkafka's words.
    pub(super) fn text(self) -> &'static str {
        // SAFETY: takes any number and returns a static string.
        let text = unsafe { CStr::from_ptr(raw::rd_kafka_err2str(self.0)) };
        text.to_str().unwrap_or("no description")
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error of the C library with what it says about itself.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) is_fatal: bool,
    pub(super) is_retriable: bool,
    pub(super) requires_abort: bool,
}

impl Fault {
    /// A bare code; no flag is set.
    pub(super) fn bare(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_fatal: false, is_retriable: false, requires_abort: false }
    }

    fn check(code: i32, what: &str) -> Result<(), Self> {
        let code = Code(code);
        if code == Code::NONE { Ok(()) } else { Err(Self::bare(code, format!("{what}: {}", code.text()))) }
    }

    /// Takes over an error object; null is success.
    fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        let fault = Self::read(error);
        // SAFETY: `error` is not null, came from a call that hands it over, and is not used again.
        unsafe { rd::rd_kafka_error_destroy(error) };
        Err(fault)
    }

    /// Reads an error object that someone else owns. The pointer must not be null.
    fn read(error: *const rd::rd_kafka_error_t) -> Self {
        assert!(!error.is_null(), "an error object is read only where there is one");
        // SAFETY: not null, and alive for the calls: the caller owns it or what it belongs to.
        unsafe {
            Self {
                code: Code(raw::rd_kafka_error_code(error)),
                message: text(rd::rd_kafka_error_string(error)),
                is_fatal: rd::rd_kafka_error_is_fatal(error) != 0,
                is_retriable: rd::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            }
        }
    }
}

/// Copies a C string; null is the empty string.
///
/// # Safety
/// `string` is null or a string that ends with a zero byte and lives through the call.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by the contract of this function.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A string for C. Names with a zero byte inside are refused long before: no topic or setting can have one.
fn c_string(string: &str) -> CString {
    CString::new(string).expect("names of topics, groups and settings hold no zero byte")
}

/// A list length for C.
fn c_count(count: usize) -> c_int {
    c_int::try_from(count).expect("lists of partitions and topics have fewer than 2^31 elements")
}

/// A waiting time for C: whole milliseconds, rounded up, so that a short wait is not none.
fn c_millis(wait: Duration) -> c_int {
    let millis = wait.as_millis() + u128::from(!wait.subsec_nanos().is_multiple_of(1_000_000));
    c_int::try_from(millis).unwrap_or(c_int::MAX)
}

/// What the group decided, in the order it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    Assigned { partitions: Vec<TopicPartition>, membership: Membership },
    Revoked { lost: bool },
}

/// What the group has decided, before it is answered.
#[derive(Debug)]
struct Decision {
    is_assign: bool,
    partitions: Vec<TopicPartition>,
}

/// What callbacks leave for the thread that owns the client.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    rebalances: Mutex<Vec<Rebalance>>,
    /// What the group decides is answered later: nobody is to lose or get a partition inside a transaction.
    defers: AtomicBool,
    deferred: Mutex<Vec<Decision>>,
    deliveries: Mutex<Deliveries>,
    requests: Requests,
    stable_ends: Mutex<StableEnds>,
    /// What is owned, where callbacks carry differences.
    owned: Mutex<Vec<TopicPartition>>,
    /// What last kept a producer from a broker.
    trouble: Mutex<Option<Fault>>,
}

impl Callbacks {
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(super) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stable_ends(&self) -> MutexGuard<'_, StableEnds> {
        self.stable_ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has kept the client from a broker since the last call.
    pub(super) fn take_trouble(&self) -> Option<Fault> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn deferred(&self) -> MutexGuard<'_, Vec<Decision>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rebalances(&self) -> MutexGuard<'_, Vec<Rebalance>> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the two kinds of native client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Consumer,
    Producer,
}

/// A native client.
pub(super) struct Client {
    native: Native,
}

/// The pointers that must go together, and in this order: the handle first, then what its callbacks point to.
struct Native {
    handle: NonNull<rd::rd_kafka_t>,
    callbacks: NonNull<Callbacks>,
}

// SAFETY: librdkafka's handle may be used and destroyed from any thread, and `Callbacks` is `Send + Sync`.
unsafe impl Send for Native {}
// SAFETY: as above; all functions that take the handle do their own locking.
unsafe impl Sync for Native {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.name()).finish()
    }
}

impl Client {
    /// Makes a client with these properties.
    ///
    /// # Errors
    /// What librdkafka says about a property or a combination of them.
    pub(super) fn new(kind: Kind, properties: &BTreeMap<String, String>) -> Result<Arc<Self>, String> {
        let conf = Conf::new();
        for (name, value) in properties {
            conf.set(name, value)?;
        }
        let callbacks = NonNull::from(Box::leak(Box::<Callbacks>::default()));
        match conf.into_client(kind, callbacks) {
            Ok(handle) => Ok(Arc::new(Self { native: Native { handle, callbacks } })),
            Err(message) => {
                // SAFETY: made by `Box::leak` above, and no handle came to be that could use it.
                drop(unsafe { Box::from_raw(callbacks.as_ptr()) });
                Err(message)
            }
        }
    }

    fn raw(&self) -> *mut rd::rd_kafka_t {
        self.native.handle.as_ptr()
    }

    pub(super) fn callbacks(&self) -> &Callbacks {
        // SAFETY: allocated in `new`, freed only after `rd_kafka_destroy` when `self` is gone; all fields are `Sync`.
        unsafe { self.native.callbacks.as_ref() }
    }

    /// `client.id` and a number.
    pub(super) fn name(&self) -> String {
        // SAFETY: the handle is alive; the name lives as long as it does.
        unsafe { text(rd::rd_kafka_name(self.raw())) }
    }

    /// The fatal error that ended this client's life, if one has.
    pub(super) fn fatal_error(&self) -> Option<Fault> {
        let mut words: [c_char; 512] = [0; 512];
        // SAFETY: the handle is alive and the buffer has the length given; librdkafka ends it with a zero byte.
        let (code, message) = unsafe {
            let code = raw::rd_kafka_fatal_error(self.raw(), words.as_mut_ptr(), words.len());
            (Code(code), text(words.as_ptr()))
        };
        (code != Code::NONE).then(|| Fault { is_fatal: true, ..Fault::bare(code, message) })
    }
}

impl Drop for Client {
    /// Ends the client without leaving its group and without flushing. An open transaction stays open at the broker:
    /// `rd_kafka_destroy` sends nothing for it (`rdkafka.c:1064-1178`), the next `init` or the time-out ends it.
    ///
    /// `rd_kafka_destroy` joins all of librdkafka's threads, and a thread that is resolving a name or shaking hands
    /// cannot be interrupted. So it runs on a helper thread, and the owner waits only [`DESTROY_WAIT_MAX`].
    fn drop(&mut self) {
        let (handle, callbacks) = (self.native.handle, self.native.callbacks);
        let name = self.name();
        let doomed = Native { handle, callbacks };
        let (done, ended) = mpsc::channel::<()>();
        let helper = thread::Builder::new().name("kafka-destroy".to_owned()).spawn(move || {
            destroy(doomed);
            drop(done);
        });
        match helper {
            Ok(_) => {
                if ended.recv_timeout(DESTROY_WAIT_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tracing::info!(client = name, "the kafka client ends in the background");
                }
            }
            Err(_) => destroy(Native { handle, callbacks }),
        }
    }
}

/// Ends a client and frees what its callbacks point to.
#[expect(clippy::needless_pass_by_value, reason = "by value: nobody uses the pointers again")]
fn destroy(native: Native) {
    // SAFETY: called once per client, when no message, queue, topic handle or event of it is left (all hold the `Arc`).
    // After `rd_kafka_destroy_flags` returned no thread of the client runs, so nothing uses the callbacks any more.
    unsafe {
        rd::rd_kafka_destroy_flags(native.handle.as_ptr(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        drop(Box::from_raw(native.callbacks.as_ptr()));
    }
}

/// A configuration that is not a client yet.
struct Conf(*mut rd::rd_kafka_conf_t);

impl Conf {
    fn new() -> Self {
        // SAFETY: no precondition; never null (librdkafka aborts when memory is out).
        Self(unsafe { rd::rd_kafka_conf_new() })
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let no_zero = |string: &str| CString::new(string).map_err(|_| format!("{name} holds a zero byte"));
        let (c_name, c_value) = (no_zero(name)?, no_zero(value)?);
        let mut words: [c_char; 512] = [0; 512];
        // SAFETY: the configuration is alive, the strings end with zero, the buffer has the length given.
        let result = unsafe {
            rd::rd_kafka_conf_set(self.0, c_name.as_ptr(), c_value.as_ptr(), words.as_mut_ptr(), words.len())
        };
        if result == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            return Ok(());
        }
        // SAFETY: librdkafka ended the buffer with a zero byte.
        Err(unsafe { text(words.as_ptr()) })
    }

    fn into_client(self, kind: Kind, callbacks: NonNull<Callbacks>) -> Result<NonNull<rd::rd_kafka_t>, String> {
        let opaque = callbacks.as_ptr().cast::<c_void>();
        let native_kind = match kind {
            Kind::Consumer => rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Kind::Producer => rd::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        let mut words: [c_char; 512] = [0; 512];
        // SAFETY: the configuration is alive; the callbacks are `extern "C"` functions of the types declared, and
        // `opaque` points to a `Callbacks` that outlives the handle. Interceptors are added to this very configuration,
        // because they do not survive a copy.
        let handle = unsafe {
            rd::rd_kafka_conf_set_opaque(self.0, opaque);
            rd::rd_kafka_conf_set_log_cb(self.0, Some(on_log));
            match kind {
                Kind::Consumer => {
                    raw::rd_kafka_conf_set_rebalance_cb(self.0, Some(on_rebalance));
                    // Called only where `statistics.interval.ms` is set.
                    rd::rd_kafka_conf_set_stats_cb(self.0, Some(on_statistics));
                }
                Kind::Producer => {
                    rd::rd_kafka_conf_set_dr_msg_cb(self.0, Some(on_delivery));
                    rd::rd_kafka_conf_set_error_cb(self.0, Some(on_error));
                }
            }
            let added = raw::rd_kafka_conf_interceptor_add_on_new(self.0, c"processor".as_ptr(), Some(on_new), opaque);
            assert_eq!(Code(added), Code::NONE, "a new configuration has no interceptor of that name");
            rd::rd_kafka_new(native_kind, self.0, words.as_mut_ptr(), words.len())
        };
        // A client took it over. One that could not be made has freed its interceptors, if it came that far, but not it:
        // librdkafka before 2.13 frees them a second time with it (lk#4142). So it is left behind, a few KiB.
        std::mem::forget(self);
        // SAFETY: `rd_kafka_new` ended the buffer with a zero byte where it failed; else it is still all zeros.
        NonNull::new(handle).ok_or_else(|| unsafe { text(words.as_ptr()) })
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: dropped only where no client was to be made of the configuration.
        unsafe { rd::rd_kafka_conf_destroy(self.0) };
    }
}

thread_local! {
    /// Whether this is a broker thread of librdkafka: there, and only there, an answer is seen for the first time.
    static IS_BROKER_THREAD: Cell<bool> = const { Cell::new(false) };
}

const OK: i32 = 0;

unsafe extern "C" fn on_new(
    handle: *mut rd::rd_kafka_t,
    _conf: *const rd::rd_kafka_conf_t,
    opaque: *mut c_void,
    _words: *mut c_char,
    _words_size: usize,
) -> i32 {
    let name = c"processor".as_ptr();
    // SAFETY: librdkafka calls this from `rd_kafka_new` with the new handle, which is when interceptors may be added;
    // `opaque` is the one given with this hook.
    unsafe {
        raw::rd_kafka_interceptor_add_on_thread_start(handle, name, Some(on_thread_start), opaque);
        raw::rd_kafka_interceptor_add_on_request_sent(handle, name, Some(on_request_sent), opaque);
        raw::rd_kafka_interceptor_add_on_response_received(handle, name, Some(on_response_received), opaque)
    }
}

unsafe extern "C" fn on_thread_start(
    _handle: *mut rd::rd_kafka_t,
    kind: u32,
    _name: *const c_char,
    _opaque: *mut c_void,
) -> i32 {
    IS_BROKER_THREAD.set(kind == rd::rd_kafka_thread_type_t::RD_KAFKA_THREAD_BROKER as u32);
    OK
}

unsafe extern "C" fn on_request_sent(
    _handle: *mut rd::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    api_key: i16,
    _api_version: i16,
    _correlation: i32,
    _size: usize,
    opaque: *mut c_void,
) -> i32 {
    if let Some(api) = Api::from_key(api_key) {
        // SAFETY: `opaque` is the `Callbacks` of this client, which outlives its threads.
        unsafe { callbacks(opaque) }.requests.sent(api);
    }
    OK
}

unsafe extern "C" fn on_response_received(
    _handle: *mut rd::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    api_key: i16,
    _api_version: i16,
    _correlation: i32,
    _size: usize,
    _round_trip: i64,
    code: i32,
    opaque: *mut c_void,
) -> i32 {
    let Some(api) = Api::from_key(api_key) else { return OK };
    // SAFETY: as in `on_request_sent`.
    let requests = unsafe { &callbacks(opaque).requests };
    if code != OK {
        requests.failed(api);
    } else if IS_BROKER_THREAD.get() {
        requests.answered(api);
    }
    OK
}

/// The state behind an opaque pointer.
///
/// # Safety
/// `opaque` is what [`Conf::into_client`] gave to the client that calls, and that client lives.
unsafe fn callbacks<'a>(opaque: *mut c_void) -> &'a Callbacks {
    // SAFETY: by the contract; `Callbacks` is shared by reference only.
    unsafe { &*opaque.cast::<Callbacks>() }
}

/// Takes part in the group's decisions on the thread that polls. `rd_kafka_yield` makes the poll return at once, so events are
/// seen before records.
unsafe extern "C" fn on_rebalance(
    handle: *mut rd::rd_kafka_t,
    code: i32,
    partitions: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Callbacks` of this client; the handle and the list are valid during the callback.
    let (state, assigned) = unsafe { (callbacks(opaque), partitions::entries(partitions)) };
    let decision = Decision {
        is_assign: Code(code) == Code::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS),
        partitions: assigned.into_iter().map(|entry| entry.partition).collect(),
    };
    if state.defers.load(Ordering::Relaxed) {
        state.deferred().push(decision);
    } else {
        // SAFETY: the handle is valid during the callback.
        unsafe { answer(handle, state, decision) };
    }
    // SAFETY: the handle is valid; the call marks this thread only.
    unsafe { rd::rd_kafka_yield(handle) };
}

/// Answers the group; librdkafka waits for that as long as it takes.
///
/// On assign nothing is fetched: the empty list ends librdkafka's wait for an answer and leaves the member steady
/// (`rdkafka_cgrp.c:4598-4629`).
///
/// # Safety
/// The handle is valid, `state` is of its client, and this is the thread that polls.
unsafe fn answer(handle: *mut rd::rd_kafka_t, state: &Callbacks, decision: Decision) {
    let Decision { is_assign, partitions } = decision;
    // SAFETY: by the contract.
    unsafe {
        if incremental::is_incremental(handle) {
            return incremental::rebalance(handle, state, is_assign, partitions);
        }
    }
    let membership = || read_group(handle).map_or_else(Membership::none, |group| group.membership().clone());
    let rebalance = if is_assign {
        assign(handle, Some(&PartitionList::with_capacity(0)));
        let mut membership = membership();
        // EO-12: when topics change while an assignment waits to be served, librdkafka joins again at once and leaves it in
        // the queue (`rdkafka_cgrp.c:5068-5077`): then these partitions are not those of the generation that was read.
        if state.requests.is_joining() {
            membership = Membership::none();
        }
        Rebalance::Assigned { partitions, membership }
    } else {
        // SAFETY: by the contract.
        let marked = unsafe { rd::rd_kafka_assignment_lost(handle) } != 0;
        // An assign of ours clears librdkafka's mark. But whoever loses its place has no member id or no generation left
        // (`rdkafka_cgrp.c:3460`, `3467`, `5205`, `5981`).
        let lost = marked || !membership().is_checked();
        assign(handle, None);
        Rebalance::Revoked { lost }
    };
    state.rebalances().push(rebalance);
}

/// Replaces the assignment; `None` gives it up. What librdkafka answers is logged: a failure shows as silence of the
/// partitions, and the only cause is a client that is ending.
fn assign(handle: *mut rd::rd_kafka_t, partitions: Option<&PartitionList>) -> Code {
    let list = partitions.map_or(ptr::null(), PartitionList::as_ptr);
    // SAFETY: the handle is valid by the callers; the list is null or valid, and is copied.
    let code = Code(unsafe { raw::rd_kafka_assign(handle, list) });
    if code != Code::NONE {
        tracing::warn!(%code, "librdkafka refused an assignment: {}", code.text());
    }
    code
}

/// Notes what became of a record. Runs inside `rd_kafka_poll` and `rd_kafka_flush` of the thread that owns the producer.
unsafe extern "C" fn on_delivery(
    _handle: *mut rd::rd_kafka_t,
    message: *const rd::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the `Callbacks` of this client; the message is valid during the callback.
    let (state, report) = unsafe { (callbacks(opaque), message::Report::read(message)) };
    let mut deliveries = state.deliveries();
    let (tag, number) = tag_and_number(report.opaque as u64);
    if report.code == Code::NONE {
        deliveries.delivered(tag, report.offset);
    } else {
        deliveries.failed(report.code.0, number, || {
            // SAFETY: the topic handle of a valid message is valid, and so is its name.
            let topic = unsafe { text(rd::rd_kafka_topic_name(report.topic)) };
            format!("a record for {topic}-{} was not written: {}", report.partition, report.code.text())
        });
    }
}

/// Reads the statistics on the thread that polls.
unsafe extern "C" fn on_statistics(
    _handle: *mut rd::rd_kafka_t,
    json: *mut c_char,
    json_len: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the `Callbacks` of this client; the text has this length and is valid during the callback.
    let (state, statistics) = unsafe { (callbacks(opaque), std::slice::from_raw_parts(json.cast::<u8>(), json_len)) };
    if let Err(error) = state.stable_ends().told(statistics, Instant::now()) {
        tracing::debug!("librdkafka's statistics are not understood, so nothing is known of stable offsets: {error}");
    }
    OK // the text remains librdkafka's
}

/// Notes what keeps a producer from its brokers. Runs inside `rd_kafka_poll` and `rd_kafka_flush` of the thread that owns it.
/// The last word counts, but "all brokers are down" says less than what was said before of one of them.
unsafe extern "C" fn on_error(_handle: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Callbacks` of this client; the reason is a string that lives through the callback.
    let (state, reason) = unsafe { (callbacks(opaque), text(reason)) };
    tracing::debug!(target: "librdkafka", code = Code(code).name(), "{reason}");
    let mut trouble = state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
    let all_down = Code::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN);
    if trouble.is_none() || Code(code) != all_down {
        *trouble = Some(Fault::bare(Code(code), reason));
    }
}

/// Carries librdkafka's log lines over, named by the client. Levels are syslog's.
unsafe extern "C" fn on_log(handle: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: librdkafka gives strings that end with zero; the handle is null (too early) or valid.
    let (client, facility, line) = unsafe {
        let client = if handle.is_null() { String::new() } else { text(rd::rd_kafka_name(handle)) };
        (client, text(facility), text(line))
    };
    match level {
        // A coordinator that is still loading is asked again every few milliseconds; what does not pass, `init` returns.
        _ if facility == "GETPID" => tracing::debug!(target: "librdkafka", client, facility, "{line}"),
        // What a client dies of is the answer to its next call, and whoever makes that call says what follows.
        _ if ["FATAL", "TXNERR"].contains(&&*facility) => {
            tracing::warn!(target: "librdkafka", client, facility, "{line}");
        }
        0..=2 => tracing::error!(target: "librdkafka", client, facility, "{line}"),
        3 | 4 => tracing::warn!(target: "librdkafka", client, facility, "{line}"),
        5 => tracing::info!(target: "librdkafka", client, facility, "{line}"),
        6 => tracing::debug!(target: "librdkafka", client, facility, "{line}"),
        _ => tracing::trace!(target: "librdkafka", client, facility, "{line}"),
    }
}

/// Proof of membership, as the C library wants it back. Clones are the same one.
#[derive(Clone)]
pub(super) struct NativeGroup {
    raw: Arc<GroupMetadata>,
    membership: Membership,
}

/// Owns the C structure.
struct GroupMetadata(NonNull<rd::rd_kafka_consumer_group_metadata_t>);

// SAFETY: a plain copied structure without ties to a client or a thread.
unsafe impl Send for GroupMetadata {}
// SAFETY: it is never changed; librdkafka takes it as `const` and copies it.
unsafe impl Sync for GroupMetadata {}

impl NativeGroup {
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }
}

impl fmt::Debug for NativeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.membership.fmt(f)
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: owned, and dropped once.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) };
    }
}

/// Asks the client's main thread for the membership of this moment.
fn read_group(handle: *mut rd::rd_kafka_t) -> Option<NativeGroup> {
    // SAFETY: the handle is valid by the callers; the result is null or owned by us, its strings live with it.
    unsafe {
        let raw = NonNull::new(rd::rd_kafka_consumer_group_metadata(handle))?;
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(raw.as_ptr());
        let member_id = text(rd::rd_kafka_consumer_group_metadata_member_id(raw.as_ptr()));
        Some(NativeGroup { raw: Arc::new(GroupMetadata(raw)), membership: Membership { generation, member_id } })
    }
}

/// What a group member does.
impl Client {
    /// Joins the group with the first poll, for these topics.
    pub(super) fn subscribe(&self, topics: &[Arc<str>]) -> Result<(), Fault> {
        let mut list = PartitionList::with_capacity(topics.len());
        for topic in topics {
            list.push(&TopicPartition::new(topic.clone(), Partition::new(-1)), 0);
        }
        // SAFETY: handle and list are valid; the list is copied.
        Fault::check(unsafe { raw::rd_kafka_subscribe(self.raw(), list.as_ptr()) }, "subscribe")
    }

    /// Begins to leave the group; the revoke comes with a later poll.
    pub(super) fn unsubscribe(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid.
        Fault::check(unsafe { raw::rd_kafka_unsubscribe(self.raw()) }, "unsubscribe")
    }

    /// Lets `poll` on this client also serve what would go to the main queue.
    pub(super) fn poll_serves_everything(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid.
        Fault::check(unsafe { raw::rd_kafka_poll_set_consumer(self.raw()) }, "redirect the main queue")
    }

    /// Fetches exactly these partitions; what was fetched before is outdated and never delivered.
    ///
    /// Waits until the fetchers of the assignment before have stopped. librdkafka does not: an assign that finds a
    /// fetcher still stopping stops it a second time, and the second answer breaks its books
    /// (`rdkafka_assignment.c:362-369`, an assertion in builds that have them). Stopping takes two steps of the main
    /// thread, each queued before the next request of ours is, so two round trips to it are enough.
    pub(super) fn assign_exactly(&self, partitions: &PartitionList) -> Result<(), Fault> {
        let code = assign(self.raw(), Some(partitions));
        for _ in 0..2 {
            drop(read_group(self.raw()));
        }
        Fault::check(code.0, "assign")
    }

    /// The end of a partition (high watermark) that the last fetch has told. A look into the client's own books.
    pub(super) fn known_end(&self, partition: &TopicPartition) -> Option<i64> {
        let topic = CString::new(&*partition.topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the handle is valid, the name ends with a zero, and both places are ours for the call.
        let code = unsafe {
            raw::rd_kafka_get_watermark_offsets(
                self.raw(),
                topic.as_ptr(),
                partition.partition.get(),
                &raw mut low,
                &raw mut high,
            )
        };
        (code == 0 && high >= 0).then_some(high)
    }

    /// The offset behind the last message of a partition that was taken from the queue, markers of transactions included
    /// (`rdkafka_queue.c:849-863`, `rdkafka_op.c:903`). A look into the client's own books; `None`: none was taken.
    pub(super) fn polled_to(&self, partition: &TopicPartition) -> Option<i64> {
        let mut list = PartitionList::of([(partition, 0)].into_iter());
        // SAFETY: handle and list are alive; the list's one entry is filled in.
        let code = unsafe { rd::rd_kafka_position(self.raw(), list.as_mut_ptr()) };
        // SAFETY: the list is alive, and has the one entry.
        let offset = unsafe { (*(*list.as_ptr()).elems).offset };
        (code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && offset >= 0).then_some(offset)
    }

    /// The membership now.
    pub(super) fn group(&self) -> Result<NativeGroup, Fault> {
        read_group(self.raw()).ok_or_else(|| Fault::bare(Code(-1), "the client is not a group member"))
    }

    /// From now on, what the group decides is kept, and [answered](Self::answer_group) later; or, from now on, at once.
    pub(super) fn defer_group(&self, defers: bool) {
        self.callbacks().defers.store(defers, Ordering::Relaxed);
    }

    /// Whether something that the group has decided waits for its answer.
    pub(super) fn owes_answer(&self) -> bool {
        !self.callbacks().deferred().is_empty()
    }

    /// Answers what was deferred. On the thread that polls, which hears of it with the next poll.
    pub(super) fn answer_group(&self) {
        let deferred = std::mem::take(&mut *self.callbacks().deferred());
        for decision in deferred {
            // SAFETY: the handle is valid, and these are its callbacks.
            unsafe { answer(self.raw(), self.callbacks(), decision) };
        }
    }

    /// Takes what the group decided since the last call.
    pub(super) fn take_rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut *self.callbacks().rebalances())
    }

    /// Whether there is something to take.
    pub(super) fn has_rebalances(&self) -> bool {
        !self.callbacks().rebalances().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_whole_milliseconds() {
        assert_eq!(c_millis(Duration::ZERO), 0);
        assert_eq!(c_millis(Duration::from_micros(1)), 1);
        assert_eq!(c_millis(Duration::from_millis(7)), 7);
        assert_eq!(c_millis(Duration::from_micros(7_001)), 8);
        assert_eq!(c_millis(Duration::MAX), c_int::MAX);
    }

    #[test]
    fn codes_that_librdkafka_does_not_know_have_a_name() {
        assert_eq!(Code(0).name(), "NO_ERROR");
        assert!(Code(9_999).name().contains("9999") || !Code(9_999).name().is_empty());
    }

    #[test]
    fn an_unknown_property_is_refused_by_name() {
        let properties = BTreeMap::from([("no.such.thing".to_owned(), "1".to_owned())]);
        let refused = Client::new(Kind::Producer, &properties).expect_err("librdkafka knows no such property");
        assert!(refused.contains("no.such.thing"), "{refused}");
    }

    #[test]
    fn a_client_that_cannot_be_made_frees_nothing_twice() {
        // Refused only when the client is half made, unlike a property that does not fit.
        let properties = [("security.protocol", "ssl"), ("ssl.ca.location", "/no/such/authority.pem")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for kind in [Kind::Consumer, Kind::Producer].repeat(20) {
            let refused = Client::new(kind, &properties).expect_err("the file is not there");
            assert!(refused.contains("ssl.ca.location"), "{refused}");
        }
    }
}
