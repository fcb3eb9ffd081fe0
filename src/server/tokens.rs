//! The routes that hand out tokens, or lead to one.

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;

use super::Caller;
use super::answer::{self, Answer, whole_seconds};
use super::audit::Handed;
use super::directory::{Member, SEPARATOR};
use super::request::{self, DEFAULT_TIMEOUT, Query, no_query};
use super::sign_in;
use super::state::State;
use super::status::describe;
use crate::api::{self, JobOrigin, Problem, ProblemKind};
use crate::error::{Error, Kind, Reason};
use crate::keeper::Need;
use crate::process::Process;
use crate::profile::{Profile, Relay};
use crate::proxy::Ticket;
use crate::token::{AccessToken, Expires as _, TokenHash};

type Outcome = Result<Answer, Problem>;

pub(super) async fn token(state: &State, caller: &Caller, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile", "min_ttl", "wait", "newer_than"])?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    let profile = &member.profile;
    profile.demand.touch(state.clock.now());
    let mut need = query.need();
    if let Some(known) = query.newer_than {
        let _follows = profile.demand.follow();
        tokio::select! {
            () = profile.access.newer_than(known, query.timeout()) => {}
            // The caller asks the next daemon.
            () = caller.stopping() => {}
        }
        // Meanwhile somebody may have said no.
        sign_in::unlocked(state)?;
        need.timeout = DEFAULT_TIMEOUT;
    }
    let token = query.token(&profile.access, need).await;
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    let left = token.expiry().remaining(state.clock.now());
    let answer = member.token_answer.render(profile, &token, left);
    Ok(recorded(state, answer, || vec![Handed::token(&profile.name, token.hash())]))
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
    let Some(identity) = &profile.identity else {
        let detail = format!("profile `{}`: only access tokens come here, from another daemon", profile.name);
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    };
    profile.demand.touch(state.clock.now());
    let token = query.token(identity, query.need()).await;
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    let now = state.clock.now();
    let answer = answer::json(&api::IdentityToken {
        identity_token: token.jwt().expose().clone(),
        expires_at: whole_seconds(token.expiry().wall()),
        expires_in: token.expiry().remaining(now).as_secs(),
        profile: profile.name.to_string(),
    });
    Ok(recorded(state, answer, || vec![Handed::token(&profile.name, token.hash())]))
}

/// An answer that says what is to be recorded of it, if anything is.
pub(super) fn recorded(state: &State, mut answer: Answer, handed: impl FnOnce() -> Vec<Handed>) -> Answer {
    if state.audit.is_on() {
        answer.extensions_mut().insert(handed());
    }
    answer
}

pub(super) async fn refresh(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile", "wait"])?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    let profile = &member.profile;
    match &profile.relay {
        Some(Relay::Feed(_)) => {
            let detail = "its access tokens come on a feed: renew them where that comes from";
            let problem = Problem::of(ProblemKind::Forbidden, &profile.name, detail);
            return Err(problem);
        }
        Some(Relay::Upstream(upstream)) => upstream.refresh(),
        None => {}
    }
    profile.demand.touch(state.clock.now());
    if let Some(identity) = &profile.identity {
        identity.hurry();
    }
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
    let renewed = match &member.profile.relay {
        // A feed goes one way.
        Some(Relay::Feed(_)) => false,
        Some(Relay::Upstream(upstream)) => {
            upstream.reject(hash);
            member.profile.access.rejected(hash)
        }
        None => member.profile.access.rejected(hash),
    };
    Ok(answer::json(&api::RejectedAnswer { renewed }))
}

