//! Providers as they are: each oddity was met somewhere. What is not needed may be anything; what is needed is refused
//! by name; and a refresh token is stored before anything else in its answer is judged.

use std::sync::Arc;

use openidconnect::{IssuerUrl, Nonce, PkceCodeVerifier, RedirectUrl};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::session::Session;
use super::test::{Signer, StandIn};
use super::{Flow, Preset, RelyingParty, Settings, Tokens};
use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Kind, Reason};
use crate::http::Http;
use crate::secrets::{self, Key, Presence, Store};

struct World {
    idp: StandIn,
    signer: Signer,
    discovery: Value,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (idp, signer) = (StandIn::start(), Signer::new());
        let at = |path: &str| format!("{}{path}", idp.url);
        let discovery = json!({
            "issuer": idp.url, "authorization_endpoint": at("/auth"), "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"), "device_authorization_endpoint": at("/device"),
        });
        idp.on("/keys", 200, json!({"keys": [signer.jwk()]}));
        let world = Self { idp, signer, discovery, dir: tempfile::tempdir().expect("temp dir") };
        world.publish();
        world
    }

    fn publish(&self) {
        self.idp.on(DISCOVERY, 200, &self.discovery);
    }

    fn party(&self) -> RelyingParty {
        let settings = Settings {
            profile: "work".to_owned(),
            issuer: IssuerUrl::new(self.idp.url.clone()).expect("a URL"),
            client_id: "cli".to_owned(),
            client_secret: None,
            scopes: vec!["openid".to_owned()],
            preset: Preset::Generic,
            audience: None,
            flow: Flow::Code,
            redirect_host: "127.0.0.1",
            redirect_port: 0,
            authorize_params: Default::default(),
        };
        let clock = Clock::system();
        RelyingParty::new(settings, Http::new(clock.clone()), clock)
    }

    /// Claims of a good ID token.
    fn claims(&self) -> Value {
        let now = Clock::system().now().wall.as_second();
        json!({"iss": self.idp.url, "aud": "cli", "sub": "alice", "iat": now, "exp": now + 600, "nonce": "n"})
    }

    fn answer(&self) -> Value {
        let token = self.signer.sign(&self.claims());
        json!({"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": token})
    }

    async fn redeem(&self) -> Result<Tokens, Error> {
        let redirect = RedirectUrl::new("http://127.0.0.1:1/callback".to_owned()).expect("a URL");
        let verifier = PkceCodeVerifier::new("v".repeat(43));
        self.party().redeem("code".to_owned(), verifier, &Nonce::new("n".to_owned()), &redirect).await
    }

    fn env(&self) -> Env {
        let home = self.dir.path().to_str().expect("plain");
        Env::fixed([("HOME", home), ("XDG_STATE_HOME", home), ("XDG_DATA_HOME", home)])
    }

    fn store(&self) -> Store {
        Store::new(secrets::Kind::File, &self.env()).expect("a folder")
    }

    /// The refresh token in the store.
    async fn stored(&self) -> Option<String> {
        let key =
            Key { profile: "work".to_owned(), issuer: self.idp.url.clone(), client_id: "cli".to_owned() };
        let json = self.store().load(&key).await.expect("readable")?;
        let saved: Value = serde_json::from_str(json.expose()).expect("JSON");
        Some(saved["refresh_token"].as_str()?.to_owned())
    }

    /// What a newer version might store.
    async fn store_next_format(&self) {
        let key =
            Key { profile: "work".to_owned(), issuer: self.idp.url.clone(), client_id: "cli".to_owned() };
        let json = json!({"version": 2, "refresh_token": "newer", "grants": []}).to_string();
        self.store().save(&key, &crate::token::Secret::new(json), Presence::Person).await.expect("stored");
    }

    /// Alice has signed in a while ago.
    async fn session(&self) -> Arc<Session> {
        let signed_in = Arc::new(Session::new(self.party(), self.store(), Clock::system()));
        let tokens = Tokens {
            id_token: Zeroizing::new(self.signer.sign(&self.claims())),
            subject: "alice".to_owned(),
            account: None,
            refresh_token: Some(crate::token::Secret::new("first".to_owned())),
            refresh_expires_in: None,
        };
        signed_in.signed_in(tokens).await.expect("stored");
        Arc::new(Session::new(self.party(), self.store(), Clock::system()))
    }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn discovery_may_hold_anything_in_fields_that_are_not_used() {
    for odd in [
        json!({}),
        json!({"op_policy_uri": "", "op_tos_uri": "", "service_documentation": "none"}),
        json!({"subject_types_supported": "public", "response_types_supported": null}),
        json!({"id_token_signing_alg_values_supported": "RS256", "claims_supported": {"a": 1}}),
        json!({"scopes_supported": "openid email", "grant_types_supported": 7, "ui_locales_supported": "en"}),
        json!({"userinfo_endpoint": "", "registration_endpoint": "/register", "end_session_endpoint": 1}),
        json!({"request_parameter_supported": "true", "require_request_uri_registration": "no"}),
        json!({"token_endpoint_auth_methods_supported": "client_secret_post client_secret_basic"}),
        json!({"authorization_response_iss_parameter_supported": "true", "revocation_endpoint": ""}),
    ] {
        let mut world = World::new();
        for (name, value) in odd.as_object().expect("an object") {
            world.discovery[name] = value.clone();
        }
        world.publish();
        world.idp.on("/token", 200, world.answer());
        let tokens = world.redeem().await.unwrap_or_else(|error| panic!("{odd}: {error}"));
        assert_eq!(tokens.subject, "alice");
        let redirect = RedirectUrl::new("http://127.0.0.1:1/callback".to_owned()).expect("a URL");
        let asked = world.party().authorize(redirect).await.expect("where to sign in");
        assert_eq!(asked.url.path(), "/auth");
    }
}

