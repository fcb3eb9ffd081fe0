//! The loopback proxy: any W&B client, any version, with a key that is good for one job on this machine.
//!
//! It swaps the key for the profile's access token, and sends a request again whose token was refused. Nothing of it exists
//! before a job asks for it: no listener, no thread. `docs/proxy.md` tells users.
//!
//! Requests are served on a thread of their own ([`Proxy::serve`]), since bodies of any size go through; keys come and go on
//! the daemon's. Both see the same keys and keepers, behind locks that are held for moments.
//!
//! | module | holds |
//! |---|---|
//! | `head` | what is judged before a body is read |
//! | `peer` | whose connection it is |
//! | `tape` | the head as it came |
//! | `keys` | the keys of running jobs |
//! | `survivors` | children that outlive a job's process |
//! | `record` | `proxy.json` |
//! | `target`, `headers` | where a request goes, and what with |
//! | `body` | bodies that stream, and those kept to be sent again |
//! | `upstream` | connections to W&B |
//! | `rewrite` | the one change to an answer |
//! | `forward` | one request, from its head to the head of its answer |
//! | `answer` | the proxy's own answers |
//! | `counts` | what went through |

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, info, warn};

use crate::accept::accept;
use crate::backoff::Thinned;
use crate::process::{self, Process};
use crate::profile::Profile;
use crate::token::{Secret, TokenHash};
use crate::{atomic_file, blocking};
use body::INACTIVITY;
use forward::{Caller, Forwarder};
use head::Refusal;
use keys::{Job, Keys};
use record::{Entry, Record};
use survivors::Survivors;
use tape::{Tape, Taped};

mod answer;
mod body;
mod counts;
mod forward;
pub mod head;
mod headers;
mod keys;
mod peer;
mod record;
pub mod rewrite;
mod survivors;
mod tape;
mod target;
mod upstream;

pub use counts::Total;

pub struct Proxy {
    forwarder: Arc<Forwarder>,
    survivors: Survivors,
    place: Mutex<Place>,
    /// There is a listener to serve.
    opened: Notify,
    record: PathBuf,
    /// Held while writing, so that an older record never comes after a newer. False: write no more.
    writes: tokio::sync::Mutex<bool>,
}

/// Where it listens.
#[derive(Default)]
struct Place {
    port: Option<u16>,
    /// Bound, and not served yet.
    listener: Option<std::net::TcpListener>,
    bound: bool,
}

/// What a job gets.
pub struct Ticket {
    pub port: u16,
    pub key: Secret<String>,
}

impl Ticket {
    pub fn url(&self) -> String {
        forward::ours(self.port)
    }
}

/// A job that has a key.
pub struct Usage {
    pub profile: String,
    pub pid: Option<u32>,
    pub total: Total,
}

/// What a job makes of its key, for the audit log.
pub struct Use {
    pub profile: Arc<str>,
    pub process: Option<Process>,
    pub what: Used,
}

pub enum Used {
    /// A token that this job did not use before.
    Token(TokenHash),
    /// The job is over, and this went through.
    Over(Total),
}

/// Hears of each use.
type Hears = Box<dyn Fn(Use) + Send + Sync>;

