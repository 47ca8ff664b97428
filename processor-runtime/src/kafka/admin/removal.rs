//! What a reset asks and does: who is in the group, what it has committed, and taking topics and offsets away.

use processor_core::ids::{Offset, TopicPartition};
use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::super::ffi::{Code, Event, EventQueue, Fault, PartitionList};
use super::super::{Committed, KafkaError, questions};
use super::{ANSWER_WAIT_MAX, Admin};

impl Admin {
    /// The client ids of a group's members; a group that is not there has none.
    pub fn members(&self, group: &str) -> Result<Vec<String>, KafkaError> {
        match self.ask(ANSWER_WAIT_MAX, |queue, _| queue.ask_members(group, 0), Event::members) {
            Ok(members) => Ok(members),
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND) => Ok(Vec::new()),
            Err(fault) => Err(self.error(&format!("cannot read the members of group {group}"), &fault)),
        }
    }

    /// What a group has committed for these partitions. `stable`: not while a transaction that holds an offset of one is
    /// open; that one is [`Committed::Unstable`].
    pub fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
        stable: bool,
    ) -> Result<Vec<(TopicPartition, Committed)>, KafkaError> {
        let list = PartitionList::of(partitions.iter().map(|partition| (partition, 0)));
        let ask = |queue: &EventQueue, _| queue.ask_committed(group, &list, stable, 0);
        let entries = self.answer(&format!("cannot read the offsets of group {group}"), ask, Event::committed)?;
        entries.into_iter().map(|entry| Ok((entry.partition.clone(), questions::committed_entry(entry)?))).collect()
    }

    /// Sets offsets of a group without members, all with this metadata.
    ///
    /// # Errors
    /// Also if it has members.
    pub fn set_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, Offset)],
        metadata: &str,
    ) -> Result<(), KafkaError> {
        let mut list = PartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            list.push_with_metadata(partition, offset.get(), metadata);
        }
        let ask = |queue: &EventQueue, _| queue.ask_to_set_offsets(group, &list);
        self.answer(&format!("cannot set the offsets of group {group}"), ask, Event::offsets_set)
    }

    /// Deletes a group with all its offsets; one that is not there is no error.
    ///
    /// # Errors
    /// Also if it has members.
    pub fn delete_group(&self, group: &str) -> Result<(), KafkaError> {
        match self.ask(ANSWER_WAIT_MAX, |queue, _| queue.ask_to_delete_group(group), Event::group_deleted) {
            Ok(()) => Ok(()),
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND) => Ok(()),
            Err(fault) => Err(self.error(&format!("cannot delete the group {group}"), &fault)),
        }
    }

    /// Deletes the records of each partition before an offset; what became of each. The list must not be empty.
    ///
    /// # Errors
    /// Nobody answered at all.
    #[expect(clippy::type_complexity, reason = "a list of what was asked for, with each result")]
    pub fn delete_records(
        &self,
        before: &[(TopicPartition, Offset)],
    ) -> Result<Vec<((TopicPartition, Offset), Result<(), KafkaError>)>, KafkaError> {
        let list = PartitionList::of(before.iter().map(|(partition, offset)| (partition, offset.get())));
        let ask = |queue: &EventQueue, wait| queue.ask_to_delete_records(&list, wait);
        let entries = self.answer("cannot delete records", ask, Event::records_deleted)?;
        let outcome = |asked: &(TopicPartition, Offset)| {
            let entry = entries.iter().find(|entry| entry.partition == asked.0);
            let code = entry.map_or(Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN), |entry| entry.code);
            let failed =
                || self.error(&format!("cannot delete records of {}", asked.0), &Fault::bare(code, code.text()));
            (asked.clone(), if code == Code::NONE { Ok(()) } else { Err(failed()) })
        };
        Ok(before.iter().map(outcome).collect())
    }

    /// Deletes a topic, and waits until it does not show any more; one that is not there is no error.
    pub fn delete_topic(&self, name: &str) -> Result<(), KafkaError> {
        match self.ask(ANSWER_WAIT_MAX, |queue, wait| queue.ask_to_delete_topic(name, wait), Event::topic_deleted) {
            Ok(()) => self.await_topic(name, false),
            // It was not there, or an answer was lost and it is gone since.
            Err(fault) if fault.code == Code::of(E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {
                self.await_topic(name, false)
            }
            Err(fault) => Err(self.error(&format!("cannot delete the topic {name}"), &fault)),
        }
    }
}
