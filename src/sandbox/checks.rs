//! The sandbox over real connections: what it refuses, in which words, and what breaks on request.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::server::{Config, Sandbox, Settings};
use crate::clock::Clock;
use crate::error::{Error, Reason};
use crate::http::{Answer, Destination, Http};

/// A sandbox that runs until the test ends, and a client.
struct Running {
    url: String,
    http: Http,
}

impl Running {
    async fn start(config: Config) -> Self {
        let sandbox = Sandbox::bind(config, Clock::system()).await.expect("a free port");
        let url = sandbox.url().to_owned();
        tokio::spawn(sandbox.run(std::future::pending()));
        Self { url, http: Http::new(Clock::system()) }
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        edit: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, Error> {
        let url = Url::parse(&format!("{}{path}", self.url)).expect("a URL");
        let request = edit(self.http.request(Destination::Platform, method, url));
        self.http.send(Destination::Platform, request, Duration::from_secs(5), 1024 * 1024).await
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.try_send(Method::GET, path, |request| request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        answer.text().to_string()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let sent = self.try_send(Method::POST, path, |request| request.body(body.to_string())).await;
        let answer = sent.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", *answer.text());
        serde_json::from_slice(&answer.body).expect("json")
    }

    async fn stats(&self) -> Value {
        serde_json::from_str(&self.get("/sandbox/stats").await).expect("json")
    }

    async fn try_exchange(&self, jwt: &str) -> Result<Answer, Error> {
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", jwt)];
        self.try_send(Method::POST, "/oidc/token", |request| request.form(&form)).await
    }

    /// Status and text of one exchange.
    async fn exchange(&self, jwt: &str) -> (u16, String) {
        let answer = self.try_exchange(jwt).await.expect("an answer");
        (answer.status, answer.text().to_string())
    }

    async fn access_token(&self) -> String {
        let (status, text) = self.exchange(&self.get("/mint").await).await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("json");
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    async fn viewer_status(&self, authorization: &str) -> u16 {
        let body = json!({ "query": "query Viewer { viewer { id } }" }).to_string();
        let sent = self
            .try_send(Method::POST, "/graphql", |request| {
                request.header("authorization", authorization).body(body)
            })
            .await;
        sent.expect("an answer").status
    }
}

#[tokio::test]
async fn a_minted_jwt_can_be_exchanged_once() {
    let sandbox = Running::start(Config::default()).await;
    let jwt = sandbox.get("/mint").await;
    let (status, text) = sandbox.exchange(&jwt).await;
    let answer: Value = serde_json::from_str(&text).expect("json");
    assert_eq!((status, &answer["expires_in"]), (200, &json!(3600)));
    assert!(answer["access_token"].as_str().is_some_and(|token| token.starts_with("wb_at_")));

    let (status, text) = sandbox.exchange(&jwt).await;
    let refused = json!({ "error": "invalid_grant", "error_description": "The jti was already used." });
    assert_eq!((status, serde_json::from_str::<Value>(&text).expect("json")), (400, refused));
    sandbox.post("/sandbox/settings", json!({ "replay_check": false })).await;
    assert_eq!(sandbox.exchange(&jwt).await.0, 200);
}

#[tokio::test]
async fn every_wrong_claim_is_refused_and_counted_by_name() {
    let sandbox = Running::start(Config::default()).await;
    let other = Running::start(Config::default()).await;
    for (jwt, outcome) in [
        (sandbox.get("/mint?audience=other").await, "audience"),
        (sandbox.get("/mint?subject=Dev@example.com").await, "subject"),
        (sandbox.get("/mint?life=-1").await, "expiry"),
        (other.get("/mint").await, "issuer"),
        (format!("{}\n", sandbox.get("/mint").await), "malformed"),
        ("not.a.jwt".to_owned(), "malformed"),
    ] {
        let (status, text) = sandbox.exchange(&jwt).await;
        assert_eq!(status, 400, "{outcome}");
        assert_eq!(text == "invalid JWT format", outcome == "malformed", "{text}");
        let seen = sandbox.stats().await["exchanges"]["by_outcome"][outcome].as_u64();
        assert!(seen >= Some(1), "{outcome}");
    }
    let genuine = sandbox.get("/mint").await;
    let forged = sandbox.get("/mint").await;
    let (unsigned, _) = genuine.rsplit_once('.').expect("three parts");
    let (_, signature) = forged.rsplit_once('.').expect("three parts");
    let (status, _) = sandbox.exchange(&format!("{unsigned}.{signature}")).await;
    assert_eq!((status, sandbox.exchange(&genuine).await.0), (400, 200));
}

#[tokio::test]
async fn a_trusted_issuers_key_is_found_by_discovery() {
    let issuer = Running::start(Config::default()).await;
    let sandbox = Running::start(Config { trusted: vec![issuer.url.clone()], ..Config::default() }).await;
    assert_eq!(sandbox.exchange(&issuer.get("/mint").await).await.0, 200);
    let fresh = Running::start(Config { trusted: vec![issuer.url.clone()], ..Config::default() }).await;
    let jwt = issuer.get("/mint").await;
    issuer.post("/sandbox/faults", json!({ "idp": { "status": 503 } })).await;
    assert_eq!(fresh.exchange(&jwt).await.0, 400, "no key, no token");
    assert_eq!(sandbox.exchange(&jwt).await.0, 200, "a key once found stays");
}

#[tokio::test]
async fn access_tokens_work_as_bearer_until_they_expire_or_are_revoked() {
    let sandbox = Running::start(Config::default()).await;
    let bearer = format!("Bearer {}", sandbox.access_token().await);
    assert_eq!(sandbox.viewer_status(&bearer).await, 200);
    assert_eq!(sandbox.viewer_status("Basic YXBpOndiX2F0X3g=").await, 401);
    assert_eq!(sandbox.post("/sandbox/revoke", json!({})).await, json!({ "revoked": 1 }));
    assert_eq!(sandbox.viewer_status(&bearer).await, 401);
    sandbox.post("/sandbox/settings", json!({ "token_life": 0 })).await;
    let over = format!("Bearer {}", sandbox.access_token().await);
    assert_eq!(sandbox.viewer_status(&over).await, 401);
    let seen = sandbox.stats().await["auth_failures"].clone();
    assert_eq!(seen, json!({ "access-token-as-basic": 1, "revoked": 1, "expired": 1 }));
}

#[tokio::test]
async fn each_fault_breaks_the_exchange_in_its_own_way() {
    let sandbox = Running::start(Config::default()).await;
    let broken = async |fault: Value| {
        sandbox.post("/sandbox/faults", json!({ "exchange": fault })).await;
        let jwt = sandbox.get("/mint").await;
        sandbox.try_exchange(&jwt).await
    };
    let answer =
        broken(json!({ "status": 429, "headers": { "Retry-After": "7" } })).await.expect("an answer");
    assert_eq!((answer.status, answer.retry_after), (429, Some(Duration::from_secs(7))));
    assert_eq!(broken(json!("redirect")).await.expect("an answer").status, 302);
    assert_eq!(broken(json!("plain-text")).await.expect("an answer").text().as_str(), "invalid JWT format");
    let garbage = broken(json!("garbage")).await.expect("an answer");
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
    assert!(broken(json!("empty")).await.expect("an answer").body.is_empty());
    let float: Value =
        serde_json::from_slice(&broken(json!("non-integer-expires")).await.expect("an answer").body)
            .expect("json");
    assert_eq!(float["expires_in"], json!(3600.5));
    assert!(matches!(
        broken(json!("truncate")).await,
        Err(Error { reason: Reason::ConnectionLost { .. }, .. })
    ));
    assert!(matches!(broken(json!("huge")).await, Err(Error { reason: Reason::TooLarge { .. }, .. })));
    assert_eq!(broken(json!({ "status": 503, "count": 1 })).await.expect("an answer").status, 503);
    assert_eq!(sandbox.exchange(&sandbox.get("/mint").await).await.0, 200, "over after one");
    let stats = sandbox.stats().await;
    assert_eq!((&stats["redirects_followed"], &stats["sdk_exchanges"]), (&json!(0), &json!(0)));
    assert_eq!(stats["exchanges"]["total"], json!(10));
}

#[tokio::test]
async fn a_hanging_and_a_dripping_answer_outlast_the_clients_timeout() {
    let sandbox = Running::start(Config::default()).await;
    for fault in ["hang", "slow-drip"] {
        let jwt = sandbox.get("/mint").await;
        sandbox.post("/sandbox/faults", json!({ "exchange": fault })).await;
        let answer = tokio::time::timeout(Duration::from_millis(300), sandbox.try_exchange(&jwt)).await;
        assert!(answer.is_err(), "{fault}");
    }
}

#[tokio::test]
async fn an_exchange_takes_as_long_as_it_is_told_to() {
    let settings = Settings { exchange_delay_ms: 200, ..Settings::default() };
    let sandbox = Running::start(Config { settings, ..Config::default() }).await;
    let jwt = sandbox.get("/mint").await;
    let early = tokio::time::timeout(Duration::from_millis(100), sandbox.try_exchange(&jwt)).await;
    assert!(early.is_err());
}
