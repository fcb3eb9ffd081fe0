//! AWS credentials, wherever they come from.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Now;
use crate::error::{Error, Reason};
use crate::token::Secret;

#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: Secret<String>,
    pub(super) session: Option<Secret<String>>,
    pub(super) expires: Option<Timestamp>,
    /// Where they come from, for people.
    pub(super) source: &'static str,
    /// Whether the source gives others when it is asked again.
    pub(super) renewable: bool,
}

impl Credentials {
    /// `None` if they do not end, or do not say when.
    pub(super) fn remaining(&self, now: Now) -> Option<Duration> {
        Some(Duration::try_from(self.expires?.duration_since(now.wall)).unwrap_or_default())
    }
}

/// The expiry of credentials that come from `source`.
pub(super) fn timestamp(text: &str, source: &str) -> Result<Timestamp, Error> {
    text.parse().map_err(|_| {
        let reason =
            Reason::UnreadableAnswer { host: source.to_owned(), field: Some("Expiration".to_owned()) };
        Error::rejected(format!("the AWS credentials {source} have an expiry that is not a time"))
            .because(reason)
    })
}
