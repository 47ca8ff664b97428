//! A node where a task takes in records: bytes become a key, a value and a timestamp.

use std::sync::Arc;

use super::{Wiring, children};
use crate::codec::Codec;
use crate::error::FailureKind;
use crate::ids::{NodeIndex, Timestamp};
use crate::operator::{Children, Recorded, Run, TaskEnv};
use crate::record::{InputRecord, Record};
use crate::store::AnyOverlay;
use crate::time::{Due, Timestamps};

/// Where a task takes in the records of some of its inputs.
pub(crate) trait SourceNode {
    fn process(&mut self, record: &dyn InputRecord, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded>;
    /// The timestamp that the record would be processed with; `None` where it has none or cannot be decoded.
    fn timestamp(&self, record: &dyn InputRecord, now: Timestamp) -> Option<Timestamp>;
    /// Asks the stores that read ahead for the record's key; the record that comes next is number 0.
    fn want(&self, nth: usize, record: &dyn InputRecord, stores: &mut [Box<dyn AnyOverlay>]);
    fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded>;
    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded>;
    fn close(&mut self);
}

struct Source<K, V, KC, VC> {
    index: NodeIndex,
    name: Arc<str>,
    key: KC,
    value: VC,
    timestamps: Timestamps<K, V>,
    children: Children<K, V>,
}

pub(in crate::topology) fn source<K, V, KC, VC>(
    wiring: Wiring,
    (key, value): (KC, VC),
    timestamps: Timestamps<K, V>,
) -> Box<dyn SourceNode>
where
    K: Clone + 'static,
    V: Clone + 'static,
    KC: Codec<K>,
    VC: Codec<V>,
{
    let Wiring { index, name, children: behind, .. } = wiring;
    Box::new(Source { index, name, key, value, timestamps, children: children::<K, V>(behind) })
}

impl<K: Clone, V: Clone, KC: Codec<K>, VC: Codec<V>> Source<K, V, KC, VC> {
    fn decoded(&self, record: &dyn InputRecord, env: &mut TaskEnv) -> Result<Record<K, V>, Recorded> {
        let key = self.key.decode(record.key());
        let key = key.map_err(|error| env.fail(FailureKind::Decode, &self.name, format_args!("the key: {error}")))?;
        let value = self.value.decode(record.value());
        let value =
            value.map_err(|error| env.fail(FailureKind::Decode, &self.name, format_args!("the value: {error}")))?;
        let timestamp = self.timestamps.of(record.timestamp(), env.origin.batch.now, &key, &value);
        let timestamp = timestamp.map_err(|error| env.fail(FailureKind::Timestamp, &self.name, error))?;
        Ok(Record { key, value, timestamp })
    }
}

impl<K: Clone + 'static, V: Clone, KC: Codec<K>, VC: Codec<V>> SourceNode for Source<K, V, KC, VC> {
    fn process(&mut self, record: &dyn InputRecord, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded> {
        env.node.enter(self.index);
        let record = self.decoded(record, env)?;
        if env.stream_time.is_none() {
            env.schedules.anchor(crate::time::Clock::StreamTime, record.timestamp);
        }
        env.stream_time = env.stream_time.max(Some(record.timestamp));
        self.children.forward(record, env, run)
    }

    fn timestamp(&self, record: &dyn InputRecord, now: Timestamp) -> Option<Timestamp> {
        match &self.timestamps {
            Timestamps::OfRecord => record.timestamp(),
            Timestamps::WallClock => Some(now),
            Timestamps::Extracted(extractor) => {
                let key = self.key.decode(record.key()).ok()?;
                let value = self.value.decode(record.value()).ok()?;
                extractor(&key, &value)
            }
        }
    }

    fn want(&self, nth: usize, record: &dyn InputRecord, stores: &mut [Box<dyn AnyOverlay>]) {
        // One that cannot be decoded is dealt with when its turn comes.
        let Ok(key) = self.key.decode(record.key()) else { return };
        stores.iter_mut().filter(|store| store.reads_ahead()).for_each(|store| store.want(nth, &key));
    }

    fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded> {
        self.children.punctuate(due, env, run)
    }

    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        self.children.open(env)
    }

    fn close(&mut self) {
        self.children.close();
    }
}
