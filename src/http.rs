//! Outbound HTTP, with the rules that hold for every request this program makes.
//!
//! https only, but for loopback, the known metadata addresses and what a profile opts in to; no redirect is followed; every request
//! has a deadline and every body a bound; loopback and metadata requests use no proxy. Providers and the exchange build
//! requests, [`Http::send`] makes them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::sync::OnceCell;
use url::Url;
use zeroize::Zeroizing;

use crate::backoff::parse_retry_after;
use crate::clock::{self, Clock, Now};
use crate::env::Env;
use crate::error::{Error, Reason};
use crate::read_file;

mod addresses;
mod certificates;
mod connection;
mod failure;
mod network;

use addresses::{Addresses, literal};
pub use addresses::{is_loopback, is_platform_address};
pub use connection::Connection;
use failure::{Hop, failed, plain, through, timed_out, unusable};
pub use network::{Network, Proxy, plain_networks, proxy_at};

/// The clients, one for each way that a request can go.
///
/// Cloning is cheap. They are built on first use: reading the system's certificates takes longer than the whole start of
/// the daemon.
#[derive(Clone)]
pub struct Http {
    clients: Arc<Clients>,
    clock: Clock,
}

#[derive(Default)]
struct Clients {
    network: Arc<Network>,
    plain: [OnceLock<reqwest::Client>; 3],
    tls: [OnceCell<reqwest::Client>; 2],
    /// For connections that a caller speaks HTTP on by itself.
    connector: OnceCell<connection::Connector>,
    gateway: connection::Gateway,
}

/// Whom a request is for; decides on proxy and plain http. Whatever is for loopback stays on this machine: it uses no proxy,
/// and http to it needs a name that leads nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A server on the network: https (http on loopback only), the system's proxy is used.
    Network,
    /// A metadata or agent address: never through a proxy; http allowed, but only to an address that is not
    /// public, also after DNS.
    Platform,
}

/// The way of one request, by its reach and its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// http to this machine.
    Loopback,
    /// http to a metadata or agent address.
    Platform,
    /// http to a W&B server in a network that its profile names.
    Allowed,
    /// https to this machine or platform, without a proxy.
    TlsDirect,
    /// https to the network.
    Tls,
}

impl Way {
    /// For a URL that [`check_url`] or the network has allowed.
    fn of(url: &Url, reach: Destination) -> Self {
        match (url.scheme(), is_loopback(url)) {
            ("https", false) if reach == Destination::Network => Self::Tls,
            ("https", _) => Self::TlsDirect,
            (_, true) => Self::Loopback,
            (_, false) if reach == Destination::Network => Self::Allowed,
            (_, false) => Self::Platform,
        }
    }

