//! The header and the claims of a JWT, read leniently: what is not needed never makes a token unusable.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::json;

/// How the JWT says that it is signed.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Header {
    /// Empty if the header has none.
    pub alg: String,
    pub kid: Option<String>,
    /// Whether it demands that extensions be understood (`crit`): none is, here.
    pub has_crit: bool,
}

impl From<Map<String, Value>> for Header {
    fn from(mut fields: Map<String, Value>) -> Self {
        let alg = take(&mut fields, "alg", text).unwrap_or_default();
        let kid = take(&mut fields, "kid", text);
        Self { alg, kid, has_crit: fields.get("crit").is_some_and(|crit| !crit.is_null()) }
    }
}

/// The claims W&B looks at. The others are kept for the subject rule (any claim with "email"), and so is one of these
/// whose type says nothing: see [`Claims::odd`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Claims {
    pub iss: Option<String>,
    pub sub: Option<String>,
    pub email: Option<String>,
    pub aud: Vec<String>,
    /// Seconds since the epoch; a JSON number that may carry a fraction (RFC 7519, section 2, NumericDate).
    pub exp: Option<f64>,
    pub iat: Option<f64>,
    pub nbf: Option<f64>,
    pub jti: Option<String>,
    pub other: Map<String, Value>,
}

impl From<Map<String, Value>> for Claims {
    fn from(mut fields: Map<String, Value>) -> Self {
        // By field, not by `Default`: these come out of `fields`, which then holds the others.
        let (iss, sub, email) = (
            take(&mut fields, "iss", text),
            take(&mut fields, "sub", text),
            take(&mut fields, "email", text),
        );
        let aud = take(&mut fields, "aud", texts).unwrap_or_default();
        let (exp, iat, nbf) =
            (take(&mut fields, "exp", time), take(&mut fields, "iat", time), take(&mut fields, "nbf", time));
        let jti = take(&mut fields, "jti", text);
        Self { iss, sub, email, aud, exp, iat, nbf, jti, other: fields }
    }
}

impl Claims {
    /// The subject as W&B (server 0.74.0 and later) finds it: `sub`, then `email`, then any claim whose name
    /// contains "email".
    pub fn subject(&self) -> Option<&str> {
        let named = || {
            self.other.iter().filter(|(name, _)| name.contains("email")).find_map(|(_, value)| value.as_str())
        };
        self.sub.as_deref().or(self.email.as_deref()).or_else(named)
    }

    /// What this claim holds instead of what belongs there, in words, if it is there and cannot be read.
    pub fn odd(&self, claim: &str) -> Option<&'static str> {
        self.other.get(claim).map(json::kind)
    }
}

/// Takes the field out if `read` can make something of it. Null is the same as nothing.
fn take<T>(fields: &mut Map<String, Value>, name: &str, read: fn(&Value) -> Option<T>) -> Option<T> {
    match fields.get(name)? {
        Value::Null => {
            fields.remove(name);
            None
        }
        value => {
            let found = read(value)?;
            fields.remove(name);
            Some(found)
        }
    }
}

fn text(value: &Value) -> Option<String> {
    json::text(value).map(std::borrow::Cow::into_owned)
}

/// One text or a list; what is no text in the list is nobody's audience.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(many) => Some(many.iter().filter_map(text).collect()),
        one => text(one).map(|one| vec![one]),
    }
}

/// A number of seconds, of milliseconds (which as seconds would be after the year 5000), or a date as text.
fn time(value: &Value) -> Option<f64> {
    if let Some(number) = json::number(value) {
        let milliseconds = MILLISECONDS.contains(&number);
        return Some(if milliseconds { number / 1000.0 } else { number });
    }
    let date: Timestamp = value.as_str()?.trim().parse().ok()?;
    Some(date.as_second() as f64)
}

const MILLISECONDS: std::ops::Range<f64> = 1e11..1e14;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        serde_json::from_value(value).expect("any object will do")
    }

    #[test]
    fn times_may_be_text_dates_or_milliseconds() {
        for value in [
            json!(1_800_000_000),
            json!(1_800_000_000.0),
            json!("1800000000"),
            json!("2027-01-15T08:00:00Z"),
            json!(1_800_000_000_000_i64),
        ] {
            assert_eq!(claims(json!({ "exp": value })).exp, Some(1_800_000_000.0), "{value}");
        }
    }

    #[test]
    fn texts_may_be_numbers_or_the_one_text_of_a_list() {
        let claims = claims(json!({"sub": 42, "email": ["a@b.example"], "jti": 1.5, "aud": ["a", 7, {}]}));
        assert_eq!(claims.sub.as_deref(), Some("42"));
        assert_eq!(claims.email.as_deref(), Some("a@b.example"));
        assert_eq!(claims.aud, ["a", "7"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_not_there() {
        let claims =
            claims(json!({"sub": {}, "exp": "soon", "iat": null, "email": ["a", "b"], "x_email": "c"}));
        assert_eq!(claims.odd("sub"), Some("an object"));
        assert_eq!(claims.odd("exp"), Some("text"));
        assert_eq!(claims.odd("iat"), None);
        assert_eq!(claims.odd("aud"), None);
        assert_eq!(claims.subject(), Some("c"), "a list of addresses is no subject");
    }
}
