//! The thread's place in the consumer group: what the group decides, and what to do about a member that lost its place.

use std::time::Duration;

use processor_core::ids::TopicPartition;

use super::{FENCES_MAX, FENCES_WITHIN, StreamThread, ThreadError, listed};
use crate::clock::Clock;
use crate::failpoints::{self, Failpoint};
use crate::kafka::{GroupConsumer, GroupEvent, Kafka, KafkaErrorKind, Membership};
use crate::state::StateDirectory;

/// How long a turn waits for something to happen when there is nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long it waits while answers or changelog records are under way.
const BUSY_WAIT: Duration = Duration::from_millis(1);
/// Consumers within [`FENCES_WITHIN`] that may be replaced after their session was lost.
const REJOINS_MAX: usize = 10;
/// A wait for a place in the group is logged so often.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Where the thread stands in the group.
#[derive(Debug)]
pub(super) enum Place {
    /// Not in it yet, or between two generations, since this time.
    Outside(Duration),
    /// The group took everything away without asking, at this time, and has not given anything since.
    Lost(Duration),
    /// In it, with what it was assigned under this membership.
    Inside(Membership),
}

impl<K: Kafka, S: StateDirectory, C: Clock> StreamThread<K, S, C> {
    pub(super) fn is_member(&self) -> bool {
        matches!(self.place, Place::Inside(_))
    }

    /// Serves the group and takes in records. No transaction is open here (EO-5).
    pub(super) fn poll(&mut self) -> Result<(), ThreadError> {
        // Records wait where an operator has asked for a commit before them, or where the last transaction has failed.
        let busy = !self.restorer.is_idle() || !self.is_ready() || !self.tasks.nothing_waits();
        let wait = if busy { BUSY_WAIT } else { IDLE_WAIT };
        let can_process = self.is_ready() && !self.tasks.is_empty() && self.tasks.nothing_waits();
        // What cannot be processed yet should stay with the consumer, but a poll has room for one record at least.
        let (mut records_max, mut bytes_max) = (1, self.plan.batch_bytes_max);
        if can_process {
            records_max = self.batch_size.records_max().min(self.plan.poll_records_max);
        } else if self.is_ready() && self.tasks.some_are_held() {
            // What they wait for may come behind much that they do not wait for.
            let (held_records_max, held_bytes_max) = self.held_max();
            let room = held_records_max.saturating_sub(self.tasks.waiting_len());
            records_max = self.batch_size.records_max().min(self.plan.poll_records_max).min(room).max(1);
            bytes_max = held_bytes_max.saturating_sub(self.tasks.waiting_bytes()).clamp(1, bytes_max);
        }
        let polled = self.consumer.poll(wait, records_max, bytes_max, &mut self.records, &mut self.events);
        match polled {
            Ok(()) => Ok(()),
            Err(error) if error.kind == KafkaErrorKind::FencedInstance => self.rejoin_or_stop(&error.message),
            Err(error) => Err(ThreadError(error.message)),
        }
    }

    /// Carries out what the group has decided.
    pub(super) fn follow_group(&mut self) -> Result<(), ThreadError> {
        for event in std::mem::take(&mut self.events) {
            match event {
                GroupEvent::Assigned { partitions, membership } => {
                    self.instruments.metrics.rebalances.increment(1);
                    tracing::info!(generation = membership.generation, partitions = %listed(&partitions), "assigned");
                    self.report_strangers(&partitions);
                    self.place = Place::Inside(membership);
                    self.assign(&partitions);
                }
                GroupEvent::Revoked { lost } => {
                    failpoints::at(Failpoint::InRevoke);
                    tracing::info!(lost, "revoked");
                    self.instruments.metrics.sessions_lost.increment(u64::from(lost));
                    let now = self.clock.monotonic();
                    self.place = if lost { Place::Lost(now) } else { Place::Outside(now) };
                    self.assign(&[]);
                }
                GroupEvent::OutOfRange { partition, reason } => {
                    return Err(ThreadError(format!(
                        "{partition}: {reason}: the record that is next to process is not there any more. Input was lost: retention \
                         deleted it before it was processed, the topic was made again, or an unclean leader was elected. Raise \
                         retention.ms above the longest downtime; to go on without the lost records set the group's offset with \
                         kafka-consumer-groups --reset-offsets"
                    )));
                }
            }
        }
        self.replace_member_that_hangs()
    }

