//! Holding back a task with several inputs while one of them is empty and has more (`max.task.idle`).

use std::time::Duration;

use processor_core::ids::{Offset, TopicPartition};
use processor_core::protocol::idle::{InputState, Patience, Readiness};

use super::{Running, Tasks};
use crate::kafka::PolledRecord;
use crate::state::TaskState;

/// Whether all that the log of this partition was known to hold when it was last asked has been polled, by a task that
/// stands at this offset.
pub type IsAtEnd<'a> = &'a dyn Fn(&TopicPartition, Offset) -> bool;

/// How a task stands to its inputs in this turn.
#[derive(Debug, Default)]
pub(super) struct Merge {
    patience: Patience,
    /// What waits is not processed before more was polled.
    is_held: bool,
    /// Processing ends where an input runs empty that has more.
    in_order: bool,
    /// Of each input: whether it was found to be at its end since the last poll.
    at_end: Vec<bool>,
}

impl<T: TaskState, R: PolledRecord> Running<T, R> {
    /// Whether records wait that are not to be processed yet.
    pub fn is_held(&self) -> bool {
        self.merge.is_held
    }

    fn hold_back(&mut self, idle_max: Duration, now: Duration, is_at_end: IsAtEnd<'_>) {
        let Self { merge, group, task, inputs, .. } = self;
        (merge.is_held, merge.in_order) = (false, false);
        if group.is_empty() || idle_max.is_zero() {
            return;
        }
        merge.at_end.clear();
        let places = group.empty_inputs().zip(inputs.iter()).zip(task.offsets());
        merge.at_end.extend(places.map(|((empty, (_, partition)), (_, next))| empty && is_at_end(partition, next)));
        let states = group.empty_inputs().zip(&merge.at_end);
        let states = states.map(|(empty, &caught_up)| InputState { empty, caught_up });
        let readiness = merge.patience.look(states, idle_max, now);
        merge.is_held = matches!(readiness, Readiness::WaitUntil(_));
        merge.in_order = readiness == Readiness::InOrder;
    }

    /// Whether the record that is next in time may be one that was not polled yet.
    pub(super) fn runs_empty(&mut self, is_at_end: IsAtEnd<'_>) -> bool {
        let Self { merge, group, task, inputs, .. } = self;
        if !merge.in_order {
            return false;
        }
        let empty = group.empty_inputs().enumerate().filter(|(_, empty)| *empty).map(|(place, _)| place);
        for place in empty {
            if !merge.at_end[place] {
                let (_, next) = task.offsets().nth(place).expect("the group has the task's inputs");
                merge.at_end[place] = is_at_end(&inputs[place].1, next);
            }
            if !merge.at_end[place] {
                // The next poll must bring more than one record, or every batch ends behind the first.
                merge.is_held = true;
                return true;
            }
        }
        false
    }
}

impl<T: TaskState, R: PolledRecord> Tasks<T, R> {
    /// Decides for each task with several inputs whether it is held back in this turn. `idle_max` is `max.task.idle`;
    /// zero: none is.
    pub fn hold_back(&mut self, idle_max: Duration, now: Duration, is_at_end: IsAtEnd<'_>) {
        for running in self.running.iter_mut().filter(|running| running.inputs.len() > 1) {
            running.hold_back(idle_max, now, is_at_end);
        }
    }

    /// Whether a task is held back.
    pub fn some_are_held(&self) -> bool {
        self.running.iter().any(Running::is_held)
    }

    /// Whether no task has a record that may be processed now.
    pub fn nothing_is_ready(&self) -> bool {
        self.running.iter().all(|running| running.group.is_empty() || running.is_held())
    }

    /// How many records may be processed now, if no input runs empty.
    pub fn ready_len(&self) -> usize {
        self.running.iter().filter(|running| !running.is_held()).map(|running| running.group.len()).sum()
    }

    /// How many bytes of keys and values wait in tasks with several inputs.
    pub fn waiting_bytes(&self) -> usize {
        self.running.iter().map(|running| running.group.bytes()).sum()
    }
}
