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

/// Whether a failed look-up means that no name server answered, so that the name may well exist: EAI_AGAIN, in the words of
/// glibc and macOS, and of musl (gai_strerror(3), which is all that the standard library passes on).
pub fn is_lookup_without_answer(message: &str) -> bool {
    ["Temporary failure", "Try again", "temporary failure"].iter().any(|words| message.contains(words))
}

/// What a proxy that made no connection did, by the words of hyper-util 0.1 (`proxy/tunnel.rs`, `proxy/socks`): its errors are
/// of a type that it keeps to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyRefusal {
    WantsPassword,
    Refuses,
    HangsUp,
    /// The proxy itself was not reached.
    NotThere,
}

pub fn proxy_refusal(message: &str) -> Option<ProxyRefusal> {
    let rest = message.strip_prefix("tunnel error: ").or_else(|| message.strip_prefix("SOCKS error: "))?;
    Some(match rest {
        "proxy authorization required"
        | "credentials not accepted"
        | "server does not support user/pass authentication" => ProxyRefusal::WantsPassword,
        "unexpected end of file" => ProxyRefusal::HangsUp,
        "failed to create underlying connection" => ProxyRefusal::NotThere,
        _ => ProxyRefusal::Refuses,
    })
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
    /// A table with the name of one of the kinds belongs here.
    NotAKind,
    Other,
}

/// What is wrong with text that is not TOML, in the words of `toml_parser` 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TomlFault {
    DuplicateKey,
    /// Text that stands for itself.
    NoQuotes,
    NoClosingQuote,
    NoClosingBracket,
    LineEnds,
    /// A line that is neither a key with its value nor the head of a table.
    NoKey,
}

pub fn toml_fault(message: &str) -> Option<TomlFault> {
    let table: [(&str, TomlFault); 9] = [
        ("duplicate key", TomlFault::DuplicateKey),
        ("string values must be quoted", TomlFault::NoQuotes),
        ("invalid basic string, expected `\"`", TomlFault::NoClosingQuote),
        ("invalid literal string", TomlFault::NoClosingQuote),
        ("unclosed", TomlFault::NoClosingBracket),
        ("carriage return", TomlFault::LineEnds),
        ("key with no value", TomlFault::NoKey),
        ("invalid key-value pair", TomlFault::NoKey),
        ("invalid unquoted key", TomlFault::NoKey),
    ];
    table.into_iter().find(|(start, _)| message.starts_with(start)).map(|(_, fault)| fault)
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
    // `toml`'s own, for an enum.
    if ["wanted string or table", "wanted exactly 1 element"].iter().any(|start| message.starts_with(start)) {
        return DeserializeFault::NotAKind;
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
