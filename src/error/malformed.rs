//! What is wrong with a text that should be an identity token.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a text is not a usable identity token. No variant carries any of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Malformed {
    /// The source gave nothing, or white space.
    #[error("it is empty")]
    Empty,
    /// Longer than any server takes in a form field.
    #[error("it is {length} bytes long, over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    /// Not `header.payload.signature`: an opaque token, an error page, or a half-written file.
    #[error("it is not a JWT: {count} dot-separated parts where a JWT has 3")]
    NotThreeParts { count: usize },
    /// Several lines; `jwts` are those that are a JWT, counted from 1.
    #[error("it is {count} lines{}; it must be the JWT alone", which(*.count, .jwts))]
    Lines { count: usize, jwts: Vec<usize> },
    #[error("it has spaces inside, so it is not a JWT")]
    Spaces,
    #[error("it is JSON, not a bare JWT; use the provider `command` with `field` to take the JWT out of it")]
    Json,
    #[error("it is an HTML or XML page, not a JWT")]
    Page,
    /// Three parts, of which this one is not base64url.
    #[error("it has the three parts of a JWT, but its {part} is not base64url; is it cut or altered?")]
    NotBase64 { part: Part },
    /// Base64url, but not of a JSON object.
    #[error("it has the three parts of a JWT, but its {part} is not a JSON object")]
    NotAnObject { part: Part },
    /// A claim (or header field) that is needed is of a type that says nothing.
    #[error("the JWT has {found} in `{claim}` where {wanted} is needed")]
    Claim { claim: String, found: String, wanted: String },
    /// `alg` is `none`, or there is no signature.
    #[error("the JWT is unsigned, which no server takes")]
    Unsigned,
    /// No `exp`, or one that is not a time.
    #[error("the JWT has no usable `exp` claim")]
    NoExpiry,
    /// Already over when it came.
    #[error("the JWT expired at {at}")]
    Expired { at: Timestamp },
}

/// One of the three parts of a JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Header,
    Claims,
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims part",
            Self::Signature => "signature",
        })
    }
}

/// Which of several lines look like JWTs, in words.
fn which(count: usize, jwts: &[usize]) -> String {
    match jwts {
        [] => ", none of which looks like a JWT".to_owned(),
        [only] if *only == count => ", the last looks like a JWT".to_owned(),
        [1] => ", the first looks like a JWT".to_owned(),
        [only] => format!(", line {only} looks like a JWT"),
        several => format!(", {} of which look like JWTs", several.len()),
    }
}
