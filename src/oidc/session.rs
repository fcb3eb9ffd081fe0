//! One person's sign-in for one profile: the one owner of its refresh token.
//!
//! The provider asks it for identity tokens, `login` stores a new sign-in and removes it. A refresh token
//! that rotates can be redeemed once: so redeeming and storing happen under one lock, in a task that no
//! cancelled caller cuts short, and the new refresh token is in the store before the ID token beside it is
//! handed out. Where the store does not take it, both are kept in memory and offered to the store again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

use super::error::{transient, untrusted};
use super::{RelyingParty, Tokens};
use crate::clock::Clock;
use crate::error::{Error, Kind, Reason, Stage};
use crate::foreign_text;
use crate::secrets::{self, Key, Presence, Store};
use crate::token::{IdentityToken, Outlook, Renewal, Secret, TokenHash};

/// The sign-in of one profile.
pub struct Session {
    pub party: RelyingParty,
    store: Store,
    key: Key,
    clock: Clock,
    inner: Mutex<Inner>,
    person: watch::Sender<Option<Person>>,
    changes: watch::Sender<Change>,
}

/// What a person has done last; the number tells one from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    #[default]
    None,
    SignedIn(u64),
    SignedOut(u64),
}

impl Change {
    fn next(self) -> u64 {
        match self {
            Self::None => 1,
            Self::SignedIn(n) | Self::SignedOut(n) => n + 1,
        }
    }
}

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

/// What signing out did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOut {
    pub person: Option<Person>,
    /// Whether the provider has ended the session too; `Err` says why not.
    pub revoked: Result<bool, String>,
}

#[derive(Default)]
struct Inner {
    /// Redeemed, but not confirmed by the store yet.
    unsaved: Option<Saved>,
    /// An ID token that came with a sign-in, or with an unsaved refresh: handed out before asking for more.
    ready: Option<IdentityToken>,
    /// The refresh token that the provider has refused, by hash, and its words: it is not asked again.
    refused: Option<(TokenHash, String)>,
}

/// What the store holds, as JSON.
#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    version: u32,
    refresh_token: Option<Zeroizing<String>>,
    /// Only where there is no refresh token: all there is of the session.
    id_token: Option<Zeroizing<String>>,
    subject: String,
    account: Option<String>,
    signed_in_at: Timestamp,
    /// When the refresh token ends, and when that was learned.
    refresh_ends: Option<(Timestamp, Timestamp)>,
    /// When the session ends whatever happens, if that can be told.
    session_ends: Option<Timestamp>,
}

impl Session {
    pub fn new(party: RelyingParty, store: Store, clock: Clock) -> Self {
        let key = Key {
            profile: party.settings.profile.clone(),
            issuer: party.settings.issuer.as_str().to_owned(),
            client_id: party.settings.client_id.clone(),
        };
        let (person, changes) = (watch::Sender::new(None), watch::Sender::default());
        Self { party, store, key, clock, inner: Mutex::default(), person, changes }
    }

    pub fn profile(&self) -> &str {
        &self.key.profile
    }

    /// Who is signed in, as far as is known: this asks nobody.
    pub fn person(&self) -> watch::Receiver<Option<Person>> {
        self.person.subscribe()
    }

    /// Sign-ins and sign-outs.
    pub fn changes(&self) -> watch::Receiver<Change> {
        self.changes.subscribe()
    }

    /// One attempt at a fresh identity token.
    pub async fn identity(self: &Arc<Self>) -> Result<IdentityToken, Error> {
        let this = self.clone();
        // A task of its own: a waiting caller may be cancelled, but a redeemed token must reach the store.
        tokio::spawn(async move { this.attempt().await })
            .await
            .unwrap_or_else(|_| Err(transient("the refresh was interrupted")))
    }

    /// Waits for an attempt under way, so that the daemon does not stop between redeeming and storing.
    pub async fn drain(&self) {
        drop(self.inner.lock().await);
    }

    /// A person has signed in. The sign-in counts only when the store has it.
    pub async fn signed_in(&self, tokens: Tokens) -> Result<Person, Error> {
        let mut inner = self.inner.lock().await;
        let now = self.clock.now();
        let token = IdentityToken::parse_insecure(&tokens.id_token, now)
            .map_err(|why| untrusted(format!("the ID token cannot be used: {why}")))?;
        let saved = Saved {
            version: VERSION,
            id_token: tokens.refresh_token.is_none().then(|| tokens.id_token.clone()),
            refresh_token: tokens.refresh_token.map(|token| Zeroizing::new(token.expose().clone())),
            subject: tokens.subject,
            account: tokens.account,
            signed_in_at: now.wall,
            refresh_ends: tokens.refresh_expires_in.map(|life| (now.wall + life, now.wall)),
            session_ends: None,
        };
        let person = saved.person();
        inner.refused = None;
        inner.ready = Some(token.with_renewal(saved.renewal(&self.party)));
        inner.unsaved = Some(saved);
        self.flush(&mut inner, Presence::Person).await.map_err(|error| {
            transient(format!(
                "you are signed in, but the session could not be saved: {error}. It will be retried; you do not need to sign in again"
            ))
        })?;
        self.person.send_replace(Some(person.clone()));
        self.changes.send_modify(|change| *change = Change::SignedIn(change.next()));
        Ok(person)
    }

