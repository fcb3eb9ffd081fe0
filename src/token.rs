//! The secrets this program exists for: what they are, how long they live, and how they stay unseen.
//!
//! Providers make [`IdentityToken`]s, the exchange makes [`AccessToken`]s, keepers hold both. Nothing
//! here does input or output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::Now;
use crate::error::{Error, Malformed, Reason};
use crate::foreign_text;

/// A value that must not be seen: no `Display`, a redacted `Debug`, zeroed when dropped.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The one way in. Every call site is a place to check in a security review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a keeper needs to know of the thing it keeps.
pub trait Expires: Clone + Send + Sync + 'static {
    fn expiry(&self) -> Expiry;
    fn hash(&self) -> TokenHash;
    /// How the source of this token wants to be asked again.
    fn renewal(&self) -> Renewal {
        Renewal::default()
    }
}

/// When a token stops being valid, by the wall clock and by the boot clock.
///
/// Two clocks because each can be wrong alone: the wall clock steps, the boot clock does not move while a
/// virtual machine is snapshot. A token is good only while both say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    wall: Timestamp,
    boot: Duration,
}

impl Expiry {
    /// `life` counted from `from`, for answers that say "expires in".
    pub fn after(from: Now, life: Duration) -> Self {
        let life = life.min(MAX_LIFE);
        Self { wall: from.wall + life, boot: from.boot + life }
    }

    /// An absolute instant as the token states it, seen at `now`.
    pub fn at(wall: Timestamp, now: Now) -> Self {
        let life = Duration::try_from(wall.duration_since(now.wall)).unwrap_or_default();
        Self { wall, boot: now.boot + life.min(MAX_LIFE) }
    }

    /// The same, no later than `life` after `now`.
    fn at_most(self, now: Now, life: Option<Duration>) -> Self {
        let Some(end) = life.map(|life| Self::after(now, life)) else { return self };
        Self { wall: self.wall.min(end.wall), boot: self.boot.min(end.boot) }
    }

    /// Life left; zero once less than a second is left, since such a token is expired for every purpose.
    pub fn remaining(&self, now: Now) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(now.wall)).unwrap_or_default();
        let left = wall.min(self.boot.saturating_sub(now.boot));
        if left < Duration::from_secs(1) { Duration::ZERO } else { left }
    }

    pub fn wall(&self) -> Timestamp {
        self.wall
    }
}

/// A JWT from the user's identity provider: the assertion of the exchange.
#[derive(Clone, Debug)]
pub struct IdentityToken {
    jwt: Arc<Secret<String>>,
    header: Arc<Header>,
    claims: Arc<Claims>,
    expiry: Expiry,
    renewal: Renewal,
}

impl IdentityToken {
    /// Reads a compact JWS and its claims **without** checking the signature: W&B does that, and the
    /// provider handed the token to us. White space around it is dropped.
    ///
    /// Its `exp` is by the clock of its issuer, and W&B judges it by its own: both are right where ours is wrong, as
    /// far as `now` knows.
    pub fn parse_insecure(raw: &str, now: Now) -> Result<Self, Malformed> {
        let raw = raw.trim();
        if raw.is_empty() {
            return Err(Malformed::Empty);
        }
        if raw.len() > MAX_JWT {
            return Err(Malformed::TooLong { length: raw.len(), limit: MAX_JWT });
        }
        let parts: Vec<_> = raw.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(Malformed::NotThreeParts { count: parts.len() });
        };
        // Not by jsonwebtoken: it refuses a header with an algorithm that it does not know, which W&B may.
        let header: Header = decode(header)?;
        if header.alg.eq_ignore_ascii_case("none") || signature.is_empty() {
            return Err(Malformed::Unsigned);
        }
        let claims: Claims = decode(payload)?;
        let exp = claims.exp.ok_or(Malformed::NoExpiry)?;
        let exp = Timestamp::from_second(exp as i64).map_err(|_| Malformed::NoExpiry)?;
        let expiry = Expiry::at(now.to_local(exp), now).at_most(now, life(&claims));
        if expiry.remaining(now).is_zero() {
            return Err(Malformed::Expired { at: exp });
        }
        Ok(Self {
            jwt: Arc::new(Secret::new(raw.to_owned())),
            header: Arc::new(header),
            claims: Arc::new(claims),
            expiry,
            renewal: Renewal::default(),
        })
    }

    /// Says how the source wants to be asked again; providers call it on what they return.
    pub fn with_renewal(mut self, renewal: Renewal) -> Self {
        self.renewal = renewal;
        self
    }

    /// Whether it is for `wanted`, the audience in `profile`'s configuration, if that names one. W&B would refuse it
    /// otherwise, and say less.
    pub fn check_audience(&self, profile: &str, wanted: Option<&str>) -> Result<(), Error> {
        let found = &self.claims.aud;
        match wanted {
            Some(wanted) if !found.iter().any(|one| one == wanted) => {
                // Not redacted: an audience can look like a secret, but is not one.
                let listed = foreign_text::clean(&found.join("`, `"), MAX_SHOWN);
                let shown =
                    if found.is_empty() { "no audience".to_owned() } else { format!("audience `{listed}`") };
                let message = format!("the JWT has {shown}, but [profile.{profile}] expects `{wanted}`");
                let found = found.iter().take(MAX_LISTED).map(|one| foreign_text::name(one)).collect();
                let wanted = wanted.to_owned();
                Err(Error::misconfigured(message).because(Reason::AudienceMismatch { found, wanted }))
            }
            _ => Ok(()),
        }
    }

    pub fn jwt(&self) -> &Secret<String> {
        &self.jwt
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl Expires for IdentityToken {
    fn expiry(&self) -> Expiry {
        self.expiry
    }

    fn hash(&self) -> TokenHash {
        TokenHash::of(self.jwt.expose())
    }

    fn renewal(&self) -> Renewal {
        self.renewal.clone()
    }
}

/// How the JWT says that it is signed.
#[derive(Clone, Debug, Deserialize)]
pub struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: Option<String>,
}

