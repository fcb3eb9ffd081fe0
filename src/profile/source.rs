//! What a profile's two keepers renew from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::exchange::{self, Exchange};
use crate::keeper::{Error, Keeper, Kind, Source, Stage};
use crate::provider::{self, Provider};
use crate::token::{AccessToken, Expires as _, IdentityToken, TokenHash};

/// The provider, with its errors in the keeper's terms and its audience checked.
pub(super) struct IdentitySource {
    pub(super) provider: Box<dyn Provider>,
    pub(super) audience: Option<String>,
    pub(super) profile: String,
    pub(super) exchange: Arc<Exchange>,
}

impl Source for IdentitySource {
    type Item = IdentityToken;

    async fn renew(&self) -> Result<IdentityToken, Error> {
        let name = self.provider.name();
        let fetched = match self.provider.fetch().await {
            Err(provider::Error::Expired { .. }) if self.exchange.shows_skew().await => {
                self.provider.fetch().await
            }
            fetched => fetched,
        };
        let token = fetched.map_err(|error| explain_provider(name, &error))?;
        match &self.audience {
            Some(wanted) if !token.claims().aud.contains(wanted) => {
                let (name, profile) = (self.provider.name(), &self.profile);
                let found = match token.claims().aud.as_slice() {
                    [] => "no audience".to_owned(),
                    several => format!("audience `{}`", several.join("`, `")),
                };
                let message = format!(
                    "provider {name}: the JWT has {found}, but [profile.{profile}] expects `{wanted}`; ask the source for that audience, or mend `audience`"
                );
                Err(Error::new(Stage::Identity, Kind::Misconfigured, message))
            }
            _ => Ok(token),
        }
    }
}

/// The provider's error in the keeper's terms.
pub(crate) fn explain_provider(name: &str, error: &provider::Error) -> Error {
    let (kind, wait) = match error {
        provider::Error::Transient { retry_after, .. } => (Kind::Transient, *retry_after),
        provider::Error::Expired { again: true, .. } => (Kind::Transient, None),
        provider::Error::Expired { again: false, .. } => (Kind::Misconfigured, None),
        provider::Error::NeedsLogin { .. } => (Kind::NeedsLogin, None),
        provider::Error::Rejected { .. } => (Kind::Rejected, None),
        provider::Error::Misconfigured { .. } => (Kind::Misconfigured, None),
    };
    let message = match name {
        // Says already where the mistake is.
        provider::INVALID => error.to_string(),
        name => format!("provider {name}: {error}"),
    };
    Error::new(Stage::Identity, kind, message).server_asks(wait)
}

/// The identity keeper and the exchange.
pub(super) struct AccessSource {
    identity: Keeper<IdentityToken>,
    exchange: Arc<Exchange>,
    exchanges: Arc<AtomicU64>,
    /// The JWT that W&B answered "already used" to: never presented again.
    used_up: Mutex<Option<TokenHash>>,
}

impl AccessSource {
    pub(super) fn new(
        identity: Keeper<IdentityToken>,
        exchange: Arc<Exchange>,
        exchanges: Arc<AtomicU64>,
    ) -> Self {
        Self { identity, exchange, exchanges, used_up: Mutex::default() }
    }

    /// What the source gives now, so that a rotated file is seen and no `jti` comes twice if the source can
    /// help it; else the last good one, and why there is no new one.
    async fn assertion(&self) -> Result<(IdentityToken, Option<Error>), Error> {
        match self.identity.look_again(IDENTITY_PATIENCE).await {
            Ok(token) => Ok((token, None)),
            Err(error) => match self.identity.peek(USABLE) {
                Some(token) => Ok((token, Some(error))),
                None => Err(error),
            },
        }
    }

    async fn redeem(&self, assertion: &IdentityToken) -> Result<AccessToken, exchange::Error> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        let redeemed = self.exchange.redeem(assertion).await;
        if let Err(exchange::Error::Refused { reused: true, .. }) = &redeemed {
            *self.used_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(assertion.hash());
        }
        Ok(redeemed?.with_outlook(assertion.renewal().outlook))
    }

    fn used_up(&self) -> Option<TokenHash> {
        *self.used_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for AccessSource {
    type Item = AccessToken;

    async fn renew(&self) -> Result<AccessToken, Error> {
        let (assertion, failing) = self.assertion().await?;
        if self.used_up() == Some(assertion.hash()) {
            // The source is what is wrong then, and says more.
            if let Some(error) = failing {
                return Err(error);
            }
            let message = "W&B has seen this identity token before and takes each only once; waiting for the source to give a new one";
            return Err(Error::new(Stage::Exchange, Kind::Rejected, message));
        }
        let error = match self.redeem(&assertion).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        // W&B minds this identity token: one more try with a new one, if the source has it.
        if error.wants_new_assertion()
            && let Ok(next) = self.identity.look_again(IDENTITY_PATIENCE).await
            && next.hash() != assertion.hash()
        {
            return self.redeem(&next).await.map_err(explain_exchange);
        }
        let said = explain_exchange(error);
        Err(failing.filter(|_| self.used_up() == Some(assertion.hash())).unwrap_or(said))
    }

    /// The identity came back: no need to sit out the rest of our own backoff.
    async fn recovered(&self) {
        let mut identity = self.identity.subscribe();
        let failing = identity.borrow().error.is_some();
        let back = identity.wait_for(|snapshot| failing && snapshot.error.is_none()).await.is_ok();
        if !back {
            std::future::pending::<()>().await;
        }
    }
}

/// The exchange's error in the keeper's terms.
pub(crate) fn explain_exchange(error: exchange::Error) -> Error {
    let (kind, wait) = match &error {
        exchange::Error::Http(error) if !error.is_transient() => (Kind::Misconfigured, None),
        exchange::Error::Unavailable { retry_after, .. } => (Kind::Transient, *retry_after),
        exchange::Error::Http(_) | exchange::Error::Garbage { .. } => (Kind::Transient, None),
        exchange::Error::NotThere { .. } => (Kind::Misconfigured, None),
        exchange::Error::Refused { .. } => (Kind::Rejected, None),
    };
    Error::new(Stage::Exchange, kind, error.to_string()).server_asks(wait)
}

/// For one identity renewal within an exchange: above a command's own 100 s.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(110);

/// A JWT with less life might expire on the way to W&B.
const USABLE: Duration = Duration::from_secs(10);
