//! Access tokens that another daemon got: from lines on a stream, or from its socket. They take the place of an exchange of
//! our own, so that one exchange can serve a whole job.
//!
//! Only access tokens travel: what they were got with stays where it is. A [`Line`] is the answer of `GET /v1/token`, as
//! `wandb-cred feed` writes it. Whoever reads lines keeps the [`Store`], the profile's source the [`Receiver`].
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | `lines` | reads lines of bounded length from a stream |
//! | `upstream` | asks another daemon's socket, one attempt per call |

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::api;
use crate::clock::Now;
use crate::error::{Error, Kind, Reason, Stage};
use crate::token::{AccessToken, Expires as _, Expiry};

pub mod lines;
pub mod upstream;

pub use lines::Line;
pub use upstream::Upstream;

/// An access token as another daemon's answer has it, `expires_in` counted from `from`. No part of it is in the error.
///
/// Its end by the other machine's clock counts too, if that is sooner: a line may have been on its way for a while.
pub fn accept(answer: &api::Token, from: Now) -> Result<AccessToken, &'static str> {
    if !is_bearer(&answer.access_token) {
        return Err("it has no usable access token");
    }
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err("it has a token of another type than Bearer");
    }
    let life = Duration::from_secs(answer.expires_in).min(MAX_LIFE);
    let expiry = Expiry::at(answer.expires_at, from).at_most(from, Some(life));
    let left = expiry.remaining(from);
    if left.is_zero() {
        return Err("its token has expired; is a clock wrong, here or there?");
    }
    // Where it comes from, it is renewed long before.
    Ok(AccessToken::new(answer.access_token.clone(), expiry).not_renewed_before(LATE.min(left / 4)))
}

/// The `b64token` of RFC 6750.
fn is_bearer(token: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    !token.is_empty() && token.bytes().all(fits)
}

/// There is no newer token than one that should have been replaced by now.
pub fn nothing_newer(whence: &str, last: &AccessToken) -> Error {
    let until = whole_seconds(last.expiry().wall());
    let message = format!("no newer token has come from {whence}; this token is good until {until}");
    Error::new(Stage::Exchange, Kind::Transient, Reason::NothingNewer, message)
}

/// No longer than an exchange believes it: a day.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);

/// With this much life left or less, a token should have been replaced. It is the SDK's own limit.
pub const LATE: Duration = Duration::from_secs(300);

/// What the lines of a feed have brought for one profile.
#[derive(Clone, Debug, Default)]
struct Latest {
    /// Counts the changes.
    serial: u64,
    token: Option<AccessToken>,
    ended: Option<Timestamp>,
}

/// The reader's half.
#[derive(Debug, Default)]
pub struct Store(watch::Sender<Latest>);

impl Store {
    pub fn put(&self, token: AccessToken) {
        self.0.send_modify(|latest| {
            latest.serial += 1;
            latest.token = Some(token);
        });
    }

    /// Nothing more will come.
    pub fn end(&self, at: Timestamp) {
        self.0.send_modify(|latest| {
            latest.serial += 1;
            latest.ended = Some(at);
        });
    }

    pub fn receiver(&self) -> Receiver {
        Receiver { latest: self.0.subscribe(), seen: AtomicU64::new(0) }
    }
}

/// The profile's half.
pub struct Receiver {
    latest: watch::Receiver<Latest>,
    /// The change that was looked at last.
    seen: AtomicU64,
}

impl Receiver {
    /// The token that came last, if it is another than `last`; else why there is none.
    pub fn next(&self, last: Option<&AccessToken>, now: Now) -> Result<AccessToken, Error> {
        let Latest { serial, token, ended } = self.latest.borrow().clone();
        let new = token.clone().filter(|token| last.is_none_or(|last| last.hash() != token.hash()));
        // After a token that came just before the end, the end itself is still to be looked at.
        let seen = if new.is_some() && ended.is_some() { serial - 1 } else { serial };
        self.seen.store(seen, Ordering::Relaxed);
        match (new, token, ended) {
            (Some(new), ..) => Ok(new),
            (None, last, Some(at)) => Err(ended_at(at, last.as_ref(), now)),
            (None, Some(last), None) if last.expiry().remaining(now) > late(&last) => Ok(last),
            (None, Some(last), None) => Err(nothing_newer("the feed", &last)),
            (None, None, None) => {
                let message = "no token has come on the feed yet";
                Err(Error::new(Stage::Exchange, Kind::Transient, Reason::NothingNewer, message))
            }
        }
    }

