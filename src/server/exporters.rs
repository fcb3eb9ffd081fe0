//! Shows the metrics where Prometheus can see them: on a loopback port, and in a file for node_exporter.
//!
//! A service does so and no other daemon: several of one user would want the same port and the same file.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, HOST, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutWriter;
use tracing::{info, warn};

use super::answer::{self, Answer};
use super::export::{self, Loopback, Textfile};
use super::metrics::OPEN_METRICS;
use super::state::State;
use super::status;
use crate::accept::accept;
use crate::api::{Problem, ProblemKind};
use crate::atomic_file;
use crate::backoff::Backoff;
use crate::blocking;

/// What runs now. Dropping this ends it.
#[derive(Default)]
pub struct Exporters {
    listen: Option<Loopback>,
    textfile: Option<Textfile>,
    listener: JoinSet<()>,
    writer: JoinSet<()>,
    /// They tell the writer of what changes without a request.
    followers: JoinSet<()>,
}

impl Exporters {
    /// Follows the configuration: at the start, and after each reload.
    pub fn configure(&mut self, state: &Arc<State>) {
        let directory = state.directory();
        let config = &directory.config;
        if self.listen != config.metrics_listen {
            self.listen = config.metrics_listen;
            self.listener = JoinSet::new();
            if let Some(Loopback(address)) = self.listen {
                self.listener.spawn(listen(address, Arc::clone(state)));
            }
        }
        if self.textfile != config.metrics_textfile {
            self.remove_textfile();
            self.textfile.clone_from(&config.metrics_textfile);
            if let Some(Textfile(path)) = &self.textfile {
                self.writer.spawn(write(path.clone(), Arc::clone(state)));
            }
        }
        self.followers = JoinSet::new();
        if self.textfile.is_some() {
            for member in directory.members.values() {
                if let Some(identity) = &member.profile.identity {
                    self.followers.spawn(follow(identity.subscribe(), Arc::clone(state)));
                }
                self.followers.spawn(follow(member.profile.access.subscribe(), Arc::clone(state)));
            }
            self.followers.spawn(follow(state.jobs.changes(), Arc::clone(state)));
        }
        state.metrics.changed.notify_one();
    }

    /// At the end, and when the file is to be another one: what is in it is no longer so.
    pub fn remove_textfile(&mut self) {
        self.writer = JoinSet::new();
        if let Some(Textfile(path)) = self.textfile.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn follow<T>(mut changes: tokio::sync::watch::Receiver<T>, state: Arc<State>) {
    while changes.changed().await.is_ok() {
        state.metrics.changed.notify_one();
    }
}

/// Writes after a change, and then not again for a while.
async fn write(path: PathBuf, state: Arc<State>) {
    let mut failures: u32 = 0;
    let mut written = String::new();
    loop {
        state.metrics.changed.notified().await;
        let text = export::lasting(&export::classic(&text(&state)));
        if text == written && failures == 0 {
            continue;
        }
        let (to, bytes) = (path.clone(), text.clone());
        let write = move || atomic_file::replace_readable(&to, bytes.as_bytes()).map_err(io::Error::other);
        match blocking::run(write).await.flatten() {
            Ok(()) => (written, failures) = (text, 0),
            Err(error) => {
                if failures == 0 {
                    warn!(%error, "cannot write the metrics for node_exporter");
                }
                failures = failures.saturating_add(1);
                state.metrics.changed.notify_one();
            }
        }
        let pause =
            if failures == 0 { WRITE_INTERVAL } else { RETRY.delay(failures, None).max(WRITE_INTERVAL) };
        tokio::time::sleep(pause).await;
    }
}

fn text(state: &State) -> String {
    state.metrics.text(&state.directory(), state.audit.counts(), &state.proxy, state.clock.now())
}

/// Listens on the port, as soon as nobody else does.
async fn listen(address: SocketAddr, state: Arc<State>) {
    let mut failures = 0;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                if failures == 0 {
                    warn!(%address, %error, "cannot listen for Prometheus; this is tried again");
                }
                failures += 1;
                let _ = state.clock.sleep(RETRY.delay(failures, None)).await;
            }
        }
    };
    if let Ok(address) = listener.local_addr() {
        info!(%address, "metrics for Prometheus");
    }
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = || async { Ok(listener.accept().await?.0) };
    // They end with this task.
    let mut connections = JoinSet::new();
    let serve = |stream, slot| {
        let state = Arc::clone(&state);
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            connection(stream, &state).await;
            drop(slot);
        });
    };
    accept(&slots, next, serve).await;
}

async fn connection(stream: TcpStream, state: &State) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer_to(state, &request)));
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(TIMEOUT));
    // Errors are the other end's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        // Prometheus comes again in a minute: a place is worth more than a connection.
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
}

fn answer_to(state: &State, request: &Request<Incoming>) -> Answer {
    let refuse = |kind, detail: String| answer::problem(&Problem::new(kind, detail));
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if header(&HOST).is_some_and(|host| !export::is_local(host)) || header(&ORIGIN).is_some() {
        let detail = "this is not for web pages; ask by an address or as localhost".to_owned();
        return refuse(ProblemKind::Forbidden, detail);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return refuse(ProblemKind::MethodNotAllowed, format!("this takes GET, not {}", request.method()));
    }
    match request.uri().path() {
        "/metrics" => {
            let open = header(&ACCEPT).is_some_and(|accept| accept.contains("application/openmetrics-text"));
            let text = text(state);
            if open {
                answer::text(OPEN_METRICS, text)
            } else {
                answer::text(CLASSIC, export::classic(&text))
            }
        }
        "/healthz" => answer::text("text/plain", "ok\n".to_owned()),
        "/readyz" => {
            status::readyz(state, request.uri().query()).unwrap_or_else(|problem| answer::problem(&problem))
        }
        _ => refuse(
            ProblemKind::NotFound,
            "here are /metrics, /healthz and /readyz, and nothing else".to_owned(),
        ),
    }
}

/// Prometheus' text format before OpenMetrics.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A few Prometheus servers and somebody's curl.
const MAX_CONNECTIONS: usize = 32;

/// For a request's head, and for taking the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// hyper wants at least 8 KiB.
const MAX_HEAD: usize = 8 * 1024;

/// Shorter than anybody scrapes.
const WRITE_INTERVAL: Duration = Duration::from_secs(15);

const RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(60) };
