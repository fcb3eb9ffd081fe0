//! Connections for a caller that speaks HTTP itself and streams: the loopback proxy. The rules are those of every other
//! request: https but on loopback, the system's certificates, the system's proxy for the network and none for loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Url;

use super::addresses::{Addresses, LookupError};
use super::failure::{Hop, network_fault, not_connected, timed_out, unusable};
use super::{CONNECT_TIMEOUT, Destination, Http, Network, Way, certificates, check_url};
use crate::env::Env;
use crate::error::{Error, NetworkFault};
use crate::read_file;

/// A connection to a server, ready for the first request.
pub type Connection = Box<dyn Stream>;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What https connections are made with.
pub(super) struct Connector {
    tls: TlsConnector,
    proxies: Matcher,
}

/// The headers of the `headers-file`, and when they were read.
pub(super) type Gateway = tokio::sync::Mutex<Option<(Instant, Result<HeaderMap, Error>)>>;

impl Http {
    /// The same number for the same way to a server, as long as one of its kind is there.
    pub fn way(&self) -> usize {
        Arc::as_ptr(&self.clients).addr()
    }

    /// What the profile's `headers-file` adds to a request to `url`. It is looked at once a second at most: a proxy may have
    /// thousands of requests in one.
    pub async fn gateway_headers(&self, url: &Url) -> Result<HeaderMap, Error> {
        let network = &self.clients.network;
        if !network.has_headers_for(url) {
            return Ok(HeaderMap::new());
        }
        let mut known = self.clients.gateway.lock().await;
        match &*known {
            Some((read, headers)) if read.elapsed() < GATEWAY_AGE => headers.clone(),
            _ => {
                let headers = network.headers(url).await;
                *known = Some((Instant::now(), headers.clone()));
                headers
            }
        }
    }

    /// Connects to the server of `url`, a server on the network or on loopback.
    pub async fn connect(&self, url: &Url) -> Result<Connection, Error> {
        if !self.clients.network.allows_plain(url) {
            check_url(url, Destination::Network)?;
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(url, &host)).await {
            Ok(connected) => connected,
            Err(_) => Err(timed_out(&host, CONNECT_TIMEOUT)),
        }
    }

    async fn connect_to(&self, url: &Url, host: &str) -> Result<Connection, Error> {
        let way = Way::of(url, Destination::Network);
        let port = url.port_or_known_default().ok_or_else(|| unusable("the URL has no port"))?;
        let fail = |error: &Failed| failed(host, error);
        if way == Way::Loopback {
            let stream = tcp(Addresses::Loopback, host, port).await.map_err(|error| fail(&error))?;
            return Ok(Box::new(stream));
        }
        if way == Way::Allowed {
            let allowed = Addresses::Within(Arc::clone(&self.clients.network.plain_http));
            return Ok(Box::new(tcp(allowed, host, port).await.map_err(|error| fail(&error))?));
        }
        let connector = self.clients.connector.get_or_try_init(|| connector(&self.clients.network)).await?;
        let proxy = match way {
            Way::Tls => url.as_str().parse().ok().and_then(|uri: Uri| connector.proxies.intercept(&uri)),
            _ => None,
        };
        let hop = proxy.as_ref().and_then(Hop::of);
        let stream: Connection = match proxy {
            Some(proxy) => {
                let tunnel = connector.tunnel(&proxy, host, port).await;
                tunnel
                    .map_err(|error| not_connected(host, error.fault(), &error.to_string(), hop.as_ref()))?
            }
            None => {
                let allowed = if way == Way::Tls { Addresses::Any } else { Addresses::Platform };
                Box::new(tcp(allowed, host, port).await.map_err(|error| fail(&error))?)
            }
        };
        let secured = connector.secure(stream, host).await;
        secured.map_err(|error| not_connected(host, error.fault(), &error.to_string(), hop.as_ref()))
    }
}

impl Connector {
    async fn secure(&self, stream: Connection, host: &str) -> Result<Connection, Failed> {
        // An IPv6 address in a URL has brackets.
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|error| Failed::Io(io::Error::other(error)))?;
        Ok(Box::new(self.tls.connect(name, stream).await.map_err(Failed::Io)?))
    }

    /// A connection through the system's proxy (RFC 9110, section 9.3.6).
    async fn tunnel(&self, proxy: &Intercept, host: &str, port: u16) -> Result<Connection, Failed> {
        let uri = proxy.uri();
        let (name, secure) = (uri.host().unwrap_or_default(), uri.scheme_str() == Some("https"));
        if !secure && uri.scheme_str() != Some("http") {
            return Err(Failed::Proxy(format!("a proxy of this kind is not supported: {uri}")));
        }
        let at = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut stream: Connection = Box::new(tcp(Addresses::Any, name, at).await?);
        if secure {
            stream = self.secure(stream, name).await?;
        }
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let target = format!("{host}:{port}");
        let mut request = Request::connect(&target).header(HOST, &target);
        if let Some(auth) = proxy.basic_auth() {
            request = request.header(PROXY_AUTHORIZATION, auth);
        }
        let request = request
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| Failed::Io(io::Error::other(error)))?;
        let answer = send.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(Failed::Refused { name: name.to_owned(), status: answer.status() });
        }
        Ok(Box::new(TokioIo::new(hyper::upgrade::on(answer).await?)))
    }
}

const GATEWAY_AGE: Duration = Duration::from_secs(1);

/// Reads the certificates, from wherever the environment says.
async fn connector(network: &Arc<Network>) -> Result<Connector, Error> {
    let env = Env::system();
    let place = certificates::place(&env);
    let built = read_file::off_thread(&place, {
        let (env, network) = (env.clone(), Arc::clone(network));
        move || build(&env, &network)
    });
    built.await.map_err(|error| certificates::unread(error, &env))
}

/// Reads the certificates, from wherever the environment says.
fn build(env: &Env, network: &Network) -> Result<Connector, Error> {
    certificates::check(env)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = network.extra_roots()?;
    let verifier =
        Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(|_| certificates::none(env))?;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Connector { tls: TlsConnector::from(Arc::new(config)), proxies: network.matcher() })
}

/// To the first of the name's addresses that takes the connection.
async fn tcp(allowed: Addresses, host: &str, port: u16) -> Result<TcpStream, Failed> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match name.parse() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => allowed.look_up(name.to_owned(), port).await?,
    };
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A request is written whole, so waiting for more only costs time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(Failed::Io(last))
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Proxy(String),
    #[error("the proxy {name} answered {}", status.as_u16())]
    Refused { name: String, status: StatusCode },
}

impl Failed {
    fn fault(&self) -> NetworkFault {
        match self {
            Self::Lookup(error) => network_fault(error),
            Self::Io(error) => network_fault(error),
            Self::Http(error) => network_fault(error),
            Self::Proxy(_) => NetworkFault::Other,
            Self::Refused { status, .. } if *status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                NetworkFault::ProxyPassword
            }
            Self::Refused { .. } => NetworkFault::ProxyRefuses,
        }
    }
}

fn failed(host: &str, error: &Failed) -> Error {
    not_connected(host, error.fault(), &error.to_string(), None)
}
