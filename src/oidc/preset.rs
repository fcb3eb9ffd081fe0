//! What each provider does in its own way. `docs/sign-in.md` has the console steps.

use serde::Deserialize;

use super::Settings;

/// `preset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// A provider that follows the specifications.
    #[default]
    Generic,
    Okta,
    Entra,
    Cognito,
    Auth0,
    Keycloak,
    Google,
}

/// Where a provider departs from the specifications, or from the others.
#[derive(Debug)]
pub struct Quirks {
    /// Scopes that make it give a refresh token and an e-mail address.
    pub scopes: &'static [&'static str],
    /// The host of the redirect URI: some take only one of the two.
    pub redirect_host: &'static str,
    /// Send `prompt=consent` always.
    pub prompt_consent: bool,
    /// Send `prompt=consent` with `offline_access`, as the specification asks.
    pub strict_offline: bool,
    pub authorize_params: &'static [(&'static str, &'static str)],
    /// Whether a refresh must repeat the scopes to get an ID token.
    pub scope_on_refresh: bool,
}

impl Preset {
    /// The provider that issuers of this form belong to.
    pub fn of_issuer(issuer: &str) -> Self {
        let host = issuer.split('/').nth(2).unwrap_or_default();
        let under = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
        match () {
            () if under("okta.com") || under("oktapreview.com") => Self::Okta,
            () if under("login.microsoftonline.com") => Self::Entra,
            () if host.starts_with("cognito-idp.") && under("amazonaws.com") => Self::Cognito,
            () if under("auth0.com") => Self::Auth0,
            () if under("accounts.google.com") => Self::Google,
            () if issuer.contains("/realms/") => Self::Keycloak,
            () => Self::Generic,
        }
    }

    pub fn quirks(self) -> &'static Quirks {
        match self {
            Self::Generic => &GENERIC,
            Self::Okta | Self::Auth0 => &NO_PROMPT,
            Self::Keycloak => &KEYCLOAK,
            Self::Entra => &ENTRA,
            Self::Cognito => &COGNITO,
            Self::Google => &GOOGLE,
        }
    }

    /// What is wrong with this spelling of the issuer, if it is a spelling known to fail.
    pub fn check_issuer(self, issuer: &str) -> Option<String> {
        let host = issuer.split('/').nth(2).unwrap_or_default();
        match self {
            Self::Entra if ["common", "organizations", "consumers"].iter().any(|any| issuer.contains(any)) => Some(
                "Entra ID's issuer must name your tenant: https://login.microsoftonline.com/TENANT-ID/v2.0".to_owned(),
            ),
            Self::Entra if !issuer.trim_end_matches('/').ends_with("/v2.0") => Some(
                "Entra ID's issuer ends with /v2.0: https://login.microsoftonline.com/TENANT-ID/v2.0".to_owned(),
            ),
            Self::Okta if host.contains("-admin.") => {
                Some(format!("this is Okta's admin console; the issuer is https://{}", host.replacen("-admin.", ".", 1)))
            }
            Self::Auth0 if !issuer.ends_with('/') => {
                Some(format!("Auth0's issuer ends with a slash: {issuer}/"))
            }
            Self::Cognito if !host.starts_with("cognito-idp.") => Some(
                "Cognito's issuer is that of the user pool, not of its sign-in domain: https://cognito-idp.REGION.amazonaws.com/POOL-ID".to_owned(),
            ),
            Self::Google if issuer != "https://accounts.google.com" => {
                Some("Google's issuer is https://accounts.google.com".to_owned())
            }
            _ => None,
        }
    }

    /// What to look at when the provider answers with this error code.
    pub(super) fn hint(self, code: &str) -> Option<&'static str> {
        match (self, code) {
            (Self::Google, "invalid_client" | "invalid_request") => {
                Some("Google's desktop clients have a client secret too: set `client-secret-file`")
            }
            (Self::Entra, "invalid_client") => Some(
                "in the app registration, allow public client flows, and register the redirect URI under \"Mobile and desktop applications\"",
            ),
            (_, "invalid_client") => {
                Some("check `client-id`, and whether this client needs a `client-secret-file`")
            }
            (_, "unauthorized_client") => {
                Some("the client must be allowed the authorization code, refresh token or device grant")
            }
            (_, "invalid_scope") => Some("check `scopes` against what the client is allowed"),
            (_, "unsupported_response_type") => {
                Some("set `flow` to what the client is allowed: \"code\" or \"implicit\"")
            }
            _ => None,
        }
    }

    /// Why an answer may have no ID token, in words that lead on.
    pub(super) fn no_id_token(self, settings: &Settings) -> String {
        let issuer = settings.issuer.as_str();
        let why = match self {
            _ if !settings.scopes.iter().any(|scope| scope == "openid") => {
                "`scopes` lacks \"openid\"".to_owned()
            }
            Self::Generic => "this provider does not issue one again on refresh, so sign in again when it has expired, or ask its administrator to change that".to_owned(),
            Self::Okta => "use the issuer of the org or of a custom authorization server whose access policy grants \"openid\" to this client".to_owned(),
            Self::Entra => "the refresh must ask for \"openid\"; check `scopes`".to_owned(),
            Self::Keycloak => "the client lacks the client scope \"openid\" or \"basic\"".to_owned(),
            Self::Cognito | Self::Auth0 | Self::Google => "the client must be allowed the scope \"openid\"".to_owned(),
        };
        format!("{issuer} answered without an ID token: {why}")
    }
}

