//! How a topology runs exactly once on Apache Kafka.
//!
//! An application calls [`main`] with its topology and gets a command line, or [`app::run`] with a
//! [`Config`](config::Config). The loop is [`stream_thread`], the commit [`transaction`], the restore [`restore`].

#[macro_use]
mod listed;

pub mod app;
mod cli;
pub mod clock;
mod commands;
pub mod config;
#[doc(hidden)]
pub mod failpoints;
pub mod kafka;
pub mod metrics;
pub mod preflight;
pub mod purge;
pub mod query;
pub mod restore;
pub mod secret;
#[doc(hidden)]
pub mod seeded_bugs;
pub mod service_manager;
pub mod settings;
pub mod state;
pub mod status;
pub mod stream_thread;
pub mod tasks;
pub mod topics;
pub mod transaction;

pub use cli::{Application, main};
