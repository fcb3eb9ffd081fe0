//! Why a request to the identity provider failed, by what to do next.

use super::RelyingParty;
use crate::error::{Error, Kind, Reason, Stage};
use crate::redact::redact;

/// A request that failed for a reason of the sign-in's. What the provider wrote goes through `redact` first.
pub(super) fn error(kind: Kind, reason: Reason, message: impl Into<String>) -> Error {
    Error::new(Stage::SignIn, kind, reason, message)
}

pub(crate) fn misconfigured(message: impl Into<String>) -> Error {
    error(Kind::Misconfigured, Reason::Other, message)
}

pub(crate) fn transient(message: impl Into<String>) -> Error {
    error(Kind::Transient, Reason::Other, message)
}

/// The ID token is forged, for somebody else, or expired.
pub(crate) fn untrusted(message: impl Into<String>) -> Error {
    error(Kind::Rejected, Reason::UntrustedToken, message)
}

/// The person said no, or let the time pass.
pub(crate) fn declined(message: impl Into<String>) -> Error {
    error(Kind::NeedsLogin, Reason::Declined, message)
}

/// An answer that lacks what is needed, or has it in a form that says nothing.
pub(super) fn unreadable(kind: Kind, host: &str, field: Option<&str>, message: String) -> Error {
    let field = field.map(str::to_owned);
    error(kind, Reason::UnreadableAnswer { host: host.to_owned(), field }, message)
}

/// Why a request for tokens was not granted.
pub(super) enum Refusal {
    /// OAuth's code and description.
    Answered(String, Option<String>),
    /// There was no answer, or none of OAuth's.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl RelyingParty {
    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Answered(code, description) => self.answered(&code, description.as_deref()),
            Refusal::Failed(error) => error,
        }
    }

    /// An error that came with the browser (`error` and `error_description`).
    pub fn answered(&self, code: &str, description: Option<&str>) -> Error {
        self.by_code(code, self.said(code, description))
    }

    fn by_code(&self, code: &str, said: String) -> Error {
        match code {
            "invalid_grant"
            | "login_required"
            | "interaction_required"
            | "consent_required"
            | "account_selection_required" => {
                error(Kind::NeedsLogin, Reason::SessionRefused { error: redact(code, 60) }, said)
            }
            "access_denied" => declined(said),
            "temporarily_unavailable" | "server_error" => transient(said),
            _ => misconfigured(match self.settings.preset.hint(code) {
                Some(hint) => format!("{said}; {hint}"),
                None => said,
            }),
        }
    }

    fn said(&self, code: &str, description: Option<&str>) -> String {
        let issuer = self.settings.issuer.as_str();
        match description {
            Some(text) => format!("{issuer} answers {}: {}", redact(code, 60), redact(text, 300)),
            None => format!("{issuer} answers {}", redact(code, 60)),
        }
    }
}
