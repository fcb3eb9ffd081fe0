//! Outbound HTTP, with the rules that hold for every request this program makes.
//!
//! https only, but for loopback and the known metadata addresses; no redirect is followed; every request
//! has a deadline and every body a bound; metadata requests use no proxy. Providers and the exchange build
//! requests, [`Http::send`] makes them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::backoff::parse_retry_after;
use crate::clock::{self, Clock, Now};
use crate::error::{Error, NetworkFault, Reason};

/// The two clients: one for the internet, one for addresses of this machine and its platform.
///
/// Cloning is cheap. Both are built on first use: reading the system's certificates takes longer than the whole start of
/// the daemon.
#[derive(Clone)]
pub struct Http {
    clients: Arc<[OnceLock<reqwest::Client>; 2]>,
    clock: Clock,
}

/// Whom a request is for; decides on proxy and plain http.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A server on the network: https (http on loopback only), the system's proxy is used.
    Network,
    /// A metadata or agent address: never through a proxy; http allowed, but only to an address that is not
    /// public, also after DNS.
    Platform,
}

/// One answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// May hold tokens: zeroed on drop.
    pub body: Zeroizing<Vec<u8>>,
    /// Both clocks at the moment the request was sent: lifetimes count from here.
    pub sent: Now,
    /// `Retry-After`, if the server gave one.
    pub retry_after: Option<Duration>,
    /// How far the server's clock is ahead of ours in whole seconds, from `Date`.
    pub skew: Option<i64>,
}

impl Answer {
    /// The body as text; invalid UTF-8 is replaced.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(String::from_utf8_lossy(&self.body).into_owned())
    }
}

impl Http {
    pub fn new(clock: Clock) -> Self {
        Self { clients: Arc::default(), clock }
    }

    /// The same clients for one profile: what its servers say about our clock goes to `clock`.
    pub fn with_clock(&self, clock: Clock) -> Self {
        Self { clients: Arc::clone(&self.clients), clock }
    }

    /// The same rules for a server with a private authority, such as a cluster's API server: only the
    /// certificates in `pem` are trusted, and no proxy is used.
    pub fn with_root(&self, pem: &[u8]) -> Result<Self, Error> {
        let bad = |error: reqwest::Error| unusable(format!("the CA file is not usable: {}", plain(&error)));
        let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(bad)?;
        if roots.is_empty() {
            return Err(unusable("the CA file contains no certificate"));
        }
        let client = builder(Reach::Platform).tls_certs_only(roots).build().map_err(bad)?;
        let clients = Arc::new([OnceLock::from(client.clone()), OnceLock::from(client)]);
        Ok(Self { clients, clock: self.clock.clone() })
    }

    /// Like [`Self::with_root`], and shows the server the certificate whose PEM (with its key) is `identity`.
    pub fn with_identity(&self, roots: &[u8], identity: &[u8]) -> Result<Self, Error> {
        let bad =
            |error: reqwest::Error| unusable(format!("the mTLS files are not usable: {}", plain(&error)));
        let roots = reqwest::Certificate::from_pem_bundle(roots).map_err(bad)?;
        let identity = reqwest::Identity::from_pem(identity).map_err(bad)?;
        let client =
            builder(Reach::Platform).tls_certs_only(roots).identity(identity).build().map_err(bad)?;
        let clients = Arc::new([OnceLock::from(client.clone()), OnceLock::from(client)]);
        Ok(Self { clients, clock: self.clock.clone() })
    }

    /// What the servers say of our clock (see [`Clock::skew`]): if none has told the time yet, `server` is asked.
    pub async fn skew(&self, server: &Url) -> Option<i64> {
        if self.clock.skew().is_none() {
            let request = self.request(Reach::Network, reqwest::Method::HEAD, server.clone());
            // Whatever it answers, it says when.
            let _ = self.send(Reach::Network, request, DATE_TIMEOUT, MAX_DATE_ANSWER).await;
        }
        self.clock.skew()
    }

    /// A request builder of the right client. The URL is checked in [`Self::send`].
    pub fn request(&self, reach: Reach, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        self.client(reach).request(method, url)
    }

