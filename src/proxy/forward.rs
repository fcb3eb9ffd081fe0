//! One request through the proxy: judged, sent on with a token, sent again if the token was refused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer;
use super::body::{Activity, Body, REPLAY_MEMORY, Stream, Upload, drain};
use super::head::{self, Refusal, Route};
use super::headers;
use super::keys::{Job, Keys};
use super::rewrite::{Rewrite, asks_for_addresses};
use super::tape::Tape;
use super::target::Target;
use super::upstream::Upstream;
use super::{Hears, Use, Used};
use crate::error::Error;
use crate::keeper::Need;
use crate::token::{AccessToken, Expires as _};

/// What all requests share.
pub(super) struct Forwarder {
    keys: Mutex<Keys>,
    pub(super) upstream: Upstream,
    /// For bodies that are kept to be sent again, in KiB.
    memory: Arc<Semaphore>,
    /// While set, no token is used.
    pub(super) locked: AtomicBool,
    hears: Hears,
}

/// The connection that a request came on.
pub(super) struct Caller {
    /// Whether the kernel says that it is this user's.
    pub(super) is_owner: bool,
    pub(super) port: u16,
    pub(super) tape: Tape,
}

type Answer = Response<Body>;

impl Forwarder {
    pub(super) fn new(hears: Hears) -> Self {
        Self {
            keys: Mutex::default(),
            upstream: Upstream::default(),
            memory: Arc::new(Semaphore::new(REPLAY_MEMORY)),
            locked: AtomicBool::new(false),
            hears,
        }
    }

    /// For the audit log: a job is over.
    pub(super) fn over(&self, job: &Job) {
        let total = job.counts.job.total();
        if total.requests > 0 {
            self.tell(job, Used::Over(total));
        }
    }

