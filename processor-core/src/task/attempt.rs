//! One pass of a record or a punctuation through a task's nodes: it takes effect as a whole, or leaves nothing (EO-9).

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Task;
use crate::error::FailureKind;
use crate::ids::Timestamp;
use crate::operator::{Failed, Recorded, Run, TaskEnv};
use crate::record::InputRecord;
use crate::store::Base;
use crate::time::Clock;
use crate::topology::SourceNode;

/// What a pass changes beside stores and schedules, which keep their own savepoints.
struct Savepoint {
    stream_time: Option<Timestamp>,
    commit_requested: bool,
}

impl Task {
    /// Passes a record from its source on, and fires what it made due by stream time.
    pub(super) fn attempt(&mut self, input: usize, record: &dyn InputRecord, base: &dyn Base) -> Result<(), Failed> {
        let source = self.inputs[input].source;
        self.atomically(|sources, env, punctuating| {
            let run = Run { base, input: Some(record) };
            sources[source].process(record, env, run)?;
            *punctuating = true;
            let now = env.stream_time.expect("EO-8: a record's timestamp enters stream time before it is processed");
            fire(sources, env, run, Clock::StreamTime, now).map(drop)
        })
    }

    /// Fires what is due by the wall clock, and says how many that were.
    pub(super) fn attempt_wall_clock(&mut self, now: Timestamp, base: &dyn Base) -> Result<usize, Failed> {
        self.atomically(|sources, env, punctuating| {
            *punctuating = true;
            fire(sources, env, Run { base, input: None }, Clock::WallClock, now)
        })
    }

    fn atomically<T>(
        &mut self,
        pass: impl FnOnce(&mut [Box<dyn SourceNode>], &mut TaskEnv, &mut bool) -> Result<T, Recorded>,
    ) -> Result<T, Failed> {
        let Self { sources, env, topology, .. } = self;
        let before = Savepoint { stream_time: env.stream_time, commit_requested: env.commit_requested };
        env.stores.iter_mut().for_each(|store| store.begin_record());
        env.schedules.begin_record();
        let mut punctuating = false;
        let passed = catch_unwind(AssertUnwindSafe(|| pass(sources, env, &mut punctuating)));
        if let Err(panic) = &passed {
            env.fail(FailureKind::Panic, topology.node_name(env.node.get()), panic_message(panic.as_ref()));
        }
        match passed {
            Ok(Ok(done)) if env.failure.is_none() => Ok(done),
            Ok(Ok(_) | Err(Recorded)) | Err(_) => Err(roll_back(env, &before, punctuating)),
        }
    }
}

fn roll_back(env: &mut TaskEnv, before: &Savepoint, punctuating: bool) -> Failed {
    env.stores.iter_mut().for_each(|store| store.roll_back_record());
    env.schedules.roll_back_record();
    env.outbox.clear();
    env.stream_time = before.stream_time;
    env.commit_requested = before.commit_requested;
    let mut failed = env.failure.take().expect("a failure is written down before it is returned");
    if punctuating && !matches!(failed.failure.kind, FailureKind::State { .. } | FailureKind::Wiring) {
        failed.failure.kind = FailureKind::Punctuate;
    }
    failed
}

/// Fires what is due, in the order of the due times.
fn fire(
    sources: &mut [Box<dyn SourceNode>],
    env: &mut TaskEnv,
    run: Run<'_>,
    clock: Clock,
    now: Timestamp,
) -> Result<usize, Recorded> {
    let mut fired = 0;
    while let Some(due) = env.schedules.take_due(clock, now) {
        let mut reached = false;
        for source in sources.iter_mut() {
            reached = source.punctuate(&due, env, run)?;
            if reached {
                break;
            }
        }
        assert!(reached, "a schedule belongs to a node of its task");
        fired += 1;
    }
    Ok(fired)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