    fn builder(self, network: &Network) -> reqwest::ClientBuilder {
        // Err means that a provider is installed already: which is all we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .dns_resolver(match self {
                Self::Allowed => Addresses::Within(Arc::clone(&network.plain_http)),
                Self::Loopback => Addresses::Loopback,
                Self::Platform | Self::TlsDirect => Addresses::Platform,
                Self::Tls => Addresses::Any,
            })
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            // A request every half hour gains nothing from a kept connection, which costs memory and a timer.
            .pool_max_idle_per_host(0);
        if self == Self::Tls { builder } else { builder.no_proxy() }
    }
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

    /// For one profile whose way to the network is its own.
    pub fn with_network(&self, network: &Arc<Network>) -> Self {
        if network.is_default() || Arc::ptr_eq(network, &self.clients.network) {
            return self.clone();
        }
        let clients = Clients { network: Arc::clone(network), ..Clients::default() };
        Self { clients: Arc::new(clients), clock: self.clock.clone() }
    }

    /// The proxy that a request to `url` goes through, if it goes through one; as `host:port`.
    pub fn proxy_of(&self, url: &Url) -> Option<String> {
        let hop = (Way::of(url, Destination::Network) == Way::Tls)
            .then(|| self.clients.network.proxy_of(url))??;
        Some(hop.at)
    }

    /// Whether the profile says itself how the network is reached, and the environment does not count.
    pub fn has_own_proxy(&self) -> bool {
        self.clients.network.proxy.is_some()
    }

    /// The same rules for a server with a private authority, such as a cluster's API server: only the
    /// certificates in `pem` are trusted, and no proxy is used.
    pub fn with_root(&self, pem: &[u8]) -> Result<Self, Error> {
        let bad = |error: reqwest::Error| unusable(format!("the CA file is not usable: {}", plain(&error)));
        let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(bad)?;
        if roots.is_empty() {
            return Err(unusable("the CA file contains no certificate"));
        }
        let client =
            Way::TlsDirect.builder(&Network::default()).tls_certs_only(roots).build().map_err(bad)?;
        Ok(self.with_tls(client))
    }

    /// Like [`Self::with_root`], and shows the server the certificate whose PEM (with its key) is `identity`.
    pub fn with_identity(&self, roots: &[u8], identity: &[u8]) -> Result<Self, Error> {
        let bad =
            |error: reqwest::Error| unusable(format!("the mTLS files are not usable: {}", plain(&error)));
        let roots = reqwest::Certificate::from_pem_bundle(roots).map_err(bad)?;
        let identity = reqwest::Identity::from_pem(identity).map_err(bad)?;
        let builder = Way::TlsDirect.builder(&Network::default()).tls_certs_only(roots);
        let client = builder.identity(identity).build().map_err(bad)?;
        Ok(self.with_tls(client))
    }

    /// For a service of this machine that listens on a Unix socket: plain http to `localhost` goes there, and nothing else
    /// anywhere.
    pub fn with_socket(&self, socket: &std::path::Path) -> Result<Self, Error> {
        let client =
            Way::Loopback.builder(&Network::default()).tls_certs_only([]).unix_socket(socket).build();
        let client = client.map_err(|error| unusable(plain(&error)))?;
        let plain = [(); 3].map(|()| OnceLock::from(client.clone()));
        Ok(Self { clients: Arc::new(Clients { plain, ..Clients::default() }), clock: self.clock.clone() })
    }

    fn with_tls(&self, client: reqwest::Client) -> Self {
        let tls = [OnceCell::from(client.clone()), OnceCell::from(client)];
        Self { clients: Arc::new(Clients { tls, ..Clients::default() }), clock: self.clock.clone() }
    }

    /// Asks `server` for the time, since what is known of its clock may be out of date or wrong. Returns whether that
    /// changed what is known.
    pub async fn ask_time(&self, server: &Url) -> bool {
        let before = self.clock.now().skew;
        self.clock.forget_skew();
        let request = self.request(Destination::Network, reqwest::Method::HEAD, server.clone());
        // Whatever it answers, it says when.
        let _ = self.send(Destination::Network, request, DATE_TIMEOUT, MAX_DATE_ANSWER).await;
        self.clock.now().skew != before
    }

    /// A request builder. The URL is checked in [`Self::send`], which also chooses the client.
    pub fn request(&self, _reach: Destination, method: reqwest::Method, url: Url) -> reqwest::RequestBuilder {
        self.plain(Way::Loopback).request(method, url)
    }

    /// Sends, and reads at most `limit` bytes of the answer within `timeout` for all of it.
    pub async fn send(
        &self,
        reach: Destination,
        request: reqwest::RequestBuilder,
        timeout: Duration,
        limit: usize,
    ) -> Result<Answer, Error> {
        let mut request = request.build().map_err(|error| unusable(plain(&error)))?;
        let network = &self.clients.network;
        if !(reach == Destination::Network && network.allows_plain(request.url())) {
            check_url(request.url(), reach)?;
        }
        let url = request.url().clone();
        let host = shown_host(&url);
        request.headers_mut().extend(network.headers(&url).await?);
        let sent = self.clock.now();
        let way = Way::of(&url, reach);
        let proxy = || (way == Way::Tls).then(|| network.proxy_of(&url)).flatten();
        let exchange = async {
            let client = self.client(way).await?;
            let response =
                client.execute(request).await.map_err(|error| failed(&host, &error, proxy().as_ref()))?;
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let body = read_body(response, limit, &host, proxy).await?;
            Ok::<_, Error>((status, headers, body))
        };
        let done = tokio::time::timeout(timeout, exchange).await;
        let late = |_| Err(through(timed_out(&host, timeout), proxy().as_ref()));
        let (status, headers, body) = done.unwrap_or_else(late)?;
        let now = self.clock.now();
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = header(RETRY_AFTER).and_then(|value| parse_retry_after(value, now));
        let skew = header(DATE)
            .and_then(|value| jiff::Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok())
            .map(|date| clock::skew(date, sent, now));
        if let (Destination::Network, Some(skew)) = (reach, skew) {
            self.clock.set_skew(skew);
        }
        Ok(Answer { status, headers, body, sent, retry_after, skew })
    }

    async fn client(&self, way: Way) -> Result<&reqwest::Client, Error> {
        let cell = match way {
            Way::Loopback | Way::Platform | Way::Allowed => return Ok(self.plain(way)),
            Way::TlsDirect => &self.clients.tls[0],
            Way::Tls => &self.clients.tls[1],
        };
        cell.get_or_try_init(async || {
            // Reads the certificates, from wherever the environment says.
            let env = Env::system();
            let place = certificates::place(&env);
            let built = read_file::off_thread(&place, {
                let (env, network) = (env.clone(), Arc::clone(&self.clients.network));
                move || build_tls(way, &env, &network)
            });
            built.await.map_err(|error| certificates::unread(error, &env))
        })
        .await
    }

    /// For http alone: it needs no certificates, and works where there are none.
    fn plain(&self, way: Way) -> &reqwest::Client {
        let place = match way {
            Way::Platform => 1,
            Way::Allowed => 2,
            _ => 0,
        };
        self.clients.plain[place].get_or_init(|| {
            let built = way.builder(&self.clients.network).tls_certs_only([]).build();
            built.expect("nothing that the system decides goes into this client")
        })
    }
}

