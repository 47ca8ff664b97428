//! The group of an application: its committed offsets, as they are and as a person sets or loses them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{PATIENCE, Scene};
use crate::client::block_on;
use crate::worker::await_condition;

impl Scene {
    /// The group's offset of each partition of the input that has one, once no transaction holds another.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        let offsets = self.kafka.committed_offsets(&self.input(), true).expect("the broker answers");
        offsets.into_iter().map(|(partition, (offset, _))| (partition, offset)).collect()
    }

    /// How many records the committed offsets say are processed.
    pub fn offsets_done(&self) -> u64 {
        self.asked_offsets().expect("the broker answers")
    }

    pub(super) fn asked_offsets(&self) -> anyhow::Result<u64> {
        let offsets = self.kafka.committed_offsets(&self.input(), false)?;
        Ok(offsets.values().map(|(offset, _)| u64::try_from(*offset).unwrap_or(0)).sum())
    }

    /// Sets the group's offsets of the input, as `kafka-consumer-groups --reset-offsets` does: without metadata.
    pub fn set_offsets(&self, offsets: &BTreeMap<i32, i64>) {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap).set("group.id", &self.name);
        let outsider: BaseConsumer = settings.create().expect("the settings are sound");
        let group = outsider.group_metadata().expect("it has a group id");
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap).set("transactional.id", format!("{}-reset", self.name));
        let producer: BaseProducer = settings.create().expect("the settings are sound");
        producer.init_transactions(PATIENCE).expect("the broker answers");
        producer.begin_transaction().expect("it is initialised");
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            let added = list.add_partition_offset(&self.input(), partition, Offset::Offset(offset));
            added.expect("an offset is not negative");
        }
        producer.send_offsets_to_transaction(&list, &group, PATIENCE).expect("the broker takes offsets");
        producer.commit_transaction(PATIENCE).expect("the broker commits");
    }

    /// Deletes the group with its offsets. The broker refuses that before the last member has left, which it learns a
    /// moment after the member's end.
    pub fn delete_group(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("the settings are sound");
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let outcome = await_condition("the group to be deleted", PATIENCE, || {
            let deleted = block_on(admin.delete_groups(&[&self.name], &options))?;
            Ok(deleted.iter().all(Result::is_ok))
        });
        outcome.expect("the broker deletes the group");
        assert!(self.committed().is_empty(), "the offsets are gone: {:?}", self.committed());
    }

    /// Waits until a member wants to join and the group waits for the others.
    pub fn await_rebalance(&self) {
        let created = ClientConfig::new().set("bootstrap.servers", &self.bootstrap).set("group.id", "looks").create();
        let client: BaseConsumer = created.expect("the settings are sound");
        let rebalancing = await_condition("a rebalance", PATIENCE, || {
            let list = client.fetch_group_list(Some(&self.name), Duration::from_secs(10))?;
            Ok(list.groups().iter().any(|group| group.state() == "PreparingRebalance"))
        });
        rebalancing.expect("the other one joins");
    }
}
