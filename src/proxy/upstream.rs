//! Connections to W&B, kept for the next request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::body::{Activity, Body, INACTIVITY};
use super::target::Target;
use crate::error::Error;
use crate::http::Http;

/// Cloning is cheap.
#[derive(Clone, Default)]
pub(super) struct Upstream {
    idle: Arc<Mutex<HashMap<Place, Vec<Idle>>>>,
}

/// A server, by one profile's way to it: another profile may trust other authorities, or go through another proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    origin: String,
    way: usize,
}

impl Place {
    fn of(target: &Target) -> Self {
        Self { origin: target.origin.clone(), way: target.http.way() }
    }
}

struct Idle {
    send: SendRequest<Body>,
    since: Instant,
    /// So that no other way gets its number.
    _http: Http,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// No connection: nothing was sent.
    Unreachable(Error),
    /// The connection ended before the answer began.
    Broken(String),
    Silent,
}

impl Upstream {
    /// Sends one request. `again` makes it once more where its body is kept: a connection that was idle may have been closed
    /// by the server at the moment we wrote to it, which says nothing of the server.
    pub(super) async fn send(
        &self,
        target: &Target,
        request: Request<Body>,
        activity: &Activity,
        again: impl FnOnce() -> Option<Request<Body>>,
    ) -> Result<Response<Incoming>, Failed> {
        let place = Place::of(target);
        let request = match self.take(&place) {
            None => request,
            Some(mut send) => match activity.wait(send.try_send_request(request)).await {
                None => return Err(Failed::Silent),
                Some(Ok(response)) => {
                    self.keep(target, place, send);
                    return Ok(response);
                }
                Some(Err(mut error)) => match error.take_message() {
                    // Nothing of it was sent.
                    Some(request) => request,
                    None if error.error().is_user() => {
                        return Err(Failed::Broken("the client broke off".into()));
                    }
                    None => again().ok_or_else(|| Failed::Broken(error.error().to_string()))?,
                },
            },
        };
        let stream = target.http.connect(&target.url).await.map_err(Failed::Unreachable)?;
        let broken = |error: hyper::Error| Failed::Broken(error.to_string());
        let mut builder = http1::Builder::new();
        builder.max_buf_size(super::MAX_HEAD).max_header_size(super::MAX_HEAD);
        let (mut send, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ = connection.await;
        });
        match activity.wait(send.send_request(request)).await {
            None => Err(Failed::Silent),
            Some(Err(error)) => Err(broken(error)),
            Some(Ok(response)) => {
                self.keep(target, place, send);
                Ok(response)
            }
        }
    }

    /// Closes what no job needs any more.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }

    fn take(&self, place: &Place) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        let kept = idle.get_mut(place)?;
        while let Some(Idle { send, since, .. }) = kept.pop() {
            if send.is_ready() && since.elapsed() < MAX_IDLE {
                return Some(send);
            }
        }
        None
    }

    /// Keeps a connection once its answer was read to the end.
    fn keep(&self, target: &Target, place: Place, mut send: SendRequest<Body>) {
        let (upstream, http) = (self.clone(), target.http.clone());
        tokio::spawn(async move {
            if send.ready().await.is_err() {
                return;
            }
            let mut idle = upstream.idle();
            let kept = idle.entry(place).or_default();
            // Not each time: what is closed is passed over when one is taken.
            if kept.len() >= MAX_KEPT {
                kept.retain(|idle| !idle.send.is_closed() && idle.since.elapsed() < MAX_IDLE);
            }
            if kept.len() < MAX_KEPT {
                kept.push(Idle { send, since: Instant::now(), _http: http });
            }
        });
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Place, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Broken(why) => write!(f, "the connection to the server broke off ({why})"),
            Self::Silent => write!(f, "the server was silent for {} s", INACTIVITY.as_secs()),
        }
    }
}

/// Servers close idle connections after a minute or more.
const MAX_IDLE: Duration = Duration::from_secs(50);

/// For each server.
const MAX_KEPT: usize = 128;
