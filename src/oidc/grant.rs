//! The token endpoint (RFC 6749) and device authorization (RFC 8628): what is asked, and what the answers say.

use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::error::{Refusal, declined, unreadable};
use super::wire::Client;
use super::{Device, RelyingParty};
use crate::error::{Error, Kind, Reason, Stage};
use crate::foreign_text;
use crate::http::Answer;
use crate::json::{Fault, Object};
use crate::token::Secret;

/// A success of the token endpoint, as it came: nothing in it is judged yet but that it may hold a refresh token.
pub struct Granted {
    /// A new refresh token; it replaces the one that was sent.
    pub refresh_token: Option<Secret<String>>,
    fields: Result<Object, Fault>,
}

impl Granted {
    pub fn read(text: &[u8]) -> Self {
        let fields = Object::parse(text);
        let refresh_token = match &fields {
            Ok(fields) => {
                fields.text("refresh_token").ok().flatten().map(|token| Zeroizing::new(token.into_owned()))
            }
            // It is spent at the provider whatever is wrong with the rest.
            Err(_) => salvage(text, "refresh_token").map(Zeroizing::new),
        };
        let refresh_token = refresh_token.filter(|token| !token.is_empty());
        Self { refresh_token: refresh_token.map(|token| Secret::new(token.to_string())), fields }
    }

    pub fn id_token(&self) -> Result<Option<Zeroizing<String>>, Fault> {
        let fields = self.fields.as_ref().map_err(Clone::clone)?;
        Ok(fields.text("id_token")?.map(|token| Zeroizing::new(token.into_owned())))
    }

    /// How long the refresh token lives (Keycloak). Zero means that it does not end, and so does a life that is longer
    /// than anybody's session.
    pub fn refresh_expires_in(&self) -> Option<Duration> {
        let seconds = self.fields.as_ref().ok()?.number("refresh_expires_in").ok()??;
        (1.0..MAX_SESSION).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    }
}

/// The text in this field of JSON that is broken somewhere else.
fn salvage(text: &[u8], field: &str) -> Option<String> {
    let name = format!("\"{field}\"");
    let at = text.windows(name.len()).position(|window| window == name.as_bytes())?;
    let rest = text[at + name.len()..].trim_ascii_start().strip_prefix(b":")?;
    serde_json::Deserializer::from_slice(rest).into_iter::<String>().next()?.ok()
}

impl RelyingParty {
    /// One request to the token endpoint.
    pub(super) async fn grant(&self, form: &[(&str, &str)]) -> Result<Granted, Refusal> {
        let endpoint = self.metadata().await?.endpoint("token_endpoint")?;
        let answer = self.post(endpoint, form).await?;
        match self.refusal(&answer) {
            Some(refusal) => Err(refusal),
            None => Ok(Granted::read(&answer.body)),
        }
    }

    pub(super) async fn post(&self, endpoint: Url, form: &[(&str, &str)]) -> Result<Answer, Error> {
        let (secret, metadata) = (self.client_secret().await?, self.metadata().await?);
        let client = Client { id: &self.settings.client_id, secret, basic: metadata.takes_basic() };
        self.wire.post(endpoint, &client, form).await.map_err(|error| error.at(Stage::SignIn))
    }

    /// The answer's `error`, with whatever status it came; else a status that is no success.
    fn refusal(&self, answer: &Answer) -> Option<Refusal> {
        let fields = Object::parse(&answer.body);
        let success = (200..300).contains(&answer.status);
        let any = |fields: &Object| TOKENS.iter().any(|token| fields.value(token).is_some());
        if let Ok(fields) = &fields
            && let Ok(Some(code)) = fields.text("error")
            && !(success && any(fields))
        {
            let description = fields.text("error_description").ok().flatten();
            return Some(Refusal::Answered(code.into_owned(), description.map(|text| text.into_owned())));
        }
        if success {
            return None;
        }
        let (issuer, status) = (self.settings.issuer.as_str(), answer.status);
        let fault = fields.err().unwrap_or(Fault::Missing("error"));
        let message = format!("{issuer} answers HTTP {status}, and the answer {fault}");
        let reason = Reason::Status { host: issuer.to_owned(), status };
        Some(super::error::error(Kind::Transient, reason, message).into())
    }

    /// Starts device authorization.
    pub async fn device(&self) -> Result<Device, Error> {
        let metadata = self.metadata().await?;
        let issuer = self.settings.issuer.as_str();
        let endpoint = metadata.optional_endpoint("device_authorization_endpoint")?.ok_or_else(|| {
            super::misconfigured(format!("{issuer} offers no sign-in by a code on another device"))
                .because(Reason::NoDeviceFlow)
        })?;
        let scope = self.settings.scopes.join(" ");
        let answer = self.post(endpoint, &[("scope", &scope)]).await?;
        if let Some(refusal) = self.refusal(&answer) {
            return Err(self.refused(refusal));
        }
        read_device(&answer.body).map_err(|fault| {
            let message = format!("the answer of {issuer} to a device sign-in {fault}");
            unreadable(Kind::Transient, issuer, fault.field(), message)
        })
    }

    /// Polls until the person has answered, or the code expired: at the provider's interval, slower when it asks for
    /// that or cannot be reached.
    pub(super) async fn poll_device(&self, device: &Device) -> Result<Granted, Error> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device.code.expose().as_str()),
        ];
        let started = self.clock.now().boot;
        let mut pause = device.interval;
        loop {
            tokio::time::sleep(pause).await;
            let refusal = match self.grant(&form).await {
                Ok(granted) => return Ok(granted),
                Err(refusal) => refusal,
            };
            match refusal {
                Refusal::Answered(code, _) if code == "authorization_pending" => {}
                Refusal::Answered(code, _) if code == "slow_down" => pause += SLOWER,
                Refusal::Answered(code, _) if code == "expired_token" => return Err(expired()),
                Refusal::Failed(error) if error.is_transient() => {
                    pause = (pause * 2).min(MAX_INTERVAL).max(error.retry_after.unwrap_or_default());
                }
                refusal => return Err(self.refused(refusal)),
            }
            if self.clock.now().boot.saturating_sub(started) + pause >= device.expires_in {
                return Err(expired());
            }
        }
    }
}