/// The whole life of a JWT, as it says. No clock that is wrong makes it longer.
fn life(claims: &Claims) -> Option<Duration> {
    let life = claims.exp? - claims.iat?;
    (life >= 1.0).then(|| Duration::try_from_secs_f64(life).ok()).flatten()
}

/// The claims W&B looks at. Unknown ones are kept for the subject rule (any claim with "email").
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub iss: Option<String>,
    pub sub: Option<String>,
    pub email: Option<String>,
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Seconds since the epoch; a JSON number that may carry a fraction (RFC 7519, section 2, NumericDate).
    pub exp: Option<f64>,
    pub iat: Option<f64>,
    pub jti: Option<String>,
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Claims {
    /// The subject as W&B (server 0.74.0 and later) finds it: `sub`, then `email`, then any claim whose name
    /// contains "email".
    pub fn subject(&self) -> Option<&str> {
        let named = || self.other.iter().find(|(name, _)| name.contains("email"))?.1.as_str();
        self.sub.as_deref().or(self.email.as_deref()).or_else(named)
    }
}

/// How a source wants to be asked again, said by the provider with each token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// Ask no sooner than this before expiry: the source caches, and would answer the same token.
    pub not_before_expiry: Option<Duration>,
    /// From when on the source can give no further token, and why.
    pub outlook: Option<Outlook>,
}

/// A source that will run dry, announced from the first minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// No new identity token after this instant.
    pub until: Timestamp,
    /// Why, in words for the user.
    pub reason: Arc<str>,
}

/// A W&B access token: the thing callers get.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: Arc<Secret<String>>,
    hash: TokenHash,
    expiry: Expiry,
    outlook: Option<Outlook>,
}

impl AccessToken {
    pub fn new(secret: String, expiry: Expiry) -> Self {
        let hash = TokenHash::of(&secret);
        Self { secret: Arc::new(Secret::new(secret)), hash, expiry, outlook: None }
    }

    pub fn with_outlook(mut self, outlook: Option<Outlook>) -> Self {
        self.outlook = outlook;
        self
    }

    pub fn secret(&self) -> &Secret<String> {
        &self.secret
    }
}

impl Expires for AccessToken {
    fn expiry(&self) -> Expiry {
        self.expiry
    }

    fn hash(&self) -> TokenHash {
        self.hash
    }

    fn renewal(&self) -> Renewal {
        Renewal { not_before_expiry: None, outlook: self.outlook.clone() }
    }
}

/// SHA-256 of a token: names it without showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads the hexadecimal form; `None` unless it is 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Malformed> {
    use base64::Engine as _;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    let json = Zeroizing::new(json.map_err(|_| Malformed::NotDecodable)?);
    serde_json::from_slice(&json).map_err(|_| Malformed::NotDecodable)
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Aud {
        None,
        One(String),
        Many(Vec<String>),
    }
    Ok(match Aud::deserialize(input)? {
        Aud::None => Vec::new(),
        Aud::One(one) => vec![one],
        Aud::Many(many) => many,
    })
}

/// Longest identity token accepted. Real ones are 1 to 4 KiB; Entra ID with many groups reaches 10.
const MAX_JWT: usize = 64 * 1024;

/// More audiences than any JWT has.
const MAX_LISTED: usize = 16;

/// Longest foreign text in a message, in characters.
const MAX_SHOWN: usize = 300;

