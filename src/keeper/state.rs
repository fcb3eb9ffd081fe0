//! What a keeper knows, and every judgement on it. Pure: no channel, no timer, and the time comes from the caller.

use std::time::Duration;

use super::{Policy, Restored};
use crate::api;
use crate::backoff::Backoff;
use crate::clock::Now;
use crate::error::{Error, Kind, Reason, Stage};
use crate::token::Expires;

/// What a keeper knows, published on every change.
#[derive(Clone, Debug)]
pub struct Snapshot<T> {
    /// The last good token; it may have expired since.
    pub token: Option<T>,
    /// The whole of its life, as it began.
    pub life: Duration,
    /// Why the last attempt failed; `None` after a success.
    pub error: Option<Error>,
    /// Failures in a row.
    pub failures: u32,
    /// Attempts completed.
    pub attempts: u64,
    /// An attempt is under way.
    pub renewing: bool,
    /// When the next attempt is due; it is made only if something needs the token then.
    pub due: Option<Now>,
    last_attempt: Option<Now>,
    /// The attempt under way began before a sign-out: what it brings is not kept.
    void: bool,
    /// When the last attempt ended.
    ended: Option<Now>,
    /// No attempt before this, even a forced one: the server asked for it (`Retry-After`).
    not_before: Option<Now>,
}

/// What callers have asked of the loop since its last attempt began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Somebody waits for an attempt.
    pub(super) renewal: bool,
    /// ... and not for the backoff to end.
    pub(super) forced: bool,
}

/// What a waiting caller will accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A token with enough life, new or not.
    Life,
    /// A token that was fetched after the question.
    New,
    /// The same, past the backoff.
    ForcedNew,
}

/// How long a caller may wait, and for how much life.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub min_ttl: Duration,
    pub timeout: Duration,
}

/// A caller's question, as it stands while it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) want: Want,
    pub(super) min_ttl: Duration,
    /// Waits also for what somebody must do first: see [`Error::is_lasting`].
    pub(super) patient: bool,
    /// By the boot clock.
    pub(super) deadline: Duration,
    /// Attempts completed when it was asked.
    pub(super) attempts: u64,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self {
            token: None,
            life: Duration::ZERO,
            error: None,
            failures: 0,
            attempts: 0,
            renewing: false,
            due: None,
            last_attempt: None,
            void: false,
            ended: None,
            not_before: None,
        }
    }
}

impl<T: Expires> Snapshot<T> {
    /// A token taken over from an earlier daemon: served at once, and renewed when it would have been.
    pub(super) fn restored(restored: Option<Restored<T>>, policy: Policy, now: Now) -> Self {
        let Some(Restored { token, age }) = restored else { return Self::default() };
        let life = token.expiry().remaining(now) + age;
        let wait = policy.renew_in(life, &token.renewal()).saturating_sub(age);
        Self { token: Some(token), life, due: Some(later(now, wait)), ..Self::default() }
    }

    /// The token, if it has a usable rest of life.
    pub fn good(&self, now: Now, min_ttl: Duration) -> Option<&T> {
        let token = self.token.as_ref()?;
        let left = token.expiry().remaining(now);
        (!left.is_zero() && left >= min_ttl).then_some(token)
    }

    pub fn state(&self, now: Now) -> api::State {
        match (self.good(now, Duration::ZERO), &self.error) {
            (Some(_), None) => api::State::Fresh,
            (Some(_), Some(_)) => api::State::Stale,
            (None, Some(error)) if error.kind == Kind::NeedsLogin => api::State::NeedsLogin,
            (None, Some(_)) => api::State::Failed,
            (None, None) => api::State::Starting,
        }
    }

    /// A renewal is overdue, since nothing needed the token when it was due.
    pub(super) fn is_overdue(&self, now: Now) -> bool {
        !self.renewing && self.due.is_none_or(|due| due.boot <= now.boot)
    }

    pub(super) fn begin(&mut self, now: Now) {
        self.renewing = true;
        self.last_attempt = Some(now);
    }

    /// Returns the time until the next attempt.
    pub(super) fn on_success(&mut self, token: T, policy: Policy, now: Now) -> Duration {
        self.life = token.expiry().remaining(now);
        let wait = policy.renew_in(self.life, &token.renewal());
        self.end(now, wait);
        self.error = None;
        self.failures = 0;
        self.token = Some(token);
        wait
    }

