//! `/stores`: committed state of the tasks that run here (EO-10), by key and by range.
//!
//! A key of a store need not be the key of the record that wrote it, so a key does not say which task holds it: a look-up
//! asks every task of the store that runs here. A range goes through them by partition, and in key order within each. What
//! other workers hold is not here, and the answer says so: it never passes for the whole.
//!
//! A page ends after so many rows, bytes or milliseconds, whatever comes first, and names where the next one begins.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use processor_core::error::CodecError;
use processor_core::ids::{StoreIndex, TaskId, TopicPartition};
use processor_core::store::{Base, BaseError, StoreView};
use processor_core::topology::SubTopology;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Refusal, excerpt};
use super::{Shown, server};
use crate::status::{TaskStatus, ThreadState};

/// Rows of a page, if nothing else is asked for.
const ROWS_DEFAULT: usize = 100;
/// The most rows of a page.
const ROWS_MAX: usize = 1_000;
/// The most stored bytes of a page; the row that passes it is the last one.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a page is read for.
const PAGE_TIME_MAX: Duration = Duration::from_millis(500);
/// The largest stored value that is shown.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How many tasks a sentence names.
const NAMES_MAX: usize = 8;
/// The longest key as it is typed.
const KEY_TEXT_BYTES_MAX: usize = 4_096;

/// A store of the topology.
struct Store<'a> {
    name: &'a str,
    subtopology: &'a SubTopology,
    index: StoreIndex,
    view: StoreView,
}

/// A task with this store that runs here.
struct Part {
    task: TaskId,
    state: Arc<dyn Base + Send + Sync>,
}

pub(super) async fn list(State(shown): State<Arc<Shown>>) -> Result<Json<Value>, Refusal> {
    let listed = server::aside(move || {
        let of_store = |store: Store<'_>| {
            let tasks = parts(&shown, &store).into_iter().map(|part| {
                let keys = part.state.approximate_len(store.index).ok();
                json!({ "task": part.task.to_string(), "keys_about": keys })
            });
            json!({ "store": store.name, "subtopology": &*store.subtopology.name, "tasks": tasks.collect::<Vec<_>>() })
        };
        stores(&shown).map(of_store).collect::<Vec<_>>()
    });
    Ok(Json(json!({ "stores": listed.await? })))
}

pub(super) async fn key(
    State(shown): State<Arc<Shown>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path((store, key)) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
    server::aside(move || look_up(&shown, &find(&shown, &store)?, &key).map(Json)).await?
}

fn look_up(shown: &Shown, store: &Store<'_>, typed: &str) -> Result<Value, Refusal> {
    let key = parsed(store, typed)?;
    let parts = parts(shown, store);
    for part in &parts {
        let mut value = Vec::new();
        if part.state.get(store.index, &key, &mut value).map_err(unreadable)? {
            let mut shown = Row::new(&part.task, &key, &value).shown(store);
            shown["store"] = json!(store.name);
            return Ok(shown);
        }
    }
    let elsewhere = elsewhere(shown, store, &parts)?;
    if elsewhere.is_empty() {
        return Err(Refusal::not_found(format!("the store '{}' has no key '{}'", store.name, excerpt(typed))));
    }
    Err(Refusal::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!(
            "the key '{}' is in none of the tasks of the store '{}' that run here ({}), and other workers run {}: ask them",
            excerpt(typed),
            store.name,
            listed(parts.iter().map(|part| part.task.to_string())),
            listed(with_owners(shown, store, &elsewhere).into_iter().map(|(task, owner)| match owner {
                Some(owner) => format!("{task} ({owner})"),
                None => task,
            }))
        ),
    ))
}

/// What a range may be asked for with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The first key.
    from: Option<String>,
    /// The key behind the last one.
    to: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    reverse: bool,
    /// What the page before called `next`.
    cursor: Option<String>,
}

pub(super) async fn range(
    State(shown): State<Arc<Shown>>,
    store: Result<Path<String>, PathRejection>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Path(store) = store.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let Query(asked) = asked.map_err(|error| {
        Refusal::bad_request(format!(
            "{}: a range takes from, to, limit (1 to {ROWS_MAX}), reverse (true or false) and cursor",
            error.body_text()
        ))
    })?;
    server::aside(move || page(&shown, &find(&shown, &store)?, &asked).map(Json)).await?
}

/// An entry as it is stored.
struct Row {
    task: TaskId,
    key: Vec<u8>,
    /// Its length, where it is too large to be shown.
    value: Result<Vec<u8>, usize>,
}

/// The bounds of a range as stored bytes, and where in it the page begins.
struct Scan {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    reverse: bool,
    rows_max: usize,
    begins: Option<Cursor>,
}

/// The row that the page before ended with.
struct Cursor {
    partition: i32,
    key: Vec<u8>,
}

/// What a page has collected: bytes, so that a store in memory, which nobody writes while it is read, is read quickly.
struct Page {
    rows: Vec<Row>,
    bytes: usize,
    until: Instant,
    next: Option<String>,
}

