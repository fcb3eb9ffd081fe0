//! `client-credentials`: a JWT from the organization's own identity provider for a machine, by the OAuth 2.0
//! client-credentials grant (RFC 6749, section 4.4), for external service accounts of W&B.
//!
//! The issuer's discovery document names the token endpoint. The client proves itself with a secret or with a
//! JWT signed by its private key (RFC 7523, section 2.2). Which answer is the JWT differs between providers:
//! the access token where it is a JWT, else the ID token, else there is none and the error says so.
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
//! secrets in strings that are not zeroed, and would need our HTTP rules wrapped around it, for 20 lines saved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::config_types::Seconds;
use crate::error::{Error, Kind};
use crate::http::{Answer, Reach, check_url};
use crate::provider::local::file;
use crate::provider::{Context, Provider, answer};
use crate::token::IdentityToken;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// As the provider spells it in its discovery document, to the letter.
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
    /// The key's algorithm; RS256 unless said otherwise.
    #[serde(default)]
    pub algorithm: Option<Algorithm>,
    /// How the secret is sent; what the discovery document offers, unless said otherwise.
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
    /// Further form fields that the provider wants.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Which token of the answer is the JWT for W&B.
    #[serde(default, rename = "use")]
    pub wanted: Option<Wanted>,
    /// For each of the two requests; 15 s unless said otherwise.
    #[serde(default)]
    pub timeout: Option<Seconds>,
}