fn expired() -> Error {
    declined("nobody entered the code before it expired; start the sign-in again")
}

/// The answer of the device authorization endpoint.
pub fn read_device(text: &[u8]) -> Result<Device, Fault> {
    let fields = Object::parse(text)?;
    let code = Secret::new(fields.required_text("device_code")?.into_owned());
    let user_code = foreign_text::clean(&fields.required_text("user_code")?, MAX_USER_CODE);
    // Google's name, from before there was a standard.
    let field =
        if fields.value("verification_uri").is_some() { "verification_uri" } else { "verification_url" };
    let uri = match fields.required_text(field) {
        Err(Fault::Missing(_)) => return Err(Fault::Missing("verification_uri")),
        uri => uri?,
    };
    let page = Url::parse(uri.trim()).ok().filter(foreign_text::is_page);
    let verification_uri = page.ok_or(Fault::Wrong {
        field,
        found: "text that is not the URL of a web page",
        wanted: "such a URL",
    })?;
    let complete = fields.text("verification_uri_complete").ok().flatten();
    let seconds = |field| fields.number(field).ok().flatten().filter(|seconds| *seconds >= 0.0);
    let bounded = |field, default: Duration, most: Duration| {
        let given = seconds(field).map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(most));
        given.unwrap_or(default).min(most)
    };
    Ok(Device {
        code,
        user_code,
        verification_uri,
        verification_uri_complete: complete
            .and_then(|uri| Url::parse(&uri).ok().filter(foreign_text::is_page)),
        expires_in: bounded("expires_in", DEVICE_LIFE, MAX_DEVICE_LIFE),
        interval: bounded("interval", INTERVAL, MAX_INTERVAL).max(MIN_INTERVAL),
    })
}

/// With one of these an answer is a success, whatever else it says.
const TOKENS: [&str; 3] = ["access_token", "id_token", "refresh_token"];

/// Longer than any code that people are asked to type.
const MAX_USER_CODE: usize = 64;

/// RFC 8628, section 3.2: where none is given.
const INTERVAL: Duration = Duration::from_secs(5);
/// A provider that says 0 gets no more than one request a second.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// RFC 8628, section 3.5.
const SLOWER: Duration = Duration::from_secs(5);

const DEVICE_LIFE: Duration = Duration::from_secs(900);
const MAX_DEVICE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Ten years, in seconds.
const MAX_SESSION: f64 = 10.0 * 366.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refresh_token_is_found_whatever_is_wrong_with_the_rest() {
        for text in [
            r#"{"refresh_token":"next","expires_in":"3600","scope":["a"],"id_token":{"x":1}}"#,
            r#"{"expires_in":NaN,"refresh_token" : "next","id_token":"x"}"#,
            r#"{"refresh_token":"next","id_token":"cut of"#,
            r#"{"refresh_token":"next"}{"again":1}"#,
            "\u{feff}{\"refresh_token\":\"next\"}",
        ] {
            let granted = Granted::read(text.as_bytes());
            let found = granted.refresh_token.as_ref().map(|token| token.expose().as_str());
            assert_eq!(found, Some("next"), "{text}");
        }
        for text in
            ["", "[]", r#"{"refresh_token":""}"#, r#"{"refresh_token":null}"#, r#"{"refresh_token":"cut"#]
        {
            assert!(Granted::read(text.as_bytes()).refresh_token.is_none(), "{text}");
        }
    }

    #[test]
    fn a_refresh_tokens_end_may_be_text_and_may_be_absurd() {
        for (value, seconds) in
            [("1800", Some(1800)), ("\"1800\"", Some(1800)), ("0", None), ("1e18", None), ("[]", None)]
        {
            let granted = Granted::read(format!(r#"{{"refresh_expires_in":{value}}}"#).as_bytes());
            assert_eq!(granted.refresh_expires_in().map(|life| life.as_secs()), seconds, "{value}");
        }
    }

    #[test]
    fn a_device_is_asked_for_no_more_than_once_a_second() {
        for (interval, seconds) in
            [("0", 1), ("-3", 5), ("\"7\"", 7), ("null", 5), ("1e18", 60), ("{}", 5), ("0.1", 1)]
        {
            let text = format!(
                r#"{{"device_code":1,"user_code":"AB","verification_url":"https://idp.example/d","interval":{interval}}}"#
            );
            let device = read_device(text.as_bytes()).expect("enough to go on");
            assert_eq!(device.interval, Duration::from_secs(seconds), "{interval}");
            assert_eq!(device.expires_in, DEVICE_LIFE);
        }
    }

    #[test]
    fn a_device_answer_is_refused_by_name() {
        for (text, said) in [
            ("{}", "has no `device_code`"),
            (
                r#"{"device_code":"d","user_code":["a","b"]}"#,
                "has a list in `user_code` where text is needed",
            ),
            (r#"{"device_code":"d","user_code":"u"}"#, "has no `verification_uri`"),
            (
                r#"{"device_code":"d","user_code":"u","verification_uri":"here"}"#,
                "has text that is not the URL of a web page in `verification_uri` where such a URL is needed",
            ),
        ] {
            let fault = read_device(text.as_bytes()).err().expect("refused");
            assert_eq!(fault.to_string(), said);
        }
    }
}
