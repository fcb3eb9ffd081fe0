//! What a provider says of itself (OpenID Connect Discovery), and the library's types for it.

use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGenderClaim,
    CoreGrantType, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreSubjectIdentifierType,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalProviderMetadata, ClientId, ClientSecret, EmptyAdditionalClaims, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, ExtraTokenFields, IdTokenFields, IssuerUrl, ProviderMetadata,
    StandardTokenResponse,
};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::error::{self, TokenError, misconfigured};
use super::wire::Wire;
use crate::clock::Now;
use crate::error::Error;
use crate::http::is_loopback;

/// Discovery document and keys, and when they were fetched.
pub struct Metadata {
    document: Document,
    fetched: Now,
}

impl Metadata {
    pub(super) async fn discover(issuer: &IssuerUrl, wire: &Wire, now: Now) -> Result<Self, Error> {
        let document = Document::discover_async(issuer.clone(), wire)
            .await
            .map_err(|error| error::discovery(issuer.as_str(), error))?;
        let secure = |url: &Url| url.scheme() == "https" || is_loopback(issuer.url());
        let extra = document.additional_metadata();
        let endpoints = [
            Some(document.authorization_endpoint().url()),
            document.token_endpoint().map(|url| url.url()),
            extra.device_authorization_endpoint.as_ref(),
            extra.revocation_endpoint.as_ref(),
        ];
        if endpoints.into_iter().flatten().any(|url| !secure(url)) {
            let issuer = issuer.as_str();
            return Err(misconfigured(format!("the metadata of {issuer} names an endpoint without https")));
        }
        Ok(Self { document, fetched: now })
    }

    pub(super) fn age(&self, now: Now) -> Duration {
        now.boot.saturating_sub(self.fetched.boot)
    }

    pub(super) fn client(&self, id: ClientId, secret: Option<ClientSecret>) -> Client {
        Client::from_provider_metadata(self.document.clone(), id, secret)
    }

    pub(super) fn keys(&self) -> CoreJsonWebKeySet {
        self.document.jwks().clone()
    }

    pub(super) fn device_authorization_endpoint(&self) -> Option<&Url> {
        self.document.additional_metadata().device_authorization_endpoint.as_ref()
    }

    pub(super) fn revocation_endpoint(&self) -> Option<&Url> {
        self.document.additional_metadata().revocation_endpoint.as_ref()
    }

    /// Whether responses carry `iss` (RFC 9207), so that one without it is not this issuer's.
    pub fn names_itself(&self) -> bool {
        self.document.additional_metadata().authorization_response_iss_parameter_supported
    }

    /// Whether the client secret may go into the Authorization header: the default where nothing is said.
    pub(super) fn takes_basic(&self) -> bool {
        self.document
            .token_endpoint_auth_methods_supported()
            .is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic))
    }
}

/// Members of the discovery document that the library does not know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Extra {
    device_authorization_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Extra {}

/// Members of a token response that the library does not know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct MoreFields {
    /// Keycloak. Zero means that it does not end.
    #[serde(default, deserialize_with = "number_or_nothing")]
    refresh_expires_in: Option<u64>,
}

impl MoreFields {
    pub(super) fn refresh_expires_in(&self) -> Option<Duration> {
        self.refresh_expires_in.filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }
}

impl ExtraTokenFields for MoreFields {}

/// Not a standard member, so no spelling of it may break the whole answer.
fn number_or_nothing<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    Ok(serde_json::Value::deserialize(input)?.as_u64())
}

/// The discovery document.
pub type Document = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

pub type Fields = IdTokenFields<
    EmptyAdditionalClaims,
    MoreFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

pub type IdToken = openidconnect::IdToken<
    EmptyAdditionalClaims,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

/// The answer of the token endpoint.
pub type Tokens = StandardTokenResponse<Fields, CoreTokenType>;

/// A client of which discovery has set the endpoints that discovery knows.
pub(super) type Client = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    TokenError,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;
