//! `env`: a JWT in an environment variable, as CI systems hand one out.
//!
//! A process' environment is fixed at its start, so this source gives one token and then no other: its
//! outlook is the token's own expiry.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::{Error, Kind, Reason};
use crate::provider::{Context, Provider};
use crate::token::{Expires as _, IdentityToken, Outlook, Renewal};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The variable's name.
    pub variable: String,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<EnvVar, Error> {
        if self.variable.is_empty() || self.variable.contains(['=', '\0', '$']) {
            return Err(Error::misconfigured(format!(
                "provider env: `{}` is no variable name; give the name alone, without $",
                self.variable.escape_debug()
            )));
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
        once(&self.cx, &self.variable)
    }
}

/// The token in `variable`, announced as the only one there will be.
pub fn once(cx: &Context, variable: &str) -> Result<IdentityToken, Error> {
    let raw = cx.env.var(variable).ok_or_else(|| {
        let message = format!(
            "the variable {variable} is not set in the daemon's environment; set it before the daemon starts"
        );
        Error::misconfigured(message).because(Reason::Variable { name: variable.to_owned() })
    })?;
    let token =
        cx.parse(&raw, format_args!("the variable {variable}")).map_err(|error| match error.kind {
            // It cannot change any more: trying again cannot help.
            Kind::Transient => error.kind(Kind::Misconfigured),
            _ => error,
        })?;
    let outlook = Outlook {
        until: token.expiry().wall(),
        reason: format!("the identity token in {variable} cannot be renewed while the daemon runs").into(),
    };
    Ok(token.with_renewal(Renewal { outlook: Some(outlook), ..Renewal::default() }))
}
