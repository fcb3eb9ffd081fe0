//! One person's sign-in for one profile: the one owner of its refresh token.
//!
//! The provider asks it for identity tokens, `login` stores a new sign-in and removes it. A refresh token that rotates
//! can be redeemed once: so redeeming and storing happen under one lock (which other processes respect too, see
//! `secrets::lock`), in a task that no cancelled caller cuts short. That the store can take a new refresh token is proved
//! before the old one is spent, and the new one is in the store before the ID token beside it is handed out. Where the
//! store does not take it after all, both are kept in memory, under the lock, and offered to the store again.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use zeroize::Zeroizing;

use super::error::{transient, untrusted};
pub use super::saved::Person;
use super::saved::{Saved, VERSION};
use super::{RelyingParty, Tokens};
use crate::clock::Clock;
use crate::error::{Error, Kind, Reason, Stage};
use crate::secrets::{Key, Lock, Prepared, Presence, Store};
use crate::token::{IdentityToken, Secret, TokenHash};

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

/// What signing out did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOut {
    pub person: Option<Person>,
    /// Whether the provider has ended the session too; `Err` says why not.
    pub revoked: Result<bool, String>,
}

#[derive(Default)]
struct Inner {
    /// Held while the session is used, and for as long as there is something unsaved: until then the store holds a refresh
    /// token that is spent.
    lock: Option<Lock>,
    /// Redeemed, but not confirmed by the store yet.
    unsaved: Option<Saved>,
    /// An ID token that came with a sign-in, or with an unsaved refresh: handed out before asking for more.
    ready: Option<IdentityToken>,
    /// The refresh token that the provider has refused, by hash, and its words: it is not asked again.
    refused: Option<(TokenHash, String)>,
    /// The daemon stops, or another session has taken the place of this one.
    closed: bool,
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

    /// Ends the use of this session: waits for an attempt under way, since what was redeemed must reach the store, and
    /// lets no other begin.
    ///
    /// # Errors
    ///
    /// Why something is still unsaved. To be called again: until then the lock stays with this session.
    pub async fn close(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock().await;
        inner.closed = true;
        let flushed = async {
            if inner.unsaved.is_some() {
                self.lock(&mut inner).await?;
                self.flush(&mut inner, Presence::Nobody).await?;
            }
            Ok(())
        };
        flushed.await.map_err(|error| self.unwritable(error))?;
        self.unlock(&mut inner);
        Ok(())
    }

    /// Whether a sign-in could be saved: to be asked before a person takes the trouble.
    pub async fn check_store(&self) -> Result<(), Error> {
        let mut inner = self.inner.lock().await;
        let checked = async {
            self.lock(&mut inner).await?;
            // What a newer version has stored is not replaced unasked.
            self.load().await?;
            self.store.check(&self.key).await
        };
        let checked = checked.await;
        self.unlock(&mut inner);
        checked.map_err(|error| self.unwritable(error))
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
        let stored = match self.lock(&mut inner).await {
            Ok(()) => self.flush(&mut inner, Presence::Person).await,
            Err(error) => Err(error),
        };
        stored.map_err(|error| {
            self.because_of(error, |_, error| format!(
                "you are signed in, but the session could not be saved: {error}. It will be retried; you do not need to sign in again"
            ))
        })?;
        inner.lock = None;
        self.person.send_replace(Some(person.clone()));
        self.changes.send_modify(|change| *change = Change::SignedIn(change.next()));
        Ok(person)
    }

    /// Ends the session here, and at the provider where it can.
    pub async fn sign_out(&self) -> Result<SignedOut, Error> {
        let mut inner = self.inner.lock().await;
        let deleted = async {
            self.lock(&mut inner).await?;
            let saved = match &inner.unsaved {
                Some(saved) => Some(saved.clone()),
                None => match self.load().await {
                    // It goes all the same, but is not revoked.
                    Err(Error { reason: Reason::SessionOfNewerVersion { .. }, .. }) => None,
                    loaded => loaded?,
                },
            };
            self.store.delete(&self.key).await?;
            Ok(saved)
        };
        let saved = match deleted.await {
            Ok(saved) => saved,
            Err(error) => {
                self.unlock(&mut inner);
                return Err(
                    self.because_of(error, |_, error| format!("the session could not be deleted: {error}"))
                );
            }
        };
        *inner = Inner { closed: inner.closed, ..Inner::default() };
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
        if inner.closed {
            return Err(transient("the daemon is stopping, or reads its configuration again")
                .because(Reason::Stopping));
        }
        if inner.unsaved.is_none()
            && let Some(ready) = inner.ready.take()
            && self.is_good(&ready)
        {
            return Ok(ready);
        }
        self.lock(&mut inner).await.map_err(|error| self.unreadable(error))?;
        let outcome = self.renew(&mut inner).await;
        self.unlock(&mut inner);
        outcome
    }

    /// Redeems the refresh token in the store. The caller holds the lock.
    async fn renew(&self, inner: &mut Inner) -> Result<IdentityToken, Error> {
        self.flush(inner, Presence::Nobody).await.map_err(|error| self.unwritable(error))?;
        if let Some(ready) = inner.ready.take()
            && self.is_good(&ready)
        {
            return Ok(ready);
        }
        let mut redeemed = None;
        loop {
            let Some(saved) = self.load().await.map_err(|error| self.unreadable(error))? else {
                self.person.send_replace(None);
                return Err(self.sign_in(Reason::SignedOut, "nobody is signed in"));
            };
            self.person.send_replace(Some(saved.person()));
            let Some(current) = &saved.refresh_token else {
                return self.without_refresh(&saved);
            };
            let hash = TokenHash::of(current);
            if let Some((refused, why)) = &inner.refused
                && *refused == hash
            {
                return Err(self.sign_in(Reason::SessionRefused { error: "invalid_grant".to_owned() }, why));
            }
            let first = redeemed.replace(hash).is_none();
            match self.redeem(inner, saved).await {
                // Where nothing can be locked, another process may have been faster: then the store has its successor.
                Err(error) if error.kind == Kind::NeedsLogin && first => {
                    let why = self.sign_in(error.reason.clone(), &error.message);
                    match self.load().await {
                        Ok(Some(now)) if now.refresh_hash().is_some_and(|now| now != hash) => {}
                        _ => return Err(why),
                    }
                }
                Err(error) if error.kind == Kind::NeedsLogin => {
                    return Err(self.sign_in(error.reason, &error.message));
                }
                outcome => return outcome,
            }
        }
    }

