//! One attempt at an identity token and at an access token: directly, or from a daemon's keepers.
//!
//! In a daemon, what it holds is used: a run then costs no exchange, spends no JWT that works only once, and never
//! redeems a refresh token that has another owner.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Reason, Stage};
use crate::exchange::Exchange;
use crate::keeper::{Keeper, Need};
use crate::oidc::session::Session;
use crate::profile::Profile;
use crate::provider::{self, Provider};
use crate::token::{AccessToken, Expires, IdentityToken};

pub enum Source {
    /// Without a daemon: the provider and the exchange themselves.
    Direct { provider: Box<dyn Provider>, exchange: Exchange },
    /// In a daemon: what its keepers hold.
    Daemon(Arc<Profile>),
}

impl Source {
    pub(super) async fn identity(&self) -> Result<IdentityToken, Error> {
        match self {
            Self::Direct { provider, .. } => {
                match tokio::time::timeout(TIMEOUT, provider::fetch(&**provider)).await {
                    Ok(fetched) => fetched,
                    Err(_) => Err(no_answer(Stage::Identity)),
                }
            }
            Self::Daemon(profile) => match &profile.identity {
                Some(identity) => first_outcome(identity).await,
                None => Err(Error::rejected("only access tokens come here, from another daemon")),
            },
        }
    }

    pub(super) async fn access(&self, token: &IdentityToken) -> Result<AccessToken, Error> {
        match self {
            Self::Direct { exchange, .. } => exchange.redeem(token).await,
            Self::Daemon(profile) => first_outcome(&profile.access).await,
        }
    }

    /// The access token of a profile that gets it from another daemon; `None` if it makes its own exchanges.
    pub(super) async fn relayed(&self) -> Option<Result<AccessToken, Error>> {
        match self {
            Self::Daemon(profile) if profile.relay.is_some() => Some(first_outcome(&profile.access).await),
            _ => None,
        }
    }

    /// The access token that a daemon has, even if it has no identity token any more.
    pub(super) fn cached_access_token(&self) -> Option<AccessToken> {
        match self {
            Self::Direct { .. } => None,
            Self::Daemon(profile) => profile.access.peek(Duration::ZERO),
        }
    }

    /// Why a daemon cannot renew an identity token that is still valid, if it cannot.
    pub(super) fn identity_error(&self) -> Option<Error> {
        match self {
            Self::Direct { .. } => None,
            Self::Daemon(profile) => {
                let identity = profile.identity.as_ref();
                identity.and_then(|identity| identity.read(|snapshot| snapshot.error.clone()))
            }
        }
    }

    /// The same for an access token.
    pub(super) fn exchange_error(&self) -> Option<Error> {
        match self {
            Self::Direct { .. } => None,
            Self::Daemon(profile) => profile.access.read(|snapshot| snapshot.error.clone()),
        }
    }

    /// The provider in use, if it is known here: `auto` chooses one.
    pub(super) fn detected_provider(&self) -> Option<&'static str> {
        match self {
            Self::Direct { provider, .. } => Some(provider.name()),
            Self::Daemon(_) => None,
        }
    }

    /// The session in which a person signs in, if that is how there are tokens.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        match self {
            Self::Direct { provider, .. } => provider.session(),
            Self::Daemon(profile) => profile.session.clone(),
        }
    }

    pub(super) fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

/// The token at hand; else the outcome of the next attempt, without waiting for its retries.
async fn first_outcome<T: Expires>(keeper: &Keeper<T>) -> Result<T, Error> {
    let mut updates = keeper.subscribe();
    let before = updates.borrow_and_update().attempts;
    let failed = async {
        loop {
            if updates.changed().await.is_err() {
                return std::future::pending().await;
            }
            let snapshot = updates.borrow_and_update();
            if let (true, Some(error)) = (snapshot.attempts > before, &snapshot.error) {
                return error.clone();
            }
        }
    };
    tokio::select! {
        got = keeper.get(Need { min_ttl: Duration::ZERO, timeout: TIMEOUT }) => got,
        error = failed => Err(error),
    }
}

fn no_answer(stage: Stage) -> Error {
    let seconds = TIMEOUT.as_secs();
    Error::new(stage, Kind::Transient, Reason::NoAnswer { seconds }, format!("no answer within {seconds} s"))
}

/// For one answer of the identity source.
const TIMEOUT: Duration = Duration::from_secs(30);
