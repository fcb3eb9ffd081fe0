//! `kubernetes`: a token of the pod's service account, projected into a file or asked of the API server.
//!
//! A projected token needs no rights: the kubelet mints it for the audience that the pod's manifest names and replaces
//! it at 80 % of its life. Without one, the pod's own account asks the API server for a token (TokenRequest), which
//! needs a role; the refusal names the commands that grant it. Only the cluster's own certificate is trusted.
//!
//! `iss` is the cluster's issuer, which W&B must be able to reach (EKS, GKE and AKS publish theirs), `sub` is
//! `system:serviceaccount:NAMESPACE:NAME`, `aud` is what the projection or the request says.
//!
//! ```toml
//! [profile.pod]
//! audience = "acme"
//! [profile.pod.provider.kubernetes]
//! path = "/var/run/secrets/wandb/token"    # the default; without such a file, TokenRequest
//! ```
//!
//! ```yaml
//! volumes:
//!   - name: wandb
//!     projected:
//!       sources: [{serviceAccountToken: {path: token, audience: acme, expirationSeconds: 3600}}]
//! containers:
//!   - volumeMounts: [{name: wandb, mountPath: /var/run/secrets/wandb}]
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use self::account::{Account, own_account, own_pod};
use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Reason};
use crate::http::Destination;
use crate::provider::answer;
use crate::provider::detect::Detect;
use crate::provider::files::read_off_thread;
use crate::provider::settings::require_absolute;
use crate::provider::source::{AUDIENCE_IGNORED, Context, Provider};
use crate::token::IdentityToken;

mod account;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The projected token; `/var/run/secrets/wandb/token` by default.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The folder of the pod's own account (`token`, `ca.crt`, `namespace`), if it is not in the usual place.
    #[serde(default)]
    pub account_dir: Option<PathBuf>,
    /// Ask for the token of this service account instead of the pod's own.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Its namespace; the pod's own by default.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Life of the token asked for: 1 h by default, 10 min at least.
    #[serde(default)]
    pub lifetime: Option<HumanDuration>,
    /// Bind the token asked for to this pod, so that it ends with it. On by default for the pod's own account.
    #[serde(default)]
    pub bind_to_pod: Option<bool>,
    /// For one request; 15 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Kubernetes, Error> {
        for (key, path) in [("path", &self.path), ("account-dir", &self.account_dir)] {
            path.as_deref().map_or(Ok(()), |path| require_absolute(KIND, key, path))?;
        }
        if self.lifetime.is_some_and(|lifetime| lifetime.0 < MIN_LIFETIME) {
            let message =
                format!("provider {KIND}: lifetime must be 10m or more; the API server refuses less");
            return Err(Error::setting("lifetime", message));
        }
        if let (Some(_), Some(account)) = (&self.path, &self.service_account) {
            let message = format!(
                "provider {KIND}: `path` reads a projected token, `service-account = {account:?}` asks for \
                 another; give one of the two"
            );
            return Err(Error::setting("service-account", message));
        }
        Ok(Kubernetes { config: self, cx })
    }
}

impl Detect for Config {
    /// Nobody mounts this token for anything but W&B.
    fn in_environment(_env: &Env) -> Result<String, String> {
        if Path::new(PROJECTED).exists() {
            return Ok(format!("{PROJECTED} exists: a projected service-account token"));
        }
        Err("no projected token is mounted for W&B".to_owned())
    }

    /// A pod that may be allowed to ask the API server.
    fn on_machine(env: &Env) -> Option<String> {
        env.var(HOST)?;
        let token = Path::new(ACCOUNT_DIR).join("token");
        token
            .exists()
            .then(|| format!("{HOST} is set and {} exists: a pod with a service account", token.display()))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

pub struct Kubernetes {
    config: Config,
    cx: Context,
}

#[async_trait]
impl Provider for Kubernetes {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        match &self.config.path {
            Some(path) => self.projected(path).await,
            None if self.config.service_account.is_none() && Path::new(PROJECTED).exists() => {
                self.projected(Path::new(PROJECTED)).await
            }
            None => self.request().await,
        }
    }
}

impl Kubernetes {
    /// Opens the path each time, so that the kubelet's swap of `..data` is followed.
    async fn projected(&self, path: &Path) -> Result<IdentityToken, Error> {
        let raw = read_off_thread(path).await?;
        let source = path.display().to_string();
        let token = self.cx.parse(&raw, &source).map_err(|error| match error.kind {
            // The kubelet replaces tokens atomically: this must be a half-written copy.
            Kind::Rejected => error.kind(Kind::Transient),
            _ => error,
        })?;
        let fix = "set `audience` in the pod's `serviceAccountToken` projection";
        self.cx.check_audience(&token, &source, fix)?;
        Ok(token)
    }

