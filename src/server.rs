//! HTTP/1.1 on the Unix socket.
//!
//! Every connection is a task, so one that is slow, idle or broken delays nobody. Connections, sizes, and the time to
//! send a request or to take an answer are bounded. Only this user (and whom the configuration names) is served; see
//! [`Peer`]. The routes are in [`route`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, warn};

use crate::accept::accept;
use crate::backoff::Thinned;

mod answer;
pub mod bind;
mod directory;
mod doctor;
mod jobs;
mod metrics;
mod request;
mod route;
mod sign_in;
mod state;
mod status;
mod tokens;

pub use directory::{Config, Directory, Member};
pub use state::State;

/// Spawns the server. It serves until `stop` turns true, then lets requests under way finish for [`DRAIN_TIMEOUT`].
pub fn spawn(listener: UnixListener, state: Arc<State>, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let next = || async { Ok(listener.accept().await?.0) };
        let serve = |stream, slot| {
            let (state, watcher) = (Arc::clone(&state), graceful.watcher());
            tokio::spawn(async move {
                connection(stream, &state, watcher).await;
                drop(slot);
            });
        };
        tokio::select! {
            () = accept(&slots, next, serve) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(listener);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    })
}

async fn connection(stream: UnixStream, state: &State, graceful: Watcher) {
    let peer = Peer::of(&stream, state);
    let _open = state.metrics.connection();
    let service = service_fn(async |request| Ok::<_, Infallible>(route::handle(state, peer, request).await));
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        // A client that has sent everything (as `printf | nc -U` does) may still be listening.
        .half_close(true)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = graceful.watch(connection).await {
        debug!(%error, "a client's connection ended badly");
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
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok());
        Self { pid, uid: Some(cred.uid()), gid: Some(cred.gid()), standing }
    }
}

/// Connections of other users, who may make as many as they like.
static REFUSED: Thinned = Thinned::new();

/// More than any node has ranks; hyper takes about 11 KiB for each.
const MAX_CONNECTIONS: usize = 4096;

/// Our longest request has a head of some 200 bytes. hyper wants at least 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// A connection that sends no complete request head for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer for this long is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stopping daemon waits for requests under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
