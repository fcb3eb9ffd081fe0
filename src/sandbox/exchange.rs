//! `POST /oidc/token`: what a W&B server checks in a JWT, and how it refuses one.
//!
//! The order and the wording follow Ory fosite, which W&B's server is built on.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::issuers;
use super::reply::{self, Reply};
use super::server::State;
use crate::token::Claims;

/// When each exchanged JWT expires (seconds since the epoch), by issuer and `jti`.
#[derive(Default)]
pub(super) struct Replays(HashMap<(String, String), i64>);

impl Replays {
    /// Records the use of a JWT. Returns `false` if it was used before.
    fn first_use(&mut self, issuer: &str, jti: &str, expiry: i64, now: i64) -> bool {
        if self.0.len() >= MAX_REPLAYS {
            self.0.retain(|_, expiry| *expiry > now);
        }
        if self.0.len() >= MAX_REPLAYS {
            self.0.clear();
        }
        self.0.insert((issuer.to_owned(), jti.to_owned()), expiry).is_none()
    }
}

/// Why no access token was issued. The outcome is the key in the statistics.
struct Refused {
    outcome: &'static str,
    error: &'static str,
    description: String,
}

impl Refused {
    fn grant(outcome: &'static str, description: impl Into<String>) -> Self {
        Self { outcome, error: "invalid_grant", description: description.into() }
    }

    fn reply(self) -> Reply {
        if self.outcome == MALFORMED {
            return reply::text(StatusCode::BAD_REQUEST, self.description);
        }
        let body = json!({ "error": self.error, "error_description": self.description });
        reply::json(StatusCode::BAD_REQUEST, &body)
    }
}

/// Answers one exchange. Also returns its outcome for the statistics.
pub(super) async fn exchange(state: &State, body: &[u8]) -> (Reply, &'static str) {
    let settings = state.settings();
    tokio::time::sleep(Duration::from_millis(settings.exchange_delay_ms)).await;
    match check(state, body).await {
        Ok(()) => {
            let life = Duration::from_secs(settings.token_life);
            let token = state.tokens().issue(state.clock.now().wall, life);
            let body = json!({
                "access_token": token,
                "expires_in": settings.token_life,
                "token_type": "Bearer",
                "scope": "",
            });
            (reply::ok(&body), "ok")
        }
        Err(refused) => {
            let outcome = refused.outcome;
            (refused.reply(), outcome)
        }
    }
}

async fn check(state: &State, body: &[u8]) -> Result<(), Refused> {
    let form: HashMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
    let bad = |outcome, error, description: &str| Refused { outcome, error, description: description.into() };
    if form.get("grant_type").map(String::as_str) != Some(GRANT_TYPE) {
        return Err(bad("grant-type", "unsupported_grant_type", "The grant type is not supported."));
    }
    let jwt = form.get("assertion").ok_or_else(|| {
        bad("no-assertion", "invalid_request", "The assertion request parameter must be set.")
    })?;
    let claims = signed_claims(state, jwt).await?;
    check_claims(state, &claims)
}

/// Checks issuer and signature, and returns the claims.
async fn signed_claims(state: &State, jwt: &str) -> Result<Claims, Refused> {
    let malformed = |()| Refused::grant(MALFORMED, "invalid JWT format");
    // A trailing newline is refused, to be strict: older clients send one if the file has one.
    if !jwt.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(malformed(()));
    }
    let header = jsonwebtoken::decode_header(jwt).map_err(|_| malformed(()))?;
    let claims = jsonwebtoken::dangerous::insecure_decode::<Claims>(jwt).map_err(|_| malformed(()))?.claims;
    if !ALGORITHMS.contains(&header.alg) {
        let why = format!("The signing algorithm {:?} is not accepted.", header.alg);
        return Err(Refused::grant("signature", why));
    }
    let issuer = claims.iss.as_deref().unwrap_or_default();
    let kid = header.kid.as_deref();
    let key = if issuer == state.url {
        issuers::find(state.idp.keys(), kid).ok_or_else(|| "no such key".to_owned())
    } else if state.issuers.trusts(issuer) {
        state.issuers.key(issuer, kid).await
    } else {
        let why = format!("The JWT issuer {issuer:?} is not configured for the organization.");
        return Err(Refused::grant("issuer", why));
    };
    let key = key.map_err(|why| Refused::grant("no-key", format!("No key for the JWT: {why}.")))?;
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let verified = DecodingKey::from_jwk(&key)
        .and_then(|key| jsonwebtoken::decode::<Value>(jwt, &key, &validation))
        .is_ok();
    if !verified {
        return Err(Refused::grant("signature", "Unable to verify the integrity of the 'assertion' value."));
    }
    Ok(claims)
}

fn check_claims(state: &State, claims: &Claims) -> Result<(), Refused> {
    let now = state.clock.now().wall.as_second();
    let expiry = claims.exp.ok_or_else(|| {
        Refused::grant("expiry", "The JWT in 'assertion' request parameter MUST contain an 'exp' claim.")
    })? as i64;
    if expiry <= now {
        return Err(Refused::grant("expiry", "The JWT in 'assertion' request parameter expired."));
    }
    if !claims.aud.iter().any(|audience| state.audiences.contains(audience)) {
        return Err(Refused::grant("audience", "The audience of the JWT is not the organization's name."));
    }
    if !subject_is_known(&state.subjects, claims) {
        return Err(Refused::grant("subject", "No user or service account matches the JWT."));
    }
    if let (Some(issuer), Some(jti)) = (&claims.iss, &claims.jti)
        && !state.replays().first_use(issuer, jti, expiry, now)
        && state.settings().replay_check
    {
        return Err(Refused::grant("jti-used", "The jti was already used."));
    }
    Ok(())
}

/// Looks for an exact match in `sub`, then `email`, then any claim whose name contains "email".
fn subject_is_known(known: &[String], claims: &Claims) -> bool {
    let others = claims.other.iter().filter(|(name, _)| name.contains("email"));
    let mut candidates = [claims.sub.as_deref(), claims.email.as_deref()]
        .into_iter()
        .chain(others.map(|(_, value)| value.as_str()))
        .flatten();
    candidates.any(|candidate| known.iter().any(|known| known == candidate))
}

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The one outcome with a plain-text response.
const MALFORMED: &str = "malformed";

/// Asymmetric only: an `HS256` JWT "signed" with a public key must not pass.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const MAX_REPLAYS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).expect("claims")
    }

    #[test]
    fn a_person_is_found_by_any_email_claim_and_a_service_by_its_exact_sub() {
        let known = ["dev@example.com".to_owned(), "svc".to_owned()];
        let finds = |value| subject_is_known(&known, &claims(value));
        assert!(finds(json!({ "sub": "svc" })));
        assert!(finds(json!({ "sub": "1", "email": "dev@example.com" })));
        assert!(finds(json!({ "sub": "1", "https://x/email": "dev@example.com" })));
        assert!(!finds(json!({ "sub": "SVC" })));
        assert!(!finds(json!({ "sub": "svc " })));
        assert!(!finds(json!({ "name": "svc" })));
    }

    #[test]
    fn a_jti_counts_as_used_only_for_its_own_issuer() {
        let mut replays = Replays::default();
        assert!(replays.first_use("a", "1", 60, 0));
        assert!(!replays.first_use("a", "1", 60, 0));
        assert!(replays.first_use("b", "1", 60, 0));
    }
}
