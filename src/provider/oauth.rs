//! Identity tokens from the organization's own identity provider, by OAuth 2.0 and OpenID Connect.

pub mod client_credentials;
pub mod oidc;
pub mod vault;
