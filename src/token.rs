//! The secrets this program exists for: what they are, how long they live, and how they stay unseen.
//!
//! Providers make [`IdentityToken`]s, the exchange makes [`AccessToken`]s, keepers hold both. Nothing
//! here does input or output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::Now;
use crate::error::{Error, Malformed, Part, Reason};
use crate::foreign_text;

mod claims;
pub mod text;

pub use claims::{Claims, Header};

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
    pub fn at_most(self, now: Now, life: Option<Duration>) -> Self {
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
    /// provider handed the token to us. What people and programs put around it is dropped ([`text::bare`]).
    ///
    /// Its `exp` is by the clock of its issuer, and W&B judges it by its own: both are right where ours is wrong, as
    /// far as `now` knows.
    pub fn parse_insecure(raw: &str, now: Now) -> Result<Self, Malformed> {
        if raw.len() > MAX_TEXT {
            return Err(Malformed::TooLong { length: raw.len(), limit: MAX_JWT });
        }
        let raw = text::bare(raw)?;
        if raw.len() > MAX_JWT {
            return Err(Malformed::TooLong { length: raw.len(), limit: MAX_JWT });
        }
        let mut parts = raw.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::NotThreeParts { count: raw.split('.').count() });
        };
        // Not by jsonwebtoken: it refuses a header with an algorithm that it does not know, which W&B may.
        let header: Header = decode(header, Part::Header)?;
        if header.alg.is_empty() {
            return Err(unusable("alg", "nothing", "the name of a signature algorithm"));
        }
        if header.alg.eq_ignore_ascii_case("none") || signature.is_empty() {
            return Err(Malformed::Unsigned);
        }
        let claims: Claims = decode(payload, Part::Claims)?;
        decode_bytes(signature).ok_or(Malformed::NotBase64 { part: Part::Signature })?;
        for (claim, wanted) in NEEDED {
            if let Some(found) = claims.odd(claim) {
                return Err(unusable(claim, found, wanted));
            }
        }
        let exp = claims.exp.ok_or(Malformed::NoExpiry)?;
        let exp = Timestamp::from_second(exp as i64).map_err(|_| Malformed::NoExpiry)?;
        let expiry = Expiry::at(now.to_local(exp), now).at_most(now, life(&claims));
        if expiry.remaining(now).is_zero() {
            return Err(Malformed::Expired { at: exp });
        }
        Ok(Self {
            jwt: Arc::new(Secret::new(raw.into_owned())),
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

    /// How long it is not valid yet (`nbf`), by the issuer's clock as far as `now` knows it; and from when it is.
    pub fn not_yet(&self, now: Now) -> Option<(Duration, Timestamp)> {
        let from = Timestamp::from_second(self.claims.nbf?.ceil() as i64).ok()?;
        let wait = Duration::try_from(now.to_local(from).duration_since(now.wall)).ok()?;
        (!wait.is_zero()).then_some((wait, from))
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

/// The whole life of a JWT, as it says. No clock that is wrong makes it longer.
fn life(claims: &Claims) -> Option<Duration> {
    let life = claims.exp? - claims.iat?;
    (life >= 1.0).then(|| Duration::try_from_secs_f64(life).ok()).flatten()
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
    renewal: Renewal,
}

impl AccessToken {
    pub fn new(secret: String, expiry: Expiry) -> Self {
        let hash = TokenHash::of(&secret);
        Self { secret: Arc::new(Secret::new(secret)), hash, expiry, renewal: Renewal::default() }
    }

    pub fn with_outlook(mut self, outlook: Option<Outlook>) -> Self {
        self.renewal.outlook = outlook;
        self
    }

    /// Asks for another no sooner than `margin` before its end.
    pub fn not_renewed_before(mut self, margin: Duration) -> Self {
        self.renewal.not_before_expiry = Some(margin);
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
        self.renewal.clone()
    }
}

/// SHA-256 of a token: names it without showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
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

/// A part of a JWT that is JSON.
fn decode<T: From<Map<String, Value>>>(encoded: &str, part: Part) -> Result<T, Malformed> {
    let json = decode_bytes(encoded).ok_or(Malformed::NotBase64 { part })?;
    let fields: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|_| Malformed::NotAnObject { part })?;
    Ok(fields.into())
}

fn decode_part(encoded: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode_bytes(encoded)?).ok()
}

fn decode_bytes(encoded: &str) -> Option<Zeroizing<Vec<u8>>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok().map(Zeroizing::new)
}

fn unusable(claim: &str, found: &str, wanted: &str) -> Malformed {
    Malformed::Claim { claim: claim.to_owned(), found: found.to_owned(), wanted: wanted.to_owned() }
}

/// Without these no server takes a JWT. What else is odd in one is for W&B to judge.
const NEEDED: [(&str, &str); 3] =
    [("exp", "a number of seconds"), ("iss", "text"), ("aud", "text or a list of texts")];

/// Longest text that is looked at: a JWT with white space in it, or something else altogether.
const MAX_TEXT: usize = 2 * MAX_JWT;

/// Longest identity token accepted. Real ones are 1 to 4 KiB; Entra ID with many groups reaches 10.
const MAX_JWT: usize = 64 * 1024;

/// More audiences than any JWT has.
const MAX_LISTED: usize = 16;

/// Longest foreign text in a message, in characters.
const MAX_SHOWN: usize = 300;

/// No token is believed for longer, whatever it says: keeps every sum in range.
const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests;
