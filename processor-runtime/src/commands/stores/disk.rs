//! `stores` on this machine's disk: read-only, without a lock, and without asking a worker or a broker.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use processor_core::ids::{StoreIndex, TaskId};
use processor_core::store::StoreJson;
use processor_core::topology::Topology;

use super::found::{self, Entry, Listed};
use super::{Place, Verb};
use crate::commands::progress::Progress;
use crate::commands::{CommandError, output};
use crate::state::{self, TaskView};

/// Answers.
pub(super) fn run(verb: &Verb, place: &Place, topology: &Topology, out: &mut impl Write) -> Result<(), CommandError> {
    let tasks = tasks(place, topology)?;
    match verb {
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
    let state_dir = place.state_dir.as_deref().expect("the command line demands it where no worker is asked");
    let application = application(place, state_dir)?;
    let directory = state::application_directory(state_dir, &application);
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

fn application(place: &Place, state_dir: &Path) -> Result<String, CommandError> {
    let directory = state_dir.display();
    let found = state::applications(state_dir)?;
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
    for (task, view) in tasks {
        let record = view.task();
        for (store, position) in view.stores() {
            rows.push(Listed {
                store: store.clone(),
                task: task.to_string(),
                entries_estimated: Some(view.approximate_len(store)?),
                changelog_position: position.as_ref().map(|record| record.offset.get()),
                batch: record.map(|record| record.batch.get()),
                stream_time: record.and_then(|record| record.stream_time),
                written_at: record.map(|record| record.written_at),
            });
        }
    }
    found::list(rows, &[], as_json, out)
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
        Entry { task: task.to_string(), key: self.json.key_or_why(key), value: self.json.value_or_why(value) }
    }

    /// Shows how far a walk through all entries is.
    fn progress(&self) -> Result<Progress, CommandError> {
        let expected = self.tasks.iter().map(|(_, view)| view.approximate_len(self.name)).sum::<Result<u64, _>>()?;
        Ok(Progress::of(expected, "entries"))
    }

    /// Tells people how old the oldest of what was shown may be, which is of these tasks: one that has moved stays behind as
    /// it was, and nothing on this disk says that it has. Programs see it in `list`.
    fn age(&self, shown: &BTreeSet<&TaskId>, as_json: bool) {
        let shown = self.tasks.iter().filter(|(task, _)| shown.contains(task));
        let written = shown.filter_map(|(_, view)| view.task());
        if let (false, Some(oldest)) = (as_json, written.map(|record| record.written_at).min()) {
            let oldest = output::moment(oldest);
            // No part of the answer, and nobody can be told where standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "as this disk was last written, at {oldest} or later; what runs at another worker now is newer there: ask with --url"
            );
        }
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
        self.age(&self.tasks.iter().map(|(task, _)| task).collect(), as_json);
        found::range(self.name, &entries, more, &[], as_json, out)
    }
}

fn get(store: &Store<'_>, key: &str, as_json: bool, out: &mut impl Write) -> Result<(), CommandError> {
    let bytes = store.key(key)?;
    let (mut found, mut shown) = (Vec::new(), BTreeSet::new());
    for (task, view) in &store.tasks {
        if let Some(value) = view.get(store.name, &bytes)? {
            found.push(store.entry(task, &bytes, &value));
            shown.insert(task);
        }
    }
    if found.is_empty() {
        return Err(CommandError::Failed(format!(
            "store '{}' has no value of {key} on this disk; its task may be at another worker",
            store.name
        )));
    }
    store.age(&shown, as_json);
    found::entries(store.name, &found, &[], as_json, out)
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
    store.age(&store.tasks.iter().map(|(task, _)| task).collect(), as_json);
    found::counts(store.name, &counts, &[], as_json, out)
}
