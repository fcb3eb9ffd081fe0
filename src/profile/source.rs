//! What a profile's two keepers renew from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use crate::clock::Clock;
use crate::error::{Error, Kind, Reason, Stage};
use crate::exchange::Exchange;
use crate::http::Http;
use crate::keeper::{Keeper, Source};
use crate::provider::{self, Provider};
use crate::token::{AccessToken, Expires as _, IdentityToken, TokenHash};

/// The provider; its tokens must be for the profile's audience.
pub struct IdentitySource {
    pub(super) provider: Box<dyn Provider>,
    pub(super) audience: Option<String>,
    pub(super) profile: String,
    /// W&B's address: where to ask for the time if a JWT seems to have expired.
    pub(super) base_url: Url,
    pub(super) http: Http,
    pub(super) clock: Clock,
    /// A token that came before it was valid (`nbf`). It is used once it is: another one may be early again.
    pub(super) early: Mutex<Option<IdentityToken>>,
}

impl Source for IdentitySource {
    type Item = IdentityToken;

    async fn renew(&self) -> Result<IdentityToken, Error> {
        if let Some(token) = self.begun() {
            return Ok(token);
        }
        let provider = &*self.provider;
        let token = match provider::fetch(provider).await {
            // Over by whose clock? A word of a server about it must not condemn a good token for good.
            Err(Error { reason: Reason::TokenExpired { .. }, .. })
                if self.http.ask_time(&self.base_url).await =>
            {
                provider::fetch(provider).await?
            }
            fetched => fetched?,
        };
        let checked = token.check_audience(&self.profile, self.audience.as_deref());
        checked.map_err(|error| {
            let error = error.context(format_args!("provider {}", provider.name()));
            error.hint("ask the source for that audience, or fix `audience`")
        })?;
        if token.not_yet(self.clock.now()).is_some() {
            // It may be our clock that is behind.
            self.http.ask_time(&self.base_url).await;
        }
        let Some((wait, at)) = token.not_yet(self.clock.now()) else { return Ok(token) };
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        let message = format!(
            "provider {}: the JWT is not valid before {at} (`nbf`), in {} s; is a clock wrong?",
            provider.name(),
            wait.as_secs() + 1
        );
        Err(Error::transient(message)
            .because(Reason::NotYetValid { at })
            .retry_after(Some(wait.min(MAX_EARLY))))
    }
}

impl IdentitySource {
    /// The token that came early, if it is valid by now and still lives.
    fn begun(&self) -> Option<IdentityToken> {
        let token = self.early.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let signed_out = self.provider.session().is_some_and(|session| session.person().borrow().is_none());
        if signed_out {
            return None;
        }
        let now = self.clock.now();
        (token.not_yet(now).is_none() && token.expiry().remaining(now) > USABLE).then_some(token)
    }
}

/// The identity keeper and the exchange.
pub struct AccessSource {
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

    /// What the source has now, so that a rotated file is noticed and no `jti` is presented twice if the source can
    /// avoid it; else the last good token, and why there is no new one.
    async fn assertion(&self) -> Result<(IdentityToken, Option<Error>), Error> {
        match self.identity.fetch_new(IDENTITY_TIMEOUT).await {
            Ok(token) => Ok((token, None)),
            Err(error) => match self.identity.peek(USABLE) {
                Some(token) => Ok((token, Some(error))),
                None => Err(error),
            },
        }
    }

    async fn redeem(&self, assertion: &IdentityToken) -> Result<AccessToken, Error> {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        let redeemed = self.exchange.redeem(assertion).await;
        if let Err(Error { reason: Reason::Replayed, .. }) = &redeemed {
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
            return Err(Error::new(Stage::Exchange, Kind::Rejected, Reason::Replayed, message));
        }
        let error = match self.redeem(&assertion).await {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        // W&B refuses this identity token: one more try with a new one, if the source has it.
        if wants_new_assertion(&error)
            && let Ok(next) = self.identity.fetch_new(IDENTITY_TIMEOUT).await
            && next.hash() != assertion.hash()
        {
            return self.redeem(&next).await;
        }
        Err(failing.filter(|_| self.used_up() == Some(assertion.hash())).unwrap_or(error))
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

/// Whether another identity token may be accepted at once where this one was refused.
fn wants_new_assertion(error: &Error) -> bool {
    match &error.reason {
        Reason::Replayed => true,
        Reason::Refused { error, .. } => error.as_deref() == Some("invalid_grant"),
        _ => false,
    }
}

/// For one identity renewal within an exchange: above a command's own 100 s.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(110);

/// For a JWT that is valid only later than this, the source is asked again meanwhile.
const MAX_EARLY: Duration = Duration::from_secs(60);

/// A JWT with less life might expire on the way to W&B.
const USABLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::provider::source::test::{context, jwt};

    /// Mints a JWT at each call that becomes valid a while later.
    struct Early(i64);

    #[async_trait]
    impl Provider for Early {
        fn name(&self) -> &'static str {
            "early"
        }

        async fn fetch(&self) -> Result<IdentityToken, Error> {
            let cx = context(&[]);
            let nbf = cx.clock.now().wall.as_second() + self.0;
            cx.parse(&jwt(300, &format!(r#""aud":"acme","nbf":{nbf}"#)), "the source")
        }
    }

    fn source(ahead: i64) -> IdentitySource {
        let clock = Clock::system();
        IdentitySource {
            provider: Box::new(Early(ahead)),
            audience: None,
            profile: "work".to_owned(),
            // Nobody listens there, so nobody tells the time.
            base_url: "http://127.0.0.1:1".parse().expect("a URL"),
            http: Http::new(clock.clone()),
            clock,
            early: Mutex::default(),
        }
    }

    #[tokio::test]
    async fn a_jwt_that_comes_early_is_used_once_it_is_valid() {
        let mut source = source(20);
        let error = source.renew().await.expect_err("not valid yet");
        assert!(error.is_transient() && matches!(error.reason, Reason::NotYetValid { .. }), "{error:?}");
        let wait = error.retry_after.expect("the caller learns how long to wait");
        assert!(wait > Duration::from_secs(10) && wait <= Duration::from_secs(20), "{wait:?}");
        // A quarter of a minute later, by a clock that runs ahead.
        source.clock = Clock::system_ahead(21);
        let token = source.renew().await.expect("the same token, valid by now");
        let nbf = token.claims().nbf.expect("it has one") as i64;
        assert!(nbf <= source.clock.now().wall.as_second(), "a new one would be early again");
    }

    #[tokio::test]
    async fn far_from_valid_the_source_is_asked_again_meanwhile() {
        let error = source(3600).renew().await.expect_err("not valid yet");
        assert_eq!(error.retry_after, Some(MAX_EARLY));
    }
}
