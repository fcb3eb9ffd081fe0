//! Providers of people that depart from the specification, or from each other: the doctor and `login` say the same of each.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::stand_in::{Issuer, answer};
use crate::world::World;

/// A provider at `path` that publishes what `change` makes of a plain document; the configuration names `configured`.
/// Whether people can sign in there, by both.
#[track_caller]
fn judged(path: &str, configured: &str, change: impl Fn(&Issuer, &mut Value)) -> (bool, String) {
    let mut world = World::new();
    let at = |name: &str| format!("{}{}{name}", world.issuer.http.url, path.trim_end_matches('/'));
    let mut document = json!({
        "issuer": format!("{}{path}", world.issuer.http.url), "jwks_uri": at("/keys"),
        "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "device_authorization_endpoint": at("/device"),
    });
    let discovery = format!("{}/.well-known/openid-configuration", path.trim_end_matches('/'));
    let keys = format!("{}/keys", path.trim_end_matches('/'));
    world.issuer.http.on(&keys, world.issuer.http.answer_at("/jwks"));
    world.issuer.http.on(&discovery, answer(200, ""));
    change(&world.issuer, &mut document);
    if !document.is_null() {
        world.issuer.http.on(&discovery, answer(200, document));
    }
    world.provider = format!(
        "[provider.oidc]\nissuer = \"{}{configured}\"\nclient-id = \"c\"\ntoken-store = \"file\"\n",
        world.issuer.http.url
    );
    world.set_up();
    let alone = world.doctor(&["--json"]);
    world.daemon();
    let asked = world.doctor(&["--json"]);
    let (status, login) = begin_login(&world);
    let begun = status == 200 && login["state"] != "failed";
    let fails = |visit: &crate::world::Visit| visit.steps("fail").contains(&"sign-in".to_owned());
    let said = format!("{}\nlogin: {status} {login}", alone.said("sign-in"));
    assert_eq!(fails(&alone), !begun, "the doctor alone, and login: {said}");
    assert_eq!(fails(&asked), !begun, "the daemon's doctor, and login: {said}");
    (begun, said)
}

fn begin_login(world: &World) -> (u16, Value) {
    let socket = world.path("run/wandb-cred/wandb-cred.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("it listens");
    let body = r#"{"profile":"work","method":"browser"}"#;
    write!(
        stream,
        "POST /v1/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

fn works(path: &str, change: impl Fn(&Issuer, &mut Value)) {
    let (works, said) = judged(path, path, change);
    assert!(works, "{said}");
}

fn refused(path: &str, words: &str, change: impl Fn(&Issuer, &mut Value)) {
    let (works, said) = judged(path, path, change);
    assert!(!works && said.contains(words), "{said}");
}

#[test]
fn an_issuer_behind_a_path_works() {
    // Keycloak, Okta's custom authorization servers, Dex.
    for path in ["/realms/acme", "/oauth2/default", "/dex"] {
        works(path, |_, _| {});
    }
}

#[test]
fn an_issuer_with_a_slash_at_its_end_works_as_it_is_spelled() {
    // Authentik, Auth0.
    works("/application/o/acme/", |_, _| {});
    for (path, configured) in
        [("/application/o/acme/", "/application/o/acme"), ("/realms/acme", "/realms/acme/")]
    {
        let (works, said) = judged(path, configured, |_, _| {});
        assert!(!works && said.contains("slash at the end included"), "{said}");
    }
}

#[test]
fn what_nobody_asks_for_may_be_missing_or_odd() {
    works("/adfs", |_, document| {
        document["access_token_issuer"] = json!("http://adfs.example/adfs/services/trust");
        document["response_types_supported"] = json!("code");
        document["subject_types_supported"] = Value::Null;
        document["claims_supported"] = json!({ "sub": 7 });
        document["mtls_endpoint_aliases"] = json!(7);
        document["end_session_endpoint"] = json!("not a URL");
        document["check_session_iframe"] = json!([]);
    });
}

#[test]
fn a_provider_without_device_sign_in_works_with_a_browser() {
    // Cognito.
    let (works, said) = judged("/pool", "/pool", |_, document| {
        document.as_object_mut().expect("an object").remove("device_authorization_endpoint");
    });
    assert!(works && said.contains("offers no device sign-in"), "{said}");
}

#[test]
fn keys_of_unknown_kinds_hide_no_other() {
    works("", |issuer, _| {
        let known: Value = serde_json::from_str(&issuer.http.answer_at("/jwks").body).expect("JSON");
        let keys = json!({ "keys": [
            { "kty": "AKP", "alg": "ML-DSA-65", "kid": "pq", "pub": "AAAA" },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            { "kty": "EC", "crv": "P-521", "kid": "e5", "x": "AA", "y": "AA" },
            { "kty": "oct", "k": "c2VjcmV0" }, 7, known["keys"][0],
        ] });
        issuer.http.on("/keys", answer(200, keys));
    });
}

#[test]
fn a_key_set_without_a_usable_key_is_refused() {
    for keys in [json!({ "keys": [] }), json!({ "keys": [{ "kty": "AKP", "kid": "pq", "pub": "AAAA" }] })] {
        refused("", "no key by which", |issuer, _| issuer.http.on("/keys", answer(200, keys.clone())));
    }
}

#[test]
fn a_key_set_that_is_none_is_refused() {
    refused("", "key set", |issuer, _| issuer.http.on("/keys", answer(200, "<html>")));
    refused("", "HTTP 404", |issuer, _| issuer.http.on("/keys", answer(404, "no")));
}

#[test]
fn the_document_of_another_issuer_is_refused() {
    // Entra ID's first version, under the address of the second; a tenant that is not named.
    for other in ["https://sts.windows.net/T/", "https://login.microsoftonline.com/{tenantid}/v2.0"] {
        refused("/T/v2.0", "names another issuer", |_, document| document["issuer"] = json!(other));
    }
}

#[test]
fn what_a_sign_in_needs_must_be_there() {
    for (field, words) in [
        ("authorization_endpoint", "has no `authorization_endpoint`"),
        ("token_endpoint", "has no `token_endpoint`"),
        ("jwks_uri", "has no `jwks_uri`"),
        ("issuer", "has no `issuer`"),
    ] {
        refused("", words, |_, document| drop(document.as_object_mut().expect("an object").remove(field)));
    }
}

#[test]
fn endpoints_that_are_no_addresses_are_refused() {
    refused("", "authorization_endpoint", |_, document| document["authorization_endpoint"] = json!(7));
    refused("", "not https", |_, document| document["jwks_uri"] = json!("http://keys.example/jwks"));
}

#[test]
fn a_page_or_a_redirect_in_place_of_the_document_is_refused() {
    refused("", "not JSON", |issuer, document| {
        issuer.http.on("/.well-known/openid-configuration", answer(200, "<html>"));
        *document = Value::Null;
    });
    refused("", "HTTP 302", |issuer, document| {
        issuer.http.on("/.well-known/openid-configuration", answer(302, "").header("Location", "/x"));
        *document = Value::Null;
    });
}

#[test]
fn a_provider_that_is_busy_is_tried_later_by_both() {
    let (works, said) = judged("", "", |issuer, document| {
        issuer.http.on("/.well-known/openid-configuration", answer(503, "no"));
        *document = Value::Null;
    });
    assert!(!works && said.contains("503"), "{said}");
}
