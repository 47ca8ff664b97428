//! The transactional producer: thin, over the C API, driven by one thread.
//!
//! rdkafka's own producers give no way to add interceptors before the client is made, lose the flags of errors, and
//! wait 100 ms in every commit. Here a delivery report comes back for every record (so the ends of changelogs are exact
//! and a failure has a place), they are served by the calls of the owning thread, and what every request became is
//! counted (`requests.rs`).
//!
//! One call of librdkafka has no bound: `send_offsets` waits for the group's coordinator as long as it takes
//! (`rdkafka_txnmgr.c:2038`, `rdkafka_coord.c:242`: the deadline is set and never read), and it looks for one that has moved
//! only when a connection comes or goes (`rdkafka_coord.c:530`, lk#3847). That is for ever where the broker was
//! decommissioned. So it runs on a thread of its own, and a producer that does not come back is given up together with it:
//! soon at first, and later each time (`patience.rs`).
//!
//! IMPORTANT: the taint is forgotten at [`begin`](Producer::begin), which asserts that no control request is open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use processor_core::record::TargetPartition;
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::advice::with_advice;
use super::bounded::Bounded;
use super::consumer::GroupProof;
use super::deliveries::opaque;
use super::faults::txn_kind;
use super::ffi::{Client, Code, Fault, NativeRecord, PartitionList, TopicHandle};
use super::patience::Patience;
use super::{
    DeliveryTag, OffsetToCommit, ProducerRecord, Progress, RecordNumber, RefusedRecord, Taint, TransactionalId,
    TransactionalProducer, TxnError, TxnErrorKind,
};

/// How long one `send` waits for room in the client's queue.
const QUEUE_FULL_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long one wait for a delivery report is, while the queue is full.
const QUEUE_FULL_POLL: Duration = Duration::from_millis(10);
/// How long one attempt to initialise is. librdkafka looks only every 500 ms whether the coordinator is connected, or has
/// ended the transaction before, but a repeated call makes it look at once (`rdkafka_idempotence.c:747-762`; a request
/// that is out is not repeated). So short attempts bring a new producer up in 50 ms instead of 500 to 1,000.
const INIT_STEP: Duration = Duration::from_millis(20);
/// How much longer than asked for a call may take before its client is given up.
const OVERRUN_MAX: Duration = Duration::from_millis(500);
/// Delivery reports are served after this many records, so that delivered records give back their memory before the
/// drain. A power of two.
const SERVE_EVERY: u32 = 1024;
/// librdkafka takes 0 for "now", and brokers refuse what is negative.
const TIMESTAMP_MIN: i64 = 1;
/// What librdkafka calls "any partition": its partitioner chooses.
const ANY_PARTITION: i32 = -1;

/// A producer with a transactional id.
#[derive(Debug)]
pub struct Producer {
    /// Before the client, which the handles hold on to.
    topics: Vec<TopicHandle>,
    client: Arc<Client>,
    id: TransactionalId,
    sent: u32,
    /// Where the call without a bound is made,
    aside: Bounded,
    /// and for how long.
    offsets_patience: Patience,
}

impl Producer {
    /// Wraps a native producer whose output topics are `topics`.
    pub(super) fn new(
        client: Arc<Client>,
        id: TransactionalId,
        topics: &[Arc<str>],
        offsets_patience: Patience,
    ) -> Self {
        let topics = topics.iter().map(|topic| TopicHandle::new(&client, topic)).collect();
        Self { topics, client, id, sent: 0, aside: Bounded::new("send-offsets"), offsets_patience }
    }

    /// Its `transactional.id`.
    pub fn id(&self) -> &TransactionalId {
        &self.id
    }

    /// An error of a call, sorted. A fatal error of the client is behind every later one, so it gives the code.
    fn error(&self, call: &'static str, fault: Fault) -> TxnError {
        let fault = if fault.is_fatal { self.client.fatal_error().unwrap_or(fault) } else { fault };
        let kind = txn_kind(fault.code, fault.is_fatal, fault.requires_abort, fault.is_retriable);
        let message = with_advice(format!("{}: {}", self.id, fault.message), fault.code);
        TxnError { kind, call, code: fault.code.to_string(), message }
    }

