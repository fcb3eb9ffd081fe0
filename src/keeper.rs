//! The one refresh loop: keeps one token of one kind fresh.
//!
//! A [`Keeper`] is the readers' half: the server, the SDK files and the next keeper read it. [`Keeper::run`]
//! is the loop, and the only place in this program that sleeps and retries. What is published is the last
//! good token and the last attempt's error, side by side; every judgement ([`Snapshot::state`]) is derived
//! from them and the clock, so it cannot be out of date.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::api;
use crate::backoff::Backoff;
use crate::clock::{Clock, Now, Wake};
use crate::token::{Expires, TokenHash};

mod demand;
mod schedule;

pub use demand::{Demand, JobGuard};
pub use schedule::Policy;

/// What a keeper renews its token from. One attempt per call; the keeper retries.
pub trait Source: Send + 'static {
    type Item: Expires;

    fn renew(&self) -> impl Future<Output = Result<Self::Item, Error>> + Send;

    /// Resolves when a failed attempt is worth repeating before its backoff is over. Never, by default.
    fn recovered(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Readers' half of a kept token. Cloning is cheap.
#[derive(Clone)]
pub struct Keeper<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    label: Label,
    published: watch::Sender<Snapshot<T>>,
    poke: Notify,
    demand: Arc<Demand>,
    clock: Clock,
    policy: Policy,
}

/// Names a keeper in logs.
#[derive(Clone, Debug)]
pub struct Label {
    pub profile: Arc<str>,
    pub stage: Stage,
}

/// What a keeper knows, published on every change.
#[derive(Clone, Debug)]
pub struct Snapshot<T> {
    /// The last good token; it may have expired since.
    pub token: Option<T>,
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
    /// When the last attempt began.
    last_attempt: Option<Now>,
    /// Not before this, whatever is asked: the server's word.
    hold_until: Option<Now>,
    /// Somebody waits for an attempt that has not begun.
    wanted: bool,
    /// ... and will not wait for the backoff.
    forced: bool,
}

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self {
            token: None,
            error: None,
            failures: 0,
            attempts: 0,
            renewing: false,
            due: None,
            last_attempt: None,
            hold_until: None,
            wanted: false,
            forced: false,
        }
    }
}

impl<T: Expires> Snapshot<T> {
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
}

/// What a waiting caller is content with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// A token with enough life, new or not.
    Life,
    /// One that came after the question.
    Look,
    /// The same, past the backoff.
    Force,
}

/// How long a caller may wait, and for how much life.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub min_ttl: Duration,
    pub patience: Duration,
}

impl<T: Expires> Keeper<T> {
    pub fn new(label: Label, policy: Policy, demand: Arc<Demand>, clock: Clock, restored: Option<T>) -> Self {
        let now = clock.now();
        // A restored token is served at once and renewed as soon as something needs it.
        let due = restored.is_some().then_some(now);
        let published = watch::Sender::new(Snapshot { token: restored, due, ..Snapshot::default() });
        Self { shared: Arc::new(Shared { label, published, poke: Notify::new(), demand, clock, policy }) }
    }

    /// Reads what is known now. Never waits.
    pub fn read<R>(&self, reader: impl FnOnce(&Snapshot<T>) -> R) -> R {
        reader(&self.shared.published.borrow())
    }

    pub fn snapshot(&self) -> Snapshot<T> {
        self.shared.published.borrow().clone()
    }

