//! `gcp`: the identity of the service account that is attached to a Google Cloud machine, GKE pod, Cloud Run
//! service or the like, from the metadata server.
//!
//! The server mints a JWT of one hour per request, for any audience; no IAM permission is needed.
//! `iss` is `https://accounts.google.com`, `sub` the numeric ID of the service account, `email` its address.
//!
//! ```toml
//! [profile.work]
//! audience = "acme"
//! [profile.work.provider.gcp]
//! ```
//!
//! Honoured: `GCE_METADATA_HOST` (or the older `GCE_METADATA_ROOT`), `GCE_METADATA_IP` and `NO_GCE_CHECK` (both
//! for detection, as in google-auth), `GCE_METADATA_TIMEOUT`, `GCE_METADATA_MTLS_MODE`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use crate::config_types::Seconds;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::http::{Answer, Http, Reach, check_url};
use crate::provider::{Context, Provider, answer};
use crate::token::IdentityToken;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Address of the service account, where the machine has several; its default one otherwise.
    #[serde(default)]
    pub service_account: Option<String>,
    #[serde(default)]
    pub format: Format,
    /// Adds the licence codes of the machine's images to a full token.
    #[serde(default)]
    pub licenses: bool,
    /// Whether to speak mutual TLS with the metadata server; `GCE_METADATA_MTLS_MODE` otherwise, else not.
    #[serde(default)]
    pub mtls: Option<Mtls>,
    /// For one request; `GCE_METADATA_TIMEOUT` (whole seconds) otherwise, else 3 s.
    #[serde(default)]
    pub timeout: Option<Seconds>,
}

/// How much the token says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `sub` and `aud` only: W&B then sees the numeric ID and no address.
    Standard,
    /// With `email`, project, zone and instance. google-auth asks for this one.
    #[default]
    Full,
}

/// google-auth's three modes, under its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mtls {
    /// Plain http.
    None,
    /// mTLS where the guest agent has put certificates, and plain http should that fail.
    Default,
    /// mTLS or nothing.
    Strict,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Gcp, Error> {
        let account = self.service_account.as_deref().unwrap_or("default");
        // The account becomes a path segment.
        if account.is_empty() || !account.bytes().all(|b| b.is_ascii_alphanumeric() || b"@.-_:".contains(&b))
        {
            return Err(Error::misconfigured(
                "provider gcp: service-account must be an address such as name@project.iam.gserviceaccount.com",
            ));
        }
        if self.licenses && self.format == Format::Standard {
            return Err(Error::misconfigured("provider gcp: licenses = true needs format = \"full\""));
        }
        let mtls = match (self.mtls, cx.env.var("GCE_METADATA_MTLS_MODE")) {
            (Some(mode), _) => mode,
            (None, Some(mode)) => match mode.to_ascii_lowercase().as_str() {
                "none" => Mtls::None,
                "default" => Mtls::Default,
                "strict" => Mtls::Strict,
                _ => {
                    return Err(Error::misconfigured(
                        "GCE_METADATA_MTLS_MODE must be none, default or strict",
                    ));
                }
            },
            (None, None) => Mtls::None,
        };
        let audience = cx.require_audience(KIND)?;
        let mut url = base(&cx.env)?;
        let overridden = !url.host_str().is_some_and(|host| DEFAULT_HOSTS.contains(&host));
        if mtls == Mtls::Strict && overridden {
            return Err(Error::misconfigured(
                "provider gcp: mTLS is required, but GCE_METADATA_HOST names another metadata server, which has none",
            ));
        }
        url.set_path(&format!("/computeMetadata/v1/instance/service-accounts/{account}/identity"));
        let format = match self.format {
            Format::Standard => "standard",
            Format::Full => "full",
        };
        url.query_pairs_mut().append_pair("audience", audience).append_pair("format", format);
        if self.licenses {
            url.query_pairs_mut().append_pair("licenses", "TRUE");
        }
        let mtls = if overridden { Mtls::None } else { mtls };
        let timeout = self.timeout.map(|timeout| timeout.0).or_else(|| env_timeout(&cx.env));
        Ok(Gcp { url, mtls, mtls_dir: MTLS_DIR.into(), timeout: timeout.unwrap_or(TIMEOUT), cx })
    }
}

