//! Error answers, and what each kind of them means: an HTTP status, words, an exit code.

use serde::{Deserialize, Serialize};

use super::{next_command, next_command_after};
use crate::error::{Error, Exit, Kind, Reason, Stage};

/// Any error answer: `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    pub title: String,
    pub status: u16,
    /// What happened, to which profile.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Seconds until another attempt makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// Seconds of life the best token has, with `lifetime-too-short`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// The command to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why, as data, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            profile: None,
            retry_after: None,
            remaining: None,
            next: next_command(kind, None),
            reason: None,
        }
    }

    /// Reads one. A daemon of a later version may know more types: theirs counts as one of ours that ends alike.
    pub fn parse(body: &[u8], status: u16) -> Option<Self> {
        let mut problem: serde_json::Value = serde_json::from_slice(body).ok()?;
        let kind = problem.get_mut("type").filter(|kind| kind.is_string())?;
        if serde_json::from_value::<ProblemKind>(kind.clone()).is_err() {
            let alike = if status >= 500 || status == 429 {
                ProblemKind::UpstreamUnavailable
            } else {
                ProblemKind::BadRequest
            };
            *kind = serde_json::to_value(alike).ok()?;
        }
        let fields = problem.as_object_mut()?;
        if fields
            .get("reason")
            .is_some_and(|reason| serde_json::from_value::<Reason>(reason.clone()).is_err())
        {
            fields.remove("reason");
        }
        serde_json::from_value(problem).ok()
    }

    /// About one profile: names it, and in the next command too.
    pub fn of(kind: ProblemKind, profile: &str, detail: impl std::fmt::Display) -> Self {
        Self {
            profile: Some(profile.to_owned()),
            next: next_command(kind, Some(profile)),
            ..Self::new(kind, format!("profile `{profile}`: {detail}"))
        }
    }

    /// What went wrong with `profile`, as the wire says it.
    pub fn from_error(profile: &str, error: &Error) -> Self {
        Self {
            // Rounded up: never too soon.
            retry_after: error.retry_after.map(|wait| wait.as_secs() + 1),
            remaining: match error.reason {
                Reason::LifetimeTooShort { left, .. } => Some(left),
                _ => None,
            },
            next: next_command_after(error, profile),
            reason: Some(error.reason.clone()).filter(|reason| *reason != Reason::Other),
            ..Self::of(error.into(), profile, error)
        }
    }
}

/// The stable `type` of a problem. Each has one HTTP status and one exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request is malformed: unknown parameter, bad number, bad body.
    BadRequest,
    /// No such route.
    NotFound,
    /// The route exists, with other methods.
    MethodNotAllowed,
    /// A browser or a proxy sent this, or a foreign user.
    Forbidden,
    NoSuchProfile,
    /// A person must sign in.
    NeedsLogin,
    /// Tokens are not handed out until `wandb-cred unlock`.
    Locked,
    /// No token has as much life as was asked for.
    LifetimeTooShort,
    /// The identity provider or W&B does not answer, or answers that it cannot now.
    UpstreamUnavailable,
    /// W&B refused the identity token.
    ExchangeRejected,
    /// The identity source refused, or gave something that is not an identity token.
    IdentityRejected,
    /// Nothing will change until the configuration does.
    Misconfigured,
    /// The SDK files cannot be written.
    SdkFilesUnwritable,
    /// Too many requests of this kind.
    TooManyRequests,
    /// The daemon is stopping.
    ShuttingDown,
}

impl ProblemKind {
    /// The HTTP status that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden | Self::NeedsLogin => 403,
            Self::NotFound | Self::NoSuchProfile => 404,
            Self::MethodNotAllowed => 405,
            Self::LifetimeTooShort => 409,
            Self::Locked => 423,
            Self::TooManyRequests => 429,
            Self::SdkFilesUnwritable => 500,
            Self::ExchangeRejected | Self::IdentityRejected | Self::Misconfigured => 502,
            Self::UpstreamUnavailable | Self::ShuttingDown => 503,
        }
    }

    /// Words for a person.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed",
            Self::NotFound => "There is no such route",
            Self::MethodNotAllowed => "The route takes other methods",
            Self::Forbidden => "The request is refused",
            Self::NoSuchProfile => "There is no such profile",
            Self::NeedsLogin => "A person must sign in",
            Self::Locked => "The daemon is locked",
            Self::LifetimeTooShort => "No token has that much life left",
            Self::UpstreamUnavailable => "An upstream service is unavailable",
            Self::ExchangeRejected => "W&B refused the identity token",
            Self::IdentityRejected => "The identity source gave no usable token",
            Self::Misconfigured => "The configuration needs a change",
            Self::SdkFilesUnwritable => "The SDK files cannot be written",
            Self::TooManyRequests => "Too many requests",
            Self::ShuttingDown => "The daemon is stopping",
        }
    }
}

impl From<ProblemKind> for Exit {
    fn from(kind: ProblemKind) -> Self {
        match kind {
            ProblemKind::BadRequest => Self::Usage,
            // A daemon of another version, or of another user.
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

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        ProblemKind::from(error).into()
    }
}

impl From<&Error> for ProblemKind {
    fn from(error: &Error) -> Self {
        match (error.kind, error.stage) {
            (Kind::Transient, Stage::Files) => Self::SdkFilesUnwritable,
            (Kind::Transient, _) => Self::UpstreamUnavailable,
            (Kind::NeedsLogin, _) => Self::NeedsLogin,
            (Kind::Rejected, Stage::Exchange) => Self::ExchangeRejected,
            (Kind::Rejected, _) => Self::IdentityRejected,
            (Kind::Misconfigured, _) => Self::Misconfigured,
            (Kind::TooShort, _) => Self::LifetimeTooShort,
            (Kind::TooSoon, _) => Self::TooManyRequests,
        }
    }
}
