//! The loopback listeners that browsers return to, shared by the sign-ins that need the same port.
//!
//! Many providers compare the redirect URI whole, so a profile may need one fixed port (`redirect-port`). The listener on
//! it is handed on: from a sign-in that is over, but still tells browsers so, to the next one; and two profiles may sign in
//! on it at a time. Each sign-in has a [`Seat`]; the `state` in the browser's answer says whose it is.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::page::Page;
use crate::accept::accept;

/// All listeners of one daemon.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<HashMap<u16, Weak<Listener>>>>);

/// One port. Listens until it is dropped.
pub(super) struct Listener {
    pub(super) port: u16,
    seats: Arc<Seats>,
    /// Dropping this stops the accept loops.
    _tasks: JoinSet<()>,
}

/// The sign-ins on one port, oldest first.
#[derive(Default)]
pub(super) struct Seats(Mutex<Vec<Weak<Seat>>>);

/// What one sign-in expects of the browser.
pub(super) struct Seat {
    /// What `Host` must be: `127.0.0.1:PORT`.
    pub(super) authority: String,
    pub(super) form_post: bool,
    /// What must come back with the browser; known once the authorization request is made.
    pub(super) state: OnceLock<String>,
    /// The one answer has been taken; all others are too late.
    pub(super) closed: std::sync::atomic::AtomicBool,
    pub(super) callbacks: mpsc::Sender<Callback>,
}

/// What is done with one connection.
pub(super) type Serve = fn(TcpStream, Arc<Seats>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A browser that has returned and waits for a page.
pub(super) struct Callback {
    pub(super) params: Zeroizing<Vec<(String, String)>>,
    pub(super) answer: oneshot::Sender<Verdict>,
}

pub(super) enum Verdict {
    /// Not an answer to this sign-in.
    Refused(&'static str),
    SignedIn(Page),
    Failed(Page),
}

impl Callback {
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Does nothing if the browser has gone in the meantime.
    pub(super) fn answer(self, verdict: Verdict) {
        let _ = self.answer.send(verdict);
    }
}

impl Listeners {
    /// The listener on `port`: one that is there, or a new one. 0 is any free port, and shared with nobody.
    pub(super) async fn get(&self, port: u16, serve: Serve) -> io::Result<Arc<Listener>> {
        if port == 0 {
            return Ok(Arc::new(Listener::bind(0, serve).await?));
        }
        let mut retries = CLOSING_RETRIES;
        loop {
            if let Some(listener) = self.known().get(&port).and_then(Weak::upgrade) {
                return Ok(listener);
            }
            match Listener::bind(port, serve).await {
                Ok(listener) => {
                    let listener = Arc::new(listener);
                    self.known().insert(port, Arc::downgrade(&listener));
                    return Ok(listener);
                }
                // One of ours may be about to close, in this daemon or in the private daemon of a `login` that has ended.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && retries > 0 => {
                    retries -= 1;
                    tokio::time::sleep(CLOSING_RETRY_DELAY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Weak<Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    async fn bind(port: u16, serve: Serve) -> io::Result<Self> {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = first.local_addr()?.port();
        let seats = Arc::<Seats>::default();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = JoinSet::new();
        // `localhost` may take a browser to either address, and no other program should get the other one.
        if let Ok(second) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            tasks.spawn(listen(second, Arc::clone(&slots), Arc::clone(&seats), serve));
        }
        tasks.spawn(listen(first, slots, Arc::clone(&seats), serve));
        Ok(Self { port, seats, _tasks: tasks })
    }

    /// Takes part until the seat is dropped.
    pub(super) fn join(&self, seat: &Arc<Seat>) {
        let mut seats = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(seat));
    }
}

impl Seats {
    pub(super) fn all(&self) -> Vec<Arc<Seat>> {
        let seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seats.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Serves connections from this machine. When this is dropped, they are too.
async fn listen(listener: TcpListener, slots: Arc<Semaphore>, seats: Arc<Seats>, serve: Serve) {
    let mut connections = JoinSet::new();
    let begin = |(stream, peer): (TcpStream, SocketAddr), slot| {
        if peer.ip().is_loopback() {
            let seats = Arc::clone(&seats);
            connections.spawn(async move {
                serve(stream, seats).await;
                drop(slot);
            });
        }
        // Clear away the connections that have ended.
        while connections.try_join_next().is_some() {}
    };
    accept(&slots, || listener.accept(), begin).await;
}

/// For both addresses of a port together.
const MAX_CONNECTIONS: usize = 16;

/// Two seconds: a private daemon ends within them.
const CLOSING_RETRIES: u32 = 40;
const CLOSING_RETRY_DELAY: Duration = Duration::from_millis(50);
