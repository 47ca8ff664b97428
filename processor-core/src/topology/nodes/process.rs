//! A node that runs a user's operator.

use std::sync::Arc;

use super::{Erased, Wiring, children};
use crate::error::{FailureKind, OperatorError};
use crate::ids::{NodeIndex, StoreIndex};
use crate::operator::{Children, Context, OpenContext, Operator, Receive, Recorded, Run, TaskEnv};
use crate::record::Record;
use crate::time::Due;

struct Process<O: Operator> {
    index: NodeIndex,
    name: Arc<str>,
    stores: Vec<(&'static str, StoreIndex)>,
    operator: O,
    children: Children<O::KeyOut, O::ValueOut>,
}

pub(in crate::topology) fn process<O: Operator>(wiring: Wiring, operator: O) -> Erased {
    let Wiring { index, name, stores, children: behind } = wiring;
    let node = Process { index, name, stores, operator, children: children(behind) };
    Erased::new::<O::KeyIn, O::ValueIn>(Box::new(node))
}

impl<O: Operator> Process<O> {
    /// Runs the operator as the node that is to blame meanwhile.
    fn run(
        &mut self,
        env: &mut TaskEnv,
        run: Run<'_>,
        operate: impl FnOnce(&mut O, &mut Context<'_, O::KeyOut, O::ValueOut>) -> Result<(), OperatorError>,
    ) -> Result<(), Recorded> {
        let caller = env.node.enter(self.index);
        let mut ctx = Context { env, run, children: &mut self.children, stores: &self.stores, node: &self.name };
        match operate(&mut self.operator, &mut ctx) {
            Ok(()) if env.failure.is_none() => {
                env.node.enter(caller);
                Ok(())
            }
            Ok(()) => Err(Recorded),
            Err(error) => Err(match error.into_user() {
                Some(error) => env.fail(FailureKind::Process, &self.name, error),
                None => Recorded,
            }),
        }
    }
}

impl<O: Operator> Receive<O::KeyIn, O::ValueIn> for Process<O> {
    fn receive(
        &mut self,
        record: Record<O::KeyIn, O::ValueIn>,
        env: &mut TaskEnv,
        run: Run<'_>,
    ) -> Result<(), Recorded> {
        self.run(env, run, |operator, ctx| operator.process(record, ctx))
    }

    fn punctuate(&mut self, due: &Due, env: &mut TaskEnv, run: Run<'_>) -> Result<bool, Recorded> {
        if due.node == self.index {
            self.run(env, run, |operator, ctx| operator.punctuate(due.punctuation, ctx)).map(|()| true)
        } else {
            self.children.punctuate(due, env, run)
        }
    }

    fn open(&mut self, env: &mut TaskEnv) -> Result<(), Recorded> {
        env.node.enter(self.index);
        let mut ctx = OpenContext { task: &env.task, schedules: &mut env.schedules, node: self.index };
        self.operator
            .open(&mut ctx)
            .map_err(|error| env.fail(FailureKind::Process, &self.name, format_args!("open: {error}")))?;
        self.children.open(env)
    }

    fn close(&mut self) {
        self.operator.close();
        self.children.close();
    }

    fn name(&self) -> &str {
        &self.name
    }
}
