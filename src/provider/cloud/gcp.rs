//! `gcp`: the identity of a Google service account: of the one that is attached to a Google Cloud machine, GKE pod, Cloud
//! Run service or the like, from the metadata server; or of any other that a user, or the attached account, may act as.
//!
//! The server mints a JWT of one hour per request, for any audience; no IAM permission is needed. Acting as another account
//! (`impersonation`) needs one. Application Default Credentials in a file go before the metadata server, as in Google's own
//! libraries: with `service-account`, or if the file itself names the account (`--impersonate-service-account`).
//!
//! `iss` is `https://accounts.google.com`, `sub` the numeric ID of the service account, `email` its address.
//!
//! ```toml
//! [profile.work]
//! audience = "acme"
//! [profile.work.provider.gcp]
//! ```
//!
//! Read from the environment: `GOOGLE_APPLICATION_CREDENTIALS`, `CLOUDSDK_CONFIG`, `GCE_METADATA_HOST` (or the older `GCE_METADATA_ROOT`), `GCE_METADATA_IP` and `NO_GCE_CHECK` (both
//! for detection, as in google-auth), `GCE_METADATA_TIMEOUT`, `GCE_METADATA_MTLS_MODE`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use url::Url;

use self::adc::{Adc, is_account};
use self::impersonation::Services;
use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, FileFault, Kind, Reason};
use crate::http::{Answer, Destination, Http};
use crate::provider::answer;
use crate::provider::detect::{Detect, Probe, any_set, firmware};
use crate::provider::files::unusable;
use crate::provider::settings::variable_url;
use crate::provider::source::{Context, Provider};
use crate::read_file::{self, off_thread};
use crate::token::IdentityToken;

mod adc;
mod impersonation;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Address of the service account: one of the machine's, or one to act as. The machine's default one otherwise.
    #[serde(default)]
    pub service_account: Option<String>,
    #[serde(default)]
    pub format: Format,
    /// Adds the licence codes of the machine's images to a full token.
    #[serde(default)]
    pub licenses: bool,
    /// Whether to use mutual TLS with the metadata server; by default what `GCE_METADATA_MTLS_MODE` says, or not at all.
    #[serde(default)]
    pub mtls: Option<Mtls>,
    /// For one request; by default `GCE_METADATA_TIMEOUT` (whole seconds), or 3 s.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
    /// Google's token service, where another address leads to it (Private Service Connect).
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// The IAM Credentials API, likewise.
    #[serde(default)]
    pub iam_endpoint: Option<String>,
}

