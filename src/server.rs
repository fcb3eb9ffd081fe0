//! HTTP/1.1 on the Unix socket.
//!
//! Every connection is a task, so one that is slow, idle or broken delays nobody. Connections, sizes, and the time to
//! send a request or to take an answer are bounded. Only this user (and whom the configuration names) is served; see
//! [`Peer`]. The routes are in [`route`].

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OnceCell, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, warn};

use crate::accept::accept;
use crate::backoff::Thinned;
use crate::process::{self, Facts};
use stream::Shared;

mod answer;
mod audit;
pub mod bind;
mod combinations;
mod directory;
mod doctor;
mod export;
mod exporters;
mod hangup;
mod jobs;
mod metrics;
mod refuse;
mod request;
mod route;
mod sign_in;
mod state;
mod status;
mod stream;
mod tokens;

pub use directory::{Config, Directory, Member};
pub use exporters::Exporters;
pub use state::State;

/// Spawns the server. It serves until `stop` turns true, then lets requests under way finish for [`DRAIN_TIMEOUT`].
pub fn spawn(listener: UnixListener, state: Arc<State>, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        let connections = max_connections(process::file_limit());
        let slots = Arc::new(Semaphore::new(connections + RESERVE));
        let stopping = stop.clone();
        let next = || async { Ok(listener.accept().await?.0) };
        let (fresh, mut none_fresh) = mpsc::channel(1);
        let serve = |stream, slot| {
            let (state, watcher, stop) = (Arc::clone(&state), graceful.watcher(), stopping.clone());
            let crowded = slots.available_permits() < RESERVE;
            let fresh = fresh.clone();
            tokio::spawn(async move {
                connection(stream, &state, watcher, crowded, stop, fresh).await;
                drop(slot);
            });
        };
        tokio::select! {
            () = accept(&slots, next, serve) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(listener);
        drop(fresh);
        // hyper would close them at once, with their request on the way.
        let _ = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, none_fresh.recv()).await;
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    })
}

async fn connection(
    stream: UnixStream,
    state: &State,
    graceful: Watcher,
    crowded: bool,
    stop: watch::Receiver<bool>,
    fresh: Fresh,
) {
    let peer = Peer::of(&stream, state);
    // Whoever is not served is told so, but takes no place of those who are.
    let stranger = peer.standing == Standing::Stranger;
    let Ok(_place) = stranger.then(|| STRANGERS.try_acquire()).transpose() else { return };
    let crowded = crowded || stranger;
    let stream = Arc::new(stream);
    let caller = Caller { peer, crowded, stop, stream: Arc::clone(&stream), facts: OnceCell::new() };
    let _open = state.metrics.connection();
    let fresh = Mutex::new(Some(fresh));
    let service = service_fn(async |request| {
        fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        route::handle(state, &caller, request).await
    });
    let mut stream = TimeoutWriter::new(Shared(stream));
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if crowded { CROWDED_TIMEOUT } else { IDLE_TIMEOUT })
        .keep_alive(!crowded)
        .max_buf_size(MAX_HEAD)
        // A client that has sent everything (as `printf | nc -U` does) may still be listening.
        .half_close(true)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = graceful.watch(connection).await {
        debug!(%error, "a client's connection ended badly");
    }
}

/// Held by each connection until its first request has come.
type Fresh = mpsc::Sender<Infallible>;

/// The other end of a connection.
struct Caller {
    peer: Peer,
    /// It has one of the places that are kept in reserve.
    crowded: bool,
    /// Turns true when the server stops.
    stop: watch::Receiver<bool>,
    stream: Arc<UnixStream>,
    /// Looked up once it gets a token, if that is to be recorded.
    facts: OnceCell<Arc<Facts>>,
}

impl Caller {
    /// A descriptor of the connection that outlives its requests.
    fn connection(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Waits until the server stops.
    async fn stopping(&self) {
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Waits until the caller has closed the connection: nobody takes the answer.
    async fn gone(&self, state: &State) {
        state.hangups.wait(&*self.stream).await;
    }
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub pid: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub standing: Standing,
}

/// What a peer may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This user: everything.
    Owner,
    /// Another user, whom the configuration allows to have access tokens.
    Guest,
    /// Anybody else: nothing.
    Stranger,
}

impl Peer {
    fn of(stream: &UnixStream, state: &State) -> Self {
        let Ok(cred) = stream.peer_cred() else {
            return Self { pid: None, uid: None, gid: None, standing: Standing::Stranger };
        };
        let config = &state.directory().config;
        let standing = if cred.uid() == state.uid {
            Standing::Owner
        } else if config.allow_uids.contains(&cred.uid()) || config.allow_gids.contains(&cred.gid()) {
            Standing::Guest
        } else {
            Standing::Stranger
        };
        if standing == Standing::Stranger
            && let Some(count) = REFUSED.count()
        {
            warn!(uid = cred.uid(), pid = cred.pid(), count, "refused a request of another user");
        }
        // 0: in a PID namespace that we do not see into.
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Self { pid, uid: Some(cred.uid()), gid: Some(cred.gid()), standing }
    }
}

/// Places for connections that are refused.
static STRANGERS: Semaphore = Semaphore::const_new(16);

/// Connections of other users, who may make as many as they like.
static REFUSED: Thinned = Thinned::new();
/// As many as usual, or as the limit on open files leaves room for beside everything else.
fn max_connections(files: Option<u64>) -> usize {
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    MAX_CONNECTIONS.min(files.saturating_sub(RESERVE + OTHER_FILES)).max(1)
}

/// More than any node has ranks; hyper takes about 11 KiB for each.
const MAX_CONNECTIONS: usize = 4096;

/// Places that are left when all others are taken, for one quick request each: `status` and tokens from memory work
/// while thousands wait for a stuck identity provider.
const RESERVE: usize = 16;

/// Files that the daemon opens for other purposes: timers, watches, requests to servers, SDK files.
const OTHER_FILES: usize = 32;

/// Silence that is allowed on a place of the reserve.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);

/// Our longest request has a head of some 200 bytes. hyper wants at least 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// A connection that sends no complete request head for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stopping daemon waits for the first request of a connection: a client sends it at once, and is told apart from
/// one that only holds a connection open.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a stopping daemon waits for requests under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