/// Why this is believed to be Google Cloud, if it is; asks nobody.
pub fn present(env: &Env) -> Option<String> {
    if no_check(env) {
        return None;
    }
    if let Some(name) = METADATA_HOST.iter().find(|name| env.var(name).is_some()) {
        return Some(format!("{name} is set"));
    }
    let product = std::fs::read_to_string(DMI_PRODUCT).ok()?;
    let product = product.trim();
    product.starts_with("Google").then(|| format!("{DMI_PRODUCT} says {product}"))
}

/// Asks the metadata address whether it is Google's, in half a second at most.
pub async fn probe(cx: &Context) -> Result<String, String> {
    if no_check(&cx.env) {
        return Err("NO_GCE_CHECK is true".into());
    }
    let host = cx.env.var("GCE_METADATA_IP").unwrap_or_else(|| METADATA_IP.into());
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| "GCE_METADATA_IP is no host".to_owned())?;
    let request = cx.http.request(Reach::Platform, Method::GET, url).header(FLAVOR, GOOGLE);
    let answer =
        cx.http.send(Reach::Platform, request, PROBE, MAX_ANSWER).await.map_err(|why| why.to_string())?;
    if answer.status == 200 && flavored(&answer) {
        Ok(format!("{host} answers as Google's metadata server"))
    } else {
        Err(format!("{host} answers, but not as Google's metadata server"))
    }
}

pub struct Gcp {
    url: Url,
    mtls: Mtls,
    mtls_dir: PathBuf,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Gcp {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let answer = match self.mutual_tls().await? {
            Some(http) => match self.ask(&http, "https").await {
                Ok(answer) if answer.status < 400 || self.mtls == Mtls::Strict => answer,
                Err(why) if self.mtls == Mtls::Strict => return Err(why),
                // As google-auth does: certificates may be there before the server is ready for them.
                _ => self.ask(&self.cx.http, "http").await?,
            },
            None => self.ask(&self.cx.http, "http").await?,
        };
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        let fix = "something between this machine and the metadata server changes requests";
        answer::identity(&self.cx, &answer.text(), SERVICE, fix)
    }
}

impl Gcp {
    async fn ask(&self, http: &Http, scheme: &str) -> Result<Answer, Error> {
        let mut url = self.url.clone();
        url.set_scheme(scheme).expect("http and https are of one kind");
        let request = http.request(Reach::Platform, Method::GET, url).header(FLAVOR, GOOGLE);
        http.send(Reach::Platform, request, self.timeout, MAX_ANSWER).await.map_err(|error| {
            match error.kind {
                Kind::Transient => error.context(SERVICE).hint("is this a Google Cloud machine?"),
                _ => error.context(SERVICE),
            }
        })
    }

    /// The client for mTLS, unless plain http is to be used. The files are read anew for each attempt: the
    /// guest agent replaces them every two days.
    async fn mutual_tls(&self) -> Result<Option<Http>, Error> {
        if self.mtls == Mtls::None {
            return Ok(None);
        }
        let (dir, http) = (self.mtls_dir.clone(), self.cx.http.clone());
        let loaded = tokio::task::spawn_blocking(move || load_mtls(&dir, &http)).await;
        let loaded = loaded.map_err(|_| Error::transient("reading the mTLS files was cut short"))?;
        match (loaded, self.mtls) {
            (Ok(http), _) => Ok(Some(http)),
            (Err(message), Mtls::Strict) => Err(Error::transient(format!(
                "{message}; mTLS is required: enable it for the machine (gcloud compute instances update NAME \
                 --metadata=disable-https-mds-setup=FALSE) or set mtls = \"default\""
            ))),
            (Err(_), _) => Ok(None),
        }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        match answer.status {
            404 => {
                let message = format!(
                    "{SERVICE} answered 404: no such service account here; attach one to the machine (gcloud compute \
                     instances set-service-account NAME --service-account=ADDRESS)"
                );
                if self.cx.env.var("KUBERNETES_SERVICE_HOST").is_some() {
                    // GKE's metadata server knows a pod only some seconds after the pod has started
                    // (googleapis/google-cloud-go#14349).
                    Error::transient(format!(
                        "{message}; on GKE, annotate the Kubernetes service account with \
                         iam.gke.io/gcp-service-account=ADDRESS"
                    ))
                } else {
                    Error::misconfigured(message)
                }
            }
            403 => Error::rejected(format!(
                "{SERVICE} answered 403: on GKE, allow the Kubernetes service account to act as the Google one \
                 (gcloud iam service-accounts add-iam-policy-binding ADDRESS --role=roles/iam.workloadIdentityUser \
                 --member=serviceAccount:PROJECT.svc.id.goog[NAMESPACE/NAME])"
            )),
            _ => answer::refusal(SERVICE, answer, None),
        }
    }
}

