//! What a W&B server says about the identity provider of an organization: `GET /oidc/cli_config`.
//!
//! Asked once, by `wandb-cred login` on a machine where nothing is configured. The answer is shown to the
//! person and confirmed before it is used: an organization's name alone must not lead anybody to a
//! stranger's sign-in page.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::{error, misconfigured, unreadable};
use crate::error::{Error, Kind, Reason};
use crate::http::{self, Destination, Http};
use crate::json::{Fault, Object};

/// The server's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CliConfig {
    pub issuer: String,
    pub client_id: String,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The ways to sign in that the client is set up for, if the server says so.
    #[serde(default)]
    pub auth_methods: Option<Vec<String>>,
}

/// Asks `host` (with or without `https://`) for the client of `organization`.
pub async fn cli_config(http: &Http, host: &str, organization: Option<&str>) -> Result<CliConfig, Error> {
    let base = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    let bad = || misconfigured(format!("`{host}` is not a host name or https URL"));
    let mut url = Url::parse(&base).map_err(|_| bad())?;
    url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(["oidc", "cli_config"]);
    if let Some(organization) = organization {
        url.query_pairs_mut().append_pair("organization", organization);
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let request = http.request(Destination::Network, Method::GET, url).header("accept", "application/json");
    let answer = http.send(Destination::Network, request, TIMEOUT, LIMIT).await?;
    if answer.status != 200 {
        // Older servers know no such route; newer ones answer 404 for an unknown organization.
        let status = answer.status;
        let message = format!(
            "{host} names no identity provider (HTTP {status}); give the issuer and client id instead: wandb-cred login --issuer URL --client-id ID"
        );
        return Err(error(Kind::Transient, Reason::Status { host, status }, message));
    }
    let refused = |fault: Fault| {
        let message = format!("the answer of {host} to /oidc/cli_config {fault}");
        unreadable(Kind::Transient, &host, fault.field(), message)
    };
    let config = read(&answer.body).map_err(refused)?;
    let issuer = Url::parse(&config.issuer).map_err(|_| {
        refused(Fault::Wrong { field: "issuer", found: "text that is no URL", wanted: "a URL" })
    })?;
    http::check_url(&issuer, Destination::Network)?;
    Ok(config)
}

pub fn read(text: &[u8]) -> Result<CliConfig, Fault> {
    let fields = Object::parse(text)?;
    Ok(CliConfig {
        issuer: fields.required_text("issuer")?.trim().to_owned(),
        client_id: fields.required_text("client_id")?.trim().to_owned(),
        scopes: fields.texts("scopes").unwrap_or_default(),
        auth_methods: fields.texts("auth_methods"),
    })
}

const TIMEOUT: Duration = Duration::from_secs(15);
const LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_may_be_anything() {
        let text = br#"{"issuer":"https://idp.example ","client_id":42,"scopes":"openid email","auth_methods":7,"x":[]}"#;
        let config = read(text).expect("an issuer and a client");
        assert_eq!((config.issuer.as_str(), config.client_id.as_str()), ("https://idp.example", "42"));
        assert_eq!(config.scopes, ["openid", "email"]);
        assert_eq!(config.auth_methods, None);
        assert_eq!(read(b"{\"issuer\":\"x\"}").err(), Some(Fault::Missing("client_id")));
    }
}
