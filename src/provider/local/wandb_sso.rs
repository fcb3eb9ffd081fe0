//! `wandb-sso`: the identity that `wandb login sso` keeps in its file.
//!
//! The file holds either a bare JWT or JSON with one account per server and organization. It is read and
//! never written: its refresh tokens rotate, and a rotating token has one owner, the `wandb` command. So once the
//! identity has expired, a person must sign in again.
//!
//! `iss`, `sub` and `aud` are those of the organization's own identity provider; a person's subject for W&B is
//! the email.
//!
//! ```toml
//! [profile.me.provider.wandb-sso]
//! path = "/home/me/.config/wandb/identity.json"   # else WANDB_IDENTITY_TOKEN_FILE
//! org = "acme"                                    # if the file has several accounts of one server
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::named_file::{self, VARIABLE};
use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Malformed, Reason};
use crate::provider::detect::Detect;
use crate::provider::files::{self, unusable};
use crate::provider::rotation::Rotation;
use crate::provider::settings::{expand_home, require_absolute};
use crate::provider::source::{Context, Provider};
use crate::read_file::off_thread;
use crate::token::IdentityToken;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The file, absolute or beginning with `~/`; by default what `WANDB_IDENTITY_TOKEN_FILE` names.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The organization, if the file has several accounts of one server.
    #[serde(default)]
    pub org: Option<String>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<WandbSso, Error> {
        let path = self.path.or_else(|| cx.env.var(VARIABLE).map(PathBuf::from)).ok_or_else(|| {
            let message = format!(
                "provider wandb-sso: no file is named; set `path` to the file that `wandb login sso` writes, or {VARIABLE}"
            );
            Error::setting("path", message)
        })?;
        let path = expand_home(&path, &cx.env);
        require_absolute("wandb-sso", "path", &path)?;
        Ok(WandbSso { path, org: self.org, rotation: Rotation::default(), cx })
    }
}

