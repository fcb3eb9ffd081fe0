//! The routes that hand out tokens, or lead to one.

use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;

use super::Caller;
use super::answer::{self, Answer, whole_seconds};
use super::request::{self, DEFAULT_TIMEOUT, Query, no_query};
use super::state::State;
use super::status::describe;
use crate::api::{self, Problem, ProblemKind};
use crate::error::{Kind, Reason};
use crate::keeper::Need;
use crate::process::Process;
use crate::token::{Expires as _, TokenHash};

type Outcome = Result<Answer, Problem>;

pub(super) async fn token(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &TOKEN_QUERY)?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    let profile = &member.profile;
    profile.demand.touch(state.clock.now());
    let token = profile.access.get(query.need()).await;
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    let left = token.expiry().remaining(state.clock.now());
    Ok(member.token_answer.render(profile, &token, left))
}

pub(super) async fn identity_token(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &TOKEN_QUERY)?;
    let directory = state.directory();
    let profile = &directory.find(query.profile.as_deref())?.profile;
    if !profile.serve_identity_token {
        let detail = format!(
            "the identity token itself is not handed out; set `serve-identity-token = true` in [profile.{}] if it must be",
            profile.name
        );
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    profile.demand.touch(state.clock.now());
    let token = profile.identity.get(query.need()).await;
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    let now = state.clock.now();
    Ok(answer::json(&api::IdentityToken {
        identity_token: token.jwt().expose().clone(),
        expires_at: whole_seconds(token.expiry().wall()),
        expires_in: token.expiry().remaining(now).as_secs(),
        profile: profile.name.to_string(),
    }))
}

pub(super) async fn refresh(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile", "wait"])?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    let profile = &member.profile;
    profile.demand.touch(state.clock.now());
    let renewed = profile.access.refresh(query.need().timeout).await;
    renewed.map_err(|error| Problem::from_error(&profile.name, &error))?;
    let is_default = directory.default.as_deref() == Some(&*profile.name);
    Ok(answer::json(&describe(member, is_default, state.clock.now())))
}

pub(super) async fn rejected(state: &State, request: Request<Incoming>) -> Outcome {
    no_query(request.uri().query())?;
    let report: api::Rejected = request::body(request).await?;
    let directory = state.directory();
    let member = directory.find(report.profile.as_deref())?;
    let hash = TokenHash::parse(&report.token_sha256).ok_or_else(|| {
        Problem::new(ProblemKind::BadRequest, "token_sha256 must be the 64 hexadecimal digits of a SHA-256")
    })?;
    Ok(answer::json(&api::RejectedAnswer { renewed: member.profile.access.rejected(hash) }))
}

