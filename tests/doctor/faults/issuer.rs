//! The issuer's discovery document and keys, and the signature they verify.

use serde_json::json;

use super::{closed_port, fails, remove};
use crate::stand_in::{answer, unsigned};
use crate::world::World;

#[test]
fn reports_a_jwt_without_iss() {
    fails(|world| drop(remove(world, "iss")), &["issuer", "exchange"], 78, &["no `iss`"]);
}

#[test]
fn reports_an_iss_that_is_a_name() {
    fails(
        |world| world.claims["iss"] = json!("kubernetes/serviceaccount"),
        &["issuer", "exchange"],
        78,
        &["not a URL", "--service-account-issuer"],
    );
}

#[test]
fn reports_an_iss_over_plain_http() {
    fails(
        |world| world.claims["iss"] = json!("http://idp.example"),
        &["issuer", "exchange"],
        78,
        &["https only"],
    );
}

#[test]
fn reports_an_issuer_that_only_the_cluster_knows() {
    fails(
        |world| {
            world.claims["iss"] = json!("https://kubernetes.default.svc.cluster.local");
            // Nothing of this test leaves the machine.
            world.env.insert("HTTPS_PROXY", "http://127.0.0.1:9".into());
            world.base_url = Some("https://wandb.example".into());
        },
        &["issuer", "server"],
        78,
        &["cannot reach", "--service-account-jwks-uri"],
    );
}

#[test]
fn reports_a_missing_discovery_document() {
    fails(
        |world| world.issuer.http.on(DISCOVERY, answer(404, "no")),
        &["issuer", "exchange"],
        78,
        &["status 404", "complete with its path"],
    );
}

#[test]
fn reports_a_discovery_document_behind_a_sign_in() {
    fails(
        |world| world.issuer.http.on(DISCOVERY, answer(401, "{}")),
        &["issuer", "exchange"],
        78,
        &["status 401", "system:unauthenticated"],
    );
}

#[test]
fn reports_a_page_instead_of_a_discovery_document() {
    fails(
        |world| world.issuer.http.on(DISCOVERY, answer(200, "<html>")),
        &["issuer", "exchange"],
        78,
        &["not JSON"],
    );
}

#[test]
fn reports_a_trailing_slash_in_the_discovery_document() {
    fails(
        |world| world.issuer.discovery(json!({ "issuer": format!("{}/", world.issuer.http.url) })),
        &["issuer", "exchange"],
        78,
        &["differ by a slash", "identity provider's settings"],
    );
}

#[test]
fn reports_keys_over_plain_http() {
    fails(
        |world| world.issuer.discovery(json!({ "jwks_uri": "http://idp.example/jwks" })),
        &["issuer", "exchange"],
        78,
        &["not https"],
    );
}

#[test]
fn reports_an_issuer_that_is_down() {
    fails(
        |world| world.claims["iss"] = json!(closed_port()),
        &["issuer", "exchange"],
        78,
        &["cannot connect", "HTTPS_PROXY"],
    );
}

#[test]
fn reports_a_key_that_is_not_published() {
    fails(
        |world| world.kid = "k2".into(),
        &["signature", "exchange"],
        78,
        &["\"k2\"", "k1", "changed its keys"],
    );
}

#[test]
fn reports_a_signature_by_another_key() {
    fails(
        |world| world.jwt = Some(World::new().issuer.sign(&world.claims, "k1")),
        &["signature", "exchange"],
        78,
        &["none of the keys", "get a new JWT"],
    );
}

#[test]
fn reports_a_shared_secret() {
    fails(
        |world| world.jwt = Some(unsigned(json!({ "alg": "HS256", "kid": "k1" }), &world.claims, "c2ln")),
        &["signature", "exchange"],
        78,
        &["HS256", "shared secret", "RS256 or ES256"],
    );
}

#[test]
fn reports_an_empty_key_set() {
    fails(
        |world| world.issuer.http.on("/jwks", answer(200, "{\"keys\":[]}")),
        &["signature", "exchange"],
        78,
        &["no usable key"],
    );
}

#[test]
fn reports_a_missing_key_set() {
    fails(
        |world| world.issuer.http.on("/jwks", answer(404, "no")),
        &["signature", "exchange"],
        78,
        &["status 404", "key set"],
    );
}

const DISCOVERY: &str = "/.well-known/openid-configuration";
