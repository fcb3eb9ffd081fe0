//! `vault`: an identity token of HashiCorp Vault or OpenBao, which are issuers themselves.
//!
//! Whoever has a Vault token gets a JWT about their Vault entity, from a role that the administrator has made:
//!
//! ```sh
//! vault write identity/oidc/key/wandb allowed_client_ids=acme
//! vault write identity/oidc/role/wandb key=wandb client_id=acme ttl=1h
//! ```
//!
//! `iss` is Vault's address with `/v1/identity/oidc` (or the configured `issuer`), which W&B must be able to reach; `sub` is
//! the entity's id, `aud` the role's `client_id`.
//!
//! The Vault token is looked for as the `vault` command does: `VAULT_TOKEN`, then the token helper that `~/.vault` names, then
//! `~/.vault-token`. OpenBao's names (`BAO_TOKEN`, `~/.bao`) go first, as in its own command.
//!
//! ```toml
//! [profile.work]
//! audience = "acme"
//! [profile.work.provider.vault]
//! role = "wandb"
//! address = "https://vault.example.com:8200"      # else VAULT_ADDR
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::duration::HumanDuration;
use crate::error::{Error, FileFault, Kind, Stage};
use crate::http::{Answer, Destination};
use crate::private_file::{self, Holds};
use crate::provider::settings::{expand_home, require_absolute, setting_url, variable_url};
use crate::provider::source::{Context, Provider};
use crate::provider::{answer, files, program};
use crate::read_file::off_thread;
use crate::token::IdentityToken;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The role under `identity/oidc/role/`.
    pub role: String,
    /// Vault's address; by default what `BAO_ADDR` or `VAULT_ADDR` says.
    #[serde(default)]
    pub address: Option<String>,
    /// By default what `BAO_NAMESPACE` or `VAULT_NAMESPACE` says, or none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// A file with the Vault token, such as the sink of Vault Agent; by default, where the `vault` command looks.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// For one request; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Vault, Error> {
        let first =
            |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, cx.env.var(name)?)));
        let mut url = match (&self.address, first(ADDRESS)) {
            (Some(address), _) => setting_url("address", address, Destination::Network)?,
            (None, Some((name, address))) => variable_url(name, &address, Destination::Network)?,
            (None, None) => {
                let message = "provider vault: set `address`, or VAULT_ADDR, to Vault's address";
                return Err(Error::setting("address", message));
            }
        };
        if self.role.is_empty() || self.role.contains('/') {
            let message = "provider vault: role must be the name of a role of identity/oidc/role/";
            return Err(Error::setting("role", message));
        }
        url.path_segments_mut()
            .map_err(|()| Error::setting("address", "provider vault: the address is not a URL with a path"))?
            .pop_if_empty()
            .extend(["v1", "identity", "oidc", "token", &self.role]);
        let token_file = self.token_file.map(|path| expand_home(&path, &cx.env));
        if let Some(path) = &token_file {
            require_absolute(KIND, "token-file", path)?;
        }
        let namespace = self.namespace.or_else(|| first(NAMESPACE).map(|(_, value)| value));
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(Vault { url, role: self.role, namespace, token_file, timeout, cx })
    }
}

pub struct Vault {
    url: Url,
    role: String,
    namespace: Option<String>,
    token_file: Option<PathBuf>,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Vault {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let token = self.vault_token().await?;
        let http = &self.cx.http;
        let mut request = http
            .request(Destination::Network, Method::GET, self.url.clone())
            .header("X-Vault-Token", token.trim())
            // Vault may require it, against requests that a confused server makes.
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        let answer = http.send(Destination::Network, request, self.timeout, MAX_ANSWER).await?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        let Minted { data } = answer::json(SERVICE, &answer)?;
        let fix = format!(
            "the audience is the role's client_id: vault write identity/oidc/role/{} client_id=AUDIENCE",
            self.role
        );
        self.cx.identity(&data.token, SERVICE, &fix)
    }
}

