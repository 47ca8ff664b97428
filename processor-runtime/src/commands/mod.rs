//! The commands of every application beside `run`: each a file, with its arguments and what it does.
//!
//! A command writes its answer, and nothing else, to standard output: a table for people, or JSON for programs. What it
//! is busy with and what went wrong goes to standard error.

pub(crate) mod dead_letters;
mod error;
mod output;
mod progress;
pub(crate) mod reset;
pub(crate) mod stand_in;
pub(crate) mod stores;
pub(crate) mod topology;

pub(crate) use error::CommandError;
