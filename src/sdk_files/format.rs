//! What an unmodified W&B SDK expects in its two files, byte for byte.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Now;
use crate::profile::BaseUrl;
use crate::token::{AccessToken, Expires as _, Expiry, IdentityToken};

/// The bare JWT, without a newline: SDKs up to 0.28.0 send the file's content as it is.
pub(super) fn identity_token(token: &IdentityToken) -> &[u8] {
    token.jwt().expose().as_bytes()
}

/// In place of a JWT, where only access tokens come. wandb 0.31.0 makes no exchange on it.
pub(super) const RELAY: &str = "relay";

/// `credentials.json` with `token` for `base_url`.
pub(super) fn credentials(token: &AccessToken, base_url: &BaseUrl) -> Zeroizing<Vec<u8>> {
    credentials_of_all(&[(base_url, token)])
}

/// The same for several servers.
pub(super) fn credentials_of_all(tokens: &[(&BaseUrl, &AccessToken)]) -> Zeroizing<Vec<u8>> {
    let entry = |token: &AccessToken| Entry {
        expires_at: expires_at(token.expiry().wall()),
        access_token: token.secret().expose().clone(),
    };
    let keys = tokens.iter().flat_map(|(base_url, token)| {
        base_url.spellings().into_iter().map(|key| (key.to_owned(), entry(token)))
    });
    let credentials = keys.collect();
    serde_json::to_vec(&Credentials { credentials }).expect("strings always serialise").into()
}

/// The token for `base_url` in a `credentials.json` that we wrote.
pub(super) fn parse_credentials(json: &[u8], base_url: &BaseUrl, now: Now) -> Option<AccessToken> {
    let parsed: Credentials = serde_json::from_slice(json).ok()?;
    let entry = parsed.credentials.into_iter().find(|(key, _)| key == base_url.as_str())?.1;
    let expires_at = jiff::civil::DateTime::strptime(EXPIRES_AT, &entry.expires_at).ok()?;
    let expires_at = expires_at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(AccessToken::new(entry.access_token, Expiry::at(expires_at, now)))
}

/// The SDK's own format and nothing more: after anything malformed or unknown the SDK exchanges by itself.
#[derive(Serialize, Deserialize)]
struct Credentials {
    credentials: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    expires_at: String,
    access_token: String,
}

/// UTC without zone or fraction (Go reads fractions, Python does not), rounded down.
fn expires_at(at: Timestamp) -> String {
    at.strftime(EXPIRES_AT).to_string()
}

const EXPIRES_AT: &str = "%Y-%m-%d %H:%M:%S";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn credentials_are_exactly_the_sdks_format() {
        let wall = "2026-11-21T19:54:13.987Z".parse().expect("a time");
        let now = Now { wall, boot: Duration::from_secs(1), skew: 0 };
        let token = AccessToken::new("wb_at_x\"y".into(), Expiry::after(now, Duration::from_secs(3600)));
        let json = credentials(&token, &BaseUrl::default());
        let want = r#"{"credentials":{"https://api.forge.coreweave.com":{"expires_at":"2026-11-21 20:54:13","access_token":"wb_at_x\"y"},"https://api.wandb.ai":{"expires_at":"2026-11-21 20:54:13","access_token":"wb_at_x\"y"}}}"#;
        assert_eq!(std::str::from_utf8(&json), Ok(want));
    }
}