    /// For whoever follows changes.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot<T>> {
        self.shared.published.subscribe()
    }

    /// The token, if memory holds one with enough life: the fast path. Starts a renewal in the background
    /// when one is overdue for want of demand.
    pub fn peek(&self, min_ttl: Duration) -> Option<T> {
        let now = self.shared.clock.now();
        let (token, overdue) = self.read(|snapshot| {
            let overdue = !snapshot.renewing && snapshot.due.is_none_or(|due| due.boot <= now.boot);
            (snapshot.good(now, min_ttl).cloned(), overdue)
        });
        if token.is_some() && overdue {
            self.shared.poke.notify_one();
        }
        token
    }

    /// A token with at least `need.min_ttl` of life: from memory, or from the one renewal that all callers
    /// share. Waits through retries of a transient fault that are due within the caller's patience.
    pub async fn get(&self, need: Need) -> Result<T, Error> {
        if let Some(token) = self.peek(need.min_ttl) {
            return Ok(token);
        }
        self.wait(need, Ask::Life).await
    }

    /// A token that came from the source after this call, shared with whoever else asks; or the failure of that
    /// one attempt. In the backoff of an earlier failure that failure is the answer.
    pub async fn look_again(&self, patience: Duration) -> Result<T, Error> {
        self.wait(Need { min_ttl: Duration::ZERO, patience }, Ask::Look).await
    }

    /// The same for a person who asks: not held up by backoff, but by the server's word and by [`HOLD`].
    pub async fn refresh(&self, patience: Duration) -> Result<T, Error> {
        self.wait(Need { min_ttl: Duration::ZERO, patience }, Ask::Force).await
    }

    /// The token is refused somewhere. One renewal, if the report is of the current token.
    pub fn rejected(&self, hash: TokenHash) -> bool {
        let current = self.read(|snapshot| snapshot.token.as_ref().is_some_and(|token| token.hash() == hash));
        if current {
            info!(profile = %self.shared.label.profile, stage = %self.shared.label.stage, "token reported as rejected, renewing");
            self.want(true);
        }
        current
    }

    /// Forgets errors and backoff, and looks again at once: after a sign-in, or a change of the source.
    pub fn reset(&self) {
        self.shared.published.send_modify(|snapshot| {
            snapshot.error = None;
            snapshot.failures = 0;
            snapshot.hold_until = None;
            snapshot.due = Some(self.shared.clock.now());
        });
        self.shared.poke.notify_one();
    }

    /// Forgets the token itself: after a sign-out.
    pub fn forget(&self) {
        self.shared.published.send_modify(|snapshot| {
            *snapshot = Snapshot { attempts: snapshot.attempts, ..Snapshot::default() };
        });
    }

    fn want(&self, forced: bool) {
        self.shared.published.send_if_modified(|snapshot| {
            snapshot.wanted = true;
            snapshot.forced |= forced;
            false
        });
        self.shared.poke.notify_one();
    }

    async fn wait(&self, need: Need, ask: Ask) -> Result<T, Error> {
        let mut follow = self.subscribe();
        let asked = follow.borrow().attempts;
        let deadline = self.shared.clock.now().boot + need.patience;
        let waiting = async {
            loop {
                let now = self.shared.clock.now();
                let (settled, renewing) = {
                    let snapshot = follow.borrow_and_update();
                    let answered = snapshot.attempts > asked;
                    let settled = match snapshot.good(now, need.min_ttl) {
                        Some(token) if ask == Ask::Life || (answered && snapshot.error.is_none()) => {
                            Some(Ok(token.clone()))
                        }
                        _ if snapshot.renewing => None,
                        _ => self.give_up(&snapshot, now, answered, deadline, need, ask).map(Err),
                    };
                    (settled, snapshot.renewing)
                };
                if let Some(settled) = settled {
                    return settled;
                }
                // A renewal under way is joined, not followed by another.
                if !renewing {
                    self.want(ask == Ask::Force);
                }
                if follow.changed().await.is_err() {
                    return Err(Error::new(
                        self.shared.label.stage,
                        Kind::Transient,
                        "the daemon is stopping",
                    ));
                }
            }
        };
        // tokio's clock, not ours: patience is for a caller who waits while this machine runs.
        match tokio::time::timeout(need.patience, waiting).await {
            Ok(settled) => settled,
            Err(_) => Err(self.read(|snapshot| snapshot.error.clone()).unwrap_or_else(|| {
                let seconds = need.patience.as_secs();
                Error::new(self.shared.label.stage, Kind::Transient, format!("no answer within {seconds} s"))
            })),
        }
    }

    /// Why waiting longer is no use, if it is none. No renewal is under way.
    fn give_up(
        &self,
        snapshot: &Snapshot<T>,
        now: Now,
        answered: bool,
        deadline: Duration,
        need: Need,
        ask: Ask,
    ) -> Option<Error> {
        let stage = self.shared.label.stage;
        if ask == Ask::Force && !answered {
            let held = self.held(snapshot, now);
            return (now.boot + held > deadline || !held.is_zero() && snapshot.error.is_none())
                .then(|| Error::new(stage, Kind::TooSoon, "it was renewed a moment ago").retry_in(held));
        }
        if let Some(error) = &snapshot.error {
            // After an attempt, or in the backoff of an earlier one: is another due in time?
            let next = until(snapshot.due, now).max(server_hold(snapshot, now));
            let failed = answered || !next.is_zero();
            // Who looks on behalf of others has a backoff of its own.
            let hopeless = failed && (error.kind != Kind::Transient || ask == Ask::Look);
            return (hopeless || now.boot + next > deadline).then(|| error.clone().retry_in(next));
        }
        let token = snapshot.token.as_ref()?;
        let young =
            snapshot.last_attempt.is_some_and(|last| now.boot.saturating_sub(last.boot) < RENEWAL_GAP);
        let left = token.expiry().remaining(now);
        // Renewing again so soon would give the same: say how much life there is.
        (answered || (ask == Ask::Life && young && !left.is_zero())).then(|| {
            let (left_s, asked_s) = (left.as_secs(), need.min_ttl.as_secs());
            let message = format!("the token has {left_s} s of life left, {asked_s} s were asked for");
            Error::new(stage, Kind::TooShort { left }, message)
        })
    }

    /// How long even a forced attempt must wait: for the server's word, and between forced ones.
    fn held(&self, snapshot: &Snapshot<T>, now: Now) -> Duration {
        let gap = match snapshot.last_attempt {
            Some(last) if snapshot.good(now, Duration::ZERO).is_some() || snapshot.error.is_some() => {
                (last.boot + HOLD).saturating_sub(now.boot)
            }
            _ => Duration::ZERO,
        };
        server_hold(snapshot, now).max(gap)
    }

    /// The loop. Ends only when its task is aborted.
    pub async fn run<S: Source<Item = T>>(self, source: S) {
        loop {
            self.until_due(&source).await;
            self.attempt(&source).await;
        }
    }

    /// Waits until an attempt is due *and* something needs the token.
    async fn until_due<S: Source<Item = T>>(&self, source: &S) {
        loop {
            let now = self.shared.clock.now();
            let wait = self.read(|snapshot| self.time_to_next(snapshot, now));
            if wait == Some(Duration::ZERO) {
                return;
            }
            let sleep = async {
                match wait {
                    Some(wait) => self.shared.clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let failed = self.read(|snapshot| snapshot.error.is_some());
            tokio::select! {
                () = self.shared.poke.notified() => {}
                () = source.recovered(), if failed => {
                    self.shared.published.send_if_modified(|snapshot| {
                        snapshot.due = Some(self.shared.clock.now());
                        false
                    });
                }
                wake = sleep => if wake == Wake::Stepped {
                    debug!(profile = %self.shared.label.profile, stage = %self.shared.label.stage, "clock was set or machine resumed, renewing");
                    self.want(true);
                },
            }
        }
    }

    /// Time until the next attempt; `None` for "not until somebody asks".
    fn time_to_next(&self, snapshot: &Snapshot<T>, now: Now) -> Option<Duration> {
        let signed_out = snapshot.error.as_ref().is_some_and(|error| error.kind == Kind::NeedsLogin);
        let needed = snapshot.wanted || (self.shared.demand.is_hot(now) && !signed_out);
        if !needed {
            return None;
        }
        if snapshot.forced {
            return Some(self.held(snapshot, now));
        }
        let wanted_now = snapshot.wanted && snapshot.error.is_none();
        let due = if wanted_now { Duration::ZERO } else { until(snapshot.due, now) };
        Some(due.max(server_hold(snapshot, now)))
    }

    async fn attempt<S: Source<Item = T>>(&self, source: &S) {
        let began = self.shared.clock.now();
        self.shared.published.send_modify(|snapshot| {
            snapshot.renewing = true;
            snapshot.wanted = false;
            snapshot.forced = false;
            snapshot.last_attempt = Some(began);
        });
        let outcome = match tokio::time::timeout(ATTEMPT_DEADLINE, source.renew()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("gave up after {} s", ATTEMPT_DEADLINE.as_secs());
                Err(Error::new(self.shared.label.stage, Kind::Transient, message))
            }
        };
        let now = self.shared.clock.now();
        // Renewed at once it would be the same again: without a backoff that is a tight loop.
        let outcome = outcome.and_then(|token| match token.expiry().remaining(now).is_zero() {
            true => {
                let message = "a token came whose life was already over; is this machine's clock right?";
                Err(Error::new(self.shared.label.stage, Kind::Transient, message))
            }
            false => Ok(token),
        });
        self.shared.published.send_modify(|snapshot| {
            let before = snapshot.error.as_ref().map(|error| error.kind);
            snapshot.renewing = false;
            snapshot.attempts += 1;
            snapshot.hold_until = None;
            match outcome {
                Ok(token) => {
                    let wait = self.shared.policy.renew_in(token.expiry().remaining(now), &token.renewal());
                    snapshot.due = Some(later(now, wait));
                    snapshot.error = None;
                    snapshot.failures = 0;
                    snapshot.token = Some(token);
                    self.log_success(before, wait);
                }
                Err(error) => {
                    snapshot.failures = snapshot.failures.saturating_add(1);
                    let wait = backoff(error.kind).delay(snapshot.failures, error.retry_after);
                    snapshot.due = Some(later(now, wait));
                    if error.server_said {
                        snapshot.hold_until = snapshot.due;
                    }
                    self.log_failure(before, &error, snapshot.good(now, Duration::ZERO).is_some(), wait);
                    snapshot.error = Some(error);
                }
            }
        });
    }

    fn log_success(&self, before: Option<Kind>, wait: Duration) {
        let Label { profile, stage } = &self.shared.label;
        match before {
            Some(_) => {
                info!(%profile, %stage, next_renewal_s = wait.as_secs(), "renewed again after failure");
            }
            None => debug!(%profile, %stage, next_renewal_s = wait.as_secs(), "renewed"),
        }
    }

    /// A change of state is a warning, its repetition is not.
    fn log_failure(&self, before: Option<Kind>, error: &Error, have_token: bool, wait: Duration) {
        let Label { profile, stage } = &self.shared.label;
        let retry_s = wait.as_secs();
        if before == Some(error.kind) {
            debug!(%profile, %stage, %error, retry_s, "renewal failed again");
        } else {
            warn!(%profile, %stage, %error, retry_s, serving_last_good = have_token, "renewal failed");
        }
    }
}

