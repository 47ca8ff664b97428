//! `stores`: what is in the stores on this machine's disk, whether a worker runs on it or not.
//!
//! It is the committed state of one moment, task by task. A task's directory stays behind when the task moves to another
//! worker, so each answer says of which task it is, and `list` says when that task was last written here.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use processor_core::ids::{StoreIndex, TaskId, Timestamp};
use processor_core::store::StoreJson;
use processor_core::topology::Topology;
use serde_json::{Value, json};

use super::CommandError;
use super::output;
use super::progress::Progress;
use crate::state::{self, TaskView};

/// How much of a value a table shows, in characters.
const SHOWN_MAX: usize = 200;

/// The arguments of `stores`.
#[derive(Debug, Args)]
pub(crate) struct StoresArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the stores of each task, with their size and how far they are.
    ///
    /// Sizes are estimates; `count` counts. A task that has moved to another worker stays behind as it was: look at when it
    /// was written.
    #[command(after_help = "Example:\n  moving-average stores list --state-dir /var/lib/averages")]
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Shows the value of a key. Exits with 1 if it has none.
    #[command(after_help = "Example:\n  moving-average stores get window sensor-1 --state-dir /var/lib/averages")]
    Get {
        /// The store's name.
        store: String,
        /// The key: as JSON, or as plain text.
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// Shows the entries between two keys, in key order, task by task.
    #[command(
        after_help = "Example:\n  moving-average stores range window --from sensor-1 --to sensor-2 --limit 10 --state-dir /var/lib/averages"
    )]
    Range {
        /// The store's name.
        store: String,
        /// The first key; all from the first, if it is not given.
        #[arg(long)]
        from: Option<String>,
        /// The key behind the last; all to the last, if it is not given.
        #[arg(long)]
        to: Option<String>,
        /// From the last key to the first.
        #[arg(long)]
        reverse: bool,
        /// The most entries to show; how many more there are is said.
        #[arg(long, default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Counts the entries of a store, task by task.
    #[command(after_help = "Example:\n  moving-average stores count window --state-dir /var/lib/averages")]
    Count {
        /// The store's name.
        store: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the state is.
#[derive(Debug, Args)]
struct Place {
    /// The state directory, as given to `run`.
    #[arg(long, env = "PROCESSOR_STATE_DIR")]
    state_dir: PathBuf,
    /// The application's id; needed only where the directory holds the state of several.
    #[arg(long, env = "PROCESSOR_APPLICATION_ID")]
    application_id: Option<String>,
    /// Answers with a JSON document.
    #[arg(long)]
    json: bool,
    /// The application's own arguments, needed only where the stores' types depend on them.
    #[arg(last = true, value_name = "OWN ARGUMENTS")]
    own: Vec<OsString>,
}

impl StoresArgs {
    /// The application's own arguments, as far as they were given.
    pub(crate) fn own(&self) -> &[OsString] {
        &self.verb.place().own
    }
}

impl Verb {
    fn place(&self) -> &Place {
        match self {
            Self::List { place } | Self::Get { place, .. } | Self::Range { place, .. } | Self::Count { place, .. } => {
                place
            }
        }
    }
}

/// Answers.
pub(crate) fn run(args: &StoresArgs, topology: &Topology, out: &mut impl Write) -> Result<(), CommandError> {
    let place = args.verb.place();
    let tasks = tasks(place, topology)?;
    match &args.verb {
        Verb::List { .. } => list(&tasks, place.json, out),
        Verb::Get { store, key, .. } => get(&Store::find(topology, &tasks, store)?, key, place.json, out),
        Verb::Range { store, from, to, reverse, limit, .. } => {
            let store = Store::find(topology, &tasks, store)?;
            let range = Range {
                from: store.bound(from.as_deref())?,
                to: store.bound(to.as_deref())?,
                reverse: *reverse,
                limit: *limit,
            };
            store.range(&range, place.json, out)
        }
        Verb::Count { store, .. } => count(&Store::find(topology, &tasks, store)?, place.json, out),
    }
}

/// A task that has state here, as it is now.
type Task = (TaskId, TaskView);

fn tasks(place: &Place, topology: &Topology) -> Result<Vec<Task>, CommandError> {
    let application = application(place)?;
    let directory = state::application_directory(&place.state_dir, &application);
    let mut found = Vec::new();
    for task in state::tasks(&directory)? {
        if topology.subtopologies().iter().any(|part| part.name == task.subtopology) {
            found.extend(TaskView::open(&directory, &task)?.map(|view| (task, view)));
        }
    }
    if found.is_empty() {
        return Err(CommandError::Failed(format!(
            "{} holds no state of this topology: no task with a store has run here yet, or it was another program",
            directory.display()
        )));
    }
    Ok(found)
}

fn application(place: &Place) -> Result<String, CommandError> {
    let directory = place.state_dir.display();
    let found = state::applications(&place.state_dir)?;
    match (&place.application_id, found.as_slice()) {
        (Some(id), _) if found.contains(id) => Ok(id.clone()),
        (None, [only]) => Ok(only.clone()),
        (_, []) => Err(CommandError::Failed(format!(
            "{directory} holds no application's state; is it the state.dir of a worker?"
        ))),
        (Some(id), _) => {
            Err(CommandError::Failed(format!("{directory} holds no state of '{id}', but of {}", found.join(", "))))
        }
        (None, _) => Err(CommandError::Misused(format!(
            "{directory} holds the state of several applications: choose one with --application-id, of {}",
            found.join(", ")
        ))),
    }
}

fn list(tasks: &[Task], as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for (task, view) in tasks {
        let record = view.task();
        let (batch, written) = (record.map(|record| record.batch.get()), record.map(|record| record.written_at));
        let stream_time = record.and_then(|record| record.stream_time);
        for (store, position) in view.stores() {
            let (entries, position) =
                (view.approximate_len(store)?, position.as_ref().map(|record| record.offset.get()));
            let shown = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
            rows.push(vec![
                store.clone(),
                task.to_string(),
                entries.to_string(),
                shown(position.map(|offset| offset.to_string())),
                shown(batch.map(|batch| batch.to_string())),
                shown(stream_time.map(output::moment)),
                shown(written.map(output::moment)),
            ]);
            documents.push(json!({
                "store": store, "task": task.to_string(), "entries_estimated": entries, "changelog_position": position, "batch": batch,
                "stream_time_ms": stream_time.map(Timestamp::get), "written_at_ms": written.map(Timestamp::get),
            }));
        }
    }
    if as_json {
        return output::json(out, &json!({ "stores": documents }));
    }
    let columns = ["STORE", "TASK", "ENTRIES ABOUT", "CHANGELOG POSITION", "BATCH", "STREAM TIME", "WRITTEN"];
    Ok(output::table(out, &columns, rows)?)
}

/// A store over all tasks that have state here.
struct Store<'a> {
    name: &'a str,
    json: StoreJson,
    tasks: Vec<&'a Task>,
}

/// What to show, in stored bytes.
struct Range {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    reverse: bool,
    limit: u64,
}

impl<'a> Store<'a> {
    fn find(topology: &Topology, tasks: &'a [Task], name: &'a str) -> Result<Self, CommandError> {
        for part in topology.subtopologies() {
            let Some(slot) = part.stores.iter().position(|store| **store == *name) else { continue };
            if part.store_specs[slot].in_memory {
                return Err(CommandError::Misused(format!(
                    "store '{name}' is kept in memory, and nothing of it is on disk"
                )));
            }
            let index = StoreIndex::new(u16::try_from(slot).expect("build() bounds the number of stores"));
            let tasks = tasks.iter().filter(|(task, _)| task.subtopology == part.name).collect();
            return Ok(Self { name, json: part.store_json(index), tasks });
        }
        let known: Vec<&str> =
            topology.subtopologies().iter().flat_map(|part| &part.stores).map(|store| &**store).collect();
        Err(CommandError::Misused(format!("the topology has no store '{name}', but {}", known.join(", "))))
    }

    fn key(&self, text: &str) -> Result<Vec<u8>, CommandError> {
        self.json.key_from_text(text).map_err(|error| CommandError::Misused(error.0))
    }

    fn bound(&self, text: Option<&str>) -> Result<Option<Vec<u8>>, CommandError> {
        text.map(|text| self.key(text)).transpose()
    }

    /// An entry of a task; what cannot be read shows why, so that it hides no other.
    fn entry(&self, task: &TaskId, key: &[u8], value: &[u8]) -> Entry {
        let unreadable = |bytes: &[u8], error: processor_core::error::CodecError| json!({ "unreadable": error.0, "bytes": bytes.escape_ascii().to_string() });
        Entry {
            task: task.to_string(),
            key: self.json.key(key).unwrap_or_else(|error| unreadable(key, error)),
            value: self.json.value(value).unwrap_or_else(|error| unreadable(value, error)),
        }
    }

    /// Shows how far a walk through all entries is.
    fn progress(&self) -> Result<Progress, CommandError> {
        let expected = self.tasks.iter().map(|(_, view)| view.approximate_len(self.name)).sum::<Result<u64, _>>()?;
        Ok(Progress::of(expected, "entries"))
    }

    fn range(&self, range: &Range, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
        let mut entries = Vec::new();
        let progress = RefCell::new(self.progress()?);
        let mut more = 0_u64;
        let from = range.from.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let to = range.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        for (task, view) in &self.tasks {
            view.scan(self.name, (from, to), range.reverse, |key, value| {
                progress.borrow_mut().step();
                if (entries.len() as u64) < range.limit {
                    entries.push(self.entry(task, key, value));
                } else {
                    more += 1;
                }
                ControlFlow::Continue(())
            })?;
        }
        drop(progress);
        if as_json {
            let entries: Vec<Value> = entries.iter().map(Entry::document).collect();
            return output::json(out, &json!({ "store": self.name, "entries": entries, "more": more }));
        }
        output::table(out, &Entry::COLUMNS, entries.iter().map(Entry::row).collect())?;
        if more > 0 {
            writeln!(out, "and {more} more; see them with a higher --limit")?;
        }
        Ok(())
    }
}

/// An entry, readable.
struct Entry {
    task: String,
    key: Value,
    value: Value,
}

impl Entry {
    const COLUMNS: [&'static str; 3] = ["TASK", "KEY", "VALUE"];

    fn row(&self) -> Vec<String> {
        let plain =
            |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| output::text(text.as_bytes()));
        let shown = |value: &Value| output::shortened(&plain(value), SHOWN_MAX);
        vec![self.task.clone(), shown(&self.key), shown(&self.value)]
    }

    fn document(&self) -> Value {
        json!({ "task": self.task, "key": self.key, "value": self.value })
    }
}

fn get(store: &Store<'_>, key: &str, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let bytes = store.key(key)?;
    let mut found = Vec::new();
    for (task, view) in &store.tasks {
        found.extend(view.get(store.name, &bytes)?.map(|value| store.entry(task, &bytes, &value)));
    }
    if found.is_empty() {
        return Err(CommandError::Failed(format!(
            "store '{}' has no value of {key} on this disk; its task may be at another worker",
            store.name
        )));
    }
    if as_json {
        let entries: Vec<Value> = found.iter().map(Entry::document).collect();
        return output::json(out, &json!({ "store": store.name, "entries": entries }));
    }
    Ok(output::table(out, &Entry::COLUMNS, found.iter().map(Entry::row).collect())?)
}

fn count(store: &Store<'_>, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    let mut progress = store.progress()?;
    for (task, view) in &store.tasks {
        let mut count = 0;
        view.scan(store.name, (Bound::Unbounded, Bound::Unbounded), false, |_, _| {
            count += 1;
            progress.step();
            ControlFlow::Continue(())
        })?;
        counts.push((task.to_string(), count));
    }
    drop(progress);
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if as_json {
        let tasks: Vec<Value> = counts.iter().map(|(task, count)| json!({ "task": task, "entries": count })).collect();
        return output::json(out, &json!({ "store": store.name, "entries": total, "tasks": tasks }));
    }
    let mut rows: Vec<Vec<String>> = counts.iter().map(|(task, count)| vec![task.clone(), count.to_string()]).collect();
    rows.push(vec!["all".to_owned(), total.to_string()]);
    Ok(output::table(out, &["TASK", "ENTRIES"], rows)?)
}
