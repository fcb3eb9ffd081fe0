//! The listener and the routing: what every request passes on its way to a route.
//!
//! Tests written in Rust use [`Sandbox`] to start one in their own process.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, DATE, HeaderName, ORIGIN, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use url::form_urlencoded;

use super::artifacts::Artifacts;
use super::exchange::{self, Replays};
use super::faults::{Faults, Target};
use super::files::Files;
use super::idp::{self, Idp};
use super::issuers::Issuers;
use super::reply::{self, Reply};
use super::stats::Stats;
use super::sweeps::Sweeps;
use super::tokens::Tokens;
use super::{control, wandb, weave};
use crate::accept::accept;
use crate::clock::Clock;
use crate::http::Http;

/// What a sandbox is started with.
pub struct Config {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The audiences to accept; the first is minted. Must not be empty.
    pub audiences: Vec<String>,
    /// The subjects to accept; the first is minted. Must not be empty.
    pub subjects: Vec<String>,
    /// Other issuers to trust.
    pub trusted: Vec<String>,
    pub settings: Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            audiences: vec!["sandbox".to_owned()],
            subjects: vec!["dev@example.com".to_owned()],
            trusted: Vec::new(),
            settings: Settings::default(),
        }
    }
}

/// What a test may change while the sandbox runs. Times are in seconds, except for the delay.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub token_life: u64,
    pub jwt_life: u64,
    pub replay_check: bool,
    pub exchange_delay_ms: u64,
    /// Whether the signed addresses of artifacts' files are still good for a download.
    pub signed_downloads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_life: 3600,
            jwt_life: 3600,
            replay_check: true,
            exchange_delay_ms: 0,
            signed_downloads: true,
        }
    }
}

/// A sandbox that listens, but does not serve before [`Sandbox::run`].
pub struct Sandbox {
    listener: TcpListener,
    state: Arc<State>,
}

impl Sandbox {
    pub async fn bind(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{}", config.port))?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = State {
            url,
            audiences: config.audiences,
            subjects: config.subjects,
            upload_key: idp::random_text(16),
            idp: Idp::new()?,
            issuers: Issuers::new(Http::new(clock.clone()), config.trusted),
            clock,
            settings: Mutex::new(config.settings),
            faults: Mutex::default(),
            tokens: Mutex::default(),
            replays: Mutex::default(),
            files: Mutex::default(),
            artifacts: Mutex::default(),
            sweeps: Mutex::default(),
            stats: Mutex::default(),
        };
        Ok(Self { listener, state: Arc::new(state) })
    }

    /// Both the issuer and the W&B base URL.
    pub fn url(&self) -> &str {
        &self.state.url
    }

    /// Serves until `shutdown` completes, then drops the requests in progress.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let next = || async { Ok(self.listener.accept().await?.0) };
        let serve = |stream, slot| {
            let state = Arc::clone(&self.state);
            connections.spawn(async move {
                connection(stream, state).await;
                drop(slot);
            });
            // Clear away the connections that have ended.
            while connections.try_join_next().is_some() {}
        };
        tokio::select! {
            () = accept(&slots, next, serve) => {}
            () = shutdown => {}
        }
    }
}

/// Everything the routes share. No lock is held across an await.
pub(super) struct State {
    pub(super) url: String,
    pub(super) audiences: Vec<String>,
    pub(super) subjects: Vec<String>,
    /// Part of every upload URL, where a storage service would have its signature.
    pub(super) upload_key: String,
    pub(super) idp: Idp,
    pub(super) issuers: Issuers,
    pub(super) clock: Clock,
    pub(super) settings: Mutex<Settings>,
    pub(super) faults: Mutex<Faults>,
    tokens: Mutex<Tokens>,
    replays: Mutex<Replays>,
    files: Mutex<Files>,
    artifacts: Mutex<Artifacts>,
    sweeps: Mutex<Sweeps>,
    stats: Mutex<Stats>,
}

impl State {
    pub(super) fn settings(&self) -> Settings {
        *lock(&self.settings)
    }

    pub(super) fn tokens(&self) -> MutexGuard<'_, Tokens> {
        lock(&self.tokens)
    }

    pub(super) fn replays(&self) -> MutexGuard<'_, Replays> {
        lock(&self.replays)
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        lock(&self.files)
    }

    pub(super) fn artifacts(&self) -> MutexGuard<'_, Artifacts> {
        lock(&self.artifacts)
    }

    pub(super) fn sweeps(&self) -> MutexGuard<'_, Sweeps> {
        lock(&self.sweeps)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move {
            let mut reply = answer(&state, request).await;
            let date = httpdate::fmt_http_date(state.clock.now().wall.into());
            // A fault may have set another time.
            reply.headers_mut().entry(DATE).or_insert(date.try_into().expect("a date is printable"));
            Ok::<_, Infallible>(reply)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that disconnects and a response that is broken on purpose are not worth reporting.
    let _ = served.await;
}

