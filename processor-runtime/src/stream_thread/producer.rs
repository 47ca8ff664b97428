//! The thread's two producers, which work in turn: made, replaced when they are spent, and what follows when a transaction
//! does not commit.
//!
//! When a commit is answered the brokers still write its markers, and take no other transaction of the same producer
//! until they have: a client asks again every 20 ms. The other producer's transaction begins at once. It begins behind the
//! answer, so there is one transaction at a time, and what the first has committed is the base of the second.

use std::time::Duration;

use processor_core::ids::Offset;

use super::{FENCES_MAX, FENCES_WITHIN, Footing, ONE_FENCE, StreamThread, ThreadError};
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{Kafka, OffsetToCommit, PRODUCERS, TxnErrorKind};
use crate::metrics::CommitResult;
use crate::seeded_bugs::{self, Rule};
use crate::state::StateDirectory;
use crate::tasks::Running;
use crate::transaction::{self, Broken, Clean, Ended, Initialised, Initialising, Next, Spent, Why};

/// How long one turn may spend on initialising each producer.
const INIT_SLICE: Duration = Duration::from_millis(100);
/// How long to wait before a producer is made again whose initialisation was refused.
const MAKE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long to wait before a batch is tried again whose transaction has failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The two producers.
///
/// While one of them is being replaced the other one rests: a late request of the old producer counts until its successor
/// is initialised, and could set offsets back behind what the other has committed meanwhile (EO-11).
#[derive(Debug)]
pub(super) struct Producers<P> {
    slots: [Slot<P>; PRODUCERS],
    /// Whose transaction is open, or begins next.
    turn: usize,
}

#[derive(Debug)]
struct Slot<P> {
    producer: State<P>,
    /// Its next transaction must be a fence transaction.
    fence_due: bool,
}

/// Where a producer is.
#[derive(Debug)]
enum State<P> {
    /// Nowhere; a new one must be made, not before this time. Or its transaction is open.
    Missing(Duration),
    /// On its way.
    Initialising(Initialising<P>),
    /// There.
    Ready(Clean<P>),
}

impl<P> Producers<P> {
    pub(super) fn new(producers: [Clean<P>; PRODUCERS], fence_due: bool) -> Self {
        let slots = producers.map(|producer| Slot { producer: State::Ready(producer), fence_due });
        Self { slots, turn: 0 }
    }