impl Proxy {
    /// Keeps its record in `folder`. `hears` is called on a runtime, and must not block.
    pub fn new(folder: &Path, hears: impl Fn(Use) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            forwarder: Arc::new(Forwarder::new(Box::new(hears))),
            survivors: Survivors::default(),
            place: Mutex::default(),
            opened: Notify::new(),
            record: folder.join(record::FILE),
            writes: tokio::sync::Mutex::new(true),
        })
    }

    /// A key for a job, good until `end`. Returns once a later daemon would know of it.
    pub async fn admit(
        self: &Arc<Self>,
        process: Option<Process>,
        end: impl Future<Output = ()> + Send + 'static,
        profile: &Arc<Profile>,
    ) -> Result<Ticket, String> {
        let port = self.open().map_err(|error| format!("the proxy has no port: {error}"))?;
        let key = Keys::invent();
        let hash = TokenHash::of(key.expose());
        let job = self.forwarder.keys().add(hash, process, profile)?;
        self.follow(job, end);
        self.write().await;
        Ok(Ticket { port, key })
    }

    /// Takes up the port and the keys of an earlier daemon whose jobs still run.
    pub async fn take_up(self: &Arc<Self>, find: impl Fn(&str) -> Option<Arc<Profile>>) {
        let path = self.record.clone();
        let read = blocking::run(move || {
            std::fs::read(path).ok().and_then(|json| serde_json::from_slice::<Record>(&json).ok())
        });
        let Ok(Some(record)) = read.await else { return };
        if record.system != process::system() {
            return;
        }
        for entry in record.keys {
            let (Some(key), Some(profile)) = (entry.key(), find(&entry.profile)) else { continue };
            let running = entry.process.is_running();
            let heir = if running { None } else { self.survivors.of(key).await };
            let Some(process) = heir.or(running.then_some(entry.process)) else { continue };
            let Ok(job) = self.forwarder.keys().add(key, Some(process), &profile) else { continue };
            if let Some(heir) = heir {
                job.pass_to(heir);
            }
            info!(profile = entry.profile, pid = process.pid, "took up a key of the proxy");
            self.follow(job, process.end());
        }
        if !self.forwarder.keys().jobs().is_empty() {
            self.place().port = Some(record.port);
            if let Err(error) = self.open() {
                warn!(port = record.port, %error, "cannot take the proxy's port again yet");
            }
            self.opened.notify_one();
        }
        self.write().await;
    }

    /// After a reload.
    pub fn move_to(&self, find: impl Fn(&str) -> Option<Arc<Profile>>) {
        self.forwarder.keys().move_to(find);
        // The ways there may have changed too.
        self.forwarder.upstream.forget();
    }

    /// While locked, no request gets a token.
    pub fn lock(&self, locked: bool) {
        self.forwarder.locked.store(locked, Ordering::Relaxed);
    }

    /// The port, once somebody has asked for one; and whether it is ours now.
    pub fn port(&self) -> Option<(u16, bool)> {
        let place = self.place();
        Some((place.port?, place.bound))
    }

    /// The jobs that have a key.
    pub fn jobs(&self) -> Vec<Usage> {
        let usage = |job: &Arc<Job>| Usage {
            profile: job.name.to_string(),
            pid: job.process().map(|process| process.pid),
            total: job.counts.job.total(),
        };
        self.forwarder.keys().jobs().iter().map(usage).collect()
    }

    /// The processes that have a key of a running job, and the job's profile.
    pub async fn holders(&self) -> Vec<(Process, String)> {
        if self.forwarder.keys().jobs().is_empty() {
            return Vec::new();
        }
        let all = self.survivors.all().await;
        let keys = self.forwarder.keys();
        let name = |key: TokenHash| {
            let job = keys.jobs().iter().find(|job| job.key == key);
            job.map(|job| job.name.to_string())
        };
        let running = all.iter().filter(|(process, _)| process.is_running());
        running.filter_map(|(process, key)| Some((*process, name(*key)?))).collect()
    }

    /// By profile, since the daemon started.
    pub fn totals(&self) -> Vec<(String, Total)> {
        self.forwarder.keys().tallies().map(|(name, tally)| (name.to_owned(), tally.total())).collect()
    }

    /// The record was lost with its folder.
    pub async fn record_again(&self) {
        if self.place().port.is_some() {
            self.write().await;
        }
    }

    /// Writes no more: the folder is about to be removed. Waits for a write under way.
    pub async fn close_record(&self) {
        *self.writes.lock().await = false;
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self: Arc<Self>, listener: std::net::TcpListener, mut stop: watch::Receiver<bool>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return warn!(%error, "cannot serve the proxy's port"),
        };
        let Ok(ours) = listener.local_addr() else { return };
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(max_connections(process::file_limit())));
        let next = || async { listener.accept().await };
        let serve = |(stream, client), slot| {
            let (forwarder, watcher) = (Arc::clone(&self.forwarder), graceful.watcher());
            tokio::spawn(async move {
                connection(&forwarder, stream, client, ours, watcher).await;
                drop(slot);
            });
        };
        tokio::select! {
            () = accept(&slots, next, serve) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(listener);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    }

    /// Waits until there is a port to serve.
    pub async fn listener(&self) -> std::net::TcpListener {
        loop {
            let (listener, wanted) = {
                let mut place = self.place();
                (place.listener.take(), place.port.is_some() && !place.bound)
            };
            match listener {
                Some(listener) => return listener,
                // Somebody else has it. The jobs know no other, so we wait for it.
                None if wanted => {
                    tokio::time::sleep(REBIND_INTERVAL).await;
                    let _ = self.open();
                }
                None => self.opened.notified().await,
            }
        }
    }

    /// Binds the port, if it is not bound: the one that jobs know, or any.
    fn open(&self) -> io::Result<u16> {
        let mut place = self.place();
        if let (Some(port), true) = (place.port, place.bound) {
            return Ok(port);
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, place.port.unwrap_or(0)))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        *place = Place { port: Some(port), listener: Some(listener), bound: true };
        drop(place);
        self.opened.notify_one();
        info!(port, "the proxy listens on 127.0.0.1");
        Ok(port)
    }

    fn follow(self: &Arc<Self>, job: Arc<Job>, end: impl Future<Output = ()> + Send + 'static) {
        let proxy = Arc::clone(self);
        tokio::spawn(async move {
            end.await;
            // Of a job that we cannot see, only its connection is known.
            while job.process().is_some()
                && let Some(heir) = proxy.survivors.of(job.key).await
            {
                info!(
                    profile = &*job.name,
                    pid = heir.pid,
                    "a process has outlived the job that its key was made for"
                );
                job.pass_to(heir);
                proxy.write().await;
                heir.end().await;
            }
            let last = proxy.forwarder.keys().end(job.key);
            proxy.forwarder.over(&job);
            if last {
                proxy.forwarder.upstream.forget();
            }
            proxy.write().await;
        });
    }

    /// A failure costs only what a crash would lose.
    async fn write(&self) {
        let may = self.writes.lock().await;
        let Some(port) = self.place().port.filter(|_| *may) else { return };
        let keys = {
            let keys = self.forwarder.keys();
            let entry = |job: &Arc<Job>| {
                // One that could be mistaken for another is not recorded.
                let process = job.process().filter(|process| process.start.is_some())?;
                Some(Entry::new(job.key, &job.name, process))
            };
            keys.jobs().iter().filter_map(entry).collect()
        };
        let (path, record) = (self.record.clone(), Record { system: process::system(), port, keys });
        let write = blocking::run(move || {
            let json = serde_json::to_vec(&record).expect("plain data");
            atomic_file::replace(&path, &json)
        });
        if let Ok(Err(error)) = write.await {
            warn!(%error, "a daemon started after a crash would not know of the proxy's jobs");
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(
    forwarder: &Arc<Forwarder>,
    stream: TcpStream,
    client: SocketAddr,
    ours: SocketAddr,
    graceful: Watcher,
) {
    let _ = stream.set_nodelay(true);
    let is_owner = is_owner(client, ours).await;
    let tape = Tape::default();
    let caller = Caller { is_owner, port: ours.port(), tape: tape.clone() };
    let service = service_fn(async |request| forwarder.handle(&caller, request).await);
    let mut stream = TimeoutWriter::new(Taped { stream, tape });
    stream.set_timeout(Some(INACTIVITY));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_owner { IDLE_TIMEOUT } else { STRANGER_TIMEOUT })
        .keep_alive(is_owner)
        .max_buf_size(MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = graceful.watch(connection).await {
        debug!(%error, "a connection to the proxy ended badly");
    }
}

/// Whether the other end is this user's. Elsewhere than on Linux nobody tells, and the key alone decides.
async fn is_owner(client: SocketAddr, ours: SocketAddr) -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let user = match peer::ask(client, ours) {
        Ok(user) => user,
        Err(_) => match blocking::run(move || peer::look_up(client, ours)).await {
            Ok(user) => user,
            Err(_) => peer::look_up(client, ours),
        },
    };
    let own = user == Some(rustix::process::geteuid().as_raw());
    if !own && let Some(count) = REFUSED.count() {
        warn!(uid = user, count, "refused a connection to the proxy: {}", Refusal::User.sentence());
    }
    own
}

/// Connections of other users, who may make as many as they like.
static REFUSED: Thinned = Thinned::new();

/// Each may need a second file for its way to W&B. The socket's connections need the larger part.
fn max_connections(files: Option<u64>) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    MAX_CONNECTIONS.min(files / 8).max(1)
}

const MAX_CONNECTIONS: usize = 1024;

/// Of a request, and of an answer.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Between requests. SDKs send a heartbeat every 30 s, and must never meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// For whoever gets nothing here but a refusal.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stopping daemon waits for requests under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

const REBIND_INTERVAL: Duration = Duration::from_secs(1);