#[tokio::test]
async fn discovery_without_what_is_needed_is_refused_by_name() {
    for (field, value, said) in [
        ("jwks_uri", Value::Null, "has no `jwks_uri`"),
        ("jwks_uri", json!(["x"]), "in `jwks_uri` where a URL is needed"),
        ("token_endpoint", json!({}), "has an object in `token_endpoint` where text is needed"),
        ("token_endpoint", json!(""), "has no `token_endpoint`"),
        (
            "token_endpoint",
            json!("/token"),
            "has text that is no URL in `token_endpoint` where a URL is needed",
        ),
        ("issuer", json!({"url": 1}), "has an object in `issuer` where text is needed"),
    ] {
        let mut world = World::new();
        world.discovery[field] = value;
        world.publish();
        world.idp.on("/token", 200, world.answer());
        let error = world.redeem().await.err().expect("refused");
        assert!(error.message.contains(said), "{field}: {error}");
        let wanted = Reason::UnreadableAnswer { host: world.idp.url.clone(), field: Some(field.to_owned()) };
        assert_eq!(error.reason, wanted);
    }
}

#[tokio::test]
async fn a_page_in_place_of_the_discovery_document_is_named_as_such() {
    let world = World::new();
    world.idp.on(DISCOVERY, 200, "<!doctype html>");
    let error = world.redeem().await.err().expect("refused");
    assert_eq!(error.kind, Kind::Misconfigured);
    assert!(error.message.contains("is not JSON but an HTML or XML page"), "{error}");
}

#[tokio::test]
async fn token_answers_may_be_odd_where_it_does_not_matter() {
    for odd in [
        json!({"expires_in": "3600"}),
        json!({"expires_in": {}, "scope": ["openid", "email"]}),
        json!({"token_type": null}),
        json!({"token_type": "bearer_token", "access_token": {}}),
        json!({"error": "", "error_description": []}),
        json!({"not-before-policy": "x", "session_state": 7, "refresh_expires_in": "soon"}),
    ] {
        let world = World::new();
        let mut answer = world.answer();
        for (name, value) in odd.as_object().expect("an object") {
            answer[name] = value.clone();
        }
        world.idp.on("/token", 200, answer);
        let tokens = world.redeem().await.unwrap_or_else(|error| panic!("{odd}: {error}"));
        assert_eq!(tokens.subject, "alice");
    }
}

