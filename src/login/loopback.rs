//! What the browser may bring back to the loopback address: one path, one answer for each sign-in, one user.
//!
//! Any page in any browser on this machine can send requests here, so it accepts as little as it can: the exact `Host`
//! (DNS rebinding would send another), top-level navigation only (`Sec-Fetch-*`), one path, one method. It allows no
//! cross-origin reads, sets no cookie, and echoes nothing that it was sent.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::listener::{Callback, Listener, Listeners, Seat, Seats, Serve, Verdict};
use super::page::{self, Page};

/// Where one sign-in waits for its browser, until this is dropped.
pub(super) struct Loopback {
    seat: Arc<Seat>,
    callbacks: mpsc::Receiver<Callback>,
    _listener: Arc<Listener>,
}

impl Loopback {
    pub(super) async fn open(
        listeners: &Listeners,
        host: &str,
        port: u16,
        form_post: bool,
    ) -> io::Result<Self> {
        let serve: Serve = |stream, seats| Box::pin(connection(stream, seats));
        let listener = listeners.get(port, serve).await?;
        let (sender, callbacks) = mpsc::channel(4);
        let seat = Arc::new(Seat {
            authority: format!("{host}:{}", listener.port),
            form_post,
            state: OnceLock::new(),
            closed: AtomicBool::new(false),
            callbacks: sender,
        });
        listener.join(&seat);
        Ok(Self { seat, callbacks, _listener: listener })
    }

    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}{PATH}", self.seat.authority)
    }

    /// Says which `state` is this sign-in's.
    pub(super) fn expect(&self, state: &str) {
        // Told once.
        let _ = self.seat.state.set(state.to_owned());
    }

    pub(super) async fn callback(&mut self) -> Option<Callback> {
        self.callbacks.recv().await
    }

    pub(super) fn seat(&self) -> Weak<Seat> {
        Arc::downgrade(&self.seat)
    }

    /// From now on, tells every browser that it is too late.
    pub(super) fn refuse_further(&self) {
        self.seat.closed.store(true, Ordering::Relaxed);
    }

    /// Keeps telling them so for `delay`, then closes.
    pub(super) async fn close_after(self, delay: Duration) {
        self.refuse_further();
        tokio::time::sleep(delay).await;
    }
}

