//! The access tokens: issued by the exchange, sent as Bearer to the W&B half, revoked by tests.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::idp::random_text;

#[derive(Default)]
pub(super) struct Tokens {
    issued: HashMap<String, Token>,
    last: u64,
    used: u64,
}

struct Token {
    /// Counts from 1 in the order of issue; identifies the token in the statistics without revealing it.
    serial: u64,
    expires: Timestamp,
    revoked: bool,
    used: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Missing,
    /// Basic authentication with an access token as password: real servers refuse it.
    AccessTokenAsBasic,
    /// Basic authentication with an API key; the sandbox has none.
    ApiKey,
    Unknown,
    Expired,
    Revoked,
}

impl Refusal {
    /// The key in the statistics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::AccessTokenAsBasic => "access-token-as-basic",
            Self::ApiKey => "api-key",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Tokens {
    pub(super) fn issue(&mut self, now: Timestamp, life: Duration) -> String {
        if self.issued.len() >= MAX_TOKENS {
            self.issued.retain(|_, token| token.expires > now && !token.revoked);
        }
        if self.issued.len() >= MAX_TOKENS {
            self.issued.clear();
        }
        let text = format!("{PREFIX}{}", random_text(32));
        self.last += 1;
        let token = Token { serial: self.last, expires: now + life, revoked: false, used: false };
        self.issued.insert(text.clone(), token);
        text
    }

    /// Checks an `Authorization` header. Returns the token's serial number.
    pub(super) fn check(&mut self, header: Option<&str>, now: Timestamp) -> Result<u64, Refusal> {
        let (scheme, value) = header.and_then(|header| header.split_once(' ')).ok_or(Refusal::Missing)?;
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(value.trim()).unwrap_or_default();
            let decoded = String::from_utf8_lossy(&decoded);
            let password = decoded.split_once(':').map_or("", |(_, password)| password);
            let token = password.starts_with(PREFIX);
            return Err(if token { Refusal::AccessTokenAsBasic } else { Refusal::ApiKey });
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Missing);
        }
        let token = self.issued.get_mut(value.trim()).ok_or(Refusal::Unknown)?;
        if token.revoked {
            return Err(Refusal::Revoked);
        }
        if token.expires <= now {
            return Err(Refusal::Expired);
        }
        if !token.used {
            token.used = true;
            self.used += 1;
        }
        Ok(token.serial)
    }

    /// Revokes all tokens issued so far. Returns how many were still good.
    pub(super) fn revoke(&mut self, now: Timestamp) -> usize {
        let good = self.issued.values_mut().filter(|token| !token.revoked && token.expires > now);
        good.map(|token| token.revoked = true).count()
    }

    /// How many were issued, and how many of these were ever used.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.last, self.used)
    }
}

/// What real access tokens begin with.
const PREFIX: &str = "wb_at_";

const MAX_TOKENS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_token_is_good_as_bearer_until_it_expires() {
        let mut tokens = Tokens::default();
        let bearer = format!("Bearer {}", tokens.issue(at(0), LIFE));
        assert_eq!(tokens.check(Some(&bearer), at(59)), Ok(1));
        assert_eq!(tokens.check(Some(&bearer), at(60)), Err(Refusal::Expired));
        assert_eq!(tokens.counts(), (1, 1));
    }

    #[test]
    fn a_token_sent_as_basic_is_refused() {
        let mut tokens = Tokens::default();
        let basic = format!("Basic {}", STANDARD.encode(format!("api:{}", tokens.issue(at(0), LIFE))));
        assert_eq!(tokens.check(Some(&basic), at(1)), Err(Refusal::AccessTokenAsBasic));
        assert_eq!(tokens.counts(), (1, 0));
    }

    #[test]
    fn revoking_affects_only_the_tokens_issued_so_far() {
        let mut tokens = Tokens::default();
        let old = format!("Bearer {}", tokens.issue(at(0), LIFE));
        assert_eq!(tokens.revoke(at(1)), 1);
        let new = format!("Bearer {}", tokens.issue(at(1), LIFE));
        assert_eq!(tokens.check(Some(&old), at(2)), Err(Refusal::Revoked));
        assert_eq!(tokens.check(Some(&new), at(2)), Ok(2));
    }
}
