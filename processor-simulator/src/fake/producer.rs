//! The transactional producer of the fake.

use std::sync::Arc;
use std::time::Duration;

use processor_core::ids::{Partition, TopicPartition};
use processor_core::partition;
use processor_core::record::TargetPartition;
use processor_runtime::kafka::{
    DeliveryTag, GroupMetadata as _, OffsetToCommit, ProducerRecord, Progress, RecordNumber, RefusedRecord, Taint,
    TransactionalId, TransactionalProducer, TxnError, TxnErrorKind,
};

use super::Handle;
use super::cluster::{Call, Epoch, Fault, Model, Refusal};
use super::consumer::FakeMetadata;
use super::group::NotAMember;
use super::log::Written;

/// A producer with a transactional id.
///
/// It checks the order of its calls, as stated at [`TransactionalProducer`], and panics where the contract is broken:
/// using it after a commit without an answer is the caller's mistake, and must not look like a broker's.
#[derive(Debug)]
pub struct FakeProducer {
    handle: Handle,
    id: TransactionalId,
    topics: Vec<Arc<str>>,
    stage: Stage,
    init_calls_left: u32,
    /// Records that wait for the transaction before to be through.
    waiting: Vec<(TopicPartition, Written, DeliveryTag)>,
    delivered: Vec<Option<i64>>,
    failed: Option<TxnError>,
    refused: Option<RefusedRecord>,
    taint: Taint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Uninitialised,
    Ready(Epoch),
    InTransaction(Epoch),
    /// The commit has no answer, and never will.
    Unanswered,
    /// Fenced, or otherwise of no use.
    Dead,
}

impl FakeProducer {
    pub(super) fn new(handle: Handle, id: TransactionalId, topics: Vec<Arc<str>>) -> Self {
        Self {
            handle,
            id,
            topics,
            stage: Stage::Uninitialised,
            init_calls_left: 0,
            waiting: Vec::new(),
            delivered: Vec::new(),
            failed: None,
            refused: None,
            taint: Taint::default(),
        }
    }

    fn in_transaction(&self, call: &'static str) -> Result<Epoch, TxnError> {
        match self.stage {
            Stage::InTransaction(epoch) => Ok(epoch),
            Stage::Dead => Err(error(call, TxnErrorKind::Fatal, "the producer failed before")),
            Stage::Uninitialised | Stage::Ready(_) | Stage::Unanswered => {
                panic!("{call} of {} is called in stage {:?}", self.id, self.stage)
            }
        }
    }

    fn refused(&mut self, call: &'static str, refusal: Refusal) -> TxnError {
        let (kind, code) = match refusal {
            Refusal::Fenced => (TxnErrorKind::Fenced, "INVALID_PRODUCER_EPOCH"),
            Refusal::Concurrent => (TxnErrorKind::TimedOut, "CONCURRENT_TRANSACTIONS"),
            Refusal::InvalidState => (TxnErrorKind::Fatal, "INVALID_TXN_STATE"),
            Refusal::Group(NotAMember::Unknown) => (TxnErrorKind::Moved, "UNKNOWN_MEMBER_ID"),
            Refusal::Group(NotAMember::OtherGeneration) => (TxnErrorKind::Moved, "ILLEGAL_GENERATION"),
            Refusal::Group(NotAMember::Replaced) => (TxnErrorKind::FencedInstance, "FENCED_INSTANCE_ID"),
            Refusal::UnknownPartition => (TxnErrorKind::Refused, "UNKNOWN_TOPIC_OR_PARTITION"),
            Refusal::Away => (TxnErrorKind::TimedOut, "_TIMED_OUT"),
        };
        if matches!(kind, TxnErrorKind::Fenced | TxnErrorKind::Fatal) {
            self.stage = Stage::Dead;
        }
        TxnError { kind, call, code: code.to_owned(), message: format!("{} was refused by the model", self.id) }
    }

    fn struck(&mut self, call: &'static str, kind: TxnErrorKind) -> TxnError {
        if matches!(kind, TxnErrorKind::Fenced | TxnErrorKind::Fatal) {
            self.stage = Stage::Dead;
        }
        error(call, kind, "as the test asked for")
    }

    fn deliver(&mut self, model: &mut Model, epoch: Epoch) {
        while let Some((partition, written, tag)) = self.waiting.first().cloned() {
            match model.produce(&self.id, epoch, &partition, written) {
                Ok(offset) => self.note_delivery(tag, offset),
                Err(Refusal::Concurrent | Refusal::Away) => return,
                Err(refusal) => {
                    let refused = self.refused("produce", refusal);
                    self.failed.get_or_insert(refused);
                }
            }
            self.waiting.remove(0);
        }
    }

