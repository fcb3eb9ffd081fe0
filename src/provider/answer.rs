//! What a token service answered, read the same way for all of them: which error a status means, JSON that
//! may not be JSON, and foreign words made safe to show.
//!
//! A provider that knows more about a status (which permission is missing, which command gives it) adds that as a hint
//! to [`refusal`].

use std::fmt::Write as _;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde::de::DeserializeOwned;

use crate::error::{Error, Reason};
use crate::http::Answer;
use crate::json::{Fault, Object};
use crate::redact::redact;

/// The error for an answer that is not a success. `said` is the service's own message, if one was found.
pub fn refusal(who: &str, answer: &Answer, said: Option<&str>) -> Error {
    let status = answer.status;
    let mut message = format!("{who} answered {status}");
    if let Some(said) = said.map(|said| redact(said, MAX_SHOWN)).filter(|said| !said.is_empty()) {
        let _ = write!(message, ": {said}");
    }
    let reason = Reason::Status { host: who.to_owned(), status };
    match status {
        300..=399 => {
            let to = redirected_to(answer);
            let target = to.as_ref().map_or(String::new(), |host| format!(" to {host}"));
            let message = format!("{message}, a redirect{target}, which is not followed");
            Error::misconfigured(message).because(Reason::Redirected { host: who.to_owned(), to })
        }
        401 | 403 => Error::rejected(message).because(reason),
        408 | 425 | 429 | 500..=599 => {
            Error::transient(message).because(reason).retry_after(answer.retry_after)
        }
        _ => Error::misconfigured(message).because(reason),
    }
}

/// The error for an answer that is not what the service promises. It may be half an answer or somebody else's (a proxy's
/// error page), so the next attempt may go better.
pub(crate) fn unreadable(who: &str, field: Option<&str>, message: String) -> Error {
    let field = field.map(str::to_owned);
    Error::transient(message).because(Reason::UnreadableAnswer { host: who.to_owned(), field })
}

/// The error for a document that lacks what is needed, or has it in a form that says nothing.
pub(crate) fn refused(who: &str, fault: &Fault) -> Error {
    unreadable(who, fault.field(), format!("{who} {fault}"))
}

/// Reads a JSON object leniently.
pub(crate) fn object(who: &str, answer: &Answer) -> Result<Object, Error> {
    Object::parse(&answer.body).map_err(|fault| {
        let message = format!("the answer of {who} {fault} (content type {})", content_type(answer));
        unreadable(who, None, message)
    })
}

fn content_type(answer: &Answer) -> String {
    redact(answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none"), 60)
}

/// Reads a JSON body.
pub fn json<T: DeserializeOwned>(who: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // serde's own text quotes values, which can be tokens: only the place is shown.
        let place = format!("line {}, column {}", error.line(), error.column());
        let message = format!(
            "{who} answered {} with something other than the JSON expected ({place}, content type {})",
            answer.status,
            content_type(answer)
        );
        unreadable(who, missing_field(&error).as_deref(), message)
    })
}

/// The field that the answer lacks, if that is what is wrong. Its name comes from our own types.
fn missing_field(error: &serde_json::Error) -> Option<String> {
    let text = error.is_data().then(|| error.to_string())?;
    Some(text.strip_prefix("missing field `")?.split_once('`')?.0.to_owned())
}

fn redirected_to(answer: &Answer) -> Option<String> {
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    Some(url::Url::parse(location).ok()?.host_str()?.to_owned())
}

/// Longest foreign text in a message, in characters.
const MAX_SHOWN: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderMap;
    use zeroize::Zeroizing;

    use super::*;
    use crate::clock::Clock;
    use crate::error::Kind;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
            sent: Clock::system().now(),
            retry_after: Some(Duration::from_secs(7)),
            skew: None,
        }
    }

    #[test]
    fn each_status_has_its_kind() {
        for (status, kind) in [
            (302, Kind::Misconfigured),
            (400, Kind::Misconfigured),
            (401, Kind::Rejected),
            (403, Kind::Rejected),
            (404, Kind::Misconfigured),
            (429, Kind::Transient),
            (500, Kind::Transient),
            (503, Kind::Transient),
        ] {
            let error = refusal("x", &answer(status, ""), None);
            assert_eq!(error.kind, kind, "{status}");
            let wait = (kind == Kind::Transient).then_some(Duration::from_secs(7));
            assert_eq!(error.retry_after, wait, "{status}");
        }
    }

    #[test]
    fn broken_json_is_transient_and_shows_none_of_it() {
        let error = json::<Vec<u8>>("x", &answer(200, "{\"value\": \"planted")).expect_err("broken");
        assert_eq!(error.kind, Kind::Transient);
        assert!(!error.to_string().contains("planted"), "{error}");
        assert!(matches!(error.reason, Reason::UnreadableAnswer { field: None, .. }));
    }

    #[test]
    fn a_missing_field_is_named() {
        #[derive(Debug, serde::Deserialize)]
        struct Minted {
            #[serde(rename = "token")]
            _token: String,
        }
        let error = json::<Minted>("x", &answer(200, "{}")).expect_err("nothing in it");
        assert_eq!(
            error.reason,
            Reason::UnreadableAnswer { host: "x".to_owned(), field: Some("token".to_owned()) }
        );
    }
}