fn page(shown: &Shown, store: &Store<'_>, asked: &Asked) -> Result<Value, Refusal> {
    let scan = Scan::of(store, asked)?;
    let mut parts = parts(shown, store);
    let elsewhere = elsewhere(shown, store, &parts)?;
    if scan.reverse {
        parts.reverse();
    }
    let mut page = Page { rows: Vec::new(), bytes: 0, until: Instant::now() + PAGE_TIME_MAX, next: None };
    for part in parts.iter().filter(|part| scan.reaches(part)) {
        page.read(store, &scan, part).map_err(unreadable)?;
        if page.next.is_some() {
            break;
        }
    }
    Ok(json!({
        "store": store.name,
        "rows": page.rows.iter().map(|row| row.shown(store)).collect::<Vec<_>>(),
        "next": page.next,
        "tasks": parts.iter().map(|part| part.task.to_string()).collect::<Vec<_>>(),
        "elsewhere": with_owners(shown, store, &elsewhere)
            .into_iter()
            .map(|(task, owner)| json!({ "task": task, "client_id": owner }))
            .collect::<Vec<_>>(),
    }))
}

impl Scan {
    fn of(store: &Store<'_>, asked: &Asked) -> Result<Self, Refusal> {
        let rows_max = asked.limit.unwrap_or(ROWS_DEFAULT);
        if !(1..=ROWS_MAX).contains(&rows_max) {
            return Err(Refusal::bad_request(format!(
                "limit={rows_max} is not between 1 and {ROWS_MAX}: ask for less, and for the next page with cursor=<next>"
            )));
        }
        let bound = |text: &Option<String>| text.as_deref().map(|text| parsed(store, text)).transpose();
        let (from, to) = (bound(&asked.from)?, bound(&asked.to)?);
        if let (Some(from), Some(to)) = (&from, &to)
            && from >= to
        {
            return Err(Refusal::bad_request(
                "nothing lies between from and to: from is the first key, to is the key behind the last one",
            ));
        }
        let begins = asked.cursor.as_deref().map(Cursor::parse).transpose()?;
        if begins.as_ref().is_some_and(|cursor| {
            from.as_ref().is_some_and(|from| cursor.key < *from) || to.as_ref().is_some_and(|to| cursor.key >= *to)
        }) {
            return Err(Refusal::bad_request(
                "the cursor lies outside of from and to: pass it on together with the same from, to and reverse",
            ));
        }
        Ok(Self {
            from: from.map_or(Bound::Unbounded, Bound::Included),
            to: to.map_or(Bound::Unbounded, Bound::Excluded),
            reverse: asked.reverse,
            rows_max,
            begins,
        })
    }

    /// Whether anything of this part can lie behind the cursor.
    fn reaches(&self, part: &Part) -> bool {
        let partition = part.task.partition.get();
        self.begins.as_ref().is_none_or(|cursor| {
            if self.reverse { partition <= cursor.partition } else { partition >= cursor.partition }
        })
    }

    /// The bounds within a part.
    fn bounds(&self, part: &Part) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let (mut from, mut to) = (as_slice(&self.from), as_slice(&self.to));
        if let Some(cursor) = self.begins.as_ref().filter(|cursor| cursor.partition == part.task.partition.get()) {
            *(if self.reverse { &mut to } else { &mut from }) = Bound::Excluded(&cursor.key);
        }
        (from, to)
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl Page {
    fn read(&mut self, store: &Store<'_>, scan: &Scan, part: &Part) -> Result<(), BaseError> {
        let (from, to) = scan.bounds(part);
        part.state.range(store.index, from, to, scan.reverse, &mut |key, value| {
            let row = Row::new(&part.task, key, value);
            self.bytes += key.len() + row.value.as_ref().map_or(0, Vec::len);
            self.rows.push(row);
            let is_full = self.rows.len() >= scan.rows_max || self.bytes >= PAGE_BYTES_MAX;
            if !is_full && Instant::now() < self.until {
                return ControlFlow::Continue(());
            }
            self.next = Some(Cursor { partition: part.task.partition.get(), key: key.to_vec() }.to_text());
            ControlFlow::Break(())
        })
    }
}

/// A cursor is `<partition>.<key in hexadecimal digits>`.
impl Cursor {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let parsed = text.split_once('.').and_then(|(partition, key)| {
            let digits = |at: usize| u8::from_str_radix(key.get(at..at + 2)?, 16).ok();
            let is_hex = key.len().is_multiple_of(2) && key.bytes().all(|digit| digit.is_ascii_hexdigit());
            let key = is_hex.then(|| (0..key.len()).step_by(2).map(digits).collect::<Option<Vec<u8>>>())??;
            Some(Self { partition: partition.parse().ok()?, key })
        });
        parsed.ok_or_else(|| Refusal::bad_request("the cursor is none: pass on what the page before called 'next'"))
    }

