//! What a token service answered, read the same way for all of them: which error a status means, JSON that
//! may not be JSON, and foreign words made safe to show.
//!
//! Providers with more to say about a status (which permission is missing, which command gives it) say it
//! first and leave the rest to [`refusal`].

use std::fmt::Write as _;

use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde::de::DeserializeOwned;

use super::Context;
use crate::error::{Error, Reason};
use crate::http::Answer;
use crate::redact::redact;
use crate::token::IdentityToken;

/// The error for an answer that is not a success. `said` is the service's own message, if one was found.
pub(crate) fn refusal(who: &str, answer: &Answer, said: Option<&str>) -> Error {
    let status = answer.status;
    let mut message = format!("{who} answered {status}");
    if let Some(said) = said.map(|said| redact(said, MAX_SAID)).filter(|said| !said.is_empty()) {
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

/// Reads a JSON body. What does not parse is a half answer or somebody else's (a proxy's error page), so the
/// next attempt may go better.
pub(crate) fn json<T: DeserializeOwned>(who: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        // serde's own text quotes values, which can be tokens: only the place is told.
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::transient(format!(
            "{who} answered {} with something else than the JSON expected ({place}, content type {})",
            answer.status,
            redact(kind, 60)
        ))
        .because(Reason::UnreadableAnswer { host: who.to_owned(), field: None })
    })
}

/// Parses the JWT that `source` gave and holds its `aud` against the profile's audience. `fix` says how the
/// user makes them agree.
pub(crate) fn identity(cx: &Context, raw: &str, source: &str, fix: &str) -> Result<IdentityToken, Error> {
    let token = cx.parse(raw, source)?;
    check_audience(cx, &token, source, fix)?;
    Ok(token)
}

/// Whether the JWT is for the profile's audience. W&B would refuse it otherwise, and say less.
pub(crate) fn check_audience(
    cx: &Context,
    token: &IdentityToken,
    source: &str,
    fix: &str,
) -> Result<(), Error> {
    match &cx.audience {
        Some(wanted) if !token.claims().aud.contains(wanted) => {
            let given = redact(&token.claims().aud.join(", "), MAX_SAID);
            let message = format!(
                "{source} gave a JWT for the audience {given:?}, where the profile says {wanted:?}; {fix}"
            );
            let (found, wanted) = (token.claims().aud.clone(), wanted.clone());
            Err(Error::misconfigured(message).because(Reason::AudienceMismatch { found, wanted }))
        }
        _ => Ok(()),
    }
}

fn redirected_to(answer: &Answer) -> Option<String> {
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    Some(url::Url::parse(location).ok()?.host_str()?.to_owned())
}

/// The `fix` where the service was asked for the audience and has no setting of its own.
pub(crate) const IGNORED: &str = "the service ignored the audience that it was asked for; please report this";

/// Longest foreign text shown.
const MAX_SAID: usize = 300;

#[cfg(test)]
pub(crate) mod test {
    //! What the tests of every provider need.

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use crate::clock::Clock;
    use crate::env::Env;
    use crate::http::Http;
    use crate::provider::Context;

    /// A context for the audience "acme" with exactly these variables.
    pub(crate) fn context(vars: &[(&str, &str)]) -> Context {
        let clock = Clock::system();
        Context {
            profile: "work".into(),
            audience: Some("acme".into()),
            base_url: None,
            env: Env::fixed(vars.iter().copied()),
            http: Http::new(clock.clone()),
            clock,
        }
    }

    /// A JWT for "acme" that lives for `life` more seconds, with `claims` (JSON members) besides.
    pub(crate) fn jwt(life: i64, claims: &str) -> String {
        let exp = Clock::system().now().wall.as_second() + life;
        let claims = if claims.is_empty() { r#""aud":"acme","sub":"someone""# } else { claims };
        let payload = format!(r#"{{"exp":{exp},{claims}}}"#);
        let header = r#"{"alg":"RS256","typ":"JWT"}"#;
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }
}

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
    fn each_status_has_its_class() {
        for (status, class) in [
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
            assert_eq!(error.kind, class, "{status}");
            let wait = (class == Kind::Transient).then_some(Duration::from_secs(7));
            assert_eq!(error.retry_after, wait, "{status}");
        }
    }

    #[test]
    fn broken_json_is_transient_and_shows_none_of_it() {
        let error = json::<Vec<u8>>("x", &answer(200, "{\"value\": \"planted")).expect_err("broken");
        assert_eq!(error.kind, Kind::Transient);
        assert!(!error.to_string().contains("planted"), "{error}");
    }

    #[test]
    fn a_jwt_for_another_audience_is_named_as_such() {
        let cx = test::context(&[]);
        let error = identity(&cx, &test::jwt(60, r#""aud":["sts","x"]"#), "source", "do this");
        let error = error.expect_err("wrong audience").to_string();
        assert!(
            error.contains("\"sts, x\"") && error.contains("\"acme\"") && error.contains("do this"),
            "{error}"
        );
        identity(&cx, &test::jwt(60, r#""aud":["x","acme"]"#), "source", "")
            .expect("one of several is enough");
    }
}
