//! Why a request to the identity provider failed, by what to do next.

use openidconnect::core::CoreErrorResponseType;
use openidconnect::{
    DeviceCodeErrorResponse, DeviceCodeErrorResponseType, DiscoveryError, ErrorResponse, ErrorResponseType,
    RequestTokenError, StandardErrorResponse,
};

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

pub(super) fn discovery(issuer: &str, error: DiscoveryError<Error>) -> Error {
    match error {
        DiscoveryError::Request(error) => error.at(Stage::SignIn),
        DiscoveryError::Response(status, ..) => misconfigured(format!(
            "{issuer} is not an OpenID Connect issuer: its discovery document or key set answers HTTP {}, or not as JSON",
            status.as_u16()
        )),
        DiscoveryError::Validation(_) => misconfigured(format!(
            "the discovery document under {issuer} names another issuer; `issuer` must be spelled exactly as the provider spells it, slash at the end included"
        )),
        DiscoveryError::Parse(error) => {
            misconfigured(format!("the discovery document of {issuer} cannot be read at `{}`", error.path()))
        }
        _ => misconfigured(format!("`issuer` {issuer} is not a usable URL")),
    }
}

impl RelyingParty {
    /// An error answer of the token, device authorization or revocation endpoint.
    pub(super) fn refused<T>(&self, error: RequestTokenError<Error, StandardErrorResponse<T>>) -> Error
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

    pub(super) fn refused_device(&self, error: RequestTokenError<Error, DeviceCodeErrorResponse>) -> Error {
        match error {
            RequestTokenError::ServerResponse(response) => {
                let code: &str = response.error().as_ref();
                let said = self.said(code, response.error_description().map(String::as_str));
                match response.error() {
                    DeviceCodeErrorResponseType::AccessDenied => declined(said),
                    DeviceCodeErrorResponseType::ExpiredToken => declined(
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

    fn unreadable<T: ErrorResponse>(&self, error: RequestTokenError<Error, T>) -> Error {
        let issuer = self.settings.issuer.as_str();
        match error {
            RequestTokenError::Request(error) => error.at(Stage::SignIn),
            // The library's own words can hold pieces of the answer.
            RequestTokenError::Parse(error, _) => {
                let field = error.path().to_string();
                let message = format!("{issuer} gave an answer that cannot be read at `{field}`");
                self::error(
                    Kind::Transient,
                    Reason::UnreadableAnswer { host: issuer.to_owned(), field: Some(field) },
                    message,
                )
            }
            _ => transient(format!("{issuer} gave an answer that is none of OAuth's")),
        }
    }
}

/// The library's type for error codes, spelled out where its generics need one.
pub(super) type TokenError = StandardErrorResponse<CoreErrorResponseType>;