    fn tell(&self, job: &Job, what: Used) {
        (self.hears)(Use { profile: Arc::clone(&job.name), process: job.process(), what });
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn handle(
        &self,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Result<Answer, BrokenOff> {
        let (head, body) = request.into_parts();
        let answer = match self.judge(caller, &head) {
            Ok(Judged::Telemetry) => {
                drain(body).await;
                Ok(answer::telemetry(head.headers.get(CONTENT_TYPE)))
            }
            // Boxed, so that an idle connection's task stays small.
            Ok(Judged::Forward(route, job, with_token)) => {
                Box::pin(self.forward(caller, route, &job, with_token, head, body)).await
            }
            Err(why) => Ok(answer::refused(why)),
        };
        caller.tape.begin();
        answer
    }

    fn judge(&self, caller: &Caller, head: &Parts) -> Result<Judged, Refusal> {
        if !caller.is_owner {
            return Err(Refusal::User);
        }
        let route = head::route_of(head, caller.port)?;
        if head.headers.contains_key(TRANSFER_ENCODING) && caller.tape.has_both_framings() {
            return Err(Refusal::Framing);
        }
        if route == Route::Telemetry {
            return Ok(Judged::Telemetry);
        }
        match head::key(&head.headers) {
            Ok(key) => Ok(Judged::Forward(route, self.keys().find(&key)?, true)),
            // Which of the trace servers it asks, it does not say: they answer alike.
            Err(Refusal::NoKey) if route == Route::TraceServerInfo => {
                let job = self.keys().newest().ok_or(Refusal::NoKey)?;
                Ok(Judged::Forward(route, job, false))
            }
            Err(why) => Err(why),
        }
    }

    async fn forward(
        &self,
        caller: &Caller,
        route: Route,
        job: &Job,
        with_token: bool,
        head: Parts,
        body: Incoming,
    ) -> Result<Answer, BrokenOff> {
        job.counts.request();
        let profile = job.profile();
        let Some(target) = Target::of(route, &profile, &head.uri) else {
            return Ok(answer::refused(Refusal::Target));
        };
        let upload = Upload::read(body, &self.memory).await.map_err(|_| BrokenOff)?;
        let asks = route == Route::Graphql && upload.asks_for_addresses(&head);
        let gateway = match target.http.gateway_headers(&target.url).await {
            Ok(headers) => headers,
            Err(error) => return Ok(answer::unavailable(&error.to_string(), RETRY)),
        };
        let mut letter = Letter::new(head, &target, &gateway, upload, job);
        if asks {
            // What is packed cannot be read.
            letter.head.headers.remove(ACCEPT_ENCODING);
        }
        let mut token = None;
        if with_token {
            if self.locked.load(Ordering::Relaxed) {
                return Ok(answer::unavailable("the daemon is locked, so it uses no token", RETRY));
            }
            let need = Need { min_ttl: Duration::ZERO, timeout: TOKEN_WAIT };
            match profile.access.get(need).await {
                Ok(good) => token = Some(good),
                Err(error) => return Ok(no_token(&profile.name, &error)),
            }
        }
        let mut replayed = false;
        loop {
            if let Some(token) = token.as_ref().filter(|token| job.uses(token.hash())) {
                self.tell(job, Used::Token(token.hash()));
            }
            let response = match letter.send(&self.upstream, token.as_ref()).await {
                Ok(response) => response,
                Err(why) => return Ok(answer::unavailable(&why, RETRY)),
            };
            let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
            if let Some(sent) = token.as_ref().filter(|_| unauthorized && replayed)
                && (profile.access.read(|known| known.renewing)
                    || profile.access.peek(Duration::ZERO).is_none_or(|now| now.hash() != sent.hash()))
            {
                // It ended while the server thought about it, which says nothing of the next one, or the one that comes.
                let why = "the access token ended before the server answered; send this again";
                return Ok(answer::unavailable(why, 1));
            }
            let Some(refused) = token.as_ref().filter(|_| unauthorized && !replayed) else {
                let rewrite = asks.then(|| Rewrite::new(&profile.base_url.spellings(), &ours(caller.port)));
                return Ok(pass(response, &target, rewrite, job, caller.port));
            };
            match profile.access.instead_of(refused.hash(), TOKEN_WAIT).await {
                Err(error) => return Ok(no_token(&profile.name, &error)),
                Ok(_) if !letter.is_kept() => {
                    let why = "the access token was revoked; there is a new one now, so send this again";
                    return Ok(answer::unavailable(why, 1));
                }
                Ok(new) => token = Some(new),
            }
            job.counts.replay();
            replayed = true;
            // So that the connection is good for the next request.
            let _ = tokio::time::timeout(RETRY_DRAIN, drain(response.into_body())).await;
        }
    }
}

enum Judged {
    Telemetry,
    Forward(Route, Arc<Job>, bool),
}

/// A request that can be sent more than once, if its body is kept.
struct Letter<'a> {
    head: Parts,
    target: &'a Target,
    job: &'a Job,
    body: Option<Kept>,
    /// Its body, while it was not sent.
    once: Option<(Bytes, Incoming)>,
}

struct Kept {
    bytes: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl<'a> Letter<'a> {
    fn new(mut head: Parts, target: &'a Target, gateway: &HeaderMap, upload: Upload, job: &'a Job) -> Self {
        head.headers = headers::outward(head.headers, target, gateway);
        let (body, once) = match upload {
            Upload::Whole(bytes, place) => (Some(Kept { bytes, _place: place }), None),
            Upload::Part(read, rest) => (None, Some((read, rest))),
        };
        Self { head, target, job, body, once }
    }

    fn is_kept(&self) -> bool {
        self.body.is_some()
    }

    async fn send(
        &mut self,
        upstream: &Upstream,
        token: Option<&AccessToken>,
    ) -> Result<Response<Incoming>, String> {
        let activity = Activity::new();
        let body = match (&self.body, self.once.take()) {
            (Some(kept), _) => Body::Whole(kept.bytes.clone()),
            (None, Some((read, rest))) => {
                let stream = Stream::outward(read, rest, activity.clone(), self.job.counts.clone());
                Body::Stream(Box::new(stream))
            }
            (None, None) => return Err("the request's body is gone".to_owned()),
        };
        if let Body::Whole(bytes) = &body {
            self.job.counts.sent(bytes.len());
        }
        let request = self.request(body, token);
        let again = || {
            let kept = self.body.as_ref()?;
            Some(self.request(Body::Whole(kept.bytes.clone()), token))
        };
        let sent = upstream.send(self.target, request, &activity, again).await;
        sent.map_err(|error| error.to_string())
    }

    fn request(&self, body: Body, token: Option<&AccessToken>) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target.uri.clone();
        let mut headers = self.head.headers.clone();
        if let Body::Whole(bytes) = request.body()
            && !(bytes.is_empty() && BODILESS.contains(&self.head.method))
        {
            // It may have come in chunks.
            headers.insert(CONTENT_LENGTH, bytes.len().into());
        }
        if let Some(token) = token {
            headers::authorize(&mut headers, token);
        }
        *request.headers_mut() = headers;
        request
    }
}

impl Upload {
    fn asks_for_addresses(&self, head: &Parts) -> bool {
        match self {
            Self::Whole(bytes, _) if !head.headers.contains_key(CONTENT_ENCODING) => {
                asks_for_addresses(bytes)
            }
            // What cannot be read may ask for anything.
            Self::Whole(..) | Self::Part(..) => true,
        }
    }
}

fn pass(
    response: Response<Incoming>,
    target: &Target,
    rewrite: Option<Rewrite>,
    job: &Job,
    port: u16,
) -> Answer {
    let (mut head, body) = response.into_parts();
    headers::inward(&mut head.headers, target, &ours(port));
    let rewrite = rewrite.filter(|_| !head.headers.contains_key(CONTENT_ENCODING));
    if rewrite.is_some() {
        head.headers.remove(CONTENT_LENGTH);
    }
    let stream = Stream::inward(body, rewrite, job.counts.clone());
    let mut answer = Response::new(Body::Stream(Box::new(stream)));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    answer
}

/// The proxy's address, as every program gets it.
pub(super) fn ours(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn no_token(profile: &str, error: &Error) -> Answer {
    // Rounded up, and never so long that a run that is about to end gives up.
    let wait = error.retry_after.map_or(RETRY, |wait| (wait.as_secs() + 1).min(MAX_RETRY));
    answer::unavailable(&format!("no token for profile `{profile}` now: {error}"), wait)
}

/// The client went away before its request was whole.
#[derive(Debug, thiserror::Error)]
#[error("the client broke off its request")]
pub(super) struct BrokenOff;

impl From<Infallible> for BrokenOff {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

const BODILESS: [Method; 3] = [Method::GET, Method::HEAD, Method::DELETE];

/// SDKs give up a request after 9 s at the earliest.
const TOKEN_WAIT: Duration = Duration::from_secs(8);

/// What `Retry-After` says, in seconds.
const RETRY: u64 = 2;
const MAX_RETRY: u64 = 30;

/// For the rest of an answer that is of no interest.
const RETRY_DRAIN: Duration = Duration::from_secs(1);
