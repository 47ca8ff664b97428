//! `stores --url`: the stores as the workers that run have them, task by task, in the order in which the disk is read.
//!
//! Pages are read from one state of a task each, so a range of several is not one snapshot. A task that could not be asked is
//! named, and the answer without it is no success.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use serde_json::Value;

use super::found::{self, Entry, Listed, Missing};
use super::http::escaped;
use super::owners::{Heard, Listing, Task, WorkerUrl, Workers};
use super::{Remote, Verb};
use crate::commands::CommandError;
use crate::commands::progress::Progress;

/// The most rows that a worker gives at once.
const PAGE_ROWS: u64 = 1_000;

/// Answers.
pub(super) fn run(
    verb: &Verb,
    url: &WorkerUrl,
    remote: &Remote,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let mut workers = Workers::new(url.0.clone(), remote)?;
    let missing = match verb {
        Verb::List { .. } => {
            let (rows, missing) = list(&mut workers)?;
            found::list(rows, &missing, as_json, out)?;
            missing
        }
        Verb::Get { store, key, .. } => {
            let (found, missing) = get(&mut workers, store, key)?;
            if found.is_empty() && missing.is_empty() {
                return Err(CommandError::Failed(format!("store '{store}' has no value of {key}")));
            }
            found::entries(store, &found, &missing, as_json, out)?;
            if !found.is_empty() && !missing.is_empty() {
                // Most often a key is in one task, and here it is.
                tracing::warn!("{}", incomplete(&missing));
                return Ok(());
            }
            missing
        }
        Verb::Range { store, from, to, reverse, limit, .. } => {
            let mut asked = String::new();
            for (name, bound) in [("from", from), ("to", to)] {
                if let Some(bound) = bound {
                    write!(asked, "&{name}={}", escaped(bound)).expect("writing to a string cannot fail");
                }
            }
            asked.push_str(if *reverse { "&reverse=true" } else { "" });
            let (found, more, missing) = range(&mut workers, store, &asked, *limit)?;
            found::range(store, &found, more, &missing, as_json, out)?;
            missing
        }
        Verb::Count { store, .. } => {
            let (counts, missing) = count(&mut workers, store)?;
            found::counts(store, &counts, &missing, as_json, out)?;
            missing
        }
    };
    if missing.is_empty() { Ok(()) } else { Err(CommandError::Failed(incomplete(&missing))) }
}

/// The tasks that are missing, those with one reason together.
fn incomplete(missing: &[Missing]) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Missing { task, why } in missing {
        by_reason.entry(why).or_default().push(task);
    }
    let told: Vec<_> = by_reason.into_iter().map(|(why, tasks)| format!("{}: {why}", tasks.join(", "))).collect();
    format!("this is not all, for some tasks could not be asked. {}", told.join("; "))
}

fn list(workers: &mut Workers) -> Result<(Vec<Listed>, Vec<Missing>), CommandError> {
    let mut tasks: BTreeMap<(String, i32), Task> = BTreeMap::new();
    for task in workers.stores(None)?.into_iter().flat_map(|listing| listing.tasks) {
        tasks.entry((task.subtopology().to_owned(), task.partition)).or_insert(task);
    }
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    for task in tasks.values() {
        match workers.keys_about(task) {
            Ok(mut stores) => {
                stores.sort();
                rows.extend(stores.into_iter().map(|(store, entries_estimated)| Listed {
                    store,
                    task: task.name.clone(),
                    entries_estimated,
                    ..Listed::default()
                }));
            }
            Err(why) => missing.push(why),
        }
    }
    Ok((rows, missing))
}

fn of_store(workers: &mut Workers, store: &str) -> Result<Listing, CommandError> {
    Ok(workers.stores(Some(store))?.swap_remove(0))
}

