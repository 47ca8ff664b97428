//! A member under the protocol of KIP-848, where the broker assigns and callbacks carry differences.
//!
//! The rule: only a poll answers the group, in its callback or before. With an answer a member acknowledges what it gave up, and
//! somebody else has it from then on; an answer from anywhere else would come before the thread that owns the client has heard of
//! it. So
//! [`fetch_exactly`](Client::fetch_exactly) leaves the assignment alone. What is owned is assigned once, paused and at an offset
//! that nobody reads from; fetching is seeking and resuming, not fetching is pausing. Each of them outdates what was fetched
//! before, as a new assignment does.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use processor_core::ids::TopicPartition;
use rdkafka::bindings as rd;

use super::partitions::entries;
use super::{Callbacks, Client, Code, Fault, Membership, PartitionList, Rebalance, c_millis, raw, read_group, text};

/// How long a partition that was just assigned may take until it can be read from: a few steps of librdkafka's main thread.
const SEEK_WAIT_MAX: Duration = Duration::from_secs(5);

/// Whether callbacks carry differences.
///
/// # Safety
/// The handle is valid.
pub(super) unsafe fn is_incremental(handle: *mut rd::rd_kafka_t) -> bool {
    // SAFETY: by the contract; the answer is a static string.
    unsafe { text(rd::rd_kafka_rebalance_protocol(handle)) == "COOPERATIVE" }
}

/// Answers the group and writes down what is owned now, as the loop wants to hear it: all of it, behind the end of what was
/// owned before. A revoke that is not for good is followed by an assign, if only of nothing (`rdkafka_cgrp.c:6331-6352`).
///
/// # Safety
/// Called in a poll, with a valid handle and its client's state.
pub(super) unsafe fn rebalance(
    handle: *mut rd::rd_kafka_t,
    state: &Callbacks,
    is_assign: bool,
    partitions: Vec<TopicPartition>,
) {
    let mut owned = state.owned.lock().unwrap_or_else(PoisonError::into_inner);
    let list = unread(&partitions);
    // SAFETY: handle and list are valid; the list is copied where it is kept.
    unsafe {
        // Whatever is fetched was owned before.
        set_paused(handle, unread(&owned), true);
        if is_assign {
            set_paused(handle, unread(&partitions), true);
            answered(rd::rd_kafka_incremental_assign(handle, list.as_ptr()), "assign");
            // librdkafka may not have known them before.
            set_paused(handle, unread(&partitions), true);
            if !owned.is_empty() {
                state.rebalances().push(Rebalance::Revoked { lost: false });
            }
            owned.extend(partitions);
            owned.sort();
            let membership = read_group(handle).map_or_else(Membership::none, |group| group.membership().clone());
            state.rebalances().push(Rebalance::Assigned { partitions: owned.clone(), membership });
        } else {
            let is_lost = rd::rd_kafka_assignment_lost(handle) != 0;
            answered(rd::rd_kafka_incremental_unassign(handle, list.as_ptr()), "unassign");
            owned.retain(|partition| !partitions.contains(partition));
            state.rebalances().push(Rebalance::Revoked { lost: is_lost });
        }
    }
}

/// The partitions at an offset that nobody reads from: their end. A partition that librdkafka did not know can be fetched
/// for a moment before it is paused. An end is never out of range, as an absolute offset may be, which would stop that
/// partition for good (`auto.offset.reset` is `error`); whatever comes from there is outdated by the seek.
fn unread(partitions: &[TopicPartition]) -> PartitionList {
    PartitionList::of(partitions.iter().map(|partition| (partition, i64::from(rd::RD_KAFKA_OFFSET_END))))
}

fn answered(error: *mut rd::rd_kafka_error_t, what: &str) {
    if let Err(fault) = Fault::take(error) {
        tracing::warn!(code = %fault.code, "librdkafka refused to {what} partitions: {}", fault.message);
    }
}

/// Pauses or resumes; a partition that librdkafka does not know is passed over.
///
/// # Safety
/// The handle is valid.
unsafe fn set_paused(handle: *mut rd::rd_kafka_t, mut list: PartitionList, is_paused: bool) {
    // SAFETY: handle and list are valid; the codes in the list are of no interest.
    unsafe {
        if is_paused {
            raw::rd_kafka_pause_partitions(handle, list.as_mut_ptr());
        } else {
            raw::rd_kafka_resume_partitions(handle, list.as_mut_ptr());
        }
    }
}

impl Client {
    /// Fetches exactly these of the partitions that are owned; what was fetched before is outdated and never delivered.
    pub(in crate::kafka) fn fetch_exactly(
        &self,
        owned: &[TopicPartition],
        positions: &[(TopicPartition, i64)],
    ) -> Result<(), Fault> {
        // SAFETY: the handle is valid.
        unsafe { set_paused(self.raw(), unread(owned), true) };
        let deadline = Instant::now() + SEEK_WAIT_MAX;
        let mut left = positions.to_vec();
        while !left.is_empty() {
            left = self.seek(&left, deadline.saturating_duration_since(Instant::now()))?;
            if !left.is_empty() && Instant::now() >= deadline {
                let what = format!("{} cannot be read from yet", left[0].0);
                return Err(Fault::bare(Code::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__STATE), what));
            }
        }
        let wanted = PartitionList::of(positions.iter().map(|(partition, offset)| (partition, *offset)));
        // SAFETY: the handle is valid.
        unsafe { set_paused(self.raw(), wanted, false) };
        Ok(())
    }

    /// Moves the positions; those that could not be moved yet. Waits for the main thread's answer to each.
    fn seek(&self, positions: &[(TopicPartition, i64)], wait: Duration) -> Result<Vec<(TopicPartition, i64)>, Fault> {
        let mut list = PartitionList::of(positions.iter().map(|(partition, offset)| (partition, *offset)));
        // SAFETY: handle and list are valid; the codes are written into the list, which is ours.
        let moved = unsafe {
            Fault::take(rd::rd_kafka_seek_partitions(self.raw(), list.as_mut_ptr(), c_millis(wait)))?;
            entries(list.as_ptr())
        };
        let failed = moved.into_iter().filter(|entry| entry.code != Code::NONE).map(|entry| entry.partition);
        let failed: Vec<TopicPartition> = failed.collect();
        Ok(positions.iter().filter(|(partition, _)| failed.contains(partition)).cloned().collect())
    }

    /// Whether the broker has heard that this member has left, or it never was one.
    pub(in crate::kafka) fn has_left(&self) -> bool {
        self.group().is_ok_and(|group| group.membership().generation <= 0)
    }
}
