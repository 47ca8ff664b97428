//! Which tasks of a store run here, and who runs the others: what makes an answer say that it is not the whole.
//!
//! A worker never asks another one on behalf of a client. The client's token would go wherever a member of the group says
//! that it listens. So the answer names the owners, with the addresses that they advertise, and the client decides.

use std::sync::Arc;

use axum::http::StatusCode;
use processor_core::ids::{TaskId, TopicPartition};
use processor_core::protocol::client_id::{ClientId, HttpAddress};
use processor_core::store::Base;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::stores::Store;
use super::{Owners, Shown};
use crate::status::{TaskStatus, ThreadState};

/// How many tasks a sentence names.
const NAMES_MAX: usize = 8;
/// The longest id of a member that is shown: what a member is called is its own affair. Ours are shorter.
const MEMBER_CHARS_MAX: usize = 512;

/// A task with a store that runs here.
pub(super) struct Part {
    pub(super) task: TaskId,
    pub(super) state: Arc<dyn Base + Send + Sync>,
}

/// A task that runs on another worker.
pub(super) struct Elsewhere {
    task: TaskId,
    /// What its owner is called, where the group knows one.
    owner: Option<String>,
    /// Where its owner can be asked, where it says so.
    address: Option<HttpAddress>,
}

/// The tasks of the store that run here, by partition; of one partition, if one is given.
pub(super) fn here(shown: &Shown, store: &Store<'_>, partition: Option<i32>) -> Vec<Part> {
    let snapshots = shown.status.threads().iter().map(|thread| thread.snapshot());
    let of_store = |task: &TaskStatus| {
        let state = task.state.clone().filter(|_| store.has(&task.id, partition))?;
        Some(Part { task: task.id.clone(), state })
    };
    let mut parts: Vec<Part> =
        snapshots.flat_map(|snapshot| snapshot.tasks.iter().filter_map(of_store).collect::<Vec<_>>()).collect();
    parts.sort_by(|a, b| a.task.cmp(&b.task));
    parts
}

/// The tasks of the store that run on other workers, with their owners.
///
/// # Errors
/// Nobody can say just now: tasks are on their way. Or the store has no such partition.
pub(super) fn elsewhere(
    shown: &Shown,
    store: &Store<'_>,
    partition: Option<i32>,
    here: &[Part],
) -> Result<Vec<Elsewhere>, Refusal> {
    let restoring = shown.status.threads().iter().any(|thread| {
        let snapshot = thread.snapshot();
        snapshot.tasks.iter().any(|task| store.has(&task.id, partition) && task.state.is_none())
    });
    let state = shown.status.state();
    if restoring || state < ThreadState::Restoring {
        return Err(Refusal::not_now(format!(
            "the worker is {}: some tasks of the store '{}' are on their way; ask again in a second",
            state.name(),
            store.name
        )));
    }
    let in_all = shown.status.tasks_in_all().iter();
    let of_store: Vec<_> = in_all.filter(|task| store.has(task, partition)).collect();
    if let (Some(partition), []) = (partition, of_store.as_slice()) {
        return Err(Refusal::not_found(format!("the store '{}' has no partition {partition}", store.name)));
    }
    let is_here = |task: &TaskId| here.iter().any(|part| part.task == *task);
    let others: Vec<_> = of_store.into_iter().filter(|task| !is_here(task)).collect();
    Ok(if others.is_empty() { Vec::new() } else { with_owners(shown, store, &others) })
}

fn with_owners(shown: &Shown, store: &Store<'_>, tasks: &[&TaskId]) -> Vec<Elsewhere> {
    let owners: Arc<Owners> = (shown.owners)().unwrap_or_else(|why| {
        tracing::warn!("an answer does not name the owners of tasks: {why}");
        Arc::default()
    });
    let topic = &shown.topology.inputs()[store.subtopology.inputs[0].slot()];
    let of_task = |task: &&TaskId| {
        let owner = owners.get(&TopicPartition::new(topic.clone(), task.partition)).map(|text| ClientId::parse(text));
        let (owner, address) = owner.map_or((None, None), |owner| (Some(owner.transactional_id), owner.http));
        let owner = owner.map(|owner| owner.chars().take(MEMBER_CHARS_MAX).collect());
        Elsewhere { task: (*task).clone(), owner, address }
    };
    tasks.iter().map(of_task).collect()
}

impl Elsewhere {
    fn shown(&self) -> Value {
        let address = self.address.as_ref().map(HttpAddress::to_string);
        json!({ "task": self.task.to_string(), "client_id": self.owner, "address": address })
    }

    fn told(&self) -> String {
        match (&self.owner, &self.address) {
            (Some(_), Some(address)) => format!("{} (http://{address})", self.task),
            (Some(owner), None) => format!("{} ({owner})", self.task),
            (None, _) => self.task.to_string(),
        }
    }
}

/// As answers have it in `elsewhere`.
pub(super) fn shown(elsewhere: &[Elsewhere]) -> Value {
    elsewhere.iter().map(Elsewhere::shown).collect()
}

/// A key was found in none of the tasks that run here, and others may have it.
///
/// Where the group has no owner for any of these, it is handing them over: that passes.
pub(super) fn misdirected(store: &Store<'_>, key: &str, here: &[Part], elsewhere: &[Elsewhere]) -> Refusal {
    let named = listed(elsewhere.iter().map(Elsewhere::told));
    if elsewhere.iter().all(|task| task.owner.is_none()) {
        return Refusal::not_now(format!(
            "the key '{key}' is in none of the tasks of the store '{}' that run here, and nobody can say who runs {named}: the group \
             hands them over, or does not answer; ask again in a second",
            store.name
        ));
    }
    let sentence = format!(
        "the key '{key}' is in none of the tasks of the store '{}' that run here ({}), and other workers run {named}: ask them",
        store.name,
        listed(here.iter().map(|part| part.task.to_string())),
    );
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, sentence).with("elsewhere", shown(elsewhere))
}

/// So many names, and how many more there are.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut listed: Vec<_> = names.take(NAMES_MAX).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
}
