//! `/metrics`: the counters as they are, the gauges made for this scrape.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use processor_core::topology::ApplicationTopology;

use super::answer::Refusal;
use super::{Figures, Shown, server};
use crate::metrics::{Gauges, definitions as d};
use crate::state::StoreFigures;
use crate::status::{TaskStatus, ThreadState};

/// What Prometheus calls its text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(shown): State<Arc<Shown>>) -> Result<impl IntoResponse, Refusal> {
    let text = server::aside(move || {
        let gauges = Gauges::default();
        set_worker(&gauges, &shown);
        set_stores(&gauges, &shown.topology, &(shown.figures)());
        shown.metrics.render(&gauges)
    });
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text.await?))
}

fn set_worker(gauges: &Gauges, shown: &Shown) {
    gauges.set(&d::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    let now = shown.status.state();
    for state in ThreadState::ALL {
        gauges.set(&d::STATE, &[state.name()], f64::from(u8::from(state == now)));
    }
    let (mut running, mut restoring) = (0_u32, 0_u32);
    for thread in shown.status.threads() {
        if let Some(age) = shown.status.turn_age(thread) {
            gauges.set(&d::TURN_AGE, &[&thread.number.to_string()], age.as_secs_f64());
        }
        let busy = thread.operators_busy().as_secs_f64();
        gauges.set(&d::OPERATORS_BUSY, &[&thread.number.to_string()], busy);
        for task in &thread.snapshot().tasks {
            *(if task.restoring.is_none() { &mut running } else { &mut restoring }) += 1;
            set_task(gauges, shown, task);
        }
    }
    gauges.set(&d::TASKS, &["running"], f64::from(running));
    gauges.set(&d::TASKS, &["restoring"], f64::from(restoring));
}

fn set_task(gauges: &Gauges, shown: &Shown, task: &TaskStatus) {
    for input in &task.inputs {
        let partition = input.partition.partition.to_string();
        let set = |definition, value| gauges.set(definition, &[&input.partition.topic, &partition], value);
        if let Some(lag) = input.lag() {
            set(&d::INPUT_LAG, lag as f64);
        }
        if let Some(unstable) = input.unstable {
            set(&d::LSO_LAG, unstable.records as f64);
            set(&d::LSO_STANDS, unstable.stands_for.as_secs_f64());
        }
        if let Some(left) = shown.status.time_to_loss(input) {
            set(&d::TIME_TO_LOSS, left.as_secs_f64());
        }
    }
    let Some(restore) = &task.restoring else { return };
    if let Some(remaining) = restore.remaining {
        gauges.set(&d::RESTORE_REMAINING, &[&task.id.to_string()], remaining as f64);
    }
    if let Some(left) = restore.time_left {
        gauges.set(&d::RESTORE_ETA, &[&task.id.to_string()], left.as_secs_f64());
    }
}

fn set_stores(gauges: &Gauges, topology: &ApplicationTopology, figures: &Figures) {
    gauges.set(&d::MEMORY_USED, &[], figures.memory_used_bytes as f64);
    gauges.set(&d::MEMORY_BUDGET, &[], figures.memory_budget_bytes as f64);
    for StoreFigures { task, store, keys, on_disk } in &figures.stores {
        let name = &topology.subtopology_of(task).stores[store.slot()];
        let task = task.to_string();
        let set = |definition, value: u64| gauges.set(definition, &[&task, name], value as f64);
        set(&d::STORE_KEYS, *keys);
        let Some(on_disk) = on_disk else { continue };
        set(&d::STORE_BYTES, on_disk.live_bytes);
        set(&d::SST_BYTES, on_disk.sst_bytes);
        set(&d::MEMTABLE_BYTES, on_disk.memtable_bytes);
        set(&d::PENDING_COMPACTION_BYTES, on_disk.pending_compaction_bytes);
        set(&d::WRITE_STOPPED, u64::from(on_disk.write_stopped));
        set(&d::DELAYED_WRITE_RATE, on_disk.delayed_write_rate);
    }
}