pub(super) async fn jobs(state: &State, caller: &Caller, request: Request<Incoming>) -> Outcome {
    no_query(request.uri().query())?;
    let mut wanted: api::JobRequest = request::body(request).await?;
    match &mut wanted.profiles[..] {
        [] => {}
        [only] => wanted.profile = Some(std::mem::take(only)),
        _ => return several(state, caller, &wanted).await,
    }
    let directory = state.directory();
    let member = directory.find(wanted.profile.as_deref())?;
    let profile = &member.profile;
    let by_proxy = wanted.proxy.unwrap_or(profile.proxy);
    let files = match &member.files {
        _ if by_proxy => None,
        Some(files) => Some(files),
        None => return Err(no_files(&profile.name)),
    };
    let other = register(state, caller, &wanted, &[member]).await?;
    if let Some(files) = files {
        files.deliver();
    }
    let proxy = if by_proxy { Some(admit(state, caller, &wanted, profile).await?) } else { None };
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
        let handed = || vec![Handed { profile: Arc::clone(&profile.name), token: None, process: other }];
        return Ok(recorded(state, answer::json(&job(true)), handed));
    }
    // The proxy takes a token for each request, and any life is enough.
    let margin = if by_proxy { Duration::ZERO } else { SDK_MARGIN };
    let token = match enough(profile, margin, &wanted).await {
        Ok(token) => Ok(token),
        // Some servers give less: the SDK then exchanges by itself, which still works.
        Err(error) if error.kind == Kind::TooShort => enough(profile, Duration::ZERO, &wanted).await,
        Err(error) => profile.access.peek(Duration::ZERO).ok_or(error),
    };
    let token = token.map_err(|error| Problem::from_error(&profile.name, &error))?;
    // A job of the proxy gets a key; what it makes of that is recorded there.
    let told = (!by_proxy).then_some(token.hash());
    if let Some(files) = files {
        let written = files.wait_until_written(token.hash()).await;
        written.map_err(|why| Problem::of(ProblemKind::SdkFilesUnwritable, &profile.name, why))?;
    }
    let handed = || vec![Handed { profile: Arc::clone(&profile.name), token: told, process: other }];
    Ok(recorded(state, answer::json(&job(false)), handed))
}

/// A job that uses several profiles: of different servers, none of which must be shown a JWT that is for another.
async fn several(state: &State, caller: &Caller, wanted: &api::JobRequest) -> Outcome {
    let directory = state.directory();
    let members =
        wanted.profiles.iter().map(|name| directory.find(Some(name))).collect::<Result<Vec<_>, _>>()?;
    let bad = |detail: String| Problem::new(ProblemKind::BadRequest, detail);
    if wanted.profile.is_some() || members.len() > MOST_PROFILES {
        return Err(bad(format!("a job has one `profile`, or up to {MOST_PROFILES} `profiles`")));
    }
    if wanted.proxy == Some(true) {
        return Err(bad("a job that uses the proxy has one profile".to_owned()));
    }
    for (index, member) in members.iter().enumerate() {
        let (name, base_url) = (&member.profile.name, &member.profile.base_url);
        let same = |other: &&&Arc<Member>| other.profile.base_url.spellings() == base_url.spellings();
        if let Some(other) = members[..index].iter().find(same) {
            return Err(bad(format!(
                "profiles {} and {name} are both of {base_url}, and the W&B SDK has one credential for each server; use one",
                other.profile.name
            )));
        }
        if member.files.is_none() {
            return Err(no_files(name));
        }
    }
    let other = register(state, caller, wanted, &members).await?;
    let name = wanted.profiles.join(&SEPARATOR.to_string());
    let files = state.combinations.get(&name, &directory).map_err(bad)?;
    let first = &members[0].profile;
    let job = |pending| api::Job {
        profile: name.clone(),
        base_url: first.base_url.to_string(),
        identity_token_file: Some(files.identity_token.clone()),
        credentials_file: Some(files.credentials.clone()),
        proxy: None,
        pending,
    };
    let handed = |tokens: &[TokenHash]| {
        let token = |index| tokens.get(index).copied();
        let one = |(index, member): (usize, &&Arc<Member>)| Handed {
            profile: Arc::clone(&member.profile.name),
            token: token(index),
            process: other,
        };
        members.iter().enumerate().map(one).collect()
    };
    // All at the same time.
    let lacking = members.iter().filter(|member| member.profile.access.peek(SDK_MARGIN).is_none());
    let lacking = lacking.map(|member| member.profile.access.fetch_in_background()).count();
    if lacking > 0 && !wanted.wait {
        return Ok(recorded(state, answer::json(&job(true)), || handed(&[])));
    }
    let mut tokens = Vec::new();
    for member in &members {
        let profile = &member.profile;
        let token = enough(profile, SDK_MARGIN, wanted).await;
        let token = token.map_err(|error| {
            let error = match error.kind {
                Kind::TooShort => error.hint(
                    "with several profiles, each token needs more than 300 s: with less, the W&B SDK exchanges by itself, and \
                     here it is given nothing to exchange",
                ),
                _ => error,
            };
            Problem::from_error(&profile.name, &error)
        })?;
        tokens.push(token.hash());
    }
    let written = files.wait_until_written(&tokens).await;
    written.map_err(|why| Problem::of(ProblemKind::SdkFilesUnwritable, &first.name, why))?;
    Ok(recorded(state, answer::json(&job(false)), || handed(&tokens)))
}

