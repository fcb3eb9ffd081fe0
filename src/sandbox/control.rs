//! `/sandbox/...`: how tests control and inspect the sandbox.
//!
//! `GET stats`, `GET history?run=ENTITY/PROJECT/ID`, `GET` and `POST faults`, `POST revoke`, `POST settings`.

use std::collections::HashMap;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::server::{State, lock};

pub(super) fn route(
    state: &State,
    method: &Method,
    path: &str,
    query: &HashMap<String, String>,
    body: &[u8],
) -> Reply {
    match (method, path) {
        (&Method::GET, "/sandbox/stats") => {
            let counts = state.tokens().counts();
            reply::ok(&state.stats().to_json(counts))
        }
        (&Method::GET, "/sandbox/history") => history(state, query.get("run").map_or("", String::as_str)),
        (&Method::GET, "/sandbox/faults") => reply::ok(&json!(*lock(&state.faults))),
        (&Method::POST, "/sandbox/faults") => match serde_json::from_slice(body) {
            Ok(faults) => {
                let mut current = lock(&state.faults);
                *current = faults;
                reply::ok(&json!(*current))
            }
            Err(error) => reply::text(StatusCode::BAD_REQUEST, error.to_string()),
        },
        (&Method::POST, "/sandbox/revoke") => {
            let revoked = state.tokens().revoke(state.clock.now().wall);
            reply::ok(&json!({ "revoked": revoked }))
        }
        (&Method::POST, "/sandbox/settings") => match serde_json::from_slice(body) {
            Ok(change) => settings(state, change),
            Err(error) => reply::text(StatusCode::BAD_REQUEST, error.to_string()),
        },
        // The redirect fault points here, so this client followed a redirect on a token request.
        (_, "/sandbox/redirected") => {
            state.stats().redirects_followed += 1;
            let token = state.tokens().issue(state.clock.now().wall, Duration::from_secs(3600));
            let body = json!({ "access_token": token, "expires_in": 3600, "token_type": "Bearer" });
            reply::ok(&body)
        }
        _ => reply::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// A change of [`super::server::Settings`]: a field that is absent stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    token_life: Option<u64>,
    jwt_life: Option<u64>,
    replay_check: Option<bool>,
    exchange_delay_ms: Option<u64>,
    signed_downloads: Option<bool>,
}

fn settings(state: &State, change: Change) -> Reply {
    let mut settings = lock(&state.settings);
    settings.token_life = change.token_life.unwrap_or(settings.token_life);
    settings.jwt_life = change.jwt_life.unwrap_or(settings.jwt_life);
    settings.replay_check = change.replay_check.unwrap_or(settings.replay_check);
    settings.exchange_delay_ms = change.exchange_delay_ms.unwrap_or(settings.exchange_delay_ms);
    settings.signed_downloads = change.signed_downloads.unwrap_or(settings.signed_downloads);
    reply::ok(&json!(*settings))
}

/// The rows of one run in order; a missing row is `null`.
fn history(state: &State, run: &str) -> Reply {
    let stats = state.stats();
    let Some(run) = stats.runs.get(run) else {
        return reply::text(StatusCode::NOT_FOUND, "no such run");
    };
    let rows = run.rows.iter().map(|row| {
        row.as_deref().and_then(|row| serde_json::from_str::<Value>(row).ok()).unwrap_or_default()
    });
    reply::ok(&Value::Array(rows.collect()))
}