const GENERIC: Quirks = Quirks {
    scopes: &["openid", "email", "offline_access"],
    redirect_host: "127.0.0.1",
    prompt_consent: false,
    strict_offline: true,
    authorize_params: &[],
    scope_on_refresh: false,
};

/// Okta refuses `prompt=consent` where no consent is configured; Auth0 needs none.
const NO_PROMPT: Quirks = Quirks { strict_offline: false, ..GENERIC };

/// Keycloak gives a refresh token without asking for offline access, which would be a session that outlives
/// the user's and that realms often forbid.
const KEYCLOAK: Quirks = Quirks { scopes: &["openid", "email"], strict_offline: false, ..GENERIC };

/// Entra ID takes any port with `localhost` but shows no 127.0.0.1 in its console, and turns
/// `prompt=consent` into a request for an administrator.
const ENTRA: Quirks = Quirks {
    scopes: &["openid", "email", "profile", "offline_access"],
    redirect_host: "localhost",
    strict_offline: false,
    scope_on_refresh: true,
    ..GENERIC
};

/// Cognito knows no `offline_access`, and takes plain http for `localhost` only.
const COGNITO: Quirks =
    Quirks { scopes: &["openid", "email"], redirect_host: "localhost", strict_offline: false, ..GENERIC };

/// Google has a parameter instead of the scope, and gives a refresh token only with consent.
const GOOGLE: Quirks = Quirks {
    scopes: &["openid", "email"],
    prompt_consent: true,
    strict_offline: false,
    authorize_params: &[("access_type", "offline")],
    ..GENERIC
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_that_cannot_work_are_recognised() {
        for (preset, good) in [
            (Preset::Entra, "https://login.microsoftonline.com/9188040d-6c67/v2.0"),
            (Preset::Okta, "https://acme.okta.com"),
            (Preset::Auth0, "https://acme.eu.auth0.com/"),
            (Preset::Cognito, "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc"),
            (Preset::Google, "https://accounts.google.com"),
            (Preset::Keycloak, "https://sso.example.com/realms/acme"),
        ] {
            assert_eq!(preset.check_issuer(good), None, "{good}");
            assert_eq!(Preset::of_issuer(good), preset, "{good}");
        }
        for (preset, bad, said) in [
            (Preset::Entra, "https://login.microsoftonline.com/common/v2.0", "TENANT-ID"),
            (Preset::Entra, "https://login.microsoftonline.com/9188040d-6c67", "/v2.0"),
            (Preset::Okta, "https://acme-admin.okta.com", "https://acme.okta.com"),
            (Preset::Auth0, "https://acme.eu.auth0.com", "https://acme.eu.auth0.com/"),
            (Preset::Cognito, "https://acme.auth.eu-west-1.amazoncognito.com", "cognito-idp"),
            (Preset::Google, "https://accounts.google.com/", "https://accounts.google.com"),
        ] {
            assert!(preset.check_issuer(bad).is_some_and(|text| text.contains(said)), "{bad}");
        }
    }
}
