//! Sign-ins in progress: at most one per profile, each with a time limit.
//!
//! The server starts, follows and cancels them for the command. A caller that asks while one is in progress joins it, so
//! that many callers cause only one prompt. An `Attempt` runs in a task of its own and publishes what the person has to
//! do. When it succeeds, the tokens are in the profile's `oidc::Session`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openidconnect::CsrfToken;
use tokio::sync::watch;

use crate::api::{self, LoginMethod, LoginState};
use crate::clock::Clock;
use crate::error::Error;
use crate::oidc::session::{Session, SignedOut};
use crate::oidc::{self, Tokens};
use crate::token::TokenHash;

mod browser;
pub mod follow;
mod loopback;
pub mod notify;
mod page;

/// All sign-ins of one daemon. Cloning is cheap.
#[derive(Clone)]
pub struct Logins {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    clock: Clock,
}

/// The latest sign-in of one profile, in progress or finished.
struct Entry {
    id: String,
    method: LoginMethod,
    published: watch::Receiver<Option<api::Login>>,
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
        Self { entries: Arc::default(), clock }
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

    /// The state of the sign-in `id`. `None` if there is none, or another has replaced it.
    pub fn get(&self, id: &str) -> Option<api::Login> {
        let entries = self.entries.lock().expect("no holder panics");
        let entry = entries.values().find(|entry| entry.id == id)?;
        entry.published.borrow().clone()
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
        let attempt = Attempt { id: id.clone(), session, method, publish, clock: self.clock.clone() };
        let task = tokio::spawn(attempt.run()).abort_handle();
        Entry { id, method, published, task }
    }
}

/// One sign-in, from start to finish.
struct Attempt {
    id: String,
    session: Arc<Session>,
    method: LoginMethod,
    publish: watch::Sender<Option<api::Login>>,
    clock: Clock,
}

impl Attempt {
    async fn run(self) {
        let profile = self.session.profile().to_owned();
        tracing::info!(profile, method = ?self.method, "sign-in started");
        let result = match self.method {
            LoginMethod::Browser => self.browser().await,
            LoginMethod::Device => self.device().await,
        };
        match result {
            Ok(account) => tracing::info!(profile, "signed in as {account}"),
            Err(error) => {
                tracing::warn!(profile, "sign-in failed: {error}");
                self.failed(error.to_string());
            }
        }
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
        self.finish(tokens.unwrap_or_else(|_| Err(timed_out(timeout)))?).await
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

    fn failed(&self, error: String) {
        self.publish.send_modify(|login| {
            let login = login.get_or_insert_with(|| self.login(String::new(), Duration::ZERO));
            login.state = LoginState::Failed;
            login.error = Some(error);
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
        }
    }
}

fn timed_out(timeout: Duration) -> Error {
    let minutes = timeout.as_secs().div_ceil(60);
    oidc::declined(format!("nobody signed in within {minutes} minutes; start the sign-in again"))
}

/// The limit for codes that are valid for longer: nobody enters a code after a quarter of an hour.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
