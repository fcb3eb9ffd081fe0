//! `oidc`: a person who has signed in with the organization's identity provider.
//!
//! It refreshes with the session's refresh token. `login` does the signing in: this provider only says that it is
//! needed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use openidconnect::IssuerUrl;
use serde::{Deserialize, Deserializer};

use crate::error::Error;
use crate::http::Destination;
use crate::oidc::session::Session;
use crate::oidc::{Flow, Preset, RelyingParty, SecretSource, Settings};
use crate::provider::settings::{require_absolute, setting_url};
use crate::provider::source::{Context, Provider};
use crate::secrets::{self, Store};
use crate::token::{IdentityToken, Secret};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Exactly as the provider spells it.
    pub issuer: String,
    pub client_id: String,
    /// In clear: the configuration file must be one that nobody else can read.
    #[serde(default, deserialize_with = "secret")]
    pub client_secret: Option<Secret<String>>,
    /// A file that holds the client secret and nothing else.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Instead of the preset's.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// By default, recognised by the issuer.
    #[serde(default)]
    pub preset: Option<Preset>,
    #[serde(default)]
    pub token_store: secrets::Kind,
    #[serde(default)]
    pub flow: Flow,
    /// Where the browser comes back to; 0 lets the system choose a free port.
    #[serde(default)]
    pub redirect_port: u16,
    /// Instead of the preset's: `127.0.0.1` or `localhost`.
    #[serde(default)]
    pub redirect_host: Option<RedirectHost>,
    /// More parameters of the authorization request, such as `login_hint`.
    #[serde(default)]
    pub authorize_params: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RedirectHost {
    #[serde(rename = "127.0.0.1")]
    Address,
    #[serde(rename = "localhost")]
    Localhost,
}

impl Config {
    /// The secret that the configuration file itself holds.
    pub fn secret(&self) -> Option<&Secret<String>> {
        self.client_secret.as_ref()
    }

    pub fn build(self, cx: Context) -> Result<Oidc, Error> {
        let wrong = |key: &str, what: &str| Error::setting(key, format!("provider oidc: {what}"));
        setting_url("issuer", &self.issuer, Destination::Network)
            .map_err(|error| error.context("provider oidc"))?;
        let issuer =
            IssuerUrl::new(self.issuer.clone()).map_err(|_| wrong("issuer", "issuer is not a URL"))?;
        let preset = self.preset.unwrap_or_else(|| Preset::of_issuer(&self.issuer));
        if let Some(advice) = preset.check_issuer(&self.issuer) {
            return Err(wrong("issuer", &advice));
        }
        if self.client_id.is_empty() {
            return Err(wrong("client-id", "client-id is empty"));
        }
        let quirks = preset.quirks();
        let scopes =
            self.scopes.unwrap_or_else(|| quirks.scopes.iter().map(|&scope| scope.to_owned()).collect());
        if !scopes.iter().any(|scope| scope == "openid") {
            return Err(wrong("scopes", "scopes must include \"openid\"; without it there is no ID token"));
        }
        if let Some(name) =
            self.authorize_params.keys().find(|name| crate::oidc::RESERVED.contains(&name.as_str()))
        {
            let what = format!("authorize-params must not set {name}, which is chosen for each sign-in");
            return Err(wrong("authorize-params", &what));
        }
        let client_secret = match (self.client_secret, self.client_secret_file) {
            (Some(_), Some(_)) => {
                return Err(wrong("client-secret", "set client-secret or client-secret-file, not both"));
            }
            (Some(secret), None) => Some(SecretSource::Value(secret)),
            (None, Some(path)) => {
                require_absolute("oidc", "client-secret-file", &path)?;
                Some(SecretSource::File(path))
            }
            (None, None) => None,
        };
        let redirect_host = match self.redirect_host {
            Some(RedirectHost::Address) => "127.0.0.1",
            Some(RedirectHost::Localhost) => "localhost",
            None => quirks.redirect_host,
        };
        let store = Store::new(self.token_store, &cx.env)
            .map_err(|error| wrong("token-store", &error.to_string()))?;
        let settings = Settings {
            profile: cx.profile.clone(),
            issuer,
            client_id: self.client_id,
            client_secret,
            scopes,
            preset,
            audience: cx.audience.clone(),
            flow: self.flow,
            redirect_host,
            redirect_port: self.redirect_port,
            authorize_params: self.authorize_params,
        };
        let party = RelyingParty::new(settings, cx.http.clone(), cx.clock.clone());
        Ok(Oidc { session: Arc::new(Session::new(party, store, cx.clock)) })
    }
}

pub struct Oidc {
    session: Arc<Session>,
}

#[async_trait]
impl Provider for Oidc {
    fn name(&self) -> &'static str {
        "oidc"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        self.session.identity().await
    }

    fn session(&self) -> Option<Arc<Session>> {
        Some(self.session.clone())
    }
}

fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Secret<String>>, D::Error> {
    Option::<String>::deserialize(input).map(|value| value.map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::env::Env;
    use crate::http::Http;

    fn build(text: &str) -> Result<Oidc, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        let clock = Clock::system();
        let env = Env::fixed([("HOME", "/nonexistent")]);
        let cx = Context {
            profile: "work".into(),
            audience: None,
            base_url: None,
            env,
            http: Http::new(clock.clone()),
            clock,
        };
        config.build(cx).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_configuration_is_enough() {
        let oidc = build("issuer = \"https://idp.example\"\nclient-id = \"cli\"").expect("good");
        assert_eq!(oidc.session.party.settings.scopes, ["openid", "email", "offline_access"]);
    }

    #[test]
    fn mistakes_are_reported_before_anything_is_sent() {
        for (text, said) in [
            ("issuer = \"http://idp.example\"\nclient-id = \"cli\"", "https"),
            ("issuer = \"idp\"\nclient-id = \"cli\"", "not a URL"),
            ("issuer = \"https://idp.example\"\nclient-id = \"\"", "client-id"),
            ("issuer = \"https://i.example\"\nclient-id = \"c\"\nscopes = [\"email\"]", "openid"),
            ("issuer = \"https://i.example\"\nclient-id = \"c\"\nclient-secret-file = \"x\"", "absolute"),
            (
                "issuer = \"https://i.example\"\nclient-id = \"c\"\nauthorize-params = { state = \"x\" }",
                "state",
            ),
            ("issuer = \"https://i.example\"\nclient-id = \"c\"\ntoken-store = \"disk\"", "disk"),
            (
                "issuer = \"https://login.microsoftonline.com/common/v2.0\"\nclient-id = \"c\"\npreset = \"entra\"",
                "tenant",
            ),
        ] {
            let error = build(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_client_secret() {
        let text = "issuer = \"https://i.example\"\nclient-id = \"c\"\nclient-secret = \"hush-hush\"";
        let config: Config = toml::from_str(text).expect("valid");
        assert!(!format!("{config:?}").contains("hush"));
    }
}