    /// Waits until there is something to look at.
    pub async fn changed(&self) {
        let mut latest = self.latest.clone();
        let changed = latest.wait_for(|latest| latest.serial != self.seen.load(Ordering::Relaxed));
        if changed.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Shows no token, and is the same for every receiver: profiles are told apart by it.
impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

/// The life at which `token` should have been replaced.
pub fn late(token: &AccessToken) -> Duration {
    token.renewal().not_before_expiry.unwrap_or(LATE)
}

fn ended_at(at: Timestamp, last: Option<&AccessToken>, now: Now) -> Error {
    let end = whole_seconds(at);
    let rest = match last {
        None => "without a token".to_owned(),
        Some(last) => {
            let until = whole_seconds(last.expiry().wall());
            match last.expiry().remaining(now).is_zero() {
                false => format!("; this token is good until {until}"),
                true => format!("; its last token was good until {until}"),
            }
        }
    };
    let comma = if rest.starts_with(';') { "" } else { " " };
    let message = format!("the feed ended at {end}{comma}{rest}");
    Error::new(Stage::Exchange, Kind::Transient, Reason::FeedEnded { at: end }, message)
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;

    pub(crate) fn answer(token: &str, now: Now, life: u64) -> api::Token {
        api::Token {
            access_token: token.to_owned(),
            token_type: "Bearer".to_owned(),
            expires_at: now.wall + Duration::from_secs(life),
            expires_in: life,
            base_url: "https://api.wandb.ai".to_owned(),
            profile: "work".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test::answer;
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_token_lives_as_long_as_both_clocks_say() {
        let now = Clock::system().now();
        let left = |answer: &api::Token| accept(answer, now).expect("good").expiry().remaining(now).as_secs();
        assert!(left(&answer("wb_at_x", now, 3600)) >= 3599);
        let delayed = api::Token { expires_in: 3600, ..answer("wb_at_x", now, 1000) };
        assert!(left(&delayed) <= 1000, "it was on its way for a while");
        let their_clock_ahead = api::Token { expires_in: 1000, ..answer("wb_at_x", now, 3600) };
        assert!(left(&their_clock_ahead) <= 1000);
    }

    #[test]
    fn what_is_no_token_is_refused_without_a_word_of_it() {
        let now = Clock::system().now();
        let good = answer("wb_at_x", now, 3600);
        for bad in [
            api::Token { access_token: "a\r\nb".into(), ..good.clone() },
            api::Token { access_token: String::new(), ..good.clone() },
            api::Token { token_type: "mac".into(), ..good.clone() },
            api::Token { expires_in: 0, ..good.clone() },
            answer("wb_at_x", Now { wall: now.wall - Duration::from_secs(7200), ..now }, 3600),
        ] {
            let why = accept(&bad, now).expect_err("refused");
            assert!(!why.contains("wb_at"), "{why}");
        }
    }

    #[tokio::test]
    async fn the_end_is_told_after_the_last_token() {
        let now = Clock::system().now();
        let store = Store::default();
        let receiver = store.receiver();
        let token = accept(&answer("wb_at_x", now, 3600), now).expect("good");
        store.put(token.clone());
        store.end(now.wall);
        receiver.changed().await;
        let first = receiver.next(None, now).expect("the token first");
        assert_eq!(first.hash(), token.hash());
        receiver.changed().await;
        let error = receiver.next(Some(&first), now).expect_err("the end");
        assert!(matches!(error.reason, Reason::FeedEnded { .. }) && error.needs_word());
        assert!(error.message.contains("; this token is good until "), "{error}");
        let later = Now { wall: now.wall + Duration::from_secs(3600), ..now };
        let error = receiver.next(Some(&first), later).expect_err("the end");
        assert!(error.message.contains("; its last token was good until "), "{error}");
    }

    #[test]
    fn a_feed_that_brings_nothing_newer_in_time_is_late() {
        let now = Clock::system().now();
        let store = Store::default();
        let receiver = store.receiver();
        assert!(receiver.next(None, now).expect_err("nothing yet").is_transient());
        let token = accept(&answer("wb_at_x", now, 3600), now).expect("good");
        store.put(token.clone());
        receiver.next(None, now).expect("new");
        receiver.next(Some(&token), now).expect("still young");
        let late = Now { wall: now.wall + Duration::from_secs(3301), ..now };
        let error = receiver.next(Some(&token), late).expect_err("late");
        assert_eq!(error.reason, Reason::NothingNewer);
    }
}
