//! How a topology runs exactly once on Apache Kafka.
//!
//! An application calls [`main`] with its topology and gets a command line ([`Application`] where its code has a say
//! in the settings), or [`app::run`] with a [`Config`](config::Config). [`settings`] is where settings come from,
//! [`secret`] how those are kept that nobody may see; [`state`] reads what a worker keeps on disk, [`metrics`] lists
//! what it measures, [`query`] is what it shows over HTTP, [`clock`] its time.
//!
//! The modules that are not shown here are the engine's parts. They are public for `processor-simulator` and the
//! tests, and may change at any time; ARCHITECTURE.md describes them.

#[macro_use]
mod listed;

#[cfg(feature = "jemalloc")]
mod allocator;
pub mod app;
mod cli;
pub mod clock;
mod commands;
pub mod config;
#[doc(hidden)]
pub mod failpoints;
#[doc(hidden)]
pub mod kafka;
pub mod metrics;
#[doc(hidden)]
pub mod preflight;
#[doc(hidden)]
pub mod purge;
pub mod query;
#[doc(hidden)]
pub mod restore;
pub mod secret;
#[doc(hidden)]
pub mod seeded_bugs;
#[doc(hidden)]
pub mod service_manager;
pub mod settings;
pub mod state;
#[doc(hidden)]
pub mod status;
#[doc(hidden)]
pub mod stream_thread;
#[doc(hidden)]
pub mod tasks;
#[doc(hidden)]
pub mod topics;
#[doc(hidden)]
pub mod transaction;

pub use cli::{Application, main};