    /// A static member that comes back within its session is given what it had, though it reads other topics now.
    fn report_strangers(&self, partitions: &[TopicPartition]) {
        let inputs = self.plan.topology.inputs();
        let strangers: Vec<_> = partitions.iter().filter(|it| !inputs.contains(&it.topic)).cloned().collect();
        if !strangers.is_empty() {
            tracing::error!(
                partitions = %listed(&strangers),
                "the group assigned partitions of topics that this program does not read, so nobody reads them: workers of another topology run, \
                 or this worker ran with one until a moment ago. Stop all workers until their sessions are over"
            );
        }
    }

    /// The broker says that our `group.instance.id` belongs to somebody else. That is a twin, or it is ourselves: a member
    /// whose session was lost goes on with heartbeats under no member id, and a coordinator that reloaded an older group
    /// knows another one. That client is of no use any more; a new one joins in our place. True twins take the place from
    /// each other in turn, and soon one of them has been fenced too often.
    pub(super) fn rejoin_or_stop(&mut self, reason: &str) -> Result<(), ThreadError> {
        let lost_now = self.events.iter().any(|event| matches!(event, GroupEvent::Revoked { lost: true }));
        let lost = lost_now || matches!(self.place, Place::Lost(_));
        let now = self.clock.monotonic();
        self.rejoined_at.retain(|&at| now < at + FENCES_WITHIN);
        if self.rejoined_at.len() >= if lost { REJOINS_MAX } else { FENCES_MAX } {
            return Err(self.instance_used_twice(reason));
        }
        tracing::warn!("the place in the group is lost, joining again ({reason})");
        self.rejoined_at.push(now);
        self.join_again()
    }

    /// A member that is out of the group for longer than any rebalance may last will not come back by itself.
    /// librdkafka 2.12 can hang so: a broker that comes back from a long pause may answer one metadata request without
    /// any broker, and the client drops the last one it knows while it looks for its coordinator.
    fn replace_member_that_hangs(&mut self) -> Result<(), ThreadError> {
        let (since, patience) = match self.place {
            Place::Outside(since) => (since, self.plan.outside_wait),
            Place::Lost(since) => (since, self.plan.lost_wait),
            Place::Inside(_) => return Ok(()),
        };
        let now = self.clock.monotonic();
        if now >= since.max(self.reminded_at) + REMIND_EVERY {
            self.reminded_at = now;
            tracing::warn!(
                "not in the group for {:.0?}: waiting for its coordinator, or for the other members \
                 (kafka-consumer-groups --describe --members shows them)",
                now.saturating_sub(since)
            );
        }
        if now < since + patience {
            return Ok(());
        }
        tracing::warn!("not in the group for {patience:?}: a new client joins");
        self.join_again()
    }

    /// Puts a new client in the place of the group member.
    fn join_again(&mut self) -> Result<(), ThreadError> {
        self.events.clear();
        self.records.clear();
        self.place = Place::Lost(self.clock.monotonic());
        self.instruments.metrics.rejoins.increment(1);
        self.assign(&[]);
        let consumer = self.kafka.consumer(&self.plan.member, self.plan.topology.inputs());
        self.consumer = consumer.map_err(|error| ThreadError(error.message))?;
        Ok(())
    }

    fn instance_used_twice(&self, reason: &str) -> ThreadError {
        let id = self.plan.member.group_instance_id.as_deref().unwrap_or("none");
        ThreadError(format!(
            "the group.instance.id '{id}' is used by another live worker, so this one stops ({reason}): give every worker its own --instance-id"
        ))
    }
}
