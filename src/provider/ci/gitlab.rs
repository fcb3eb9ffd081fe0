//! `gitlab`: the ID token that a GitLab CI job gets in a variable.
//!
//! GitLab mints the token once, when the job starts. It lives as long as the job's timeout (5 minutes if there is none),
//! so the outlook is the token's own expiry.
//!
//! `iss` is the URL of the GitLab instance, `sub` is `project_path:GROUP/PROJECT:ref_type:branch:ref:BRANCH`
//! (it changes with the branch), `aud` is what the job's `id_tokens` says.
//!
//! ```toml
//! [profile.ci]
//! audience = "acme"
//! [profile.ci.provider.gitlab]
//! variable = "WANDB_ID_TOKEN"     # the name under `id_tokens:`; this one is the default
//! ```
//!
//! ```yaml
//! train:
//!   id_tokens:
//!     WANDB_ID_TOKEN:
//!       aud: acme
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;

use crate::env::Env;
use crate::error::Error;
use crate::provider::detect::{Detect, both_set};
use crate::provider::source::{Context, Provider};
use crate::provider::variable::token_in;
use crate::token::{Expires as _, IdentityToken, Outlook, Renewal};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The variable that the job's `id_tokens` names; `WANDB_ID_TOKEN` by default.
    #[serde(default)]
    pub variable: Option<String>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Gitlab, Error> {
        let variable = self.variable.unwrap_or_else(|| VARIABLE.to_owned());
        if cx.env.var(&variable).is_none() {
            let audience = cx.audience.as_deref().unwrap_or("YOUR_ORGANIZATION");
            let message = format!(
                "the variable {variable} is not set; add to the job: id_tokens: {{{variable}: {{aud: {audience}}}}}"
            );
            return Err(Error::variable(variable, message));
        }
        Ok(Gitlab { variable, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        both_set(env, "GITLAB_CI", VARIABLE)?;
        Ok(format!("GITLAB_CI and {VARIABLE} are set: a GitLab job with an ID token"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Gitlab {
    variable: String,
    cx: Context,
}

#[async_trait]
impl Provider for Gitlab {
    fn name(&self) -> &'static str {
        "gitlab"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let token = token_in(&self.cx, &self.variable)?;
        let (source, fix) =
            (format!("the variable {}", self.variable), "set `aud` under the job's `id_tokens`");
        self.cx.check_audience(&token, &source, fix)?;
        let outlook = self.outlook(token.expiry().wall());
        Ok(token.with_renewal(Renewal { outlook: Some(outlook), ..Renewal::default() }))
    }
}

impl Gitlab {
    fn outlook(&self, until: Timestamp) -> Outlook {
        let mut reason = "GitLab gives a job one ID token and mints no other while it runs".to_owned();
        if let Some(end) = self.job_end().filter(|end| until < *end) {
            reason.push_str(&format!("; the job itself may run until {end}"));
        }
        Outlook { until, reason: Arc::from(reason) }
    }

    /// When the job's timeout stops it; GitLab says so since 15.7.
    fn job_end(&self) -> Option<Timestamp> {
        let started: Timestamp = self.cx.env.var("CI_JOB_STARTED_AT")?.parse().ok()?;
        let timeout: i64 = self.cx.env.var("CI_JOB_TIMEOUT")?.parse().ok()?;
        started.checked_add(jiff::SignedDuration::from_secs(timeout)).ok()
    }
}

const VARIABLE: &str = "WANDB_ID_TOKEN";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Reason};
    use crate::provider::source::test::{context, jwt};

    #[tokio::test]
    async fn the_outlook_is_the_end_of_the_one_token() {
        let jwt = jwt(300, "");
        let cx = context(&[
            (VARIABLE, &jwt),
            ("CI_JOB_STARTED_AT", "2100-01-01T00:00:00Z"),
            ("CI_JOB_TIMEOUT", "3600"),
        ]);
        let token = Config::default().build(cx).expect("built").fetch().await.expect("a token");
        let outlook = token.renewal().outlook.expect("known from the first minute");
        assert_eq!(outlook.until, token.expiry().wall());
        assert!(outlook.reason.contains("2100-01-01T01:00:00Z"), "{}", outlook.reason);
    }

    #[tokio::test]
    async fn an_expired_token_is_final() {
        let jwt = jwt(-5, "");
        let provider = Config::default().build(context(&[(VARIABLE, &jwt)])).expect("built");
        assert!(matches!(
            provider.fetch().await,
            Err(Error { kind: Kind::Misconfigured, reason: Reason::TokenExpired { .. }, .. })
        ));
    }

    #[tokio::test]
    async fn a_token_for_another_audience_says_where_to_set_it() {
        let jwt = jwt(60, r#""aud":"https://gitlab.example""#);
        let provider = Config::default().build(context(&[(VARIABLE, &jwt)])).expect("built");
        let error = provider.fetch().await.expect_err("wrong audience").to_string();
        assert!(error.contains("id_tokens") && error.contains("https://gitlab.example"), "{error}");
    }

    #[test]
    fn a_job_without_the_variable_gets_the_lines_to_add() {
        let error = Config { variable: Some("MINE".into()) }.build(context(&[])).err().expect("not set");
        assert!(error.to_string().contains("id_tokens: {MINE: {aud: acme}}"), "{error}");
    }
}
