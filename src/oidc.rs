//! The relying party: every OpenID Connect request this program makes.
//!
//! The `openidconnect` library makes the authorization request. What providers answer is read here: the library refuses
//! an answer for any odd field in it, also for one that nobody uses, and with it a refresh token that has no copy.
//!
//! [`Session`](session::Session) (and so the provider) refreshes with it, `login` signs people in with it.
//! One call is one attempt; nothing here waits to try again, keeps a token, or logs one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openidconnect::{IssuerUrl, Nonce, PkceCodeVerifier, RedirectUrl};
use url::Url;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::error::{Error, Kind, Reason, Stage};
use crate::http::Http;
use crate::private_file::{self, Holds};
use crate::read_file;
use crate::token::Secret;

mod authorize;
pub mod discover;
mod error;
mod grant;
mod id_token;
pub mod keys;
pub mod metadata;
pub mod preset;
mod saved;
pub mod session;
#[cfg(test)]
pub(crate) mod test;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use authorize::RESERVED;
pub use authorize::{Authorization, Flow};
pub(crate) use error::{declined, misconfigured, transient, untrusted};
pub use grant::{Granted, read_device};
use metadata::Metadata;
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
    code: Secret<String>,
    /// Between two questions.
    interval: Duration,
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

    /// Whether somebody could sign in here, as far as that shows before anybody tries. Every sign-in begins with it, and the
    /// doctor asks the same. Returns what the provider says of itself.
    pub async fn check(&self) -> Result<Arc<Metadata>, Error> {
        let metadata = self.metadata().await?;
        metadata.endpoint("authorization_endpoint")?;
        if self.settings.flow == Flow::Code {
            metadata.endpoint("token_endpoint")?;
        }
        if metadata.keys().is_empty() {
            let issuer = self.settings.issuer.as_str();
            return Err(misconfigured(format!(
                "the key set of {issuer} holds no key by which an ID token could be checked"
            )));
        }
        Ok(metadata)
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
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("redirect_uri", redirect.as_str()),
            ("code_verifier", verifier.secret()),
        ];
        let granted = self.grant(&form).await.map_err(|refusal| self.refused(refusal))?;
        self.verified(granted, Some(nonce)).await
    }

    /// Redeems a refresh token. The one that was sent is spent then: [`Granted::refresh_token`] goes into the store
    /// before the rest of the answer is judged by [`Self::renewed`].
    pub async fn refresh(&self, refresh_token: &Secret<String>) -> Result<Granted, Error> {
        let scope = self.settings.scopes.join(" ");
        let mut form =
            vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose().as_str())];
        if self.settings.preset.quirks().scope_on_refresh {
            form.push(("scope", &scope));
        }
        self.grant(&form).await.map_err(|refusal| self.refused(refusal))
    }

    /// The tokens of a refresh. They must be about the same `subject`.
    pub async fn renewed(&self, granted: Granted, subject: &str) -> Result<Tokens, Error> {
        // A nonce is not expected here, and one is not refused either (OpenID Connect Core, section 12.2).
        let tokens = self.verified(granted, None).await?;
        if tokens.subject == subject {
            Ok(tokens)
        } else {
            let issuer = self.settings.issuer.as_str();
            Err(untrusted(format!("{issuer} answered a refresh with an ID token of another person")))
        }
    }

    /// Takes an ID token that came by the browser itself (implicit flow, `form_post`).
    pub async fn accept(&self, id_token: &str, nonce: &Nonce) -> Result<Tokens, Error> {
        self.checked(id_token, Some(nonce)).await
    }

    /// Polls until the person has answered, or the code expired.
    pub async fn device_tokens(&self, device: &Device) -> Result<Tokens, Error> {
        let granted = self.poll_device(device).await?;
        // A device request carries no nonce.
        self.verified(granted, None).await
    }

    /// Revokes a refresh token (RFC 7009). `false` if the provider has no way to.
    pub async fn revoke(&self, refresh_token: &Secret<String>) -> Result<bool, Error> {
        let Some(endpoint) = self.metadata().await?.optional_endpoint("revocation_endpoint")? else {
            return Ok(false);
        };
        let form = [("token", refresh_token.expose().as_str()), ("token_type_hint", "refresh_token")];
        let status = self.post(endpoint, &form).await?.status;
        let issuer = self.settings.issuer.as_str();
        match status {
            200..=299 => Ok(true),
            status => {
                let reason = Reason::Status { host: issuer.to_owned(), status };
                let message = format!("{issuer} answers HTTP {status} to the revocation");
                Err(Error::new(Stage::SignIn, Kind::Rejected, reason, message))
            }
        }
    }

    async fn client_secret(&self) -> Result<Option<Secret<String>>, Error> {
        match &self.settings.client_secret {
            None => Ok(None),
            Some(SecretSource::Value(secret)) => Ok(Some(secret.clone())),
            Some(SecretSource::File(path)) => {
                let owned = path.clone();
                let read = move || private_file::read(&owned, Holds::Secret, Stage::SignIn, MAX_SECRET);
                match read_file::off_thread(path, read).await {
                    Ok(content) => Ok(Some(Secret::new(content.text.trim().to_owned()))),
                    Err(error) => Err(error.at(Stage::SignIn).context("client-secret-file")),
                }
            }
        }
    }
}

/// Far longer than any client secret.
const MAX_SECRET: u64 = 16 * 1024;

/// Endpoints hardly ever change; keys that do are looked up when they are met.
const METADATA_AGE: Duration = Duration::from_secs(24 * 3600);
