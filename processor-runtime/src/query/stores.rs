//! `/stores`: committed state of the tasks that run here (EO-10), by key and by range.
//!
//! A key of a store need not be the key of the record that wrote it, so a key does not say which task holds it: a look-up
//! asks every task of the store that runs here. What other workers hold is not here, and the answer says so, with their
//! addresses: it never passes for the whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use processor_core::ids::{StoreIndex, TaskId};
use processor_core::store::{BaseError, StoreJson};
use processor_core::topology::SubTopology;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, excerpt};
use super::elsewhere::{self, elsewhere, here, misdirected};
use super::scan::{self, Asked, ROWS_MAX, Scan};
use super::{Shown, server};

/// The longest key as it is typed.
const KEY_TEXT_BYTES_MAX: usize = 4_096;

/// A store of the topology.
pub(super) struct Store<'a> {
    pub(super) name: &'a str,
    pub(super) subtopology: &'a SubTopology,
    pub(super) index: StoreIndex,
    pub(super) view: StoreJson,
}

impl Store<'_> {
    /// Whether a task has this store, and this partition, if one is given.
    pub(super) fn has(&self, task: &TaskId, partition: Option<i32>) -> bool {
        task.subtopology == self.subtopology.name && partition.is_none_or(|partition| task.partition.get() == partition)
    }

    /// The stored bytes of a key as somebody types it.
    pub(super) fn parsed(&self, typed: &str) -> Result<Vec<u8>, Refusal> {
        if typed.len() > KEY_TEXT_BYTES_MAX {
            return Err(Refusal::new(
                StatusCode::URI_TOO_LONG,
                format!("the key has {} bytes, and at most {KEY_TEXT_BYTES_MAX} are looked up", typed.len()),
            ));
        }
        self.view.key_from_text(typed).map_err(|error| {
            Refusal::bad_request(format!("the store '{}' cannot have this key: {}", self.name, excerpt(&error.0)))
        })
    }
}

pub(super) async fn list(State(shown): State<Arc<Shown>>) -> Result<Json<Value>, Refusal> {
    server::aside(move || {
        let of_store = |store: Store<'_>| {
            let here = here(&shown, &store, None);
            let tasks = here.iter().map(|part| {
                let keys = part.state.approximate_len(store.index).ok();
                json!({ "task": part.task.to_string(), "keys_about": keys })
            });
            // `null`: tasks are on their way, and nobody can say.
            let elsewhere = elsewhere(&shown, &store, None, &here).ok().map(|tasks| elsewhere::shown(&tasks));
            json!({
                "store": store.name,
                "subtopology": &*store.subtopology.name,
                "tasks": tasks.collect::<Vec<_>>(),
                "elsewhere": elsewhere,
            })
        };
        let listed: Vec<_> = stores(&shown).map(of_store).collect();
        Json(json!({ "application": shown.application_id, "stores": listed }))
    })
    .await
}

/// What a key may be asked for with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Within {
    /// In the task of this partition only.
    partition: Option<i32>,
}

pub(super) async fn key(
    State(shown): State<Arc<Shown>>,
    path: Result<Path<(String, String)>, PathRejection>,
    within: Result<Query<Within>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path((store, key)) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let Query(within) = within.map_err(|error| {
        Refusal::bad_request(format!("{}: a key takes partition and nothing else", error.body_text()))
    })?;
    server::aside(move || look_up(&shown, &find(&shown, &store)?, &key, within.partition).map(Json)).await?
}

fn look_up(shown: &Shown, store: &Store<'_>, typed: &str, partition: Option<i32>) -> Result<Value, Refusal> {
    let key = store.parsed(typed)?;
    let here = here(shown, store, partition);
    for part in &here {
        let mut value = Vec::new();
        if part.state.get(store.index, &key, &mut value).map_err(unreadable)? {
            let mut shown = scan::entry(store, &part.task, &key, &value);
            shown["store"] = json!(store.name);
            return Ok(shown);
        }
    }
    let elsewhere = elsewhere(shown, store, partition, &here)?;
    if elsewhere.is_empty() {
        let asked: Vec<_> = here.iter().map(|part| part.task.to_string()).collect();
        let absent = Refusal::not_found(format!("the store '{}' has no key '{}'", store.name, excerpt(typed)));
        return Err(absent.with("tasks", json!(asked)));
    }
    Err(misdirected(store, &excerpt(typed), &here, &elsewhere))
}

pub(super) async fn range(
    State(shown): State<Arc<Shown>>,
    store: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(store) = store.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let Query(asked) = asked.map_err(|error| {
        Refusal::bad_request(format!(
            "{}: a range takes from, to, limit (1 to {ROWS_MAX}), reverse (true or false), cursor, partition and count (true or false)",
            error.body_text()
        ))
    })?;
    server::aside(move || page(&shown, &find(&shown, &store)?, &asked).map(Json)).await?
}

fn page(shown: &Shown, store: &Store<'_>, asked: &Asked) -> Result<Value, Refusal> {
    let scan = Scan::of(store, asked)?;
    let mut here = here(shown, store, asked.partition);
    let elsewhere = elsewhere(shown, store, asked.partition, &here)?;
    if scan.reverse {
        here.reverse();
    }
    let (of_page, (found, next)) = if asked.count {
        ("counts", scan::counts(store, &scan, &here).map_err(unreadable)?)
    } else {
        ("rows", scan::rows(store, &scan, &here).map_err(unreadable)?)
    };
    Ok(json!({
        "store": store.name,
        of_page: found,
        "next": next,
        "tasks": here.iter().map(|part| part.task.to_string()).collect::<Vec<_>>(),
        "elsewhere": elsewhere::shown(&elsewhere),
    }))
}

/// All stores of the topology.
fn stores(shown: &Shown) -> impl Iterator<Item = Store<'_>> {
    shown.topology.subtopologies().iter().flat_map(|subtopology| {
        let named = subtopology.stores.iter().zip((0..).map(StoreIndex::new));
        named.map(move |(name, index)| Store { name, subtopology, index, view: subtopology.store_json(index) })
    })
}

fn find<'a>(shown: &'a Shown, name: &str) -> Result<Store<'a>, Refusal> {
    stores(shown).find(|store| store.name == name).ok_or_else(|| {
        let names: Vec<&str> = stores(shown).map(|store| store.name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Refusal::not_found(format!("there is no store '{}'; the application has {there}", excerpt(name)))
    })
}

fn unreadable(error: BaseError) -> Refusal {
    Refusal::not_now(error.message)
}
