//! `env`: a JWT in an environment variable, as CI systems hand one out.
//!
//! The environment of a process is fixed when it starts, so this source gives one token and then no other: its
//! outlook is the token's own expiry.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::Error;
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
        token_in(&self.cx, &self.variable)
    }

    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        only_one(token, &self.variable)
    }
}