/// Backoff by what went wrong: a refusal changes more slowly than a network.
fn backoff(kind: Kind) -> Backoff {
    let (first, most) = match kind {
        Kind::Transient | Kind::TooShort { .. } | Kind::TooSoon => (1, 60),
        Kind::Rejected => (10, 300),
        // Nobody asks upstream for these: they are for sources that another program signs in to.
        Kind::NeedsLogin => (5, 30),
        Kind::Misconfigured => (30, 600),
    };
    Backoff { first: Duration::from_secs(first), most: Duration::from_secs(most) }
}

/// How long the server itself asked us to stay away.
fn server_hold<T>(snapshot: &Snapshot<T>, now: Now) -> Duration {
    snapshot.hold_until.map_or(Duration::ZERO, |hold| hold.boot.saturating_sub(now.boot))
}

fn later(now: Now, wait: Duration) -> Now {
    Now { wall: now.wall + wait, boot: now.boot + wait, ..now }
}

/// By the clock that says sooner: a suspended or set clock must not postpone a renewal.
fn until(due: Option<Now>, now: Now) -> Duration {
    due.map_or(Duration::ZERO, |due| {
        let wall = Duration::try_from(due.wall.duration_since(now.wall)).unwrap_or_default();
        wall.min(due.boot.saturating_sub(now.boot))
    })
}

