//! Health: whether the loops turn, and whether every assigned task runs.
//!
//! An orchestrator restarts what is not healthy, so a worker that waits, for brokers, for the group or for a restore, is
//! healthy; it is only not ready.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shown;
use super::answer::Refusal;
use crate::status::ThreadState;

pub(super) async fn healthz(State(shown): State<Arc<Shown>>) -> Result<Json<Value>, Refusal> {
    let state = shown.status.state();
    let hanging = shown.status.hanging();
    if state == ThreadState::Stopped {
        return Err(Refusal::not_now("a stream thread has ended, and the worker ends with it; its log says why"));
    }
    if let Some((thread, age)) = hanging.first() {
        return Err(Refusal::not_now(format!(
            "stream thread {thread} has not turned for {age:.0?}: an operator that does not return, or a disk or broker call that hangs"
        )));
    }
    Ok(Json(json!({ "healthy": true, "state": state.name() })))
}

pub(super) async fn readyz(State(shown): State<Arc<Shown>>) -> Result<Json<Value>, Refusal> {
    let state = shown.status.state();
    let sentence = match state {
        ThreadState::Running => return Ok(Json(json!({ "ready": true, "state": state.name() }))),
        ThreadState::Starting => "the worker is starting: it checks its topics, or waits for brokers",
        ThreadState::Rebalancing => "the worker waits for its place in the consumer group",
        ThreadState::Restoring => "some tasks restore their state; /tasks says how far they are",
        ThreadState::Stopped => "the worker is stopping",
    };
    Err(Refusal::not_now(sentence))
}
