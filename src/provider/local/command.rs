//! `command`: a program that prints the JWT, such as `gcloud auth print-identity-token`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::duration::HumanDuration;
use crate::error::{Error, ProgramFault, Reason};
use crate::provider::program::run;
use crate::provider::source::{Context, Provider};
use crate::token::IdentityToken;

pub mod answer;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The program and its arguments. No shell is involved.
    pub argv: Vec<String>,
    /// For one run, as "30s" or "2m"; 30 s by default, 100 s at most.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
    /// Variables to set for the program, on top of the daemon's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where the token is in JSON output, as "outer.inner"; without it, the usual names are tried.
    #[serde(default)]
    pub field: Option<String>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Command, Error> {
        if self.argv.first().is_none_or(|program| program.is_empty()) {
            let message = "provider command: argv is empty; give the program and its arguments";
            return Err(Error::setting("argv", message));
        }
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            let most = MAX_TIMEOUT.as_secs();
            let message = format!("provider command: timeout must be between 1s and {most}s");
            return Err(Error::setting("timeout", message));
        }
        Ok(Command { argv: self.argv, timeout, env: self.env, field: self.field, cx })
    }
}

pub struct Command {
    argv: Vec<String>,
    timeout: Duration,
    env: BTreeMap<String, String>,
    field: Option<String>,
    cx: Context,
}

#[async_trait]
impl Provider for Command {
    fn name(&self) -> &'static str {
        "command"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let output = run(&self.argv, &self.env, self.timeout).await?;
        let program = &self.argv[0];
        let reason = Reason::Program { program: program.clone(), fault: ProgramFault::NoToken };
        let parsed = match answer::token(&output.printed, self.field.as_deref()) {
            Ok(raw) => self.cx.parse(&raw, format_args!("the output of {program}")),
            Err(why) => Err(Error::rejected(format!("the output of {program} {why}")).because(reason)),
        };
        parsed.map_err(|error| output.explain(error))
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Below the keeper's own deadline for an attempt.
const MAX_TIMEOUT: Duration = Duration::from_secs(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::provider::source::test::{context, jwt};

    async fn fetch(script: &str) -> Result<IdentityToken, Error> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let config = Config { argv, timeout: None, env: BTreeMap::new(), field: None };
        config.build(context(&[])).expect("built").fetch().await
    }

    #[tokio::test]
    async fn a_helper_that_fails_with_status_0_keeps_its_reason() {
        for script in [
            "echo 'ERROR: no session' >&2",
            "echo 'ERROR: no session' >&2; echo '{}'",
            "echo 'ERROR: no session' >&2; echo '{\"token\":'",
            "echo 'ERROR: no session' >&2; echo none",
            "echo '{\"success\":false,\"code\":\"401\",\"message\":\"no session\"}'",
        ] {
            let error = fetch(script).await.expect_err("no token");
            assert!(error.message.contains("no session"), "{script}: {error}");
        }
        assert_eq!(fetch("echo '{\"success\":false}'").await.expect_err("refused").kind, Kind::Rejected);
    }

    #[tokio::test]
    async fn a_jwt_is_taken_out_of_what_is_around_it() {
        let jwt = jwt(60, "");
        for script in [
            format!("printf '\\357\\273\\277Bearer {jwt}\\r\\n'"),
            format!("echo '\"{jwt}\"'"),
            format!("echo '{{\"accessToken\":\"opaque\",\"idToken\":\"{jwt}\"}}'"),
        ] {
            fetch(&script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        }
    }
}
