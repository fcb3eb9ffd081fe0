//! How one profile reaches its W&B server, where its organization has its own ideas: certificates, a proxy, headers for an
//! access gateway, plain http within a cluster. It is for every request to the network that the profile makes, but for the last
//! two, which are for the W&B server alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use ipnet::IpNet;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::{Origin, Url};

use super::addresses::{is_platform_address, literal, within};
use super::failure::{Hop, unusable};
use crate::error::{Error, FileFault, Stage};
use crate::private_file::{self, Holds};
use crate::read_file;

/// As it is configured. The default is what the system and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// The W&B server.
    pub server: Option<Url>,
    /// A PEM file, or a folder of such, whose authorities are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    /// A file with a header in each line, for the W&B server.
    pub headers_file: Option<PathBuf>,
    /// Networks in which the W&B server may be reached by plain http.
    pub plain_http: Arc<[IpNet]>,
}

/// In place of the proxies that the environment names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    None,
    Through { url: Url, except: String },
}

impl Proxy {
    /// From the keys `proxy` and `no-proxy`.
    pub fn parse(proxy: &str, except: Option<String>) -> Result<Self, String> {
        if proxy == "none" {
            return match except {
                None => Ok(Self::None),
                Some(_) => Err("`no-proxy` says nothing where `proxy` is \"none\"".to_owned()),
            };
        }
        let like = "write it like \"http://proxy.example.com:3128\" or \"socks5h://proxy.example.com:1080\"";
        let url = Url::parse(proxy).map_err(|_| format!("`proxy` is not a URL: {like}, or \"none\""))?;
        if !["http", "https", "socks4", "socks4a", "socks5", "socks5h"].contains(&url.scheme())
            || url.host_str().is_none_or(str::is_empty)
        {
            return Err(format!("`proxy` is not the URL of a proxy: {like}, or \"none\""));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("`proxy` holds a user name or password, which have no place in this file: leave `proxy` out, and set \
                        HTTPS_PROXY for the daemon"
                .to_owned());
        }
        Ok(Self::Through { url, except: except.unwrap_or_default() })
    }
}

/// `allow-plain-http`: networks that are nobody's but the organization's.
pub fn plain_networks(written: &[String]) -> Result<Arc<[IpNet]>, String> {
    let parse = |text: &String| {
        let net: IpNet = text.parse().map_err(|_| {
            format!("`allow-plain-http`: `{text}` is not a network; write it like \"10.0.0.0/8\"")
        })?;
        if is_platform_address(net.network()) && is_platform_address(net.broadcast()) {
            Ok(net.trunc())
        } else {
            Err(format!(
                "`allow-plain-http`: {text} is not a private network; tokens go unencrypted only within one, such as \
                 10.0.0.0/8"
            ))
        }
    };
    written.iter().map(parse).collect()
}

impl Hop {
    pub(super) fn of(through: &Intercept) -> Option<Self> {
        let uri = through.uri();
        let host = uri.host()?;
        let at = uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Some(Self { at, looks_up: matches!(uri.scheme_str(), Some("socks4" | "socks5")) })
    }
}

impl Network {
    pub fn is_default(&self) -> bool {
        let Self { server: _, ca_file, proxy, headers_file, plain_http } = self;
        ca_file.is_none() && proxy.is_none() && headers_file.is_none() && plain_http.is_empty()
    }

    fn is_server(&self, url: &Url) -> bool {
        let origin = |url: &Url| match url.origin() {
            Origin::Opaque(_) => None,
            origin => Some(origin),
        };
        self.server.as_ref().is_some_and(|server| origin(server).is_some() && origin(server) == origin(url))
    }

    /// Whether plain http may go to this URL. A name is judged when it is resolved.
    pub fn allows_plain(&self, url: &Url) -> bool {
        url.scheme() == "http"
            && !self.plain_http.is_empty()
            && self.is_server(url)
            && literal(url).is_none_or(|ip| within(&self.plain_http, ip))
    }

