//! Where the logs of a topic begin and end.

use std::collections::BTreeMap;

use processor_core::ids::{Partition, TopicPartition};

use super::super::ffi::{Code, Event, EventQueue, Fault, Spec};
use super::super::{KafkaError, LogBounds};
use super::{Admin, CONNECTION_LOST};

impl Admin {
    /// The bounds of all partitions of a topic for a reader that sees everything; `None` where there is no such topic.
    pub fn log_bounds(&self, topic: &str) -> Result<Option<BTreeMap<Partition, LogBounds>>, KafkaError> {
        let Some(shape) = self.topic_shape(topic)? else { return Ok(None) };
        let count = i32::try_from(shape.partitions).expect("partitions are numbered with 31 bits");
        let partitions: Vec<_> = (0..count).map(|number| TopicPartition::new(topic, Partition::new(number))).collect();
        let starts = self.log_offsets(topic, &partitions, Spec::Start)?;
        let ends = self.log_offsets(topic, &partitions, Spec::End)?;
        let bounds = |(partition, start): (&Partition, &i64)| {
            Some((*partition, LogBounds { start: *start, end: *ends.get(partition)? }))
        };
        Ok(Some(starts.iter().filter_map(bounds).collect()))
    }

    fn log_offsets(
        &self,
        topic: &str,
        partitions: &[TopicPartition],
        spec: Spec,
    ) -> Result<BTreeMap<Partition, i64>, KafkaError> {
        let what = format!("cannot read where the logs of {topic} begin and end");
        let ask = |queue: &EventQueue, wait| queue.ask_log_offsets(partitions.iter(), spec, wait, 0);
        // A leader whose connection was lost has said nothing, and the answer of all counts as one.
        let read = |event: &Event| {
            let entries = event.log_offsets()?;
            let silent = entries.iter().find(|entry| entry.code == Code::NONE && entry.offset < 0);
            match silent {
                Some(silent) => Err(Fault::bare(CONNECTION_LOST, format!("no answer about {}", silent.partition))),
                None => Ok(entries),
            }
        };
        let entries = self.answer(&what, ask, read)?;
        if let Some(failed) = entries.iter().find(|entry| entry.code != Code::NONE) {
            return Err(self.error(&what, &Fault::bare(failed.code, failed.code.text())));
        }
        Ok(entries.into_iter().map(|entry| (entry.partition.partition, entry.offset)).collect())
    }
}
