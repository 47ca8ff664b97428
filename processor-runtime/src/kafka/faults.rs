//! Errors of librdkafka, sorted into what the runtime decides by: pure functions of a code and its flags.
//!
//! Words from the C source that these tables rest on: `rdkafka_txnmgr.c:1541-1624` (offsets), `1787-1840` (adding
//! them), `2221-2271` (`EndTxn`). There `ILLEGAL_GENERATION`, `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID` and most
//! authorization errors are abortable, a wrong epoch or state is fatal, and what has no flag was not foreseen.

use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::advice::with_advice;
use super::ffi::{Code, Fault};
use super::{KafkaError, KafkaErrorKind, TxnErrorKind};

/// What the flags and the code of a transactional call mean. Total: what is not known is [`TxnErrorKind::Fatal`].
///
/// `is_fatal`, `requires_abort` and `is_retriable` are librdkafka's flags; the first that is set wins, in that order.
pub(super) fn txn_kind(code: Code, is_fatal: bool, requires_abort: bool, is_retriable: bool) -> TxnErrorKind {
    if code == FENCED_INSTANCE_ID {
        return TxnErrorKind::FencedInstance;
    }
    // A right that is missing, or a wrong number in the settings, is a person's to mend, whatever the flag: a new
    // producer would meet the same answer.
    if REFUSED.contains(&code) {
        return TxnErrorKind::Refused;
    }
    if is_fatal {
        return if FENCED.contains(&code) { TxnErrorKind::Fenced } else { TxnErrorKind::Fatal };
    }
    if requires_abort {
        return if MOVED.contains(&code) { TxnErrorKind::Moved } else { TxnErrorKind::Abortable };
    }
    // "Another call is in progress" is flagged retriable, but it means that the calls are out of order.
    if is_retriable && !MISUSE.contains(&code) {
        return if TIMED_OUT.contains(&code) { TxnErrorKind::TimedOut } else { TxnErrorKind::Retriable };
    }
    TxnErrorKind::Fatal
}

const FENCED_INSTANCE_ID: Code = Code::of(E::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID);
const MOVED: [Code; 2] =
    [Code::of(E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION), Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID)];
const FENCED: [Code; 4] = [
    Code::of(E::RD_KAFKA_RESP_ERR__FENCED),
    Code::of(E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING),
];
const TIMED_OUT: [Code; 3] = [
    Code::of(E::RD_KAFKA_RESP_ERR__TIMED_OUT),
    Code::of(E::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE),
    Code::of(E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT),
];
const MISUSE: [Code; 3] = [
    Code::of(E::RD_KAFKA_RESP_ERR__CONFLICT),
    Code::of(E::RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS),
    Code::of(E::RD_KAFKA_RESP_ERR__STATE),
];
const REFUSED: [Code; 17] = [
    Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR__AUTHENTICATION),
    Code::of(E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE),
    Code::of(E::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_RECORD),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT),
    Code::of(E::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE),
    Code::of(E::RD_KAFKA_RESP_ERR_POLICY_VIOLATION),
    Code::of(E::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT),
    Code::of(E::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC),
];

/// What a message of a consumer that is not a record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Passes by itself, or is only said for information.
    Transient,
    /// The reader stands at the end.
    End,
    /// There is no record at the offset that was asked for.
    OutOfRange,
    /// The client's life ends with this.
    Stop(KafkaErrorKind),
}

/// Sorts a consumer's message.
pub(super) fn notice(code: Code) -> Notice {
    if code == Code::of(E::RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        Notice::End
    } else if OUT_OF_RANGE.contains(&code) {
        Notice::OutOfRange
    } else if code == FENCED_INSTANCE_ID {
        Notice::Stop(KafkaErrorKind::FencedInstance)
    } else if code == Code::of(E::RD_KAFKA_RESP_ERR__FATAL) || UNREADABLE.contains(&code) {
        Notice::Stop(KafkaErrorKind::Fatal)
    } else if CONFIG.contains(&code) {
        Notice::Stop(KafkaErrorKind::Config)
    } else {
        Notice::Transient
    }
}

const OUT_OF_RANGE: [Code; 3] = [
    Code::of(E::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET),
    Code::of(E::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE),
    Code::of(E::RD_KAFKA_RESP_ERR__NO_OFFSET),
];
/// A batch of records that the client cannot read. librdkafka goes on behind it, or stands still, and says so only here:
/// input or state would be lost in silence (`rdkafka_msgset_reader.c:1087-1101`, `1241-1250`).
const UNREADABLE: [Code; 4] = [
    Code::of(E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE),
    Code::of(E::RD_KAFKA_RESP_ERR__BAD_MSG),
    Code::of(E::RD_KAFKA_RESP_ERR__BAD_COMPRESSION),
    Code::of(E::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED),
];
const CONFIG: [Code; 17] = [
    Code::of(E::RD_KAFKA_RESP_ERR_UNRELEASED_INSTANCE_ID),
    Code::of(E::RD_KAFKA_RESP_ERR_UNSUPPORTED_ASSIGNOR),
    Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED),
    Code::of(E::RD_KAFKA_RESP_ERR__AUTHENTICATION),
    Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION),
    Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION),
    Code::of(E::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT),
    Code::of(E::RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED),
    Code::of(E::RD_KAFKA_RESP_ERR_INVALID_GROUP_ID),
    Code::of(E::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE),
    Code::of(E::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION),
];

/// Whether "there is no record at this offset" is about an earlier position than `from`: librdkafka gives such messages no
/// version (`rdkafka_offset.c:829-839`). One without an offset is about the log itself, which was truncated
/// (`rdkafka_offset.c:1044`).
pub(super) fn is_outdated(offset: i64, from: i64) -> bool {
    (0..from).contains(&offset)
}

