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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::State;
    use crate::error::{Reason, Stage};
    use crate::feed::Store;
    use crate::feed::test::answer;
    use crate::keeper::{Demand, Keeper, Label, Policy};

    struct Fed {
        store: Store,
        keeper: Keeper<AccessToken>,
        clock: Clock,
        _task: tokio::task::JoinSet<()>,
    }

    impl Fed {
        fn start() -> Self {
            let (clock, store) = (Clock::paused(), Store::default());
            let label = Label { profile: "work".into(), stage: Stage::Exchange };
            let demand = Arc::new(Demand::new(true));
            let keeper = Keeper::new(label, Policy::SdkMargin, demand, clock.clone(), None);
            let source = RelaySource::new(Relay::Feed(Arc::new(store.receiver())), clock.clone());
            let mut task = tokio::task::JoinSet::new();
            task.spawn(keeper.clone().run(source));
            Self { store, keeper, clock, _task: task }
        }

        fn put(&self, token: &str, life: u64) {
            let now = self.clock.now();
            self.store.put(feed::accept(&answer(token, now, life), now).expect("good"));
        }

        fn state(&self) -> State {
            let now = self.clock.now();
            self.keeper.read(|snapshot| snapshot.state(now))
        }

        fn reason(&self) -> Option<Reason> {
            self.keeper.read(|snapshot| snapshot.error.as_ref().map(|error| error.reason.clone()))
        }

        fn attempts(&self) -> u64 {
            self.keeper.read(|snapshot| snapshot.attempts)
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_line_is_published_within_its_second() {
        let fed = Fed::start();
        for token in ["wb_at_1", "wb_at_2", "wb_at_3"] {
            pass(100).await;
            fed.put(token, 3600);
            pass(1).await;
            let known = fed.keeper.snapshot().token.expect("published");
            assert_eq!((known.secret().expose().as_str(), fed.state()), (token, State::Fresh));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_fresh_until_it_should_have_been_replaced() {
        let fed = Fed::start();
        fed.put("wb_at_1", 3600);
        pass(3290).await;
        assert_eq!(fed.state(), State::Fresh);
        pass(20).await;
        assert_eq!((fed.state(), fed.reason()), (State::Stale, Some(Reason::NothingNewer)));
        fed.put("wb_at_2", 3600);
        pass(1).await;
        assert_eq!((fed.state(), fed.reason()), (State::Fresh, None), "no backoff is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_told_at_once_and_nothing_is_tried_any_more() {
        let fed = Fed::start();
        fed.put("wb_at_1", 3600);
        pass(10).await;
        fed.store.end(fed.clock.now().wall);
        pass(1).await;
        assert!(matches!(fed.reason(), Some(Reason::FeedEnded { .. })), "{:?}", fed.reason());
        let attempts = fed.attempts();
        pass(3000).await;
        assert_eq!((fed.state(), fed.attempts()), (State::Stale, attempts));
        pass(1000).await;
        assert_eq!((fed.state(), fed.attempts()), (State::Failed, attempts));
    }
}
