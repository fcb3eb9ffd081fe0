//! What is stored of a session: the refresh token, whose it is, and when it ends.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::RelyingParty;
use crate::foreign_text;
use crate::token::{Outlook, Renewal, Secret, TokenHash};

/// Who is signed in, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub subject: String,
    pub account: Option<String>,
    pub since: Timestamp,
}

impl Person {
    /// E-mail address or name, or else the subject.
    pub fn name(&self) -> String {
        foreign_text::name(self.account.as_deref().unwrap_or(&self.subject))
    }
}

/// What the store holds, as JSON.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) version: u32,
    pub(super) refresh_token: Option<Zeroizing<String>>,
    /// Only where there is no refresh token: all there is of the session.
    pub(super) id_token: Option<Zeroizing<String>>,
    pub(super) subject: String,
    pub(super) account: Option<String>,
    pub(super) signed_in_at: Timestamp,
    /// When the refresh token ends, and when that was learned.
    pub(super) refresh_ends: Option<(Timestamp, Timestamp)>,
    /// When the session ends whatever happens, if that can be told.
    pub(super) session_ends: Option<Timestamp>,
}

impl Saved {
    /// What another program may have left there instead counts as nothing; what a newer version stored is an error: that
    /// version's number.
    pub(super) fn from_json(json: &Secret<String>) -> Result<Option<Self>, u32> {
        #[derive(Deserialize)]
        struct Format {
            version: u32,
        }
        match serde_json::from_str(json.expose()) {
            Ok(Format { version }) if version > VERSION => Err(version),
            _ => Ok(serde_json::from_str(json.expose()).ok()),
        }
    }

    /// Made in one piece: a buffer that grows leaves copies behind.
    pub(super) fn to_json(&self) -> Secret<String> {
        let text = |text: &Option<Zeroizing<String>>| text.as_ref().map_or(0, |text| text.len());
        let account = self.account.as_ref().map_or(0, String::len);
        // Every byte of a name may need an escape of six.
        let size =
            text(&self.refresh_token) + text(&self.id_token) + 6 * (self.subject.len() + account) + 512;
        let mut json = Vec::with_capacity(size);
        serde_json::to_writer(&mut json, self).expect("plain data");
        Secret::new(String::from_utf8(json).expect("JSON is text"))
    }

    pub(super) fn refresh_hash(&self) -> Option<TokenHash> {
        self.refresh_token.as_ref().map(|token| TokenHash::of(token))
    }

    pub(super) fn person(&self) -> Person {
        Person { subject: self.subject.clone(), account: self.account.clone(), since: self.signed_in_at }
    }

    /// A refresh token whose end does not move when it is renewed belongs to a session with a fixed end.
    pub(super) fn learn_end(&mut self, life: Option<Duration>, now: Timestamp) {
        let Some(end) = life.map(|life| now + life) else { return };
        if let Some((before, learned)) = self.refresh_ends {
            let passed = now.duration_since(learned);
            if passed < END_MOVES {
                return;
            }
            self.session_ends = (end.duration_since(before) < passed / 2).then_some(end);
        }
        self.refresh_ends = Some((end, now));
    }

    pub(super) fn renewal(&self, party: &RelyingParty) -> Renewal {
        let issuer = party.settings.issuer.as_str();
        if self.refresh_token.is_none() {
            let until = self
                .id_token
                .as_ref()
                .and_then(|raw| {
                    jsonwebtoken::dangerous::insecure_decode::<crate::token::Claims>(raw.as_str()).ok()
                })
                .and_then(|token| Timestamp::from_second(token.claims.exp? as i64).ok());
            return Renewal {
                // There is nothing to ask for before it expires.
                not_before_expiry: Some(Duration::ZERO),
                outlook: until.map(|until| Outlook {
                    until,
                    reason: format!("{issuer} gave no refresh token with this sign-in").into(),
                }),
            };
        }
        Renewal {
            not_before_expiry: None,
            outlook: self
                .session_ends
                .map(|until| Outlook { until, reason: format!("the session at {issuer} ends then").into() }),
        }
    }
}

pub(super) const VERSION: u32 = 1;

/// Two ends seen closer together than this say nothing about whether the end moves.
const END_MOVES: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
