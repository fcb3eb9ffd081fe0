//! `client-credentials`: a JWT from the organization's own identity provider for a machine, by the OAuth 2.0
//! client-credentials grant (RFC 6749, section 4.4), for external service accounts of W&B.
//!
//! The issuer's discovery document names the token endpoint. The client proves itself with a secret or with a
//! JWT signed by its private key (RFC 7523, section 2.2). Providers differ in which token is the JWT: the
//! access token is used if it is one, else the ID token; if there is neither, the error says so.
//!
//! What Okta, Entra ID, Cognito, Auth0 and Keycloak need, and what W&B then sees, is in `docs/platforms.md`.
//!
//! ```toml
//! [profile.batch]
//! audience = "acme"
//! [profile.batch.provider.client-credentials]
//! issuer = "https://acme.okta.com/oauth2/default"
//! client-id = "0oa1b2c3"
//! client-secret-file = "/etc/wandb-cred/okta-secret"     # mode 0600
//! scopes = ["wandb"]
//! ```
//!
//! The exchange is one form POST written here: the `oauth2` crate has no private-key assertion, returns
//! secrets in strings that are not zeroed, and would need our HTTP rules wrapped around it, to save 20 lines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::Algorithm;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

pub use self::proof::Auth;
use self::proof::{Client, Proof};
use crate::duration::HumanDuration;
use crate::error::{Error, Kind, Reason};
use crate::foreign_text;
use crate::http::{Answer, Destination};
use crate::json::{Fault, Object};
use crate::oidc::metadata::Document;
use crate::provider::answer;
use crate::provider::settings::{require_absolute, setting_url};
use crate::provider::source::{Context, Provider};
use crate::token::{self, IdentityToken};

mod proof;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Exactly as the provider's discovery document spells it.
    pub issuer: String,
    pub client_id: String,
    /// A file with the client's secret, readable by its owner only.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// A variable of the daemon with the client's secret.
    #[serde(default)]
    pub client_secret_env: Option<String>,
    /// A PEM file with the client's private key, readable by its owner only, instead of a secret.
    #[serde(default)]
    pub private_key_file: Option<PathBuf>,
    /// The key's id at the provider (`kid`).
    #[serde(default)]
    pub key_id: Option<String>,
    /// The key's algorithm; RS256 by default.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// How the secret is sent; by default as the discovery document offers.
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Sent as `audience` (Auth0).
    #[serde(default)]
    pub audience: Option<String>,
    /// Sent as `resource` (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// Other form fields that the provider wants.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Which token of the answer is the JWT for W&B.
    #[serde(default, rename = "use")]
    pub wanted: Option<Wanted>,
    /// For each of the two requests; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    AccessToken,
    IdToken,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `parameters` may hold secrets.
        f.debug_struct("Config")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Config {
    pub fn build(self, cx: Context) -> Result<ClientCredentials, Error> {
        let wrong =
            |key: &str, what: &str| Error::setting(key, format!("provider client-credentials: {what}"));
        for (key, path) in
            [("client-secret-file", &self.client_secret_file), ("private-key-file", &self.private_key_file)]
        {
            path.as_deref().map_or(Ok(()), |path| require_absolute("client-credentials", key, path))?;
        }
        let proof = match (&self.client_secret_file, &self.client_secret_env, &self.private_key_file) {
            (Some(path), None, None) => Proof::SecretFile(path.clone()),
            (None, Some(name), None) => Proof::SecretEnv(name.clone()),
            (None, None, Some(path)) => Proof::Key(path.clone()),
            _ => {
                let what = "give exactly one of client-secret-file, client-secret-env and private-key-file";
                return Err(wrong("client-secret-file", what));
            }
        };
        if !matches!(proof, Proof::Key(_)) && (self.key_id.is_some() || self.algorithm.is_some()) {
            let key = if self.key_id.is_some() { "key-id" } else { "algorithm" };
            return Err(wrong(key, "key-id and algorithm go with private-key-file"));
        }
        if matches!(self.algorithm, Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)) {
            let what = "algorithm must be one for private keys, such as RS256 or ES256";
            return Err(wrong("algorithm", what));
        }
        if let Some(key) = self.parameters.keys().find(|key| RESERVED.contains(&key.as_str())) {
            let what = format!("{key} does not belong in `parameters`; it has a key of its own");
            return Err(wrong("parameters", &what));
        }
        let issuer = setting_url("issuer", &self.issuer, Destination::Network)
            .map_err(|error| error.context("provider client-credentials"))?;
        let host = issuer.host_str().unwrap_or_default().to_owned();
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(ClientCredentials { config: self, proof, host, timeout, cx })
    }
}

