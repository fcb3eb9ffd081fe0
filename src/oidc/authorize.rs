//! The authorization request: the URL that the browser opens, and what has to come back for it.

use openidconnect::core::{CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreJsonWebKeySet};
use openidconnect::{
    AuthUrl, AuthenticationFlow, ClientId, CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope,
};
use serde::Deserialize;
use url::Url;

use super::{Error, RelyingParty};

/// `flow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// Authorization code with PKCE.
    #[default]
    Code,
    /// The ID token comes with the browser (`response_type=id_token`, `response_mode=form_post`), for clients
    /// of which the organization allows nothing else. There is no refresh token.
    Implicit,
}

/// A sign-in that was begun: keep it, and compare.
pub struct Authorization {
    pub url: Url,
    pub state: CsrfToken,
    pub nonce: Nonce,
    /// Absent in the implicit flow, which has no code to protect.
    pub verifier: Option<PkceCodeVerifier>,
    pub redirect: RedirectUrl,
    /// The issuer that must name itself in the answer, and whether it must do so at all (RFC 9207).
    pub issuer: String,
    pub issuer_required: bool,
}

impl RelyingParty {
    pub async fn authorize(&self, redirect: RedirectUrl) -> Result<Authorization, Error> {
        let metadata = self.check().await?;
        let settings = &self.settings;
        let endpoint = AuthUrl::from_url(metadata.endpoint("authorization_endpoint")?);
        // Only a request is made with it: no answer is read, so it needs no keys.
        let keys = CoreJsonWebKeySet::new(Vec::new());
        let client =
            CoreClient::new(ClientId::new(settings.client_id.clone()), settings.issuer.clone(), keys)
                .set_auth_uri(endpoint)
                .set_redirect_uri(redirect.clone());
        let flow = match settings.flow {
            Flow::Code => CoreAuthenticationFlow::AuthorizationCode,
            Flow::Implicit => AuthenticationFlow::Implicit(false),
        };
        let mut request = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(settings.scopes.iter().filter(|s| *s != "openid").cloned().map(Scope::new));
        let mut verifier = None;
        match settings.flow {
            Flow::Code => {
                let (challenge, secret) = PkceCodeChallenge::new_random_sha256();
                request = request.set_pkce_challenge(challenge);
                verifier = Some(secret);
            }
            Flow::Implicit => request = request.add_extra_param("response_mode", "form_post"),
        }
        // OpenID Connect Core, section 11: without consent the request for offline access is ignored. Some
        // providers answer the prompt with an error instead, see the presets.
        let offline = settings.scopes.iter().any(|scope| scope == "offline_access");
        if settings.preset.quirks().prompt_consent || (offline && settings.preset.quirks().strict_offline) {
            request = request.add_prompt(CoreAuthPrompt::Consent);
        }
        for (name, value) in settings.preset.quirks().authorize_params {
            request = request.add_extra_param(*name, *value);
        }
        for (name, value) in &settings.authorize_params {
            request = request.add_extra_param(name, value);
        }
        let (url, state, nonce) = request.url();
        Ok(Authorization {
            url,
            state,
            nonce,
            verifier,
            redirect,
            issuer: settings.issuer.as_str().to_owned(),
            // An ID token in the answer names its issuer itself (RFC 9207, section 2.4).
            issuer_required: settings.flow == Flow::Code && metadata.names_itself(),
        })
    }
}

/// Parameters that `authorize-params` must not set: they are this program's to choose.
pub(crate) const RESERVED: [&str; 11] = [
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "response_mode",
    "response_type",
    "scope",
    "state",
];
