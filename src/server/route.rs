//! The routes. `openapi.yaml` describes them; each handler reads keepers and never a provider.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::answer::{self, Answer};
use super::state::{Directory, Member, State};
use super::{Peer, sign_in};
use crate::api::{self, Problem, ProblemKind};
use crate::clock::Now;
use crate::keeper::{Keeper, Kind, Need};
use crate::token::{Expires, TokenHash};

/// One request. Every outcome is an answer: nothing here ends the connection.
pub(super) async fn handle(state: &State, peer: Peer, request: Request<Incoming>) -> Answer {
    // Boxed, so that an idle connection's task is not as large as the largest route.
    let (route, outcome) = Box::pin(dispatch(state, peer, request)).await;
    let mut answer = outcome.unwrap_or_else(|problem| answer::problem(&problem));
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some((_, method)) = ROUTES.iter().find(|(path, _)| *path == route)
    {
        // RFC 9110, section 15.5.6.
        let allow = if method == Method::GET { "GET, HEAD" } else { method.as_str() };
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    state.metrics.count(route, answer.status().as_u16());
    answer
}

type Outcome = Result<Answer, Problem>;

async fn dispatch(state: &State, peer: Peer, request: Request<Incoming>) -> (&'static str, Outcome) {
    if let Err(problem) = admit(state, peer, &request) {
        return ("refused", Err(problem));
    }
    let path = request.uri().path();
    let path = if path.starts_with(LOGIN) { LOGIN_ID } else { path };
    let Some((route, method)) = ROUTES.iter().find(|(known, _)| *known == path) else {
        let known: Vec<_> = ROUTES.iter().map(|(path, _)| *path).collect();
        let detail = format!("there is no route of that path; the routes are {}", known.join(", "));
        return ("unknown", Err(answer::plain(ProblemKind::NotFound, detail)));
    };
    if request.method() != method && !(request.method() == Method::HEAD && method == Method::GET) {
        let detail = format!("{route} takes {method}, not {}", request.method());
        return (route, Err(answer::plain(ProblemKind::MethodNotAllowed, detail)));
    }
    if HANDS_OUT.contains(route)
        && let Err(problem) = sign_in::unlocked(state)
    {
        return (route, Err(problem));
    }
    let outcome = match *route {
        TOKEN => token(state, request.uri().query()).await,
        "/v1/identity-token" => identity_token(state, request.uri().query()).await,
        "/v1/profiles" => none(request.uri().query()).map(|()| profiles(state)),
        "/v1/status" => none(request.uri().query()).map(|()| status(state)),
        "/v1/refresh" => refresh(state, request.uri().query()).await,
        "/v1/rejected" => rejected(state, request).await,
        "/v1/jobs" => jobs(state, peer, request).await,
        "/v1/login" => login(state, request).await,
        LOGIN_ID => sign_in::progress(state, request.uri().path().trim_start_matches(LOGIN)),
        "/v1/logout" => logout(state, request.uri().query()).await,
        "/v1/lock" => none(request.uri().query()).map(|()| sign_in::lock(state, true)),
        "/v1/unlock" => none(request.uri().query()).map(|()| sign_in::lock(state, false)),
        "/v1/doctor" => doctor(state, request.uri().query()).await,
        "/healthz" => Ok(answer::text("text/plain", "ok\n".to_owned())),
        "/readyz" => readyz(state, request.uri().query()),
        "/metrics" => none(request.uri().query()).map(|()| state.metrics.render(state)),
        _ => unreachable!("{route} is in ROUTES and has no handler"),
    };
    (route, outcome)
}

static ROUTES: [(&str, Method); 16] = [
    (TOKEN, Method::GET),
    ("/v1/identity-token", Method::GET),
    ("/v1/profiles", Method::GET),
    ("/v1/status", Method::GET),
    ("/v1/refresh", Method::POST),
    ("/v1/rejected", Method::POST),
    ("/v1/jobs", Method::POST),
    ("/v1/login", Method::POST),
    (LOGIN_ID, Method::GET),
    ("/v1/logout", Method::POST),
    ("/v1/lock", Method::POST),
    ("/v1/unlock", Method::POST),
    ("/v1/doctor", Method::GET),
    ("/healthz", Method::GET),
    ("/readyz", Method::GET),
    ("/metrics", Method::GET),
];

pub(super) const TOKEN: &str = "/v1/token";
const TOKEN_QUERY: [&str; 3] = ["profile", "min_ttl", "wait"];

/// The one route with a part of its own in the path.
const LOGIN_ID: &str = "/v1/login/{id}";
const LOGIN: &str = "/v1/login/";

/// Routes that end in somebody having a token: closed while locked.
const HANDS_OUT: [&str; 4] = [TOKEN, "/v1/identity-token", "/v1/refresh", "/v1/jobs"];

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Refuses other users, browsers and proxies. `Host` means nothing on a Unix socket and is not judged.
fn admit(state: &State, peer: Peer, request: &Request<Incoming>) -> Result<(), Problem> {
    if !peer.allowed {
        let uid = peer.uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
        let detail = format!(
            "this daemon serves uid {}, and you are uid {uid}; run a daemon of your own, or have its owner add `allow-uids = [{uid}]`",
            state.uid
        );
        return Err(answer::plain(ProblemKind::Forbidden, detail));
    }
    match request.headers().keys().find(|name| [&ORIGIN, &FORWARDED].contains(name)) {
        None => Ok(()),
        Some(header) => {
            let detail =
                format!("requests with {header} come from browsers or proxies, which are not served");
            Err(answer::plain(ProblemKind::Forbidden, detail))
        }
    }
}

async fn token(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &TOKEN_QUERY)?;
    let directory = state.directory();
    let member = find(&directory, query.profile.as_deref())?;
    let profile = &member.profile;
    profile.demand.touch(state.clock.now());
    let token = profile.access.get(query.need()).await;
    let token = token.map_err(|error| answer::explain(&profile.name, &error))?;
    let left = token.expiry().remaining(state.clock.now());
    Ok(member.token_answer.render(profile, &token, left))
}

