//! A node that writes: a record becomes the bytes of an output, for one of its topics and a partition.

use std::sync::Arc;

use super::{Erased, Wiring};
use crate::codec::Codec;
use crate::error::FailureKind;
use crate::ids::{NodeIndex, OutputIndex, Partition};
use crate::operator::{Receive, Recorded, Run, TaskEnv};
use crate::record::{Address, Record, TargetPartition};
use crate::time::Due;

/// How a sink chooses the partition.
pub(in crate::topology) enum Partitioning<K, V> {
    ByKey,
    OfSource,
    Chosen(Arc<Partitioner<K, V>>),
}

pub(in crate::topology) type Partitioner<K, V> = dyn Fn(&Record<K, V>, u32) -> u32 + Send + Sync;

impl<K, V> Clone for Partitioning<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::ByKey => Self::ByKey,
            Self::OfSource => Self::OfSource,
            Self::Chosen(partitioner) => Self::Chosen(partitioner.clone()),
        }
    }
}

/// How a sink chooses among its topics.
pub(in crate::topology) enum Targets<K, V> {
    First,
    Chosen(Arc<Chooser<K, V>>),
}

pub(in crate::topology) type Chooser<K, V> = dyn Fn(&Record<K, V>) -> usize + Send + Sync;

impl<K, V> Clone for Targets<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::First => Self::First,
            Self::Chosen(chooser) => Self::Chosen(chooser.clone()),
        }
    }
}

/// What a sink is connected with.
pub(in crate::topology) struct SinkWiring<K, V> {
    pub(in crate::topology) node: Wiring,
    pub(in crate::topology) outputs: Vec<OutputIndex>,
    pub(in crate::topology) targets: Targets<K, V>,
    pub(in crate::topology) partitioning: Partitioning<K, V>,
}

struct Sink<K, V, KC, VC> {
    index: NodeIndex,
    name: Arc<str>,
    outputs: Vec<OutputIndex>,
    targets: Targets<K, V>,
    partitioning: Partitioning<K, V>,
    key: KC,
    value: VC,
}

pub(in crate::topology) fn sink<K, V, KC, VC>(wiring: SinkWiring<K, V>, (key, value): (KC, VC)) -> Erased
where
    K: 'static,
    V: 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let SinkWiring { node: Wiring { index, name, .. }, outputs, targets, partitioning } = wiring;
    Erased::new::<K, V>(Box::new(Sink { index, name, outputs, targets, partitioning, key, value }))
}

impl<K, V, KC, VC> Sink<K, V, KC, VC> {
    fn topic(&self, record: &Record<K, V>, env: &mut TaskEnv) -> Result<OutputIndex, Recorded> {
        let Targets::Chosen(chooser) = &self.targets else { return Ok(self.outputs[0]) };
        let chosen = chooser(record);
        self.outputs.get(chosen).copied().ok_or_else(|| {
            let most = self.outputs.len() - 1;
            let message = format_args!("topic {chosen} was chosen for the record, but its topics are 0 to {most}");
            env.fail(FailureKind::Encode, &self.name, message)
        })
    }

    fn partition(
        &self,
        record: &Record<K, V>,
        topic: OutputIndex,
        env: &mut TaskEnv,
    ) -> Result<TargetPartition, Recorded> {
        let partitioner = match &self.partitioning {
            Partitioning::ByKey => return Ok(TargetPartition::ByKey),
            Partitioning::OfSource => return Ok(TargetPartition::Exactly(env.origin.partition)),
            Partitioning::Chosen(partitioner) => partitioner,
        };
        let partitions = env.partitions_of(topic);
        let chosen = partitioner(record, partitions);
        if chosen < partitions {
            Ok(TargetPartition::Exactly(Partition::new(chosen as i32)))
        } else {
            let message = format_args!("partition {chosen} was chosen for the record, but the topic has {partitions}");
            Err(env.fail(FailureKind::Encode, &self.name, message))
        }
    }
}

impl<K, V, KC: Codec<K>, VC: Codec<V>> Receive<K, V> for Sink<K, V, KC, VC> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, _run: Run<'_>) -> Result<(), Recorded> {
        let caller = env.node.enter(self.index);
        let topic = self.topic(&record, env)?;
        let partition = self.partition(&record, topic, env)?;
        let to = Address { sink: self.index, topic, partition, timestamp: record.timestamp };
        let pushed = env.outbox.push(
            to,
            |bytes| self.key.encode(&record.key, bytes),
            |bytes| self.value.encode(&record.value, bytes),
        );
        pushed.map_err(|error| env.fail(FailureKind::Encode, &self.name, error))?;
        env.node.enter(caller);
        Ok(())
    }

    fn punctuate(&mut self, _due: &Due, _env: &mut TaskEnv, _run: Run<'_>) -> Result<bool, Recorded> {
        Ok(false)
    }

    fn open(&mut self, _env: &mut TaskEnv) -> Result<(), Recorded> {
        Ok(())
    }

    fn close(&mut self) {}

    fn name(&self) -> &str {
        &self.name
    }
}
