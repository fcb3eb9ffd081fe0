//! `command`: a program that prints the JWT, such as `gcloud auth print-identity-token`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::error::{Error, ProgramFault, Reason};
use crate::provider::program::run;
use crate::provider::source::{Context, Provider};
use crate::token::IdentityToken;

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
        let stdout = run(&self.argv, &self.env, self.timeout).await?;
        let program = &self.argv[0];
        let raw = extract(&stdout, self.field.as_deref()).map_err(|why| {
            let reason = Reason::Program { program: program.clone(), fault: ProgramFault::NoToken };
            Error::rejected(format!("the output of {program} {why}")).because(reason)
        })?;
        self.cx.parse(&raw, format_args!("the output of {program}"))
    }
}

/// A bare JWT, or JSON that holds one.
pub fn extract(stdout: &[u8], field: Option<&str>) -> Result<Zeroizing<String>, String> {
    let text = std::str::from_utf8(stdout).map_err(|_| "is not text".to_owned())?.trim();
    if !text.starts_with('{') && field.is_none() {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| "is not valid JSON".to_owned())?;
    let found = match field {
        Some(field) => json.pointer(&format!("/{}", field.replace('.', "/"))),
        None => USUAL_FIELDS.iter().find_map(|pointer| json.pointer(pointer)),
    };
    let token = found.and_then(|value| value.as_str()).map(|token| Zeroizing::new(token.to_owned()));
    token.ok_or_else(|| match field {
        Some(field) => format!("is JSON without a string at `{field}`"),
        None => "is JSON without a token in any usual field; set `field` to where it is".to_owned(),
    })
}

/// `id_token` (AIP-4117 executables, OAuth answers), `token`, `access_token`, kubectl's ExecCredential.
const USUAL_FIELDS: [&str; 6] =
    ["/id_token", "/identity_token", "/token", "/access_token", "/status/token", "/value"];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Below the keeper's own deadline for an attempt.
const MAX_TIMEOUT: Duration = Duration::from_secs(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_bare_and_in_json() {
        let at = |text: &str, field| extract(text.as_bytes(), field).map(|token| token.to_string());
        assert_eq!(at(" a.b.c \n", None).as_deref(), Ok("a.b.c"));
        assert_eq!(at(r#"{"status":{"token":"t"}}"#, None).as_deref(), Ok("t"));
        assert_eq!(at(r#"{"x":{"y":"t"}}"#, Some("x.y")).as_deref(), Ok("t"));
        assert!(at(r#"{"x":1}"#, None).is_err());
        assert!(at("{", None).is_err());
    }
}