impl Detect for Config {
    /// A JSON file: a bare JWT is left to the `file` provider.
    fn in_environment(env: &Env) -> Result<String, String> {
        let content = named_file::path(env).ok().and_then(|path| files::read(&path).ok());
        match content {
            Some(content) if is_json(&content) => Ok(format!("{VARIABLE} names a file of `wandb login sso`")),
            _ => Err(format!("{VARIABLE} does not name a file of `wandb login sso`")),
        }
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct WandbSso {
    path: PathBuf,
    org: Option<String>,
    rotation: Rotation,
    cx: Context,
}

#[async_trait]
impl Provider for WandbSso {
    fn name(&self) -> &'static str {
        "wandb-sso"
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        Ok(self.rotation.note(self.read().await?, &self.path).await)
    }

    async fn restored(&self, token: IdentityToken) -> IdentityToken {
        self.rotation.note(token, &self.path).await
    }
}

impl WandbSso {
    async fn read(&self) -> Result<IdentityToken, Error> {
        let path = self.path.clone();
        let content = off_thread(&self.path, move || {
            files::read(&path).map_err(|error| match error.reason {
                Reason::File { fault: FileFault::Missing, .. } => {
                    let path = path.display();
                    let message =
                        format!("{path} does not exist: nobody has signed in; run: wandb login sso");
                    Error { message, ..error.kind(Kind::NeedsLogin) }
                }
                _ => error,
            })
        });
        let content = content.await?;
        if !is_json(&content) {
            return self.parse(&content, "the identity", &self.login(None));
        }
        let at = self.path.display();
        // The parser's text would quote the file, so only the place is shown. A half-written file may be whole next
        // time.
        let file: File = serde_json::from_str(&content).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!("{at} is not the JSON of `wandb login sso` (line {line}, column {column})");
            unusable(&self.path, FileFault::Malformed, message).kind(Kind::Transient)
        })?;
        if file.version != VERSION {
            let message = format!(
                "{at} has version {}, and this program knows version {VERSION}; update wandb-cred",
                file.version
            );
            return Err(unusable(&self.path, FileFault::Malformed, message));
        }
        let (key, account) = self.choose(&file)?;
        self.parse(&account.id_token, &format!("the account {key:?}"), &self.login(Some(account)))
    }

    fn parse(&self, raw: &str, what: &str, login: &str) -> Result<IdentityToken, Error> {
        let at = self.path.display();
        IdentityToken::parse_insecure(raw, self.cx.clock.now()).map_err(|how| match how {
            // Not `TokenExpired`: what helps is not a newer file or another clock, but signing in.
            Malformed::Expired { at: exp } => Error::needs_login(format!(
                "{what} in {at} expired at {exp}, and only `wandb` may refresh it; run: {login}"
            ))
            .because(Reason::SignedOut),
            // An empty file is one that is being rewritten.
            Malformed::Empty => {
                Error::transient(format!("{what} in {at}: {how}")).because(Reason::MalformedToken { how })
            }
            _ => Error::rejected(format!("{what} in {at}: {how}; run: {login}"))
                .because(Reason::MalformedToken { how }),
        })
    }

    /// The account of the profile's server (and organization), else the active one if no server is named.
    fn choose<'f>(&self, file: &'f File) -> Result<(&'f str, &'f Account), Error> {
        let at = self.path.display();
        let Some(base_url) = &self.cx.base_url else {
            let active = file.active.as_deref().and_then(|key| file.accounts.get_key_value(key));
            return active.map(|(key, account)| (key.as_str(), account)).ok_or_else(|| {
                let message = format!("{at} names no active account; run: {}", self.login(None));
                Error::needs_login(message).because(Reason::SignedOut)
            });
        };
        let ours: Vec<_> = file
            .accounts
            .iter()
            .filter(|(key, account)| same_host(account.host.as_deref().unwrap_or(host_of(key)), base_url))
            .filter(|(key, account)| match &self.org {
                Some(org) => account.org.as_deref().or(org_of(key)) == Some(org),
                None => true,
            })
            .collect();
        match ours[..] {
            [(key, account)] => Ok((key, account)),
            [] => Err(Error::needs_login(format!(
                "{at} has no account for {}; run: {}",
                base_url.host_str().unwrap_or_default(),
                self.login(None)
            ))
            .because(Reason::SignedOut)),
            _ => match ours.iter().find(|(key, _)| file.active.as_ref() == Some(*key)) {
                Some((key, account)) => Ok((key, account)),
                None => {
                    let keys: Vec<&str> = ours.iter().map(|(key, _)| key.as_str()).collect();
                    let message = format!(
                        "{at} has several accounts for this server ({}); set `org` in [profile.{}.provider.wandb-sso]",
                        keys.join(", "),
                        self.cx.profile
                    );
                    Err(Error::setting("org", message))
                }
            },
        }
    }

    /// The command to type.
    fn login(&self, account: Option<&Account>) -> String {
        let mut command = "wandb login sso".to_owned();
        let host = account.and_then(|account| account.host.clone());
        if let Some(host) = host.or_else(|| self.cx.base_url.as_ref().map(|url| url.as_str().to_owned())) {
            command.push_str(&format!(" --host {}", host.trim_end_matches('/')));
        }
        command
    }
}

#[derive(Deserialize)]
struct File {
    version: u32,
    active: Option<String>,
    accounts: BTreeMap<String, Account>,
}

/// What we need from an account. The refresh token is not even read.
#[derive(Deserialize)]
struct Account {
    id_token: Zeroizing<String>,
    host: Option<String>,
    org: Option<String>,
}

/// What `wandb login sso` writes is an object.
fn is_json(content: &str) -> bool {
    content.trim_start().starts_with('{')
}

/// Keys are `host` or `host#org`.
fn host_of(key: &str) -> &str {
    key.split_once('#').map_or(key, |(host, _)| host)
}

fn org_of(key: &str) -> Option<&str> {
    key.split_once('#').map(|(_, org)| org)
}