impl Vault {
    async fn vault_token(&self) -> Result<Zeroizing<String>, Error> {
        let env = &self.cx.env;
        if let Some(path) = &self.token_file {
            return files::read_off_thread(path).await;
        }
        if let Some(token) = TOKEN.into_iter().find_map(|name| env.var(name)) {
            return Ok(Zeroizing::new(token));
        }
        let Some(home) = env.path("HOME") else { return Err(no_token()) };
        if let Some(helper) = self.helper(home.clone()).await? {
            let argv = [helper, "get".to_owned()];
            let output = program::run(&argv, &BTreeMap::new(), HELPER_TIMEOUT).await?;
            let token = Zeroizing::new(String::from_utf8_lossy(&output.printed).trim().to_owned());
            return if token.is_empty() { Err(output.explain(no_token())) } else { Ok(token) };
        }
        files::read_off_thread(&home.join(".vault-token")).await.map_err(|error| match error.file_fault() {
            Some(FileFault::Missing) => no_token(),
            _ => error,
        })
    }

    /// The program that `token_helper` names in the command's own configuration, which is HCL: one line of it matters.
    async fn helper(&self, home: PathBuf) -> Result<Option<String>, Error> {
        let named = CONFIG_PATH.into_iter().find_map(|name| self.cx.env.path(name));
        let places = named.map_or_else(|| vec![home.join(".bao"), home.join(".vault")], |path| vec![path]);
        for path in places {
            let owned = path.clone();
            // It names a program that will be run.
            let read = off_thread(&path, move || {
                private_file::read(&owned, Holds::Programs, Stage::Identity, MAX_CONFIG)
            });
            match read.await {
                Ok(content) => return Ok(helper_in(&content.text)),
                Err(error) if error.file_fault() == Some(&FileFault::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let said = answer::json::<Refused>(SERVICE, answer).ok().map(|refused| refused.errors.join("; "));
        let error = answer::refusal(SERVICE, answer, said.as_deref());
        let role = &self.role;
        match (answer.status, said.as_deref().unwrap_or_default()) {
            (403, _) => error.hint(format_args!(
                "the Vault token has ended (sign in again: vault login), or its policy does not allow `read` on \
                 identity/oidc/token/{role}"
            )),
            (400, said) if said.contains("entity") => error.kind(Kind::Rejected).hint(
                "root tokens and tokens made by hand have no identity: sign in by an auth method (vault login -method=...)",
            ),
            (400 | 404, _) => error.hint(format_args!("is there a role {role}? vault list identity/oidc/role")),
            _ => error,
        }
    }
}

fn no_token() -> Error {
    let message = "no Vault token: VAULT_TOKEN is not set in the daemon's environment, and there is none in ~/.vault-token; \
                   run: vault login";
    Error::rejected(message)
}

fn helper_in(config: &str) -> Option<String> {
    config.lines().find_map(|line| {
        let value = line.trim().strip_prefix("token_helper")?.trim_start().strip_prefix('=')?.trim();
        let path = value.strip_prefix('"')?.split('"').next()?;
        // As the command: looking in PATH could find somebody else's program.
        path.starts_with('/').then(|| path.to_owned())
    })
}

#[derive(Deserialize)]
struct Minted {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Refused {
    errors: Vec<String>,
}

const KIND: &str = "vault";
const SERVICE: &str = "Vault";
const ADDRESS: [&str; 2] = ["BAO_ADDR", "VAULT_ADDR"];
const NAMESPACE: [&str; 2] = ["BAO_NAMESPACE", "VAULT_NAMESPACE"];
const TOKEN: [&str; 2] = ["BAO_TOKEN", "VAULT_TOKEN"];
const CONFIG_PATH: [&str; 2] = ["BAO_CONFIG_PATH", "VAULT_CONFIG_PATH"];
const TIMEOUT: Duration = Duration::from_secs(15);
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONFIG: u64 = 64 * 1024;
const MAX_ANSWER: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_an_absolute_path_in_the_configuration() {
        let line = |line: &str| helper_in(&format!("# c\n{line}\n"));
        assert_eq!(line("token_helper = \"/opt/helper\"  # c").as_deref(), Some("/opt/helper"));
        assert_eq!(line("  token_helper=\"/opt/two words\"").as_deref(), Some("/opt/two words"));
        for none in
            ["#token_helper = \"/x\"", "token_helper = \"x\"", "token_helper = \"\"", "other = \"/x\""]
        {
            assert_eq!(line(none), None, "{none}");
        }
    }
}
