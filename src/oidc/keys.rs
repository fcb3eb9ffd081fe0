//! An issuer's public keys (RFC 7517), and whether one of them made a JWT's signature. `login` and the doctor both ask
//! here, so they agree.

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::json::{self, Fault, Object};

/// The keys of a set that can check a signature. One that cannot be used, or is of a kind that is not known here, does
/// not hide the others.
#[derive(Clone)]
pub struct KeySet(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

/// Why a signature is not known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// Made with a shared secret, or not at all.
    NotPublic,
    /// By an algorithm that this program cannot check.
    UnknownAlgorithm,
    /// The set has no key of that id.
    NoSuchKey,
    /// None of the keys made it.
    Mismatch,
}

impl KeySet {
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        let set = Object::parse(text)?;
        match set.value("keys") {
            Some(Value::Array(keys)) => Ok(Self(keys.iter().filter_map(Key::read).collect())),
            Some(other) => Err(Fault::wrong("keys", other, "a list of keys")),
            None => Err(Fault::Missing("keys")),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ids(&self) -> Vec<&str> {
        self.0.iter().filter_map(|key| key.id.as_deref()).collect()
    }

    /// Whether a key of this set signed `jwt`, by the algorithm and with the key id of its header.
    pub fn check(&self, jwt: &str, algorithm: &str, id: Option<&str>) -> Result<(), Unverified> {
        if algorithm.eq_ignore_ascii_case("none") || algorithm.to_ascii_uppercase().starts_with("HS") {
            return Err(Unverified::NotPublic);
        }
        let algorithm: Algorithm = algorithm.parse().map_err(|_| Unverified::UnknownAlgorithm)?;
        // Keys without an id are tried too: what counts is the signature.
        let candidates =
            || self.0.iter().filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id);
        if candidates().next().is_none() {
            return Err(Unverified::NoSuchKey);
        }
        let (message, signature) = jwt.rsplit_once('.').ok_or(Unverified::Mismatch)?;
        // The library refuses a key of another family than the algorithm's.
        let signed = candidates().filter(|key| key.is_for(algorithm)).any(|key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm).unwrap_or(false)
        });
        if signed { Ok(()) } else { Err(Unverified::Mismatch) }
    }
}

impl Key {
    fn read(jwk: &Value) -> Option<Self> {
        let text = |field: &str| jwk.get(field).and_then(json::text).filter(|text| !text.is_empty());
        if text("use").is_some_and(|purpose| !purpose.eq_ignore_ascii_case("sig")) {
            return None;
        }
        // Some publish plain base64, or pad it.
        let number =
            |field: &str| Some(text(field)?.trim_end_matches('=').replace('+', "-").replace('/', "_"));
        let key = match &*text("kty")? {
            "RSA" => DecodingKey::from_rsa_components(&number("n")?, &number("e")?),
            "EC" => DecodingKey::from_ec_components(&number("x")?, &number("y")?),
            "OKP" => DecodingKey::from_ed_components(&number("x")?),
            _ => return None,
        };
        let owned = |field| text(field).map(std::borrow::Cow::into_owned);
        Some(Self { id: owned("kid"), algorithm: owned("alg"), key: key.ok()? })
    }

    /// A key may be meant for one algorithm only.
    fn is_for(&self, wanted: Algorithm) -> bool {
        self.algorithm
            .as_deref()
            .and_then(|own| own.parse::<Algorithm>().ok())
            .is_none_or(|own| own == wanted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oidc::test::Signer;

    #[test]
    fn an_odd_key_hides_no_other() {
        let signer = Signer::new();
        let set = json!({"keys": [
            7, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "PQ"}, {"kty": "RSA", "n": {}, "e": "AQAB"}, signer.jwk(),
        ]});
        let set = KeySet::parse(set.to_string().as_bytes()).expect("a key set");
        assert_eq!(set.ids(), ["k1"]);
        assert_eq!(set.check(&signer.sign(&json!({})), "ES256", Some("k1")), Ok(()));
    }

    #[test]
    fn only_a_published_key_of_the_right_kind_counts() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let set = KeySet::parse(json!({"keys": [signer.jwk()]}).to_string().as_bytes()).expect("a key set");
        let (good, foreign) = (signer.sign(&json!({})), stranger.sign(&json!({})));
        for (jwt, algorithm, id, verdict) in [
            (&good, "ES256", None, Ok(())),
            (&foreign, "ES256", Some("k1"), Err(Unverified::Mismatch)),
            (&good, "RS256", Some("k1"), Err(Unverified::Mismatch)),
            (&good, "ES256", Some("k2"), Err(Unverified::NoSuchKey)),
            (&good, "HS256", Some("k1"), Err(Unverified::NotPublic)),
            (&good, "none", Some("k1"), Err(Unverified::NotPublic)),
            (&good, "ML-DSA-44", Some("k1"), Err(Unverified::UnknownAlgorithm)),
        ] {
            assert_eq!(set.check(jwt, algorithm, id), verdict, "{algorithm} {id:?}");
        }
    }

    #[test]
    fn a_key_set_without_keys_is_refused_by_name() {
        let said = |text: &[u8]| KeySet::parse(text).err().expect("refused").to_string();
        assert_eq!(said(b"{}"), "has no `keys`");
        assert_eq!(said(br#"{"keys":{}}"#), "has an object in `keys` where a list of keys is needed");
    }
}