    /// Returns the time until the next attempt of the keeper at `stage`. The last good token stays.
    pub(super) fn on_failure(&mut self, error: Error, stage: Stage, now: Now) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff(error.kind).delay(self.failures, error.retry_after);
        self.end(now, wait);
        // When the identity's keeper tries again is its own affair, and no server's word to this one.
        let relayed = stage == Stage::Exchange && matches!(error.stage, Stage::Identity | Stage::SignIn);
        if error.retry_after.is_some() && !relayed {
            self.not_before = self.due;
        }
        self.error = Some(error);
        wait
    }

    /// Ends an attempt that began before a sign-out; true if this one did. Another is due at once.
    pub(super) fn end_void(&mut self, now: Now) -> bool {
        let void = std::mem::take(&mut self.void);
        if void {
            self.end(now, Duration::ZERO);
        }
        void
    }

    fn end(&mut self, now: Now, wait: Duration) {
        self.renewing = false;
        self.attempts += 1;
        self.not_before = None;
        self.ended = Some(now);
        self.due = Some(later(now, wait));
    }

    /// No server was reached, so none asked us to stay away.
    pub(super) fn is_unreachable(&self) -> bool {
        self.not_before.is_none() && self.error.as_ref().is_some_and(Error::is_network_fault)
    }

    /// An address or a route appeared: another attempt makes sense, but not with every one of many.
    pub(super) fn network_changed(&mut self, now: Now) {
        let ended = self.ended.map_or(Duration::ZERO, |ended| ended.boot);
        let wait = (ended + NETWORK_GAP).saturating_sub(now.boot).min(until(self.due, now));
        self.due = Some(later(now, wait));
    }

    /// A person says that it may work now: the backoff is over, but not what a server asked for.
    pub(super) fn hurry(&mut self, now: Now) {
        if self.error.is_some() {
            self.due = Some(later(now, self.server_wait(now)));
        }
    }

    /// Time until the next attempt while somebody waits for it. Until a server is reached, the backoff is short then: the
    /// way may be back at any moment, or the file there.
    fn due_for_a_caller(&self, now: Now) -> Duration {
        let wait = until(self.due, now);
        let most = match &self.error {
            Some(error) if self.not_before.is_none() => {
                error.look_again_after().or(error.is_network_fault().then_some(CALLER_BACKOFF))
            }
            _ => None,
        };
        match (self.ended, most) {
            (Some(ended), Some(most)) => wait.min((ended.boot + most).saturating_sub(now.boot)),
            _ => wait,
        }
    }

    /// After a sign-in, or a change of the source: errors and backoff are void.
    pub(super) fn reset(&mut self, now: Now) {
        self.error = None;
        self.failures = 0;
        self.not_before = None;
        self.due = Some(now);
    }

    /// After a sign-out: nothing is known any more, but how often was asked.
    pub(super) fn forget(&mut self) {
        let Self { attempts, renewing, .. } = *self;
        *self = Self { attempts, renewing, void: renewing, ..Self::default() };
    }

    /// Time until the next attempt; `None` for "not until somebody asks".
    pub(super) fn next_wake(&self, wanted: Wanted, hot: bool, now: Now) -> Option<Duration> {
        let in_vain = self.error.as_ref().is_some_and(Error::needs_word);
        if !(wanted.renewal || hot && !in_vain) {
            return None;
        }
        if wanted.forced {
            return Some(self.forced_wait(now));
        }
        let at_once = wanted.renewal && self.error.is_none();
        let due = match (at_once, wanted.renewal) {
            (true, _) => Duration::ZERO,
            (false, true) => self.due_for_a_caller(now),
            (false, false) => until(self.due, now),
        };
        Some(due.max(self.server_wait(now)))
    }

    /// What a waiting caller gets; `None` while waiting can help.
    pub(super) fn answer(&self, question: &Question, stage: Stage, now: Now) -> Option<Result<T, Error>> {
        let answered = self.attempts > question.attempts;
        match self.good(now, question.min_ttl) {
            Some(token) if question.want == Want::Life || (answered && self.error.is_none()) => {
                Some(Ok(token.clone()))
            }
            _ if self.renewing => None,
            _ => self.refusal(question, answered, stage, now).map(Err),
        }
    }

    /// Why waiting longer cannot help, if it cannot. No renewal is under way.
    fn refusal(&self, question: &Question, answered: bool, stage: Stage, now: Now) -> Option<Error> {
        let in_time = |wait: Duration| now.boot + wait <= question.deadline;
        if question.want == Want::ForcedNew && !answered {
            let wait = self.forced_wait(now);
            return (!in_time(wait)).then(|| {
                let soon = || {
                    Error::new(stage, Kind::TooSoon, Reason::RenewedRecently, "it was renewed a moment ago")
                };
                self.error.clone().unwrap_or_else(soon).retry_after(Some(wait))
            });
        }
        if let Some(error) = &self.error {
            // After an attempt, or in the backoff of an earlier one: is another due in time?
            let wait = self.due_for_a_caller(now).max(self.server_wait(now));
            // What can be mended here is looked at once more for each who asks.
            let looks = error.look_again_after().is_some_and(|most| wait <= most);
            let failed = answered || !(wait.is_zero() || looks);
            // A caller who fetches on behalf of others has a backoff of its own.
            let over = matches!(error.reason, Reason::FeedEnded { .. });
            let patient = error.is_transient() && (question.patient || !error.is_lasting());
            let hopeless = failed && (!patient || over || question.want == Want::New);
            let next = (!over).then_some(wait);
            return (hopeless || !in_time(wait)).then(|| error.clone().retry_after(next));
        }
        let left = self.token.as_ref()?.expiry().remaining(now);
        let young = self.last_attempt.is_some_and(|last| now.boot.saturating_sub(last.boot) < RENEWAL_GAP);
        // Another renewal so soon would bring the same: say how much life there is.
        (answered || (question.want == Want::Life && young && !left.is_zero())).then(|| {
            let (left, asked) = (left.as_secs(), question.min_ttl.as_secs());
            let message = format!("the token has {left} s of life left, {asked} s were asked for");
            Error::new(stage, Kind::TooShort, Reason::LifetimeTooShort { left, asked }, message)
        })
    }

    /// How long even a forced attempt must wait: for the server's word, and between forced ones.
    fn forced_wait(&self, now: Now) -> Duration {
        let gap = match self.last_attempt {
            Some(last) if self.good(now, Duration::ZERO).is_some() || self.error.is_some() => {
                let mended = self.error.as_ref().and_then(Error::look_again_after);
                let gap = mended.map_or(FORCED_GAP, |gap| gap.min(FORCED_GAP));
                (last.boot + gap).saturating_sub(now.boot)
            }
            _ => Duration::ZERO,
        };
        self.server_wait(now).max(gap)
    }

    /// How long the server itself asked us to stay away.
    fn server_wait(&self, now: Now) -> Duration {
        self.not_before.map_or(Duration::ZERO, |not_before| not_before.boot.saturating_sub(now.boot))
    }
}

