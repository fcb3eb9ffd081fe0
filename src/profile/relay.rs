//! What the access keeper of a profile renews from that gets its access tokens from another daemon.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::error::Error;
use crate::feed::{self, Receiver, Upstream};
use crate::keeper::Source;
use crate::token::{AccessToken, Expires as _, TokenHash};

/// Where access tokens come from.
#[derive(Clone)]
pub enum Relay {
    Upstream(Arc<Upstream>),
    Feed(Arc<Receiver>),
}

/// The other daemon, and the token that it gave last.
pub struct RelaySource {
    relay: Relay,
    last: Mutex<Option<AccessToken>>,
    clock: Clock,
}

impl RelaySource {
    pub(super) fn new(relay: Relay, clock: Clock) -> Self {
        Self { relay, last: Mutex::default(), clock }
    }

    fn last(&self) -> Option<AccessToken> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn known(&self) -> Option<TokenHash> {
        self.last().as_ref().map(AccessToken::hash)
    }
}

impl Source for RelaySource {
    type Item = AccessToken;

    async fn renew(&self) -> Result<AccessToken, Error> {
        let last = self.last();
        let token = match &self.relay {
            Relay::Feed(receiver) => receiver.next(last.as_ref(), self.clock.now())?,
            Relay::Upstream(upstream) => {
                let token = upstream.fetch().await?;
                match last {
                    // As it came first: how late it is counts from then.
                    Some(last) if last.hash() == token.hash() => {
                        if last.expiry().remaining(self.clock.now()) <= feed::late(&last) {
                            return Err(feed::nothing_newer(&upstream.whence(), &last));
                        }
                        last
                    }
                    _ => token,
                }
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    async fn recovered(&self) {
        match &self.relay {
            Relay::Feed(receiver) => receiver.changed().await,
            Relay::Upstream(_) => std::future::pending().await,
        }
    }

    async fn news(&self) -> bool {
        match (&self.relay, self.known()) {
            (Relay::Feed(receiver), _) => {
                receiver.changed().await;
                true
            }
            (Relay::Upstream(upstream), Some(known)) => upstream.newer(known).await.unwrap_or(true),
            // A token was taken over from an earlier daemon: is it still the current one?
            (Relay::Upstream(_), None) => true,
        }
    }
}
