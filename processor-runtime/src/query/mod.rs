//! What a worker shows over HTTP: its health, its metrics, its tasks and its committed state. Read-only.
//!
//! The runtime starts it where [`Config::http_listen`](crate::config::Config::http_listen) is set. What it answers is
//! described in docs/http.md. Of the types only [`Token`] is shown here; the others are the engine's own.
//!
//! It runs on one thread of its own and never makes a stream thread wait: it looks at the snapshots of
//! `status` and reads committed state (EO-10). Every request is bounded: in size, in time, in rows and in
//! bytes of the answer. Without a token only the loopback interface is served, and only to requests that name it.

mod access;
mod advertised;
mod answer;
mod elsewhere;
mod health;
mod overview;
mod page;
mod scan;
mod scrape;
mod server;
mod stores;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

pub use access::Token;
#[doc(hidden)]
pub use advertised::Advertised;
#[doc(hidden)]
pub use server::Server;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware;
use axum::routing::get;
use processor_core::ids::TopicPartition;
use processor_core::topology::ApplicationTopology;

use self::answer::Refusal;
use crate::clock::SystemClock;
use crate::metrics::Metrics;
use crate::state::StoreFigures;
use crate::status::WorkerStatus;

/// What there is to show.
#[doc(hidden)]
pub struct Shown {
    /// The application's id.
    pub application_id: String,
    /// What the worker runs.
    pub topology: ApplicationTopology,
    /// Where its threads stand.
    pub status: Arc<WorkerStatus<SystemClock>>,
    /// What they measure.
    pub metrics: Metrics,
    /// What the databases say of themselves.
    pub figures: Box<dyn Fn() -> Figures + Send + Sync>,
    /// Who runs the tasks that do not run here. May wait two seconds for the group's coordinator; an error is a sentence.
    pub owners: Box<dyn Fn() -> Result<Arc<Owners>, String> + Send + Sync>,
}

/// By input partition: the client id of the member that owns it, see
/// [`ClientId`](processor_core::protocol::client_id::ClientId).
#[doc(hidden)]
pub type Owners = BTreeMap<TopicPartition, String>;

/// What the databases say of themselves.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each open store.
    pub stores: Vec<StoreFigures>,
    /// Memory that all of them use together.
    pub memory_used_bytes: usize,
    /// What they may use.
    pub memory_budget_bytes: usize,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("application_id", &self.application_id).finish_non_exhaustive()
    }
}

/// All routes. Health and metrics hold no data of users, and the page holds none at all: they are open. The rest asks for
/// the token, where there is one.
fn router(shown: Arc<Shown>, token: Option<Token>) -> Router {
    let guarded = Router::new()
        .route("/tasks", get(overview::tasks))
        .route("/topology", get(overview::topology))
        .route("/stores", get(stores::list))
        .route("/stores/{store}", get(stores::range))
        .route("/stores/{store}/{*key}", get(stores::key))
        .layer(middleware::from_fn_with_state(Arc::new(token.clone()), access::require_token));
    Router::new()
        .route("/", get(page::page))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(scrape::metrics))
        .merge(guarded)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::new(token), access::require_own_name))
        .with_state(shown)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!(
        "there is nothing at '{}': ask for /healthz, /readyz, /metrics, /tasks, /topology, /stores, /stores/<store>?from=&to=&limit=&reverse=&partition=&count=, \
         /stores/<store>/<key>, or the page at /",
        answer::excerpt(uri.path())
    ))
}