    /// Sends, and reads at most `limit` bytes of the answer within `timeout` for all of it.
    pub async fn send(
        &self,
        reach: Reach,
        request: reqwest::RequestBuilder,
        timeout: Duration,
        limit: usize,
    ) -> Result<Answer, Error> {
        let request = request.build().map_err(|error| unusable(plain(&error)))?;
        check_url(request.url(), reach)?;
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let sent = self.clock.now();
        let exchange = async {
            let response =
                self.client(reach).execute(request).await.map_err(|error| failed(&host, &error))?;
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let body = read_body(response, limit, &host).await?;
            Ok::<_, Error>((status, headers, body))
        };
        let (status, headers, body) =
            tokio::time::timeout(timeout, exchange).await.map_err(|_| timed_out(&host, timeout))??;
        let now = self.clock.now();
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = header(RETRY_AFTER).and_then(|value| parse_retry_after(value, now));
        let skew = header(DATE)
            .and_then(|value| jiff::Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok())
            .map(|date| clock::skew(date, sent, now));
        if let (Reach::Network, Some(skew)) = (reach, skew) {
            self.clock.set_skew(skew);
        }
        Ok(Answer { status, headers, body, sent, retry_after, skew })
    }

    fn client(&self, reach: Reach) -> &reqwest::Client {
        self.clients[reach as usize].get_or_init(|| build(reach))
    }
}

fn build(reach: Reach) -> reqwest::Client {
    builder(reach).build().expect("a client without custom certificates always builds")
}

fn builder(reach: Reach) -> reqwest::ClientBuilder {
    // Err means that a provider is installed already: which is all we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .dns_resolver(Resolver(reach))
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        // A request every half hour gains nothing from a kept connection, which costs memory and a timer.
        .pool_max_idle_per_host(0);
    match reach {
        Reach::Network => builder,
        Reach::Platform => builder.no_proxy(),
    }
}

/// Refuses plain http to anything but this machine (or a checked platform address), and credentials in URLs.
pub fn check_url(url: &Url, reach: Reach) -> Result<(), Error> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("the URL holds a user name or password"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        // A name is judged when it is resolved, by `Resolver`: there is no gap for another answer.
        "http" if reach == Reach::Platform && literal(url).is_none_or(is_platform_address) => Ok(()),
        _ => {
            let host = url.host_str().unwrap_or_default().to_owned();
            let message = format!("{host} must be reached by https (plain http is for loopback only)");
            Err(Error::misconfigured(message).because(Reason::PlainHttp { host }))
        }
    }
}

/// Whether the URL names this machine: a loopback address, `localhost` or a name under it (RFC 6761).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_loopback_name(name),
        _ => literal(url).is_some_and(|ip| ip.is_loopback()),
    }
}

