//! HTTP/1.1 on the Unix socket, on our own accept loop.
//!
//! Every connection is a task, so one that is slow, idle or broken delays nobody. Bounds: connections, time
//! for a request's head and body and for taking an answer, sizes. Only this user (and whom the
//! configuration names) is served; see [`Peer`]. The routes are in [`route`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

mod answer;
pub mod bind;
mod connections;
mod doctor;
mod heap;
mod jobs;
mod metrics;
mod route;
mod sign_in;
mod state;

use connections::{Activity, Connections, Over};
pub use state::{Directory, Member, State};

/// Takes the memory that the server keeps for good. To be done before anything else that stays takes some.
pub async fn prepare() {
    heap::prepare(MAX_CONNECTIONS).await;
}

pub type Spawn = fn(UnixListener, Arc<State>, watch::Receiver<bool>) -> JoinHandle<()>;

/// Spawns the server.
#[inline]
pub fn spawn(listener: UnixListener, state: Arc<State>, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(serve(listener, state, stop))
}

/// Serves until `stop` turns true, then lets requests under way finish for [`DRAIN`].
async fn serve(listener: UnixListener, state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Connections::default());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::select! {
        () = accept(&listener, &state, &connections, &places) => {}
        () = connections.rounds(&state) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    connections.stop();
    let all = u32::try_from(MAX_CONNECTIONS).expect("the bound is small");
    let _ = tokio::time::timeout(DRAIN, places.acquire_many(all)).await;
}

/// Spawns a task for each connection. Never ends.
async fn accept(
    listener: &UnixListener,
    state: &Arc<State>,
    connections: &Arc<Connections>,
    places: &Arc<Semaphore>,
) {
    loop {
        // A place first: connections over the bound wait in the kernel's backlog, and cost us nothing.
        let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (state, connections) = (Arc::clone(state), Arc::clone(connections));
                connections.opened();
                tokio::spawn(async move {
                    connection(stream, &state, &connections).await;
                    connections.closed();
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
}

async fn connection(stream: UnixStream, state: &State, connections: &Connections) {
    let peer = Peer::of(&stream, state);
    let _open = state.metrics.connection();
    let activity = Activity::default();
    let service = service_fn(|request| {
        activity.begin();
        // Within the call, so that the request is gone when hyper reads on: its buffer is taken again then, instead
        // of a new one for each request.
        let cached = route::cached_token(state, peer, &request);
        let cached = cached.ok_or_else(|| route::handle(state, peer, request));
        let activity = &activity;
        async move {
            let answer = match cached {
                Ok(answer) => answer,
                Err(answering) => answering.await,
            };
            activity.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    // Without a timer of hyper's, which it would set anew for each request (see `Connections::rounds`), and with its
    // own bound on the number of headers, 100: for another it copies kilobytes each time. Who has said all (as `printf |
    // nc -U` does) may still listen; who has gone costs a place until the answer.
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut over = pin!(connections.over(&activity));
    let mut calls = connections.calls();
    // In this order: a connection that ends at its first poll, as the command's may, needs no more. And each
    // request polls this, but `over` has something to see only after a call.
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ok(ended));
        }
        if calls.are_new() { over.as_mut().poll(cx).map(Err) } else { Poll::Pending }
    })
    .await;
    let ended = match ended {
        Ok(ended) => ended,
        Err(Over::Silent) => return,
        // Finish the request under way, then close.
        Err(Over::Stopping) => {
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
        let allowed = cred.uid() == state.uid
            || state.read(|Directory { general, .. }| {
                general.allow_uids.contains(&cred.uid()) || general.allow_gids.contains(&cred.gid())
            });
        if !allowed {
            warn!(uid = cred.uid(), pid = cred.pid(), "refused a request of another user");
        }
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok());
        Self { pid, uid: Some(cred.uid()), allowed }
    }
}

/// More than any node has ranks; hyper takes about 11 KiB for each.
const MAX_CONNECTIONS: usize = 4096;

/// Our longest request has a head of some 200 bytes. hyper wants at least 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a stopping daemon waits for requests under way.
const DRAIN: Duration = Duration::from_secs(3);
const LAST_REQUEST: Duration = Duration::from_secs(2);