    fn to_text(&self) -> String {
        let digits = self.key.iter().map(|byte| format!("{byte:02x}"));
        format!("{}.{}", self.partition, digits.collect::<String>())
    }
}

/// All stores of the topology.
fn stores(shown: &Shown) -> impl Iterator<Item = Store<'_>> {
    shown.topology.subtopologies().iter().flat_map(|subtopology| {
        let named = subtopology.stores.iter().zip(&subtopology.store_views).zip(0..);
        named.map(move |((name, view), index)| Store { name, subtopology, index: StoreIndex::new(index), view: *view })
    })
}

fn find<'a>(shown: &'a Shown, name: &str) -> Result<Store<'a>, Refusal> {
    stores(shown).find(|store| store.name == name).ok_or_else(|| {
        let names: Vec<&str> = stores(shown).map(|store| store.name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Refusal::not_found(format!("there is no store '{}'; the application has {there}", excerpt(name)))
    })
}

fn parsed(store: &Store<'_>, typed: &str) -> Result<Vec<u8>, Refusal> {
    if typed.len() > KEY_TEXT_BYTES_MAX {
        return Err(Refusal::new(
            StatusCode::URI_TOO_LONG,
            format!("the key has {} bytes, and at most {KEY_TEXT_BYTES_MAX} are looked up", typed.len()),
        ));
    }
    store.view.parse_key(typed).map_err(|error| {
        Refusal::bad_request(format!("the store '{}' cannot have this key: {}", store.name, excerpt(&error.0)))
    })
}

/// The tasks with this store that run here, by partition.
fn parts(shown: &Shown, store: &Store<'_>) -> Vec<Part> {
    let snapshots = shown.status.threads().iter().map(|thread| thread.snapshot());
    let of_store = |task: &TaskStatus| {
        let state = task.state.clone().filter(|_| task.id.subtopology == store.subtopology.name)?;
        Some(Part { task: task.id.clone(), state })
    };
    let mut parts: Vec<Part> =
        snapshots.flat_map(|snapshot| snapshot.tasks.iter().filter_map(of_store).collect::<Vec<_>>()).collect();
    parts.sort_by(|a, b| a.task.cmp(&b.task));
    parts
}

/// The tasks of the store that run on other workers.
///
/// # Errors
/// Nobody can say just now: tasks are on their way.
fn elsewhere(shown: &Shown, store: &Store<'_>, parts: &[Part]) -> Result<Vec<TaskId>, Refusal> {
    let is_of_store = |task: &TaskId| task.subtopology == store.subtopology.name;
    let restoring = shown.status.threads().iter().any(|thread| {
        let snapshot = thread.snapshot();
        snapshot.tasks.iter().any(|task| is_of_store(&task.id) && task.state.is_none())
    });
    let state = shown.status.state();
    if restoring || state < ThreadState::Restoring {
        return Err(Refusal::not_now(format!(
            "the worker is {}: some tasks of the store '{}' are on their way; ask again in a second",
            state.name(),
            store.name
        )));
    }
    let is_here = |task: &TaskId| parts.iter().any(|part| part.task == *task);
    let in_all = shown.status.tasks_in_all().iter();
    Ok(in_all.filter(|task| is_of_store(task) && !is_here(task)).cloned().collect())
}

/// Each task with the client id of its owner, where the group knows one.
fn with_owners(shown: &Shown, store: &Store<'_>, tasks: &[TaskId]) -> Vec<(String, Option<String>)> {
    if tasks.is_empty() {
        return Vec::new();
    }
    let owners = (shown.owners)().unwrap_or_else(|why| {
        tracing::warn!("an answer does not name the owners of tasks: {why}");
        Arc::default()
    });
    let topic = &shown.topology.inputs()[store.subtopology.inputs[0].slot()];
    let owner = |task: &TaskId| owners.get(&TopicPartition::new(topic.clone(), task.partition)).cloned();
    tasks.iter().map(|task| (task.to_string(), owner(task))).collect()
}

impl Row {
    fn new(task: &TaskId, key: &[u8], value: &[u8]) -> Self {
        let value = if value.len() > VALUE_BYTES_MAX { Err(value.len()) } else { Ok(value.to_vec()) };
        Self { task: task.clone(), key: key.to_vec(), value }
    }

    /// As JSON. What cannot be shown says why, and does not spoil the others.
    fn shown(&self, store: &Store<'_>) -> Value {
        let or_why = |shown: Result<Value, CodecError>, what: &str| {
            shown.unwrap_or_else(|error| json!({ "unreadable": format!("the {what} cannot be shown: {error}") }))
        };
        let value = match &self.value {
            Ok(value) => or_why(store.view.value(value), "value"),
            Err(bytes) => {
                json!({ "unreadable": format!("the value has {bytes} bytes, and at most {VALUE_BYTES_MAX} are shown") })
            }
        };
        json!({ "task": self.task.to_string(), "key": or_why(store.view.key(&self.key), "key"), "value": value })
    }
}

fn unreadable(error: BaseError) -> Refusal {
    Refusal::not_now(error.message)
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