    fn note_delivery(&mut self, tag: DeliveryTag, offset: i64) {
        if tag == DeliveryTag::UNTRACKED {
            return;
        }
        let slot = usize::from(tag.0);
        if self.delivered.len() <= slot {
            self.delivered.resize(slot + 1, None);
        }
        self.delivered[slot] = self.delivered[slot].max(Some(offset + 1));
    }

    fn target(&self, model: &Model, record: &ProducerRecord<'_>) -> TopicPartition {
        let topic = &self.topics[record.topic.slot()];
        let partition = match (record.partition, record.key) {
            (TargetPartition::Exactly(partition), _) => partition,
            (TargetPartition::ByKey, Some(key)) => {
                partition::of_key(key, model.partitions(topic).max(1).unsigned_abs())
            }
            (TargetPartition::ByKey, None) => Partition::new(0),
        };
        TopicPartition::new(topic.clone(), partition)
    }
}

impl TransactionalProducer for FakeProducer {
    type GroupMetadata = FakeMetadata;

    fn init(&mut self, _wait: Duration) -> Result<Progress, TxnError> {
        let shared = self.handle.alive_txn("init_transactions")?;
        let mut model = shared.lock();
        assert!(self.stage == Stage::Uninitialised, "{} is initialised once", self.id);
        match model.strike(&self.id, Call::Init) {
            Some(Fault::InitTakes(calls)) => self.init_calls_left = calls,
            Some(Fault::InitFails(kind)) => return Err(error("init_transactions", kind, "as the test asked for")),
            _ => {}
        }
        if self.init_calls_left > 0 {
            self.init_calls_left -= 1;
            return Ok(Progress::Pending);
        }
        match model.init(&self.id) {
            Ok(epoch) => {
                self.stage = Stage::Ready(epoch);
                Ok(Progress::Done)
            }
            Err(Refusal::Concurrent | Refusal::Away) => Ok(Progress::Pending),
            Err(refusal) => Err(self.refused("init_transactions", refusal)),
        }
    }

    fn begin(&mut self) -> Result<(), TxnError> {
        self.handle.alive_txn("begin_transaction")?;
        match self.stage {
            Stage::Ready(epoch) => self.stage = Stage::InTransaction(epoch),
            Stage::Dead => return Err(error("begin_transaction", TxnErrorKind::Fatal, "the producer failed before")),
            Stage::Uninitialised | Stage::InTransaction(_) | Stage::Unanswered => {
                panic!("EO-5, EO-11: {} begins a transaction in stage {:?}", self.id, self.stage)
            }
        }
        self.waiting.clear();
        self.delivered.clear();
        self.failed = None;
        self.refused = None;
        self.taint = Taint::default();
        Ok(())
    }

    fn send(&mut self, record: &ProducerRecord<'_>) -> Result<(), TxnError> {
        let epoch = self.in_transaction("produce")?;
        let shared = self.handle.alive_txn("produce")?;
        let mut model = shared.lock();
        if let Some(Fault::SendFails(kind)) = model.strike(&self.id, Call::Send) {
            return Err(self.struck("produce", kind));
        }
        if record.number != RecordNumber::NONE && model.strike(&self.id, Call::SendNumbered).is_some() {
            let reason = "the record is too large for the topic".to_owned();
            self.failed.get_or_insert(error("produce", TxnErrorKind::Refused, &reason));
            self.refused.get_or_insert(RefusedRecord { number: record.number, reason });
            return Ok(());
        }
        assert!(record.timestamp.get() >= 1, "librdkafka takes timestamp 0 for now");
        let mut headers = Vec::new();
        record.headers.visit(|name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
        let written = Written {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp,
            headers,
        };
        self.waiting.push((self.target(&model, record), written, record.tag));
        self.deliver(&mut model, epoch);
        Ok(())
    }

    fn drain(&mut self, _wait: Duration) -> Result<(), TxnError> {
        // A producer that a refused record has killed still reports that record here.
        if let Some(failed) = self.failed.clone() {
            return Err(failed);
        }
        let epoch = self.in_transaction("flush")?;
        let shared = self.handle.alive_txn("flush")?;
        let mut model = shared.lock();
        if let Some(Fault::DrainFails(kind)) = model.strike(&self.id, Call::Drain) {
            return Err(self.struck("flush", kind));
        }
        self.deliver(&mut model, epoch);
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None if self.waiting.is_empty() => Ok(()),
            None => Err(error(
                "flush",
                TxnErrorKind::TimedOut,
                "the transaction before is not through, or a broker is away",
            )),
        }
    }

    fn refused(&self) -> Option<RefusedRecord> {
        self.refused.clone()
    }

    fn delivered_end(&self, tag: DeliveryTag) -> Option<i64> {
        self.delivered.get(usize::from(tag.0)).copied().flatten()
    }

