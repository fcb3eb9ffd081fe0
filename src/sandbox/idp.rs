//! The identity provider half: one ES256 key generated at startup, discovery, JWKS, minting.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::rand_core::{OsRng, RngCore};
use p256::pkcs8::EncodePrivateKey;
use serde_json::json;

use super::reply::{self, Reply};
use super::server::State;

/// The signing key and its public half.
pub(super) struct Idp {
    key: EncodingKey,
    keys: JwkSet,
    kid: String,
}

impl Idp {
    pub(super) fn new() -> anyhow::Result<Self> {
        let secret = p256::SecretKey::random(&mut OsRng).to_pkcs8_der()?;
        let key = EncodingKey::from_ec_der(secret.as_bytes());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
        let kid = random_text(9);
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, keys: JwkSet { keys: vec![public] }, kid })
    }

    pub(super) fn keys(&self) -> &JwkSet {
        &self.keys
    }

    fn sign(&self, claims: &serde_json::Value) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}

/// `GET /.well-known/openid-configuration`.
pub(super) fn discovery(state: &State) -> Reply {
    let issuer = &state.url;
    reply::ok(&json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "token_endpoint": format!("{issuer}/oidc/token"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

/// `GET /jwks`.
pub(super) fn jwks(state: &State) -> Reply {
    reply::ok(&serde_json::to_value(state.idp.keys()).expect("a key set is plain JSON"))
}

/// `GET /mint?audience=&subject=&life=`: a new JWT as plain text. Wrong audiences and subjects are minted
/// too; the W&B half refuses them.
pub(super) fn mint(state: &State, query: &HashMap<String, String>) -> Reply {
    let life = match query.get("life").map(|life| life.parse::<i64>()) {
        None => i64::try_from(state.settings().jwt_life).unwrap_or(i64::MAX),
        Some(Ok(life)) => life,
        Some(Err(_)) => return reply::text(StatusCode::BAD_REQUEST, "life must be a number of seconds"),
    };
    let subject = query.get("subject").unwrap_or(&state.subjects[0]);
    let audience = query.get("audience").unwrap_or(&state.audiences[0]);
    let now = state.clock.now().wall.as_second();
    let mut claims = json!({
        "iss": state.url,
        "sub": subject,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now.saturating_add(life),
        "jti": random_text(16),
    });
    if subject.contains('@') {
        claims["email"] = json!(subject);
        claims["email_verified"] = json!(true);
    }
    state.stats().mints += 1;
    match state.idp.sign(&claims) {
        Ok(jwt) => reply::text(StatusCode::OK, jwt),
        Err(error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// `bytes` random bytes as base64url.
pub(super) fn random_text(bytes: usize) -> String {
    let mut raw = vec![0; bytes];
    OsRng.fill_bytes(&mut raw);
    URL_SAFE_NO_PAD.encode(raw)
}