/// Which claims the token has.
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
    /// mTLS if the guest agent has put certificates there, and plain http if that fails.
    Default,
    /// mTLS or nothing.
    Strict,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Gcp, Error> {
        let account = self.service_account.as_deref().unwrap_or("default");
        if !is_account(account) {
            let message = "provider gcp: service-account must be an address such as name@project.iam.gserviceaccount.com";
            return Err(Error::setting("service-account", message));
        }
        if self.licenses && self.format == Format::Standard {
            return Err(Error::setting("licenses", "provider gcp: licenses = true needs format = \"full\""));
        }
        let mtls = match (self.mtls, cx.env.var(MTLS_MODE)) {
            (Some(mode), _) => mode,
            (None, Some(mode)) => match mode.to_ascii_lowercase().as_str() {
                "none" => Mtls::None,
                "default" => Mtls::Default,
                "strict" => Mtls::Strict,
                _ => {
                    let message = format!("{MTLS_MODE} must be none, default or strict");
                    return Err(Error::variable(MTLS_MODE, message));
                }
            },
            (None, None) => Mtls::None,
        };
        let audience = cx.require_audience(KIND)?;
        let mut url = base(&cx.env)?;
        let overridden = !url.host_str().is_some_and(|host| DEFAULT_HOSTS.contains(&host));
        if mtls == Mtls::Strict && overridden {
            let message = "provider gcp: mTLS is required, but GCE_METADATA_HOST names another metadata server, which has none";
            return Err(Error::setting("mtls", message));
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
        let timeout = self.timeout.map(|timeout| timeout.0);
        let services = Services::new(self.token_endpoint.as_deref(), self.iam_endpoint.as_deref(), timeout)?;
        let timeout = timeout.or_else(|| env_timeout(&cx.env)).unwrap_or(TIMEOUT);
        let audience = audience.to_owned();
        let (account, adc) = (self.service_account, adc::place(&cx.env));
        Ok(Gcp { url, audience, account, adc, services, mtls, mtls_dir: MTLS_DIR.into(), timeout, cx })
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        any_set(env, &METADATA_HOST)
    }

    fn on_machine(env: &Env) -> Option<String> {
        let acts_as = adc::place(env).and_then(|path| Some((adc::impersonates(&path)?, path)));
        if let Some((account, path)) = acts_as {
            return Some(format!("{} is for acting as {account}", path.display()));
        }
        if no_check(env) {
            return None;
        }
        let product = firmware(DMI_PRODUCT)?;
        product.starts_with("Google").then(|| format!("{DMI_PRODUCT} says {product}"))
    }

    fn probe(cx: Context) -> Option<Probe> {
        Some(Box::pin(async move { probe(&cx).await }))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

/// Asks the metadata address whether it is Google's; half a second at most.
pub async fn probe(cx: &Context) -> Result<String, String> {
    if no_check(&cx.env) {
        return Err("NO_GCE_CHECK is true".into());
    }
    let host = cx.env.var("GCE_METADATA_IP").unwrap_or_else(|| METADATA_IP.into());
    let url =
        Url::parse(&format!("http://{host}/")).map_err(|_| "GCE_METADATA_IP is not a host".to_owned())?;
    let request = cx.http.request(Destination::Platform, Method::GET, url).header(FLAVOR, GOOGLE);
    let answer = cx
        .http
        .send(Destination::Platform, request, PROBE_TIMEOUT, MAX_ANSWER)
        .await
        .map_err(|why| why.to_string())?;
    if answer.status == 200 && is_google(&answer) {
        Ok(format!("{host} answers as Google's metadata server"))
    } else {
        Err(format!("{host} answers, but not as Google's metadata server"))
    }
}

pub struct Gcp {
    url: Url,
    audience: String,
    /// As the configuration names it.
    account: Option<String>,
    /// Where Application Default Credentials may be.
    adc: Option<PathBuf>,
    services: Services,
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
        if let Some((adc, account)) = self.user().await? {
            let caller = self.services.user(&self.cx, &adc).await?;
            let (services, audience) = (&self.services, &self.audience);
            return services.id_token(&self.cx, &caller, &account, &adc.delegates, audience).await;
        }
        let answer = self.metadata(&self.url).await?;
        match (answer.status, &self.account) {
            (200, _) => {
                let fix = "something between this machine and the metadata server changes requests";
                self.cx.identity(&answer.text(), SERVICE, fix)
            }
            // Not one of the machine's own, so one to act as.
            (404, Some(account)) => self.act_as(account, &answer).await,
            _ => Err(self.refusal(&answer)),
        }
    }
}

impl Gcp {
    /// The user's credentials and the account to act as, if both are known.
    async fn user(&self) -> Result<Option<(Adc, String)>, Error> {
        let Some(path) = &self.adc else { return Ok(None) };
        match (adc::read(path).await, &self.account) {
            (Ok(Some(mut adc)), Some(account)) => {
                // They lead to the account that the file names.
                if adc.account.as_ref() != Some(account) {
                    adc.delegates.clear();
                }
                Ok(Some((adc, account.clone())))
            }
            (Ok(Some(mut adc)), None) => Ok(adc.account.take().map(|account| (adc, account))),
            (Err(error), Some(_)) => Err(error),
            // It is not what this machine's own account needs.
            (Ok(None), _) | (Err(_), None) => Ok(None),
        }
    }

    async fn act_as(&self, account: &str, missing: &Answer) -> Result<IdentityToken, Error> {
        let mut url = self.url.clone();
        url.set_path("/computeMetadata/v1/instance/service-accounts/default/token");
        url.set_query(None);
        let answer = self.metadata(&url).await?;
        if answer.status != 200 {
            return Err(self.refusal(missing));
        }
        let caller = impersonation::attached(SERVICE, &answer)?;
        self.services.id_token(&self.cx, &caller, account, &[], &self.audience).await
    }

    async fn metadata(&self, url: &Url) -> Result<Answer, Error> {
        Ok(match self.mutual_tls().await? {
            Some(http) => match self.ask(&http, url, "https").await {
                Ok(answer) if answer.status < 400 || self.mtls == Mtls::Strict => answer,
                Err(why) if self.mtls == Mtls::Strict => return Err(why),
                // As google-auth does: certificates may be there before the server is ready for them.
                _ => self.ask(&self.cx.http, url, "http").await?,
            },
            None => self.ask(&self.cx.http, url, "http").await?,
        })
    }

    async fn ask(&self, http: &Http, url: &Url, scheme: &str) -> Result<Answer, Error> {
        let mut url = url.clone();
        url.set_scheme(scheme).expect("http and https are both special schemes");
        let request = http.request(Destination::Platform, Method::GET, url).header(FLAVOR, GOOGLE);
        http.send(Destination::Platform, request, self.timeout, MAX_ANSWER).await.map_err(|error| match error
            .kind
        {
            Kind::Transient => error.context(SERVICE).hint(
                "is this a Google Cloud machine? elsewhere, set service-account, to act as that account by `gcloud auth \
                 application-default login`",
            ),
            _ => error.context(SERVICE),
        })
    }

    /// The client for mTLS, unless plain http is to be used. The files are read again for each attempt: the
    /// guest agent replaces them every two days.
    async fn mutual_tls(&self) -> Result<Option<Http>, Error> {
        if self.mtls == Mtls::None {
            return Ok(None);
        }
        let (dir, http) = (self.mtls_dir.clone(), self.cx.http.clone());
        let loaded = off_thread(&self.mtls_dir, move || load_mtls(&dir, &http)).await;
        match (loaded, self.mtls) {
            (Ok(http), _) => Ok(Some(http)),
            (Err(error), Mtls::Strict) => Err(error.kind(Kind::Transient).hint(
                "mTLS is required: enable it for the machine (gcloud compute instances update NAME \
                 --metadata=disable-https-mds-setup=FALSE) or set mtls = \"default\"",
            )),
            (Err(_), _) => Ok(None),
        }
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let error = answer::refusal(SERVICE, answer, None);
        match answer.status {
            404 => {
                let error = error.hint(
                    "there is no such service account here: attach one to the machine (gcloud compute instances set-service-account NAME \
                     --service-account=ADDRESS)",
                );
                if self.cx.env.var("KUBERNETES_SERVICE_HOST").is_none() {
                    return error;
                }
                // GKE's metadata server knows a pod only some seconds after the pod has started
                // (googleapis/google-cloud-go#14349).
                error.kind(Kind::Transient).hint(
                    "on GKE, annotate the Kubernetes service account with iam.gke.io/gcp-service-account=ADDRESS",
                )
            }
            403 => error.hint(
                "on GKE, allow the Kubernetes service account to act as the Google one (gcloud iam service-accounts \
                 add-iam-policy-binding ADDRESS --role=roles/iam.workloadIdentityUser \
                 --member=serviceAccount:PROJECT.svc.id.goog[NAMESPACE/NAME])",
            ),
            _ => error,
        }
    }
}

/// Scheme and host of the metadata server; refuses what plain http must not reach.
fn base(env: &Env) -> Result<Url, Error> {
    let set = METADATA_HOST.iter().find_map(|name| Some((*name, env.var(name)?)));
    let Some((name, host)) = set else {
        return Ok(Url::parse(&format!("http://{}", DEFAULT_HOSTS[0])).expect("a constant URL"));
    };
    // A host and nothing else, or the rest would end up in the request.
    let url = format!("http://{host}");
    if host.contains(['/', '?', '#', '@', '\\']) || Url::parse(&url).is_err() {
        let message = format!("{name} must be a host, or host:port, without a scheme");
        return Err(Error::variable(name, message));
    }
    variable_url(name, &url, Destination::Platform)
}

fn load_mtls(dir: &Path, http: &Http) -> Result<Http, Error> {
    let read = |name: &str| {
        let path = dir.join(name);
        read_file::read(&path, read_file::LIMIT)
    };
    let (root, identity) = (read("root.crt")?, read("client.key")?);
    http.with_identity(&root, &identity).map_err(|error| match error.reason {
        Reason::Other => unusable(dir, FileFault::Malformed, error.message),
        _ => error,
    })
}

fn is_google(answer: &Answer) -> bool {
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
const MTLS_MODE: &str = "GCE_METADATA_MTLS_MODE";
const MTLS_DIR: &str = "/run/google-mds-mtls";
const DMI_PRODUCT: &str = "/sys/class/dmi/id/product_name";
const TIMEOUT: Duration = Duration::from_secs(3);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::context;

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
    fn an_account_is_not_a_path() {
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
