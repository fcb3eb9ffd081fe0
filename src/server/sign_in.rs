//! The routes of signing in and out, and of locking: what a person does, driven by the command.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::Request;
use hyper::body::Incoming;
use zeroize::Zeroizing;

use super::answer::{self, Answer};
use super::request::{self, Query, no_query};
use super::state::State;
use crate::api::{self, Problem, ProblemKind};
use crate::oidc::session::Session;
use crate::profile::Profile;

pub(super) async fn login(state: &State, request: Request<Incoming>) -> Result<Answer, Problem> {
    no_query(request.uri().query())?;
    let wanted: api::LoginRequest = request::body(request).await?;
    let directory = state.directory();
    let profile = &directory.find(wanted.profile.as_deref())?.profile;
    let session = session(profile)?;
    let begun = state.logins.start(Arc::clone(session), wanted.method).await;
    begun.map(|login| answer::json(&login)).map_err(|error| Problem::from_error(&profile.name, &error))
}

pub(super) async fn progress(state: &State, id: &str, query: Option<&str>) -> Result<Answer, Problem> {
    let login = match Query::parse(query, &["wait"])?.wait() {
        Some(wait) => state.logins.follow(id, wait).await,
        None => state.logins.get(id),
    };
    login.map(|login| answer::json(&login)).ok_or_else(unknown)
}

pub(super) async fn returned(state: &State, id: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    no_query(request.uri().query())?;
    let callback: api::Callback = request::body(request).await?;
    let address = Zeroizing::new(callback.url);
    let taken = state.logins.returned(id, &address).await;
    taken.map_err(|why| Problem::new(ProblemKind::BadRequest, why))?;
    state.logins.get(id).map(|login| answer::json(&login)).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(ProblemKind::NotFound, "unknown sign-in; it ended, or another one replaced it")
}

pub(super) async fn logout(state: &State, query: Option<&str>) -> Result<Answer, Problem> {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    let profile = &member.profile;
    let ended = state.logins.stop(session(profile)?).await;
    let ended = ended.map_err(|error| Problem::from_error(&profile.name, &error))?;
    // Before the answer: whoever has it may rely on nothing being handed out any more.
    if let Some(identity) = &profile.identity {
        identity.forget();
    }
    profile.access.forget();
    member.token_answer.forget();
    Ok(answer::json(&api::Logout {
        profile: profile.name.to_string(),
        account: ended.person.map(|person| person.name()),
        revoked: ended.revoked.as_ref().is_ok_and(|revoked| *revoked),
        error: ended.revoked.err(),
    }))
}

pub(super) fn lock(state: &State, locked: bool) -> Answer {
    state.locked.store(locked, Ordering::Relaxed);
    state.proxy.lock(locked);
    tracing::info!(locked, "asked to lock or unlock");
    answer::json(&api::Locked { locked })
}

/// Before every route that hands out a token, or leads to one.
pub(super) fn unlocked(state: &State) -> Result<(), Problem> {
    if !state.locked.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Locked, "the daemon is locked, so it hands out no token"))
}

fn session(profile: &Profile) -> Result<&Arc<Session>, Problem> {
    profile.session.as_ref().ok_or_else(|| {
        let detail = format!("it gets its tokens from provider {}: nobody signs in for it", profile.provider);
        Problem {
            next: Some("wandb-cred status".to_owned()),
            ..Problem::of(ProblemKind::Misconfigured, &profile.name, detail)
        }
    })
}
