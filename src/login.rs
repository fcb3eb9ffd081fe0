//! Sign-ins in progress: at most one per profile, each with a time limit.
//!
//! The server starts, follows and cancels them for the command. A caller that asks while one is in progress joins it, so
//! that many callers cause only one prompt. An `Attempt` runs in a task of its own and publishes what the person has to
//! do. When it succeeds, the tokens are in the profile's `oidc::Session`. When the last command that waits for it goes, it
//! ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openidconnect::CsrfToken;
use tokio::sync::{Notify, watch};

use crate::api::{self, LoginMethod, LoginState};
use crate::clock::{Clock, Wake};
use crate::error::{Error, Reason};
use crate::oidc::session::{Session, SignedOut};
use crate::oidc::{self, Tokens};
use crate::token::TokenHash;

mod browser;
pub mod follow;
mod listener;
pub mod loopback;
pub mod notify;
mod page;
mod returned;

use returned::Door;

/// All sign-ins of one daemon. Cloning is cheap.
#[derive(Clone)]
pub struct Logins {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    listeners: listener::Listeners,
    clock: Clock,
}

/// The latest sign-in of one profile, in progress or finished.
struct Entry {
    id: String,
    method: LoginMethod,
    published: watch::Receiver<Option<api::Login>>,
    followers: Arc<Followers>,
    door: Door,
    task: tokio::task::AbortHandle,
}

impl Entry {
    /// Whether it is in progress, even if it has not published anything yet.
    fn is_waiting(&self) -> bool {
        let published = self.published.borrow();
        published.as_ref().is_none_or(|login| login.state == LoginState::Waiting) && !self.task.is_finished()
    }
}

impl Logins {
    pub fn new(clock: Clock) -> Self {
        Self { entries: Arc::default(), listeners: listener::Listeners::default(), clock }
    }

    /// Starts a sign-in, or joins the one in progress; one with another method replaces it. Returns as soon as it is
    /// known what the person has to do.
    pub async fn start(&self, session: Arc<Session>, method: LoginMethod) -> Result<api::Login, Error> {
        let mut published = {
            let mut entries = self.entries.lock().expect("no holder panics");
            let profile = session.profile().to_owned();
            match entries.get(&profile) {
                Some(entry) if entry.is_waiting() && entry.method == method => entry.published.clone(),
                other => {
                    if let Some(other) = other {
                        other.task.abort();
                    }
                    let entry = self.spawn(session, method);
                    let published = entry.published.clone();
                    entries.insert(profile, entry);
                    published
                }
            }
        };
        let started = published.wait_for(Option::is_some).await;
        match started.ok().and_then(|login| login.clone()) {
            Some(login) => Ok(login),
            None => Err(oidc::transient("another sign-in replaced this one")),
        }
    }

    /// The state of the sign-in `id`, for a command that waits for it. `None` if there is none, or another has replaced it.
    pub fn get(&self, id: &str) -> Option<api::Login> {
        let entries = self.entries.lock().expect("no holder panics");
        let entry = entries.values().find(|entry| entry.id == id)?;
        entry.followers.asked();
        entry.published.borrow().clone()
    }

    /// The same when it has ended, or after `timeout`. A caller that is dropped meanwhile does not wait for the sign-in any more.
    pub async fn follow(&self, id: &str, timeout: Duration) -> Option<api::Login> {
        let (mut published, following) = {
            let entries = self.entries.lock().expect("no holder panics");
            let entry = entries.values().find(|entry| entry.id == id)?;
            (entry.published.clone(), entry.followers.join())
        };
        let over = |login: &Option<api::Login>| {
            login.as_ref().is_some_and(|login| login.state != LoginState::Waiting)
        };
        let _ = tokio::time::timeout(timeout, published.wait_for(over)).await;
        following.answered();
        published.borrow().clone()
    }

    /// Takes the address at which the browser ended on another machine: the same answer as if it had come here, judged the
    /// same way. The error says what is wrong with it.
    pub async fn returned(&self, id: &str, address: &str) -> Result<(), &'static str> {
        let door = {
            let entries = self.entries.lock().expect("no holder panics");
            entries.values().find(|entry| entry.id == id).map(|entry| entry.door.clone())
        };
        door.ok_or("the sign-in has ended, or another one replaced it")?.take(address).await
    }

    /// Signs out, and cancels a sign-in in progress.
    pub async fn stop(&self, session: &Session) -> Result<SignedOut, Error> {
        if let Some(entry) = self.entries.lock().expect("no holder panics").remove(session.profile()) {
            entry.task.abort();
        }
        session.sign_out().await
    }

    fn spawn(&self, session: Arc<Session>, method: LoginMethod) -> Entry {
        // 128 random bits from the library's generator, hashed to get an alphabet that needs no escaping.
        let mut id = TokenHash::of(CsrfToken::new_random().secret()).to_string();
        id.truncate(32);
        let (publish, published) = watch::channel(None);
        let (followers, door) = (Arc::<Followers>::default(), Door::default());
        let attempt = Attempt {
            id: id.clone(),
            session,
            method,
            publish,
            followers: Arc::clone(&followers),
            door: door.clone(),
            is_answered: AtomicBool::new(false),
            listeners: self.listeners.clone(),
            clock: self.clock.clone(),
        };
        let task = tokio::spawn(attempt.run()).abort_handle();
        Entry { id, method, published, followers, door, task }
    }
}