/// The kind of an error of a question or of a set-up call.
pub(super) fn question_kind(code: Code) -> KafkaErrorKind {
    match notice(code) {
        Notice::Stop(_) if UNKNOWN_YET.contains(&code) => KafkaErrorKind::Retry,
        Notice::Stop(kind) => kind,
        Notice::Transient | Notice::End | Notice::OutOfRange => KafkaErrorKind::Retry,
    }
}

/// What a broker says of a topic that another one has just made. The start has seen all topics, so it passes.
const UNKNOWN_YET: [Code; 3] = [
    Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC),
    Code::of(E::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION),
];

impl KafkaError {
    /// An error of librdkafka outside transactions; `what` says what was being done, and to what.
    pub(super) fn from_fault(what: &str, fault: &Fault) -> Self {
        let kind = if fault.is_fatal { KafkaErrorKind::Fatal } else { question_kind(fault.code) };
        Self { kind, message: with_advice(format!("{what}: {} ({})", fault.message, fault.code), fault.code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(is_fatal, requires_abort, is_retriable)`
    type Flags = (bool, bool, bool);
    const NO_FLAG: Flags = (false, false, false);
    const FATAL: Flags = (true, false, false);
    const ABORT: Flags = (false, true, false);
    const RETRY: Flags = (false, false, true);

    fn kind(code: E, (is_fatal, requires_abort, is_retriable): Flags) -> TxnErrorKind {
        txn_kind(Code::of(code), is_fatal, requires_abort, is_retriable)
    }

    #[test]
    fn what_has_no_flag_is_fatal() {
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__STATE, NO_FLAG), TxnErrorKind::Fatal);
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__TIMED_OUT, NO_FLAG), TxnErrorKind::Fatal);
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, NO_FLAG), TxnErrorKind::Fatal);
        assert_eq!(txn_kind(Code(12_345), false, false, false), TxnErrorKind::Fatal);
    }

    #[test]
    fn the_group_moved_on_only_where_the_transaction_can_abort() {
        for code in [E::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, E::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID] {
            assert_eq!(kind(code, ABORT), TxnErrorKind::Moved);
            assert_eq!(kind(code, FATAL), TxnErrorKind::Fatal);
        }
    }

    #[test]
    fn a_second_instance_is_named_whatever_the_flag() {
        for flags in [NO_FLAG, FATAL, ABORT, RETRY] {
            assert_eq!(kind(E::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, flags), TxnErrorKind::FencedInstance);
        }
    }

    #[test]
    fn a_wrong_epoch_is_fenced_where_it_is_fatal() {
        for code in [
            E::RD_KAFKA_RESP_ERR__FENCED,
            E::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
            E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            E::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING,
        ] {
            assert_eq!(kind(code, FATAL), TxnErrorKind::Fenced);
            // librdkafka bumps the epoch by itself after an abort here: the producer lives.
            assert_eq!(kind(code, ABORT), TxnErrorKind::Abortable);
        }
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, FATAL), TxnErrorKind::Fatal);
    }

    #[test]
    fn a_call_that_ran_out_of_time_may_be_resumed() {
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__TIMED_OUT, RETRY), TxnErrorKind::TimedOut);
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__TIMED_OUT, ABORT), TxnErrorKind::Abortable);
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, RETRY), TxnErrorKind::Retriable);
    }

    #[test]
    fn calls_out_of_order_are_no_reason_to_try_again() {
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__CONFLICT, RETRY), TxnErrorKind::Fatal);
        assert_eq!(kind(E::RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS, RETRY), TxnErrorKind::Fatal);
    }

    #[test]
    fn what_a_person_must_mend_is_refused_whatever_the_flag() {
        for code in REFUSED {
            for (is_fatal, requires_abort, is_retriable) in [NO_FLAG, FATAL, ABORT, RETRY] {
                assert_eq!(txn_kind(code, is_fatal, requires_abort, is_retriable), TxnErrorKind::Refused, "{code}");
            }
        }
    }

    #[test]
    fn an_abort_flag_wins_over_a_retry_flag_and_fatal_over_both() {
        let code = Code::of(E::RD_KAFKA_RESP_ERR__TRANSPORT);
        assert_eq!(txn_kind(code, false, true, true), TxnErrorKind::Abortable);
        assert_eq!(txn_kind(code, true, true, true), TxnErrorKind::Fatal);
    }

    #[test]
    fn a_truncated_log_is_never_taken_for_old_news() {
        assert!(is_outdated(3, 7));
        assert!(!is_outdated(7, 7));
        assert!(!is_outdated(-1001, 7), "librdkafka's INVALID: the log lost what had been read");
    }

    #[test]
    fn a_consumer_stops_only_for_what_does_not_pass() {
        assert_eq!(notice(Code::of(E::RD_KAFKA_RESP_ERR__TRANSPORT)), Notice::Transient);
        assert_eq!(notice(Code::of(E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)), Notice::Transient);
        assert_eq!(notice(Code::of(E::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED)), Notice::Transient);
        assert_eq!(notice(Code::of(E::RD_KAFKA_RESP_ERR__PARTITION_EOF)), Notice::End);
        for unreadable in UNREADABLE {
            assert_eq!(notice(unreadable), Notice::Stop(KafkaErrorKind::Fatal), "what cannot be read is not skipped");
        }
        assert_eq!(notice(Code::of(E::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)), Notice::OutOfRange);
        assert_eq!(notice(FENCED_INSTANCE_ID), Notice::Stop(KafkaErrorKind::FencedInstance));
        assert_eq!(
            notice(Code::of(E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)),
            Notice::Stop(KafkaErrorKind::Config)
        );
        assert_eq!(notice(Code(12_345)), Notice::Transient);
    }
}
