//! The routes. `openapi.yaml` describes them; each handler reads keepers and never a provider.

use std::task::Poll;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, StatusCode};

use super::answer::{self, Answer};
use super::audit::Handed;
use super::request::{Query, no_query};
use super::state::State;
use super::{Caller, Peer, Standing, sign_in, status, tokens};
use crate::api::{Problem, ProblemKind};

/// One request. Every outcome is an answer, unless nobody is left to take it.
pub(super) async fn handle(
    state: &State,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Answer, Gone> {
    let head = request.method() == Method::HEAD;
    let waits = WAITS.contains(&of_login(request.uri().path()));
    let _under_way = state.metrics.request();
    // Boxed, so that an idle connection's task is not as large as the largest route.
    let mut work = Box::pin(dispatch(state, caller, request));
    // Most answers come from memory, and are ready at once.
    let ready = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    let (route, outcome) = match ready {
        Poll::Ready(done) => done,
        Poll::Pending if !waits => work.await,
        Poll::Pending if caller.crowded => {
            let detail = "too many callers wait already; try again in a moment";
            let problem =
                Problem { retry_after: Some(1), ..Problem::new(ProblemKind::TooManyRequests, detail) };
            ("crowded", Err(problem))
        }
        Poll::Pending => tokio::select! {
            done = work => done,
            () = caller.gone(state) => return Err(Gone),
        },
    };
    let mut answer = outcome.unwrap_or_else(|problem| answer::problem(&problem));
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some((_, method)) = ROUTES.iter().find(|(path, _)| *path == route)
    {
        // RFC 9110, section 15.5.6.
        let allow = if method == Method::GET { "GET, HEAD" } else { method.as_str() };
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    state.metrics.count(route, answer.status().as_u16());
    for handed in answer.extensions_mut().remove::<Vec<Handed>>().filter(|_| !head).into_iter().flatten() {
        // Boxed, so that an idle connection's task is not larger for it.
        Box::pin(state.audit.note(caller, route, handed)).await;
    }
    Ok(answer)
}

/// The caller closed the connection before there was an answer.
#[derive(Debug, thiserror::Error)]
#[error("the caller hung up")]
pub(super) struct Gone;

type Outcome = Result<Answer, Problem>;

async fn dispatch(state: &State, caller: &Caller, request: Request<Incoming>) -> (&'static str, Outcome) {
    if let Err(problem) = admit(state, caller.peer, &request) {
        return ("refused", Err(problem));
    }
    let path = of_login(request.uri().path());
    let Some((route, method)) = ROUTES.iter().find(|(known, _)| *known == path) else {
        let known: Vec<_> = ROUTES.iter().map(|(path, _)| *path).collect();
        let detail = format!("unknown route; the routes are {}", known.join(", "));
        return ("unknown", Err(Problem::new(ProblemKind::NotFound, detail)));
    };
    if request.method() != method && !(request.method() == Method::HEAD && method == Method::GET) {
        let detail = format!("{route} takes {method}, not {}", request.method());
        return (route, Err(Problem::new(ProblemKind::MethodNotAllowed, detail)));
    }
    if caller.peer.standing != Standing::Owner && !FOR_GUESTS.contains(route) {
        let detail = format!(
            "{route} is for the daemon's owner (uid {}); you may use {}",
            state.uid,
            FOR_GUESTS.join(", ")
        );
        return (route, Err(Problem::new(ProblemKind::Forbidden, detail)));
    }
    if HANDS_OUT.contains(route)
        && let Err(problem) = sign_in::unlocked(state)
    {
        return (route, Err(problem));
    }
    if !LOOKS.contains(route) {
        state.used();
    }
    let outcome = match *route {
        "/v1/token" => tokens::token(state, caller, request.uri().query()).await,
        "/v1/identity-token" => tokens::identity_token(state, request.uri().query()).await,
        "/v1/profiles" => no_query(request.uri().query()).map(|()| status::profiles(state)),
        "/v1/status" => status::status(state, request.uri().query()).await,
        "/v1/refresh" => tokens::refresh(state, request.uri().query()).await,
        "/v1/rejected" => tokens::rejected(state, request).await,
        "/v1/jobs" => tokens::jobs(state, caller, request).await,
        "/v1/login" => sign_in::login(state, request).await,
        LOGIN_ID => {
            let id = login_id(request.uri().path());
            sign_in::progress(state, id, request.uri().query()).await
        }
        LOGIN_CALLBACK => {
            let id = login_id(request.uri().path()).to_owned();
            sign_in::returned(state, &id, request).await
        }
        "/v1/logout" => sign_in::logout(state, request.uri().query()).await,
        "/v1/lock" => no_query(request.uri().query()).map(|()| sign_in::lock(state, true)),
        "/v1/unlock" => no_query(request.uri().query()).map(|()| sign_in::lock(state, false)),
        "/v1/doctor" => doctor(state, request.uri().query()).await,
        "/healthz" => Ok(answer::text("text/plain", "ok\n".to_owned())),
        "/readyz" => status::readyz(state, request.uri().query()),
        "/metrics" => no_query(request.uri().query()).map(|()| {
            let (directory, audit) = (state.directory(), state.audit.counts());
            state.metrics.render(&directory, audit, &state.proxy, state.clock.now())
        }),
        _ => unreachable!("{route} is in ROUTES and has no handler"),
    };
    (route, outcome)
}

static ROUTES: [(&str, Method); 17] = [
    ("/v1/token", Method::GET),
    ("/v1/identity-token", Method::GET),
    ("/v1/profiles", Method::GET),
    ("/v1/status", Method::GET),
    ("/v1/refresh", Method::POST),
    ("/v1/rejected", Method::POST),
    ("/v1/jobs", Method::POST),
    ("/v1/login", Method::POST),
    (LOGIN_ID, Method::GET),
    (LOGIN_CALLBACK, Method::POST),
    ("/v1/logout", Method::POST),
    ("/v1/lock", Method::POST),
    ("/v1/unlock", Method::POST),
    ("/v1/doctor", Method::GET),
    ("/healthz", Method::GET),
    ("/readyz", Method::GET),
    ("/metrics", Method::GET),
];

/// The routes with a part of their own in the path.
const LOGIN_ID: &str = "/v1/login/{id}";
const LOGIN_CALLBACK: &str = "/v1/login/{id}/callback";
const LOGIN: &str = "/v1/login/";
const CALLBACK: &str = "/callback";

/// The route of a path, where the path has a part of its own.
fn of_login(path: &str) -> &str {
    match path.strip_prefix(LOGIN) {
        Some(rest) if rest.ends_with(CALLBACK) => LOGIN_CALLBACK,
        Some(_) => LOGIN_ID,
        None => path,
    }
}

fn login_id(path: &str) -> &str {
    path.trim_start_matches(LOGIN).trim_end_matches(CALLBACK)
}

/// What other users may use whom the configuration allows: an access token, and whether there is one. Everything else
/// changes the daemon, shows whom it works for, or makes it ask others.
const FOR_GUESTS: [&str; 3] = ["/v1/token", "/healthz", "/readyz"];

/// Routes that end in somebody having a token: closed while locked.
const HANDS_OUT: [&str; 4] = ["/v1/token", "/v1/identity-token", "/v1/refresh", "/v1/jobs"];

/// Routes that look at the daemon and make no use of it: they do not keep it from leaving.
const LOOKS: [&str; 6] = ["/v1/profiles", "/v1/status", "/v1/doctor", "/healthz", "/readyz", "/metrics"];

/// Routes that wait, and change nothing that somebody must know of: a caller that goes away leaves its place to others at
/// once. The renewal itself goes on; a sign-in that nobody waits for any more does not.
const WAITS: [&str; 5] = [HANDS_OUT[0], HANDS_OUT[1], HANDS_OUT[2], HANDS_OUT[3], LOGIN_ID];

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Refuses other users, browsers and proxies. `Host` means nothing on a Unix socket and is not judged.
fn admit(state: &State, peer: Peer, request: &Request<Incoming>) -> Result<(), Problem> {
    if peer.standing == Standing::Stranger {
        let shown = |id: Option<u32>| id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
        let (uid, gid) = (shown(peer.uid), shown(peer.gid));
        let detail = format!(
            "this daemon serves uid {}, and you are uid {uid} with the primary group {gid} (`allow-gids` looks at no other \
             group); run a daemon of your own, or have its owner add `allow-uids = [{uid}]`",
            state.uid
        );
        return Err(Problem::new(ProblemKind::Forbidden, detail));
    }
    match request.headers().keys().find(|name| [&ORIGIN, &FORWARDED].contains(name)) {
        None => Ok(()),
        Some(header) => {
            let detail =
                format!("requests with {header} come from browsers or proxies, which are not served");
            Err(Problem::new(ProblemKind::Forbidden, detail))
        }
    }
}

async fn doctor(state: &State, query: Option<&str>) -> Outcome {
    let query = Query::parse(query, &["profile"])?;
    let directory = state.directory();
    let member = directory.find(query.profile.as_deref())?;
    Ok(answer::json(&*state.doctor_cache.findings(&member.profile).await))
}
