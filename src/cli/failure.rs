//! How the command ends: exit codes, and errors that say what happened and what to type next.

use std::process::ExitCode;

use crate::api::{Problem, ProblemKind};
use crate::client;
use crate::env::Env;
use crate::error;

/// The exit codes, after sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Success = 0,
    /// The command line is wrong.
    Usage = 64,
    /// No daemon answers.
    Unavailable = 69,
    /// The output cannot be written.
    Output = 74,
    /// The same command may work later.
    TryLater = 75,
    /// A person must sign in.
    NeedsLogin = 77,
    /// Nothing changes until the configuration does.
    Configuration = 78,
    /// The command to run exists, but cannot be run (as in sh).
    NotExecutable = 126,
    /// There is no such command to run (as in sh).
    NotFound = 127,
}

impl Exit {
    /// What a problem's kind means for the caller.
    pub(super) fn of(kind: ProblemKind) -> Self {
        match kind {
            ProblemKind::BadRequest => Self::Usage,
            // These speak of a daemon of another version, or of another user.
            ProblemKind::NotFound | ProblemKind::MethodNotAllowed | ProblemKind::Forbidden => {
                Self::Unavailable
            }
            ProblemKind::NeedsLogin | ProblemKind::Locked => Self::NeedsLogin,
            ProblemKind::LifetimeTooShort
            | ProblemKind::UpstreamUnavailable
            | ProblemKind::SdkFilesUnwritable
            | ProblemKind::TooManyRequests
            | ProblemKind::ShuttingDown => Self::TryLater,
            ProblemKind::NoSuchProfile
            | ProblemKind::ExchangeRejected
            | ProblemKind::IdentityRejected
            | ProblemKind::Misconfigured => Self::Configuration,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the command cannot do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    exit: u8,
    /// Empty where there is nothing to say, or another process has said it.
    what: String,
    next: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit: exit as u8, what: what.into(), next: None }
    }

    /// Ends with `exit`, saying nothing.
    pub(super) fn silent(exit: u8) -> Self {
        Self { exit, what: String::new(), next: None }
    }

    pub(super) fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    /// Puts the reason for the attempt in front.
    pub(super) fn because(mut self, why: String) -> Self {
        self.what = format!("{why}, and {}", self.what);
        self
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// A failed request, with the command that helps in this environment.
    pub(super) fn of(error: client::Error, env: &Env) -> Self {
        use client::Error;
        let what = error.to_string();
        match error {
            Error::NotRunning { .. } => {
                Self::new(Exit::Unavailable, what).next(super::service::start_command(env))
            }
            Error::Denied { .. } => Self::new(Exit::Unavailable, what)
                .next("run it as the user who started the daemon, or unset WANDB_CRED_SOCKET"),
            Error::Unsafe(_) | Error::Io { .. } => Self::new(Exit::Unavailable, what),
            Error::TimedOut { .. } => Self::new(Exit::TryLater, what).next("wandb-cred service status"),
            Error::BrokeOff { .. } => Self::new(Exit::TryLater, what).next("wandb-cred check"),
            Error::Malformed { .. } => Self::new(Exit::Unavailable, what)
                .next("restart wandb-credd, so that it has the version of wandb-cred"),
            Error::Problem(problem) => Self::of_problem(*problem),
        }
    }

    fn of_problem(problem: Problem) -> Self {
        let mut what = if problem.detail.is_empty() { problem.title } else { problem.detail };
        if let Some(seconds) = problem.retry_after {
            what = format!("{what} (next attempt in {})", super::span::text(seconds));
        }
        let next = problem.next.or_else(|| {
            let next = match problem.kind {
                ProblemKind::BadRequest => "wandb-cred --help",
                ProblemKind::NotFound | ProblemKind::MethodNotAllowed => {
                    "restart wandb-credd, so that it has the version of wandb-cred"
                }
                ProblemKind::Misconfigured => "wandb-cred check",
                ProblemKind::Locked => "wandb-cred unlock",
                ProblemKind::LifetimeTooShort => "wandb-cred refresh",
                ProblemKind::Forbidden => return None,
                _ => "wandb-cred status",
            };
            Some(next.to_owned())
        });
        Self { exit: Exit::of(problem.kind) as u8, what, next }
    }

    /// Tells the person on stderr, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        use std::io::Write as _;
        let mut text = String::new();
        if !self.what.is_empty() {
            text = format!("wandb-cred: {}\n", output_safe(&self.what));
        }
        if let Some(next) = self.next {
            text += &format!("  next: {}\n", output_safe(&next));
        }
        // Nothing is left to tell where stderr is closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.exit)
    }
}

impl From<error::Error> for Failure {
    fn from(error: error::Error) -> Self {
        Self { exit: error::Exit::from(&error) as u8, what: error.message, next: None }
    }
}

/// Text from elsewhere must not steer the terminal.
fn output_safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
