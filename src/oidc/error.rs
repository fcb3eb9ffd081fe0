//! Why a request to the identity provider failed, by what to do next.

use std::time::Duration;

use openidconnect::core::CoreErrorResponseType;
use openidconnect::{
    DeviceCodeErrorResponse, DeviceCodeErrorResponseType, DiscoveryError, ErrorResponse, ErrorResponseType,
    RequestTokenError, StandardErrorResponse,
};

use super::{RelyingParty, wire};
use crate::provider;
use crate::redact::redact;

/// Messages hold no token: what the provider wrote goes through `redact`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Try again: the network, or a busy provider.
    #[error("{message}")]
    Transient { message: String, retry_after: Option<Duration> },
    /// The grant (code, refresh token, device code) is not accepted, or no longer: sign in again.
    #[error("{0}")]
    Refused(String),
    /// The person said no, or let the time pass.
    #[error("{0}")]
    Declined(String),
    /// The answer holds no ID token, and the next one will not either.
    #[error("{0}")]
    NoIdToken(String),
    /// The ID token is forged, for somebody else, or expired.
    #[error("{0}")]
    Untrusted(String),
    /// The client or the issuer is set up wrongly, here or there.
    #[error("{0}")]
    Misconfigured(String),
}

impl Error {
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: message.into(), retry_after: None }
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        let message = error.to_string();
        match error {
            wire::Error::Busy { retry_after, .. } => Self::Transient { message, retry_after },
            wire::Error::Http(error) if error.is_transient() => Self::transient(message),
            wire::Error::Http(_) => Self::Misconfigured(message),
        }
    }
}

impl From<Error> for provider::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Transient { message, retry_after } => Self::Transient { message, retry_after },
            Error::Refused(message) | Error::Declined(message) => Self::NeedsLogin { message },
            Error::Untrusted(message) => Self::Rejected { message },
            Error::NoIdToken(message) | Error::Misconfigured(message) => Self::Misconfigured { message },
        }
    }
}

pub(super) fn discovery(issuer: &str, error: DiscoveryError<wire::Error>) -> Error {
    match error {
        DiscoveryError::Request(error) => error.into(),
        DiscoveryError::Response(status, ..) => Error::Misconfigured(format!(
            "{issuer} is no OpenID Connect issuer: its discovery document or key set answers HTTP {}, or not as JSON",
            status.as_u16()
        )),
        DiscoveryError::Validation(_) => Error::Misconfigured(format!(
            "the discovery document under {issuer} names another issuer; `issuer` must be spelled exactly as the provider spells it, slash at the end included"
        )),
        DiscoveryError::Parse(error) => Error::Misconfigured(format!(
            "the discovery document of {issuer} cannot be read at `{}`",
            error.path()
        )),
        _ => Error::Misconfigured(format!("`issuer` {issuer} is no usable URL")),
    }
}

impl RelyingParty {
    /// An error answer of the token, device authorization or revocation endpoint.
    pub(super) fn refused<T>(&self, error: RequestTokenError<wire::Error, StandardErrorResponse<T>>) -> Error
    where
        T: ErrorResponseType + AsRef<str> + std::fmt::Display + 'static,
    {
        match error {
            RequestTokenError::ServerResponse(response) => {
                let code = response.error().as_ref().to_owned();
                let said = self.said(&code, response.error_description().map(String::as_str));
                self.by_code(&code, said)
            }
            other => self.unreadable(other),
        }
    }

    pub(super) fn refused_device(
        &self,
        error: RequestTokenError<wire::Error, DeviceCodeErrorResponse>,
    ) -> Error {
        match error {
            RequestTokenError::ServerResponse(response) => {
                let code: &str = response.error().as_ref();
                let said = self.said(code, response.error_description().map(String::as_str));
                match response.error() {
                    DeviceCodeErrorResponseType::AccessDenied => Error::Declined(said),
                    DeviceCodeErrorResponseType::ExpiredToken => Error::Declined(
                        "nobody entered the code before it expired; start the sign-in again".to_owned(),
                    ),
                    _ => self.by_code(code, said),
                }
            }
            other => self.unreadable(other),
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
            | "account_selection_required" => Error::Refused(said),
            "access_denied" => Error::Declined(said),
            "temporarily_unavailable" | "server_error" => Error::transient(said),
            _ => Error::Misconfigured(match self.settings.preset.hint(code) {
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

    fn unreadable<T: ErrorResponse>(&self, error: RequestTokenError<wire::Error, T>) -> Error {
        let issuer = self.settings.issuer.as_str();
        match error {
            RequestTokenError::Request(error) => error.into(),
            // The library's own words can hold pieces of the answer.
            RequestTokenError::Parse(error, _) => {
                Error::transient(format!("{issuer} gave an answer that cannot be read at `{}`", error.path()))
            }
            _ => Error::transient(format!("{issuer} gave an answer that is none of OAuth's")),
        }
    }
}

/// The library's type for error codes, spelled out where its generics need one.
pub(super) type TokenError = StandardErrorResponse<CoreErrorResponseType>;