/// One sign-in, from start to finish.
struct Attempt {
    id: String,
    session: Arc<Session>,
    method: LoginMethod,
    publish: watch::Sender<Option<api::Login>>,
    followers: Arc<Followers>,
    door: Door,
    /// The person is done: from here on nothing is given up.
    is_answered: AtomicBool,
    listeners: listener::Listeners,
    clock: Clock,
}

impl Attempt {
    async fn run(self) {
        let profile = self.session.profile().to_owned();
        tracing::info!(profile, method = ?self.method, "sign-in started");
        let attempt = async {
            self.session.check_store().await?;
            match self.method {
                LoginMethod::Browser => self.browser().await,
                LoginMethod::Device => self.device().await,
            }
        };
        let result = tokio::select! {
            result = attempt => result,
            () = self.abandoned() => Err(oidc::declined("the command that waited for this sign-in has gone")),
        };
        match result {
            Ok(account) => tracing::info!(profile, "signed in as {account}"),
            Err(error) => {
                tracing::warn!(profile, "sign-in failed: {error}");
                self.failed(&error);
            }
        }
    }

    /// Ends when a command has waited for this sign-in, and none does any more.
    async fn abandoned(&self) {
        self.followers.told.notified().await;
        loop {
            let Some(patience) = self.followers.patience() else {
                self.followers.told.notified().await;
                continue;
            };
            tokio::select! {
                () = self.followers.told.notified() => {}
                // A machine that was suspended stopped the command too.
                wake = self.clock.sleep(patience) => {
                    if wake == Wake::Elapsed && !self.is_answered.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }

    fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    async fn device(&self) -> Result<String, Error> {
        let device = self.session.party.device().await?;
        let timeout = device.expires_in.min(DEVICE_TIMEOUT);
        self.waiting(api::Login {
            user_code: Some(device.user_code.clone()),
            url_with_code: device.verification_uri_complete.as_ref().map(ToString::to_string),
            ..self.login(device.verification_uri.to_string(), timeout)
        });
        let tokens = tokio::time::timeout(timeout, self.session.party.device_tokens(&device)).await;
        let tokens = tokens.unwrap_or_else(|_| Err(timed_out(timeout)))?;
        self.answered();
        self.finish(tokens).await
    }

    /// Stores the tokens and publishes the success. Returns who signed in.
    async fn finish(&self, tokens: Tokens) -> Result<String, Error> {
        let person = self.session.signed_in(tokens).await?;
        let account = person.name();
        self.publish.send_modify(|login| {
            if let Some(login) = login {
                login.state = LoginState::SignedIn;
                login.account = Some(account.clone());
            }
        });
        Ok(account)
    }

    fn waiting(&self, login: api::Login) {
        self.publish.send_replace(Some(login));
    }

    fn failed(&self, error: &Error) {
        self.publish.send_modify(|login| {
            let login = login.get_or_insert_with(|| self.login(String::new(), Duration::ZERO));
            login.state = LoginState::Failed;
            login.error = Some(error.to_string());
            login.reason = Some(error.reason.clone()).filter(|reason| *reason != Reason::Other);
            login.next = Some(api::next_after_sign_in(&error.reason, self.method, self.session.profile()));
        });
    }

    fn login(&self, url: String, timeout: Duration) -> api::Login {
        api::Login {
            id: self.id.clone(),
            profile: self.session.profile().to_owned(),
            method: self.method,
            state: LoginState::Waiting,
            url,
            user_code: None,
            url_with_code: None,
            expires_at: self.clock.now().wall + timeout,
            account: None,
            error: None,
            reason: None,
            next: None,
        }
    }
}

/// The commands that wait for one sign-in.
#[derive(Default)]
struct Followers {
    /// Those that hold a connection until it ends.
    waiting: AtomicUsize,
    /// The last of them has closed it.
    hung_up: AtomicBool,
    told: Notify,
}

impl Followers {
    /// One asks, and will ask again.
    fn asked(&self) {
        self.hung_up.store(false, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn join(self: &Arc<Self>) -> Following {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.asked();
        Following { followers: Arc::clone(self), answered: false }
    }

    /// How long to wait for a word of any; `None` while one is there.
    fn patience(&self) -> Option<Duration> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        Some(if self.hung_up.load(Ordering::Relaxed) { HUNG_UP_AFTER } else { ABANDONED_AFTER })
    }
}

struct Following {
    followers: Arc<Followers>,
    answered: bool,
}

impl Following {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.followers.waiting.fetch_sub(1, Ordering::Relaxed);
        self.followers.hung_up.store(!self.answered, Ordering::Relaxed);
        self.followers.told.notify_one();
    }
}

fn timed_out(timeout: Duration) -> Error {
    let minutes = timeout.as_secs().div_ceil(60);
    oidc::declined(format!("nobody signed in within {minutes} minutes; start the sign-in again"))
}

/// The limit for codes that are valid for longer: nobody enters a code after a quarter of an hour.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Those that only ask now and then do so more often.
const ABANDONED_AFTER: Duration = Duration::from_secs(10);

/// After Ctrl-C: another that waits may be between two questions.
const HUNG_UP_AFTER: Duration = Duration::from_millis(500);
