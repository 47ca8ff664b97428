//! Changes that take something away: topics, a group with its offsets; and offsets that are set to keep a group out.

use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_admin_op_t as Op;

use super::super::partitions::entries;
use super::super::{Code, Fault, PartitionEntry, PartitionList, c_string};
use super::{Event, EventQueue, Options, elements, topic_result, wrong_answer};

impl EventQueue {
    /// Deletes a topic. Answered when the controller has taken it on.
    pub(in crate::kafka) fn ask_to_delete_topic(&self, topic: &str, wait_max: Duration) {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_DELETETOPICS, wait_max, 0);
        let topic = c_string(topic);
        // SAFETY: all pointers are alive through the calls; the request copies what it is given and is freed here.
        unsafe {
            let mut request = rd::rd_kafka_DeleteTopic_new(topic.as_ptr());
            let (client, queue) = (self.client.raw(), self.raw.as_ptr());
            rd::rd_kafka_DeleteTopics(client, &raw mut request, 1, options.0.as_ptr(), queue);
            rd::rd_kafka_DeleteTopic_destroy(request);
        }
    }

    /// Deletes the records of each partition before its offset.
    pub(in crate::kafka) fn ask_to_delete_records(&self, before: &PartitionList, wait_max: Duration) {
        let options = Options::new(&self.client, Op::RD_KAFKA_ADMIN_OP_DELETERECORDS, wait_max, 0);
        // SAFETY: as above.
        unsafe {
            let mut request = rd::rd_kafka_DeleteRecords_new(before.as_ptr());
            let (client, queue) = (self.client.raw(), self.raw.as_ptr());
            rd::rd_kafka_DeleteRecords(client, &raw mut request, 1, options.0.as_ptr(), queue);
            rd::rd_kafka_DeleteRecords_destroy(request);
        }
    }

    /// Deletes a group, with all its offsets at once. The broker refuses while it has members.
    pub(in crate::kafka) fn ask_to_delete_group(&self, group: &str) {
        let options = Options::for_coordinator(&self.client, Op::RD_KAFKA_ADMIN_OP_DELETEGROUPS, 0);
        let group = c_string(group);
        // SAFETY: as above.
        unsafe {
            let mut request = rd::rd_kafka_DeleteGroup_new(group.as_ptr());
            let (client, queue) = (self.client.raw(), self.raw.as_ptr());
            rd::rd_kafka_DeleteGroups(client, &raw mut request, 1, options.0.as_ptr(), queue);
            rd::rd_kafka_DeleteGroup_destroy(request);
        }
    }

    /// Sets offsets of a group, with their metadata. The broker refuses while it has members. The list must not be empty.
    pub(in crate::kafka) fn ask_to_set_offsets(&self, group: &str, offsets: &PartitionList) {
        let options = Options::for_coordinator(&self.client, Op::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, 0);
        let group = c_string(group);
        // SAFETY: as above.
        unsafe {
            let mut request = rd::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), offsets.as_ptr());
            let (client, queue) = (self.client.raw(), self.raw.as_ptr());
            rd::rd_kafka_AlterConsumerGroupOffsets(client, &raw mut request, 1, options.0.as_ptr(), queue);
            rd::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
        }
    }
}

impl Event {
    /// To [`EventQueue::ask_to_delete_topic`].
    pub(in crate::kafka) fn topic_deleted(&self) -> Result<(), Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: the event is alive, null is checked; all that hangs on the result lives as long as the event.
        unsafe {
            let result = rd::rd_kafka_event_DeleteTopics_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let topics = rd::rd_kafka_DeleteTopics_result_topics(result, &raw mut count);
            topic_result(*elements(topics, count).first().ok_or_else(wrong_answer)?)
        }
    }

    /// To [`EventQueue::ask_to_delete_records`]: each partition with what became of it.
    pub(in crate::kafka) fn records_deleted(&self) -> Result<Vec<PartitionEntry>, Fault> {
        self.check()?;
        // SAFETY: as above.
        unsafe {
            let result = rd::rd_kafka_event_DeleteRecords_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            Ok(entries(rd::rd_kafka_DeleteRecords_result_offsets(result)))
        }
    }

    /// To [`EventQueue::ask_to_delete_group`].
    pub(in crate::kafka) fn group_deleted(&self) -> Result<(), Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as above.
        unsafe {
            let result = rd::rd_kafka_event_DeleteGroups_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let groups = rd::rd_kafka_DeleteGroups_result_groups(result, &raw mut count);
            group_result(*elements(groups, count).first().ok_or_else(wrong_answer)?)
        }
    }

    /// To [`EventQueue::ask_to_set_offsets`]: the first partition that failed fails all.
    pub(in crate::kafka) fn offsets_set(&self) -> Result<(), Fault> {
        self.check()?;
        let mut count = 0;
        // SAFETY: as above.
        unsafe {
            let result = rd::rd_kafka_event_AlterConsumerGroupOffsets_result(self.raw.as_ptr());
            if result.is_null() {
                return Err(wrong_answer());
            }
            let groups = rd::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
            let group = *elements(groups, count).first().ok_or_else(wrong_answer)?;
            group_result(group)?;
            let entries = entries(rd::rd_kafka_group_result_partitions(group));
            match entries.iter().find(|entry| entry.code != Code::NONE) {
                None => Ok(()),
                Some(failed) => Err(Fault::bare(failed.code, format!("{}: {}", failed.partition, failed.code.text()))),
            }
        }
    }
}

/// What became of a request about a group.
///
/// # Safety
/// `group` is valid for the call.
unsafe fn group_result(group: *const rd::rd_kafka_group_result_t) -> Result<(), Fault> {
    // SAFETY: by the contract; an error, if any, belongs to the group.
    let error = unsafe { rd::rd_kafka_group_result_error(group) };
    if error.is_null() { Ok(()) } else { Err(Fault::read(error)) }
}
