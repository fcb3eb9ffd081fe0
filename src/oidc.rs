//! The relying party: every OpenID Connect request this program makes, with the `openidconnect` library.
//!
//! [`Session`](session::Session) (and so the provider) refreshes with it, `login` signs people in with it.
//! One call is one attempt; nothing here waits to try again, keeps a token, or logs one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use openidconnect::core::CoreJwsSigningAlgorithm;
use openidconnect::{
    AuthType, AuthorizationCode, ClientId, ClientSecret, DeviceAuthorizationUrl, IdTokenVerifier, IssuerUrl,
    Nonce, NonceVerifier, OAuth2TokenResponse as _, PkceCodeVerifier, RedirectUrl, RefreshToken, Scope,
    TokenResponse as _,
};
use url::Url;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::{Error, FileFault, Kind, Reason, Stage};
use crate::foreign_text;
use crate::http::Http;
use crate::read_file;
use crate::token::Secret;

mod authorize;
pub mod discover;
mod error;
mod metadata;
pub mod preset;
pub mod session;
mod wire;

pub(crate) use authorize::RESERVED;
pub use authorize::{Authorization, Flow};
pub(crate) use error::{declined, misconfigured, transient, untrusted};
use metadata::{Client, Metadata, Tokens as TokenResponse};
pub use preset::Preset;
use wire::Wire;

/// One client at one issuer, as the configuration describes it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub profile: String,
    pub issuer: IssuerUrl,
    pub client_id: String,
    pub client_secret: Option<SecretSource>,
    pub scopes: Vec<String>,
    pub preset: Preset,
    /// What W&B expects in `aud`: accepted beside the client id.
    pub audience: Option<String>,
    pub flow: Flow,
    /// `127.0.0.1` or `localhost`, as it is registered with the provider.
    pub redirect_host: &'static str,
    /// 0 for any free port.
    pub redirect_port: u16,
    /// More parameters of the authorization request, such as `login_hint`.
    pub authorize_params: BTreeMap<String, String>,
}

/// Where a client secret comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    Value(Secret<String>),
    /// Read again each time, so that it may be rotated.
    File(std::path::PathBuf),
}

/// What a successful grant gave.
pub struct Tokens {
    pub id_token: Zeroizing<String>,
    pub subject: String,
    /// E-mail address or user name, for people to read.
    pub account: Option<String>,
    pub refresh_token: Option<Secret<String>>,
    /// How long the refresh token lives, where the provider says so (Keycloak does).
    pub refresh_expires_in: Option<Duration>,
}

/// What the person has to do at the other device.
#[derive(Clone)]
pub struct Device {
    pub user_code: String,
    pub verification_uri: Url,
    pub verification_uri_complete: Option<Url>,
    pub expires_in: Duration,
    details: openidconnect::core::CoreDeviceAuthorizationResponse,
}

/// The client side of one issuer.
pub struct RelyingParty {
    pub settings: Settings,
    wire: Wire,
    clock: Clock,
    known: Mutex<Option<Arc<Metadata>>>,
}

impl RelyingParty {
    pub fn new(settings: Settings, http: Http, clock: Clock) -> Self {
        let wire = Wire::new(http, &settings.issuer);
        Self { settings, wire, clock, known: Mutex::default() }
    }

