//! The operator of `branch`: a record goes on along the first arm whose predicate holds.

use std::sync::Arc;

use super::{Context, Operator};
use crate::error::OperatorError;
use crate::record::Record;

/// Says whether a record goes along an arm.
pub(crate) type Predicate<K, V> = Arc<dyn Fn(&Record<K, V>) -> bool + Send + Sync>;

/// The arms, in the order of the nodes behind this one.
pub(crate) struct Branch<K, V> {
    pub(crate) arms: Vec<Predicate<K, V>>,
}

impl<K: Clone + 'static, V: Clone + 'static> Operator for Branch<K, V> {
    type KeyIn = K;
    type ValueIn = V;
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut Context<'_, K, V>) -> Result<(), OperatorError> {
        match self.arms.iter().position(|holds| holds(&record)) {
            Some(arm) => ctx.forward_nth(arm, record),
            None => Ok(()),
        }
    }
}
