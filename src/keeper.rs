//! The one refresh loop: keeps one token of one kind fresh.
//!
//! A [`Keeper`] is the readers' half: the server, the SDK files and the next keeper read it. [`Keeper::run`]
//! is the loop, and the only place in this program that sleeps and retries. What is published is the last
//! good token and the last attempt's error, side by side; every judgement is derived from them and the clock
//! (see [`Snapshot`]), so it cannot be out of date.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use crate::backoff::Thinned;
use crate::clock::{Clock, Now, Wake};
use crate::error::{Error, Kind, Reason, Stage};
use crate::network;
use crate::token::{Expires, TokenHash};

mod demand;
mod schedule;
mod state;

pub use demand::{Demand, JobGuard};
pub use schedule::Policy;
pub use state::{Need, Snapshot};
use state::{Question, Want, Wanted};

/// What a keeper renews its token from. One attempt per call; the keeper retries.
pub trait Source: Send + 'static {
    type Item: Expires;

    fn renew(&self) -> impl Future<Output = Result<Self::Item, Error>> + Send;

    /// Resolves when a failed attempt is worth repeating before its backoff is over. Never, by default.
    fn recovered(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// While all is well: resolves with true when an attempt is worth making before it is due, since the source has
    /// something new or can no longer be followed. With false nothing happened, and it is followed again if the token is
    /// still needed. Never, by default.
    fn news(&self) -> impl Future<Output = bool> + Send {
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
    /// What callers want of the loop; `wake` tells it to look.
    wanted: Mutex<Wanted>,
    wake: Notify,
    demand: Arc<Demand>,
    clock: Clock,
    policy: Policy,
    /// Reports of rejected tokens.
    reports: Thinned,
}

/// A token of an earlier daemon.
#[derive(Clone, Debug)]
pub struct Restored<T> {
    pub token: T,
    /// How long ago it came, and so how much of its life is over.
    pub age: Duration,
}

/// Names a keeper in logs and errors.
#[derive(Clone, Debug)]
pub struct Label {
    pub profile: Arc<str>,
    pub stage: Stage,
}

impl<T: Expires> Keeper<T> {
    pub fn new(
        label: Label,
        policy: Policy,
        demand: Arc<Demand>,
        clock: Clock,
        restored: Option<Restored<T>>,
    ) -> Self {
        let published = watch::Sender::new(Snapshot::restored(restored, policy, clock.now()));
        let (wanted, wake) = (Mutex::default(), Notify::new());
        let reports = Thinned::new();
        Self { shared: Arc::new(Shared { label, published, wanted, wake, demand, clock, policy, reports }) }
    }

    /// Reads what is known now. Never waits.
    pub fn read<R>(&self, reader: impl FnOnce(&Snapshot<T>) -> R) -> R {
        reader(&self.shared.published.borrow())
    }

    pub fn snapshot(&self) -> Snapshot<T> {
        self.shared.published.borrow().clone()
    }

    /// For readers that follow changes.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot<T>> {
        self.shared.published.subscribe()
    }

    /// The token, if memory holds one with enough life: the fast path. Starts a renewal in the background
    /// when one is overdue for want of demand.
    pub fn peek(&self, min_ttl: Duration) -> Option<T> {
        let now = self.shared.clock.now();
        let (token, overdue) =
            self.read(|snapshot| (snapshot.good(now, min_ttl).cloned(), snapshot.is_overdue(now)));
        if token.is_some() && overdue {
            self.shared.wake.notify_one();
        }
        token
    }

    /// A token with at least `need.min_ttl` of life: from memory, or from the one renewal that all callers
    /// share. Waits through retries of a transient fault that are due within the caller's timeout, if it may pass by itself.
    ///
    /// # Errors
    ///
    /// The last attempt's error; [`Kind::TooShort`] if the best token has less life.
    pub async fn get(&self, need: Need) -> Result<T, Error> {
        match self.peek(need.min_ttl) {
            Some(token) => Ok(token),
            None => self.wait(need, Want::Life, false).await,
        }
    }

    /// [`Self::get`] for a caller that has said how long it waits, or that starts at the same time as other programs: it also
    /// waits for what one of them may do, such as writing a file or starting to listen.
    pub async fn get_patiently(&self, need: Need) -> Result<T, Error> {
        match self.peek(need.min_ttl) {
            Some(token) => Ok(token),
            None => self.wait(need, Want::Life, true).await,
        }
    }

    /// A token that came from the source after this call, shared with all other callers; or the failure of that
    /// one attempt. In the backoff of an earlier failure, that failure is the answer.
    pub async fn fetch_new(&self, timeout: Duration) -> Result<T, Error> {
        self.wait(Need { min_ttl: Duration::ZERO, timeout }, Want::New, false).await
    }

    /// The same for a person who asks: does not wait for backoff, but for the server's word and between two
    /// forced renewals.
    pub async fn refresh(&self, timeout: Duration) -> Result<T, Error> {
        self.wait(Need { min_ttl: Duration::ZERO, timeout }, Want::ForcedNew, false).await
    }

    /// The token was refused somewhere. One renewal, if the report is about the current token.
    pub fn rejected(&self, hash: TokenHash) -> bool {
        let current = self.read(|snapshot| snapshot.token.as_ref().is_some_and(|token| token.hash() == hash));
        if current {
            let Label { profile, stage } = &self.shared.label;
            if let Some(count) = self.shared.reports.count() {
                info!(%profile, %stage, count, "token reported as rejected, renewing");
            }
            self.want(true);
        }
        current
    }

    /// Waits until the token is another than that with `hash`, or there is none; no longer than `timeout`.
    pub async fn newer_than(&self, hash: TokenHash, timeout: Duration) {
        let mut follow = self.subscribe();
        let other =
            follow.wait_for(|snapshot| !snapshot.token.as_ref().is_some_and(|token| token.hash() == hash));
        let _ = tokio::time::timeout(timeout, other).await;
    }

    /// A token other than the one with this hash, which a server has refused: from memory, or from the one renewal that
    /// everybody shares who reports the same.
    pub async fn instead_of(&self, refused: TokenHash, timeout: Duration) -> Result<T, Error> {
        let mut follow = self.subscribe();
        let waiting = async {
            loop {
                let now = self.shared.clock.now();
                let (other, renewing, hopeless) = {
                    let snapshot = follow.borrow_and_update();
                    let other = snapshot.good(now, Duration::ZERO).filter(|token| token.hash() != refused);
                    let hopeless = snapshot.error.clone().filter(|error| !error.is_transient());
                    (other.cloned(), snapshot.renewing, hopeless)
                };
                match (other, hopeless) {
                    (Some(token), _) => return Ok(token),
                    (None, Some(error)) if !renewing => return Err(error),
                    (None, _) => {}
                }
                // A renewal under way is joined, not followed by another.
                if !renewing && !self.rejected(refused) {
                    self.want(false);
                }
                if follow.changed().await.is_err() {
                    return Err(self.error(Kind::Transient, Reason::Stopping, "the daemon is stopping"));
                }
            }
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(answer) => answer,
            Err(_) => Err(self.no_answer(timeout)),
        }
    }

    /// Forgets errors and backoff, and renews at once: after a sign-in, or a change of the source.
    pub fn reset(&self) {
        let now = self.shared.clock.now();
        self.shared.published.send_modify(|snapshot| snapshot.reset(now));
        self.shared.wake.notify_one();
    }

    /// The next attempt need not wait for the backoff to end: a person says that it may work now.
    pub fn hurry(&self) {
        let now = self.shared.clock.now();
        self.shared.published.send_if_modified(|snapshot| {
            snapshot.hurry(now);
            false
        });
    }

    /// What is now known of the token that an earlier daemon had.
    pub fn amend(&self, token: T) {
        self.shared.published.send_modify(|snapshot| {
            if let Some(known) = snapshot.token.as_mut().filter(|known| known.hash() == token.hash()) {
                *known = token;
            }
        });
    }

    /// Forgets the token itself: after a sign-out.
    pub fn forget(&self) {
        self.shared.published.send_modify(Snapshot::forget);
    }

    /// Has a token fetched if there is none, for somebody who does not wait for it.
    pub fn fetch_in_background(&self) {
        // A renewal under way is joined, not followed by another.
        if !self.read(|snapshot| snapshot.renewing) {
            self.want(false);
        }
    }

    fn want(&self, forced: bool) {
        {
            let mut wanted = self.wanted();
            wanted.renewal = true;
            wanted.forced |= forced;
        }
        self.shared.wake.notify_one();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: Kind, reason: Reason, message: impl Into<String>) -> Error {
        Error::new(self.shared.label.stage, kind, reason, message)
    }

    async fn wait(&self, need: Need, want: Want, patient: bool) -> Result<T, Error> {
        let mut follow = self.subscribe();
        let question = Question {
            want,
            min_ttl: need.min_ttl,
            patient,
            deadline: self.shared.clock.now().boot + need.timeout,
            attempts: follow.borrow().attempts,
        };
        let waiting = async {
            loop {
                let now = self.shared.clock.now();
                let (answer, renewing) = {
                    let snapshot = follow.borrow_and_update();
                    (snapshot.answer(&question, self.shared.label.stage, now), snapshot.renewing)
                };
                if let Some(answer) = answer {
                    return answer;
                }
                // A renewal under way is joined, not followed by another.
                if !renewing {
                    self.want(want == Want::ForcedNew);
                }
                if follow.changed().await.is_err() {
                    return Err(self.error(Kind::Transient, Reason::Stopping, "the daemon is stopping"));
                }
            }
        };
        // tokio's clock, not ours: the timeout is for a caller who waits while this machine runs.
        match tokio::time::timeout(need.timeout, waiting).await {
            Ok(answer) => answer,
            Err(_) => Err(self.no_answer(need.timeout)),
        }
    }

    /// What a caller is told that has waited for as long as it would.
    fn no_answer(&self, timeout: Duration) -> Error {
        self.read(|snapshot| snapshot.error.clone()).unwrap_or_else(|| {
            let seconds = timeout.as_secs();
            let message = format!("no answer within {seconds} s");
            self.error(Kind::Transient, Reason::NoAnswer { seconds }, message)
        })
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
            // Before the question, so that no answer is out of date unnoticed.
            let mut rises = self.shared.demand.rises();
            let (wanted, hot) = (*self.wanted(), self.shared.demand.is_hot(now));
            let (wait, failed, unreachable) = self.read(|snapshot| {
                (snapshot.next_wake(wanted, hot, now), snapshot.error.is_some(), snapshot.is_unreachable())
            });
            if wait == Some(Duration::ZERO) {
                return;
            }
            let sleep = async {
                match wait {
                    Some(wait) => self.shared.clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                _ = rises.changed() => {}
                () = source.recovered(), if failed => self.due_at_once(),
                news = source.news(), if hot && !failed => if news {
                    self.due_soon();
                },
                // The kernel has a new address or route: no need to sit out a backoff that no server asked for.
                () = network::changed(), if unreachable => self.due_soon(),
                wake = sleep => if wake == Wake::Stepped {
                    let Label { profile, stage } = &self.shared.label;
                    debug!(%profile, %stage, "the clock was set or the machine resumed, renewing");
                    self.want(true);
                },
            }
        }
    }

    fn due_at_once(&self) {
        self.shared.published.send_if_modified(|snapshot| {
            snapshot.due = Some(self.shared.clock.now());
            false
        });
    }

    fn due_soon(&self) {
        let now = self.shared.clock.now();
        self.shared.published.send_if_modified(|snapshot| {
            snapshot.network_changed(now);
            false
        });
    }

    async fn attempt<S: Source<Item = T>>(&self, source: &S) {
        let began = self.shared.clock.now();
        *self.wanted() = Wanted::default();
        self.shared.published.send_modify(|snapshot| snapshot.begin(began));
        let outcome = match tokio::time::timeout(ATTEMPT_TIMEOUT, source.renew()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let seconds = ATTEMPT_TIMEOUT.as_secs();
                let message = format!("gave up after {seconds} s");
                Err(self.error(Kind::Transient, Reason::NoAnswer { seconds }, message))
            }
        };
        let now = self.shared.clock.now();
        let outcome = outcome.and_then(|token| self.alive(token, now));
        self.shared.published.send_modify(|snapshot| {
            let before = snapshot.error.as_ref().map(|error| error.kind);
            if snapshot.end_void(now) {
                // Whoever waits still wants an answer.
                self.want(false);
                return;
            }
            match outcome {
                Ok(token) => {
                    let wait = snapshot.on_success(token, self.shared.policy, now);
                    self.log_success(before, wait);
                }
                Err(error) => {
                    let wait = snapshot.on_failure(error.clone(), self.shared.label.stage, now);
                    self.log_failure(before, &error, snapshot.good(now, Duration::ZERO).is_some(), wait);
                }
            }
        });
    }

    /// A token that is over when it comes is a failure: renewed at once it would be the same again, in a tight
    /// loop.
    fn alive(&self, token: T, now: Now) -> Result<T, Error> {
        if token.expiry().remaining(now).is_zero() {
            let message = "a token came whose life was already over; is this machine's clock right?";
            let reason = Reason::TokenExpired { at: token.expiry().wall() };
            return Err(self.error(Kind::Transient, reason, message));
        }
        Ok(token)
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
        // The exchange passes on what the identity keeper has said.
        let said = *stage == Stage::Exchange && matches!(error.stage, Stage::Identity | Stage::SignIn);
        if said || before == Some(error.kind) {
            debug!(%profile, %stage, %error, retry_s, "renewal failed again");
        } else {
            warn!(%profile, %stage, %error, retry_s, serving_last_good = have_token, "renewal failed");
        }
    }
}

/// The longest an attempt may take: above every provider's and the exchange's own deadline together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests;
