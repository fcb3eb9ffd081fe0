//! HTTP/1.1 on the Unix socket, on our own accept loop.
//!
//! Every connection is a task, so one that is slow, idle or broken delays nobody. Bounds: connections, time
//! for a request's head and body, sizes of both, a connection's life. Only this user (and whom the
//! configuration names) is served; see [`Peer`]. The routes are in [`route`].

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

mod answer;
pub mod bind;
mod doctor;
mod jobs;
mod metrics;
mod route;
mod sign_in;
mod state;

pub use state::{Directory, Member, State};

/// Serves until `stop` turns true, then lets requests under way finish for [`DRAIN`].
pub async fn serve(listener: UnixListener, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // A place first: connections over the bound wait in the kernel's backlog, and cost us nothing.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (state, stop) = (Arc::clone(&state), stop.clone());
                tokio::spawn(async move {
                    connection(stream, state, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: give connections time to end.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).expect("the bound is small");
    let _ = tokio::time::timeout(DRAIN, places.acquire_many(all)).await;
}

async fn connection(stream: UnixStream, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let peer = Peer::of(&stream, &state);
    let _open = state.metrics.connection();
    let service = service_fn(|request| route::handle(Arc::clone(&state), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        // Stopping, or connected for long enough: finish the request under way, then close.
        _ = stop.wait_for(|stop| *stop) => None,
        () = tokio::time::sleep(MAX_LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REQUEST, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a client's connection ended badly");
    }
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub pid: Option<u32>,
    pub uid: Option<u32>,
    /// This user, or one that the configuration names.
    pub allowed: bool,
}

impl Peer {
    fn of(stream: &UnixStream, state: &State) -> Self {
        let Ok(cred) = stream.peer_cred() else {
            return Self { pid: None, uid: None, allowed: false };
        };
        let general = &state.directory().general;
        let allowed = cred.uid() == rustix::process::geteuid().as_raw()
            || general.allow_uids.contains(&cred.uid())
            || general.allow_gids.contains(&cred.gid());
        if !allowed {
            warn!(uid = cred.uid(), pid = cred.pid(), "refused a request of another user");
        }
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok());
        Self { pid, uid: Some(cred.uid()), allowed }
    }
}

/// More than any node has ranks; hyper takes about 11 KiB for each.
const MAX_CONNECTIONS: usize = 4096;

/// For a request's head; an idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Our longest request has a head of some 200 bytes. hyper wants at least 8 KiB.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Ends connections whose client reads nothing any more.
const MAX_LIFE: Duration = Duration::from_secs(600);

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a stopping daemon waits for requests under way.
const DRAIN: Duration = Duration::from_secs(3);
const LAST_REQUEST: Duration = Duration::from_secs(2);