    /// Ends the session here, and at the provider where it can.
    pub async fn sign_out(&self) -> Result<SignedOut, Error> {
        let mut inner = self.inner.lock().await;
        let saved = match inner.unsaved.take() {
            Some(saved) => Some(saved),
            None => self.load().await.map_err(|error| transient(error.to_string()))?,
        };
        self.store.delete(&self.key).await.map_err(|error| transient(error.to_string()))?;
        *inner = Inner::default();
        self.person.send_replace(None);
        self.changes.send_modify(|change| *change = Change::SignedOut(change.next()));
        let revoked = match saved.as_ref().and_then(|saved| saved.refresh_token.as_ref()) {
            Some(token) => {
                let token = Secret::new(token.to_string());
                self.party.revoke(&token).await.map_err(|error| error.to_string())
            }
            None => Ok(false),
        };
        Ok(SignedOut { person: saved.map(|saved| saved.person()), revoked })
    }

    async fn attempt(&self) -> Result<IdentityToken, Error> {
        let mut inner = self.inner.lock().await;
        self.flush(&mut inner, Presence::Nobody).await.map_err(|error| self.locked(&error))?;
        if let Some(ready) = inner.ready.take()
            && self.is_good(&ready)
        {
            return Ok(ready);
        }
        let saved = self.load().await.map_err(|error| self.locked(&error))?;
        let Some(mut saved) = saved else {
            self.person.send_replace(None);
            return Err(self.sign_in(Reason::SignedOut, "nobody is signed in"));
        };
        self.person.send_replace(Some(saved.person()));
        let Some(current) = saved.refresh_token.clone() else {
            let token =
                saved.id_token.as_ref().map(|raw| IdentityToken::parse_insecure(raw, self.clock.now()));
            return match token {
                Some(Ok(token)) => Ok(token.with_renewal(saved.renewal(&self.party))),
                _ => Err(self
                    .sign_in(Reason::SignedOut, "the sign-in has expired, and came without a refresh token")),
            };
        };
        let current = Secret::new(current.to_string());
        let hash = TokenHash::of(current.expose());
        if let Some((refused, why)) = &inner.refused
            && *refused == hash
        {
            return Err(self.sign_in(Reason::SessionRefused { error: "invalid_grant".to_owned() }, why));
        }
        let refreshed = self.party.refresh(&current, &saved.subject).await;
        let now = self.clock.now();
        if let Some(rotated) = refreshed.rotated {
            saved.refresh_token = Some(Zeroizing::new(rotated.expose().clone()));
            inner.unsaved = Some(saved.clone());
        }
        let token = match refreshed.tokens {
            Ok(tokens) => {
                saved.learn_end(tokens.refresh_expires_in, now.wall);
                if inner.unsaved.is_some() {
                    inner.unsaved = Some(saved.clone());
                }
                IdentityToken::parse_insecure(&tokens.id_token, now)
                    .map(|token| token.with_renewal(saved.renewal(&self.party)))
                    .map_err(|why| Error::rejected(format!("{}: {why}", self.key.issuer)))
            }
            Err(error) if error.kind == Kind::NeedsLogin => {
                inner.refused = Some((hash, error.message.clone()));
                Err(self.sign_in(error.reason, &error.message))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = self.flush(&mut inner, Presence::Nobody).await {
            inner.ready = token.ok();
            return Err(self.locked(&error));
        }
        token
    }

    /// Brings to the store what it has not confirmed yet.
    async fn flush(&self, inner: &mut Inner, presence: Presence) -> Result<(), secrets::Error> {
        let Some(unsaved) = &inner.unsaved else { return Ok(()) };
        let json = Zeroizing::new(serde_json::to_string(unsaved).expect("plain data"));
        self.store.save(&self.key, &Secret::new(json.to_string()), presence).await?;
        inner.unsaved = None;
        Ok(())
    }

    async fn load(&self) -> Result<Option<Saved>, secrets::Error> {
        let Some(json) = self.store.load(&self.key).await? else { return Ok(None) };
        // A value that cannot be read (from another version) counts as signed out.
        Ok(serde_json::from_str(json.expose()).ok().filter(|saved: &Saved| saved.version == VERSION))
    }

    fn is_good(&self, token: &IdentityToken) -> bool {
        use crate::token::Expires as _;
        !token.expiry().remaining(self.clock.now()).is_zero()
    }

    fn sign_in(&self, reason: Reason, why: &str) -> Error {
        let profile = &self.key.profile;
        Error::new(
            Stage::SignIn,
            Kind::NeedsLogin,
            reason,
            format!("{why}; run: wandb-cred login --profile {profile}"),
        )
    }

    /// Nothing is asked of the provider while the store is closed: what it answers could not be kept.
    fn locked(&self, error: &secrets::Error) -> Error {
        transient(format!("the sign-in of profile {} cannot be read: {error}", self.key.profile))
    }
}

impl Saved {
    fn person(&self) -> Person {
        Person { subject: self.subject.clone(), account: self.account.clone(), since: self.signed_in_at }
    }

    /// A refresh token whose end does not move when it is renewed belongs to a session with a fixed end.
    fn learn_end(&mut self, life: Option<Duration>, now: Timestamp) {
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

    fn renewal(&self, party: &RelyingParty) -> Renewal {
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

const VERSION: u32 = 1;

/// Two ends seen closer together than this say nothing about whether the end moves.
const END_MOVES: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