async fn identity_token(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &TOKEN_QUERY)?;
    let directory = state.directory();
    let profile = &find(&directory, query.profile.as_deref())?.profile;
    if !profile.serve_identity_token {
        let detail = format!(
            "the identity token itself is not handed out; set `serve-identity-token = true` in [profile.{}] if it must be",
            profile.name
        );
        return Err(answer::plain(ProblemKind::Forbidden, detail));
    }
    profile.demand.touch(state.clock.now());
    let token = profile.identity.get(query.need()).await;
    let token = token.map_err(|error| answer::explain(&profile.name, &error))?;
    let now = state.clock.now();
    Ok(answer::json(&api::IdentityToken {
        identity_token: token.jwt().expose().clone(),
        expires_at: whole(token.expiry().wall()),
        expires_in: token.expiry().remaining(now).as_secs(),
        profile: profile.name.to_string(),
    }))
}

fn profiles(state: &State) -> Answer {
    answer::json(&api::Profiles { profiles: describe_all(state) })
}

fn status(state: &State) -> Answer {
    answer::json(&api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: whole(state.started.wall),
        socket: state.socket.clone(),
        config: state.directory().config.clone(),
        profiles: describe_all(state),
    })
}

async fn refresh(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile", "wait"])?;
    let directory = state.directory();
    let member = find(&directory, query.profile.as_deref())?;
    let profile = &member.profile;
    profile.demand.touch(state.clock.now());
    match profile.access.refresh(query.need().patience).await {
        Ok(_) => {}
        // Renewed within the last seconds: that is what was asked for.
        Err(error) if error.kind == Kind::TooSoon && profile.access.peek(Duration::ZERO).is_some() => {}
        Err(error) => return Err(answer::explain(&profile.name, &error)),
    }
    let is_default = directory.default.as_deref() == Some(&*profile.name);
    Ok(answer::json(&describe(member, is_default, state.clock.now())))
}

async fn rejected(state: &State, request: Request<Incoming>) -> Outcome {
    none(request.uri().query())?;
    let report: api::Rejected = body(request).await?;
    let directory = state.directory();
    let member = find(&directory, report.profile.as_deref())?;
    let hash = TokenHash::parse(&report.token_sha256).ok_or_else(|| {
        answer::plain(ProblemKind::BadRequest, "token_sha256 must be the 64 hexadecimal digits of a SHA-256")
    })?;
    Ok(answer::json(&api::RejectedAnswer { renewed: member.profile.access.rejected(hash) }))
}

