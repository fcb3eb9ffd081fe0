//! Why a subcommand could not do its work: an exit code, what happened, and what to type next.
//!
//! Every library error converts into it, so `?` works everywhere.

use std::process::ExitCode;

use crate::api::next_command;
use crate::api::{Problem, ProblemKind};
use crate::error::{Error, Exit, Reason};
use crate::{client, duration, output};

/// What a subcommand returns.
pub(super) type Outcome = Result<Exit, CommandError>;

#[derive(Debug)]
pub(super) struct CommandError {
    exit: Exit,
    /// Empty if there is nothing to say, or another process has said it.
    message: String,
    hint: Option<Hint>,
}

/// What helps.
#[derive(Debug)]
enum Hint {
    Type(String),
    /// Start a daemon. How that is done depends on the machine, which only the outermost place looks at.
    StartDaemon,
}

impl CommandError {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Ends with `exit` without a word.
    pub(super) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Says what to type next.
    pub(super) fn hint(mut self, next: impl Into<String>) -> Self {
        self.hint = Some(Hint::Type(next.into()));
        self
    }

    /// Puts in front what made the attempt necessary.
    pub(super) fn because(mut self, why: &str) -> Self {
        self.message = format!("{why}, and {}", self.message);
        self
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Prints the error, and gives the exit code. `start_command` is how a daemon is started on this machine.
    pub(super) fn report(self, start_command: impl FnOnce() -> &'static str) -> ExitCode {
        if !self.message.is_empty() {
            output::eprint_line(&format!("wandb-cred: {}", output::printable(&self.message)));
        }
        let next = self.hint.map(|hint| match hint {
            Hint::Type(next) => output::printable(&next),
            Hint::StartDaemon => start_command().to_owned(),
        });
        if let Some(next) = next {
            output::eprint_line(&format!("  next: {next}"));
        }
        self.exit.into()
    }
}

impl From<client::Error> for CommandError {
    fn from(error: client::Error) -> Self {
        use client::Error;
        let message = error.to_string();
        match error {
            Error::NotRunning { .. } => {
                let message =
                    format!("{message}; exec, token, env, login and refresh start one when they need it");
                Self { hint: Some(Hint::StartDaemon), ..Self::new(Exit::Unavailable, message) }
            }
            Error::Denied { .. } => Self::new(Exit::Unavailable, message)
                .hint("run it as the user who started the daemon, or unset WANDB_CRED_SOCKET"),
            Error::Unsafe(_) | Error::Stranger { .. } | Error::Io { .. } => {
                Self::new(Exit::Unavailable, message)
            }
            Error::TimedOut { .. } => Self::new(Exit::TryLater, message).hint("wandb-cred service status"),
            Error::BrokeOff { .. } => Self::new(Exit::TryLater, message).hint("wandb-cred check"),
            Error::Malformed { .. } => Self {
                // As for a route that the daemon does not have: it is of another version.
                hint: next_command(ProblemKind::NotFound, None).map(Hint::Type),
                ..Self::new(Exit::Unavailable, message)
            },
            Error::Problem(problem) => (*problem).into(),
        }
    }
}

impl From<Problem> for CommandError {
    fn from(problem: Problem) -> Self {
        if problem.reason == Some(Reason::NoSource) {
            // What was looked for fills a screen; the doctor shows it.
            return Self::new(problem.kind.into(), "no identity was found here, and none is configured")
                .hint("wandb-cred login --issuer URL --client-id ID, or wandb-cred doctor");
        }
        let mut message = if problem.detail.is_empty() { problem.title } else { problem.detail };
        // What must be mended first is not waited for.
        if let Some(seconds) = problem.retry_after.filter(|_| problem.kind != ProblemKind::Misconfigured) {
            message = format!("{message} (next attempt in {})", duration::text(seconds));
        }
        let next = problem.next.or_else(|| next_command(problem.kind, problem.profile.as_deref()));
        Self { exit: problem.kind.into(), message, hint: next.map(Hint::Type) }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let next = match &error.reason {
            Reason::Variable { name } => Some(format!("unset {name}")),
            _ => None,
        };
        Self { hint: next.map(Hint::Type), ..Self::new(Exit::from(&error), error.message) }
    }
}

impl From<output::Error> for CommandError {
    fn from(error: output::Error) -> Self {
        match error {
            output::Error::Closed => Self::silent(Exit::from(&error)),
            output::Error::Failed(_) => Self::new(Exit::from(&error), error.to_string()),
        }
    }
}
