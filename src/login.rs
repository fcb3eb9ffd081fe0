//! Sign-ins under way: at most one per profile, each with an end.
//!
//! The server starts, follows and cancels them for the command. Whoever asks while one is under way joins it,
//! so that many callers cause one prompt. An [`Attempt`](Entry) runs in a task of its own and publishes what
//! the person has to do; when it succeeds, the tokens are in the profile's `oidc::Session`.

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

/// The last sign-in of one profile, under way or over.
struct Entry {
    id: String,
    method: LoginMethod,
    published: watch::Receiver<Option<api::Login>>,
    task: tokio::task::AbortHandle,
}

impl Entry {
    /// Not yet published is under way too.
    fn is_waiting(&self) -> bool {
        let published = self.published.borrow();
        published.as_ref().is_none_or(|login| login.state == LoginState::Waiting) && !self.task.is_finished()
    }
}

impl Logins {
    pub fn new(clock: Clock) -> Self {
        Self { entries: Arc::default(), clock }
    }

    /// Starts a sign-in, or joins the one under way. Returns as soon as it is known what the person has to
    /// do. One that is asked for with the other method replaces the one under way.
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
        let begun = published.wait_for(Option::is_some).await;
        match begun.ok().and_then(|login| login.clone()) {
            Some(login) => Ok(login),
            None => Err(oidc::transient("the sign-in was replaced by another one")),
        }
    }

    /// How the sign-in `id` stands. `None` if there is none, or another has replaced it.
    pub fn get(&self, id: &str) -> Option<api::Login> {
        let entries = self.entries.lock().expect("no holder panics");
        let entry = entries.values().find(|entry| entry.id == id)?;
        entry.published.borrow().clone()
    }

    /// Signs out, and gives up a sign-in under way.
    pub async fn stop(&self, session: &Session) -> Result<SignedOut, Error> {
        if let Some(entry) = self.entries.lock().expect("no holder panics").remove(session.profile()) {
            entry.task.abort();
        }
        session.sign_out().await
    }

    fn spawn(&self, session: Arc<Session>, method: LoginMethod) -> Entry {
        // 128 random bits of the library's source, in an alphabet that needs no escaping.
        let mut id = TokenHash::of(CsrfToken::new_random().secret()).to_string();
        id.truncate(32);
        let (publish, published) = watch::channel(None);
        let attempt = Attempt { id: id.clone(), session, method, publish, clock: self.clock.clone() };
        let task = tokio::spawn(attempt.run()).abort_handle();
        Entry { id, method, published, task }
    }
}

/// One sign-in, from its beginning to its end.
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
        tracing::info!(profile, method = ?self.method, "sign-in begun");
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
        let cap = device.expires_in.min(DEVICE_CAP);
        self.waiting(api::Login {
            user_code: Some(device.user_code.clone()),
            url_with_code: device.verification_uri_complete.as_ref().map(ToString::to_string),
            ..self.login(device.verification_uri.to_string(), cap)
        });
        let tokens = tokio::time::timeout(cap, self.session.party.device_tokens(&device)).await;
        self.finish(tokens.unwrap_or_else(|_| Err(out_of_time(cap)))?).await
    }

    /// Keeps the tokens and tells it. Returns who signed in.
    async fn finish(&self, tokens: Tokens) -> Result<String, Error> {
        let person = self.session.signed_in(tokens).await?;
        let account = person.name().to_owned();
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

    fn login(&self, url: String, cap: Duration) -> api::Login {
        api::Login {
            id: self.id.clone(),
            profile: self.session.profile().to_owned(),
            method: self.method,
            state: LoginState::Waiting,
            url,
            user_code: None,
            url_with_code: None,
            expires_at: self.clock.now().wall + cap,
            account: None,
            error: None,
        }
    }
}

fn out_of_time(cap: Duration) -> Error {
    let minutes = cap.as_secs().div_ceil(60);
    oidc::declined(format!("nobody signed in within {minutes} minutes; start the sign-in again"))
}

/// Codes that live longer are not waited for: nobody types a code in after a quarter of an hour.
const DEVICE_CAP: Duration = Duration::from_secs(15 * 60);
