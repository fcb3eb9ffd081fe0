//! The one error: what failed, what to do next, and why, as data.
//!
//! Stages make it, keepers keep it, the server sends it as a [`Problem`](crate::api::Problem). The message is for people;
//! nothing in this program reads it back: code that needs to know what happened matches on [`Reason`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::foreign_text;

mod exit;
pub mod foreign;
mod malformed;
mod mistake;

pub use exit::Exit;
pub use foreign::Cause;
pub use malformed::{Malformed, Part};
pub use mistake::Mistake;

pub type Result<T> = std::result::Result<T, Error>;

/// Why something did not work. Holds no token and no unparsed foreign text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub stage: Stage,
    pub kind: Kind,
    pub reason: Reason,
    /// For people: lower case, no full stop; names the file, host or key. One line, but for a list of mistakes in a file.
    pub message: String,
    /// How long to wait, as a server (or a backoff) says.
    pub retry_after: Option<Duration>,
}

/// Where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reading the configuration, or building what it describes.
    Configuration,
    /// Getting an identity token from its source.
    Identity,
    /// Exchanging it at W&B.
    Exchange,
    /// A person signing in or out, and the store of their session.
    SignIn,
    /// The daemon's folders and files.
    Files,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Identity => "identity",
            Self::Exchange => "exchange",
            Self::SignIn => "sign-in",
            Self::Files => "files",
        })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Try again: a network fault, a busy service, a file that is not there yet.
    Transient,
    /// A person must sign in.
    NeedsLogin,
    /// This credential is refused; another may be accepted.
    Rejected,
    /// Nothing will change until the configuration or the source does.
    Misconfigured,
    /// There is a token, with less life left than the caller asked for.
    TooShort,
    /// A forced renewal came too soon after the last one.
    TooSoon,
}

/// Why, as data. On the wire it is an object whose `code` names the variant; a code that this version does not know
/// reads as [`Reason::Other`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Reason {
    /// No connection.
    Unreachable { host: String, fault: NetworkFault },
    /// No answer in time.
    TimedOut { host: String, seconds: u64 },
    /// The connection ended before the answer did.
    ConnectionLost { host: String },
    /// https is required there. Nothing was sent.
    PlainHttp { host: String },
    /// https needs CA certificates, and there are none: at `path`, if a variable names one.
    NoCertificates { variable: Option<String>, path: Option<PathBuf> },
    /// An HTTP status that is not a success.
    Status { host: String, status: u16 },
    /// A redirect, which is not followed.
    Redirected { host: String, to: Option<String> },
    /// An answer that is not what the protocol says: not JSON, a field missing or of another type.
    UnreadableAnswer { host: String, field: Option<String> },
    /// More than the limit.
    TooLarge { from: String, limit: u64 },

    /// A file or folder that cannot be used.
    File { path: PathBuf, fault: FileFault },
    /// An environment variable that is missing or cannot be used.
    Variable { name: String },
    /// A key of the configuration that is missing or cannot be used.
    Setting { key: String },
    /// A configuration file that does not say what it should.
    Mistakes { path: PathBuf, mistakes: Vec<Mistake> },
    /// A program that was run for a token.
    Program { program: String, fault: ProgramFault },
    /// `auto` found no identity source.
    NoSource,

    /// The source gave something that is not a usable JWT.
    MalformedToken { how: Malformed },
    /// The identity token expired.
    TokenExpired { at: Timestamp },
    /// The identity token is valid only from then on (`nbf`).
    NotYetValid { at: Timestamp },
    /// The JWT is for somebody else.
    AudienceMismatch { found: Vec<String>, wanted: String },
    /// The ID token failed a check: signature, issuer, nonce, subject, authorized party.
    UntrustedToken,

    /// W&B refused the identity token. `error` is OAuth's code, `cause` what its words mean, where they are known.
    Refused { status: u16, error: Option<String>, cause: Option<Cause> },
    /// W&B takes each JWT once, and has seen this one.
    Replayed,
    /// No token endpoint at the base URL.
    NoTokenEndpoint { status: u16 },
    /// The feed that brought this profile's access tokens is over: none will come any more.
    FeedEnded { at: Timestamp },
    /// Where the access tokens come from, there is none newer than one that is about to end.
    NothingNewer,

    /// Nobody is signed in.
    SignedOut,
    /// The provider no longer accepts the session. `error` is OAuth's code.
    SessionRefused { error: String },
    /// The person said no, or let the time pass.
    Declined,
    /// The provider offers no sign-in by a code on another device.
    NoDeviceFlow,
    /// The provider answered without an ID token.
    NoIdToken,
    /// The store of the session is locked.
    StoreLocked,
    /// The store of the session cannot be used.
    StoreUnavailable,
    /// A newer version of this program stored the session, in a format of this number.
    SessionOfNewerVersion { version: u32 },
    /// The browser cannot return to this port: another program listens there.
    PortUnavailable { port: u16 },
    /// Another process uses the session, and does not come to an end.
    SessionHeld { pid: Option<u32> },

    /// Seconds of life left, and asked for.
    LifetimeTooShort { left: u64, asked: u64 },
    /// A token was renewed a moment ago.
    RenewedRecently,
    /// Nothing came within this many seconds.
    NoAnswer { seconds: u64 },
    /// The daemon is stopping.
    Stopping,
    /// The process to watch is in a PID namespace that the daemon cannot see into.
    ProcessUnseen,

    /// Nothing more than the message says.
    #[default]
    #[serde(other)]
    Other,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkFault {
    /// There is no such name.
    UnknownName,
    /// The name leads to an address that plain http must not reach.
    ForbiddenAddress,
    /// Nothing listens there.
    Refused,
    CertificateExpired,
    /// The certificate is for another host.
    CertificateName,
    /// Signed by an authority that is not trusted here.
    CertificateUntrusted,
    /// The proxy wants a user and password, or other ones.
    ProxyPassword,
    /// The proxy does not let requests to this host through.
    ProxyRefuses,
    /// Also: no name server answered.
    Other,
}