    /// The proxy that a request to `url` goes through, as reqwest itself chooses it; without user and password.
    pub(super) fn proxy_of(&self, url: &Url) -> Option<Hop> {
        Hop::of(&self.matcher().intercept(&url.as_str().parse().ok()?)?)
    }

    /// Chooses the proxy for a request.
    pub(super) fn matcher(&self) -> Matcher {
        match &self.proxy {
            Some(Proxy::None) => Matcher::builder().build(),
            Some(Proxy::Through { url, except }) => {
                Matcher::builder().all(url.as_str()).no(except.as_str()).build()
            }
            None => Matcher::from_system(),
        }
    }

    /// What could not be used of what the profile names, with its key. Reads files, and asks nobody.
    pub fn examine(&self) -> Vec<(&'static str, Error)> {
        let authorities = self.extra_roots().map(drop);
        let headers = self.headers_file.as_ref().map_or(Ok(()), |path| read_headers(path).map(drop));
        [("ca-file", authorities), ("headers-file", headers)]
            .into_iter()
            .filter_map(|(key, read)| read.err().map(|error| (key, error)))
            .collect()
    }

    /// The authorities beside the system's. Reads files.
    pub(super) fn extra_roots(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        self.ca_file.as_deref().map_or_else(|| Ok(Vec::new()), authorities)
    }

