//! What a W&B server says about the identity provider of an organization: `GET /oidc/cli_config`.
//!
//! Asked once, by `wandb-cred login` on a machine where nothing is configured. The answer is shown to the
//! person and confirmed before it is used: an organization's name alone must not lead anybody to a
//! stranger's sign-in page.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::{error, misconfigured};
use crate::error::{Error, Kind, Reason};
use crate::http::{self, Http, Reach};

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
    let request = http.request(Reach::Network, Method::GET, url).header("accept", "application/json");
    let answer = http.send(Reach::Network, request, TIMEOUT, LIMIT).await?;
    if answer.status != 200 {
        // Older servers know no such route; newer ones answer 404 for an unknown organization.
        let status = answer.status;
        let message = format!(
            "{host} names no identity provider (HTTP {status}); give the issuer and client id instead: wandb-cred login --issuer URL --client-id ID"
        );
        return Err(error(Kind::Transient, Reason::Status { host, status }, message));
    }
    let unreadable = || {
        let message =
            format!("{host} answers /oidc/cli_config with something that is not an issuer and client id");
        let reason = Reason::UnreadableAnswer { host: host.clone(), field: None };
        error(Kind::Transient, reason, message)
    };
    let config: CliConfig = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    let issuer = Url::parse(&config.issuer).map_err(|_| unreadable())?;
    http::check_url(&issuer, Reach::Network)?;
    Ok(config)
}

const TIMEOUT: Duration = Duration::from_secs(15);
const LIMIT: usize = 64 * 1024;