    /// One attempt, or the continuation of one.
    fn try_init(&self, wait: Duration) -> Result<Progress, TxnError> {
        let Err(fault) = self.client.init_transactions(wait) else { return Ok(Progress::Done) };
        let error = self.error("init_transactions", fault);
        match error.kind {
            TxnErrorKind::TimedOut | TxnErrorKind::Retriable => Ok(Progress::Pending),
            TxnErrorKind::Abortable
            | TxnErrorKind::Moved
            | TxnErrorKind::FencedInstance
            | TxnErrorKind::Fenced
            | TxnErrorKind::Fatal
            | TxnErrorKind::Refused => Err(error),
        }
    }

    /// A record was refused or not written: the transaction can only abort, or worse.
    fn undelivered(&self, call: &'static str, code: Code, message: String) -> TxnError {
        let fault = match self.client.fatal_error() {
            Some(fatal) => fatal,
            None => self.cause_of(code).unwrap_or(Fault { requires_abort: true, ..Fault::bare(code, message) }),
        };
        self.error(call, fault)
    }

    /// Why records were dropped before they were sent: their transaction had failed already, for a reason that no delivery
    /// report has, such as a right that is missing. librdkafka gives it to whoever makes a call that is not valid now
    /// (`rdkafka_txnmgr.c:122-131`), and to begin is that inside a transaction.
    fn cause_of(&self, code: Code) -> Option<Fault> {
        let is_dropped = code == Code::of(E::RD_KAFKA_RESP_ERR__PURGE_QUEUE);
        let cause = is_dropped.then(|| self.client.begin_transaction().err()).flatten();
        cause.filter(|fault| fault.requires_abort)
    }

    fn first_undelivered(&self, call: &'static str) -> Option<TxnError> {
        let failure = self.client.callbacks().deliveries().first_failure().cloned()?;
        Some(self.undelivered(call, Code(failure.code), failure.message))
    }

    /// Makes room in the queue: waits for delivery reports, which end the wait.
    fn wait_for_room(&self, since: Instant) -> Result<(), TxnError> {
        if let Some(error) = self.first_undelivered("send") {
            return Err(error);
        }
        if since.elapsed() < QUEUE_FULL_WAIT_MAX {
            self.client.serve_deliveries(QUEUE_FULL_POLL);
            return Ok(());
        }
        let queue_full = Code::of(E::RD_KAFKA_RESP_ERR__QUEUE_FULL);
        let message = format!("{}: the producer's queue stayed full: are the brokers reachable?", self.id);
        Err(TxnError { kind: TxnErrorKind::TimedOut, call: "send", code: queue_full.to_string(), message })
    }

    /// Sends one record, waiting for room as long as is allowed.
    fn enqueue(&self, topic: &TopicHandle, record: &NativeRecord<'_>, number: RecordNumber) -> Result<(), TxnError> {
        let mut full_since = None;
        loop {
            let Err(fault) = topic.send(record) else { return Ok(()) };
            if fault.code != Code::of(E::RD_KAFKA_RESP_ERR__QUEUE_FULL) {
                self.client.callbacks().deliveries().refused_at_once(fault.code.0, number, &fault.message);
                return Err(self.refused_record(fault));
            }
            self.wait_for_room(*full_since.get_or_insert_with(Instant::now))?;
        }
    }

    /// "Not in this state" hides an earlier failure of the transaction: that one is told where it is known.
    fn refused_record(&self, fault: Fault) -> TxnError {
        let earlier = (fault.code == Code::of(E::RD_KAFKA_RESP_ERR__STATE)).then(|| {
            self.client.serve_deliveries(Duration::ZERO);
            self.first_undelivered("send")
        });
        earlier.flatten().unwrap_or_else(|| self.undelivered("send", fault.code, fault.message))
    }
}

impl TransactionalProducer for Producer {
    type GroupMetadata = GroupProof;

    fn init(&mut self, wait: Duration) -> Result<Progress, TxnError> {
        let started = Instant::now();
        loop {
            let left = wait.saturating_sub(started.elapsed());
            if self.try_init(left.min(INIT_STEP))? == Progress::Done {
                return Ok(Progress::Done);
            }
            if started.elapsed() >= wait {
                return Ok(Progress::Pending);
            }
        }
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.client.callbacks().requests().begin();
        self.client.serve_deliveries(Duration::ZERO); // of an abort before: they belong to no transaction any more
        self.client.callbacks().deliveries().clear();
        self.client.begin_transaction().map_err(|fault| self.error("begin_transaction", fault))
    }