    /// A client that trusts the authorities. Reads files.
    pub(super) fn trust(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, Error> {
        Ok(match &self.ca_file {
            Some(path) => {
                let roots = authorities(path)?;
                let roots: Result<Vec<_>, _> =
                    roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect();
                builder.tls_certs_merge(roots.map_err(unusable)?)
            }
            None => builder,
        })
    }

    /// A client that goes through the proxy.
    pub(super) fn route(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, Error> {
        Ok(match &self.proxy {
            None => builder,
            Some(Proxy::None) => builder.no_proxy(),
            Some(Proxy::Through { url, except }) => {
                let proxy = reqwest::Proxy::all(url.as_str()).map_err(unusable)?;
                builder.no_proxy().proxy(proxy.no_proxy(reqwest::NoProxy::from_string(except)))
            }
        })
    }

    /// Whether a request to `url` gets headers.
    pub(super) fn has_headers_for(&self, url: &Url) -> bool {
        self.headers_file.is_some() && self.is_server(url)
    }

    /// The headers for a request to `url`. Read for each, so that they can be changed.
    pub(super) async fn headers(&self, url: &Url) -> Result<HeaderMap, Error> {
        let Some(path) = self.headers_file.as_ref().filter(|_| self.is_server(url)) else {
            return Ok(HeaderMap::new());
        };
        let owned = path.clone();
        read_file::off_thread(path, move || read_headers(&owned)).await
    }
}

fn read_headers(path: &Path) -> Result<HeaderMap, Error> {
    let content = private_file::read(path, Holds::Secret, Stage::Exchange, MAX_HEADERS)?;
    headers_in(&content.text).map_err(|(line, why)| {
        let message = format!("{} line {line} {why}", path.display());
        Error::file(Stage::Exchange, path, FileFault::Malformed, message)
    })
}

/// Where a variable with this value sends requests, as `host:port`; one that is no proxy's address is ignored without a word.
pub fn proxy_at(value: &str) -> Option<String> {
    let through =
        Matcher::builder().all(value).build().intercept(&Uri::from_static("https://host.example/"))?;
    Hop::of(&through).map(|hop| hop.at)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let parse = |file: &Path| {
        let pem = read_file::read(file, MAX_AUTHORITIES)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        Ok::<_, Error>(found.unwrap_or_default())
    };
    let mut found = Vec::new();
    if path.is_dir() {
        let entries = path.read_dir().map_err(|source| Error::io(Stage::Identity, path, &source))?;
        for entry in entries.flatten().take(MAX_FILES) {
            // What is not a certificate there is no concern of ours.
            if entry.path().is_file() {
                found.extend(parse(&entry.path())?);
            }
        }
    } else {
        found = parse(path)?;
    }
    if found.is_empty() {
        let shown = path.display();
        let message =
            format!("`ca-file`: {shown} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
        return Err(Error::file(Stage::Identity, path, FileFault::Malformed, message));
    }
    Ok(found)
}

/// `Name: value` in each line; the error says which line, and nothing of it.
fn headers_in(text: &str) -> Result<HeaderMap, (usize, &'static str)> {
    let mut headers = HeaderMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let not = (at + 1, "is not a header like `Name: value`");
        let (name, value) = line.split_once(':').ok_or(not)?;
        let name: HeaderName = name.trim().parse().map_err(|_| not)?;
        if OURS.contains(&name.as_str()) {
            return Err((at + 1, "sets a header that this program sets itself"));
        }
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| not)?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

const OURS: [&str; 7] =
    ["authorization", "connection", "content-length", "content-type", "host", "transfer-encoding", "upgrade"];
const MAX_HEADERS: u64 = 64 * 1024;
const MAX_AUTHORITIES: u64 = 4 * 1024 * 1024;
/// As many as a system has.
const MAX_FILES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    #[test]
    fn plain_http_is_for_the_server_in_a_private_network() {
        let nets = plain_networks(&["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]).expect("private");
        let network =
            Network { server: Some(url("http://wandb.corp:8080")), plain_http: nets, ..Network::default() };
        assert!(network.allows_plain(&url("http://wandb.corp:8080/oidc/token")));
        for other in ["http://wandb.corp/x", "http://idp.corp:8080/x", "https://wandb.corp:8080/x"] {
            assert!(!network.allows_plain(&url(other)), "{other}");
        }
        for (server, allowed) in
            [("http://10.1.2.3", true), ("http://11.0.0.1", false), ("http://[fd00::1]", true)]
        {
            let network = Network { server: Some(url(server)), ..network.clone() };
            assert_eq!(network.allows_plain(&url(server)), allowed, "{server}");
        }
        for bad in ["0.0.0.0/0", "10.0.0.0/7", "203.0.113.0/24", "x", "10.0.0.1", "::/0"] {
            assert!(plain_networks(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_a_url_without_a_password() {
        for good in ["http://p:3128", "https://p", "socks5h://p:1080", "socks5://10.0.0.1:1", "none"] {
            assert!(Proxy::parse(good, None).is_ok(), "{good}");
        }
        for bad in ["p:3128", "ftp://p", "", "http://", "http://u:planted@p:3128"] {
            let why = Proxy::parse(bad, None).expect_err(bad);
            assert!(why.contains("`proxy`") && !why.contains("planted"), "{why}");
        }
    }

    #[test]
    fn the_proxy_that_is_used_is_named() {
        let proxy =
            Proxy::parse("http://proxy.corp:3128", Some("10.0.0.0/8,.internal".to_owned())).expect("one");
        let network = Network { proxy: Some(proxy), ..Network::default() };
        let hop = network.proxy_of(&url("https://api.wandb.ai/x"));
        assert_eq!(hop.map(|hop| hop.at).as_deref(), Some("proxy.corp:3128"));
        for direct in ["https://10.1.1.1/", "https://a.internal/"] {
            assert_eq!(network.proxy_of(&url(direct)), None, "{direct}");
        }
    }

    #[test]
    fn headers_are_lines_and_no_error_shows_one() {
        let headers =
            headers_in("# gateway\nCF-Access-Client-Id: a\nCF-Access-Client-Secret:  b:c \n\n").expect("two");
        assert_eq!(headers["cf-access-client-secret"], "b:c");
        assert!(!format!("{headers:?}").contains("b:c"), "redacted");
        for (text, line) in [("planted", 1), ("a: b\nplan ted: x", 2), ("Authorization: planted", 1)] {
            let (at, why) = headers_in(text).expect_err(text);
            assert!(at == line && !why.contains("planted"), "{why}");
        }
    }
}
