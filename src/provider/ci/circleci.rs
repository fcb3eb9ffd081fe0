//! `circleci`: the ID token of a CircleCI job, from its variable or minted by CircleCI's command.
//!
//! The variable `CIRCLE_OIDC_TOKEN_V2` is for the audience of the CircleCI organization's id and lives an
//! hour. Another audience comes only from `circleci run oidc get`, which is on every CircleCI executor and can
//! be asked again. The variable is used if its audience is the profile's, or the profile names none.
//!
//! `iss` is `https://oidc.circleci.com/org/ORG_ID`, `sub` is `org/ORG_ID/project/PROJECT_ID/user/USER_ID`
//! (with `/vcs-origin/.../vcs-ref/...` in version 2 tokens).
//!
//! ```toml
//! [profile.ci]
//! audience = "acme"
//! [profile.ci.provider.circleci]
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use crate::env::Env;
use crate::error::Error;
use crate::provider::detect::{Detect, both_set};
use crate::provider::program::run;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::provider::variable::token_in;
use crate::token::{self, Expires as _, IdentityToken, Outlook, Renewal};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The command that mints tokens; `circleci` by default.
    #[serde(default)]
    pub program: Option<String>,
    /// Where the token comes from; by default the audience decides.
    #[serde(default)]
    pub source: Option<Source>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `CIRCLE_OIDC_TOKEN_V2`, else `CIRCLE_OIDC_TOKEN`.
    Variable,
    /// `circleci run oidc get`.
    Command,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Circleci, Error> {
        let variable = VARIABLES.into_iter().find(|name| cx.env.var(name).is_some());
        if variable.is_none() && self.source != Some(Source::Command) {
            let name = VARIABLES[0];
            let message = format!(
                "{name} is not set: this is not a job of CircleCI, or the job has no context (CircleCI gives ID tokens \
                 only to jobs with at least one context)"
            );
            return Err(Error::variable(name, message));
        }
        let program = self.program.unwrap_or_else(|| "circleci".to_owned());
        Ok(Circleci { program, source: self.source, variable, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        let variable = VARIABLES.into_iter().find(|name| env.var(name).is_some()).unwrap_or(VARIABLES[0]);
        both_set(env, "CIRCLECI", variable)?;
        Ok(format!("CIRCLECI and {variable} are set: a CircleCI job with an ID token"))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Circleci {
    program: String,
    source: Option<Source>,
    variable: Option<&'static str>,
    cx: Context,
}

#[async_trait]
impl Provider for Circleci {
    fn name(&self) -> &'static str {
        "circleci"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        match (self.source, self.variable, &self.cx.audience) {
            (Some(Source::Command), ..) => self.mint().await,
            (Some(Source::Variable), Some(variable), _) | (None, Some(variable), None) => self.read(variable),
            (None, Some(variable), Some(_)) => match self.read(variable) {
                // For another audience, or expired: the command mints a new one.
                Err(_) => self.mint().await,
                token => token,
            },
            (_, None, _) => Err(Error::variable(VARIABLES[0], format!("{} is not set", VARIABLES[0]))),
        }
    }
}

impl Circleci {
    fn read(&self, variable: &str) -> Result<IdentityToken, Error> {
        let token = token_in(&self.cx, variable)?;
        let fix = "remove `source = \"variable\"`, so that `circleci run oidc get` mints a token for it";
        self.cx.check_audience(&token, &format!("the variable {variable}"), fix)?;
        let reason = format!("CircleCI sets {variable} once for the job and does not renew it");
        let outlook = Outlook { until: token.expiry().wall(), reason: Arc::from(reason) };
        Ok(token.with_renewal(Renewal { outlook: Some(outlook), ..Renewal::default() }))
    }

    async fn mint(&self) -> Result<IdentityToken, Error> {
        let claims = json!({ "aud": self.cx.require_audience("circleci")? }).to_string();
        let argv = [&self.program, "run", "oidc", "get", "--claims", &claims].map(str::to_owned);
        let output = run(&argv, &BTreeMap::new(), TIMEOUT).await?;
        let text = token::text::of_bytes(&output.printed).unwrap_or_default();
        let token = self.cx.parse(&text, "circleci run oidc get").map_err(|error| output.explain(error))?;
        self.cx.check_audience(&token, "circleci run oidc get", AUDIENCE_IGNORED)?;
        Ok(token)
    }
}

/// Version 2 names the branch in `sub`; both are set.
const VARIABLES: [&str; 2] = ["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"];
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Kind;
    use crate::provider::source::test::{context, jwt};

    /// A stand-in for CircleCI's command: mints only when asked the documented way.
    fn program(dir: &Path) -> Config {
        let path = dir.join("circleci");
        let want = r#"run oidc get --claims {"aud":"acme"}"#;
        let script = format!("#!/bin/sh\n[ \"$*\" = '{want}' ] || exit 2\necho {}\n", jwt(3600, ""));
        // Written by another process: a descriptor of ours, open for writing while another test forks, would
        // make the script "busy".
        let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let status = std::process::Command::new("sh")
            .args(["-c", write, "sh", &script])
            .arg(&path)
            .status()
            .expect("sh runs");
        assert!(status.success());
        Config { program: Some(path.display().to_string()), source: None }
    }

    #[tokio::test]
    async fn the_variable_is_used_where_its_audience_fits() {
        let jwt = jwt(3600, "");
        let provider = Config::default().build(context(&[(VARIABLES[1], &jwt)])).expect("built");
        let token = provider.fetch().await.expect("a token");
        assert_eq!(token.renewal().outlook.expect("one token only").until, token.expiry().wall());
    }

    #[tokio::test]
    async fn another_audience_comes_from_the_command_and_can_be_minted_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let jwt = jwt(3600, r#""aud":"0f3c-org-id""#);
        let provider = program(dir.path()).build(context(&[(VARIABLES[0], &jwt)])).expect("built");
        let token = provider.fetch().await.expect("minted");
        assert_eq!(token.claims().aud, ["acme"]);
        assert_eq!(token.renewal().outlook, None);
    }

    #[tokio::test]
    async fn a_missing_command_is_named() {
        let jwt = jwt(3600, r#""aud":"0f3c-org-id""#);
        let config = Config { program: Some("/nonexistent/circleci".into()), source: None };
        let provider = config.build(context(&[(VARIABLES[0], &jwt)])).expect("built");
        let error = provider.fetch().await.expect_err("no command");
        assert!(error.kind == Kind::Misconfigured && error.message.contains("/nonexistent/circleci"));
    }

    #[test]
    fn a_job_without_a_context_learns_that_it_needs_one() {
        let error = Config::default().build(context(&[("CIRCLECI", "true")])).err().expect("no variable");
        assert!(error.to_string().contains("context"), "{error}");
    }
}
