//! `env`: a JWT in an environment variable, as CI systems hand one out.
//!
//! The environment of a process is fixed when it starts, so this source gives one token and then no other: its
//! outlook is the token's own expiry.

use async_trait::async_trait;
use serde::Deserialize;

use super::known_variables::{KNOWN, named};
use crate::env::Env;
use crate::error::Error;
use crate::provider::detect::Detect;
use crate::provider::source::{Context, Provider};
use crate::provider::variable::{only_one, token_in};
use crate::token::IdentityToken;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The variable's name.
    pub variable: String,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<EnvVar, Error> {
        if self.variable.is_empty() || self.variable.contains(['=', '\0', '$']) {
            let message = format!(
                "provider env: `{}` is not a variable name; give the name alone, without $",
                self.variable.escape_debug()
            );
            return Err(Error::setting("variable", message));
        }
        Ok(EnvVar { variable: self.variable, cx })
    }
}

/// The variables of platforms that have no provider of their own.
impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        let Some(known) = KNOWN.iter().find(|known| env.var(known.name).is_some()) else {
            let names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
            return Err(format!("none of {} is set", names.join(", ")));
        };
        let mut found = format!("{} is set: {} ({})", known.name, known.platform, known.subject);
        if let Some(changes) = known.changes_with {
            found += &format!(
                "; but its subject changes with {changes}, and W&B cannot match such a subject to a service account"
            );
        }
        Ok(found)
    }

    fn detected(env: &Env) -> Self {
        let known = KNOWN.iter().find(|known| env.var(known.name).is_some());
        Self { variable: known.unwrap_or(&KNOWN[0]).name.to_owned() }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("variable", self.variable.clone())]
    }
}

pub struct EnvVar {
    variable: String,
    cx: Context,
}

#[async_trait]
impl Provider for EnvVar {
    fn name(&self) -> &'static str {
        "env"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let token = token_in(&self.cx, &self.variable)?;
        if let Some(known) = named(&self.variable) {
            let source = format!("the variable {}, {}'s", self.variable, known.platform);
            self.cx.check_audience(&token, &source, &format!("its audience is {}", known.audience))?;
        }
        Ok(token)
    }

    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        only_one(token, &self.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::provider::source::test::{context, jwt};

    const MODAL: &str = "MODAL_IDENTITY_TOKEN";

    #[test]
    fn a_subject_that_w_and_b_cannot_match_is_said_when_it_is_found() {
        let found = Config::in_environment(&context(&[(MODAL, "x")]).env).expect("found");
        assert!(found.contains("Modal") && found.contains("cannot match"), "{found}");
        let found = Config::in_environment(&context(&[("VERCEL_OIDC_TOKEN", "x")]).env).expect("found");
        assert!(!found.contains("cannot match"), "{found}");
        assert!(Config::in_environment(&context(&[("OTHER_TOKEN", "x")]).env).is_err());
    }

    #[tokio::test]
    async fn a_known_variable_says_what_its_audience_is() {
        let jwt = jwt(60, r#""aud":"oidc.modal.com""#);
        let fetch = async |variable: &str| {
            let config = Config { variable: variable.to_owned() };
            config.build(context(&[(variable, &jwt)])).expect("built").fetch().await
        };
        let error = fetch(MODAL).await.expect_err("another audience");
        assert!(matches!(error.reason, Reason::AudienceMismatch { .. }), "{error:?}");
        assert!(error.message.contains("always oidc.modal.com"), "{error}");
    }
}