async fn connection(stream: TcpStream, seats: Arc<Seats>) {
    let service = service_fn(|request| {
        let seats = seats.all();
        async move { Ok::<_, Infallible>(answer(request, seats).await.response()) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // A browser that misbehaves only gets its connection closed.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

async fn answer(request: Request<Incoming>, seats: Vec<Arc<Seat>>) -> Page {
    let seats = match check(request.method(), request.uri(), request.headers(), seats) {
        Ok(seats) => seats,
        Err(page) => return page,
    };
    let params = match *request.method() {
        Method::GET => parse(request.uri().query().unwrap_or_default().as_bytes()),
        _ => match Limited::new(request.into_body(), MAX_FORM).collect().await {
            Ok(body) => parse(&Zeroizing::new(body.to_bytes().to_vec())),
            Err(_) => None,
        },
    };
    let Some(params) = params else {
        return page::refused(StatusCode::BAD_REQUEST, "it cannot be read, or has a parameter twice");
    };
    let state = params.iter().find(|(key, _)| key == "state").map(|(_, value)| value.as_str());
    let Some(callbacks) = choose(&seats, state).map(|seat| seat.callbacks.clone()) else {
        return page::late();
    };
    // Only the sign-in itself keeps its seat.
    drop(seats);
    let (answer, verdict) = oneshot::channel();
    if callbacks.send(Callback { params, answer }).await.is_err() {
        return page::late();
    }
    drop(callbacks);
    match verdict.await {
        Ok(Verdict::Refused(why)) => page::refused(StatusCode::BAD_REQUEST, why),
        Ok(Verdict::SignedIn(page) | Verdict::Failed(page)) => page,
        // Another browser was first, and the sign-in has ended.
        Err(_) => page::late(),
    }
}

/// Whose answer it is: the sign-in's with this `state`; what is nobody's goes to the newest one, which refuses it. `None`
/// if it is too late.
fn choose<'a>(seats: &'a [Arc<Seat>], state: Option<&str>) -> Option<&'a Arc<Seat>> {
    let is_open = |seat: &&Arc<Seat>| !seat.closed.load(Ordering::Relaxed);
    let named = seats.iter().find(|seat| match (seat.state.get(), state) {
        (Some(wanted), Some(given)) => equal(given, wanted),
        _ => false,
    });
    match named {
        Some(seat) => Some(seat).filter(is_open),
        None => seats.iter().rev().find(is_open),
    }
}

/// Compares in a time that does not reveal how much of the text is right.
pub(super) fn equal(given: &str, wanted: &str) -> bool {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(given) == Sha256::digest(wanted)
}

/// What can be checked before reading any of the answer. Gives the sign-ins that it can be for.
fn check(
    method: &Method,
    uri: &hyper::Uri,
    headers: &HeaderMap,
    mut seats: Vec<Arc<Seat>>,
) -> Result<Vec<Arc<Seat>>, Page> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let refuse = |status, why| Err(page::refused(status, why));
    let host = text(HOST.as_str()).filter(|_| headers.get_all(HOST).iter().count() == 1);
    seats.retain(|seat| host == Some(&seat.authority));
    if seats.is_empty() {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "it was sent to a different host name than this server's",
        );
    }
    if uri.path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "there is nothing else here");
    }
    seats.retain(|seat| *method == if seat.form_post { Method::POST } else { Method::GET });
    if seats.is_empty() {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "it was not sent the way this sign-in expects");
    }
    // With these headers, browsers tell a person's navigation from requests by scripts and frames.
    let absent_or = |name, allowed: &str| text(name).is_none_or(|value| value == allowed);
    if !absent_or("sec-fetch-mode", "navigate") || !absent_or("sec-fetch-dest", "document") {
        return refuse(StatusCode::FORBIDDEN, "it was sent by a script or a frame, not by a page you opened");
    }
    if *method == Method::GET && headers.contains_key(ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "it was sent by a script on another page");
    }
    let form = text(CONTENT_TYPE.as_str()).unwrap_or_default();
    if *method == Method::POST && !form.starts_with("application/x-www-form-urlencoded") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "it is not a form");
    }
    Ok(seats)
}

/// The parameters. Each may occur only once (RFC 6749, section 3.1).
pub fn parse(query: &[u8]) -> Option<Zeroizing<Vec<(String, String)>>> {
    let mut params: Zeroizing<Vec<(String, String)>> = Zeroizing::default();
    for (key, value) in url::form_urlencoded::parse(query) {
        if params.len() == MAX_PARAMS || params.iter().any(|(known, _)| *known == key) {
            return None;
        }
        params.push((key.into_owned(), value.into_owned()));
    }
    Some(params)
}

impl Page {
    fn response(self) -> Response<Full<Bytes>> {
        let mut builder = Response::builder().status(self.status);
        for (name, value) in page::HEADERS {
            builder = builder.header(name, value);
        }
        builder
            .header("content-security-policy", page::policy())
            .body(Full::new(Bytes::from(self.html)))
            .expect("fixed headers are valid")
    }
}

