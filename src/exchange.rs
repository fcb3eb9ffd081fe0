//! The exchange of an identity token for a W&B access token: one POST, one try (RFC 7523, section 2.1).
//!
//! The access keeper's source calls it. What real servers do is in the W&B SDK's own client (0.19.11 to
//! 0.31.0): no client authentication, no scope, success is status 200 only, errors are JSON or plain text.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use url::Url;

use crate::error::{Error, Kind, Reason, Stage, foreign};
use crate::http::{Answer, Destination, Http};
use crate::json::{self, Fault, Object};
use crate::redact::redact;
use crate::token::{AccessToken, Expiry, IdentityToken};

/// Exchanges at one W&B server.
pub struct Exchange {
    endpoint: Url,
    host: String,
    http: Http,
    /// Whether the log says that lifetimes are cut.
    said: AtomicBool,
}

impl Exchange {
    /// `base_url` is the W&B server's, with or without a path and a trailing slash.
    pub fn new(base_url: &Url, http: Http) -> Self {
        let mut endpoint = base_url.clone();
        endpoint.set_path(&format!("{}/oidc/token", base_url.path().trim_end_matches('/')));
        let host = endpoint.host_str().unwrap_or_default().to_owned();
        Self { endpoint, host, http, said: AtomicBool::new(false) }
    }

    /// One attempt. The access token's life counts from the moment the request was sent: a slow answer must
    /// not stretch it.
    pub async fn redeem(&self, assertion: &IdentityToken) -> Result<AccessToken, Error> {
        let form = [("grant_type", GRANT_TYPE), ("assertion", assertion.jwt().expose().as_str())];
        let request =
            self.http.request(Destination::Network, Method::POST, self.endpoint.clone()).form(&form);
        let answer = self.http.send(Destination::Network, request, TIMEOUT, MAX_BODY).await;
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
        let unreadable = |field: Option<&str>, why: &dyn std::fmt::Display| {
            let reason =
                Reason::UnreadableAnswer { host: self.host.clone(), field: field.map(str::to_owned) };
            let message = format!("W&B token exchange: the answer of {} {why}", self.host);
            error(Kind::Transient, reason, message)
        };
        let refused =
            |fault: Fault| unreadable(fault.field(), &format_args!("is not a token response: it {fault}"));
        let fields = Object::parse(&answer.body).map_err(refused)?;
        let token = fields.required_text("access_token").map_err(refused)?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unreadable(Some("access_token"), &"has an access token that is not printable"));
        }
        if let Ok(Some(kind)) = fields.text("token_type")
            && !kind.trim().eq_ignore_ascii_case("bearer")
        {
            return Err(unreadable(Some("token_type"), &"has a token of another type than Bearer"));
        }
        let life = match fields.value("expires_in") {
            None => LIFE_UNSAID,
            Some(value) => lifetime(value).ok_or_else(|| {
                unreadable(Some("expires_in"), &"has an `expires_in` that is not a lifetime")
            })?,
        };
        Ok(AccessToken::new(token.into_owned(), Expiry::after(answer.sent, self.capped(life))))
    }

    /// No longer than a day: a server that says more means milliseconds, or nothing.
    fn capped(&self, life: Duration) -> Duration {
        if life <= MAX_LIFE {
            return life;
        }
        if !self.said.swap(true, Ordering::Relaxed) {
            let (host, seconds) = (&self.host, life.as_secs());
            tracing::warn!(%host, seconds, "`expires_in` is over a day (milliseconds?), a day is assumed");
        }
        MAX_LIFE
    }

    /// Reads an answer that refuses the identity token.
    pub fn refusal(&self, answer: &Answer) -> Error {
        // RFC 6749, section 5.2.
        let (code, description) = match Object::parse(&answer.body).map(|fields| oauth_error(&fields)) {
            Ok(Some(said)) => said,
            _ => (String::new(), answer.text().to_string()),
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

/// Code and description.
fn oauth_error(fields: &Object) -> Option<(String, String)> {
    let code = fields.text("error").ok()??.into_owned();
    let description = fields.text("error_description").ok().flatten().unwrap_or_default();
    Some((code, description.into_owned()))
}

/// Seconds as a JSON number, with or without fraction, or as a string of one.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = json::number(value).filter(|seconds| *seconds >= 1.0)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The SDK allows 60 s in all for its own exchange; we have a last good token meanwhile, and retry.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Real answers are under 4 KiB.
const MAX_BODY: usize = 64 * 1024;

/// W&B's tokens live for an hour.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// `expires_in` is only RECOMMENDED (RFC 6749, section 5.1). Without it: short enough to be true.
const LIFE_UNSAID: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Expires as _;

    #[test]
    fn lifetimes_may_be_any_positive_number() {
        let read = |json: &str| lifetime(&serde_json::from_str(json).expect("json"));
        assert_eq!(read("3600"), Some(Duration::from_secs(3600)));
        assert_eq!(read("3599.5"), Some(Duration::from_millis(3_599_500)));
        assert_eq!(read("\"3600\""), Some(Duration::from_secs(3600)));
        assert_eq!(read("1e30"), Some(Duration::MAX));
        for bad in ["0", "-1", "0.5", "1e400", "true", "\"soon\"", "[]"] {
            let value = serde_json::from_str(bad).unwrap_or(Value::Null);
            assert_eq!(lifetime(&value), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn no_access_token_is_believed_for_more_than_a_day() {
        let wandb = crate::oidc::test::StandIn::start();
        let clock = crate::clock::Clock::system();
        let exchange = Exchange::new(&wandb.url.parse().expect("a URL"), Http::new(clock.clone()));
        let jwt = crate::provider::source::test::jwt(600, "");
        let assertion = IdentityToken::parse_insecure(&jwt, clock.now()).expect("a JWT");
        for (said, most) in [("1e18", 86400), ("3600000", 86400), ("\"1e30\"", 86400), ("3600", 3600)] {
            let body = format!(
                r#"{{"access_token":"wb_at_x","token_type":["Bearer"],"expires_in":{said},"scope":[]}}"#
            );
            wandb.on("/oidc/token", 200, body);
            let token = exchange.redeem(&assertion).await.expect("a token");
            let left = token.expiry().remaining(clock.now()).as_secs();
            assert!(left <= most && left + 60 > most, "{said}: {left}");
        }
        assert!(exchange.said.load(Ordering::Relaxed), "the log says so");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_token_is_refused_by_name() {
        let wandb = crate::oidc::test::StandIn::start();
        let clock = crate::clock::Clock::system();
        let exchange = Exchange::new(&wandb.url.parse().expect("a URL"), Http::new(clock.clone()));
        let jwt = crate::provider::source::test::jwt(600, "");
        let assertion = IdentityToken::parse_insecure(&jwt, clock.now()).expect("a JWT");
        for (body, said) in [
            ("<html>", "is not JSON but an HTML or XML page"),
            ("{}", "has no `access_token`"),
            (r#"{"access_token":{}}"#, "has an object in `access_token` where text is needed"),
            (r#"{"access_token":"x","token_type":"mac"}"#, "of another type than Bearer"),
            (r#"{"access_token":"x","expires_in":"soon"}"#, "`expires_in` that is not a lifetime"),
        ] {
            wandb.on("/oidc/token", 200, body);
            let error = exchange.redeem(&assertion).await.expect_err(said);
            assert!(error.is_transient() && error.message.contains(said), "{error}");
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
