//! What a client has sent and not heard back: the taint detector of law EO-11 for a producer, and for a group member
//! whether it is on its way into another generation (EO-12).
//!
//! librdkafka re-sends a request after a timeout or a broken connection and then reports success, and the broker cannot
//! tell the late first copy from a request of the next transaction. So every request that carries transactional state
//! is counted when it has been written to the socket and counted off when its answer has been read; any that failed in
//! between stays on record until the next transaction begins.
//!
//! NOTE: the answers cannot be matched by correlation id: librdkafka 2.12.1 gives the interceptor the id of a header
//! that it never fills for requests (`rdkafka_buf.c:482`, always 0). Counting does the same work, because requests and
//! their answers pass through the same broker thread in order. For a request whose answer is handed to another thread
//! the hook fires a second time on that thread; only the first, on the broker thread, counts.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::Taint;
use crate::seeded_bugs::{self, Rule};

/// A kind of request whose late copy would harm a later transaction, or whose answer someone waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// Records.
    Produce,
    /// Adds a partition to the transaction.
    AddPartitionsToTxn,
    /// Adds the group's offsets partition to the transaction.
    AddOffsetsToTxn,
    /// Commits or aborts.
    EndTxn,
    /// The offsets themselves.
    TxnOffsetCommit,
    /// A member asks for a place in the next generation.
    JoinGroup,
    /// A member is told what it owns in it.
    SyncGroup,
    /// A member says goodbye.
    LeaveGroup,
    /// A member where the broker assigns says that it lives, what it has given up, or goodbye.
    ConsumerGroupHeartbeat,
}

impl Api {
    const ALL: [Self; 9] = [
        Self::Produce,
        Self::AddPartitionsToTxn,
        Self::AddOffsetsToTxn,
        Self::EndTxn,
        Self::TxnOffsetCommit,
        Self::JoinGroup,
        Self::SyncGroup,
        Self::LeaveGroup,
        Self::ConsumerGroupHeartbeat,
    ];
    const CONTROL: [Self; 4] = [Self::AddPartitionsToTxn, Self::AddOffsetsToTxn, Self::TxnOffsetCommit, Self::EndTxn];

    /// The request kind behind Kafka's `ApiKey`, where it matters here.
    pub(super) fn from_key(key: i16) -> Option<Self> {
        match key {
            0 => Some(Self::Produce),
            11 => Some(Self::JoinGroup),
            13 => Some(Self::LeaveGroup),
            14 => Some(Self::SyncGroup),
            24 => Some(Self::AddPartitionsToTxn),
            25 => Some(Self::AddOffsetsToTxn),
            26 => Some(Self::EndTxn),
            28 => Some(Self::TxnOffsetCommit),
            68 => Some(Self::ConsumerGroupHeartbeat),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::AddPartitionsToTxn => "AddPartitionsToTxn",
            Self::AddOffsetsToTxn => "AddOffsetsToTxn",
            Self::EndTxn => "EndTxn",
            Self::TxnOffsetCommit => "TxnOffsetCommit",
            Self::JoinGroup => "JoinGroup",
            Self::SyncGroup => "SyncGroup",
            Self::LeaveGroup => "LeaveGroup",
            Self::ConsumerGroupHeartbeat => "ConsumerGroupHeartbeat",
        }
    }
}

/// The count of one kind of request.
#[derive(Debug, Default)]
struct Traffic {
    unanswered: AtomicI64,
    failed: AtomicBool,
    /// Answered or given up, since the client was made. One failure may count twice.
    over: AtomicU64,
}

/// The requests of one client. Written by librdkafka's threads, read by the thread that owns the client.
#[derive(Debug, Default)]
pub(super) struct Requests {
    by_api: [Traffic; Api::ALL.len()],
    /// A `JoinGroup` was sent, and no `SyncGroup` answered since.
    joining: AtomicBool,
}

impl Requests {
    fn of(&self, api: Api) -> &Traffic {
        &self.by_api[api as usize]
    }

