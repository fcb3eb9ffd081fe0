//! What is judged before a byte of a body is read: where a request comes from, whose it is, where it wants to go. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, UPGRADE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use zeroize::Zeroizing;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Anything of W&B's API.
    Api,
    /// The one route whose answers are looked at.
    Graphql,
    /// weave's trace server.
    Traces,
    /// The one request that weave makes without a key.
    TraceServerInfo,
    /// What the SDK (0.31.0) sends about itself, without a key.
    Telemetry,
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Method,
    /// Not a path: `*`, `host:port`, or a whole URL.
    Target,
    /// For another host: a page in a browser that has this one's address by another name.
    Host,
    Browser,
    Upgrade,
    /// A path that says something else once it is normalized.
    Path,
    /// The exchange is the daemon's.
    Exchange,
    /// Both `Content-Length` and `Transfer-Encoding`.
    Framing,
    /// Another user of this machine, or nobody whom the kernel knows.
    User,
    NoKey,
    /// A key that was never ours.
    ForeignKey,
    /// The key of a job that is over.
    Ended,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target | Self::Upgrade | Self::Path | Self::Framing => StatusCode::BAD_REQUEST,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Browser | Self::Exchange | Self::User => StatusCode::FORBIDDEN,
            Self::NoKey | Self::ForeignKey | Self::Ended => StatusCode::UNAUTHORIZED,
        }
    }

    /// What the SDK shows to people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Method => "this method is not passed on by the proxy",
            Self::Target => "the proxy takes paths only: it stands for a W&B server, and for no other",
            Self::Host => "this request is for another host than the proxy",
            Self::Browser => "requests of browsers are not passed on by the proxy",
            Self::Upgrade => "the proxy speaks HTTP/1.1 and nothing else",
            Self::Path => "the proxy does not pass on paths with `..`",
            Self::Exchange => "the daemon exchanges tokens itself; a program has no need to",
            Self::Framing => "a request has a Content-Length or a Transfer-Encoding, not both",
            Self::User => "the proxy serves the user who runs it, and nobody else",
            Self::NoKey => "this request has no key for the proxy: its WANDB_API_KEY was lost",
            Self::ForeignKey => {
                "this is no key of the proxy: this program sets its own WANDB_API_KEY, or has one in ~/.netrc; remove it"
            }
            Self::Ended => "the job that this key was made for has ended",
        }
    }
}

/// Where the request wants to go, if it may. `port` is ours.
pub fn route(method: &Method, uri: &Uri, headers: &HeaderMap, port: u16) -> Result<Route, Refusal> {
    if !METHODS.contains(method) {
        return Err(Refusal::Method);
    }
    if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
        return Err(Refusal::Target);
    }
    if one(headers, &HOST).is_none_or(|host| host != format!("127.0.0.1:{port}").as_bytes()) {
        return Err(Refusal::Host);
    }
    if headers.contains_key(ORIGIN) {
        return Err(Refusal::Browser);
    }
    if headers.contains_key(UPGRADE) {
        return Err(Refusal::Upgrade);
    }
    let segments = segments(uri.path())?;
    let mut segments = segments.iter().map(String::as_str);
    let first = segments.next().unwrap_or_default();
    let second = segments.next().unwrap_or_default();
    // The trace server of the cloud has its own root.
    if is_exchange(first) || first.eq_ignore_ascii_case("traces") && is_exchange(second) {
        return Err(Refusal::Exchange);
    }
    Ok(match uri.path() {
        "/graphql" => Route::Graphql,
        "/traces/server_info" if method == Method::GET => Route::TraceServerInfo,
        path if path == "/traces" || path.starts_with("/traces/") => Route::Traces,
        path if path.starts_with("/sdk/otel/v1/") => Route::Telemetry,
        _ => Route::Api,
    })
}

/// The same for a whole head.
pub fn route_of(head: &Parts, port: u16) -> Result<Route, Refusal> {
    route(&head.method, &head.uri, &head.headers, port)
}

/// The key that a request carries: the password of HTTP Basic, whatever the user is called.
pub fn key(headers: &HeaderMap) -> Result<Zeroizing<String>, Refusal> {
    let header = match headers.get(AUTHORIZATION) {
        None => return Err(Refusal::NoKey),
        Some(_) => one(headers, &AUTHORIZATION).ok_or(Refusal::ForeignKey)?,
    };
    let (scheme, value) = split_once(header, b' ').ok_or(Refusal::ForeignKey)?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(Refusal::ForeignKey);
    }
    let decoded = Zeroizing::new(STANDARD.decode(value.trim_ascii()).map_err(|_| Refusal::ForeignKey)?);
    let (_, password) = split_once(&decoded, b':').ok_or(Refusal::ForeignKey)?;
    let known_form = password.len() == KEY_LENGTH && password.iter().all(u8::is_ascii_alphanumeric);
    if password.is_empty() {
        return Err(Refusal::NoKey);
    }
    if !known_form {
        return Err(Refusal::ForeignKey);
    }
    String::from_utf8(password.to_vec()).map(Zeroizing::new).map_err(|_| Refusal::ForeignKey)
}

/// The value of a header that occurs once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.as_bytes())
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

fn is_exchange(segment: &str) -> bool {
    segment.eq_ignore_ascii_case("oidc")
}

