//! `azure-pipelines`: the OIDC token of an Azure Pipelines job, minted by Azure DevOps.
//!
//! It asks as azure-identity's `AzurePipelinesCredential` does. The step must hand the job's access token on:
//! `env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }`.
//!
//! `iss` is `https://vstoken.dev.azure.com/ORGANIZATION_ID`, `sub` is `p://ORGANIZATION/PROJECT/PIPELINE`, or
//! `sc://ORGANIZATION/PROJECT/CONNECTION` with a service connection; `aud` is always `api://AzureADTokenExchange`, so the
//! W&B server must accept that audience.
//!
//! ```toml
//! [profile.ci]
//! audience = "api://AzureADTokenExchange"
//! [profile.ci.provider.azure-pipelines]
//! ```

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::http::Destination;
use crate::provider::answer;
use crate::provider::detect::{Detect, both_set};
use crate::provider::settings::variable_url;
use crate::provider::source::{Context, Provider};
use crate::token::{IdentityToken, Secret};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The id of a service connection, to be its subject instead of the pipeline's.
    #[serde(default)]
    pub service_connection: Option<String>,
    /// For one request; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<AzurePipelines, Error> {
        let var = |name: &str| {
            let why = match cx.env.var(URL).or_else(|| cx.env.var("TF_BUILD")) {
                None => format!("provider {KIND}: {name} is not set: this is not a job of Azure Pipelines"),
                Some(_) => format!(
                    "{name} is not set; add to the step: env: {{ SYSTEM_ACCESSTOKEN: $(System.AccessToken) }}"
                ),
            };
            cx.env.var(name).ok_or_else(|| Error::variable(name, why))
        };
        let (url, token) = (var(URL)?, var(TOKEN)?);
        let mut url = variable_url(URL, url.trim_end_matches('/'), Destination::Network)?;
        url.query_pairs_mut().append_pair("api-version", VERSION);
        if let Some(connection) = &self.service_connection {
            url.query_pairs_mut().append_pair("serviceConnectionId", connection);
        }
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(AzurePipelines { url, token: Secret::new(token), timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        both_set(env, URL, TOKEN)?;
        Ok(format!("{URL} and {TOKEN} are set: a job of Azure Pipelines"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct AzurePipelines {
    url: Url,
    token: Secret<String>,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for AzurePipelines {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let header = Zeroizing::new(format!("Bearer {}", self.token.expose()));
        let http = &self.cx.http;
        let request = http
            .request(Destination::Network, Method::POST, self.url.clone())
            .header(AUTHORIZATION, header.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, 0)
            // A status instead of a redirect to a page for signing in.
            .header("X-TFS-FedAuthRedirect", "Suppress");
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if answer.status != 200 {
            let said = answer::json::<Refused>(SERVICE, &answer).ok().map(|refused| refused.message);
            let error = answer::refusal(SERVICE, &answer, said.as_deref());
            return Err(match error.kind {
                Kind::Rejected => error.hint(format_args!(
                    "{TOKEN} is valid only while its job runs; the job must be authorized for the service connection, \
                     if one is named"
                )),
                _ => error,
            });
        }
        let minted: Minted = answer::json(SERVICE, &answer)?;
        self.cx.identity(&minted.token, SERVICE, AUDIENCE_FIXED)
    }
}

#[derive(Deserialize)]
struct Minted {
    #[serde(rename = "oidcToken")]
    token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
}

const KIND: &str = "azure-pipelines";
const SERVICE: &str = "the OIDC token service of Azure DevOps";
const URL: &str = "SYSTEM_OIDCREQUESTURI";
const TOKEN: &str = "SYSTEM_ACCESSTOKEN";
const VERSION: &str = "7.1";
const AUDIENCE_FIXED: &str = "Azure DevOps lets nobody choose the audience: set audience = \"api://AzureADTokenExchange\" in the \
                              profile, and have the W&B server accept it (FEDERATED_AUTH_AUDIENCES)";
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::context;

    #[test]
    fn a_step_without_the_access_token_gets_the_line_to_add() {
        let cx = context(&[(URL, "https://vstfmms.example/oidctoken")]);
        let error = Config::default().build(cx).err().expect("no token");
        assert!(error.message.contains("SYSTEM_ACCESSTOKEN: $(System.AccessToken)"), "{error}");
        let error = Config::default().build(context(&[])).err().expect("elsewhere");
        assert!(error.message.contains("not a job of Azure Pipelines"), "{error}");
    }
}
