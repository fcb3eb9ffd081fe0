//! Whether an ID token is to be trusted (OpenID Connect Core, section 3.1.3.7). Claims that are not needed for that are
//! not looked at.

use openidconnect::Nonce;
use zeroize::Zeroizing;

use super::grant::Granted;
use super::keys::Unverified;
use super::{RelyingParty, Tokens, untrusted};
use crate::error::{Error, Kind, Reason, Stage};
use crate::foreign_text;
use crate::json;
use crate::token::{Claims, IdentityToken};

impl RelyingParty {
    pub(super) async fn verified(&self, granted: Granted, nonce: Option<&Nonce>) -> Result<Tokens, Error> {
        let issuer = self.settings.issuer.as_str();
        let found = granted.id_token().map_err(|fault| {
            let message = format!("the answer of {issuer} to a token request {fault}");
            super::error::unreadable(Kind::Transient, issuer, fault.field(), message)
        })?;
        let Some(token) = found else {
            let message = self.settings.preset.no_id_token(&self.settings);
            return Err(Error::new(Stage::SignIn, Kind::Misconfigured, Reason::NoIdToken, message));
        };
        let tokens = self.checked(&token, nonce).await?;
        let refresh_expires_in = granted.refresh_expires_in();
        Ok(Tokens { refresh_token: granted.refresh_token, refresh_expires_in, ..tokens })
    }

    /// Signature, issuer, audience, expiry and nonce. Keys that are not known yet are fetched once.
    pub(super) async fn checked(&self, raw: &str, nonce: Option<&Nonce>) -> Result<Tokens, Error> {
        let token = IdentityToken::parse_insecure(raw, self.clock.now()).map_err(|how| self.distrust(how))?;
        let mut metadata = self.metadata().await?;
        let (jwt, header) = (token.jwt().expose(), token.header());
        let mut signed = self.signed(metadata.keys().check(jwt, &header.alg, header.kid.as_deref()));
        if let Err(Unsigned::MaybeNewKey) = signed {
            // The provider may have new keys since.
            self.forget_metadata();
            metadata = self.metadata().await?;
            signed = self.signed(metadata.keys().check(jwt, &header.alg, header.kid.as_deref()));
        }
        signed.map_err(|why| match why {
            Unsigned::MaybeNewKey => self.distrust("none of the issuer's keys signed it"),
            Unsigned::Never(why) => self.distrust(why),
        })?;
        if header.has_crit {
            return Err(self.distrust("its header demands extensions (`crit`)"));
        }
        let claims = token.claims();
        self.check_claims(claims, nonce).map_err(|why| self.distrust(why))?;
        let subject = claims.sub.clone().ok_or_else(|| match claims.odd("sub") {
            Some(found) => self.distrust(format_args!("it has {found} in `sub` where text is needed")),
            None => self.distrust("it has no `sub`"),
        })?;
        let name = claims.other.get("preferred_username").and_then(json::text);
        Ok(Tokens {
            id_token: Zeroizing::new(jwt.clone()),
            subject,
            account: claims.email.as_deref().or(name.as_deref()).map(foreign_text::name),
            refresh_token: None,
            refresh_expires_in: None,
        })
    }

    fn signed(&self, checked: Result<(), Unverified>) -> Result<(), Unsigned> {
        checked.map_err(|why| match why {
            Unverified::NoSuchKey | Unverified::Mismatch => Unsigned::MaybeNewKey,
            // Made with the client secret, which W&B does not have.
            Unverified::NotPublic => Unsigned::Never("it is not signed with a key that the issuer publishes"),
            Unverified::UnknownAlgorithm => Unsigned::Never("its signature algorithm is not known here"),
        })
    }

    /// Everything but signature and expiry.
    pub fn check_claims(&self, claims: &Claims, nonce: Option<&Nonce>) -> Result<(), String> {
        let settings = &self.settings;
        if claims.iss.as_deref() != Some(settings.issuer.as_str()) {
            return Err("its `iss` is not this issuer".to_owned());
        }
        let ours = |audience: &String| *audience == settings.client_id;
        let known =
            |audience: &String| ours(audience) || Some(audience.as_str()) == settings.audience.as_deref();
        if !claims.aud.iter().any(ours) {
            return Err("its `aud` lacks this client".to_owned());
        }
        if !claims.aud.iter().all(known) {
            return Err("its `aud` names others besides this client".to_owned());
        }
        let claim = |name| match claims.other.get(name) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => match json::text(value) {
                Some(text) => Ok(Some(text)),
                None => Err(format!("it has {} in `{name}` where text is needed", json::kind(value))),
            },
        };
        if claim("azp")?.is_some_and(|party| party != settings.client_id) {
            return Err("it was issued to another client (`azp`)".to_owned());
        }
        match nonce {
            Some(sent) if claim("nonce")?.as_deref() != Some(sent.secret().as_str()) => {
                Err("its `nonce` is not that of this sign-in".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn distrust(&self, why: impl std::fmt::Display) -> Error {
        untrusted(format!("the ID token from {} is not to be trusted: {why}", self.settings.issuer.as_str()))
    }
}

enum Unsigned {
    MaybeNewKey,
    Never(&'static str),
}
