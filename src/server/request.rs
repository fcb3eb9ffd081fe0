//! What a request says: its query and its body, read strictly.

use std::borrow::Cow;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::api::{Problem, ProblemKind};
use crate::error::Error;
use crate::keeper::{Keeper, Need};
use crate::token::{Expires, TokenHash};

/// The parameters that routes know.
#[derive(Default)]
pub(super) struct Query {
    pub(super) profile: Option<String>,
    pub(super) min_ttl: Duration,
    /// The token that the caller has.
    pub(super) newer_than: Option<TokenHash>,
    wait: Option<Duration>,
    pub(super) jobs: bool,
}

impl Query {
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        let bad = |detail: String| Problem::new(ProblemKind::BadRequest, detail);
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
                "jobs" => {
                    parsed.jobs = value.parse().map_err(|_| bad("jobs must be true or false".to_owned()))?;
                }
                "min_ttl" => parsed.min_ttl = seconds(&value)?,
                "newer_than" => {
                    let hash = TokenHash::parse(&value);
                    parsed.newer_than = Some(hash.ok_or_else(|| {
                        bad(format!("{key} must be the 64 hexadecimal digits of a SHA-256"))
                    })?);
                }
                _ => parsed.wait = Some(seconds(&value)?.min(MAX_TIMEOUT)),
            }
        }
        Ok(parsed)
    }

    /// How long the caller waits, if it says so.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    pub(super) fn need(&self) -> Need {
        Need { min_ttl: self.min_ttl, timeout: self.timeout() }
    }

    /// A token of the keeper's, as the query asks for it. Whoever says how long it waits, waits for whatever may happen.
    pub(super) async fn token<T: Expires>(&self, keeper: &Keeper<T>, need: Need) -> Result<T, Error> {
        if self.wait.is_some() { keeper.get_patiently(need).await } else { keeper.get(need).await }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.wait.unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// For routes without parameters.
pub(super) fn no_query(query: Option<&str>) -> Result<(), Problem> {
    Query::parse(query, &[]).map(drop)
}

/// Reads a JSON body; an empty one counts as `{}`.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Problem> {
    let bad = |detail: String| Problem::new(ProblemKind::BadRequest, detail);
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
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// Largest number of seconds accepted: a year.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

const MAX_BODY: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