/// Backoff by what went wrong: a refusal changes more slowly than a network.
fn backoff(kind: Kind) -> Backoff {
    let (first, most) = match kind {
        Kind::Transient | Kind::TooShort | Kind::TooSoon => (1, 60),
        Kind::Rejected => (10, 300),
        // Nothing is asked upstream for these: they are for sources that another program signs in to.
        Kind::NeedsLogin => (5, 30),
        Kind::Misconfigured => (30, 600),
    };
    Backoff { first: Duration::from_secs(first), most: Duration::from_secs(most) }
}

/// By the clock that says sooner: a suspended or set clock must not postpone a renewal.
fn until(due: Option<Now>, now: Now) -> Duration {
    due.map_or(Duration::ZERO, |due| {
        let wall = Duration::try_from(due.wall.duration_since(now.wall)).unwrap_or_default();
        wall.min(due.boot.saturating_sub(now.boot))
    })
}

fn later(now: Now, wait: Duration) -> Now {
    Now { wall: now.wall + wait, boot: now.boot + wait, ..now }
}

/// The longest backoff after a network fault while somebody waits.
const CALLER_BACKOFF: Duration = Duration::from_secs(3);

/// After a network fault, however much the network changes.
const NETWORK_GAP: Duration = Duration::from_secs(1);

/// A token this young is not renewed just because somebody asks for more life.
const RENEWAL_GAP: Duration = Duration::from_secs(30);

/// Forced renewals (refresh, rejected reports, clock steps) are at least this far apart.
const FORCED_GAP: Duration = Duration::from_secs(5);