pub struct ClientCredentials {
    config: Config,
    proof: Proof,
    host: String,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for ClientCredentials {
    fn name(&self) -> &'static str {
        "client-credentials"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let server = self.discover().await?;
        let endpoint = server.required_url("token_endpoint").map_err(|fault| {
            answer::refused(&self.who("discovery document"), &fault).kind(Kind::Misconfigured)
        })?;
        let mut form: Vec<(&str, Zeroizing<String>)> = vec![("grant_type", field("client_credentials"))];
        let Config { client_id, scopes, audience, resource, parameters, .. } = &self.config;
        let client = Client {
            id: client_id,
            auth: self
                .config
                .auth
                .unwrap_or_else(|| Auth::offered(&server.auth_methods().unwrap_or_default())),
            algorithm: self.config.algorithm.unwrap_or(Algorithm::RS256),
            key_id: self.config.key_id.as_deref(),
            endpoint: &endpoint,
        };
        let header = client.prove(&self.proof, &self.cx, &mut form).await?;
        if header.is_none() {
            form.push(("client_id", field(client_id)));
        }
        if !scopes.is_empty() {
            form.push(("scope", field(&scopes.join(" "))));
        }
        form.extend(audience.iter().map(|value| ("audience", field(value))));
        form.extend(resource.iter().map(|value| ("resource", field(value))));
        form.extend(parameters.iter().map(|(key, value)| (key.as_str(), field(value))));
        let form: Vec<(&str, &str)> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();

        let http = &self.cx.http;
        let mut request = http
            .request(Destination::Network, Method::POST, endpoint.clone())
            .header(ACCEPT, "application/json")
            .form(&form);
        if let Some(header) = &header {
            request = request.header(AUTHORIZATION, header.as_str());
        }
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        let who = self.who("token endpoint");
        if answer.status != 200 {
            return Err(refused(&who, &answer));
        }
        let tokens = Tokens::read(&answer::object(&who, &answer)?)
            .map_err(|fault| answer::refused(&format!("the answer of {who}"), &fault))?;
        let (jwt, which) = self.choose(&tokens)?;
        let source = format!("{which} of {}", self.host);
        let fix = "set the audience of the API, authorization server or client at the provider";
        self.cx.identity(jwt, &source, fix)
    }
}

impl ClientCredentials {
    /// OpenID Connect Discovery 1.0: the document must name exactly this issuer.
    async fn discover(&self) -> Result<Document, Error> {
        let issuer = &self.config.issuer;
        let url = Url::parse(&Document::address(issuer))
            .map_err(|_| Error::setting("issuer", "issuer is not a URL that a path can be added to"))?;
        let http = &self.cx.http;
        let request = http.request(Destination::Network, Method::GET, url).header(ACCEPT, "application/json");
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        let who = self.who("discovery document");
        if answer.status != 200 {
            return Err(answer::refusal(&who, &answer, None));
        }
        let server = Document::parse(&answer.body).map_err(|fault| answer::refused(&who, &fault))?;
        let theirs = server.issuer().map_err(|fault| answer::refused(&who, &fault))?;
        if theirs != *issuer {
            let theirs = foreign_text::name(&theirs);
            let message = format!(
                "{who} is for the issuer {theirs:?}, not {issuer:?}; set `issuer` to what it says if that is yours"
            );
            return Err(Error::setting("issuer", message));
        }
        Ok(server)
    }

    fn choose<'t>(&self, tokens: &'t Tokens) -> Result<(&'t str, &'static str), Error> {
        let access = tokens.access_token.as_ref().map(|token| (token.as_str(), "the access token"));
        let id = tokens.id_token.as_ref().map(|token| (token.as_str(), "the ID token"));
        let found = match self.config.wanted {
            Some(Wanted::AccessToken) => access,
            Some(Wanted::IdToken) => id,
            None => access.filter(|(token, _)| token::text::is_jwt(token)).or(id),
        };
        found.ok_or_else(|| {
            let host = &self.host;
            let message = match self.config.wanted {
                Some(Wanted::IdToken) => format!(
                    "{host} gave no ID token; most providers give none for client credentials: remove `use`"
                ),
                Some(Wanted::AccessToken) => format!("{host} gave no access token"),
                None => format!(
                    "{host} gave an access token that is not a JWT, and no ID token; have it issue JWT access \
                     tokens (an `audience`, a `resource` or a custom scope often does that)"
                ),
            };
            let reason = match self.config.wanted {
                Some(Wanted::AccessToken) => {
                    Reason::UnreadableAnswer { host: host.clone(), field: Some("access_token".to_owned()) }
                }
                _ => Reason::NoIdToken,
            };
            Error::misconfigured(message).because(reason)
        })
    }

    fn who(&self, what: &str) -> String {
        format!("the {what} of {}", self.host)
    }
}

