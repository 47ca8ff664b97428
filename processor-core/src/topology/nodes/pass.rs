//! A node that only has a name: where streams are merged, and the arms of a branch.

use std::sync::Arc;

use super::{Erased, Wiring, children};
use crate::operator::{Children, Receive, Recorded, Run, TaskEnv};
use crate::record::Record;
use crate::time::Due;

struct Pass<K, V> {
    name: Arc<str>,
    children: Children<K, V>,
}

pub(in crate::topology) fn pass<K: Clone + 'static, V: Clone + 'static>(wiring: Wiring) -> Erased {
    let node = Pass { name: wiring.name, children: children::<K, V>(wiring.children) };
    Erased::new::<K, V>(Box::new(node))
}

impl<K: Clone, V: Clone> Receive<K, V> for Pass<K, V> {
    fn receive(&mut self, record: Record<K, V>, env: &mut TaskEnv, run: Run<'_>) -> Result<(), Recorded> {
        self.children.forward(record, env, run)
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

    fn name(&self) -> &str {
        &self.name
    }
}