    fn send(&mut self, record: &ProducerRecord<'_>) -> Result<(), TxnError> {
        let topic = self.topics.get(record.topic.slot()).expect("records name topics the producer was made with");
        let native = NativeRecord {
            partition: match record.partition {
                TargetPartition::Exactly(partition) => {
                    assert!(partition.get() >= 0, "a target partition is not negative");
                    partition.get()
                }
                TargetPartition::ByKey => ANY_PARTITION,
            },
            timestamp: record.timestamp.get().max(TIMESTAMP_MIN),
            key: record.key,
            value: record.value,
            headers: record.headers,
            opaque: opaque(record.tag, record.number),
        };
        self.enqueue(topic, &native, record.number)?;
        self.sent = self.sent.wrapping_add(1);
        if self.sent.is_multiple_of(SERVE_EVERY) {
            self.client.serve_deliveries(Duration::ZERO);
        }
        Ok(())
    }

    fn drain(&mut self, wait: Duration) -> Result<(), TxnError> {
        let code = self.client.flush(wait);
        if let Some(error) = self.first_undelivered("drain") {
            return Err(error);
        }
        if code == Code::NONE {
            return Ok(());
        }
        let message = "records are not acknowledged yet".to_owned();
        Err(self.error("drain", Fault { is_retriable: true, ..Fault::bare(code, message) }))
    }

    fn refused(&self) -> Option<RefusedRecord> {
        self.client.callbacks().deliveries().refused().cloned()
    }

    fn delivered_end(&self, tag: DeliveryTag) -> Option<i64> {
        self.client.callbacks().deliveries().end(tag)
    }

    fn send_offsets(
        &mut self,
        offsets: &[OffsetToCommit<'_>],
        group: &GroupProof,
        wait: Duration,
    ) -> Result<(), TxnError> {
        assert!(!offsets.is_empty(), "EO-12: librdkafka sends nothing for an empty list, and says OK");
        let mut list = PartitionList::with_capacity(offsets.len());
        for entry in offsets {
            let offset = entry.offset.get();
            assert!(offset >= 0, "EO-12: an offset is absolute; librdkafka sends nothing for {offset} and says OK");
            list.push_with_metadata(entry.partition, offset, entry.metadata);
        }
        let (client, group) = (self.client.clone(), group.native().clone());
        let patience = self.offsets_patience.now();
        let wait_max = patience.min(wait + OVERRUN_MAX);
        let asked_at = Instant::now();
        let sent = self.aside.call(wait_max, move || client.send_offsets(&list, &group, wait));
        let Some(sent) = sent else {
            if wait_max == patience {
                self.offsets_patience.was_too_short(patience);
            }
            let call = "send_offsets_to_transaction";
            let message = format!("{}: the client did not come back within {wait_max:?}", self.id);
            return Err(TxnError { kind: TxnErrorKind::Fatal, call, code: "NO_RETURN".to_owned(), message });
        };
        self.offsets_patience.was_enough(asked_at.elapsed());
        sent.map_err(|fault| self.error("send_offsets_to_transaction", fault))
    }

    fn commit(&mut self, wait: Duration) -> Result<(), TxnError> {
        self.client.commit_transaction(wait).map_err(|fault| self.error("commit_transaction", fault))
    }

    fn abort(&mut self, wait: Duration) -> Result<(), TxnError> {
        self.client.abort_transaction(wait).map_err(|fault| self.error("abort_transaction", fault))
    }

    fn taint(&self) -> Taint {
        let taint = self.client.callbacks().requests().taint();
        Taint { produce: taint.produce || self.client.callbacks().deliveries().has_gap(), ..taint }
    }
}

impl Drop for Producer {
    /// Throws away what is not on the wire, so that nothing of an open transaction is sent while a successor with the
    /// same id initialises; `Client` does the rest, without waiting long.
    fn drop(&mut self) {
        self.client.purge();
    }
}