/// `host` may be written as a URL or as a bare host, with or without port.
fn same_host(host: &str, url: &Url) -> bool {
    let written = Url::parse(host).ok().filter(|url| url.has_host());
    let Some(written) = written.or_else(|| Url::parse(&format!("{}://{host}", url.scheme())).ok()) else {
        return false;
    };
    written.host() == url.host() && written.port_or_known_default() == url.port_or_known_default()
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::{context, jwt};

    async fn fetch(content: &str, base_url: Option<&str>, org: Option<&str>) -> Result<IdentityToken, Error> {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("identity.json");
        std::fs::write(&path, content).expect("written");
        let mut cx = context(&[]);
        cx.base_url = base_url.map(|url| url.parse().expect("a URL"));
        let config = Config { path: Some(path.clone()), org: org.map(str::to_owned) };
        let token = config.build(cx).expect("built").fetch().await;
        assert_eq!(std::fs::read_to_string(&path).expect("there"), content, "the file was changed");
        token
    }

    fn accounts(active: &str, accounts: &[(&str, i64)]) -> String {
        let accounts: serde_json::Map<_, _> = accounts
            .iter()
            .map(|(key, life)| {
                let id_token = jwt(*life, &format!(r#""sub":"{key}""#));
                let account = serde_json::json!({
                    "id_token": id_token, "refresh_token": "planted", "token_endpoint": "https://idp/token",
                    "client_id": "c", "host": host_of(key), "org": org_of(key),
                });
                ((*key).to_owned(), account)
            })
            .collect();
        serde_json::json!({ "version": 1, "active": active, "accounts": accounts }).to_string()
    }

    const CLOUD: Option<&str> = Some("https://api.wandb.ai");

    #[tokio::test]
    async fn the_account_of_the_profiles_server_is_chosen() {
        let file =
            accounts("https://other.example", &[("https://api.wandb.ai", 60), ("https://other.example", 60)]);
        let token = fetch(&file, CLOUD, None).await.expect("found");
        assert_eq!(token.claims().sub.as_deref(), Some("https://api.wandb.ai"));
        let token = fetch(&file, None, None).await.expect("the active one");
        assert_eq!(token.claims().sub.as_deref(), Some("https://other.example"));
    }

    #[tokio::test]
    async fn organizations_of_one_server_are_distinguished() {
        let file = accounts("none", &[("api.wandb.ai#acme", 60), ("api.wandb.ai#other", 60)]);
        let token = fetch(&file, CLOUD, Some("other")).await.expect("found");
        assert_eq!(token.claims().sub.as_deref(), Some("api.wandb.ai#other"));
        let error = fetch(&file, CLOUD, None).await.expect_err("two fit");
        assert!(error.kind == Kind::Misconfigured && error.message.contains("`org`"), "{error}");
        let active = accounts("api.wandb.ai#acme", &[("api.wandb.ai#acme", 60), ("api.wandb.ai#other", 60)]);
        let token = fetch(&active, CLOUD, None).await.expect("the active one decides");
        assert_eq!(token.claims().sub.as_deref(), Some("api.wandb.ai#acme"));
    }

    #[tokio::test]
    async fn what_only_a_person_can_fix_needs_a_login() {
        let key = "https://api.wandb.ai";
        for (content, base_url) in [
            (accounts(key, &[(key, -5)]), CLOUD),
            (accounts(key, &[(key, 60)]), Some("https://wandb.example")),
            (accounts("gone", &[(key, 60)]), None),
            (jwt(-5, ""), CLOUD),
        ] {
            let error = fetch(&content, base_url, None).await.expect_err("unusable");
            assert!(error.kind == Kind::NeedsLogin && error.message.contains("run: wandb login sso"));
            assert!(!error.to_string().contains("planted"));
        }
    }

    #[tokio::test]
    async fn a_bare_jwt_is_valid_too() {
        fetch(&format!("{}\n", jwt(60, "")), CLOUD, None).await.expect("a token");
    }

    #[tokio::test]
    async fn half_a_file_is_transient_and_another_version_is_not() {
        let whole = accounts("x", &[("x", 60)]);
        assert!(matches!(
            fetch(&whole[..whole.len() / 2], CLOUD, None).await,
            Err(Error { kind: Kind::Transient, .. })
        ));
        let next = whole.replacen("\"version\":1", "\"version\":2", 1);
        assert!(matches!(fetch(&next, CLOUD, None).await, Err(Error { kind: Kind::Misconfigured, .. })));
    }

    #[test]
    fn hosts_are_compared_as_hosts() {
        let url: Url = "https://api.wandb.ai".parse().expect("a URL");
        for same in ["api.wandb.ai", "https://API.wandb.ai/", "api.wandb.ai:443"] {
            assert!(same_host(same, &url), "{same}");
        }
        for other in ["api.wandb.ai.evil.example", "https://api.wandb.ai:8443", "wandb.ai", ""] {
            assert!(!same_host(other, &url), "{other}");
        }
    }
}
