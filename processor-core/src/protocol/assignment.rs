//! Which tasks an assignment means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{TaskId, TopicPartition};

/// A sub-topology as the assignment sees it: its name and the topics it reads.
///
/// ```
/// # use std::collections::BTreeSet;
/// use processor_core::ids::{Partition, TaskId, TopicPartition};
/// use processor_core::protocol::assignment::{Inputs, TaskAction, diff};
///
/// let topics = vec!["orders".into(), "prices".into()];
/// let join = Inputs { subtopology: "join".into(), topics };
/// // Partition 3 of both topics is one task.
/// let both = ["orders", "prices"].map(|topic| TopicPartition::new(topic, Partition::new(3)));
/// let task = TaskId::new("join", Partition::new(3));
/// assert_eq!(diff(&BTreeSet::new(), &both, &[join]), [TaskAction::Recover(task)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The sub-topology's name.
    pub subtopology: Arc<str>,
    /// Its input topics.
    pub topics: Vec<Arc<str>>,
}

/// What to do with a task.
///
/// ```
/// # use std::collections::BTreeSet;
/// # use processor_core::ids::{Partition, TopicPartition};
/// # use processor_core::protocol::assignment::{Inputs, TaskAction, diff};
/// # let topics = vec!["orders".into(), "prices".into()];
/// # let inputs = [Inputs { subtopology: "join".into(), topics }];
/// // The task reads "orders" and "prices", and another worker got its partition of "prices".
/// let assigned = [TopicPartition::new("orders", Partition::new(0))];
/// let actions = diff(&BTreeSet::new(), &assigned, &inputs);
/// let [TaskAction::Incomplete { task, missing }] = &actions[..] else { panic!("{actions:?}") };
/// assert_eq!(format!("{task} lacks {}", missing[0]), "join_0 lacks prices-0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskAction {
    /// It went away: suspend it, keep its store.
    Suspend(TaskId),
    /// It is owned, with all its inputs: recover it, also if it was held a moment ago.
    Recover(TaskId),
    /// Only a part of its inputs is assigned to this thread; it does not run here.
    Incomplete {
        /// The task.
        task: TaskId,
        /// The inputs that are missing.
        missing: Vec<TopicPartition>,
    },
}

/// From the tasks that are held and a whole new assignment (empty after a revoke) to what to do, suspends first.
///
/// Every assignment recovers every task it holds: between the revoke and the assign another member may have committed.
///
/// ```
/// # use std::collections::BTreeSet;
/// # use processor_core::ids::{Partition, TaskId, TopicPartition};
/// # use processor_core::protocol::assignment::{Inputs, TaskAction, diff};
/// let inputs = [Inputs { subtopology: "map".into(), topics: vec!["in".into()] }];
/// let task = |number| TaskId::new("map", Partition::new(number));
/// let held = BTreeSet::from([task(0), task(1)]);
/// let assigned = [1, 2].map(|number| TopicPartition::new("in", Partition::new(number)));
/// let actions = diff(&held, &assigned, &inputs);
/// assert_eq!(actions[0], TaskAction::Suspend(task(0)));
/// assert_eq!(actions[1..], [task(1), task(2)].map(TaskAction::Recover));
/// ```
pub fn diff(held: &BTreeSet<TaskId>, assigned: &[TopicPartition], inputs: &[Inputs]) -> Vec<TaskAction> {
    let mut by_task: BTreeMap<TaskId, BTreeSet<&str>> = BTreeMap::new();
    for partition in assigned {
        for subtopology in inputs.iter().filter(|inputs| inputs.topics.contains(&partition.topic)) {
            let task = TaskId::new(subtopology.subtopology.clone(), partition.partition);
            by_task.entry(task).or_default().insert(&partition.topic);
        }
    }
    let gone = held.iter().filter(|task| !by_task.contains_key(task)).cloned().map(TaskAction::Suspend);
    let mut actions: Vec<_> = gone.collect();
    let mut recovers = Vec::new();
    for (task, topics) in &by_task {
        let missing = missing_of(task, topics, inputs);
        if missing.is_empty() {
            recovers.push(TaskAction::Recover(task.clone()));
            continue;
        }
        if held.contains(task) {
            actions.push(TaskAction::Suspend(task.clone()));
        }
        recovers.push(TaskAction::Incomplete { task: task.clone(), missing });
    }
    actions.append(&mut recovers);
    actions
}

fn missing_of(task: &TaskId, present: &BTreeSet<&str>, inputs: &[Inputs]) -> Vec<TopicPartition> {
    let topics =
        inputs.iter().filter(|inputs| inputs.subtopology == task.subtopology).flat_map(|inputs| &inputs.topics);
    let missing = topics.filter(|topic| !present.contains(&***topic));
    missing.map(|topic| TopicPartition::new(topic.clone(), task.partition)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;

    fn partition(topic: &str, number: i32) -> TopicPartition {
        TopicPartition::new(topic, Partition::new(number))
    }

    fn task(name: &str, number: i32) -> TaskId {
        TaskId::new(name, Partition::new(number))
    }

    fn inputs() -> Vec<Inputs> {
        vec![
            Inputs { subtopology: "join".into(), topics: vec!["a".into(), "b".into()] },
            Inputs { subtopology: "map".into(), topics: vec!["c".into()] },
        ]
    }

    #[test]
    fn what_stays_is_recovered_and_what_goes_is_suspended_first() {
        let held = BTreeSet::from([task("map", 0), task("map", 1)]);
        let actions = diff(&held, &[partition("c", 1), partition("c", 2)], &inputs());
        let expected = [
            TaskAction::Suspend(task("map", 0)),
            TaskAction::Recover(task("map", 1)),
            TaskAction::Recover(task("map", 2)),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_task_runs_only_with_all_its_inputs() {
        let held = BTreeSet::from([task("join", 0)]);
        let actions = diff(&held, &[partition("a", 0), partition("a", 1), partition("b", 1)], &inputs());
        let expected = [
            TaskAction::Suspend(task("join", 0)),
            TaskAction::Incomplete { task: task("join", 0), missing: vec![partition("b", 0)] },
            TaskAction::Recover(task("join", 1)),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn after_a_revoke_everything_is_suspended() {
        let held = BTreeSet::from([task("join", 0), task("map", 1)]);
        assert_eq!(diff(&held, &[], &inputs()), held.into_iter().map(TaskAction::Suspend).collect::<Vec<_>>());
    }
}