    fn send_offsets(
        &mut self,
        offsets: &[OffsetToCommit<'_>],
        group: &FakeMetadata,
        _wait: Duration,
    ) -> Result<(), TxnError> {
        let call = "send_offsets_to_transaction";
        let epoch = self.in_transaction(call)?;
        let shared = self.handle.alive_txn(call)?;
        let mut model = shared.lock();
        assert!(
            self.waiting.is_empty() && self.failed.is_none(),
            "EO-3: {} sends offsets before it is drained",
            self.id
        );
        let fault = model.strike(&self.id, Call::SendOffsets);
        if let Some(Fault::SendOffsetsFails(kind)) = fault {
            return Err(self.struck(call, kind));
        }
        let own = |offset: &OffsetToCommit<'_>| {
            assert!(offset.offset.get() >= 0, "{} is committed at {}", offset.partition, offset.offset);
            assert!(offset.metadata.len() < 1024, "metadata of {} is too long", offset.partition);
            (offset.partition.clone(), offset.offset, offset.metadata.to_owned())
        };
        let offsets: Vec<_> = offsets.iter().map(own).collect();
        if fault == Some(Fault::SendOffsetsLeavesLateCopy) {
            self.taint.control = Some("TxnOffsetCommit");
            model.leave_late_offsets(&self.id, epoch, group.membership(), offsets.clone());
        }
        let added = model.add_offsets(&self.id, epoch, &group.membership(), offsets);
        added.map_err(|refusal| self.refused(call, refusal))
    }

    fn commit(&mut self, _wait: Duration) -> Result<(), TxnError> {
        let call = "commit_transaction";
        let timed_out = || error(call, TxnErrorKind::TimedOut, "as the test asked for");
        if self.stage == Stage::Unanswered {
            return Err(timed_out());
        }
        let epoch = self.in_transaction(call)?;
        let shared = self.handle.alive_txn(call)?;
        let mut model = shared.lock();
        let fault = model.strike(&self.id, Call::Commit);
        match fault {
            Some(Fault::CommitFails(kind)) => {
                self.stage = Stage::Dead;
                return Err(error(call, kind, "as the test asked for"));
            }
            Some(Fault::CommitTimesOut { took_effect: false }) => {
                self.stage = Stage::Unanswered;
                return Err(timed_out());
            }
            Some(Fault::CommitTorn) => {
                self.stage = Stage::Unanswered;
                model.tear(&self.id, epoch).map_err(|refusal| self.refused(call, refusal))?;
                return Err(timed_out());
            }
            Some(Fault::CommitLeavesLateCopy) => {
                self.taint.control = Some("EndTxn");
                model.leave_late_end(&self.id, epoch, true);
            }
            _ => {}
        }
        match model.end(&self.id, epoch, true, fault == Some(Fault::CommitHoldsMarkers)) {
            Ok(()) => {}
            // Asked again, it waits for the answer to the same request, and there is none.
            Err(Refusal::Away) => {
                self.stage = Stage::Unanswered;
                return Err(timed_out());
            }
            Err(refusal) => return Err(self.refused(call, refusal)),
        }
        if fault == Some(Fault::CommitTimesOut { took_effect: true }) {
            self.stage = Stage::Unanswered;
            return Err(timed_out());
        }
        self.stage = Stage::Ready(epoch);
        Ok(())
    }

    fn abort(&mut self, _wait: Duration) -> Result<(), TxnError> {
        let call = "abort_transaction";
        assert!(self.stage != Stage::Unanswered, "{} aborts after a commit without an answer", self.id);
        let epoch = self.in_transaction(call)?;
        let shared = self.handle.alive_txn(call)?;
        let mut model = shared.lock();
        match model.strike(&self.id, Call::Abort) {
            Some(Fault::AbortFails(kind)) => return Err(self.struck(call, kind)),
            Some(Fault::AbortLeavesLateCopy) => {
                self.taint.control = Some("EndTxn");
                model.leave_late_end(&self.id, epoch, false);
            }
            _ => {}
        }
        self.waiting.clear();
        model.end(&self.id, epoch, false, false).map_err(|refusal| self.refused(call, refusal))?;
        self.stage = Stage::Ready(epoch);
        Ok(())
    }

    fn taint(&self) -> Taint {
        self.taint.clone()
    }
}

fn error(call: &'static str, kind: TxnErrorKind, message: &str) -> TxnError {
    let code = match kind {
        TxnErrorKind::TimedOut => "_TIMED_OUT",
        TxnErrorKind::Retriable => "COORDINATOR_LOAD_IN_PROGRESS",
        TxnErrorKind::Abortable => "_STATE",
        TxnErrorKind::Moved => "ILLEGAL_GENERATION",
        TxnErrorKind::FencedInstance => "FENCED_INSTANCE_ID",
        TxnErrorKind::Fenced => "_FENCED",
        TxnErrorKind::Fatal => "_FATAL",
        TxnErrorKind::Refused => "TOPIC_AUTHORIZATION_FAILED",
    };
    TxnError { kind, call, code: code.to_owned(), message: message.to_owned() }
}