    /// The provider's own description and keys, fetched at most once a day.
    pub async fn metadata(&self) -> Result<Arc<Metadata>, Error> {
        let now = self.clock.now();
        let known = self.known.lock().expect("no holder panics").clone();
        if let Some(known) = &known
            && known.age(now) < METADATA_AGE
        {
            return Ok(known.clone());
        }
        match Metadata::discover(&self.settings.issuer, &self.wire, now).await {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                *self.known.lock().expect("no holder panics") = Some(fresh.clone());
                Ok(fresh)
            }
            // Yesterday's description of the same issuer is better than none.
            Err(error) => match known {
                Some(known) if error.is_transient() => Ok(known),
                _ => Err(error),
            },
        }
    }

    fn forget_metadata(&self) {
        self.known.lock().expect("no holder panics").take();
    }

    /// Redeems an authorization code. `nonce` is the one sent with the request.
    pub async fn redeem(
        &self,
        code: String,
        verifier: PkceCodeVerifier,
        nonce: &Nonce,
        redirect: &RedirectUrl,
    ) -> Result<Tokens, Error> {
        let client = self.client().await?.set_redirect_uri(redirect.clone());
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| self.lacks("token_endpoint"))?
            .set_pkce_verifier(verifier);
        let response = request.request_async(&self.wire).await.map_err(|e| self.refused(e))?;
        self.verified(&response, nonce).await
    }

    /// Redeems a refresh token. The answer must be about the same `subject`.
    ///
    /// The new refresh token is returned even if the ID token beside it cannot be used: the old one is spent.
    pub async fn refresh(&self, refresh_token: &Secret<String>, subject: &str) -> Refreshed {
        let token = RefreshToken::new(refresh_token.expose().clone());
        let response = async {
            let client = self.client().await?;
            let mut request =
                client.exchange_refresh_token(&token).map_err(|_| self.lacks("token_endpoint"))?;
            if self.settings.preset.quirks().scope_on_refresh {
                request = request.add_scopes(self.settings.scopes.iter().cloned().map(Scope::new));
            }
            request.request_async(&self.wire).await.map_err(|e| self.refused(e))
        };
        let response: TokenResponse = match response.await {
            Ok(response) => response,
            Err(error) => return Refreshed { rotated: None, tokens: Err(error) },
        };
        let rotated = response
            .refresh_token()
            .map(|new| Secret::new(new.secret().clone()))
            .filter(|new| new.expose() != refresh_token.expose());
        // A nonce is not expected here, and one is not refused either (OpenID Connect Core, section 12.2).
        let tokens = self.verified(&response, |_: Option<&Nonce>| Ok(())).await.and_then(|tokens| {
            if tokens.subject == subject {
                Ok(tokens)
            } else {
                Err(untrusted(format!(
                    "{} answered a refresh with an ID token of another person",
                    self.settings.issuer.as_str()
                )))
            }
        });
        Refreshed { rotated, tokens }
    }

    /// Takes an ID token that came by the browser itself (implicit flow, `form_post`).
    pub async fn accept(&self, id_token: &str, nonce: &Nonce) -> Result<Tokens, Error> {
        let token = serde_json::from_value(serde_json::Value::String(id_token.to_owned()))
            .map_err(|_| untrusted("the browser brought something that is not an ID token".to_owned()))?;
        self.checked(&token, nonce).await
    }

    /// Starts device authorization (RFC 8628).
    pub async fn device(&self) -> Result<Device, Error> {
        let metadata = self.metadata().await?;
        let endpoint = metadata.device_authorization_endpoint().ok_or_else(|| {
            misconfigured(format!(
                "{} offers no device sign-in; leave out --device",
                self.settings.issuer.as_str()
            ))
        })?;
        let client = self.client().await?.set_device_authorization_url(
            DeviceAuthorizationUrl::new(endpoint.to_string()).map_err(|_| self.lacks("device endpoint"))?,
        );
        let request = client
            .exchange_device_code()
            .add_scopes(self.settings.scopes.iter().filter(|s| *s != "openid").cloned().map(Scope::new));
        let details: openidconnect::core::CoreDeviceAuthorizationResponse =
            request.request_async(&self.wire).await.map_err(|e| self.refused(e))?;
        let complete = details.verification_uri_complete();
        let verification_uri = details.verification_uri().url().clone();
        if !foreign_text::is_page(&verification_uri) {
            let issuer = self.settings.issuer.as_str();
            return Err(misconfigured(format!("{issuer} names no web page to enter the code on")));
        }
        Ok(Device {
            user_code: foreign_text::clean(details.user_code().secret(), MAX_USER_CODE),
            verification_uri,
            verification_uri_complete: complete
                .and_then(|uri| Url::parse(uri.secret()).ok().filter(foreign_text::is_page)),
            expires_in: details.expires_in(),
            details,
        })
    }

    /// Polls until the person has answered, or the code expired. The pace is the library's: the provider's
    /// interval (5 s where it states none), slower when the provider asks for it.
    pub async fn device_tokens(&self, device: &Device) -> Result<Tokens, Error> {
        let client = self.client().await?;
        let request =
            client.exchange_device_access_token(&device.details).map_err(|_| self.lacks("token_endpoint"))?;
        let pace = |duration| tokio::time::sleep(duration);
        let response =
            request.request_async(&self.wire, pace, None).await.map_err(|e| self.refused_device(e))?;
        // A device request carries no nonce.
        self.verified(&response, |_: Option<&Nonce>| Ok(())).await
    }

    /// Revokes a refresh token (RFC 7009). `false` if the provider has no way to.
    ///
    /// One form, posted without the library: that one takes only https, so that nothing on loopback could
    /// test it.
    pub async fn revoke(&self, refresh_token: &Secret<String>) -> Result<bool, Error> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = metadata.revocation_endpoint() else { return Ok(false) };
        let secret = self.client_secret().await?;
        let (id, basic) = (self.settings.client_id.as_str(), metadata.takes_basic());
        let answer = self.wire.revoke(endpoint, refresh_token, id, secret.as_ref(), basic).await?;
        let issuer = self.settings.issuer.as_str();
        match answer {
            200..=299 => Ok(true),
            status => {
                let reason = Reason::Status { host: issuer.to_owned(), status };
                let message = format!("{issuer} answers HTTP {status} to the revocation");
                Err(Error::new(Stage::SignIn, Kind::Rejected, reason, message))
            }
        }
    }

    async fn client(&self) -> Result<Client, Error> {
        let metadata = self.metadata().await?;
        let id = ClientId::new(self.settings.client_id.clone());
        let secret = self.client_secret().await?;
        let auth = if metadata.takes_basic() { AuthType::BasicAuth } else { AuthType::RequestBody };
        Ok(metadata
            .client(id, secret.map(|secret| ClientSecret::new(secret.expose().clone())))
            .set_auth_type(auth))
    }

    async fn client_secret(&self) -> Result<Option<Secret<String>>, Error> {
        match &self.settings.client_secret {
            None => Ok(None),
            Some(SecretSource::Value(secret)) => Ok(Some(secret.clone())),
            Some(SecretSource::File(path)) => {
                let owned = path.clone();
                let read =
                    read_file::off_thread(path, move || read_file::read_text(&owned, read_file::LIMIT)).await;
                let text = read.map_err(|error| {
                    let kind = if error.file_fault() == Some(&FileFault::TimedOut) {
                        error.kind
                    } else {
                        Kind::Misconfigured
                    };
                    error.at(Stage::SignIn).kind(kind).context("client-secret-file")
                })?;
                Ok(Some(Secret::new(text.trim().to_owned())))
            }
        }
    }

    async fn verified(
        &self,
        response: &TokenResponse,
        nonce: impl NonceVerifier + Clone,
    ) -> Result<Tokens, Error> {
        let Some(token) = response.id_token() else {
            let message = self.settings.preset.no_id_token(&self.settings);
            return Err(Error::new(Stage::SignIn, Kind::Misconfigured, Reason::NoIdToken, message));
        };
        let tokens = self.checked(token, nonce).await?;
        Ok(Tokens {
            refresh_token: response.refresh_token().map(|token| Secret::new(token.secret().clone())),
            refresh_expires_in: response.extra_fields().extra_fields().refresh_expires_in(),
            ..tokens
        })
    }

    /// Signature, issuer, audience, expiry and nonce. Keys that are not known yet are fetched once.
    async fn checked(
        &self,
        token: &metadata::IdToken,
        nonce: impl NonceVerifier + Clone,
    ) -> Result<Tokens, Error> {
        use openidconnect::{
            ClaimsVerificationError::SignatureVerification, SignatureVerificationError::NoMatchingKey,
        };
        let mut metadata = self.metadata().await?;
        let mut again = true;
        let claims = loop {
            match token.claims(&self.verifier(&metadata), nonce.clone()) {
                Ok(claims) => break claims,
                Err(SignatureVerification(NoMatchingKey)) if again => {
                    // The provider may have new keys since.
                    again = false;
                    self.forget_metadata();
                    metadata = self.metadata().await?;
                }
                Err(why) => {
                    return Err(untrusted(format!(
                        "the ID token from {} is not to be trusted: {why}",
                        self.settings.issuer.as_str()
                    )));
                }
            }
        };
        if let Some(party) = claims.authorized_party()
            && party.as_str() != self.settings.client_id
        {
            return Err(untrusted(format!(
                "the ID token from {} was issued to another client",
                self.settings.issuer.as_str()
            )));
        }
        let name = claims.preferred_username().map(|name| foreign_text::name(name.as_str()));
        Ok(Tokens {
            id_token: Zeroizing::new(token.to_string()),
            subject: claims.subject().as_str().to_owned(),
            account: claims.email().map(|email| foreign_text::name(email.as_str())).or(name),
            refresh_token: None,
            refresh_expires_in: None,
        })
    }

    fn verifier<'a>(
        &'a self,
        metadata: &Metadata,
    ) -> IdTokenVerifier<'a, openidconnect::core::CoreJsonWebKey> {
        let now = self.clock.now().server_time();
        // Always the public client's verifier: a symmetric signature would be made with the client secret,
        // which W&B does not have.
        IdTokenVerifier::new_public_client(
            ClientId::new(self.settings.client_id.clone()),
            self.settings.issuer.clone(),
            metadata.keys(),
        )
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || SystemTime::from(now).into())
        .set_other_audience_verifier_fn(|other| Some(other.as_str()) == self.settings.audience.as_deref())
    }

    fn lacks(&self, what: &str) -> Error {
        misconfigured(format!("the metadata of {} lacks {what}", self.settings.issuer.as_str()))
    }
}

/// The answer to a refresh, in the two parts that must not share a fate.
pub struct Refreshed {
    /// A new refresh token, which replaces the one that was sent.
    pub rotated: Option<Secret<String>>,
    pub tokens: Result<Tokens, Error>,
}

/// Asymmetric signatures only; `none` is never among them.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Longer than any code that people are asked to type.
const MAX_USER_CODE: usize = 64;

/// Endpoints hardly ever change; keys that do are looked up when they are met.
const METADATA_AGE: Duration = Duration::from_secs(24 * 3600);