#[tokio::test]
async fn id_tokens_may_be_odd_where_it_does_not_matter() {
    for odd in [
        json!({"amr": "pwd"}),
        json!({"email_verified": 1, "email": "a@b.example"}),
        json!({"email_verified": "yes"}),
        json!({"updated_at": "2024-01-01T00:00:00.000Z"}),
        json!({"auth_time": "1700000000", "acr": 1}),
        json!({"aud": ["cli"], "azp": "cli"}),
        json!({"address": "a street", "phone_number": 49}),
        json!({"locale": {"language": "en"}, "picture": "", "website": "none"}),
        json!({"iat": null, "birthdate": 1970, "gender": []}),
    ] {
        let world = World::new();
        let mut claims = world.claims();
        for (name, value) in odd.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        world.idp.on("/token", 200, json!({"id_token": world.signer.sign(&claims)}));
        let tokens = world.redeem().await.unwrap_or_else(|error| panic!("{odd}: {error}"));
        assert_eq!(tokens.subject, "alice", "{odd}");
    }
}

#[tokio::test]
async fn an_id_token_that_is_not_for_us_is_refused_and_the_claim_named() {
    for (claim, value, said) in [
        ("iss", json!("https://stranger.example"), "`iss`"),
        ("aud", json!("another"), "`aud` lacks this client"),
        ("aud", json!(["cli", "another"]), "`aud` names others"),
        ("azp", json!("another"), "`azp`"),
        ("azp", json!({}), "an object in `azp`"),
        ("nonce", json!("another"), "`nonce`"),
        ("nonce", Value::Null, "`nonce`"),
        ("sub", json!({}), "an object in `sub`"),
        ("sub", Value::Null, "no `sub`"),
        ("exp", json!(1), "expired"),
        ("exp", json!([]), "a list in `exp`"),
    ] {
        let world = World::new();
        let mut claims = world.claims();
        claims[claim] = value;
        world.idp.on("/token", 200, json!({"id_token": world.signer.sign(&claims)}));
        let error = world.redeem().await.err().expect(said);
        assert_eq!(error.reason, Reason::UntrustedToken, "{error}");
        assert!(error.message.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn an_id_token_by_a_stranger_is_refused_after_one_look_for_new_keys() {
    let world = World::new();
    world.idp.on("/token", 200, json!({"id_token": Signer::new().sign(&world.claims())}));
    let error = world.redeem().await.err().expect("refused");
    assert_eq!(error.reason, Reason::UntrustedToken);
    assert_eq!(world.idp.count("/keys"), 2);
}

#[tokio::test]
async fn an_odd_answer_to_a_refresh_does_not_lose_the_successor() {
    let world = World::new();
    let session = world.session().await;
    let bad = world.signer.sign(&json!({"amr": "pwd", "iss": {}, "exp": "never"}));
    for (status, answer) in [
        (200, json!({"refresh_token": "second", "expires_in": "3600", "scope": ["a"]}).to_string()),
        (200, json!({"refresh_token": "third", "id_token": {"x": 1}}).to_string()),
        (200, json!({"refresh_token": "fourth", "id_token": bad, "token_type": 7}).to_string()),
        (200, r#"{"refresh_token": "fifth", "expires_in": NaN}"#.to_owned()),
        (201, json!({"refresh_token": "sixth", "error": "warning"}).to_string()),
    ] {
        world.idp.on("/token", status, &answer);
        session.identity().await.expect_err("no usable ID token");
        let stored = world.stored().await.expect("still signed in");
        assert!(answer.contains(&format!("\"{stored}\"")), "{answer}: {stored}");
    }
    let mut good = world.answer();
    good["refresh_token"] = json!("last");
    world.idp.on("/token", 200, good);
    session.identity().await.expect("the session lives on");
    assert_eq!(world.stored().await.as_deref(), Some("last"));
}

#[tokio::test]
async fn the_successor_is_stored_before_the_rest_is_judged() {
    let world = World::new();
    let session = world.session().await;
    session.party.metadata().await.expect("known");
    // The keys are looked for again for an ID token by an unknown key, and cannot be had.
    world.idp.on(DISCOVERY, 503, "");
    let foreign = Signer::new().sign(&world.claims());
    world.idp.on("/token", 200, json!({"refresh_token": "second", "id_token": foreign}));
    session.identity().await.expect_err("not to be trusted");
    assert_eq!(world.stored().await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_session_ends_only_when_what_was_redeemed_is_stored() {
    let world = World::new();
    let session = world.session().await;
    session.party.metadata().await.expect("known");
    let mut answer = world.answer();
    answer["refresh_token"] = json!("second");
    world.idp.on("/token", 200, answer);
    world.idp.hold(true);
    let asking = tokio::spawn({
        let session = Arc::clone(&session);
        async move { session.identity().await }
    });
    while world.idp.count("/token") == 0 {
        tokio::task::yield_now().await;
    }
    // As a reload does with the tasks of a changed profile.
    asking.abort();
    let closing = session.close();
    tokio::pin!(closing);
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut closing).await;
    assert!(early.is_err(), "the provider has not answered yet");
    world.idp.hold(false);
    closing.await.expect("saved");
    assert_eq!(world.stored().await.as_deref(), Some("second"));
    let error = session.identity().await.expect_err("no new attempt while the daemon stops");
    assert_eq!((error.reason, world.idp.count("/token")), (Reason::Stopping, 1));
}

#[tokio::test]
async fn what_a_newer_version_stored_is_refused_by_name_and_kept() {
    let world = World::new();
    let session = world.session().await;
    world.store_next_format().await;
    let newer = Reason::SessionOfNewerVersion { version: 2 };
    for refusal in [session.identity().await.map(drop), session.check_store().await] {
        let error = refusal.expect_err("refused");
        assert_eq!((error.kind, &error.reason), (Kind::Misconfigured, &newer));
        assert!(error.message.contains("a newer version of wandb-cred"), "{}", error.message);
        assert!(!error.message.contains("cannot be"), "it says it all itself: {}", error.message);
    }
    assert_eq!(world.stored().await.as_deref(), Some("newer"));
    session.sign_out().await.expect("asked for, so it is done");
    assert_eq!(world.stored().await, None);
}

#[tokio::test]
async fn what_a_later_version_adds_to_the_same_format_is_passed_over() {
    let json = json!({"version": 1, "refresh_token": "r", "subject": "alice", "new": {"x": 1},
        "signed_in_at": "2026-01-01T00:00:00Z"});
    let saved = super::saved::Saved::from_json(&crate::token::Secret::new(json.to_string()));
    assert_eq!(
        saved.ok().flatten().and_then(|saved| saved.refresh_token).as_deref().map(String::as_str),
        Some("r")
    );
}

#[tokio::test]
async fn a_refused_refresh_needs_a_person() {
    let world = World::new();
    let session = world.session().await;
    world.idp.on(
        "/token",
        400,
        json!({"error": "invalid_grant", "error_description": 7, "error_codes": [1]}),
    );
    let error = session.identity().await.expect_err("refused");
    assert_eq!(error.kind, Kind::NeedsLogin);
    assert_eq!(world.stored().await.as_deref(), Some("first"));
}

#[tokio::test]
async fn a_refusal_that_is_not_oauths_passes() {
    let world = World::new();
    let session = world.session().await;
    world.idp.on("/token", 400, "<html>bad request</html>");
    let error = session.identity().await.expect_err("no answer of OAuth's");
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains("HTTP 400") && error.message.contains("HTML"), "{error}");
}

#[tokio::test]
async fn a_device_with_an_interval_of_nothing_is_polled_once_a_second() {
    let world = World::new();
    let device = json!({
        "device_code": "d", "user_code": "AB-CD", "verification_uri": "https://idp.example/d",
        "expires_in": "600", "interval": 0,
    });
    world.idp.on("/device", 200, device);
    world.idp.on("/token", 400, json!({"error": "authorization_pending"}));
    let party = world.party();
    let device = party.device().await.expect("a code");
    let polling = party.device_tokens(&device);
    let answered = tokio::time::timeout(std::time::Duration::from_millis(2500), polling).await;
    assert!(answered.is_err(), "nobody answered");
    let polls = world.idp.count("/token");
    assert!((1..=2).contains(&polls), "{polls} requests in 2.5 s");
}
