//! Why a command did not do what it was asked for.

use std::io;

use crate::kafka::KafkaError;
use crate::state::StateError;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It was asked for what makes no sense: another command line is needed.
    #[error("{0}")]
    Misused(String),
    /// It failed at what it was asked for.
    #[error("{0}")]
    Failed(String),
    /// Nobody takes its answer.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl From<StateError> for CommandError {
    fn from(error: StateError) -> Self {
        Self::Failed(error.message)
    }
}

impl From<KafkaError> for CommandError {
    fn from(error: KafkaError) -> Self {
        Self::Failed(error.message)
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}
