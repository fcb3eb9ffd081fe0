//! What the words of other people's servers mean. The only place that searches text, and only theirs.

use serde::{Deserialize, Serialize};

/// Why W&B refused an identity token, as far as its words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Identity federation is off, or not licensed.
    FederationOff,
    Issuer,
    Audience,
    /// Expired or not yet valid, by W&B's clock.
    Time,
    Signature,
    Subject,
    /// W&B cannot read the JWT.
    Format,
}

/// The meaning of W&B's answer to an exchange. The words are those of Ory fosite (`handler/rfc7523`, `go-jose`) and of
/// W&B's own server ("invalid JWT format"), and no contract.
pub fn refusal_cause(code: &str, description: &str) -> Option<Cause> {
    let words = format!("{code} {description}").to_ascii_lowercase();
    let table: [(Cause, &[&str]); 7] = [
        (
            Cause::FederationOff,
            &["licen", "not enabled", "unauthorized_client", "unsupported_grant", "grant type"],
        ),
        (Cause::Issuer, &["issuer"]),
        (Cause::Audience, &["audience", "'aud'"]),
        (Cause::Time, &["expired", "'exp'", "not yet valid", "'nbf'", "'iat'"]),
        (Cause::Signature, &["signature", "integrity", "no key", "jwk", "verify"]),
        (Cause::Subject, &["subject", "user", "account", "'sub'", "email"]),
        (Cause::Format, &["format", "malformed"]),
    ];
    table.into_iter().find(|(_, any)| any.iter().any(|word| words.contains(word))).map(|(cause, _)| cause)
}

/// Ory fosite's replay check: "The jti was already used." (`handler/rfc7523/handler.go`).
pub fn is_replay(code: &str, description: &str) -> bool {
    let words = format!("{code} {description}").to_ascii_lowercase();
    words.contains("jti") && words.contains("already")
}

/// Docker Desktop's proxy answers 403 for the metadata address, with a page that says "unreachable"
/// (azure-identity, `_credentials/imds.py`).
pub fn is_docker_desktop(body: &str) -> bool {
    body.contains("unreachable")
}