fn build_tls(way: Way, env: &Env, network: &Network) -> Result<reqwest::Client, Error> {
    certificates::check(env)?;
    let builder = network.trust(way.builder(network))?;
    let builder = if way == Way::Tls { network.route(builder)? } else { builder };
    builder.build().map_err(|_| certificates::none(env))
}

/// Refuses plain http to anything but this machine (or a checked platform address), and credentials in URLs.
pub fn check_url(url: &Url, reach: Destination) -> Result<(), Error> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("the URL holds a user name or password"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        // A name is judged when it is resolved, by `Resolver`: there is no gap for another answer.
        "http" if reach == Destination::Platform && literal(url).is_none_or(is_platform_address) => Ok(()),
        _ => {
            let host = url.host_str().unwrap_or_default().to_owned();
            let message = format!("{host} must be reached by https (plain http is for loopback only)");
            Err(Error::misconfigured(message).because(Reason::PlainHttp { host }))
        }
    }
}

/// The host, with the port if it is not the usual one: what refuses connections is a port.
fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
    host: &str,
    proxy: impl Fn() -> Option<Hop>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(host, &error, proxy().as_ref()))? {
        if body.len() + chunk.len() > limit {
            let reason = Reason::TooLarge { from: host.to_owned(), limit: limit as u64 };
            return Err(Error::transient(format!("{host} sent more than {limit} bytes")).because(reason));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

const USER_AGENT: &str = concat!("wandb-cred/", env!("CARGO_PKG_VERSION"));

/// For an answer of which only the `Date` counts.
const DATE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DATE_ANSWER: usize = 64 * 1024;

/// To open a connection, TLS included. The whole request has its own deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod network_tests;

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
            "http://[::ffff:127.0.0.1]/",
            "http://app.localhost./",
            "https://x/",
            "https://203.0.113.5/",
        ] {
            assert!(
                judge(url, Destination::Network).is_ok() && judge(url, Destination::Platform).is_ok(),
                "{url}"
            );
        }
        for url in ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://10.0.0.5/", "http://name/"]
        {
            assert!(
                judge(url, Destination::Network).is_err() && judge(url, Destination::Platform).is_ok(),
                "{url}"
            );
        }
        for url in [
            "http://203.0.113.5/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[2001:db8::1]/",
            "http://[::ffff:203.0.113.5]/",
            "http://3405803781/",
        ] {
            assert!(judge(url, Destination::Platform).is_err(), "{url}");
        }
    }

    #[test]
    fn loopback_never_takes_the_way_of_the_proxy() {
        let way = |url: &str, reach| Way::of(&Url::parse(url).expect("a URL"), reach);
        for host in
            ["localhost", "localhost.", "app.localhost", "127.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"]
        {
            for reach in [Destination::Network, Destination::Platform] {
                assert_eq!(way(&format!("http://{host}:1/"), reach), Way::Loopback, "{host}");
                assert_eq!(way(&format!("https://{host}:1/"), reach), Way::TlsDirect, "{host}");
            }
        }
        assert_eq!(way("http://169.254.169.254/", Destination::Platform), Way::Platform);
        assert_eq!(way("https://kubernetes.default.svc/", Destination::Platform), Way::TlsDirect);
        assert_eq!(way("https://api.wandb.ai/", Destination::Network), Way::Tls);
    }
}