fn get(workers: &mut Workers, store: &str, key: &str) -> Result<(Vec<Entry>, Vec<Missing>), CommandError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    let mut listing = of_store(workers, store)?;
    for task in &mut listing.tasks {
        let path = format!("/stores/{}/{}?partition={}", escaped(&listing.store), escaped(key), task.partition);
        match workers.ask(task, &path)? {
            Heard::Answer(body) => found.push(entry(task, &body)),
            Heard::NoSuchKey => {}
            Heard::Missing(why) => missing.push(why),
        }
    }
    Ok((found, missing))
}

type Ranged = (Vec<Entry>, u64, Vec<Missing>);

/// The first entries of a range, and how many more there are.
fn range(workers: &mut Workers, store: &str, asked: &str, limit: u64) -> Result<Ranged, CommandError> {
    let (mut found, mut more, mut missing) = (Vec::new(), 0, Vec::new());
    let mut listing = of_store(workers, store)?;
    for task in &mut listing.tasks {
        let mut cursor = None;
        loop {
            let left = limit - found.len() as u64;
            let what = if left == 0 { "count=true".to_owned() } else { format!("limit={}", left.min(PAGE_ROWS)) };
            match page(workers, &listing.store, task, &format!("{what}{asked}"), cursor.take())? {
                Ok(Page { rows, counted, next }) => {
                    more += counted;
                    // A worker may give more than it was asked for, but it is not shown.
                    found.extend(rows.into_iter().take(left as usize));
                    cursor = next;
                }
                Err(why) => missing.push(why),
            }
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok((found, more, missing))
}

type Counted = (Vec<(String, u64)>, Vec<Missing>);

fn count(workers: &mut Workers, store: &str) -> Result<Counted, CommandError> {
    let (mut counts, mut missing) = (Vec::new(), Vec::new());
    let mut listing = of_store(workers, store)?;
    let mut progress = Progress::of(listing.tasks.iter().filter_map(|task| task.keys_about).sum(), "entries");
    let mut total = 0;
    for task in &mut listing.tasks {
        let (mut count, mut cursor) = (0, None);
        let ended = loop {
            match page(workers, &listing.store, task, "count=true", cursor.take())? {
                Ok(Page { counted, next, .. }) => {
                    count += counted;
                    progress.reach(total + count);
                    match next {
                        Some(next) => cursor = Some(next),
                        None => break Ok(()),
                    }
                }
                Err(why) => break Err(why),
            }
        };
        match ended {
            Ok(()) => counts.push((task.name.clone(), count)),
            Err(why) => missing.push(why),
        }
        total += count;
    }
    Ok((counts, missing))
}

/// A page of one task.
struct Page {
    rows: Vec<Entry>,
    counted: u64,
    /// Where the next one begins.
    next: Option<String>,
}

fn page(
    workers: &mut Workers,
    store: &str,
    task: &mut Task,
    asked: &str,
    cursor: Option<String>,
) -> Result<Result<Page, Missing>, CommandError> {
    let cursor = cursor.map(|cursor| format!("&cursor={}", escaped(&cursor))).unwrap_or_default();
    let path = format!("/stores/{}?partition={}&{asked}{cursor}", escaped(store), task.partition);
    let name = task.name.clone();
    let no_sense = |what: &str| CommandError::Failed(format!("the owner of {name} {what}: is it another version?"));
    let body = match workers.ask(task, &path)? {
        Heard::Answer(body) => body,
        Heard::NoSuchKey => return Err(no_sense("knows nothing of ranges")),
        Heard::Missing(missing) => return Ok(Err(missing)),
    };
    let list = |name: &str| body[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let page = Page {
        rows: list("rows").iter().map(|row| entry(task, row)).collect(),
        counted: list("counts").iter().filter_map(|count| count["entries"].as_u64()).sum(),
        next: body["next"].as_str().map(str::to_owned),
    };
    if page.next.is_some() && page.rows.is_empty() && page.counted == 0 {
        return Err(no_sense("gives pages with nothing in them"));
    }
    Ok(Ok(page))
}

fn entry(task: &Task, row: &Value) -> Entry {
    Entry { task: task.name.clone(), key: row["key"].clone(), value: row["value"].clone() }
}
