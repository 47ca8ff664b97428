//! What was found, on disk or over HTTP, and how it is written: both look the same.

use std::io::Write;

use processor_core::ids::Timestamp;
use serde_json::{Value, json};

use crate::commands::{CommandError, output};

/// How much of a value a table shows, in characters.
const SHOWN_MAX: usize = 200;

/// A store of a task, without its entries. What is not known is `None`.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) store: String,
    pub(super) task: String,
    pub(super) entries_estimated: Option<u64>,
    pub(super) changelog_position: Option<i64>,
    pub(super) batch: Option<u64>,
    pub(super) stream_time: Option<Timestamp>,
    pub(super) written_at: Option<Timestamp>,
}

/// An entry, readable.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: String,
    pub(super) key: Value,
    pub(super) value: Value,
}

/// A task that could not be asked, and why.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) task: String,
    pub(super) why: String,
}

/// Writes the stores.
pub(super) fn list(
    rows: Vec<Listed>,
    missing: &[Missing],
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if as_json {
        let document = |row: Listed| {
            json!({
                "store": row.store, "task": row.task, "entries_estimated": row.entries_estimated,
                "changelog_position": row.changelog_position, "batch": row.batch,
                "stream_time_ms": row.stream_time.map(Timestamp::get), "written_at_ms": row.written_at.map(Timestamp::get),
            })
        };
        let stores: Vec<Value> = rows.into_iter().map(document).collect();
        return document_of(json!({ "stores": stores }), missing, out);
    }
    let row = |row: Listed| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            row.store,
            row.task,
            or_dash(row.entries_estimated.map(|number| number.to_string())),
            or_dash(row.changelog_position.map(|number| number.to_string())),
            or_dash(row.batch.map(|number| number.to_string())),
            or_dash(row.stream_time.map(output::moment)),
            or_dash(row.written_at.map(output::moment)),
        ]
    };
    let columns = ["STORE", "TASK", "ENTRIES (ESTIMATE)", "CHANGELOG POSITION", "BATCH", "STREAM TIME", "WRITTEN"];
    let is_estimated = rows.iter().any(|row| row.entries_estimated.is_some());
    output::table(out, &columns, rows.into_iter().map(row).collect())?;
    if is_estimated {
        writeln!(
            out,
            "an estimate counts an entry once more for each time it was written lately; `stores count` counts"
        )?;
    }
    Ok(())
}

/// Writes what a key has.
pub(super) fn entries(
    store: &str,
    found: &[Entry],
    missing: &[Missing],
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if as_json {
        let entries: Vec<Value> = found.iter().map(Entry::document).collect();
        return document_of(json!({ "store": store, "entries": entries }), missing, out);
    }
    Ok(output::table(out, &Entry::COLUMNS, found.iter().map(Entry::row).collect())?)
}

/// Writes a range, and how many entries more there are than it shows.
pub(super) fn range(
    store: &str,
    found: &[Entry],
    more: u64,
    missing: &[Missing],
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    if as_json {
        let entries: Vec<Value> = found.iter().map(Entry::document).collect();
        return document_of(json!({ "store": store, "entries": entries, "more": more }), missing, out);
    }
    output::table(out, &Entry::COLUMNS, found.iter().map(Entry::row).collect())?;
    if more > 0 {
        writeln!(out, "and {more} more; see them with a higher --limit")?;
    }
    Ok(())
}

/// Writes how many entries each task has.
pub(super) fn counts(
    store: &str,
    counts: &[(String, u64)],
    missing: &[Missing],
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if as_json {
        let tasks: Vec<Value> = counts.iter().map(|(task, count)| json!({ "task": task, "entries": count })).collect();
        return document_of(json!({ "store": store, "entries": total, "tasks": tasks }), missing, out);
    }
    let mut rows: Vec<Vec<String>> = counts.iter().map(|(task, count)| vec![task.clone(), count.to_string()]).collect();
    let of = if missing.is_empty() { "all" } else { "those that answered" };
    rows.push(vec![of.to_owned(), total.to_string()]);
    Ok(output::table(out, &["TASK", "ENTRIES"], rows)?)
}

/// Writes a document. Where tasks are missing it names them: it must not pass for the whole.
fn document_of(mut document: Value, missing: &[Missing], out: &mut impl Write) -> Result<(), CommandError> {
    if !missing.is_empty() {
        document["missing"] = missing.iter().map(|Missing { task, why }| json!({ "task": task, "why": why })).collect();
    }
    output::json(out, &document)
}

impl Entry {
    const COLUMNS: [&'static str; 3] = ["TASK", "KEY", "VALUE"];

    fn row(&self) -> Vec<String> {
        let plain =
            |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| output::text(text.as_bytes()));
        let shown = |value: &Value| output::shortened(&plain(value), SHOWN_MAX);
        vec![output::text(self.task.as_bytes()), shown(&self.key), shown(&self.value)]
    }

    fn document(&self) -> Value {
        json!({ "task": self.task, "key": self.key, "value": self.value })
    }
}