/// Scheme and host of the metadata server; refuses what plain http must not reach.
fn base(env: &Env) -> Result<Url, Error> {
    let (name, host) = METADATA_HOST
        .iter()
        .find_map(|name| Some((*name, env.var(name)?)))
        .unwrap_or(("the default", DEFAULT_HOSTS[0].into()));
    let no_host = || Error::misconfigured(format!("{name} must be a host, or host:port, without a scheme"));
    // A host and nothing else, or the rest would end up in the request.
    if host.contains(['/', '?', '#', '@', '\\']) {
        return Err(no_host());
    }
    let url = Url::parse(&format!("http://{host}")).map_err(|_| no_host())?;
    check_url(&url, Reach::Platform).map_err(|why| Error::misconfigured(format!("{name}: {why}")))?;
    Ok(url)
}

fn load_mtls(dir: &Path, http: &Http) -> Result<Http, String> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let (root, identity) = (read("root.crt")?, zeroize::Zeroizing::new(read("client.key")?));
    http.with_identity(&root, &identity).map_err(|why| why.to_string())
}

fn flavored(answer: &Answer) -> bool {
    answer.headers.get(FLAVOR).is_some_and(|value| value == GOOGLE)
}

fn env_timeout(env: &Env) -> Option<Duration> {
    env.var("GCE_METADATA_TIMEOUT")?.parse().ok().map(Duration::from_secs)
}

fn no_check(env: &Env) -> bool {
    env.var("NO_GCE_CHECK").is_some_and(|value| value == "true")
}

const KIND: &str = "gcp";
const SERVICE: &str = "the Google Cloud metadata server";
const METADATA_HOST: [&str; 2] = ["GCE_METADATA_HOST", "GCE_METADATA_ROOT"];
const DEFAULT_HOSTS: [&str; 2] = ["metadata.google.internal", METADATA_IP];
const METADATA_IP: &str = "169.254.169.254";
const FLAVOR: &str = "Metadata-Flavor";
const GOOGLE: &str = "Google";
const MTLS_DIR: &str = "/run/google-mds-mtls";
const DMI_PRODUCT: &str = "/sys/class/dmi/id/product_name";
const TIMEOUT: Duration = Duration::from_secs(3);
const PROBE: Duration = Duration::from_millis(500);
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::answer::test::context;

    fn build(vars: &[(&str, &str)], config: Config) -> Result<Gcp, Error> {
        config.build(context(vars))
    }

    #[test]
    fn the_request_is_google_auths() {
        let gcp = build(&[], Config::default()).expect("built");
        assert_eq!(
            gcp.url.as_str(),
            "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity\
             ?audience=acme&format=full"
        );
    }

    #[test]
    fn the_metadata_header_goes_to_no_public_host() {
        for host in ["203.0.113.5", "1.1.1.1:80", "evil@127.0.0.1", "127.0.0.1/x", "http://127.0.0.1", ""] {
            let built = build(&[("GCE_METADATA_HOST", host)], Config::default());
            assert_eq!(
                matches!(built, Err(Error { kind: Kind::Misconfigured, .. })),
                !host.is_empty(),
                "{host}"
            );
        }
        assert!(build(&[("GCE_METADATA_ROOT", "127.0.0.1:1")], Config::default()).is_ok());
    }

    #[test]
    fn an_account_is_no_path() {
        for account in ["", "../x", "a/b", "a?b"] {
            let config = Config { service_account: Some(account.into()), ..Config::default() };
            assert!(build(&[], config).is_err(), "{account}");
        }
    }

    #[tokio::test]
    async fn required_mtls_without_files_says_how_to_get_them() {
        let mut gcp = build(&[("GCE_METADATA_MTLS_MODE", "strict")], Config::default()).expect("built");
        gcp.mtls_dir = "/nonexistent".into();
        let error = gcp.fetch().await.expect_err("no files");
        assert!(error.to_string().contains("disable-https-mds-setup"), "{error}");
        assert!(build(&[("GCE_METADATA_MTLS_MODE", "x")], Config::default()).is_err());
        let other = [("GCE_METADATA_MTLS_MODE", "strict"), ("GCE_METADATA_HOST", "127.0.0.1")];
        assert!(build(&other, Config::default()).is_err(), "only the default host has mTLS");
    }
}