/// A token with `min_ttl` of life, waited for as the job wants it.
async fn enough(
    profile: &Profile,
    min_ttl: Duration,
    wanted: &api::JobRequest,
) -> Result<AccessToken, Error> {
    let need = Need { min_ttl, timeout: DEFAULT_TIMEOUT };
    if wanted.patient { profile.access.get_patiently(need).await } else { profile.access.get(need).await }
}

fn no_files(name: &str) -> Problem {
    let detail = format!("profile `{name}` has `sdk-files = false`; set it to true in [profile.{name}]");
    Problem::new(ProblemKind::Misconfigured, detail)
}

/// A key for the proxy that dies with the process.
async fn admit(
    state: &State,
    caller: &Caller,
    wanted: &api::JobRequest,
    profile: &Arc<Profile>,
) -> Result<Ticket, Problem> {
    let bad = |why| Problem::new(ProblemKind::BadRequest, why);
    match meant(caller.peer.pid, wanted.pid)? {
        Meant::Process(process) => {
            state.proxy.admit(Some(process), process.end(), profile).await.map_err(bad)
        }
        Meant::Unseen => {
            let connection = caller.connection().map_err(|error| bad(error.to_string()))?;
            let hangups = state.hangups.clone();
            let end = async move { hangups.wait(&connection).await };
            state.proxy.admit(None, end, profile).await.map_err(bad)
        }
    }
}

/// Watches the process, which keeps the profiles of `members` hot. Its number, if it is not the caller.
async fn register(
    state: &State,
    caller: &Caller,
    wanted: &api::JobRequest,
    members: &[&Arc<Member>],
) -> Result<Option<u32>, Problem> {
    if state.is_closed() {
        return Err(Problem::new(
            ProblemKind::ShuttingDown,
            "this daemon is leaving; the next one takes the job",
        ));
    }
    let now = state.clock.now();
    members.iter().for_each(|member| member.profile.demand.touch(now));
    let demands: Vec<_> = members.iter().map(|member| Arc::clone(&member.profile.demand)).collect();
    let names: Vec<_> = members.iter().map(|member| &*member.profile.name).collect();
    let name = names.join(&SEPARATOR.to_string());
    let bad = |why| Problem::new(ProblemKind::BadRequest, why);
    match meant(caller.peer.pid, wanted.pid)? {
        Meant::Process(process) => {
            state.jobs.watch(process, JobOrigin::Registered, &name, &demands).await.map_err(bad)?;
            Ok(Some(process.pid).filter(|pid| caller.peer.pid != Some(*pid)))
        }
        Meant::Unseen if wanted.hold => {
            let connection = caller.connection().map_err(|error| bad(error.to_string()))?;
            state.jobs.hold(connection, &name, &demands).map_err(bad)?;
            Ok(None)
        }
        Meant::Unseen => {
            let reason = Some(Reason::ProcessUnseen);
            Err(Problem { reason, ..bad(UNSEEN.to_owned()) })
        }
    }
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

/// More servers than anybody works with at a time.
const MOST_PROFILES: usize = 8;

/// The SDK exchanges by itself at 300 s or less (wandb 0.19.11 to 0.31.0).
const SDK_MARGIN: Duration = Duration::from_secs(301);