/// No token is believed for longer, whatever it says: keeps every sum in range.
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Now {
        let wall = Timestamp::from_second(1_800_000_000).expect("in range");
        Now { wall, boot: Duration::from_secs(500), skew: 0 }
    }

    fn jwt(payload: &str) -> String {
        use base64::Engine as _;
        let b64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        format!("{}.{}.c2ln", b64.encode(r#"{"alg":"RS256"}"#), b64.encode(payload))
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = IdentityToken::parse_insecure(&jwt(r#"{"exp":1800000100,"sub":"me"}"#), now());
        let token = token.expect("valid");
        assert!(!format!("{token:?}").contains("c2ln"));
        let access = AccessToken::new("wb_at_planted".into(), token.expiry());
        assert!(!format!("{access:?}").contains("planted"));
    }

    #[test]
    fn audience_is_one_or_many_or_absent() {
        for (json, want) in [
            (r#"{"exp":1800000100,"aud":"a"}"#, vec!["a"]),
            (r#"{"exp":1800000100,"aud":["a","b"]}"#, vec!["a", "b"]),
            (r#"{"exp":1800000100}"#, vec![]),
        ] {
            let token = IdentityToken::parse_insecure(&jwt(json), now()).expect("valid");
            assert_eq!(token.claims().aud, want);
        }
    }

    #[test]
    fn each_malformed_text_has_its_own_error() {
        let parse = |raw: &str| IdentityToken::parse_insecure(raw, now()).expect_err("malformed");
        assert_eq!(parse(" \n"), Malformed::Empty);
        assert_eq!(parse("opaque"), Malformed::NotThreeParts { count: 1 });
        assert_eq!(parse("a.b.c"), Malformed::NotDecodable);
        assert_eq!(parse("eyJhbGciOiJub25lIn0.e30.c2ln"), Malformed::Unsigned);
        assert_eq!(parse("eyJhbGciOiJSUzI1NiJ9.e30."), Malformed::Unsigned);
        assert_eq!(parse(&jwt("{}")), Malformed::NoExpiry);
        assert_eq!(parse(&jwt(r#"{"exp":1e300}"#)), Malformed::NoExpiry);
        assert!(matches!(parse(&jwt(r#"{"exp":1}"#)), Malformed::Expired { .. }));
        assert!(matches!(parse(&"x".repeat(MAX_JWT + 1)), Malformed::TooLong { .. }));
    }

    #[test]
    fn the_issuers_clock_decides_when_a_jwt_ends() {
        let life = |skew| {
            let now = Now { skew, ..now() };
            let token = IdentityToken::parse_insecure(&jwt(r#"{"exp":1800000100}"#), now);
            token.map(|token| token.expiry().remaining(now).as_secs())
        };
        assert_eq!(life(0), Ok(100));
        assert_eq!(life(-600), Ok(700), "we are ten minutes ahead");
        assert!(matches!(life(100), Err(Malformed::Expired { .. })), "we are behind");
    }

    #[test]
    fn no_clock_lengthens_the_life_that_a_jwt_says() {
        for (skew, exp, iat, left) in [
            (0, 1_800_000_100_i64, 1_799_999_800_i64, 100),
            // We are ten minutes ahead: it ended long ago by our clock, and never lived longer than 300 s.
            (-600, 1_800_000_100, 1_799_999_800, 300),
            // Our clock is three hours slow, and no server's word counts.
            (0, 1_800_010_800 + 3600, 1_800_010_800, 3600),
            (0, 1_800_000_100, 1_800_000_100, 100),
            (0, 1_800_000_100, 1_900_000_000, 100),
        ] {
            let now = Now { skew, ..now() };
            let token = IdentityToken::parse_insecure(&jwt(&format!(r#"{{"exp":{exp},"iat":{iat}}}"#)), now);
            assert_eq!(token.expect("valid").expiry().remaining(now).as_secs(), left, "{skew} {exp} {iat}");
        }
    }

    #[test]
    fn the_stricter_clock_decides() {
        let expiry = Expiry::after(now(), Duration::from_secs(100));
        let mut later = now();
        assert_eq!(expiry.remaining(later), Duration::from_secs(100));
        later.boot += Duration::from_secs(60);
        assert_eq!(expiry.remaining(later), Duration::from_secs(40), "wall clock stood still");
        later.wall += Duration::from_secs(99);
        assert_eq!(expiry.remaining(later), Duration::from_secs(1));
        later.wall += Duration::from_millis(1);
        assert_eq!(expiry.remaining(later), Duration::ZERO, "under a second is expired");
    }

    #[test]
    fn token_hashes_parse_what_they_print() {
        let hash = TokenHash::of("x");
        assert_eq!(TokenHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(TokenHash::parse("zz"), None);
        assert_eq!(TokenHash::parse(&"é".repeat(32)), None);
    }
}