pub(super) async fn jobs(state: &State, caller: &Caller, request: Request<Incoming>) -> Outcome {
    no_query(request.uri().query())?;
    let wanted: api::JobRequest = request::body(request).await?;
    let directory = state.directory();
    let member = directory.find(wanted.profile.as_deref())?;
    let profile = &member.profile;
    let by_proxy = wanted.proxy.unwrap_or(profile.proxy);
    let files = match &member.files {
        _ if by_proxy => None,
        Some(files) => Some(files),
        None => {
            let detail = format!(
                "profile `{0}` has `sdk-files = false`; set it to true in [profile.{0}]",
                profile.name
            );
            return Err(Problem::new(ProblemKind::Misconfigured, detail));
        }
    };
    if state.is_closed() {
        return Err(Problem::new(
            ProblemKind::ShuttingDown,
            "this daemon is leaving; the next one takes the job",
        ));
    }
    profile.demand.touch(state.clock.now());
    if let Some(files) = files {
        files.deliver();
    }
    let bad = |why| Problem::new(ProblemKind::BadRequest, why);
    let mut proxy = None;
    match meant(caller.peer.pid, wanted.pid)? {
        Meant::Process(process) => {
            if by_proxy {
                let ticket = state.proxy.admit(Some(process), process.end(), profile).await;
                proxy = Some(ticket.map_err(bad)?);
            }
            state.jobs.watch(process, &profile.name, &profile.demand).await
        }
        Meant::Unseen if wanted.hold => {
            let connection = || caller.connection().map_err(|error| bad(error.to_string()));
            if by_proxy {
                let (hangups, connection) = (state.hangups.clone(), connection()?);
                let end = async move { hangups.wait(&connection).await };
                proxy = Some(state.proxy.admit(None, end, profile).await.map_err(bad)?);
            }
            state.jobs.hold(connection()?, &profile.name, &profile.demand)
        }
        Meant::Unseen => {
            let reason = Some(Reason::ProcessUnseen);
            return Err(Problem { reason, ..bad(UNSEEN.to_owned()) });
        }
    }
    .map_err(bad)?;
    let job = |pending| api::Job {
        profile: profile.name.to_string(),
        base_url: profile.base_url.to_string(),
        identity_token_file: files.map(|files| files.identity_token.clone()),
        credentials_file: files.map(|files| files.credentials.clone()),
        proxy: proxy.as_ref().map(|ticket| api::ProxyAccess {
            port: ticket.port,
            key: ticket.key.expose().clone(),
            url: ticket.url(),
            trace_url: format!("{}/traces", ticket.url()),
            app_url: profile.base_url.app(),
        }),
        pending,
    };
    if !wanted.wait && profile.access.peek(Duration::ZERO).is_none() {
        profile.access.fetch_in_background();
        return Ok(answer::json(&job(true)));
    }
    // The proxy takes a token for each request, and any life is enough.
    let margin = if by_proxy { Duration::ZERO } else { SDK_MARGIN };
    let enough = Need { min_ttl: margin, timeout: DEFAULT_TIMEOUT };
    let token = match profile.access.get(enough).await {
        Ok(token) => Ok(token),
        // Some servers give less: the SDK then exchanges by itself, which still works.
        Err(error) if error.kind == Kind::TooShort => {
            profile.access.get(Need { min_ttl: Duration::ZERO, ..enough }).await
        }
        Err(error) => profile.access.peek(Duration::ZERO).ok_or(error),
    };
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    if let Some(files) = files {
        let written = files.wait_until_written(token.hash()).await;
        written.map_err(|why| Problem::of(ProblemKind::SdkFilesUnwritable, &profile.name, why))?;
    }
    Ok(answer::json(&job(false)))
}

/// The process that a job is.
enum Meant {
    Process(Process),
    /// It runs in a PID namespace that we do not see into.
    Unseen,
}

/// The process that a caller names, or the caller itself. A number is the caller's own, which in another PID namespace
/// is not ours: a container's process 1 is not the host's.
fn meant(peer: Option<u32>, named: Option<u32>) -> Result<Meant, Problem> {
    let pid = match (peer, named) {
        #[cfg(target_os = "linux")]
        (None, _) => None,
        #[cfg(target_os = "linux")]
        (Some(peer), Some(named)) => crate::process::namespace::meant_by(peer, named),
        #[cfg(not(target_os = "linux"))]
        (_, Some(named)) => Some(named),
        (peer, None) => peer,
    };
    let Some(pid) = pid else { return Ok(Meant::Unseen) };
    match Process::find(pid) {
        Some(process) => Ok(Meant::Process(process)),
        None => Err(Problem::new(ProblemKind::BadRequest, format!("there is no process {pid}"))),
    }
}

const UNSEEN: &str = "the process to watch runs in a PID namespace that the daemon cannot see into; start it with wandb-cred exec, which keeps a connection open instead";

/// The parameters of routes that answer with a token.
const TOKEN_QUERY: [&str; 3] = ["profile", "min_ttl", "wait"];

/// The SDK exchanges by itself at 300 s or less (wandb 0.19.11 to 0.31.0).
const SDK_MARGIN: Duration = Duration::from_secs(301);
