//! The proxy's own answers, as W&B words its own: what `errors` holds is what the SDK shows.

use bytes::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::body::Body;
use super::head::Refusal;

pub(super) fn refused(why: Refusal) -> Response<Body> {
    let mut answer = error(why.status(), why.sentence());
    if why == Refusal::Method {
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
        answer.headers_mut().insert(ALLOW, allowed);
    }
    // Its body, if it has one, is not read.
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Trouble of our own, or on the way: every SDK tries again.
pub(super) fn unavailable(sentence: &str, retry_after: u64) -> Response<Body> {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    answer.headers_mut().insert(RETRY_AFTER, retry_after.into());
    answer
}

/// What an OpenTelemetry collector answers that took everything, in the request's own language.
pub(super) fn telemetry(kind: Option<&HeaderValue>) -> Response<Body> {
    let json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (kind, body) =
        if json { ("application/json", &b"{}"[..]) } else { ("application/x-protobuf", &b""[..]) };
    with_body(StatusCode::OK, kind, Bytes::from_static(body))
}

fn error(status: StatusCode, sentence: &str) -> Response<Body> {
    let body = json!({ "errors": [{ "message": format!("wandb-cred: {sentence}") }] });
    with_body(status, "application/json", body.to_string().into())
}

fn with_body(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::Whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
