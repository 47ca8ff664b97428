//! `/tasks` and `/topology`: what runs here, and of what it is made.

use std::fmt::Write;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use processor_core::ids::Offset;
use processor_core::topology::Topology;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shown;
use super::answer::{Refusal, excerpt};
use crate::status::{InputStatus, TaskStatus};

pub(super) async fn tasks(State(shown): State<Arc<Shown>>) -> Json<Value> {
    let status = &shown.status;
    let threads = status.threads().iter().map(|thread| {
        json!({
            "thread": thread.number,
            "state": thread.snapshot().state.name(),
            "turned_seconds_ago": status.turn_age(thread).map(|age| age.as_secs_f64()),
        })
    });
    let tasks = status.threads().iter().flat_map(|thread| {
        let snapshot = thread.snapshot();
        snapshot.tasks.iter().map(|task| task_json(thread.number, task)).collect::<Vec<_>>()
    });
    Json(json!({
        "application": shown.application_id,
        "state": status.state().name(),
        "threads": threads.collect::<Vec<_>>(),
        "tasks": tasks.collect::<Vec<_>>(),
        "tasks_of_all_workers": status.tasks_in_all().len(),
    }))
}

fn task_json(thread: usize, task: &TaskStatus) -> Value {
    let input = |input: &InputStatus| {
        json!({
            "topic": &*input.partition.topic,
            "partition": input.partition.partition.get(),
            "position": input.position.get(),
            "end": input.end.map(Offset::get),
            "lag": input.lag(),
        })
    };
    let restore = task.restoring.as_ref().map(|restore| {
        json!({ "replayed": restore.replayed, "remaining": restore.remaining, "waits_for": restore.waits_for })
    });
    json!({
        "task": task.id.to_string(),
        "thread": thread,
        "state": if restore.is_none() { "running" } else { "restoring" },
        "inputs": task.inputs.iter().map(input).collect::<Vec<_>>(),
        "restore": restore,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    format: Option<String>,
}

pub(super) async fn topology(
    State(shown): State<Arc<Shown>>,
    form: Result<Query<Form>, QueryRejection>,
) -> Result<String, Refusal> {
    let Query(Form { format }) = form.map_err(|error| Refusal::bad_request(error.body_text()))?;
    match format.as_deref() {
        None | Some("text") => Ok(described(&shown.topology)),
        Some(other) => {
            Err(Refusal::bad_request(format!("the topology has no form '{}': ask for format=text", excerpt(other))))
        }
    }
}

fn described(topology: &Topology) -> String {
    let mut text = String::new();
    for subtopology in topology.subtopologies() {
        let inputs: Vec<&str> = subtopology.inputs.iter().map(|input| &*topology.inputs()[input.slot()]).collect();
        let mut line = |text_of_line: std::fmt::Arguments<'_>| {
            writeln!(text, "{text_of_line}").expect("writing to a string cannot fail");
        };
        line(format_args!("sub-topology {}", subtopology.name));
        line(format_args!("  reads   {}", inputs.join(", ")));
        line(format_args!("  stores  {}", subtopology.stores.join(", ")));
    }
    writeln!(text, "writes    {}", topology.outputs().join(", ")).expect("writing to a string cannot fail");
    text
}
