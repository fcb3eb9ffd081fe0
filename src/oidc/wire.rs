//! How requests reach the provider: through this program's own `http`, with its rules.

use std::time::Duration;

use openidconnect::IssuerUrl;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use reqwest::{Method, RequestBuilder};
use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Reason};
use crate::http::{self, Answer, Destination, Http};
use crate::token::Secret;

/// No redirects, a deadline, a bound on the answer.
pub(super) struct Wire {
    http: Http,
    /// Whether the issuer itself is on this machine. If not, none of its endpoints may be.
    local: bool,
}

/// How this client names itself to the token endpoint.
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) secret: Option<Secret<String>>,
    /// The secret goes into the header, not beside the id in the form.
    pub(super) basic: bool,
}

impl Wire {
    pub(super) fn new(http: Http, issuer: &IssuerUrl) -> Self {
        Self { http, local: http::is_loopback(issuer.url()) }
    }

    pub(super) async fn get(&self, url: Url) -> Result<Answer, Error> {
        let request = self.http.request(Destination::Network, Method::GET, url.clone());
        self.send(&url, request).await
    }

    /// Posts a form to the token endpoint or one that knows clients in the same way (RFC 6749, section 2.3.1).
    pub(super) async fn post(
        &self,
        url: Url,
        client: &Client<'_>,
        form: &[(&str, &str)],
    ) -> Result<Answer, Error> {
        let mut form: Vec<(&str, &str)> = form.to_vec();
        let mut request = self.http.request(Destination::Network, Method::POST, url.clone());
        match &client.secret {
            Some(secret) if client.basic => {
                request = request.header(AUTHORIZATION, basic(client.id, secret).as_str());
            }
            secret => {
                form.push(("client_id", client.id));
                form.extend(secret.as_ref().map(|secret| ("client_secret", secret.expose().as_str())));
            }
        }
        self.send(&url, request.form(&form)).await
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Answer, Error> {
        if !self.local && http::is_loopback(url) {
            return Err(Error::misconfigured("the provider's metadata names an endpoint on this machine"));
        }
        let request = request.header(ACCEPT, "application/json");
        let answer = self.http.send(Destination::Network, request, TIMEOUT, LIMIT).await?;
        // Not an OAuth answer, whatever the body says.
        if answer.status == 429 || answer.status >= 500 {
            let (host, status) = (url.host_str().unwrap_or_default().to_owned(), answer.status);
            return Err(Error::transient(format!("{host} answers HTTP {status}"))
                .because(Reason::Status { host, status })
                .retry_after(answer.retry_after));
        }
        Ok(answer)
    }
}

/// Both halves are form-encoded first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &Secret<String>) -> Zeroizing<String> {
    use base64::Engine as _;
    let encode = |text: &str| {
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        Zeroizing::new(encoded)
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret.expose())));
    let pair = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(format!("Basic {}", *pair))
}

/// One request to a provider; sign-in back ends of some take seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Metadata and key sets of large tenants are tens of kilobytes.
const LIMIT: usize = 1024 * 1024;
