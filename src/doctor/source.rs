//! One attempt at an identity token and at an access token: by ourselves, or from a daemon's keepers.
//!
//! A daemon is asked for what it holds, so that a visit costs no exchange, spends no JWT that can be used only
//! once, and never makes a second user of a refresh token that has one owner.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Reason, Stage};
use crate::exchange::Exchange;
use crate::keeper::{Keeper, Need};
use crate::profile::Profile;
use crate::provider::{self, Provider};
use crate::token::{AccessToken, Expires, IdentityToken};

pub enum Source {
    /// No daemon: the provider and the exchange themselves.
    Alone { provider: Box<dyn Provider>, exchange: Exchange },
    /// In a daemon: what its keepers hold.
    Kept(Arc<Profile>),
}

impl Source {
    pub(super) async fn identity(&self) -> Result<IdentityToken, Error> {
        match self {
            Self::Alone { provider, .. } => {
                match tokio::time::timeout(TIMEOUT, provider::fetch(&**provider)).await {
                    Ok(fetched) => fetched,
                    Err(_) => Err(late(Stage::Identity)),
                }
            }
            Self::Kept(profile) => first(&profile.identity).await,
        }
    }

    pub(super) async fn access(&self, token: &IdentityToken) -> Result<AccessToken, Error> {
        match self {
            Self::Alone { exchange, .. } => exchange.redeem(token).await,
            Self::Kept(profile) => first(&profile.access).await,
        }
    }

    /// The access token that a daemon has left, whatever became of the identity.
    pub(super) fn held(&self) -> Option<AccessToken> {
        match self {
            Self::Alone { .. } => None,
            Self::Kept(profile) => profile.access.peek(Duration::ZERO),
        }
    }

    /// The failure that a daemon rides out at the moment, if any.
    pub(super) fn riding_out(&self) -> Option<Error> {
        match self {
            Self::Alone { .. } => None,
            Self::Kept(profile) => {
                let identity = profile.identity.read(|snapshot| snapshot.error.clone());
                identity.or_else(|| profile.access.read(|snapshot| snapshot.error.clone()))
            }
        }
    }

    /// The provider that was chosen, where the configuration leaves that open.
    pub(super) fn chosen(&self) -> Option<&'static str> {
        match self {
            Self::Alone { provider, .. } => Some(provider.name()),
            Self::Kept(_) => None,
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone { .. })
    }
}

/// The token at hand; else the outcome of the next attempt, without sitting out its repetitions.
async fn first<T: Expires>(keeper: &Keeper<T>) -> Result<T, Error> {
    let mut follow = keeper.subscribe();
    let before = follow.borrow_and_update().attempts;
    let failed = async {
        loop {
            if follow.changed().await.is_err() {
                return std::future::pending().await;
            }
            let snapshot = follow.borrow_and_update();
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

fn late(stage: Stage) -> Error {
    let seconds = TIMEOUT.as_secs();
    Error::new(stage, Kind::Transient, Reason::NoAnswer { seconds }, format!("no answer within {seconds} s"))
}

/// For one answer of the identity source.
const TIMEOUT: Duration = Duration::from_secs(30);
