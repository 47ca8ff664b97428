//! The nodes of a task: how bytes become records at a source, pass the operators, and become bytes at a sink.

use std::any::Any;
use std::sync::Arc;

use crate::codec::Codec;
use crate::error::FailureKind;
use crate::ids::{OutputIndex, StoreIndex, Timestamp};
use crate::operator::{Children, Context, OpenContext, Operator, Receive, Recorded, TaskEnv};
use crate::record::{InputRecord, Record, TargetPartition};
use crate::store::Base;

/// A node without its types, on its way from the builder's closures into its parent.
pub(crate) struct Erased(pub(crate) Box<dyn Any>);

/// What a node is connected with.
pub(crate) struct Wiring {
    pub(crate) name: Arc<str>,
    pub(crate) stores: Vec<(&'static str, StoreIndex)>,
    pub(crate) children: Vec<Erased>,
}

impl Wiring {
    fn children<K: 'static, V: 'static>(children: Vec<Erased>) -> Children<K, V> {
        let typed = children.into_iter().map(|child| {
            let child = child.0.downcast::<Box<dyn Receive<K, V>>>();
            *child.expect("the stream handles' types connect only nodes of the same types")
        });
        Children(typed.collect())
    }
}

/// Where a task takes in the records of one topic.
pub(crate) trait SourceNode {
    fn process(
        &mut self,
        record: &dyn InputRecord,
        timestamp: Timestamp,
        env: &mut TaskEnv,
        base: &dyn Base,
    ) -> Result<(), Recorded>;
    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded>;
    fn close(&mut self);
}

struct Source<K, V, KC, VC> {
    name: Arc<str>,
    key: KC,
    value: VC,
    children: Children<K, V>,
}

pub(crate) fn source<K, V, KC, VC>(wiring: Wiring, key: KC, value: VC) -> Erased
where
    K: Clone + 'static,
    V: Clone + 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let source = Source { name: wiring.name, key, value, children: Wiring::children::<K, V>(wiring.children) };
    Erased(Box::new(Box::new(source) as Box<dyn SourceNode>))
}

impl<K: Clone, V: Clone, KC: Codec<K>, VC: Codec<V>> SourceNode for Source<K, V, KC, VC> {
    fn process(
        &mut self,
        record: &dyn InputRecord,
        timestamp: Timestamp,
        env: &mut TaskEnv,
        base: &dyn Base,
    ) -> Result<(), Recorded> {
        let key = self.key.decode(record.key());
        let key = key.map_err(|error| env.fail(FailureKind::Decode, &self.name, format_args!("the key: {error}")))?;
        let value = self.value.decode(record.value());
        let value =
            value.map_err(|error| env.fail(FailureKind::Decode, &self.name, format_args!("the value: {error}")))?;
        self.children.forward(Record { key, value, timestamp }, env, base)
    }

    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        self.children.open(env)
    }

    fn close(&mut self) {
        self.children.close();
    }
}

struct Process<O: Operator> {
    name: Arc<str>,
    stores: Vec<(&'static str, StoreIndex)>,
    operator: O,
    children: Children<O::KeyOut, O::ValueOut>,
}

pub(crate) fn process<O: Operator>(wiring: Wiring, operator: O) -> Erased {
    let Wiring { name, stores, children } = wiring;
    let node = Process { name, stores, operator, children: Wiring::children(children) };
    Erased(Box::new(Box::new(node) as Box<dyn Receive<O::KeyIn, O::ValueIn>>))
}

impl<O: Operator> Receive<O::KeyIn, O::ValueIn> for Process<O> {
    fn receive(
        &mut self,
        record: Record<O::KeyIn, O::ValueIn>,
        env: &mut TaskEnv,
        base: &dyn Base,
    ) -> Result<(), Recorded> {
        let mut ctx = Context { env, base, children: &mut self.children, stores: &self.stores, node: &self.name };
        match self.operator.process(record, &mut ctx) {
            Ok(()) if env.failure.is_none() => Ok(()),
            Ok(()) => Err(Recorded),
            Err(error) => Err(match error.into_user() {
                Some(error) => env.fail(FailureKind::Process, &self.name, error),
                None => Recorded,
            }),
        }
    }

    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        self.operator
            .open(&OpenContext { task: &env.task })
            .map_err(|error| env.fail(FailureKind::Process, &self.name, format_args!("open: {error}")))?;
        self.children.open(env)
    }

    fn close(&mut self) {
        self.operator.close();
        self.children.close();
    }
}

/// How a sink chooses the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkPartition {
    ByKey,
    OfSource,
}

struct Sink<KC, VC> {
    name: Arc<str>,
    topic: OutputIndex,
    partition: SinkPartition,
    key: KC,
    value: VC,
}

pub(crate) fn sink<K, V, KC, VC>(
    wiring: Wiring,
    topic: OutputIndex,
    partition: SinkPartition,
    key: KC,
    value: VC,
) -> Erased
where
    K: 'static,
    V: 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let sink = Sink { name: wiring.name, topic, partition, key, value };
    Erased(Box::new(Box::new(sink) as Box<dyn Receive<K, V>>))
}

impl<K, V, KC: Codec<K>, VC: Codec<V>> Receive<K, V> for Sink<KC, VC> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, _base: &dyn Base) -> Result<(), Recorded> {
        let partition = match self.partition {
            SinkPartition::ByKey => TargetPartition::ByKey,
            SinkPartition::OfSource => TargetPartition::Exactly(env.origin.partition),
        };
        let pushed = env.outbox.push(
            self.topic,
            partition,
            record.timestamp,
            |bytes| self.key.encode(&record.key, bytes),
            |bytes| self.value.encode(&record.value, bytes),
        );
        pushed.map_err(|error| env.fail(FailureKind::Encode, &self.name, error))
    }

    fn open(&mut self, _env: &mut TaskEnv) -> Result<(), Recorded> {
        Ok(())
    }

    fn close(&mut self) {}
}