async fn jobs(state: &State, peer: Peer, request: Request<Incoming>) -> Outcome {
    none(request.uri().query())?;
    let wanted: api::JobRequest = body(request).await?;
    let directory = state.directory();
    let member = find(&directory, wanted.profile.as_deref())?;
    let profile = &member.profile;
    let Some(files) = &member.files else {
        let detail =
            format!("profile `{0}` has `sdk-files = false`; set it to true in [profile.{0}]", profile.name);
        return Err(answer::plain(ProblemKind::Misconfigured, detail));
    };
    let pid = wanted.pid.or(peer.pid).ok_or_else(|| {
        answer::plain(ProblemKind::BadRequest, "say whose end to watch: this system does not tell your pid")
    })?;
    profile.demand.touch(state.clock.now());
    state.jobs.watch(pid, &profile.demand).map_err(|why| answer::plain(ProblemKind::BadRequest, why))?;
    let enough = Need { min_ttl: SDK_MARGIN, patience: DEFAULT_PATIENCE };
    let token = match profile.access.get(enough).await {
        Ok(token) => Ok(token),
        // Some servers give less: the SDK then exchanges by itself, which still works.
        Err(error) if matches!(error.kind, Kind::TooShort { .. }) => {
            profile.access.get(Need { min_ttl: Duration::ZERO, ..enough }).await
        }
        Err(error) => profile.access.peek(Duration::ZERO).ok_or(error),
    };
    let token = token.map_err(|error| answer::explain(&profile.name, &error))?;
    files.wait_until_written(token.hash()).await.map_err(|why| Problem {
        profile: Some(profile.name.to_string()),
        ..answer::plain(ProblemKind::SdkFilesUnwritable, format!("profile `{}`: {why}", profile.name))
    })?;
    Ok(answer::json(&api::Job {
        profile: profile.name.to_string(),
        base_url: profile.base_url.to_string(),
        identity_token_file: files.identity_token.clone(),
        credentials_file: files.credentials.clone(),
    }))
}

async fn login(state: &State, request: Request<Incoming>) -> Outcome {
    none(request.uri().query())?;
    let wanted: api::LoginRequest = body(request).await?;
    let directory = state.directory();
    let member = find(&directory, wanted.profile.as_deref())?;
    sign_in::login(state, &member.profile, wanted.method).await
}

async fn logout(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    sign_in::logout(state, &find(&directory, query.profile.as_deref())?.profile).await
}

async fn doctor(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    let member = find(&directory, query.profile.as_deref())?;
    Ok(answer::json(&*state.visits.visit(state, &member.profile).await))
}

/// Ready when no profile (or not the one asked for) is without a token that something needs.
fn readyz(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    let members: Vec<_> = match &query.profile {
        Some(name) => vec![find(&directory, Some(name))?],
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
    Err(answer::plain(ProblemKind::UpstreamUnavailable, detail))
}

fn find<'d>(directory: &'d Directory, name: Option<&str>) -> Result<&'d Arc<Member>, Problem> {
    let known = || directory.members.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Some(name) = name.or(directory.default.as_deref()) else {
        let detail = match directory.members.len() {
            0 => "no profile is configured; run: wandb-cred init".to_owned(),
            _ => format!("there are several profiles and no default-profile; name one of: {}", known()),
        };
        return Err(answer::plain(ProblemKind::NoSuchProfile, detail));
    };
    directory.members.get(name).ok_or_else(|| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let near = directory.members.keys().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let detail = format!("there is no profile `{shown}`{hint} (known: {})", known());
        Problem {
            next: Some("wandb-cred status".to_owned()),
            ..answer::plain(ProblemKind::NoSuchProfile, detail)
        }
    })
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

