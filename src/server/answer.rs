//! Answers: JSON, problems, and the one that is asked for most, kept ready.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::Problem;
use crate::profile::Profile;
use crate::token::{AccessToken, Expires as _, TokenHash};

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("our own types always serialise");
    with_body(StatusCode::OK, JSON, body.into())
}

pub(super) fn text(content_type: &'static str, body: String) -> Answer {
    with_body(StatusCode::OK, HeaderValue::from_static(content_type), body.into())
}

fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    answer
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `GET /v1/token`'s body, rendered once per renewal but for its last number, which changes once a second.
#[derive(Default)]
pub(super) struct TokenAnswer(Mutex<Option<Rendered>>);

struct Rendered {
    hash: TokenHash,
    seconds: u64,
    /// The body up to its last number.
    head: Bytes,
    body: Bytes,
}

impl TokenAnswer {
    /// After a sign-out: nothing of the token stays.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn render(&self, profile: &Profile, token: &AccessToken, left: Duration) -> Answer {
        // A token that is served has at least a second: rounding down never says 0.
        let seconds = left.as_secs();
        let hash = token.hash();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match &*kept {
            Some(same) if same.hash == hash && same.seconds == seconds => same.body.clone(),
            before => {
                let head = match before {
                    Some(before) if before.hash == hash => before.head.clone(),
                    _ => head(profile, token),
                };
                let mut body = Vec::with_capacity(head.len() + 24);
                body.extend_from_slice(&head);
                write!(body, "{seconds}}}").expect("writing to memory");
                let body = Bytes::from(body);
                *kept = Some(Rendered { hash, seconds, head, body: body.clone() });
                body
            }
        };
        with_body(StatusCode::OK, JSON, body)
    }
}

fn head(profile: &Profile, token: &AccessToken) -> Bytes {
    let json = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"access_token":{},"token_type":"Bearer","expires_at":"{:.0}","base_url":{},"profile":{},"expires_in":"#,
        json(token.secret().expose()),
        token.expiry().wall(),
        json(profile.base_url.as_str()),
        json(&profile.name),
    )
    .into()
}

/// A problem, as its type says it.
pub(super) fn problem(problem: &Problem) -> Answer {
    let status = StatusCode::from_u16(problem.status).expect("problem kinds have valid statuses");
    let body = serde_json::to_vec(problem).expect("our own types always serialise");
    let mut answer = with_body(status, HeaderValue::from_static("application/problem+json"), body.into());
    if let Some(seconds) = problem.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// Whole seconds, rounded down: what the wire carries.
pub(super) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
