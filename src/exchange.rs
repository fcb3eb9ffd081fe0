//! The exchange of an identity token for a W&B access token: one POST, one try (RFC 7523, section 2.1).
//!
//! The access keeper's source calls it. What real servers do is in the W&B SDK's own client (0.19.11 to
//! 0.31.0): no client authentication, no scope, success is status 200 only, errors are JSON or plain text.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::http::{self, Answer, Http, Reach};
use crate::redact::redact;
use crate::token::{AccessToken, Expiry, IdentityToken};

/// Exchanges at one W&B server.
pub struct Exchange {
    endpoint: Url,
    host: String,
    http: Http,
}

impl Exchange {
    /// `base_url` is the W&B server's, with or without a path and a trailing slash.
    pub fn new(base_url: &Url, http: Http) -> Self {
        let mut endpoint = base_url.clone();
        endpoint.set_path(&format!("{}/oidc/token", base_url.path().trim_end_matches('/')));
        let host = endpoint.host_str().unwrap_or_default().to_owned();
        Self { endpoint, host, http }
    }

    /// One attempt. The access token's life counts from the moment the request was sent: a slow answer must
    /// not stretch it.
    pub async fn redeem(&self, assertion: &IdentityToken) -> Result<AccessToken, Error> {
        let form = [("grant_type", GRANT_TYPE), ("assertion", assertion.jwt().expose().as_str())];
        let request = self.http.request(Reach::Network, Method::POST, self.endpoint.clone()).form(&form);
        let answer = self.http.send(Reach::Network, request, TIMEOUT, MAX_BODY).await?;
        match answer.status {
            200 => self.success(&answer),
            300..=399 | 404 | 405 => Err(Error::NotThere { host: self.host.clone(), status: answer.status }),
            408 | 429 | 500..=599 => Err(Error::Unavailable {
                host: self.host.clone(),
                why: format!("status {}", answer.status),
                retry_after: answer.retry_after,
            }),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Whether our clock is wrong, as the server sees it: asked for the time if no server has told it yet.
    pub async fn shows_skew(&self) -> bool {
        if self.http.skew().is_none() {
            let request = self.http.request(Reach::Network, Method::HEAD, self.endpoint.clone());
            // Whatever it answers, it says when.
            let _ = self.http.send(Reach::Network, request, TIME_TIMEOUT, MAX_BODY).await;
        }
        self.http.skew().is_some_and(|skew| skew != 0)
    }

    fn success(&self, answer: &Answer) -> Result<AccessToken, Error> {
        let garbage = |why| Error::Garbage { host: self.host.clone(), why };
        let parsed: Success = serde_json::from_slice(&answer.body)
            .map_err(|_| garbage("status 200 with a body that is no token response"))?;
        let token = parsed.access_token;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(garbage("an access token that is empty or not printable"));
        }
        if parsed.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(garbage("a token of another type than Bearer"));
        }
        let life = match &parsed.expires_in {
            None | Some(Value::Null) => LIFE_UNSAID,
            Some(value) => lifetime(value).ok_or_else(|| garbage("an `expires_in` that is no lifetime"))?,
        };
        Ok(AccessToken::new(token, Expiry::after(answer.sent, life)))
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let (code, description) = match serde_json::from_slice::<OauthError>(&answer.body) {
            Ok(error) => (error.error, error.error_description.unwrap_or_default()),
            Err(_) => (String::new(), answer.text().to_string()),
        };
        let words = [code.as_str(), description.as_str()].join(" ").to_ascii_lowercase();
        Error::Refused {
            host: self.host.clone(),
            status: answer.status,
            code: redact(&code, 60),
            description: redact(&description, 300),
            reused: words.contains("jti") && words.contains("already"),
            invalid_grant: code == "invalid_grant",
        }
    }
}

/// Fields of a success that matter (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Success {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct OauthError {
    error: String,
    error_description: Option<String>,
}

/// Seconds as a JSON number, with or without fraction, or as a string of one.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds >= 1.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// Why there is no access token. Nothing in it was sent by us; what the server said is redacted and short.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("W&B token exchange: {0}")]
    Http(#[from] http::Error),
    /// The server cannot now: 408, 429, 5xx.
    #[error("W&B token exchange: {host} is unavailable ({why})")]
    Unavailable { host: String, why: String, retry_after: Option<Duration> },
    /// Status 200, but not a token: a captive portal, a proxy, a truncated body.
    #[error("W&B token exchange: {host} answered {why}")]
    Garbage { host: String, why: &'static str },
    /// A redirect, 404 or 405: this is not the API's address.
    #[error(
        "W&B token exchange: {host} has no token endpoint at /oidc/token (status {status}); is `base-url` the API's address?"
    )]
    NotThere { host: String, status: u16 },
    /// The server judged the identity token and refused it.
    #[error("W&B refused the identity token: {code}{}{description} ({host}, status {status})", if code.is_empty() { "" } else { ": " })]
    Refused {
        host: String,
        status: u16,
        code: String,
        description: String,
        /// The server remembers this JWT's `jti`: only a new JWT can help (fosite's replay check).
        reused: bool,
        /// OAuth's word for a bad assertion: a new JWT may help.
        invalid_grant: bool,
    },
}

impl Error {
    /// Whether another identity token may succeed at once where this one failed.
    pub fn wants_new_assertion(&self) -> bool {
        matches!(self, Self::Refused { reused, invalid_grant, .. } if *reused || *invalid_grant)
    }
}

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The SDK allows 60 s in all for its own exchange; we have a last good token meanwhile, and retry.
const TIMEOUT: Duration = Duration::from_secs(30);

const TIME_TIMEOUT: Duration = Duration::from_secs(5);

/// Real answers are under 4 KiB.
const MAX_BODY: usize = 64 * 1024;

/// `expires_in` is only RECOMMENDED (RFC 6749, section 5.1). Without it: short enough to be true.
const LIFE_UNSAID: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_may_be_any_positive_number() {
        let read = |json: &str| lifetime(&serde_json::from_str(json).expect("json"));
        assert_eq!(read("3600"), Some(Duration::from_secs(3600)));
        assert_eq!(read("3599.5"), Some(Duration::from_millis(3_599_500)));
        assert_eq!(read("\"3600\""), Some(Duration::from_secs(3600)));
        for bad in ["0", "-1", "0.5", "1e400", "1e30", "true", "\"soon\"", "[]"] {
            let value = serde_json::from_str(bad).unwrap_or(Value::Null);
            assert_eq!(lifetime(&value), None, "{bad}");
        }
    }

    #[test]
    fn the_endpoint_keeps_the_base_urls_path() {
        let at = |url: &str| {
            let http = Http::new(crate::clock::Clock::system());
            Exchange::new(&url.parse().expect("a URL"), http).endpoint.to_string()
        };
        assert_eq!(at("https://api.wandb.ai"), "https://api.wandb.ai/oidc/token");
        assert_eq!(at("https://x.example/api/wandb/"), "https://x.example/api/wandb/oidc/token");
    }
}