    /// What there is without a refresh token.
    fn without_refresh(&self, saved: &Saved) -> Result<IdentityToken, Error> {
        let token = saved.id_token.as_ref().map(|raw| IdentityToken::parse_insecure(raw, self.clock.now()));
        match token {
            Some(Ok(token)) => Ok(token.with_renewal(saved.renewal(&self.party))),
            _ => {
                let why = "the sign-in has expired, and came without a refresh token";
                Err(self.sign_in(Reason::SignedOut, why))
            }
        }
    }

    /// One request, and what it gave in the store.
    async fn redeem(&self, inner: &mut Inner, mut saved: Saved) -> Result<IdentityToken, Error> {
        let current = Secret::new(saved.refresh_token.as_deref().cloned().unwrap_or_default());
        let prepared =
            self.store.prepare(&self.key, &saved.to_json()).await.map_err(|error| self.unwritable(error))?;
        let granted = self.party.refresh(&current).await;
        let new = granted.as_ref().ok().and_then(|granted| granted.refresh_token.as_ref());
        if let Some(rotated) = new.filter(|new| new.expose() != current.expose()) {
            saved.refresh_token = Some(Zeroizing::new(rotated.expose().clone()));
            inner.unsaved = Some(saved.clone());
            // Before the rest of the answer is judged, which can take requests. If the store does not take it now, it is
            // offered to the store again below.
            let _ = self.commit(inner, prepared).await;
        }
        let tokens = match granted {
            Ok(granted) => self.party.renewed(granted, &saved.subject).await,
            Err(error) => Err(error),
        };
        let now = self.clock.now();
        let token = match tokens {
            Ok(tokens) => {
                let before = (saved.refresh_ends, saved.session_ends);
                saved.learn_end(tokens.refresh_expires_in, now.wall);
                if before != (saved.refresh_ends, saved.session_ends) || inner.unsaved.is_some() {
                    inner.unsaved = Some(saved.clone());
                }
                IdentityToken::parse_insecure(&tokens.id_token, now)
                    .map(|token| token.with_renewal(saved.renewal(&self.party)))
                    .map_err(|why| Error::rejected(format!("{}: {why}", self.key.issuer)))
            }
            Err(error) => {
                if error.kind == Kind::NeedsLogin {
                    inner.refused = Some((TokenHash::of(current.expose()), error.message.clone()));
                }
                Err(error)
            }
        };
        if let Err(error) = self.flush(inner, Presence::Nobody).await {
            inner.ready = token.ok();
            return Err(self.unwritable(error));
        }
        token
    }

    async fn commit(&self, inner: &mut Inner, prepared: Prepared) -> Result<(), Error> {
        let Some(unsaved) = &inner.unsaved else { return Ok(()) };
        self.store.commit(prepared, &self.key, &unsaved.to_json()).await?;
        inner.unsaved = None;
        Ok(())
    }

    /// Brings to the store what it has not confirmed yet.
    async fn flush(&self, inner: &mut Inner, presence: Presence) -> Result<(), Error> {
        let Some(unsaved) = &inner.unsaved else { return Ok(()) };
        self.store.save(&self.key, &unsaved.to_json(), presence).await?;
        inner.unsaved = None;
        Ok(())
    }

    async fn load(&self) -> Result<Option<Saved>, Error> {
        let Some(json) = self.store.load(&self.key).await? else { return Ok(None) };
        Saved::from_json(&json).map_err(|version| {
            Error::new(
                Stage::SignIn,
                Kind::Misconfigured,
                Reason::SessionOfNewerVersion { version },
                format!(
                    "the sign-in of profile {} was stored by a newer version of wandb-cred (format {version}; this one knows {VERSION})",
                    self.key.profile
                ),
            )
        })
    }

    /// Takes the lock, unless it is held already for what is unsaved.
    async fn lock(&self, inner: &mut Inner) -> Result<(), Error> {
        if inner.lock.is_none() {
            inner.lock = Some(self.store.lock(&self.key, &self.clock).await?);
        }
        Ok(())
    }

    /// Gives it back, unless the store still holds what is spent.
    fn unlock(&self, inner: &mut Inner) {
        if inner.unsaved.is_none() {
            inner.lock = None;
        }
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
    fn unreadable(&self, error: Error) -> Error {
        self.because_of(error, |profile, error| {
            format!("the sign-in of profile {profile} cannot be read: {error}")
        })
    }

    /// The same while it cannot be written.
    fn unwritable(&self, error: Error) -> Error {
        self.because_of(error, |profile, error| {
            format!("the sign-in of profile {profile} cannot be saved: {error}")
        })
    }

    /// Says what the store's error means, unless it says it all itself.
    fn because_of(&self, error: Error, say: impl Fn(&str, &Error) -> String) -> Error {
        match error.reason {
            Reason::SessionHeld { .. } | Reason::SessionOfNewerVersion { .. } => error,
            _ => Error { message: say(&self.key.profile, &error), ..error },
        }
    }
}
