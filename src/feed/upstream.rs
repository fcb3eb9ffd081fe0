//! Another daemon's socket: a forwarded one (`ssh -R`), or one in a mounted folder. One attempt per call.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Deserializer};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::accept;
use crate::api::{self, Problem, ProblemKind};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Kind, NetworkFault, Reason, Stage};
use crate::redact::redact;
use crate::token::{AccessToken, TokenHash};
use crate::{client, paths};

/// `upstream = "unix:PATH"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(PathBuf);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let path = text.strip_prefix("unix:").map(Path::new).filter(|path| path.is_absolute());
        let path = path.ok_or_else(|| {
            serde::de::Error::custom(
                "`upstream` must be \"unix:\" and the absolute path of a daemon's socket",
            )
        })?;
        Ok(Self(path.to_owned()))
    }
}

/// One profile of another daemon.
pub struct Upstream {
    socket: PathBuf,
    /// The profile's name there; its default one if there is none.
    profile: Option<String>,
    /// How the W&B server that its tokens must be for may be spelled.
    base_urls: Vec<String>,
    /// Another user whose daemon may answer, beside ours and root's.
    trusted: Option<u32>,
    clock: Clock,
    wishes: Mutex<Wishes>,
}

/// What is to be passed on with the next attempt.
#[derive(Debug, Default)]
struct Wishes {
    rejected: Option<TokenHash>,
    refresh: bool,
}

impl Upstream {
    pub fn new(
        address: Address,
        profile: Option<String>,
        base_urls: Vec<String>,
        env: &Env,
        clock: Clock,
    ) -> Self {
        // A variable that is no number is said by whoever uses the socket that it is about.
        let trusted = paths::socket_uid(env).ok().flatten();
        Self { socket: address.0, profile, base_urls, trusted, clock, wishes: Mutex::default() }
    }

    /// Where its tokens come from, in words.
    pub fn whence(&self) -> String {
        format!("the daemon at {}", self.socket.display())
    }

    /// The next attempt tells that this token was refused.
    pub fn reject(&self, token: TokenHash) {
        self.wishes(|wishes| wishes.rejected = Some(token));
    }

    /// The next attempt asks for a renewal.
    pub fn refresh(&self) {
        self.wishes(|wishes| wishes.refresh = true);
    }

    /// The token that is current there.
    pub async fn fetch(&self) -> Result<AccessToken, Error> {
        let Wishes { rejected, refresh } = self.wishes(std::mem::take);
        if let Some(token) = rejected {
            let report = api::Rejected { profile: self.profile.clone(), token_sha256: token.to_string() };
            let report = serde_json::to_vec(&report).expect("plain data");
            // A guest may not report: the other daemon then finds out by itself.
            let told = self.ask(Method::POST, "/v1/rejected", report, TIMEOUT).await;
            let renews = told.ok().and_then(|body| serde_json::from_slice(&body).ok());
            if renews.is_some_and(|api::RejectedAnswer { renewed }| renewed) {
                self.newer_than(token, RENEWAL_TIMEOUT).await?;
            }
        } else if refresh {
            // What it refuses (too soon after another, not for guests), the caller need not know.
            let _ =
                self.ask(Method::POST, &self.target("/v1/refresh", ""), Vec::new(), RENEWAL_TIMEOUT).await;
        }
        let sent = self.clock.now();
        let target = self.target("/v1/token", &format!("wait={}", WAIT.as_secs()));
        let body = self.ask(Method::GET, &target, Vec::new(), WAIT + TIMEOUT).await?;
        let answer = self.parse(&body)?;
        if !self.base_urls.contains(&answer.base_url) {
            let (wanted, found) = (&self.base_urls[0], redact(&answer.base_url, 200));
            let message = format!("{} gives tokens for {found}, but `base-url` is {wanted}", self.whence());
            return Err(error(Kind::Misconfigured, Reason::Setting { key: "base-url".to_owned() }, message));
        }
        // By this machine's clock from the moment we asked, as for an exchange: the other's clock does not matter.
        let answer = api::Token {
            expires_at: sent.wall + Duration::from_secs(answer.expires_in.min(MAX_LIFE)),
            ..answer
        };
        accept(&answer, sent).map_err(|why| self.unreadable(why))
    }

    /// Whether there is another token than `known`, waiting for one up to a minute or two. An error says that it can no
    /// longer be followed.
    pub async fn newer(&self, known: TokenHash) -> Result<bool, Error> {
        match self.newer_than(known, FOLLOW).await {
            // It is of an older version, and does not know the question: then the token's time tells.
            Err(Error { reason: Reason::Other, .. }) => std::future::pending().await,
            outcome => outcome,
        }
    }

    async fn newer_than(&self, known: TokenHash, wait: Duration) -> Result<bool, Error> {
        let target = self.target("/v1/token", &format!("newer_than={known}&wait={}", wait.as_secs()));
        let body = self.ask(Method::GET, &target, Vec::new(), wait + TIMEOUT).await?;
        Ok(TokenHash::of(&self.parse(&body)?.access_token) != known)
    }