fn describe(member: &Member, default: bool, now: Now) -> api::Profile {
    let profile = &member.profile;
    let claims =
        profile.identity.read(|snapshot| snapshot.token.as_ref().map(|token| token.claims().clone()));
    let claims = claims.unwrap_or_default();
    // The identity's own word is the newer one; a restored access token knows nothing of it.
    let outlook = outlook(&profile.identity).or_else(|| outlook(&profile.access));
    let hot = profile.demand.is_hot(now);
    api::Profile {
        name: profile.name.to_string(),
        default,
        base_url: profile.base_url.to_string(),
        provider: profile.provider.to_owned(),
        audience: profile.audience.clone(),
        hot,
        identity: kept(&profile.identity, hot, now),
        access: kept(&profile.access, hot, now),
        issuer: claims.iss.clone(),
        subject: claims.subject().map(str::to_owned),
        person: profile.session.as_ref().and_then(|session| {
            let person = session.person();
            let person = person.borrow();
            person
                .as_ref()
                .map(|person| api::Person { account: person.name().to_owned(), since: whole(person.since) })
        }),
        outlook,
        sdk_files: member.files.as_ref().map(|files| api::SdkFiles {
            identity_token_file: files.identity_token.clone(),
            credentials_file: files.credentials.clone(),
            error: files.error().map(|error| error.to_string()),
        }),
        jobs: profile.demand.jobs(),
        exchanges: profile.exchanges(),
    }
}

fn outlook<T: Expires>(keeper: &Keeper<T>) -> Option<api::Outlook> {
    let outlook = keeper.read(|snapshot| snapshot.token.as_ref()?.renewal().outlook)?;
    Some(api::Outlook { until: whole(outlook.until), reason: outlook.reason.to_string() })
}

fn kept<T: Expires>(keeper: &Keeper<T>, hot: bool, now: Now) -> api::Kept {
    keeper.read(|snapshot| {
        let expiry = snapshot.good(now, Duration::ZERO).map(Expires::expiry);
        api::Kept {
            state: snapshot.state(now),
            expires_at: expiry.map(|expiry| whole(expiry.wall())),
            expires_in: expiry.map(|expiry| expiry.remaining(now).as_secs()),
            next_renewal: snapshot.due.filter(|_| hot).map(|due| whole(due.wall)),
            last_error: snapshot.error.as_ref().map(ToString::to_string),
            failures: snapshot.failures,
        }
    })
}

/// Whole seconds, rounded down: what the wire carries.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The parameters that routes know.
#[derive(Default)]
struct Query {
    profile: Option<String>,
    min_ttl: Duration,
    wait: Option<Duration>,
}

impl Query {
    fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        let bad = |detail: String| answer::plain(ProblemKind::BadRequest, detail);
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let seconds = |value: &Cow<'_, str>| {
                let parsed = value.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS);
                parsed
                    .map(Duration::from_secs)
                    .ok_or_else(|| bad(format!("{key} must be whole seconds, at most {MAX_SECONDS}")))
            };
            match &*key {
                _ if !known.contains(&&*key) => {
                    return Err(bad(match known {
                        [] => "this route takes no parameters".to_owned(),
                        _ => format!("unknown parameter; known here: {}", known.join(", ")),
                    }));
                }
                "profile" => parsed.profile = Some(value.into_owned()),
                "min_ttl" => parsed.min_ttl = seconds(&value)?,
                _ => parsed.wait = Some(seconds(&value)?.min(MAX_PATIENCE)),
            }
        }
        Ok(parsed)
    }

    fn need(&self) -> Need {
        Need { min_ttl: self.min_ttl, patience: self.wait.unwrap_or(DEFAULT_PATIENCE) }
    }
}

fn none(query: Option<&str>) -> Result<(), Problem> {
    Query::parse(query, &[]).map(drop)
}

/// Reads a JSON body; an empty one counts as `{}`.
async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Problem> {
    let bad = |detail: String| answer::plain(ProblemKind::BadRequest, detail);
    let read = Limited::new(request.into_body(), MAX_BODY).collect();
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(bad(format!("the body broke off or is larger than {MAX_BODY} bytes"))),
        Err(_) => return Err(bad("the body did not come in time".to_owned())),
    };
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        // serde's message may repeat the input: name only the place.
        bad(format!(
            "the body is not the JSON expected here (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

/// How long a caller waits for a renewal unless it says otherwise, and at most.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);
const MAX_PATIENCE: Duration = Duration::from_secs(120);

/// Largest number of seconds taken: a year.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

/// The SDK exchanges by itself at 300 s or less (wandb 0.19.11 to 0.31.0).
const SDK_MARGIN: Duration = Duration::from_secs(301);

const MAX_BODY: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