/// How a client sends its secret.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// In the `Authorization` header (`client_secret_basic`).
    Basic,
    /// In the form (`client_secret_post`).
    Post,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    AccessToken,
    IdToken,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `parameters` may hold what a provider thinks secret.
        f.debug_struct("Config")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Config {
    pub fn build(self, cx: Context) -> Result<ClientCredentials, Error> {
        let proof = match (&self.client_secret_file, &self.client_secret_env, &self.private_key_file) {
            (Some(path), None, None) => Proof::SecretFile(absolute(path)?),
            (None, Some(name), None) => Proof::SecretEnv(name.clone()),
            (None, None, Some(path)) => Proof::Key(absolute(path)?),
            _ => {
                return Err(Error::misconfigured(
                    "provider client-credentials: give exactly one of client-secret-file, client-secret-env and \
                     private-key-file",
                ));
            }
        };
        if !matches!(proof, Proof::Key(_)) && (self.key_id.is_some() || self.algorithm.is_some()) {
            return Err(Error::misconfigured(
                "provider client-credentials: key-id and algorithm go with private-key-file",
            ));
        }
        if matches!(self.algorithm, Some(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)) {
            return Err(Error::misconfigured(
                "provider client-credentials: algorithm must be one for private keys, such as RS256 or ES256",
            ));
        }
        let taken =
            ["grant_type", "client_id", "client_secret", "client_assertion", "scope", "audience", "resource"];
        if let Some(key) = self.parameters.keys().find(|key| taken.contains(&key.as_str())) {
            return Err(Error::misconfigured(format!(
                "provider client-credentials: {key} does not belong in `parameters`; it has a key of its own"
            )));
        }
        let issuer = Url::parse(&self.issuer)
            .map_err(|_| Error::misconfigured("provider client-credentials: issuer is not a URL"))?;
        check_url(&issuer, Reach::Network).map_err(|why| Error::misconfigured(format!("issuer: {why}")))?;
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

/// How the client proves itself. What it names is read for each call, so that a rotated secret is seen.
enum Proof {
    SecretFile(PathBuf),
    SecretEnv(String),
    Key(PathBuf),
}

#[async_trait]
impl Provider for ClientCredentials {
    fn name(&self) -> &'static str {
        "client-credentials"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let server = self.discover().await?;
        let endpoint = Url::parse(&server.token_endpoint)
            .map_err(|_| Error::misconfigured("the discovery document's token_endpoint is not a URL"))?;
        let mut form: Vec<(&str, Zeroizing<String>)> = vec![("grant_type", field("client_credentials"))];
        let Config { client_id, scopes, audience, resource, parameters, .. } = &self.config;
        let header = self.prove(&server, &endpoint, &mut form).await?;
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
            .request(Reach::Network, Method::POST, endpoint)
            .header(ACCEPT, "application/json")
            .form(&form);
        if let Some(header) = &header {
            request = request.header(AUTHORIZATION, header.as_str());
        }
        let answer = http.send(Reach::Network, request, self.timeout, MAX_ANSWER).await?;
        let who = self.who("token endpoint");
        if answer.status != 200 {
            return Err(refused(&who, &answer));
        }
        let tokens: Tokens = answer::json(&who, &answer)?;
        let (jwt, which) = self.choose(&tokens)?;
        let source = format!("{which} of {}", self.host);
        let fix = "set the audience of the API, authorization server or client at the provider";
        answer::identity(&self.cx, jwt, &source, fix)
    }
}

impl ClientCredentials {
    /// OpenID Connect Discovery 1.0: the document must be the issuer's own, to the letter.
    async fn discover(&self) -> Result<Server, Error> {
        let issuer = &self.config.issuer;
        let bare = issuer.trim_end_matches('/');
        let url = Url::parse(&format!("{bare}/.well-known/openid-configuration"))
            .map_err(|_| Error::misconfigured("issuer is not a URL that a path can be added to"))?;
        let http = &self.cx.http;
        let request = http.request(Reach::Network, Method::GET, url).header(ACCEPT, "application/json");
        let answer = http.send(Reach::Network, request, self.timeout, MAX_ANSWER).await?;
        let who = self.who("discovery document");
        if answer.status != 200 {
            return Err(answer::refusal(&who, &answer, None));
        }
        let server: Server = answer::json(&who, &answer)?;
        if server.issuer != *issuer {
            let theirs = crate::redact::redact(&server.issuer, 200);
            return Err(Error::misconfigured(format!(
                "{who} is for the issuer {theirs:?}, not {issuer:?}; set `issuer` to what it says if that is yours"
            )));
        }
        Ok(server)
    }

    /// Adds the client's proof to the form, or returns it as a header.
    async fn prove(
        &self,
        server: &Server,
        endpoint: &Url,
        form: &mut Vec<(&str, Zeroizing<String>)>,
    ) -> Result<Option<Zeroizing<String>>, Error> {
        let secret = match &self.proof {
            Proof::Key(path) => {
                let pem = private(path).await?;
                form.push(("client_assertion_type", field(ASSERTION_TYPE)));
                form.push(("client_assertion", self.assertion(&pem, path, endpoint)?));
                return Ok(None);
            }
            Proof::SecretFile(path) => private(path).await?,
            Proof::SecretEnv(name) => Zeroizing::new(self.cx.env.var(name).ok_or_else(|| {
                Error::misconfigured(format!("the variable {name} (client-secret-env) is not set"))
            })?),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        match self.config.auth.unwrap_or_else(|| server.auth()) {
            Auth::Post => {
                form.push(("client_secret", field(secret)));
                Ok(None)
            }
            Auth::Basic => {
                // RFC 6749, section 2.3.1: both halves are form-encoded first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = Zeroizing::new(format!("{}:{}", encoded(&self.config.client_id), encoded(secret)));
                Ok(Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))))
            }
        }
    }

    /// The client's own JWT (RFC 7523, section 3), good for one minute and one use.
    fn assertion(&self, pem: &str, path: &Path, endpoint: &Url) -> Result<Zeroizing<String>, Error> {
        let algorithm = self.config.algorithm.unwrap_or(Algorithm::RS256);
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        let unusable = |_| {
            let path = path.display();
            Error::misconfigured(format!(
                "{path} holds no private key for {algorithm:?}; set `algorithm` to the key's"
            ))
        };
        let key = key.map_err(unusable)?;
        let now = self.cx.clock.now().wall.as_second();
        let id: [u8; 16] = rand();
        let claims = serde_json::json!({
            "iss": self.config.client_id, "sub": self.config.client_id, "aud": endpoint.as_str(),
            "iat": now, "exp": now + ASSERTION_LIFE, "jti": URL_SAFE_NO_PAD.encode(id),
        });
        let header = Header { kid: self.config.key_id.clone(), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, &key).map(Zeroizing::new).map_err(unusable)
    }

    fn choose<'t>(&self, tokens: &'t Tokens) -> Result<(&'t str, &'static str), Error> {
        let access = tokens.access_token.as_ref().map(|token| (token.as_str(), "the access token"));
        let id = tokens.id_token.as_ref().map(|token| (token.as_str(), "the ID token"));
        let found = match self.config.wanted {
            Some(Wanted::AccessToken) => access,
            Some(Wanted::IdToken) => id,
            None => access.filter(|(token, _)| is_jwt(token)).or(id),
        };
        found.ok_or_else(|| {
            let host = &self.host;
            Error::misconfigured(match self.config.wanted {
                Some(Wanted::IdToken) => format!("{host} gave no ID token; most give none for client credentials: take `use` out"),
                Some(Wanted::AccessToken) => format!("{host} gave no access token"),
                None => format!(
                    "{host} gave an access token that is not a JWT, and no ID token; have it issue JWT access \
                     tokens (an `audience`, a `resource` or a custom scope often does that)"
                ),
            })
        })
    }

    fn who(&self, what: &str) -> String {
        format!("the {what} of {}", self.host)
    }
}

