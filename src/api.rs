//! What goes over the socket: requests and answers, shared by the server and every client.
//!
//! `openapi.yaml` describes the same in words. Times are RFC 3339 UTC, durations whole seconds.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Reason, next_command};

/// `GET /v1/token`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    pub access_token: String,
    pub token_type: String,
    pub expires_at: Timestamp,
    pub expires_in: u64,
    pub base_url: String,
    pub profile: String,
}

/// `GET /v1/identity-token`, where the configuration allows it.
#[derive(Clone, Serialize, Deserialize)]
pub struct IdentityToken {
    pub identity_token: String,
    pub expires_at: Timestamp,
    pub expires_in: u64,
    pub profile: String,
}

/// `GET /v1/status`. Never holds a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started_at: Timestamp,
    pub socket: PathBuf,
    /// The configuration file in use; absent when the environment alone configures the daemon.
    pub config: Option<PathBuf>,
    pub profiles: Vec<Profile>,
}

/// `GET /v1/profiles`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profiles {
    pub profiles: Vec<Profile>,
}

/// One profile in `/v1/status` and `/v1/profiles`, and the answer of `POST /v1/refresh`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    pub name: String,
    /// Whether requests that name no profile get this one.
    pub default: bool,
    pub base_url: String,
    pub provider: String,
    pub audience: Option<String>,
    /// Whether the profile is renewed ahead of expiry now (something needs it).
    pub hot: bool,
    pub identity: Kept,
    pub access: Kept,
    /// Issuer and subject of the identity token, as W&B will see them.
    pub issuer: Option<String>,
    pub subject: Option<String>,
    /// Who has signed in, for a profile that people sign in to.
    pub person: Option<Person>,
    pub outlook: Option<Outlook>,
    pub sdk_files: Option<SdkFiles>,
    /// Processes that asked for the SDK files and still run.
    pub jobs: usize,
    /// Exchanges made since the daemon started.
    pub exchanges: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Person {
    /// E-mail address or name, or else the subject.
    pub account: String,
    /// When they signed in.
    pub since: Timestamp,
}

/// One keeper's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub state: State,
    pub expires_at: Option<Timestamp>,
    pub expires_in: Option<u64>,
    pub next_renewal: Option<Timestamp>,
    pub last_error: Option<String>,
    /// Failures in a row.
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing fetched yet.
    Starting,
    Fresh,
    /// The last good token is served; its renewal fails for now.
    Stale,
    /// A person must sign in.
    NeedsLogin,
    /// No usable token, and the last attempt failed.
    Failed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outlook {
    /// The source gives no new identity token after this instant.
    pub until: Timestamp,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SdkFiles {
    pub identity_token_file: PathBuf,
    pub credentials_file: PathBuf,
    /// Why the last write failed; it is retried.
    pub error: Option<String>,
}

/// `POST /v1/rejected`: a server answered 401 to this access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    #[serde(default)]
    pub profile: Option<String>,
    /// Hexadecimal SHA-256 of the access token.
    pub token_sha256: String,
}

/// Answer of `POST /v1/rejected`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RejectedAnswer {
    /// Whether the report named the current token and a renewal was forced.
    pub renewed: bool,
}

/// `POST /v1/jobs`: a process that will use the SDK files. They are kept fresh until it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    #[serde(default)]
    pub profile: Option<String>,
    /// Whose end to watch; the calling process when absent.
    #[serde(default)]
    pub pid: Option<u32>,
}

/// Answer of `POST /v1/jobs`: the environment the SDK needs. Both files exist when it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub profile: String,
    pub base_url: String,
    pub identity_token_file: PathBuf,
    pub credentials_file: PathBuf,
}

/// `GET /v1/doctor`: what was looked at on the way from the identity source to W&B, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Doctor {
    pub profile: String,
    pub verdict: Verdict,
    /// The exit code of `wandb-cred doctor`: 0, or what the worst finding asks for.
    pub exit: u8,
    pub findings: Vec<Finding>,
}

/// What one step of the doctor found. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of the step; a step may have several findings.
    pub step: String,
    pub verdict: Verdict,
    pub found: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// With `fail`: 69, 75, 77 or 78, as in sysexits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u8>,
}

/// In order of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Could not be looked at, because of an earlier finding.
    Skipped,
    Ok,
    Warn,
    Fail,
}

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

/// `POST /v1/login`: begins a sign-in, or joins the one that is under way for this profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    #[serde(default)]
    pub profile: Option<String>,
    #[serde(default)]
    pub method: LoginMethod,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginMethod {
    /// A browser on this machine.
    #[default]
    Browser,
    /// A code, typed in on any other device.
    Device,
}

/// Answer of `POST /v1/login` and `GET /v1/login/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// 32 hexadecimal digits.
    pub id: String,
    pub profile: String,
    pub method: LoginMethod,
    pub state: LoginState,
    /// What to open: the authorization URL, or the page that takes the code.
    pub url: String,
    /// With `device`: what to type there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<String>,
    /// With `device`: a page that has the code filled in already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_with_code: Option<String>,
    /// The sign-in is given up then.
    pub expires_at: Timestamp,
    /// Who has signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginState {
    /// The person has not answered yet.
    Waiting,
    SignedIn,
    Failed,
}

/// Answer of `POST /v1/logout`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logout {
    pub profile: String,
    /// Who was signed in; absent if nobody was.
    pub account: Option<String>,
    /// Whether the provider has ended the session too.
    pub revoked: bool,
    /// Why it has not, where it could have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /v1/lock` and `POST /v1/unlock`, and their answers: while locked, no token is handed out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Locked {
    pub locked: bool,
}