pub(super) const PATH: &str = "/callback";
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The browser waits while the code is redeemed, which may include a prompt of the keyring's.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(150);
const MAX_HEAD: usize = 32 * 1024;
const MAX_FORM: usize = 128 * 1024;
const MAX_PARAMS: usize = 20;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn seat(form_post: bool, state: &str) -> Arc<Seat> {
        Arc::new(Seat {
            authority: "127.0.0.1:4000".to_owned(),
            form_post,
            state: OnceLock::from(state.to_owned()),
            closed: AtomicBool::new(false),
            callbacks: mpsc::channel(1).0,
        })
    }

    fn status(method: &str, path: &str, headers: &[(&'static str, &str)], form_post: bool) -> u16 {
        let method = method.parse().expect("method");
        let headers = headers.iter().map(|(name, value)| {
            (hyper::header::HeaderName::from_static(name), value.parse().expect("value"))
        });
        let seats = vec![seat(form_post, "s")];
        match check(&method, &path.parse().expect("uri"), &headers.collect(), seats) {
            Ok(_) => 200,
            Err(page) => page.status.as_u16(),
        }
    }

    #[test]
    fn an_answer_goes_to_the_sign_in_with_its_state_and_what_is_nobodys_to_the_newest() {
        let seats = [seat(false, "one"), seat(false, "two")];
        let chosen = |state| choose(&seats, state).and_then(|seat| seat.state.get()).map(String::as_str);
        assert_eq!((chosen(Some("one")), chosen(Some("two"))), (Some("one"), Some("two")));
        assert_eq!((chosen(Some("guessed")), chosen(None)), (Some("two"), Some("two")));
        seats[1].closed.store(true, Ordering::Relaxed);
        assert_eq!((chosen(Some("two")), chosen(Some("guessed"))), (None, Some("one")));
        seats[0].closed.store(true, Ordering::Relaxed);
        assert_eq!(chosen(Some("guessed")), None, "all are over");
    }

    #[tokio::test]
    async fn a_fixed_port_is_handed_on_and_free_after_the_last_sign_in() {
        let listeners = Listeners::default();
        let free =
            TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").port();
        let open = async || Loopback::open(&listeners, "127.0.0.1", free, false).await;
        let (first, second) = (open().await.expect("free"), open().await.expect("shared"));
        drop(first);
        let third = open().await.expect("handed on");
        drop((second, third));
        open().await.expect("free again");
        let _stranger = loop {
            // The accept loops end when the runtime gets to them.
            match TcpListener::bind(("127.0.0.1", free)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let refused = open().await.err().expect("a stranger has it");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_a_navigation_to_the_callback_passes() {
        let host = ("host", "127.0.0.1:4000");
        assert_eq!(status("GET", "/callback?code=x", &[host], false), 200);
        let browser = [host, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(status("GET", "/callback", &browser, false), 200);
        assert_eq!(status("GET", "/", &[host], false), 404);
        assert_eq!(status("GET", "/callback/", &[host], false), 404);
        assert_eq!(status("OPTIONS", "/callback", &[host], false), 405);
        assert_eq!(status("POST", "/callback", &[host], false), 405);
        assert_eq!(status("GET", "/callback", &[], false), 421);
        assert_eq!(status("GET", "/callback", &[("host", "localhost:4000")], false), 421);
        assert_eq!(status("GET", "/callback", &[("host", "evil.example:4000")], false), 421);
        assert_eq!(status("GET", "/callback", &[host, ("origin", "https://evil.example")], false), 403);
        for (name, value) in
            [("sec-fetch-mode", "cors"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "iframe")]
        {
            assert_eq!(status("GET", "/callback", &[host, (name, value)], false), 403, "{value}");
        }
    }

    #[test]
    fn a_form_is_accepted_only_where_configured() {
        let form = [("host", "127.0.0.1:4000"), ("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(status("POST", "/callback", &form, true), 200);
        assert_eq!(status("POST", "/callback", &form, false), 405);
        assert_eq!(status("GET", "/callback", &form, true), 405);
        assert_eq!(status("POST", "/callback", &form[..1], true), 415);
    }

    #[test]
    fn an_answer_with_a_parameter_twice_is_refused() {
        assert!(parse(b"code=a&state=b").is_some());
        assert!(parse(b"code=a&state=b&state=c").is_none());
        let many: String = (0..30).map(|i| format!("p{i}=x&")).collect();
        assert!(parse(many.as_bytes()).is_none());
    }
}
