//! Functions of librdkafka that return or take an error code, declared with `i32` where the generated bindings have a
//! Rust `enum`: a broker newer than librdkafka may send a code that the `enum` does not have. In C both are an `int`.

use std::ffi::{c_char, c_int, c_void};

use rdkafka::bindings as rd;

pub(super) type OnNew = unsafe extern "C" fn(
    handle: *mut rd::rd_kafka_t,
    conf: *const rd::rd_kafka_conf_t,
    opaque: *mut c_void,
    words: *mut c_char,
    words_size: usize,
) -> i32;

pub(super) type OnThreadStart =
    unsafe extern "C" fn(handle: *mut rd::rd_kafka_t, kind: u32, name: *const c_char, opaque: *mut c_void) -> i32;

pub(super) type OnRequestSent = unsafe extern "C" fn(
    handle: *mut rd::rd_kafka_t,
    socket: c_int,
    broker: *const c_char,
    broker_id: i32,
    api_key: i16,
    api_version: i16,
    correlation: i32,
    size: usize,
    opaque: *mut c_void,
) -> i32;

pub(super) type OnResponseReceived = unsafe extern "C" fn(
    handle: *mut rd::rd_kafka_t,
    socket: c_int,
    broker: *const c_char,
    broker_id: i32,
    api_key: i16,
    api_version: i16,
    correlation: i32,
    size: usize,
    round_trip: i64,
    code: i32,
    opaque: *mut c_void,
) -> i32;

pub(super) type OnRebalance = unsafe extern "C" fn(
    handle: *mut rd::rd_kafka_t,
    code: i32,
    partitions: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
);

unsafe extern "C" {
    pub(super) fn rd_kafka_err2name(code: i32) -> *const c_char;
    pub(super) fn rd_kafka_err2str(code: i32) -> *const c_char;
    pub(super) fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> i32;
    pub(super) fn rd_kafka_fatal_error(handle: *mut rd::rd_kafka_t, words: *mut c_char, size: usize) -> i32;

    pub(super) fn rd_kafka_conf_set_rebalance_cb(conf: *mut rd::rd_kafka_conf_t, callback: Option<OnRebalance>);
    pub(super) fn rd_kafka_conf_interceptor_add_on_new(
        conf: *mut rd::rd_kafka_conf_t,
        name: *const c_char,
        callback: Option<OnNew>,
        opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_interceptor_add_on_thread_start(
        handle: *mut rd::rd_kafka_t,
        name: *const c_char,
        callback: Option<OnThreadStart>,
        opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_interceptor_add_on_request_sent(
        handle: *mut rd::rd_kafka_t,
        name: *const c_char,
        callback: Option<OnRequestSent>,
        opaque: *mut c_void,
    ) -> i32;
    pub(super) fn rd_kafka_interceptor_add_on_response_received(
        handle: *mut rd::rd_kafka_t,
        name: *const c_char,
        callback: Option<OnResponseReceived>,
        opaque: *mut c_void,
    ) -> i32;

    pub(super) fn rd_kafka_subscribe(
        handle: *mut rd::rd_kafka_t,
        topics: *const rd::rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_unsubscribe(handle: *mut rd::rd_kafka_t) -> i32;
    pub(super) fn rd_kafka_poll_set_consumer(handle: *mut rd::rd_kafka_t) -> i32;
    pub(super) fn rd_kafka_assign(
        handle: *mut rd::rd_kafka_t,
        partitions: *const rd::rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_pause_partitions(
        handle: *mut rd::rd_kafka_t,
        partitions: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_resume_partitions(
        handle: *mut rd::rd_kafka_t,
        partitions: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> i32;
    pub(super) fn rd_kafka_get_watermark_offsets(
        handle: *mut rd::rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
    ) -> i32;
    pub(super) fn rd_kafka_message_headers(
        message: *const rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    ) -> i32;
    pub(super) fn rd_kafka_header_get_all(
        headers: *const rd::rd_kafka_headers_t,
        index: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    ) -> i32;
    pub(super) fn rd_kafka_header_get_last(
        headers: *const rd::rd_kafka_headers_t,
        name: *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    ) -> i32;

    pub(super) fn rd_kafka_flush(handle: *mut rd::rd_kafka_t, wait_ms: c_int) -> i32;
    pub(super) fn rd_kafka_purge(handle: *mut rd::rd_kafka_t, flags: c_int) -> i32;
    pub(super) fn rd_kafka_header_add(
        headers: *mut rd::rd_kafka_headers_t,
        name: *const c_char,
        name_size: isize,
        value: *const c_void,
        value_size: isize,
    ) -> i32;

    pub(super) fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> i32;
    pub(super) fn rd_kafka_topic_result_error(result: *const rd::rd_kafka_topic_result_t) -> i32;
    pub(super) fn rd_kafka_ConfigResource_error(resource: *const rd::rd_kafka_ConfigResource_t) -> i32;
    pub(super) fn rd_kafka_AdminOptions_set_request_timeout(
        options: *mut rd::rd_kafka_AdminOptions_t,
        timeout_ms: c_int,
        words: *mut c_char,
        words_size: usize,
    ) -> i32;
}
