//! The life of a transaction as types: [`Initialising`] → [`Clean`] producer → [`Open`] → [`Prepared`] →
//! [`CommitReceipt`].
//!
//! It is the runtime's own, and no stable API.
//!
//! Each step consumes the one before, so a transaction cannot be left open by accident (EO-5), offsets cannot be
//! committed before every record is acknowledged, nothing is applied without a receipt (EO-2), and a producer whose
//! requests may still be under way never begins another transaction (EO-11). What follows an error is decided by
//! [`processor_core::protocol::outcome`]; here it is carried out.

mod receipt;

pub use receipt::CommitReceipt;

use std::time::Duration;

use processor_core::protocol::outcome::{Phase, Step, TxnErrorKind, after_error};

use crate::clock::Clock;
use crate::kafka::{
    DeliveryTag, GroupMetadata, Membership, OffsetToCommit, ProducerRecord, Progress, RefusedRecord, Taint,
    TransactionalProducer, TxnError,
};
use crate::seeded_bugs::{self, Rule};

/// How long one call into the client may take before the budget is looked at again.
const CALL_MAX: Duration = Duration::from_millis(500);

/// How long a transaction may take of its `transaction.timeout.ms`: it ends before the broker would end it.
pub fn budget(timeout: Duration) -> Duration {
    timeout * 4 / 5
}

/// A producer that is being initialised: when that is through, every older one with its id is fenced, and what they left
/// open has ended.
#[derive(Debug)]
pub struct Initialising<P> {
    producer: P,
    since: Duration,
}

/// What a step of initialising has come to.
#[derive(Debug)]
pub enum Initialised<P> {
    /// The producer can begin transactions.
    Done(Clean<P>),
    /// It goes on.
    Pending(Initialising<P>),
    /// It took too long, and the producer was dropped: a client can wait for a coordinator that it will never reach, and
    /// a new one looks for it afresh.
    GivenUp,
}

impl<P: TransactionalProducer> Initialising<P> {
    /// Begins with a new producer.
    pub fn new<C: Clock>(producer: P, clock: &C) -> Self {
        Self { producer, since: clock.monotonic() }
    }

    /// Goes on for `wait`. After `patience` the producer is given up.
    ///
    /// # Errors
    /// What the broker says against it; the producer is dropped.
    pub fn step<C: Clock>(mut self, clock: &C, wait: Duration, patience: Duration) -> Result<Initialised<P>, TxnError> {
        match self.producer.init(wait)? {
            Progress::Done => Ok(Initialised::Done(Clean(self.producer))),
            Progress::Pending if clock.monotonic() >= self.since + patience => Ok(Initialised::GivenUp),
            Progress::Pending => Ok(Initialised::Pending(self)),
        }
    }
}

/// A producer of which no request is under way: the only kind that can begin a transaction.
#[derive(Debug)]
pub struct Clean<P>(P);

impl<P: TransactionalProducer> Clean<P> {
    /// Begins a transaction, which has to come to its end within `budget`.
    ///
    /// # Errors
    /// The producer is of no use any more.
    pub fn begin<C: Clock>(mut self, clock: &C, budget: Duration) -> Result<Open<P>, Broken> {
        match self.0.begin() {
            Ok(()) => Ok(Open { producer: self.0, deadline: clock.monotonic() + budget, tags: 0 }),
            Err(error) => Err(Broken::by(&error)),
        }
    }
}

/// A transaction that takes records.
#[derive(Debug)]
pub struct Open<P> {
    producer: P,
    deadline: Duration,
    tags: u16,
}

impl<P: TransactionalProducer> Open<P> {
    /// Hands a record to the producer.
    ///
    /// # Errors
    /// The transaction must end: see [`Open::fail`].
    pub fn send(&mut self, record: &ProducerRecord<'_>) -> Result<(), TxnError> {
        if record.tag != DeliveryTag::UNTRACKED {
            self.tags = self.tags.max(record.tag.0 + 1);
        }
        self.producer.send(record)
    }

    /// Waits until every record is acknowledged: part of the proof that a stable offset implies a complete changelog.
    ///
    /// # Errors
    /// The transaction must end: see [`Open::fail`].
    pub fn drain<C: Clock>(&mut self, clock: &C) -> Result<(), TxnError> {
        let deadline = self.deadline;
        repeat(Phase::BeforeCommit, clock, deadline, |left| self.producer.drain(left.min(CALL_MAX)))
            .map_err(|(_, error)| error)
    }

    /// The offset behind the last record delivered under this tag. Exact once drained.
    pub fn delivered_end(&self, tag: DeliveryTag) -> Option<i64> {
        self.producer.delivered_end(tag)
    }

    /// The same of every tag.
    fn delivered(&self) -> Vec<Option<i64>> {
        (0..self.tags).map(|tag| self.delivered_end(DeliveryTag(tag))).collect()
    }