/// The path as the most lenient of servers would read it. What is sent on is the path as it came.
fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let mut path = Cow::Borrowed(path.as_bytes());
    for _ in 0..MAX_ENCODINGS {
        match decoded(&path) {
            Some(decoded) => path = Cow::Owned(decoded),
            None => break,
        }
    }
    let mut segments = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        // What follows a semicolon are parameters to some servers.
        let segment = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        match segment.trim_ascii() {
            b"" | b"." => {}
            b".." => return Err(Refusal::Path),
            segment => segments.push(String::from_utf8_lossy(segment).into_owned()),
        }
    }
    Ok(segments)
}

/// Without one level of percent-encoding; `None` if there is none.
fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, tail @ ..]) if let (Some(high), Some(low)) = (hex(*high), hex(*low)) => {
                out.push(high * 16 + low);
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    (out.len() != path.len()).then_some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// CONNECT and TRACE are none of W&B's, and OPTIONS is asked by browsers.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Every SDK refuses other keys: `[A-Za-z0-9]{40}`.
pub const KEY_LENGTH: usize = 40;

/// Deeper ones are read by nobody.
const MAX_ENCODINGS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: Method, target: &str, headers: &[(&str, &str)]) -> Result<Route, Refusal> {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        });
        route(&method, &target.parse().expect("a target"), &headers.collect(), 80)
    }

    fn get(target: &str) -> Result<Route, Refusal> {
        at(Method::GET, target, &[("host", "127.0.0.1:80")])
    }

    #[test]
    fn the_host_must_be_exactly_ours() {
        for host in [
            "evil.example",
            "127.0.0.1",
            "127.0.0.1:81",
            "localhost:80",
            "localhost.evil.example:80",
            "127.0.0.1:80.evil.example",
            "127.0.0.1:080",
            "a@127.0.0.1:80",
            "[::1]:80",
            "",
        ] {
            assert_eq!(at(Method::GET, "/", &[("host", host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(at(Method::GET, "/", &[]), Err(Refusal::Host));
        let twice = [("host", "127.0.0.1:80"), ("host", "127.0.0.1:80")];
        assert_eq!(at(Method::GET, "/", &twice), Err(Refusal::Host));
    }

    #[test]
    fn the_exchange_is_refused_however_it_is_spelled() {
        for target in [
            "/oidc/token",
            "/OIDC/token",
            "//oidc/token",
            "/./oidc/token",
            "/%6fidc/token",
            "/%256fidc/token",
            "/%2Foidc/token",
            "/%5coidc/token",
            "/oidc;x/token",
            "/oidc",
            "/traces/oidc/token",
        ] {
            assert_eq!(get(target), Err(Refusal::Exchange), "{target}");
        }
        for target in ["/a/../oidc/token", "/a/%2e%2e/oidc/token", "/%252e%252e/oidc", "/.."] {
            assert_eq!(get(target), Err(Refusal::Path), "{target}");
        }
        for target in ["/files/a/b/oidc/token", "/graphqloidc", "/files/e/p/r/a..b", "/files/100%"] {
            assert_eq!(get(target), Ok(Route::Api), "{target}");
        }
    }

    #[test]
    fn what_is_no_request_to_a_server_is_refused() {
        for (method, target) in [(Method::CONNECT, "h:1"), (Method::TRACE, "/"), (Method::OPTIONS, "*")] {
            assert_eq!(at(method, target, &[("host", "127.0.0.1:80")]), Err(Refusal::Method));
        }
        assert_eq!(get("http://127.0.0.1:80/graphql"), Err(Refusal::Target));
        assert_eq!(at(Method::GET, "*", &[("host", "127.0.0.1:80")]), Err(Refusal::Target));
        for (name, why) in [("origin", Refusal::Browser), ("upgrade", Refusal::Upgrade)] {
            assert_eq!(at(Method::GET, "/", &[("host", "127.0.0.1:80"), (name, "null")]), Err(why));
        }
        let node = [("host", "127.0.0.1:80"), ("sec-fetch-mode", "cors")];
        assert_eq!(at(Method::POST, "/graphql", &node), Ok(Route::Graphql), "Node is no browser");
    }

    #[test]
    fn routes_are_told_apart_by_the_path_as_it_came() {
        assert_eq!(get("/graphql?x=1"), Ok(Route::Graphql));
        assert_eq!(get("/traces/server_info"), Ok(Route::TraceServerInfo));
        assert_eq!(get("/traces/call/start"), Ok(Route::Traces));
        assert_eq!(get("/tracesx"), Ok(Route::Api));
        assert_eq!(get("/sdk/otel/v1/metrics"), Ok(Route::Telemetry));
    }

    #[test]
    fn a_key_is_forty_letters_and_digits() {
        let key_of = |user: &str, password: &str| {
            let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            key(&HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a value"))]))
        };
        let good = "a".repeat(KEY_LENGTH);
        assert_eq!(key_of("api", &good).as_deref(), Ok(&good));
        assert_eq!(key_of("", &good).as_deref(), Ok(&good));
        for bad in ["a".repeat(39), "a".repeat(41), format!("{}-", "a".repeat(39)), "ä".repeat(20)] {
            assert_eq!(key_of("api", &bad), Err(Refusal::ForeignKey), "{bad}");
        }
        assert_eq!(key_of("api", ""), Err(Refusal::NoKey));
        assert_eq!(key(&HeaderMap::new()), Err(Refusal::NoKey));
        for other in ["Bearer x", "Basic", "Basic !!", "Basic YQ=="] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, other.parse().expect("a value"))]);
            assert_eq!(key(&headers), Err(Refusal::ForeignKey), "{other}");
        }
    }
}
