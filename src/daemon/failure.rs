//! Why a program ends, where no other part has an error for it: what it says to a person, and its exit code.

use crate::error::Exit;

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    message: String,
    pub(super) exit: Exit,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit }
    }

    /// With the next step, on a line of its own.
    pub(super) fn next(exit: Exit, message: impl std::fmt::Display, next: impl std::fmt::Display) -> Self {
        Self::new(exit, format!("{message}\n  next: {next}"))
    }
}