    /// The first numbered record that was refused for what it is.
    pub fn refused(&self) -> Option<RefusedRecord> {
        self.producer.refused()
    }

    /// Adds the offsets.
    ///
    /// # Panics
    /// If there is none, or if the membership proves nothing (EO-12).
    ///
    /// # Errors
    /// How the transaction has ended instead.
    pub fn prepare<C: Clock>(
        mut self,
        clock: &C,
        offsets: &[OffsetToCommit<'_>],
        group: &P::GroupMetadata,
    ) -> Result<Prepared<P>, Ended<P>> {
        assert!(!offsets.is_empty(), "EO-12: a transaction without offsets is not fenced by the group");
        let Membership { generation, member_id } = group.membership();
        assert!(generation >= 0 && !member_id.is_empty(), "EO-12: the broker checks no membership of (-1, \"\")");
        // The ends that the offsets' metadata names: the caller has drained, or they would name others.
        let (deadline, delivered) = (self.deadline, self.delivered());
        if !seeded_bugs::holds(Rule::OffsetsGoWithOutputs)
            && let Err(error) = self.producer.commit(CALL_MAX).and_then(|()| self.producer.begin())
        {
            return Err(Ended::Broken(Broken::by(&error)));
        }
        // Not in slices: librdkafka cannot resume this call, a repeated one sends the request again.
        match repeat(Phase::BeforeCommit, clock, deadline, |left| self.producer.send_offsets(offsets, group, left)) {
            Ok(()) => Ok(Prepared { producer: self.producer, deadline, delivered }),
            Err((_, error)) => Err(self.fail(clock, &error)),
        }
    }

    /// Goes on without offsets: for a transaction of no task, that reads no input of the group and so holds none. What
    /// keeps two of them apart is the transactional id alone. A task's transaction is [prepared](Self::prepare) (EO-12).
    ///
    /// # Errors
    /// How the transaction has ended instead.
    pub fn prepare_without_offsets<C: Clock>(mut self, clock: &C) -> Result<Prepared<P>, Ended<P>> {
        match self.drain(clock) {
            Ok(()) => {
                let (deadline, delivered) = (self.deadline, self.delivered());
                Ok(Prepared { producer: self.producer, deadline, delivered })
            }
            Err(error) => Err(self.fail(clock, &error)),
        }
    }

    /// Ends the transaction after an error, in the way the protocol demands.
    pub fn fail<C: Clock>(self, clock: &C, error: &TxnError) -> Ended<P> {
        match after_error(Phase::BeforeCommit, error.kind, false) {
            Step::Rebuild { fenced } => Ended::Broken(Broken { fenced, refused: false, reason: error.to_string() }),
            Step::AbortAndPoll => self.abort(clock, Why::Moved(error.to_string())),
            Step::AbortAndRewind | Step::Again => {
                let silent = matches!(error.kind, TxnErrorKind::TimedOut | TxnErrorKind::Retriable);
                self.end(clock, Why::Failed(error.to_string()), silent)
            }
            Step::Stop if error.kind == TxnErrorKind::FencedInstance => {
                self.abort(clock, Why::FencedInstance(error.to_string()))
            }
            Step::Stop => self.abort(clock, Why::Refused(error.to_string())),
        }
    }

    /// Aborts the transaction.
    pub fn abort<C: Clock>(self, clock: &C, why: Why) -> Ended<P> {
        self.end(clock, why, false)
    }

    /// Aborts the transaction; `silent` where a call had no answer in time.
    fn end<C: Clock>(mut self, clock: &C, why: Why, silent: bool) -> Ended<P> {
        // An abort may take its own time: until it is through, neither this producer nor its successor can go on.
        let deadline = self.deadline.max(clock.monotonic() + CALL_MAX * 4);
        let abort = if seeded_bugs::holds(Rule::FailedBatchIsAborted) { P::abort } else { P::commit };
        match repeat(Phase::Aborting, clock, deadline, |left| abort(&mut self.producer, left.min(CALL_MAX))) {
            Ok(()) if silent => Ended::Aborted { why, next: Next::Spent(Spent::Silent) },
            Ok(()) => Ended::Aborted { why, next: after_end(self.producer, false) },
            Err((step, error)) => {
                let fenced = matches!(step, Step::Rebuild { fenced: true });
                Ended::Broken(Broken {
                    fenced,
                    refused: matches!(why, Why::Refused(_)),
                    reason: format!("{error}; the transaction was to abort because: {why}"),
                })
            }
        }
    }
}

/// A transaction with all its records acknowledged and its offsets added.
#[derive(Debug)]
pub struct Prepared<P> {
    producer: P,
    deadline: Duration,
    /// Of each tag, the offset behind its last record.
    delivered: Vec<Option<i64>>,
}

impl<P: TransactionalProducer> Prepared<P> {
    /// Aborts on purpose: a fence transaction has done its work once its offsets have reached the coordinator.
    pub fn abort<C: Clock>(self, clock: &C, why: Why) -> Ended<P> {
        Open { producer: self.producer, deadline: self.deadline, tags: 0 }.abort(clock, why)
    }