    /// The request has been written to the broker's socket as a whole.
    pub(super) fn sent(&self, api: Api) {
        self.of(api).unanswered.fetch_add(1, Ordering::AcqRel);
        if api == Api::JoinGroup {
            self.joining.store(true, Ordering::Release);
        }
    }

    /// The broker's answer has been read, whatever it says.
    pub(super) fn answered(&self, api: Api) {
        let traffic = self.of(api);
        traffic.unanswered.fetch_sub(1, Ordering::AcqRel);
        traffic.over.fetch_add(1, Ordering::AcqRel);
        if api == Api::SyncGroup {
            self.joining.store(false, Ordering::Release);
        }
    }

    /// Whether the member is between two generations: the generation that librdkafka names is then already the next one,
    /// and what it was assigned still of the one before.
    pub(super) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Acquire)
    }

    /// There will be no answer: a timeout or a broken connection.
    pub(super) fn failed(&self, api: Api) {
        self.of(api).failed.store(true, Ordering::Release);
        self.of(api).over.fetch_add(1, Ordering::AcqRel);
    }

    /// Rises when a request of this kind is answered or given up.
    pub(super) fn times_over(&self, api: Api) -> u64 {
        self.of(api).over.load(Ordering::Acquire)
    }

    /// What may still arrive late.
    pub(super) fn taint(&self) -> Taint {
        let is_open = |api: &Api| {
            let traffic = self.of(*api);
            traffic.failed.load(Ordering::Acquire) || traffic.unanswered.load(Ordering::Acquire) != 0
        };
        Taint {
            control: Api::CONTROL.iter().find(|api| is_open(api)).map(|api| api.name()),
            produce: is_open(&Api::Produce),
        }
    }

    /// Forgets the transaction before. A produce request that failed and was repeated successfully within a committed
    /// transaction is no danger; a control request is (EO-11).
    pub(super) fn begin(&self) {
        let taint = self.taint();
        assert!(
            taint.control.is_none() || !seeded_bugs::holds(Rule::TaintedProducerIsReplaced),
            "EO-11: a tainted producer must not begin another transaction ({} may still arrive)",
            taint.control.unwrap_or_default(),
        );
        for traffic in &self.by_api {
            traffic.unanswered.store(0, Ordering::Release);
            traffic.failed.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answered_requests_leave_no_taint() {
        let requests = Requests::default();
        for api in Api::ALL {
            requests.sent(api);
            requests.answered(api);
        }
        assert_eq!(requests.taint(), Taint::default());
        requests.begin();
    }

    #[test]
    fn a_request_without_an_answer_taints() {
        let requests = Requests::default();
        requests.sent(Api::TxnOffsetCommit);
        assert_eq!(requests.taint(), Taint { control: Some("TxnOffsetCommit"), produce: false });
    }

    #[test]
    fn a_failed_request_taints_even_after_its_retry_was_answered() {
        let requests = Requests::default();
        requests.sent(Api::EndTxn);
        requests.failed(Api::EndTxn);
        requests.sent(Api::EndTxn);
        requests.answered(Api::EndTxn);
        assert_eq!(requests.taint().control, Some("EndTxn"));
    }

    #[test]
    fn a_member_is_between_generations_from_its_join_until_it_is_synced() {
        let requests = Requests::default();
        assert!(!requests.is_joining());
        requests.sent(Api::JoinGroup);
        requests.answered(Api::JoinGroup);
        requests.sent(Api::SyncGroup);
        assert!(requests.is_joining());
        requests.answered(Api::SyncGroup);
        assert!(!requests.is_joining());
    }

    #[test]
    fn a_failed_produce_is_forgotten_by_the_next_transaction() {
        let requests = Requests::default();
        requests.sent(Api::Produce);
        requests.failed(Api::Produce);
        assert_eq!(requests.taint(), Taint { control: None, produce: true });
        requests.begin();
        assert_eq!(requests.taint(), Taint::default());
    }

    #[test]
    #[should_panic(expected = "EO-11")]
    fn a_tainted_producer_cannot_begin() {
        let requests = Requests::default();
        requests.sent(Api::AddOffsetsToTxn);
        requests.begin();
    }
}
