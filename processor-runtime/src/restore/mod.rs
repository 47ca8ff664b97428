//! Recovering tasks: committed offset, changelog's end, replay. A thread drives [`Restorer::step`] once a turn; nothing
//! here waits for an answer, so partitions that are ready run while others restore.
//!
//! It is the runtime's own, and no stable API.

mod blocker;
mod recovery;
mod restorer;

pub use recovery::{ChangelogSource, Recovered, Recovery};
pub use restorer::{Restorer, StepContext};

use processor_core::store::BaseError;

use crate::kafka::{KafkaError, KafkaErrorKind};
use crate::state::{StateError, StateErrorKind};

/// A task cannot be recovered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RestoreError {
    /// What to do.
    pub kind: RestoreErrorKind,
    /// What happened, to which task and partition, and what to do next.
    pub message: String,
}

/// What to do about a [`RestoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreErrorKind {
    /// A person must act: stop the thread.
    Stop,
    /// Another live member uses the same `group.instance.id`: stop.
    FencedInstance,
    /// The disk refuses: close the state, and open it again after a while.
    Disk,
    /// Local state is damaged: discard it, and restore it in full.
    Corrupt,
}

impl RestoreError {
    fn stop(message: String) -> Self {
        Self { kind: RestoreErrorKind::Stop, message }
    }
}

impl From<KafkaError> for RestoreError {
    fn from(error: KafkaError) -> Self {
        let kind = match error.kind {
            KafkaErrorKind::FencedInstance => RestoreErrorKind::FencedInstance,
            KafkaErrorKind::Retry | KafkaErrorKind::Config | KafkaErrorKind::Fatal => RestoreErrorKind::Stop,
        };
        Self { kind, message: error.message }
    }
}

impl From<BaseError> for RestoreError {
    fn from(error: BaseError) -> Self {
        let kind = if error.corrupt { RestoreErrorKind::Corrupt } else { RestoreErrorKind::Disk };
        Self { kind, message: error.message }
    }
}

impl From<StateError> for RestoreError {
    fn from(error: StateError) -> Self {
        let kind = match error.kind {
            StateErrorKind::Disk => RestoreErrorKind::Disk,
            StateErrorKind::Corrupt => RestoreErrorKind::Corrupt,
            StateErrorKind::InUse | StateErrorKind::Foreign => RestoreErrorKind::Stop,
        };
        Self { kind, message: error.message }
    }
}