/// What is wrong with a file or folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFault {
    Missing,
    /// Permission denied, or an input/output error.
    Unreadable,
    Unwritable,
    /// Empty, or white space.
    Empty,
    NotADirectory,
    /// A socket, FIFO, device or folder, where a regular file is needed.
    NotARegularFile,
    /// Owned by another user.
    Foreign {
        owner: u32,
    },
    /// Others can read or write it.
    Loose {
        mode: u32,
    },
    TooLarge,
    /// Its content is not what it should be.
    Malformed,
    /// Did not answer in time: a dead mount.
    TimedOut,
}

/// How a program failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramFault {
    NotFound,
    NotExecutable,
    /// It could not be started for want of a resource.
    NotStarted,
    Exit {
        status: i32,
    },
    Killed,
    TimedOut,
    TooMuchOutput,
    /// It succeeded, and its output holds no token.
    NoToken,
}

impl Error {
    pub fn new(stage: Stage, kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { stage, kind, reason, message: foreign_text::message(message.into()), retry_after: None }
    }

    /// From an identity source: try again.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Stage::Identity, Kind::Transient, Reason::Other, message)
    }

    /// From an identity source: a person must sign in.
    pub fn needs_login(message: impl Into<String>) -> Self {
        Self::new(Stage::Identity, Kind::NeedsLogin, Reason::Other, message)
    }

    /// From an identity source: it refused, or gave something that is not an identity token.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(Stage::Identity, Kind::Rejected, Reason::Other, message)
    }

    /// From an identity source: nothing will change until somebody changes it.
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(Stage::Identity, Kind::Misconfigured, Reason::Other, message)
    }

    /// A file or folder that cannot be used.
    pub fn file(
        stage: Stage,
        path: impl Into<PathBuf>,
        fault: FileFault,
        message: impl Into<String>,
    ) -> Self {
        Self::new(stage, Kind::Misconfigured, Reason::File { path: path.into(), fault }, message)
    }

    /// A failed operation on a file or folder.
    pub fn io(stage: Stage, path: &Path, source: &std::io::Error) -> Self {
        Self::file(stage, path, source.into(), format!("{}: {source}", path.display()))
    }

    /// The fault, if a file or folder is the reason.
    pub fn file_fault(&self) -> Option<&FileFault> {
        match &self.reason {
            Reason::File { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// From an identity source: a key of the configuration that is missing or cannot be used.
    pub fn setting(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::misconfigured(message).because(Reason::Setting { key: key.into() })
    }

    /// From an identity source: an environment variable that is missing or cannot be used.
    pub fn variable(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::misconfigured(message).because(Reason::Variable { name: name.into() })
    }

    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    pub fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The server's word on when to come back.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Says in front what was being done: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = foreign_text::message(format!("{context}: {}", self.message));
        self
    }

    /// Adds what helps: `message; hint`.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = foreign_text::message(format!("{}; {hint}", self.message));
        self
    }

    /// The network failed, before any server said a word.
    pub fn is_network_fault(&self) -> bool {
        use NetworkFault::{Other, ProxyRefuses, Refused, UnknownName};
        match &self.reason {
            Reason::Unreachable { fault: UnknownName | Refused | ProxyRefuses | Other, .. }
            | Reason::TimedOut { .. }
            | Reason::ConnectionLost { .. } => self.is_transient(),
            _ => false,
        }
    }

    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }

    /// Whoever waits waits in vain: nothing changes by itself, but for what another program on this machine may be about to
    /// do, such as writing a file or starting to listen.
    pub fn is_lasting(&self) -> bool {
        use NetworkFault::{
            CertificateExpired, CertificateName, CertificateUntrusted, ForbiddenAddress, Other,
            ProxyPassword, ProxyRefuses, Refused, UnknownName,
        };
        match &self.reason {
            Reason::Unreachable { host, fault } => match fault {
                Refused => is_this_machine(host),
                UnknownName | ForbiddenAddress | CertificateExpired | CertificateName
                | CertificateUntrusted | ProxyPassword => true,
                // A proxy that cannot reach the host says no in the same way.
                ProxyRefuses | Other => false,
            },
            Reason::File { fault, .. } => *fault != FileFault::TimedOut,
            // It has been run, and has answered.
            Reason::Program { fault, .. } => {
                !matches!(fault, ProgramFault::NotStarted | ProgramFault::TimedOut)
            }
            _ => !self.is_transient(),
        }
    }

    /// How soon it is worth looking again for somebody who asks: what is wrong is on this machine, where people mend it and
    /// ask again at once. `None` where a server is asked, which has its own say.
    pub fn look_again_after(&self) -> Option<Duration> {
        match &self.reason {
            Reason::File { .. }
            | Reason::Variable { .. }
            | Reason::Setting { .. }
            | Reason::Program {
                fault: ProgramFault::NotFound | ProgramFault::NotExecutable | ProgramFault::NotStarted,
                ..
            }
            | Reason::NoSource => Some(LOOK_AGAIN),
            // A program may ask a server, too.
            Reason::Program { .. }
            | Reason::MalformedToken { .. }
            | Reason::TokenExpired { .. }
            | Reason::AudienceMismatch { .. } => Some(FETCH_AGAIN),
            Reason::Unreachable { host, .. } if is_this_machine(host) => Some(LOOK_AGAIN),
            Reason::Unreachable { .. } if self.is_lasting() => Some(FETCH_AGAIN),
            // They sign in to the source by another program.
            _ if self.kind == Kind::NeedsLogin && self.stage == Stage::Identity => Some(LOOK_AGAIN),
            _ => None,
        }
    }

    /// Asking again is in vain until somebody acts, who will be noticed.
    pub fn needs_word(&self) -> bool {
        self.kind == Kind::NeedsLogin || matches!(self.reason, Reason::FeedEnded { .. })
    }
}

/// Whether the host of a reason is this machine: `localhost`, a loopback address, or a socket.
fn is_this_machine(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(host);
    let name = if name.matches(':').count() == 1 { name.split(':').next().unwrap_or(name) } else { name };
    let name = name.trim_end_matches('.');
    host.starts_with("unix:")
        || name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Looking for a file or a program costs little, but many may ask at once.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The same where the token may come from a server.
const FETCH_AGAIN: Duration = Duration::from_secs(3);

/// The fault of a failed file operation, as far as its kind tells.
impl From<&std::io::Error> for FileFault {
    fn from(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => Self::Missing,
            ErrorKind::NotADirectory => Self::NotADirectory,
            ErrorKind::IsADirectory => Self::NotARegularFile,
            ErrorKind::TimedOut => Self::TimedOut,
            ErrorKind::InvalidData => Self::Malformed,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                Self::Unwritable
            }
            _ => Self::Unreadable,
        }
    }
}