struct Tokens {
    access_token: Option<Zeroizing<String>>,
    id_token: Option<Zeroizing<String>>,
}

impl Tokens {
    fn read(fields: &Object) -> Result<Self, Fault> {
        let token = |name| Ok(fields.text(name)?.map(|token| Zeroizing::new(token.into_owned())));
        Ok(Self { access_token: token("access_token")?, id_token: token("id_token")? })
    }
}

/// RFC 6749, section 5.2.
fn refused(who: &str, answer: &Answer) -> Error {
    let Ok(body) = Object::parse(&answer.body) else { return answer::refusal(who, answer, None) };
    let Ok(Some(code)) = body.text("error") else { return answer::refusal(who, answer, None) };
    let description = body.text("error_description").ok().flatten();
    let said = format!("{code}: {}", description.as_deref().unwrap_or("no reason given"));
    let error = answer::refusal(who, answer, Some(&said));
    match &*code {
        _ if error.is_transient() => error,
        "temporarily_unavailable" | "server_error" | "slow_down" => {
            error.kind(Kind::Transient).retry_after(answer.retry_after)
        }
        "invalid_client" | "invalid_grant" | "access_denied" => error
            .kind(Kind::Rejected)
            .hint("check client-id and the secret or key at the provider, where it may have been rotated"),
        _ => error.kind(Kind::Misconfigured),
    }
}

fn field(value: &str) -> Zeroizing<String> {
    Zeroizing::new(value.to_owned())
}

/// Form fields that have a key of their own, or are ours to set.
const RESERVED: [&str; 7] =
    ["grant_type", "client_id", "client_secret", "client_assertion", "scope", "audience", "resource"];
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::{context, jwt};

    fn config(text: &str) -> Config {
        let all = format!("issuer = \"https://idp.example/x\"\nclient-id = \"c\"\n{text}");
        toml::from_str(&all).expect("valid TOML")
    }

    fn build(text: &str) -> Result<ClientCredentials, Error> {
        config(text).build(context(&[("SECRET", "s/p:a")]))
    }

    #[test]
    fn exactly_one_proof_is_wanted() {
        assert!(build("client-secret-env = \"SECRET\"").is_ok());
        for bad in [
            "",
            "client-secret-env = \"A\"\nprivate-key-file = \"/k\"",
            "client-secret-file = \"relative\"",
            "client-secret-env = \"A\"\nkey-id = \"k\"",
            "private-key-file = \"/k\"\nalgorithm = \"HS256\"",
            "client-secret-env = \"A\"\nparameters = { client_secret = \"x\" }",
        ] {
            assert!(matches!(build(bad), Err(Error { kind: Kind::Misconfigured, .. })), "{bad}");
        }
    }

    #[test]
    fn the_access_token_is_used_if_it_is_a_jwt_else_the_id_token() {
        let tokens = |access: &str, id: Option<&str>| Tokens {
            access_token: Some(field(access)),
            id_token: id.map(field),
        };
        let provider = build("client-secret-env = \"SECRET\"").expect("built");
        let jwt = jwt(60, "");
        let which = |tokens: &Tokens| provider.choose(tokens).map(|(_, which)| which);
        assert_eq!(which(&tokens(&jwt, Some("i.d.t"))).expect("a JWT"), "the access token");
        assert_eq!(which(&tokens("opaque", Some("i.d.t"))).expect("a JWT"), "the ID token");
        assert!(matches!(which(&tokens("opaque", None)), Err(Error { kind: Kind::Misconfigured, .. })));
        let provider = build("client-secret-env = \"SECRET\"\nuse = \"id-token\"").expect("built");
        assert!(matches!(provider.choose(&tokens(&jwt, None)), Err(Error { kind: Kind::Misconfigured, .. })));
    }

    #[test]
    fn debug_shows_no_parameter() {
        let config = config("client-secret-env = \"A\"\nparameters = { token = \"planted\" }");
        assert!(!format!("{config:?}").contains("planted"));
    }
}
