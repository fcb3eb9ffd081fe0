//! What the words of other people's servers mean. The only place that searches text, and only theirs.

use serde::{Deserialize, Serialize};

use super::NetworkFault;

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

/// Why a proxy made no connection, by the words of hyper-util's errors, which have no public type (0.1.21,
/// `connect/proxy/tunnel.rs` and `connect/proxy/socks/v5/errors.rs`).
pub fn proxy_fault(message: &str) -> Option<NetworkFault> {
    let (kind, said) = message.split_once(" error: ")?;
    match (kind, said) {
        ("tunnel", "proxy authorization required")
        | ("SOCKS", "credentials not accepted" | "server does not support user/pass authentication") => {
            Some(NetworkFault::ProxyPassword)
        }
        ("tunnel", "unsuccessful") => Some(NetworkFault::ProxyRefuses),
        _ => None,
    }
}

/// Docker Desktop's proxy answers 403 for the metadata address, with a page that says "unreachable"
/// (azure-identity, `_credentials/imds.py`).
pub fn is_docker_desktop(body: &str) -> bool {
    body.contains("unreachable")
}

/// What serde and `toml` say about a value that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub enum DeserializeFault<'a> {
    UnknownKey {
        found: &'a str,
        known: Vec<&'a str>,
    },
    UnknownVariant {
        found: &'a str,
        known: Vec<&'a str>,
    },
    MissingKey(&'a str),
    /// What was expected. serde repeats the value that was there, which may be a secret.
    WrongValue {
        expected: Option<&'a str>,
    },
    Other,
}

/// Reads the default messages of `serde::de::Error` (serde_core, `src/de/mod.rs`: `unknown_field`, `unknown_variant`,
/// `missing_field`, `invalid_type`, `invalid_value`): serde passes on no more than the text. Names are between backquotes.
pub fn deserialize_fault(message: &str) -> DeserializeFault<'_> {
    let mut names = message.split('`').skip(1).step_by(2);
    let wrong_value = ["invalid type", "invalid value"].iter().any(|start| message.starts_with(start));
    if wrong_value {
        let expected = message.split_once("expected ").map(|(_, expected)| expected);
        return DeserializeFault::WrongValue { expected };
    }
    let Some(found) = names.next() else { return DeserializeFault::Other };
    if message.starts_with("unknown field") {
        DeserializeFault::UnknownKey { found, known: names.collect() }
    } else if message.starts_with("unknown variant") {
        DeserializeFault::UnknownVariant { found, known: names.collect() }
    } else if message.starts_with("missing field") {
        DeserializeFault::MissingKey(found)
    } else {
        DeserializeFault::Other
    }
}

#[cfg(test)]
mod tests {
    use serde::de::Error as _;

    use super::*;

    /// Made by serde itself, so that another version's words fail here.
    #[test]
    fn serdes_messages_are_understood() {
        use serde::de::Unexpected;
        type E = serde::de::value::Error;
        let message = E::unknown_field("audeince", &["audience", "provider"]).to_string();
        let known = vec!["audience", "provider"];
        assert_eq!(deserialize_fault(&message), DeserializeFault::UnknownKey { found: "audeince", known });
        let message = E::unknown_variant("fiel", &["file"]).to_string();
        let fault = DeserializeFault::UnknownVariant { found: "fiel", known: vec!["file"] };
        assert_eq!(deserialize_fault(&message), fault);
        let message = E::missing_field("provider").to_string();
        assert_eq!(deserialize_fault(&message), DeserializeFault::MissingKey("provider"));
        for message in [
            E::invalid_type(Unexpected::Str("planted"), &"a number"),
            E::invalid_value(Unexpected::Str("planted"), &"a number"),
        ] {
            let fault = DeserializeFault::WrongValue { expected: Some("a number") };
            assert_eq!(deserialize_fault(&message.to_string()), fault);
        }
        assert_eq!(deserialize_fault("`soon` is not a duration"), DeserializeFault::Other);
    }
}