/// What is needed of the discovery document.
#[derive(Deserialize)]
struct Server {
    issuer: String,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Server {
    /// Basic is what every server must take (RFC 6749, section 2.3.1) and what absence means.
    fn auth(&self) -> Auth {
        let offers = |method: &str| {
            self.token_endpoint_auth_methods_supported
                .as_ref()
                .is_some_and(|all| all.iter().any(|one| one == method))
        };
        if !offers("client_secret_basic") && offers("client_secret_post") { Auth::Post } else { Auth::Basic }
    }
}

#[derive(Deserialize)]
struct Tokens {
    access_token: Option<Zeroizing<String>>,
    id_token: Option<Zeroizing<String>>,
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

fn refused(who: &str, answer: &Answer) -> Error {
    let Ok(body) = answer::json::<Refused>(who, answer) else { return answer::refusal(who, answer, None) };
    let said = format!("{}: {}", body.error, body.error_description.as_deref().unwrap_or("no reason given"));
    let error = answer::refusal(who, answer, Some(&said));
    match body.error.as_str() {
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

/// Never on the daemon's one thread: the file may lie on a dead mount.
async fn private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read_private(&owned)).await;
    read.map_err(|_| Error::transient(format!("reading {} was cut short", path.display())))?
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let path = path.display();
    Err(Error::misconfigured(format!("provider client-credentials: paths must be absolute, not {path}")))
}

fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3 && jsonwebtoken::decode_header(token).is_ok()
}

fn field(value: &str) -> Zeroizing<String> {
    Zeroizing::new(value.to_owned())
}

/// Unique, not secret: a `jti` only keeps the provider from taking two assertions for one.
fn rand() -> [u8; 16] {
    fastrand::u128(..).to_ne_bytes()
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_LIFE: i64 = 60;
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::answer::test::{context, jwt};

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

    #[tokio::test]
    async fn the_secret_goes_the_way_the_server_offers() {
        let endpoint = Url::parse("https://idp.example/token").expect("a URL");
        for (offered, header) in
            [(None, true), (Some("client_secret_post"), false), (Some("private_key_jwt"), true)]
        {
            let server = Server {
                issuer: String::new(),
                token_endpoint: String::new(),
                token_endpoint_auth_methods_supported: offered.map(|method| vec![method.to_owned()]),
            };
            let mut form = Vec::new();
            let provider = build("client-secret-env = \"SECRET\"").expect("built");
            let proof = provider.prove(&server, &endpoint, &mut form).await.expect("proved");
            assert_eq!(proof.is_some(), header, "{offered:?}");
            match proof {
                Some(basic) => assert_eq!(*basic, format!("Basic {}", STANDARD.encode("c:s%2Fp%3Aa"))),
                None => assert_eq!(form[0].1.as_str(), "s/p:a"),
            }
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