/// Whether plain http may go to this address: this machine, this link, or a private network. Metadata
/// services live there, and nothing on the internet does.
pub fn is_platform_address(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

/// Resolves names for one kind of request. A platform's name that leads to a public address is refused: a metadata
/// header, and what it unlocks, must not leave because DNS says so.
struct Resolver(Reach);

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let reach = self.0;
        Box::pin(async move {
            let name = name.as_str();
            let found = tokio::net::lookup_host((name, 0)).await.map_err(LookupError::Unknown)?;
            let addresses: Vec<SocketAddr> = found.collect();
            if reach == Reach::Platform {
                judge_addresses(name, &addresses)?;
            }
            let addresses: reqwest::dns::Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// Every address counts: which one the connection would take is not ours to say.
fn judge_addresses(name: &str, addresses: &[SocketAddr]) -> Result<(), LookupError> {
    let allowed = |ip: IpAddr| {
        if is_loopback_name(name) { ip.to_canonical().is_loopback() } else { is_platform_address(ip) }
    };
    match addresses.iter().find(|address| !allowed(address.ip())) {
        Some(address) => Err(LookupError::Forbidden(address.ip())),
        None => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
enum LookupError {
    // Displays the cause itself, so that the innermost message is this one.
    #[error("{0}")]
    Unknown(std::io::Error),
    #[error("the name leads to {0}, which is not an address of this platform")]
    Forbidden(IpAddr),
}

async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
    host: &str,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(host, &error))? {
        if body.len() + chunk.len() > limit {
            let reason = Reason::TooLarge { from: host.to_owned(), limit: limit as u64 };
            return Err(Error::transient(format!("{host} sent more than {limit} bytes")).because(reason));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unusable(why: impl std::fmt::Display) -> Error {
    Error::misconfigured(format!("the request cannot be made: {why}"))
}

fn timed_out(host: &str, after: Duration) -> Error {
    let reason = Reason::TimedOut { host: host.to_owned(), seconds: after.as_secs() };
    Error::transient(format!("{host} did not answer within {after:?}")).because(reason)
}

/// Why no answer came. Names the host, never the path or query, which can hold secrets.
fn failed(host: &str, error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        return timed_out(host, CONNECT_TIMEOUT);
    }
    let (host, why) = (host.to_owned(), plain(error));
    if error.is_connect() {
        let fault = network_fault(error);
        Error::transient(format!("cannot connect to {host}: {why}"))
            .because(Reason::Unreachable { host, fault })
    } else {
        Error::transient(format!("{host} broke off its answer: {why}"))
            .because(Reason::ConnectionLost { host })
    }
}

/// What the causes of a failed connection are, by their types.
fn network_fault(error: &reqwest::Error) -> NetworkFault {
    use rustls::CertificateError as Certificate;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return match lookup {
                LookupError::Unknown(_) => NetworkFault::UnknownName,
                LookupError::Forbidden(_) => NetworkFault::ForbiddenAddress,
            };
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return NetworkFault::Refused;
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
            return match why {
                Certificate::Expired | Certificate::ExpiredContext { .. } => NetworkFault::CertificateExpired,
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    NetworkFault::CertificateName
                }
                _ => NetworkFault::CertificateUntrusted,
            };
        }
        // What an io::Error wraps is not among its sources, and rustls' error comes wrapped twice.
        let wrapped =
            io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
        cause = wrapped.or_else(|| error.source());
    }
    NetworkFault::Other
}

/// The innermost cause, without the URL that reqwest puts in front.
fn plain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::eq(cause as *const _ as *const (), error as *const _ as *const ()) {
        return "unexpected end or malformed HTTP".to_owned();
    }
    cause.to_string()
}

const USER_AGENT: &str = concat!("wandb-cred/", env!("CARGO_PKG_VERSION"));

/// For an answer of which only the `Date` counts.
const DATE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DATE_ANSWER: usize = 64 * 1024;

/// To open a connection, TLS included. The whole request has its own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_never_goes_to_a_public_address() {
        let judge = |url: &str, reach| check_url(&Url::parse(url).expect("a URL"), reach);
        for url in [
            "http://127.0.0.1:1/",
            "http://localhost/",
            "http://[::1]/",
            "https://x/",
            "https://203.0.113.5/",
        ] {
            assert!(judge(url, Reach::Network).is_ok() && judge(url, Reach::Platform).is_ok(), "{url}");
        }
        for url in ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://10.0.0.5/", "http://name/"]
        {
            assert!(judge(url, Reach::Network).is_err() && judge(url, Reach::Platform).is_ok(), "{url}");
        }
        for url in [
            "http://203.0.113.5/",
            "http://[2001:db8::1]/",
            "http://[::ffff:203.0.113.5]/",
            "http://3405803781/",
        ] {
            assert!(judge(url, Reach::Platform).is_err(), "{url}");
        }
    }

    #[test]
    fn one_public_address_spoils_a_name() {
        let at = |ips: &[&str]| -> Vec<SocketAddr> {
            ips.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0)).collect()
        };
        assert!(judge_addresses("metadata.google.internal", &at(&["169.254.169.254"])).is_ok());
        assert!(
            judge_addresses("metadata.google.internal", &at(&["169.254.169.254", "203.0.113.5"])).is_err()
        );
        assert!(judge_addresses("localhost", &at(&["::1", "127.0.0.1"])).is_ok());
        assert!(judge_addresses("localhost", &at(&["10.0.0.5"])).is_err(), "localhost is this machine only");
    }
}