    /// One TokenRequest with the pod's own account.
    async fn request(&self) -> Result<IdentityToken, Error> {
        let audience = self.cx.require_audience(KIND)?;
        let dir = self.config.account_dir.as_deref().unwrap_or(Path::new(ACCOUNT_DIR));
        let own = read_off_thread(&dir.join("token")).await?;
        let root = read_off_thread(&dir.join("ca.crt")).await?;
        let account = self.account(&own, dir).await?;
        let url = self
            .api()?
            .join(&format!("api/v1/namespaces/{}/serviceaccounts/{}/token", account.namespace, account.name));
        let url = url.map_err(|_| {
            Error::setting("service-account", "the name of the service account does not fit in a URL")
        })?;

        let lifetime = self.config.lifetime.map_or(LIFETIME, |lifetime| lifetime.0);
        let mut spec = json!({ "audiences": [audience], "expirationSeconds": lifetime.as_secs() });
        if let Some(pod) = &account.pod {
            spec["boundObjectRef"] = pod.clone();
        }
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let http = self.cx.http.with_root(root.as_bytes())?;
        let bearer = Zeroizing::new(format!("Bearer {}", own.trim()));
        let request = http
            .request(Destination::Platform, Method::POST, url)
            .header(AUTHORIZATION, bearer.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let timeout = self.config.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        let answer = http.send(Destination::Platform, request, timeout, MAX_ANSWER).await?;
        if !matches!(answer.status, 200 | 201) {
            return Err(account.refused(SERVICE, &answer));
        }
        let granted: Granted = answer::json(SERVICE, &answer)?;
        self.cx.identity(&granted.status.token, SERVICE, AUDIENCE_IGNORED)
    }

    /// Whose token to ask for: the configured account, else the one in the pod's own token and folder.
    async fn account(&self, own: &str, dir: &Path) -> Result<Account, Error> {
        let claims = IdentityToken::parse_insecure(own, self.cx.clock.now()).map_err(|why| {
            let path = dir.join("token");
            Error::transient(format!("the pod's own token in {}: {why}", path.display()))
                .because(Reason::File { path, fault: FileFault::Malformed })
        })?;
        let claims = claims.claims();
        let own = own_account(claims);
        let namespace = match (&self.config.namespace, &own) {
            (Some(namespace), _) => namespace.clone(),
            (None, Some((namespace, _))) => namespace.clone(),
            (None, None) => read_off_thread(&dir.join("namespace")).await?.trim().to_owned(),
        };
        let name = match (&self.config.service_account, &own) {
            (Some(name), _) => name.clone(),
            (None, Some((_, name))) => name.clone(),
            (None, None) => {
                let message = format!(
                    "the pod's own token does not say which service account it is; set `service-account` in \
                     [profile.{}.provider.{KIND}]",
                    self.cx.profile
                );
                return Err(Error::setting("service-account", message));
            }
        };
        let pod = own_pod(claims);
        Account::new(namespace, name, own, pod, self.config.bind_to_pod)
    }

    fn api(&self) -> Result<Url, Error> {
        let host = self.cx.env.var(HOST).ok_or_else(|| {
            let message = format!(
                "no projected token at {PROJECTED}, and {HOST} is not set: this is not a pod; mount a projected \
                 token, or set `path`"
            );
            Error::variable(HOST, message)
        })?;
        let port = self.cx.env.var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = Url::parse(&format!("https://{host}:{port}/")).ok().filter(|url| url.path() == "/");
        url.ok_or_else(|| {
            Error::variable(HOST, format!("{HOST} and KUBERNETES_SERVICE_PORT do not form an address"))
        })
    }
}

#[derive(Deserialize)]
struct Granted {
    status: TokenStatus,
}

#[derive(Deserialize)]
struct TokenStatus {
    token: Zeroizing<String>,
}

const KIND: &str = "kubernetes";
const SERVICE: &str = "the Kubernetes API server";
const HOST: &str = "KUBERNETES_SERVICE_HOST";

/// Where the documentation has users mount a token for W&B.
const PROJECTED: &str = "/var/run/secrets/wandb/token";
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const LIFETIME: Duration = Duration::from_secs(3600);
const MIN_LIFETIME: Duration = Duration::from_secs(600);
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::provider::source::test::{context, jwt};