    /// A receipt without a commit, where a test has switched a rule off to show what that would do.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn forged_receipt(&self, rule: Rule) -> Option<CommitReceipt> {
        (!seeded_bugs::holds(rule)).then(|| CommitReceipt::new(self.delivered.clone()))
    }

    /// There is none.
    #[cfg(not(feature = "seeded-bugs"))]
    pub(crate) fn forged_receipt(&self, _rule: Rule) -> Option<CommitReceipt> {
        None
    }

    /// Commits. Only `Ok` is an answer; after anything else the outcome is unknown, the producer is gone, and every
    /// owned partition must be recovered.
    ///
    /// # Errors
    /// The outcome is unknown.
    pub fn commit<C: Clock>(mut self, clock: &C) -> Result<(CommitReceipt, Next<P>), Broken> {
        let deadline = self.deadline;
        match repeat(Phase::Committing, clock, deadline, |left| self.producer.commit(left.min(CALL_MAX))) {
            Ok(()) => Ok((CommitReceipt::new(self.delivered), after_end(self.producer, true))),
            Err((step, error)) => {
                let fenced = matches!(step, Step::Rebuild { fenced: true });
                Err(Broken { fenced, refused: false, reason: error.to_string() })
            }
        }
    }
}

/// How a transaction ended that did not commit.
#[derive(Debug)]
pub enum Ended<P> {
    /// It was aborted; nothing of it is visible.
    Aborted {
        /// Why.
        why: Why,
        /// What becomes of the producer.
        next: Next<P>,
    },
    /// The producer is gone; the broker aborts the transaction when a new producer of this id is initialised.
    Broken(Broken),
}

/// Why a transaction was aborted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It was a fence transaction: it ends so.
    #[error("fence transaction")]
    Fence,
    /// It held nothing: no record was gone past, and no punctuation left anything.
    #[error("nothing to commit")]
    Empty,
    /// A record or a call failed; the batch is tried again.
    #[error("{0}")]
    Failed(String),
    /// The batch cannot be committed as it is, and will be another one when it is tried again: smaller, because it takes too
    /// long for one transaction, or with a verdict on the record whose output was refused.
    #[error("{0}")]
    Otherwise(String),
    /// The group has moved on.
    #[error("{0}")]
    Moved(String),
    /// Another live member has the same `group.instance.id`.
    #[error("{0}")]
    FencedInstance(String),
    /// The broker refuses what only a person can mend.
    #[error("{0}")]
    Refused(String),
}

/// The producer can no longer be used, and the outcome of its transaction may be unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Whether a newer producer with its id, or the transaction time-out, put an end to it.
    pub fenced: bool,
    /// Whether it broke while it aborted what the broker refuses and only a person can mend: another one would meet the same.
    pub refused: bool,
    /// What happened.
    pub reason: String,
}

impl Broken {
    fn by(error: &TxnError) -> Self {
        Self { fenced: error.kind == TxnErrorKind::Fenced, refused: false, reason: error.to_string() }
    }
}

/// What becomes of a producer behind a transaction.
#[derive(Debug)]
pub enum Next<P> {
    /// It may begin another one.
    Clean(Clean<P>),
    /// It was dropped, and a new one with its id must be initialised.
    Spent(Spent),
}

/// Why a producer begins no other transaction though the last one has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// EO-11.
    #[error("a request may still arrive late: {0} (EO-11)")]
    Tainted(Taint),
    /// It had no answer in time, though nothing it sent is open: its client may have lost its way to the brokers for good.
    #[error("the brokers did not answer in time")]
    Silent,
}

fn after_end<P: TransactionalProducer>(producer: P, committed: bool) -> Next<P> {
    let taint = producer.taint();
    let tainted = taint.control.is_some() || (taint.produce && !committed);
    if tainted && seeded_bugs::holds(Rule::TaintedProducerIsReplaced) {
        Next::Spent(Spent::Tainted(taint))
    } else {
        Next::Clean(Clean(producer))
    }
}

/// Makes a resumable call until it says something final or the time is up.
fn repeat<C: Clock>(
    phase: Phase,
    clock: &C,
    deadline: Duration,
    mut call: impl FnMut(Duration) -> Result<(), TxnError>,
) -> Result<(), (Step, TxnError)> {
    loop {
        let left = deadline.saturating_sub(clock.monotonic());
        let Err(error) = call(left) else { return Ok(()) };
        let left = deadline.saturating_sub(clock.monotonic());
        let step = after_error(phase, error.kind, !left.is_zero());
        if step != Step::Again {
            return Err((step, error));
        }
    }
}
