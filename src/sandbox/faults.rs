//! Faults that tests ask for. `POST /sandbox/faults` sets them; the server applies them to its responses.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reply::{self, Body, Reply};

/// One fault for each kind of request, if any.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Faults {
    /// `POST /oidc/token`.
    exchange: Option<Fault>,
    /// Discovery, JWKS and `/mint`.
    idp: Option<Fault>,
    /// The routes that need an access token: GraphQL, `file_stream`, weave.
    api: Option<Fault>,
}

/// Which requests a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Exchange,
    Idp,
    Api,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "Spelling")]
pub(super) struct Fault {
    /// With neither this nor `status`, there is only the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    body: String,
    headers: BTreeMap<String, String>,
    delay_ms: u64,
    /// How many more requests it applies to; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    None,
    /// No response until the client disconnects.
    Hang,
    /// `200` with bytes that are not JSON.
    Garbage,
    /// `200` with an empty body.
    Empty,
    /// Half of the right response, then the connection ends.
    Truncate,
    /// The right response in a body of [`HUGE`] bytes.
    Huge,
    /// `302` to a route that issues a token and counts the clients that follow.
    Redirect,
    /// The right response, one byte at a time.
    SlowDrip,
    /// `expires_in` with a fraction.
    NonIntegerExpires,
    /// `expires_in` as a string.
    StringExpires,
    /// `400 invalid JWT format` as plain text.
    PlainText,
}

/// A fault is written as its name alone, or in full.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Name(Kind),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    fault: Option<Kind>,
    status: Option<u16>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    delay_ms: u64,
    count: Option<u64>,
}

impl From<Spelling> for Fault {
    fn from(spelling: Spelling) -> Self {
        let full = match spelling {
            Spelling::Full(full) => full,
            Spelling::Name(kind) => Full {
                fault: Some(kind),
                status: None,
                body: String::new(),
                headers: BTreeMap::new(),
                delay_ms: 0,
                count: None,
            },
        };
        let Full { fault, status, body, headers, delay_ms, count } = full;
        Self { fault, status, body, headers, delay_ms, count }
    }
}

impl Faults {
    /// The fault for one request to `target`. Each call counts as one request.
    pub(super) fn take(&mut self, target: Target) -> Option<Fault> {
        let slot = match target {
            Target::Exchange => &mut self.exchange,
            Target::Idp => &mut self.idp,
            Target::Api => &mut self.api,
        };
        let fault = slot.as_mut()?;
        let taken = fault.clone();
        match &mut fault.count {
            Some(0) => {
                *slot = None;
                return None;
            }
            Some(count) => *count -= 1,
            None => {}
        }
        (taken.fault != Some(Kind::None)).then_some(taken)
    }
}

impl Fault {
    /// Waits for the delay, then returns the response to send instead of the right one, if any.
    pub(super) async fn replacement(&self, base: &str) -> Option<Reply> {
        tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        let mut reply = match self.fault {
            Some(Kind::Hang) => {
                tokio::time::sleep(MAX_HANG).await;
                reply::text(StatusCode::GATEWAY_TIMEOUT, "hung on request")
            }
            Some(Kind::Garbage) => {
                let garbage = b"\x1f\x8b\x00{\"access_token\": <html>\xff\xfe";
                reply::bytes(StatusCode::OK, "application/json", Bytes::from_static(garbage))
            }
            Some(Kind::Empty) => reply::bytes(StatusCode::OK, "application/json", Bytes::new()),
            Some(Kind::PlainText) => reply::text(StatusCode::BAD_REQUEST, "invalid JWT format"),
            Some(Kind::Redirect) => {
                let mut reply = reply::text(StatusCode::FOUND, "");
                let location = HeaderValue::from_str(&format!("{base}/sandbox/redirected"));
                reply.headers_mut().insert(LOCATION, location.expect("our URL is a header value"));
                reply
            }
            _ => {
                let status = StatusCode::from_u16(self.status?).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                reply::text(status, self.body.clone())
            }
        };
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                reply.headers_mut().insert(name, value);
            }
        }
        Some(reply)
    }

    /// Breaks the right response.
    pub(super) fn corrupt(&self, reply: Reply) -> Reply {
        let (head, body) = reply.into_parts();
        let Body::Whole(bytes) = body else { return Response::from_parts(head, body) };
        let body = match self.fault {
            Some(Kind::Truncate) => Body::CutShort(Some(bytes.slice(..bytes.len() / 2))),
            Some(Kind::SlowDrip) => Body::drip(bytes),
            Some(Kind::Huge) => {
                let mut huge = bytes.to_vec();
                huge.resize(HUGE.max(huge.len()), b' ');
                Body::Whole(huge.into())
            }
            Some(Kind::NonIntegerExpires) => edit(bytes, |seconds| json!(seconds as f64 + 0.5)),
            Some(Kind::StringExpires) => edit(bytes, |seconds| json!(seconds.to_string())),
            _ => Body::Whole(bytes),
        };
        Response::from_parts(head, body)
    }
}

/// Rewrites `expires_in`, if there is one.
fn edit(bytes: Bytes, rewrite: impl Fn(u64) -> Value) -> Body {
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else { return Body::Whole(bytes) };
    let Some(seconds) = value["expires_in"].as_u64() else { return Body::Whole(bytes) };
    value["expires_in"] = rewrite(seconds);
    Body::Whole(value.to_string().into())
}

/// More than any client reads of a token response.
const HUGE: usize = 16 * 1024 * 1024;

/// Longer than any client waits; bounded so that forgotten connections end.
const MAX_HANG: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(value: Value) -> Faults {
        serde_json::from_value(value).expect("faults")
    }

    #[test]
    fn a_fault_with_a_count_applies_that_often() {
        let mut faults = faults(json!({ "exchange": { "status": 503, "count": 2 } }));
        assert!(faults.take(Target::Idp).is_none());
        assert!(faults.take(Target::Exchange).is_some());
        assert!(faults.take(Target::Exchange).is_some());
        assert!(faults.take(Target::Exchange).is_none());
    }

    #[test]
    fn none_is_no_fault_and_an_unknown_one_is_refused() {
        assert!(faults(json!({ "exchange": "none" })).take(Target::Exchange).is_none());
        assert!(serde_json::from_value::<Faults>(json!({ "exchange": "hagn" })).is_err());
        assert!(serde_json::from_value::<Faults>(json!({ "exchange": { "stauts": 1 } })).is_err());
    }

    #[test]
    fn expiry_is_rewritten_and_the_token_kept() {
        let fault = faults(json!({ "exchange": "non-integer-expires" })).take(Target::Exchange);
        let right = reply::ok(&json!({ "access_token": "t", "expires_in": 60 }));
        let Body::Whole(bytes) = fault.expect("set").corrupt(right).into_body() else { panic!("not whole") };
        let value: Value = serde_json::from_slice(&bytes).expect("json");
        assert_eq!(value, json!({ "access_token": "t", "expires_in": 60.5 }));
    }
}