    fn at(path: PathBuf) -> Kubernetes {
        Config { path: Some(path), ..Config::default() }.build(context(&[])).expect("built")
    }

    /// Lays a projection as the kubelet does and returns the token's path.
    fn project(dir: &Path, version: &str, content: &str) -> PathBuf {
        std::fs::create_dir(dir.join(version)).expect("made");
        std::fs::write(dir.join(version).join("token"), content).expect("written");
        symlink(version, dir.join("..data_tmp")).expect("linked");
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).expect("swapped");
        if !dir.join("token").exists() {
            symlink("..data/token", dir.join("token")).expect("linked");
        }
        dir.join("token")
    }

    #[tokio::test]
    async fn the_kubelets_swap_is_followed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let provider = at(project(dir.path(), "..v1", &jwt(600, r#""aud":["acme"],"sub":"one""#)));
        assert_eq!(provider.fetch().await.expect("the first").claims().sub.as_deref(), Some("one"));
        project(dir.path(), "..v2", &jwt(600, r#""aud":["acme"],"sub":"two""#));
        assert_eq!(provider.fetch().await.expect("the second").claims().sub.as_deref(), Some("two"));
    }

    #[tokio::test]
    async fn a_half_written_or_missing_token_is_transient() {
        let dir = tempfile::tempdir().expect("temp dir");
        let whole = jwt(600, "");
        let path = dir.path().join("token");
        let provider = at(path.clone());
        assert!(matches!(provider.fetch().await, Err(Error { kind: Kind::Transient, .. })), "missing");
        for part in ["", &whole[..10], &whole[..whole.rfind('.').expect("a JWT") - 3]] {
            std::fs::write(&path, part).expect("written");
            let error = provider.fetch().await.expect_err("not whole");
            assert_eq!(error.kind, Kind::Transient, "{part}: {error}");
        }
        std::fs::write(&path, whole).expect("written");
        provider.fetch().await.expect("whole now");
    }

    #[tokio::test]
    async fn another_audience_is_for_the_pods_author_to_fix() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = project(dir.path(), "..v1", &jwt(600, r#""aud":["https://kubernetes.default.svc"]"#));
        let error = at(path).fetch().await.expect_err("for the API server");
        assert!(error.kind == Kind::Misconfigured && error.message.contains("serviceAccountToken"));
    }

    #[tokio::test]
    async fn the_account_and_its_pod_are_read_from_the_pods_own_token() {
        let own = jwt(
            600,
            r#""sub":"system:serviceaccount:ml:trainer","kubernetes.io":{"pod":{"name":"p-0","uid":"u-1"}}"#,
        );
        let ask = async |config: Config| {
            let provider = config.build(context(&[])).expect("built");
            provider.account(&own, Path::new("/nonexistent")).await
        };
        let account = ask(Config::default()).await.expect("known");
        assert_eq!((account.namespace.as_str(), account.name.as_str()), ("ml", "trainer"));
        assert_eq!(account.pod.expect("bound")["uid"], "u-1");
        let other = Config { service_account: Some("other".into()), ..Config::default() };
        let account = ask(other).await.expect("configured");
        assert_eq!((account.name.as_str(), &account.pod), ("other", &None));
        let evil = Config { service_account: Some("../../secrets".into()), ..Config::default() };
        assert!(ask(evil).await.is_err());
    }

    #[test]
    fn the_api_server_is_reached_by_https_and_ipv6_is_bracketed() {
        let api = |host, port| {
            let cx = context(&[(HOST, host), ("KUBERNETES_SERVICE_PORT", port)]);
            Config::default().build(cx).expect("built").api().map(String::from)
        };
        assert_eq!(api("10.0.0.1", "6443").expect("an address"), "https://10.0.0.1:6443/");
        assert_eq!(api("fd00::1", "443").expect("an address"), "https://[fd00::1]/");
        assert!(api("evil/path", "x").is_err());
    }
}
