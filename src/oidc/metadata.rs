//! What a provider says of itself (OpenID Connect Discovery): the few fields that are used, read leniently.

use std::borrow::Cow;
use std::time::Duration;

use openidconnect::IssuerUrl;
use url::Url;

use super::error::{misconfigured, unreadable};
use super::keys::KeySet;
use super::wire::Wire;
use crate::clock::Now;
use crate::error::{Error, Kind, Stage};
use crate::foreign_text;
use crate::http::{Destination, check_url, is_loopback};
use crate::json::{Fault, Object};

/// A discovery document. A field that is not asked for may hold anything.
pub struct Document(Object);

impl Document {
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        Object::parse(text).map(Self)
    }

    /// Where the document of `issuer` is.
    pub fn address(issuer: &str) -> String {
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
    }

    pub fn issuer(&self) -> Result<Cow<'_, str>, Fault> {
        self.0.required_text("issuer")
    }

    /// The URL in this field, if there is one.
    pub fn url(&self, field: &'static str) -> Result<Option<Url>, Fault> {
        let Some(text) = self.0.text(field)? else { return Ok(None) };
        let found = if text.trim().is_empty() { "white space" } else { "text that is no URL" };
        Url::parse(text.trim()).map(Some).map_err(|_| Fault::Wrong { field, found, wanted: "a URL" })
    }

    pub fn required_url(&self, field: &'static str) -> Result<Url, Fault> {
        self.url(field)?.ok_or(Fault::Missing(field))
    }

    /// Where the keys of `issuer` are, if this is its document.
    pub fn keys_of(&self, issuer: &str) -> Result<Url, NotOf> {
        let named = self.issuer().map_err(NotOf::Unreadable)?;
        if named != issuer {
            return Err(NotOf::Another(named.into_owned()));
        }
        let keys = self.required_url("jwks_uri").map_err(NotOf::Unreadable)?;
        let elsewhere = is_loopback(&keys) && !Url::parse(issuer).is_ok_and(|issuer| is_loopback(&issuer));
        if elsewhere || check_url(&keys, Destination::Network).is_err() {
            return Err(NotOf::Unprotected(keys));
        }
        Ok(keys)
    }

    /// How a client may prove itself at the token endpoint; `None` if the document does not say.
    pub fn auth_methods(&self) -> Option<Vec<String>> {
        self.0.texts("token_endpoint_auth_methods_supported").filter(|methods| !methods.is_empty())
    }

    /// Whether responses carry `iss` (RFC 9207), so that one without it is not this issuer's.
    fn names_itself(&self) -> bool {
        self.0.flag("authorization_response_iss_parameter_supported")
    }
}

/// Why a document does not describe an issuer.
#[derive(Debug)]
pub enum NotOf {
    Unreadable(Fault),
    /// It names another one, which may differ by a slash only.
    Another(String),
    /// Its keys are at an address that is not https, or on this machine alone.
    Unprotected(Url),
}

/// Discovery document and keys, and when they were fetched.
pub struct Metadata {
    issuer: String,
    document: Document,
    keys: KeySet,
    fetched: Now,
}

impl Metadata {
    pub(super) async fn discover(issuer: &IssuerUrl, wire: &Wire, now: Now) -> Result<Self, Error> {
        let issuer = issuer.as_str();
        let url = Url::parse(&Document::address(issuer))
            .map_err(|_| misconfigured(format!("`issuer` {issuer} is not a usable URL")))?;
        let text = fetch(wire, issuer, "discovery document", url).await?;
        let refused = |what: &str, fault: &Fault| {
            unreadable(Kind::Misconfigured, issuer, fault.field(), format!("the {what} of {issuer} {fault}"))
        };
        let document = Document::parse(&text).map_err(|fault| refused("discovery document", &fault))?;
        let address = document.keys_of(issuer).map_err(|why| match why {
            NotOf::Unreadable(fault) => refused("discovery document", &fault),
            NotOf::Another(named) => misconfigured(format!(
                "the discovery document under {issuer} names another issuer, {:?}; `issuer` must be spelled exactly as the \
                 provider spells it, slash at the end included",
                foreign_text::name(&named)
            )),
            NotOf::Unprotected(keys) => misconfigured(format!(
                "the discovery document of {issuer} names its keys at {}, which is not https",
                foreign_text::name(keys.as_str())
            )),
        })?;
        let text = fetch(wire, issuer, "key set", address).await?;
        let keys = KeySet::parse(&text).map_err(|fault| refused("key set", &fault))?;
        Ok(Self { issuer: issuer.to_owned(), document, keys, fetched: now })
    }

    pub(super) fn age(&self, now: Now) -> Duration {
        now.boot.saturating_sub(self.fetched.boot)
    }

    /// Whether people can sign in where there is no browser.
    pub fn has_device_flow(&self) -> bool {
        matches!(self.optional_endpoint("device_authorization_endpoint"), Ok(Some(_)))
    }

    pub(super) fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// An endpoint that is needed now. It must be as well protected as the issuer itself.
    pub(super) fn endpoint(&self, field: &'static str) -> Result<Url, Error> {
        self.checked(self.document.required_url(field)).map_err(|error| error.at(Stage::SignIn))
    }

    /// An endpoint that the provider may do without.
    pub(super) fn optional_endpoint(&self, field: &'static str) -> Result<Option<Url>, Error> {
        match self.document.url(field) {
            Ok(None) => Ok(None),
            Ok(Some(url)) => self.checked(Ok(url)).map(Some),
            Err(fault) => self.checked(Err(fault)).map(Some),
        }
    }

    fn checked(&self, url: Result<Url, Fault>) -> Result<Url, Error> {
        let issuer = &self.issuer;
        let url = url.map_err(|fault| {
            let message = format!("the discovery document of {issuer} {fault}");
            unreadable(Kind::Misconfigured, issuer, fault.field(), message)
        })?;
        let local = Url::parse(issuer).is_ok_and(|issuer| is_loopback(&issuer));
        if url.scheme() != "https" && !local {
            return Err(misconfigured(format!("the metadata of {issuer} names an endpoint without https")));
        }
        Ok(url)
    }

    pub(super) fn names_itself(&self) -> bool {
        self.document.names_itself()
    }

    /// Whether the client secret may go into the Authorization header: the default where nothing is said.
    pub(super) fn takes_basic(&self) -> bool {
        self.document
            .auth_methods()
            .is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"))
    }
}

async fn fetch(
    wire: &Wire,
    issuer: &str,
    what: &str,
    url: Url,
) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
    let answer = wire.get(url).await.map_err(|error| error.at(Stage::SignIn))?;
    match answer.status {
        // As W&B does, which fetches the same two.
        200 => Ok(answer.body),
        status => Err(misconfigured(format!(
            "{issuer} is not an OpenID Connect issuer: its {what} answers HTTP {status}"
        ))),
    }
}
