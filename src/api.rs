//! What goes over the socket: requests and answers, shared by the server and every client.
//!
//! `openapi.yaml` describes the same in words. Times are RFC 3339 UTC, durations whole seconds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::paths::SchedulerJob;

mod next;
mod problem;

pub use next::{next_after_sign_in, next_command, next_command_after, next_command_in};
pub use problem::{Problem, ProblemKind};

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
    /// Whether no token is handed out, until somebody unlocks.
    #[serde(default)]
    pub locked: bool,
    pub profiles: Vec<Profile>,
    /// With `?jobs=true`: the processes that use the SDK files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_list: Option<Vec<RunningJob>>,
    /// The loopback proxy, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// One process that uses the SDK files, and what the kernel says of it now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningJob {
    pub profile: String,
    pub since: Timestamp,
    pub by: JobOrigin,
    /// Absent for a process that the daemon does not see.
    pub pid: Option<u32>,
    pub uid: Option<u32>,
    pub command: Option<String>,
    pub executable: Option<String>,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    /// Batch or CI system, job and step.
    pub scheduler_job: Option<SchedulerJob>,
}

/// Why a process counts as a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOrigin {
    /// It was registered, by itself or for it.
    #[default]
    Registered,
    /// It came from a job that has ended, and carries the paths of its files.
    Adopted,
    /// It holds a connection, and cannot be seen.
    Held,
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
    /// None where only access tokens come, from another daemon.
    pub identity: Option<Kept>,
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
    /// What to type after what went wrong last, if anything did and a command helps.
    #[serde(default)]
    pub next: Option<String>,
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
    /// The seconds of its whole life, of which `expires_in` are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
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

/// `POST /v1/jobs`: a process that will use the SDK files, or the proxy. They are kept for it until it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    #[serde(default)]
    pub profile: Option<String>,
    /// Several at once instead: one pair of files with a token for the server of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Whose end to watch; the calling process when absent.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Watch this connection where the process cannot be seen: the job ends when nobody has it open any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Whether the job gets the loopback proxy instead of the SDK files; as the profile says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<bool>,
    /// Answer only when both files exist. If not, the answer comes at once, and the files when they can.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub wait: bool,
    /// Wait also for what another program may do in a moment, such as writing a token file: for jobs that start together with
    /// others. Else what does not pass by itself is an answer at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub patient: bool,
}

/// Between the names of profiles that one job uses together.
pub const PROFILE_SEPARATOR: char = '+';

fn yes() -> bool {
    true
}

/// Answer of `POST /v1/jobs`: the environment the SDK needs. Both files exist when it is sent, unless the caller did not
/// want to wait. With the proxy there are no files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// For several at once, their names with [`PROFILE_SEPARATOR`] between them.
    pub profile: String,
    pub base_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyAccess>,
    /// With `wait: false`: the files do not exist yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// The line that `wandb-credd run --feed` prints when the first token of a profile is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The machine's name.
    pub node: String,
    pub socket: PathBuf,
    pub profile: String,
    pub base_url: String,
    pub identity_token_file: PathBuf,
    pub credentials_file: PathBuf,
}

/// A job's way to W&B through the loopback proxy.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProxyAccess {
    pub port: u16,
    /// Good for this job, on this machine. For `WANDB_API_KEY`.
    pub key: String,
    /// For `WANDB_BASE_URL`.
    pub url: String,
    /// For `WF_TRACE_SERVER_URL`.
    pub trace_url: String,
    /// For `WANDB_APP_URL`: where people look at runs.
    pub app_url: String,
}

impl std::fmt::Debug for ProxyAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyAccess").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The loopback proxy in `/v1/status`, once a job has asked for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proxy {
    pub url: String,
    /// Whether it listens. Another program may have its port.
    pub listening: bool,
    /// The jobs that have a key.
    pub jobs: Vec<ProxyJob>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyJob {
    pub profile: String,
    /// Absent where only a connection stands for the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    pub requests: u64,
    /// Requests that were sent again with a new token.
    pub replays: u64,
    /// Bytes of bodies, to W&B and back.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// `GET /v1/doctor`: what was looked at on the way from the identity source to W&B, and what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Doctor {
    pub profile: String,
    pub verdict: Verdict,
    /// The exit code of `wandb-cred doctor`: 0, or what the worst finding asks for.
    pub exit: u8,
    pub findings: Vec<Finding>,
    /// The variables that the daemon has of those that decide how servers and identities are found, with a salted hash of each
    /// value: it may be a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
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

/// `POST /v1/login/{id}/callback`: the address at which the browser ended, where that is on another machine.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// Holds what the provider answered: a code that only the daemon can redeem.
    pub url: String,
}

/// Answer of `POST /v1/login`, `GET /v1/login/{id}` and `POST /v1/login/{id}/callback`.
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
    /// The same as data, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::error::Reason>,
    /// The command to type next, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
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