    fn parse(&self, body: &[u8]) -> Result<api::Token, Error> {
        serde_json::from_slice(body).map_err(|_| self.unreadable("it is not an answer of GET /v1/token"))
    }

    fn target(&self, path: &str, query: &str) -> String {
        let profile = self.profile.as_ref().map(|name| format!("profile={}", client::encode(name)));
        let query: Vec<_> =
            profile.as_deref().into_iter().chain((!query.is_empty()).then_some(query)).collect();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }

    /// One request on a connection of its own. The body of a success, or why there is none.
    async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        match tokio::time::timeout(timeout, self.converse(method, target, body)).await {
            Ok(answered) => answered,
            Err(_) => {
                let seconds = timeout.as_secs();
                let message = format!("{} did not answer within {seconds} s", self.whence());
                Err(error(Kind::Transient, Reason::TimedOut { host: self.host(), seconds }, message))
            }
        }
    }

    async fn converse(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let lost = |source: &dyn std::fmt::Display| {
            let message = format!("{} broke off: {source}", self.whence());
            error(Kind::Transient, Reason::ConnectionLost { host: self.host() }, message)
        };
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| lost(&source))?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(hyper::header::HOST, "wandb-cred")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|source| lost(&source))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|source| lost(&source))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|source| lost(&source))?.to_bytes();
            Ok((status, Zeroizing::new(body.to_vec())))
        };
        let drive = async {
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        let (status, body) = tokio::select! {
            answer = answer => answer?,
            never = drive => match never {},
        };
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => self.refused(&problem),
            Err(_) => self.unreadable("it is an error without a problem document"),
        })
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let fault = match source.kind() {
                std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => NetworkFault::Refused,
                _ => NetworkFault::Other,
            };
            let message = format!("no daemon answers at {}: {source}", self.socket.display());
            error(Kind::Transient, Reason::Unreachable { host: self.host(), fault }, message)
        })?;
        // In a folder that only this user can enter nobody else listens, and across PID namespaces the kernel may not say.
        let private = self.socket.parent().is_some_and(|folder| paths::check_private(folder).is_ok());
        let own = rustix::process::geteuid().as_raw();
        match stream.peer_cred().map(|peer| peer.uid()) {
            _ if private => Ok(stream),
            Ok(uid) if uid == own || uid == 0 || self.trusted == Some(uid) => Ok(stream),
            Ok(uid) => {
                let message = format!(
                    "{} is served by uid {uid}, not by you (uid {own}) or root; set WANDB_CRED_SOCKET_UID={uid} for this \
                     daemon if you trust that user",
                    self.socket.display()
                );
                Err(error(Kind::Misconfigured, Reason::Setting { key: "upstream".to_owned() }, message))
            }
            Err(source) => {
                let message = format!("{}: {source}", self.socket.display());
                let fault = NetworkFault::Other;
                Err(error(Kind::Transient, Reason::Unreachable { host: self.host(), fault }, message))
            }
        }
    }

    /// The other daemon's problem, as ours. What only helps there is said to be there.
    fn refused(&self, problem: &Problem) -> Error {
        let kind = match problem.kind {
            ProblemKind::NoSuchProfile | ProblemKind::Forbidden | ProblemKind::Misconfigured => {
                Kind::Misconfigured
            }
            _ => Kind::Transient,
        };
        let reason = match problem.kind {
            ProblemKind::BadRequest | ProblemKind::NotFound => Reason::Other,
            _ => Reason::NothingNewer,
        };
        let mut message = format!("{} says: {}", self.whence(), redact(&problem.detail, 300));
        if let Some(next) = &problem.next {
            message = format!("{message}; there: {}", redact(next, 100));
        }
        error(kind, reason, message).retry_after(problem.retry_after.map(Duration::from_secs))
    }

    fn unreadable(&self, why: &str) -> Error {
        let message = format!("the answer of {} is of no use: {why}", self.whence());
        error(Kind::Transient, Reason::UnreadableAnswer { host: self.host(), field: None }, message)
    }

    fn host(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    fn wishes<R>(&self, change: impl FnOnce(&mut Wishes) -> R) -> R {
        change(&mut self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn error(kind: Kind, reason: Reason, message: String) -> Error {
    Error::new(Stage::Exchange, kind, reason, message)
}

/// How long the other daemon may wait for a renewal of its own: callers here wait for 30 s, and are to learn what it says.
const WAIT: Duration = Duration::from_secs(10);

/// For an answer that nothing is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For a renewal that we asked for.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(30);

/// As long as the other daemon lets a caller wait for a newer token.
const FOLLOW: Duration = Duration::from_secs(120);

/// As for tokens from W&B itself: a day, in seconds.
const MAX_LIFE: u64 = 24 * 3600;

const MAX_BODY: usize = 128 * 1024;
