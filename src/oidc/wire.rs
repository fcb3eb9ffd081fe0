//! How `openidconnect` reaches the network: through this program's own `http`, with its rules.

use std::pin::Pin;
use std::time::Duration;

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse, IssuerUrl};
use url::Url;

use crate::error::{Error, Reason};
use crate::http::{self, Http, Reach};
use crate::token::Secret;

/// The library's HTTP client: no redirects, a deadline, a bound on the answer.
pub(super) struct Wire {
    http: Http,
    /// Whether the issuer itself is on this machine. If not, none of its endpoints may be.
    local: bool,
}

impl Wire {
    pub(super) fn new(http: Http, issuer: &IssuerUrl) -> Self {
        Self { http, local: http::is_loopback(issuer.url()) }
    }

    /// Posts a token to be revoked, and gives the status. The client names itself as in a token request: by
    /// its secret in the header (form-encoded first: RFC 6749, section 2.3.1) or beside its id in the form.
    pub(super) async fn revoke(
        &self,
        endpoint: &Url,
        token: &Secret<String>,
        client_id: &str,
        secret: Option<&Secret<String>>,
        basic: bool,
    ) -> Result<u16, Error> {
        let request = revocation(endpoint, token, client_id, secret, basic);
        Ok(self.send(request).await?.status().as_u16())
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| {
            Error::misconfigured("the provider's metadata names an endpoint with a malformed URL")
        })?;
        if !self.local && http::is_loopback(&url) {
            return Err(Error::misconfigured("the provider's metadata names an endpoint on this machine"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let request = self.http.request(Reach::Network, parts.method, url).headers(parts.headers).body(body);
        let answer = self.http.send(Reach::Network, request, TIMEOUT, LIMIT).await?;
        // Not an OAuth answer, whatever the body says.
        if answer.status == 429 || answer.status >= 500 {
            let status = answer.status;
            return Err(Error::transient(format!("{host} answers HTTP {status}"))
                .because(Reason::Status { host, status })
                .retry_after(answer.retry_after));
        }
        let mut response = HttpResponse::new(answer.body.to_vec());
        *response.status_mut() =
            openidconnect::http::StatusCode::from_u16(answer.status).expect("came off the wire as a status");
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Wire {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// One request to a provider; sign-in back ends of some take seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Metadata and key sets of large tenants are tens of kilobytes.
const LIMIT: usize = 1024 * 1024;

/// The request of [`Wire::revoke`].
fn revocation(
    endpoint: &Url,
    token: &Secret<String>,
    client_id: &str,
    secret: Option<&Secret<String>>,
    basic: bool,
) -> HttpRequest {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token.expose()).append_pair("token_type_hint", "refresh_token");
    let mut request = hyper::Request::post(endpoint.as_str())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json");
    match secret {
        Some(secret) if basic => {
            use base64::Engine as _;
            let encode =
                |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encode(client_id), encode(secret.expose()));
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            request = request.header("authorization", format!("Basic {pair}"));
        }
        secret => {
            form.append_pair("client_id", client_id);
            if let Some(secret) = secret {
                form.append_pair("client_secret", secret.expose());
            }
        }
    }
    request.body(form.finish().into_bytes()).expect("fixed headers and a parsed URL")
}