/// Why there is no (new) token: where it happened, what to do next, in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub stage: Stage,
    pub kind: Kind,
    pub message: Arc<str>,
    /// When another attempt makes sense.
    pub retry_after: Option<Duration>,
    /// The wait is the server's word, not ours.
    server_said: bool,
}

impl Error {
    pub fn new(stage: Stage, kind: Kind, message: impl Into<Arc<str>>) -> Self {
        Self { stage, kind, message: message.into(), retry_after: None, server_said: false }
    }

    pub fn retry_in(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The server itself named the wait: no demand cuts it short.
    pub fn server_asks(mut self, wait: Option<Duration>) -> Self {
        self.server_said = wait.is_some();
        self.retry_after = wait;
        self
    }
}

/// Which of a profile's two keepers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Identity,
    Exchange,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Exchange => "exchange",
        })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Try again.
    Transient,
    /// A person must act.
    NeedsLogin,
    /// This credential is refused; another may help.
    Rejected,
    /// Nothing changes until the configuration or the source does.
    Misconfigured,
    /// A token is there, with less life than was asked for.
    TooShort { left: Duration },
    /// A renewal was asked for again too soon.
    TooSoon,
}

/// The longest an attempt may take: above every provider's and the exchange's own deadline together.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(150);

/// A token this young is not renewed just because somebody asks for more life.
const RENEWAL_GAP: Duration = Duration::from_secs(30);

/// Forced renewals (refresh, rejected reports, clock steps) are at least this far apart.
const HOLD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