/// Answers one request, with the fault that is set for its route.
async fn answer(state: &State, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let target = match path.as_str() {
        "/oidc/token" => Some(Target::Exchange),
        "/.well-known/openid-configuration" | "/jwks" | "/mint" => Some(Target::Idp),
        "/graphql" => Some(Target::Api),
        _ if path.starts_with("/files/") || path.starts_with("/traces/") => Some(Target::Api),
        _ => None,
    };
    let fault = target.and_then(|target| lock(&state.faults).take(target));
    if let Some(fault) = &fault {
        // Counted now: a client may disconnect from an exchange that hangs.
        if target == Some(Target::Exchange) {
            state.stats().exchange(header(&request, USER_AGENT), "fault");
        }
        if let Some(reply) = fault.replacement(&state.url).await {
            return reply;
        }
    }
    let counted = fault.is_some();
    let reply = route(state, request, &path, counted).await;
    match fault {
        Some(fault) => fault.corrupt(reply),
        None => reply,
    }
}

async fn route(state: &State, request: Request<Incoming>, path: &str, counted: bool) -> Reply {
    let query: HashMap<_, _> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let method = request.method().clone();
    match (&method, path) {
        (&Method::GET, "/.well-known/openid-configuration") => idp::discovery(state),
        (&Method::GET, "/jwks") => idp::jwks(state),
        (&Method::GET, "/mint") => idp::mint(state, &query),
        (&Method::POST, "/oidc/token") => {
            let user_agent = header(&request, USER_AGENT).to_owned();
            let Ok(body) = read(request, MAX_FORM).await else { return too_large() };
            let (reply, outcome) = exchange::exchange(state, &body).await;
            if !counted {
                state.stats().exchange(&user_agent, outcome);
            }
            reply
        }
        (&Method::GET, "/healthz" | "/ready") => reply::text(StatusCode::OK, "ok"),
        (&Method::PUT, _) if path.starts_with("/storage/") => wandb::upload(state, request, path).await,
        (&Method::GET, _) if path.starts_with("/storage/") => wandb::stored(state, path),
        _ if path.starts_with("/sandbox/") => {
            // Only web pages send this header, and they have no business here.
            if request.headers().contains_key(ORIGIN) {
                return reply::text(StatusCode::FORBIDDEN, "not for browsers");
            }
            let Ok(body) = read(request, MAX_FORM).await else { return too_large() };
            control::route(state, &method, path, &query, &body)
        }
        _ => signed_in(state, request, &method, path).await,
    }
}

/// The routes that need an access token.
async fn signed_in(state: &State, request: Request<Incoming>, method: &Method, path: &str) -> Reply {
    let known = path == "/graphql" || KNOWN.iter().any(|prefix| path.starts_with(prefix));
    if !known {
        return reply::text(StatusCode::NOT_FOUND, "404 page not found");
    }
    if (method, path) == (&Method::GET, "/traces/server_info") {
        // The one endpoint that weave asks without saying who it is.
        return weave::route(state, method, "/server_info", b"");
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let checked = state.tokens().check(authorization, state.clock.now().wall);
    let serial = match checked {
        Ok(serial) => serial,
        Err(why) => {
            state.stats().refused(why);
            let body = json!({ "errors": [{ "message": "user is not logged in" }], "data": null });
            return reply::json(StatusCode::UNAUTHORIZED, &body);
        }
    };
    let Ok(body) = read(request, MAX_DATA).await else { return too_large() };
    match (method, path.strip_prefix("/traces")) {
        (_, Some(path)) => weave::route(state, method, path, &body),
        (&Method::POST, None) if path == "/graphql" => wandb::graphql(state, &body),
        (&Method::POST, None) => wandb::file_stream(state, path, &body, serial),
        (&Method::GET, None) if path.starts_with("/artifacts") => {
            state.stats().artifact_downloads.add("token");
            state.artifacts().download(path)
        }
        (&Method::GET, None) => state.files().download(path),
        _ => reply::text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed"),
    }
}

async fn read(request: Request<Incoming>, limit: usize) -> Result<Bytes, ()> {
    let body = Limited::new(request.into_body(), limit).collect();
    Ok(tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(drop)?.map_err(drop)?.to_bytes())
}

fn too_large() -> Reply {
    reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or did not arrive")
}

fn header(request: &Request<Incoming>, name: HeaderName) -> &str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What paths begin with that need an access token.
const KNOWN: [&str; 4] = ["/files/", "/traces/", "/artifacts/", "/artifactsV2/"];

const MAX_CONNECTIONS: usize = 2_048;
const MAX_FORM: usize = 256 * 1024;
const MAX_DATA: usize = 32 * 1024 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