    /// Whether a transaction may begin.
    pub(super) fn are_ready(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot.producer, State::Ready(_)))
    }

    /// Whether the next transaction must be a fence transaction.
    pub(super) fn fence_is_due(&self) -> bool {
        self.slots.iter().any(|slot| slot.fence_due)
    }

    /// Gives the turn to one that must begin with a fence transaction, if there is one.
    fn turn_to_fence(&mut self) -> bool {
        let due = self.slots.iter().position(|slot| slot.fence_due);
        self.turn = due.unwrap_or(self.turn);
        due.is_some()
    }

    fn fenced_late_offsets(&mut self) {
        self.slots[self.turn].fence_due = false;
    }

    /// Takes the producer whose turn it is.
    fn take(&mut self, now: Duration) -> Option<Clean<P>> {
        if !self.are_ready() {
            return None;
        }
        match std::mem::replace(&mut self.slots[self.turn].producer, State::Missing(now)) {
            State::Ready(producer) => Some(producer),
            State::Missing(_) | State::Initialising(_) => unreachable!("it is ready"),
        }
    }

    /// The transaction is over: the other one's turn.
    fn set(&mut self, producer: State<P>) {
        self.slots[self.turn].producer = producer;
        self.turn = (self.turn + 1) % PRODUCERS;
    }

    /// Whoever has fenced one has fenced the other.
    fn replace_all(&mut self, now: Duration) {
        for slot in &mut self.slots {
            slot.producer = State::Missing(now);
        }
    }
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    /// Takes a producer for a transaction, which gives it back at its end.
    pub(super) fn take_ready(&mut self) -> Option<Clean<K::Producer>> {
        self.producers.take(self.clock.monotonic())
    }

    /// A producer that is gone is replaced by one with the same id; initialising it ends whatever the old one left.
    pub(super) fn initialise_producers(&mut self) -> Result<(), ThreadError> {
        if self.producers.are_ready() {
            return Ok(());
        }
        // All are asked before one is waited for.
        for wait in [Duration::ZERO, INIT_SLICE] {
            for slot in 0..PRODUCERS {
                self.initialise_producer(slot, wait)?;
            }
        }
        Ok(())
    }

    fn initialise_producer(&mut self, slot: usize, wait: Duration) -> Result<(), ThreadError> {
        let now = self.clock.monotonic();
        let place = &mut self.producers.slots[slot].producer;
        let initialising = match std::mem::replace(place, State::Missing(now)) {
            State::Initialising(initialising) => initialising,
            State::Missing(make_at) if make_at <= now => {
                self.instruments.metrics.producer_rebuilds.increment(1);
                let id = &self.plan.transactional_id.of_both()[slot];
                let made = self.kafka.producer(id, &self.producer_topics);
                Initialising::new(made.map_err(|error| ThreadError(error.message))?, &self.clock)
            }
            other @ (State::Ready(_) | State::Missing(_)) => {
                *place = other;
                return Ok(());
            }
        };
        let patience = self.plan.transaction_timeout;
        let slot = &mut self.producers.slots[slot];
        match initialising.step(&self.clock, wait, patience) {
            Ok(Initialised::Done(producer)) => {
                slot.producer = State::Ready(producer);
                slot.fence_due = self.plan.fence_after_rebuild && seeded_bugs::holds(Rule::FenceComesFirst);
                failpoints::at(Failpoint::AfterRebuild);
            }
            Ok(Initialised::Pending(initialising)) => slot.producer = State::Initialising(initialising),
            Ok(Initialised::GivenUp) => {
                tracing::warn!("initialising transactions has not ended in {patience:?}: a new producer tries");
            }
            Err(error) if error.kind == TxnErrorKind::Refused => return Err(self.refused(&error.to_string())),
            Err(error) => {
                tracing::warn!("initialising transactions failed, it is tried again: {error}");
                slot.producer = State::Missing(now + MAKE_AGAIN_AFTER);
                if error.kind == TxnErrorKind::Fenced {
                    self.count_fence(&error.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Where the broker does not verify transactions, a late `TxnOffsetCommit` of the producer's predecessor would be
    /// taken into its successor's first transaction, or stay there pending and keep every recovery from reading the
    /// offsets. So the first transaction is one that aborts, as soon as the thread is a member: from then on the group's
    /// coordinator knows the new epoch and refuses the old one, and what was pending under the producer's id is gone. It
    /// never commits, so any offset will do.
    pub(super) fn fence_late_offsets(&mut self) -> Result<(), ThreadError> {
        if !self.producers.are_ready()
            || !self.is_member()
            || self.owned.is_empty()
            || self.clock.monotonic() < self.try_at
            || !self.producers.turn_to_fence()
        {
            return Ok(());
        }
        let Some(producer) = self.take_ready() else { return Ok(()) };
        let budget = transaction::budget(self.plan.transaction_timeout);
        let transaction = match producer.begin(&self.clock, budget) {
            Ok(transaction) => transaction,
            Err(broken) => return self.broken(&broken, 0),
        };
        let group = match self.checked_membership() {
            Ok(group) => group,
            Err(why) => return self.ended(transaction.abort(&self.clock, why), 0),
        };
        let offset = |partition| OffsetToCommit { partition, offset: Offset::new(0), metadata: "" };
        let offsets: Vec<_> = self.owned.iter().map(offset).collect();
        match transaction.prepare(&self.clock, &offsets, &group) {
            Ok(prepared) => {
                self.producers.fenced_late_offsets();
                self.ended(prepared.abort(&self.clock, Why::Fence), 0)
            }
            Err(ended) => self.ended(ended, 0),
        }
    }

    /// A transaction of so many records has ended without a commit.
    pub(super) fn ended(&mut self, ended: Ended<K::Producer>, records: usize) -> Result<(), ThreadError> {
        let (why, next) = match ended {
            Ended::Aborted { why, next } => (why, next),
            Ended::Broken(broken) => return self.broken(&broken, records),
        };
        self.set_producer(next);
        if matches!(why, Why::Empty | Why::Fence) {
            return Ok(()); // no task holds anything of it, so there is nothing to abandon
        }
        failpoints::at(Failpoint::AfterAbort);
        if seeded_bugs::holds(Rule::AbortedBatchIsReadAgain) {
            self.abandon_batch();
        }
        self.instruments.metrics.not_committed(CommitResult::Aborted);
        match why {
            Why::Empty | Why::Fence => {}
            Why::Otherwise(reason) => tracing::warn!("transaction aborted, its records are processed again: {reason}"),
            Why::Failed(reason) => {
                tracing::warn!("transaction aborted, its records are processed again: {reason}");
                self.try_later(records);
            }
            Why::Moved(reason) => {
                tracing::info!("transaction aborted, waiting for the rebalance: {reason}");
                self.footing = Footing::Moved(self.clock.monotonic());
            }
            Why::FencedInstance(reason) => return self.rejoin_or_stop(&reason),
            Why::Refused(reason) => return Err(self.refused(&reason)),
        }
        Ok(())
    }

    /// The producer is gone, and perhaps nobody knows how its transaction ended: the changelog does.
    pub(super) fn broken(&mut self, broken: &Broken, records: usize) -> Result<(), ThreadError> {
        self.instruments.metrics.not_committed(CommitResult::Unknown);
        if broken.refused {
            return Err(self.refused(&broken.reason));
        }
        tracing::warn!(fenced = broken.fenced, "the producer is replaced and every task recovered: {}", broken.reason);
        let now = self.clock.monotonic();
        if broken.fenced {
            self.producers.replace_all(now);
        }
        self.producers.set(State::Missing(now));
        self.abandon_batch();
        self.try_later(records);
        if seeded_bugs::holds(Rule::SilenceIsNotAnAbort) {
            self.footing = Footing::InDoubt;
        }
        if broken.fenced { self.count_fence(&broken.reason) } else { Ok(()) }
    }

    /// The same batch would fail again, if it was too much for what the brokers can take just now.
    fn try_later(&mut self, records: usize) {
        self.batch_size.failed(records);
        self.try_at = self.clock.monotonic() + TRY_AGAIN_AFTER;
    }

    /// The batch is void: what was polled is read again, from where the tasks stood before it.
    fn abandon_batch(&mut self) {
        self.records.clear();
        self.tasks.iter_mut().for_each(Running::abandon);
        self.refetch = true;
    }

    pub(super) fn set_producer(&mut self, next: Next<K::Producer>) {
        self.producers.set(match next {
            Next::Clean(producer) => State::Ready(producer),
            Next::Spent(reason) => {
                if let Spent::Tainted(taint) = &reason {
                    self.instruments.metrics.tainted(taint.api());
                }
                tracing::warn!("the producer is replaced: {reason}");
                State::Missing(self.clock.monotonic())
            }
        });
    }

    fn count_fence(&mut self, reason: &str) -> Result<(), ThreadError> {
        self.instruments.metrics.fenced.increment(1);
        let now = self.clock.monotonic();
        self.fenced_at.retain(|&at| now < at + FENCES_WITHIN);
        if self.fenced_at.last().is_none_or(|&last| now >= last + ONE_FENCE) {
            self.fenced_at.push(now);
        }
        if self.fenced_at.len() <= FENCES_MAX {
            return Ok(());
        }
        let id = &self.plan.transactional_id;
        Err(ThreadError(format!(
            "the transactional id '{id}' was fenced {} times in five minutes ({reason}): another process uses it (is the same instance id \
             given to two workers?), or transactions take longer than transaction.timeout.ms",
            self.fenced_at.len()
        )))
    }

    fn refused(&self, reason: &str) -> ThreadError {
        ThreadError(format!(
            "the broker refuses what transactional id '{}' asks for, and trying again will not help: {reason}",
            self.plan.transactional_id
        ))
    }
}
