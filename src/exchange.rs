//! The exchange of an identity token for a W&B access token: one POST, one try (RFC 7523, section 2.1).
//!
//! The access keeper's source calls it. What real servers do is in the W&B SDK's own client (0.19.11 to
//! 0.31.0): no client authentication, no scope, success is status 200 only, errors are JSON or plain text.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::error::{Error, Kind, Reason, Stage, foreign};
use crate::http::{Answer, Http, Reach};
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
        let answer = self.http.send(Reach::Network, request, TIMEOUT, MAX_BODY).await;
        let answer = answer.map_err(|error| error.at(Stage::Exchange).context("W&B token exchange"))?;
        let (host, status) = (&self.host, answer.status);
        match status {
            200 => self.success(&answer),
            300..=399 | 404 | 405 => Err(error(
                Kind::Misconfigured,
                Reason::NoTokenEndpoint { status },
                format!(
                    "W&B token exchange: {host} has no token endpoint at /oidc/token (status {status}); is `base-url` \
                     the API's address?"
                ),
            )),
            408 | 429 | 500..=599 => Err(error(
                Kind::Transient,
                Reason::Status { host: host.clone(), status },
                format!("W&B token exchange: {host} is unavailable (status {status})"),
            )
            .retry_after(answer.retry_after)),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Reads an answer of status 200.
    pub fn success(&self, answer: &Answer) -> Result<AccessToken, Error> {
        let unreadable = |field: Option<&str>, why| {
            let reason =
                Reason::UnreadableAnswer { host: self.host.clone(), field: field.map(str::to_owned) };
            let message = format!("W&B token exchange: {} answered {why}", self.host);
            error(Kind::Transient, reason, message)
        };
        let parsed: Success = serde_json::from_slice(&answer.body)
            .map_err(|_| unreadable(None, "status 200 with a body that is not a token response"))?;
        let token = parsed.access_token;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unreadable(Some("access_token"), "an access token that is empty or not printable"));
        }
        if parsed.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(unreadable(Some("token_type"), "a token of another type than Bearer"));
        }
        let life = match &parsed.expires_in {
            None | Some(Value::Null) => LIFE_UNSAID,
            Some(value) => lifetime(value)
                .ok_or_else(|| unreadable(Some("expires_in"), "an `expires_in` that is not a lifetime"))?,
        };
        Ok(AccessToken::new(token, Expiry::after(answer.sent, life)))
    }

    /// Reads an answer that refuses the identity token.
    pub fn refusal(&self, answer: &Answer) -> Error {
        let (code, description) = match serde_json::from_slice::<OauthError>(&answer.body) {
            Ok(error) => (error.error, error.error_description.unwrap_or_default()),
            Err(_) => (String::new(), answer.text().to_string()),
        };
        let (status, host) = (answer.status, &self.host);
        let reason = if foreign::is_replay(&code, &description) {
            Reason::Replayed
        } else {
            let error = (!code.is_empty()).then(|| redact(&code, 60));
            Reason::Refused { status, error, cause: foreign::refusal_cause(&code, &description) }
        };
        let (code, description) = (redact(&code, 60), redact(&description, 300));
        let colon = if code.is_empty() { "" } else { ": " };
        let message =
            format!("W&B refused the identity token: {code}{colon}{description} ({host}, status {status})");
        error(Kind::Rejected, reason, message)
    }
}

fn error(kind: Kind, reason: Reason, message: String) -> Error {
    Error::new(Stage::Exchange, kind, reason, message)
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

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The SDK allows 60 s in all for its own exchange; we have a last good token meanwhile, and retry.
const TIMEOUT: Duration = Duration::from_secs(30);

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
