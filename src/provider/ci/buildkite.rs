//! `buildkite`: the OIDC token of a Buildkite job, minted by Buildkite's agent API.
//!
//! It asks as `buildkite-agent oidc request-token` does, with the job's own session token, which ends with the job.
//!
//! `iss` is `https://agent.buildkite.com`. Buildkite's own `sub` names branch, commit and step, so it changes
//! with every commit, while W&B compares the whole subject. This provider therefore asks for the pipeline's id
//! as the subject; `subject-claim` chooses another immutable claim (`organization_id`, `cluster_id`, ...), and
//! `subject-claim = ""` Buildkite's compound one.
//!
//! ```toml
//! [profile.ci]
//! audience = "acme"
//! [profile.ci.provider.buildkite]
//! subject-claim = "pipeline_id"
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::http::Destination;
use crate::provider::answer;
use crate::provider::detect::{Detect, both_set};
use crate::provider::settings::variable_url;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::token::{IdentityToken, Outlook, Renewal, Secret};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The claim to put into `sub`; `pipeline_id` by default, "" for Buildkite's compound subject.
    #[serde(default)]
    pub subject_claim: Option<String>,
    /// Optional claims to ask for, such as `organization_id`.
    #[serde(default)]
    pub claims: Vec<String>,
    /// Life of the token; Buildkite's own default is 5 minutes.
    #[serde(default)]
    pub lifetime: Option<HumanDuration>,
    /// For one request; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Buildkite, Error> {
        let var = |name: &str| {
            let why = format!("provider {KIND}: {name} is not set: this is not a job of a Buildkite agent");
            cx.env.var(name).ok_or_else(|| Error::variable(name, why))
        };
        let (job, token) = (var(JOB)?, var(TOKEN)?);
        let endpoint = cx.env.var(ENDPOINT).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let mut url = variable_url(ENDPOINT, &endpoint, Destination::Network)?;
        url.path_segments_mut()
            .map_err(|()| Error::variable(ENDPOINT, format!("{ENDPOINT} is not a URL with a path")))?
            .pop_if_empty()
            .extend(["jobs", &job, "oidc", "tokens"]);

        let mut body = json!({ "audience": cx.require_audience(KIND)? });
        match self.subject_claim.as_deref() {
            Some("") => {}
            chosen => body["subject_claim"] = chosen.unwrap_or(SUBJECT_CLAIM).into(),
        }
        if !self.claims.is_empty() {
            body["claims"] = self.claims.into();
        }
        if let Some(lifetime) = self.lifetime {
            body["lifetime"] = lifetime.0.as_secs().into();
        }
        let built = cx.clock.now().wall;
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(Buildkite { url, token: Secret::new(token), body: body.to_string(), built, timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        both_set(env, JOB, TOKEN)?;
        Ok(format!("{JOB} and the agent's token are set: a Buildkite job"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Buildkite {
    url: Url,
    token: Secret<String>,
    body: String,
    built: Timestamp,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Buildkite {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let header = Zeroizing::new(format!("Token {}", self.token.expose()));
        let http = &self.cx.http;
        let request = http
            .request(Destination::Network, Method::POST, self.url.clone())
            .header(AUTHORIZATION, header.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(self.body.clone());
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if !matches!(answer.status, 200 | 201) {
            let said = answer::json::<Refused>(SERVICE, &answer).ok().map(|refused| refused.message);
            let error = answer::refusal(SERVICE, &answer, said.as_deref());
            return Err(match error.kind {
                Kind::Rejected => error.hint(format_args!(
                    "the agent's token is valid only while the job that {JOB} names is running"
                )),
                _ => error,
            });
        }
        let minted: Minted = answer::json(SERVICE, &answer)?;
        let token = self.cx.identity(&minted.token, SERVICE, AUDIENCE_IGNORED)?;
        Ok(token.with_renewal(Renewal { outlook: self.outlook(), ..Renewal::default() }))
    }
}

impl Buildkite {
    /// The job's timeout, if it has one.
    fn outlook(&self) -> Option<Outlook> {
        let minutes: u32 =
            self.cx.env.var("BUILDKITE_TIMEOUT")?.parse().ok().filter(|minutes| *minutes > 0)?;
        let until = self.built + Duration::from_secs(60 * u64::from(minutes));
        let reason = format!(
            "estimate: Buildkite stops the job {minutes} min after its start, counted from the start of this daemon"
        );
        Some(Outlook { until, reason: Arc::from(reason) })
    }
}

#[derive(Deserialize)]
struct Minted {
    token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
}

const KIND: &str = "buildkite";
const SERVICE: &str = "Buildkite's agent API";
const JOB: &str = "BUILDKITE_JOB_ID";
const TOKEN: &str = "BUILDKITE_AGENT_ACCESS_TOKEN";
const ENDPOINT: &str = "BUILDKITE_AGENT_ENDPOINT";
const DEFAULT_ENDPOINT: &str = "https://agent.buildkite.com/v3";
const SUBJECT_CLAIM: &str = "pipeline_id";
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::context;

    fn build(config: Config, more: &[(&str, &str)]) -> Result<Buildkite, Error> {
        config.build(context(&[&[(JOB, "0189-job"), (TOKEN, "t")], more].concat()))
    }

    #[test]
    fn the_request_is_the_agents_own() {
        let provider = build(Config::default(), &[]).expect("built");
        assert_eq!(provider.url.as_str(), "https://agent.buildkite.com/v3/jobs/0189-job/oidc/tokens");
        let body: serde_json::Value = serde_json::from_str(&provider.body).expect("JSON");
        assert_eq!(body, json!({ "audience": "acme", "subject_claim": "pipeline_id" }));
    }

    #[test]
    fn the_compound_subject_and_a_lifetime_can_be_chosen() {
        let config = Config {
            subject_claim: Some(String::new()),
            claims: vec!["organization_id".into()],
            lifetime: Some(HumanDuration(Duration::from_secs(600))),
            timeout: None,
        };
        let body: serde_json::Value =
            serde_json::from_str(&build(config, &[]).expect("built").body).expect("JSON");
        assert_eq!(body, json!({ "audience": "acme", "claims": ["organization_id"], "lifetime": 600 }));
    }

    #[test]
    fn a_job_id_cannot_lead_the_request_elsewhere() {
        let provider = build(Config::default(), &[(JOB, "../../x?y")]).expect("built");
        assert_eq!(provider.url.path(), "/v3/jobs/..%2F..%2Fx%3Fy/oidc/tokens");
    }

    #[test]
    fn the_endpoint_is_https_or_this_machine() {
        assert!(build(Config::default(), &[(ENDPOINT, "http://127.0.0.1:1/v3/")]).is_ok());
        assert!(build(Config::default(), &[(ENDPOINT, "http://10.0.0.1/v3")]).is_err());
    }

    #[test]
    fn the_outlook_is_the_jobs_timeout_if_it_has_one() {
        let provider = build(Config::default(), &[("BUILDKITE_TIMEOUT", "90")]).expect("built");
        assert_eq!(provider.outlook().expect("known").until, provider.built + Duration::from_secs(5400));
        for none in ["false", "0"] {
            let provider = build(Config::default(), &[("BUILDKITE_TIMEOUT", none)]).expect("built");
            assert_eq!(provider.outlook(), None);
        }
    }
}
