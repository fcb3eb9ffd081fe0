//! What the daemon says of itself: `/v1/status`, `/v1/profiles`, `/readyz`. Never a token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::answer::{self, Answer, whole_seconds};
use super::directory::Member;
use super::request::Query;
use super::state::State;
use crate::api::{self, Problem, ProblemKind};
use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::foreign_text;
use crate::keeper::Keeper;
use crate::token::Expires;

type Outcome = Result<Answer, Problem>;

pub(super) fn profiles(state: &State) -> Answer {
    answer::json(&api::Profiles { profiles: describe_all(state) })
}

pub(super) async fn status(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["jobs"])?;
    let job_list = if query.jobs { Some(state.jobs.list().await) } else { None };
    Ok(answer::json(&api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: whole_seconds(state.started.wall),
        socket: state.socket.clone(),
        config: state.directory().config_path.clone(),
        locked: state.locked.load(Ordering::Relaxed),
        profiles: describe_all(state),
        job_list,
        proxy: describe_proxy(state),
    }))
}

fn describe_proxy(state: &State) -> Option<api::Proxy> {
    let (port, listening) = state.proxy.port()?;
    let jobs = state.proxy.jobs().into_iter().map(|job| api::ProxyJob {
        profile: job.profile,
        pid: job.pid,
        requests: job.total.requests,
        replays: job.total.replays,
        bytes_sent: job.total.sent,
        bytes_received: job.total.received,
    });
    Some(api::Proxy { url: format!("http://127.0.0.1:{port}"), listening, jobs: jobs.collect() })
}

/// Ready when no profile (or not the one asked for) is without a token that something needs.
pub(super) fn readyz(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    let members: Vec<_> = match &query.profile {
        Some(name) => vec![directory.find(Some(name))?],
        None => directory.members.values().collect(),
    };
    let now = state.clock.now();
    let unready: Vec<_> = members
        .iter()
        .filter(|member| {
            let state = member.profile.access.read(|snapshot| snapshot.state(now));
            let hot = member.profile.demand.is_hot(now);
            matches!(state, api::State::NeedsLogin | api::State::Failed)
                || (hot && state == api::State::Starting)
        })
        .map(|member| &*member.profile.name)
        .collect();
    if unready.is_empty() {
        return Ok(answer::text("text/plain", "ready\n".to_owned()));
    }
    let detail = format!("no token for profile `{}`", unready.join("`, `"));
    Err(Problem::new(ProblemKind::UpstreamUnavailable, detail))
}

fn describe_all(state: &State) -> Vec<api::Profile> {
    let (directory, now) = (state.directory(), state.clock.now());
    let default = directory.default.as_deref();
    directory
        .members
        .values()
        .map(|member| describe(member, default == Some(&*member.profile.name), now))
        .collect()
}

pub(super) fn describe(member: &Member, default: bool, now: Now) -> api::Profile {
    let profile = &member.profile;
    let claims = profile.identity.as_ref().and_then(|identity| {
        identity.read(|snapshot| snapshot.token.as_ref().map(|token| token.claims().clone()))
    });
    let claims = claims.unwrap_or_default();
    // The identity's own word is the newer one.
    let identity = profile.identity.as_ref();
    let known = identity.is_some_and(|identity| identity.read(|snapshot| snapshot.token.is_some()));
    let outlook = if known { identity.and_then(outlook) } else { outlook(&profile.access) };
    let hot = profile.demand.is_hot(now);
    api::Profile {
        name: profile.name.to_string(),
        default,
        base_url: profile.base_url.to_string(),
        provider: profile.provider.to_owned(),
        audience: profile.audience.clone(),
        hot,
        identity: profile.identity.as_ref().map(|identity| kept(identity, hot, now)),
        access: kept(&profile.access, hot, now),
        issuer: claims.iss.as_deref().map(foreign_text::name),
        subject: claims.subject().map(foreign_text::name),
        person: profile.session.as_ref().and_then(|session| {
            let person = session.person();
            let person = person.borrow();
            person
                .as_ref()
                .map(|person| api::Person { account: person.name(), since: whole_seconds(person.since) })
        }),
        outlook,
        sdk_files: member.files.as_ref().map(|files| api::SdkFiles {
            identity_token_file: files.identity_token.clone(),
            credentials_file: files.credentials.clone(),
            error: files.error().map(|error| error.to_string()),
        }),
        jobs: profile.demand.jobs(),
        exchanges: profile.exchanges(),
        next: profile
            .identity
            .as_ref()
            .and_then(|identity| identity.read(|snapshot| snapshot.error.clone()))
            .or_else(|| profile.access.read(|snapshot| snapshot.error.clone()))
            .and_then(|error| api::next_command_after(&error, &profile.name)),
    }
}

fn outlook<T: Expires>(keeper: &Keeper<T>) -> Option<api::Outlook> {
    let outlook = keeper.read(|snapshot| snapshot.token.as_ref()?.renewal().outlook)?;
    Some(api::Outlook { until: whole_seconds(outlook.until), reason: outlook.reason.to_string() })
}

/// What was looked for in vain fills a screen, and is the doctor's to tell.
fn shown(error: &Error) -> String {
    match error.reason {
        Reason::NoSource => "no identity was found here, and none is configured".to_owned(),
        _ => error.to_string(),
    }
}

fn kept<T: Expires>(keeper: &Keeper<T>, hot: bool, now: Now) -> api::Kept {
    keeper.read(|snapshot| {
        let expiry = snapshot.good(now, Duration::ZERO).map(Expires::expiry);
        api::Kept {
            state: snapshot.state(now),
            expires_at: expiry.map(|expiry| whole_seconds(expiry.wall())),
            expires_in: expiry.map(|expiry| expiry.remaining(now).as_secs()),
            lifetime: expiry.map(|_| snapshot.life.as_secs()).filter(|life| *life > 0),
            next_renewal: snapshot.due.filter(|_| hot).map(|due| whole_seconds(due.wall)),
            last_error: snapshot.error.as_ref().map(shown),
            failures: snapshot.failures,
        }
    })
}
