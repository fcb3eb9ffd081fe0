//! `azure`: the managed identity of an Azure VM, App Service, Function, Container App, Arc machine or Azure ML
//! compute, or the person of a Cloud Shell.
//!
//! `iss` is `https://sts.windows.net/TENANT/`, `sub` the object ID of the identity, and `aud` must be the
//! Application ID URI (or the client ID) of an application registered in the tenant: Entra ID gives no token for
//! an audience it does not know. Tokens live for about a day and are cached by the platform, so asking early
//! gives the old one: the keeper waits until half of the life is over, as MSAL does.
//!
//! ```toml
//! [profile.work]
//! audience = "api://wandb"
//! [profile.work.provider.azure]
//! client-id = "..."      # only for a user-assigned identity
//! ```
//!
//! Read from the environment: `AZURE_POD_IDENTITY_AUTHORITY_HOST`, `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`, `IMDS_ENDPOINT`,
//! `MSI_ENDPOINT`, `MSI_SECRET`, and `AZURE_CLIENT_ID` as DefaultAzureCredential does; on Azure ML
//! `DEFAULT_IDENTITY_CLIENT_ID` too. `MSI_ENDPOINT` alone is Cloud Shell's. Service Fabric
//! (`IDENTITY_SERVER_THUMBPRINT`) is refused: it needs TLS that trusts a SHA-1 thumbprint and nothing else, which
//! this program does not have. AKS workload identity is not a managed identity: mount a second projected token and
//! use the `kubernetes` provider.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

pub use self::platform::Platform;
use self::platform::{HIMDS, NameKind, POD_HOST, detect, vm_base};
use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Kind, Reason, foreign};
use crate::http::Answer;
use crate::provider::answer;
use crate::provider::detect::{Detect, Probe, any_set, firmware};
use crate::provider::source::{Context, Provider};
use crate::token::{Expires as _, IdentityToken, Renewal, Secret};

mod arc;
mod platform;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The Application ID URI to ask for, if it is not the profile's audience.
    #[serde(default)]
    pub resource: Option<String>,
    /// A user-assigned identity, by one of its three names. By default `AZURE_CLIENT_ID`, or the system-assigned one.
    #[serde(default)]
    pub client_id: Option<String>,
    #[serde(default)]
    pub object_id: Option<String>,
    #[serde(default)]
    pub resource_id: Option<String>,
    /// The system-assigned identity, whatever `AZURE_CLIENT_ID` says.
    #[serde(default)]
    pub system_assigned: bool,
    /// Where this runs; detected by default.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// For one request; 10 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Azure, Error> {
        let platform = self.platform.unwrap_or_else(|| detect(&cx.env));
        let identity = self.identity(&cx.env, platform)?;
        let resource = match &self.resource {
            Some(resource) => resource.clone(),
            None => cx.require_audience(KIND)?.to_owned(),
        };
        let (mut url, header, version) = platform.endpoint(&cx.env)?;
        if platform != Platform::CloudShell {
            let mut query = url.query_pairs_mut();
            query.append_pair("api-version", version).append_pair("resource", &resource);
            if let Some((kind, id)) = &identity {
                query.append_pair(platform.parameter(*kind), id);
            }
        }
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        Ok(Azure { platform, url, resource, header, identity, key_dir: arc::KEY_DIR.into(), timeout, cx })
    }

    fn identity(&self, env: &Env, platform: Platform) -> Result<Option<(NameKind, String)>, Error> {
        let named: Vec<(NameKind, String)> = [
            (NameKind::Client, &self.client_id),
            (NameKind::Object, &self.object_id),
            (NameKind::Resource, &self.resource_id),
        ]
        .into_iter()
        .filter_map(|(kind, id)| Some((kind, id.clone()?)))
        .collect();
        match (named.as_slice(), self.system_assigned) {
            ([], true) => Ok(None),
            // A Cloud Shell has its person's identity only.
            ([], false) if platform == Platform::CloudShell => Ok(None),
            (_, false) if platform == Platform::CloudShell => {
                let message = "provider azure: a Cloud Shell has no identity but its person's; remove client-id, object-id and resource-id";
                Err(Error::setting("client-id", message))
            }
            ([], false) => {
                Ok(variables(platform).iter().find_map(|name| Some((NameKind::Client, env.var(name)?))))
            }
            ([one], false) if !one.1.is_empty() => Ok(Some(one.clone())),
            _ => {
                let message = "provider azure: give at most one of client-id, object-id, resource-id and system-assigned, and none empty";
                Err(Error::setting("client-id", message))
            }
        }
    }
}

/// The variables that name an identity where the configuration does not. Azure ML's names the one of the compute:
/// without it the token is that of the person who is signed in (Azure/azure-sdk-for-python#31032).
fn variables(platform: Platform) -> &'static [&'static str] {
    match platform {
        Platform::MachineLearning => &["AZURE_CLIENT_ID", "DEFAULT_IDENTITY_CLIENT_ID"],
        _ => &["AZURE_CLIENT_ID"],
    }
}

impl Detect for Config {
    fn in_environment(env: &Env) -> Result<String, String> {
        any_set(env, &PLATFORM_VARIABLES)
    }

    fn on_machine(env: &Env) -> Option<String> {
        if is_github_runner(env) {
            return None;
        }
        if Path::new(HIMDS).exists() {
            return Some(format!("{HIMDS} is installed: an Arc machine"));
        }
        (firmware(DMI_TAG)? == AZURE_TAG).then(|| format!("{DMI_TAG} says this is an Azure VM"))
    }

    fn probe(cx: Context) -> Option<Probe> {
        Some(Box::pin(async move { probe(&cx).await }))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

/// Asks the metadata address whether it is Azure's; half a second at most.
pub async fn probe(cx: &Context) -> Result<String, String> {
    if is_github_runner(&cx.env) {
        return Err("a GitHub runner's machine has no identity for the job".into());
    }
    let mut url = vm_base(&cx.env).map_err(|why| why.to_string())?;
    url.set_path("/metadata/instance");
    url.set_query(Some("api-version=2021-02-01"));
    let host = url.host_str().unwrap_or_default().to_owned();
    let reach = platform::reach(&url);
    let request = cx.http.request(reach, Method::GET, url).header(METADATA, "true");
    let answer =
        cx.http.send(reach, request, PROBE_TIMEOUT, MAX_ANSWER).await.map_err(|why| why.to_string())?;
    // Other clouds answer this address too, with 404 or a page of their own.
    match serde_json::from_slice::<serde_json::Value>(&answer.body) {
        Ok(instance) if answer.status == 200 && instance.get("compute").is_some() => {
            Ok(format!("{host} answers as Azure's metadata service"))
        }
        _ => Err(format!("{host} answers, but not as Azure's metadata service")),
    }
}

/// GitHub's own runners are Azure VMs, whose identity, if any, is not the job's. Naming the provider still works.
fn is_github_runner(env: &Env) -> bool {
    env.var("GITHUB_ACTIONS").is_some()
}

pub struct Azure {
    platform: Platform,
    url: Url,
    resource: String,
    header: Option<(&'static str, Secret<String>)>,
    identity: Option<(NameKind, String)>,
    /// Where the Arc agent puts its keys.
    key_dir: PathBuf,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Azure {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let answer = match self.platform {
            Platform::Arc => {
                let challenge = self.ask(None).await?;
                if !matches!(challenge.status, 200 | 401) {
                    return Err(self.refusal(&challenge));
                }
                let key = arc::key(self.who(), &self.key_dir, &challenge).await?;
                self.ask(Some(key)).await?
            }
            _ => self.ask(None).await?,
        };
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        let given: Given = answer::json(self.who(), &answer)?;
        self.check_identity(&given)?;
        let raw = Zeroizing::new(given.access_token);
        let fix = "set `audience` to what the token says, and let the W&B organization expect the same; or register \
                   an application with that Application ID URI in the tenant (az ad app create --identifier-uris)";
        let token = self.cx.identity(&raw, self.who(), fix)?;
        let life = token.expiry().remaining(self.cx.clock.now());
        let not_before_expiry = (life >= LONG_LIFE).then_some(life / 2);
        Ok(token.with_renewal(Renewal { not_before_expiry, ..Renewal::default() }))
    }
}

impl Azure {
    async fn ask(&self, key: Option<Zeroizing<String>>) -> Result<Answer, Error> {
        let reach = platform::reach(&self.url);
        let mut request = match self.platform {
            Platform::CloudShell => {
                let form = [("resource", self.resource.as_str())];
                self.cx.http.request(reach, Method::POST, self.url.clone()).form(&form)
            }
            _ => self.cx.http.request(reach, Method::GET, self.url.clone()),
        };
        if self.platform != Platform::MachineLearning {
            request = request.header(METADATA, "true");
        }
        if let Some((name, secret)) = &self.header {
            request = request.header(*name, secret.expose());
        }
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, Zeroizing::new(format!("Basic {}", *key)).as_str());
        }
        let sent = self.cx.http.send(reach, request, self.timeout, MAX_ANSWER).await;
        sent.map_err(|error| match error.kind {
            Kind::Transient => error.context(self.who()).hint("is this Azure, with a managed identity?"),
            _ => error,
        })
    }

    /// An old Arc agent ignores which identity is asked for and answers with the machine's own.
    fn check_identity(&self, given: &Given) -> Result<(), Error> {
        let Some((kind, id)) = self.identity.as_ref().filter(|_| self.platform == Platform::Arc) else {
            return Ok(());
        };
        let got = match kind {
            NameKind::Client => &given.client_id,
            NameKind::Object => &given.object_id,
            NameKind::Resource if given.msi_res_id.is_some() => &given.msi_res_id,
            NameKind::Resource => &given.mi_res_id,
        };
        if got.as_ref().is_some_and(|got| got.eq_ignore_ascii_case(id)) {
            return Ok(());
        }
        let who = self.who();
        let message = format!(
            "{who} did not confirm the user-assigned identity; the agent is too old for these: update it, or use the \
             system-assigned one"
        );
        Err(answer::unreadable(who, None, message).kind(Kind::Rejected))
    }

    fn refusal(&self, answer: &Answer) -> Error {
        let who = self.who();
        let said = serde_json::from_slice::<Refused>(&answer.body).unwrap_or_default().words();
        let generic = answer::refusal(who, answer, said.as_deref());
        match (answer.status, self.platform) {
            (400, _) => generic.hint(
                "assign a managed identity (az vm identity assign, az webapp identity assign), check its ID, and \
                 register an application with the resource as its Application ID URI in the tenant",
            ),
            // 410 is the service being updated: back within 70 seconds by its documentation.
            (404 | 410, Platform::Vm) => generic.kind(Kind::Transient).retry_after(answer.retry_after),
            (403, Platform::Vm) if foreign::is_docker_desktop(&answer.text()) => {
                Error::misconfigured(format!(
                    "{who} cannot be reached: a proxy (Docker Desktop's?) answered in its place; this is not an Azure VM"
                ))
                .because(Reason::Status { host: who.to_owned(), status: 403 })
            }
            _ => generic,
        }
    }

    fn who(&self) -> &'static str {
        match self.platform {
            Platform::ServiceFabric => "the Service Fabric identity endpoint",
            Platform::AppService => "the App Service identity endpoint",
            Platform::MachineLearning => "the Azure ML identity endpoint",
            Platform::CloudShell => "the Cloud Shell identity endpoint",
            Platform::Arc => "the Azure Arc agent",
            Platform::Vm => "the Azure instance metadata service",
        }
    }
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    client_id: Option<String>,
    object_id: Option<String>,
    msi_res_id: Option<String>,
    mi_res_id: Option<String>,
}

/// The error bodies of all platforms.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: Option<serde_json::Value>,
    error_description: Option<String>,
    message: Option<String>,
}

impl Refused {
    fn words(self) -> Option<String> {
        let code = self.error.and_then(|error| match error {
            serde_json::Value::String(code) => Some(code),
            other => Some(other.get("message")?.as_str()?.to_owned()),
        });
        match (code, self.error_description.or(self.message)) {
            (Some(code), Some(more)) => Some(format!("{code}: {more}")),
            (one, other) => one.or(other),
        }
    }
}

/// Variables by which a platform of Azure names its identity endpoint.
const PLATFORM_VARIABLES: [&str; 3] = ["IDENTITY_ENDPOINT", "MSI_ENDPOINT", POD_HOST];
const KIND: &str = "azure";
const METADATA: &str = "Metadata";
const DMI_TAG: &str = "/sys/class/dmi/id/chassis_asset_tag";
/// The same on every Azure VM.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const MAX_ANSWER: usize = 128 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// From this life on, MSAL renews at half of it.
const LONG_LIFE: Duration = Duration::from_secs(2 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::source::test::context;

    fn build(vars: &[(&str, &str)], config: Config) -> Result<Azure, Error> {
        config.build(context(vars))
    }

    #[test]
    fn no_secret_goes_over_http_to_a_public_host() {
        for vars in [
            vec![("IDENTITY_ENDPOINT", "http://203.0.113.5/x"), ("IDENTITY_HEADER", "h")],
            vec![("MSI_ENDPOINT", "http://203.0.113.5/x"), ("MSI_SECRET", "s")],
            vec![(POD_HOST, "http://203.0.113.5")],
            vec![(POD_HOST, "ftp://127.0.0.1")],
            vec![("IDENTITY_ENDPOINT", "http://10.0.0.5/x"), ("IMDS_ENDPOINT", "http://10.0.0.5")],
            vec![("IDENTITY_ENDPOINT", "https://example.com/x"), ("IMDS_ENDPOINT", "https://example.com")],
        ] {
            assert!(
                matches!(build(&vars, Config::default()), Err(Error { kind: Kind::Misconfigured, .. })),
                "{vars:?}"
            );
        }
    }

    #[test]
    fn azure_ml_is_asked_for_the_identity_of_the_compute() {
        let ml = [
            ("MSI_ENDPOINT", "http://127.0.0.1/x"),
            ("MSI_SECRET", "s"),
            ("DEFAULT_IDENTITY_CLIENT_ID", "d"),
        ];
        let query = |more: &[(&'static str, &'static str)], config: Config| {
            let vars: Vec<_> = ml.iter().chain(more).copied().collect();
            build(&vars, config).expect("built").url.query().expect("a query").to_owned()
        };
        assert!(query(&[], Config::default()).ends_with("&clientid=d"));
        assert!(query(&[("AZURE_CLIENT_ID", "a")], Config::default()).ends_with("&clientid=a"));
        let named = Config { client_id: Some("c".into()), ..Config::default() };
        assert!(query(&[], named).ends_with("&clientid=c"));
        let own = Config { system_assigned: true, ..Config::default() };
        assert!(!query(&[], own).contains("clientid"));
        let elsewhere = build(&[("DEFAULT_IDENTITY_CLIENT_ID", "d")], Config::default()).expect("built");
        assert!(!elsewhere.url.query().expect("a query").contains("client"));
    }

    #[tokio::test]
    async fn a_cloud_shell_is_asked_by_a_form() {
        let shell = crate::oidc::test::StandIn::start();
        let jwt = crate::provider::source::test::jwt(600, "");
        shell.on("/oauth2/token", 200, format!(r#"{{"access_token":"{jwt}","expires_on":"1"}}"#));
        let endpoint = format!("{}/oauth2/token", shell.url);
        let vars = [("MSI_ENDPOINT", endpoint.as_str()), ("AZURE_CLIENT_ID", "c")];
        let provider = build(&vars, Config::default()).expect("built");
        provider.fetch().await.expect("a token");
        let asked = shell.asked().to_ascii_lowercase();
        assert!(
            asked.starts_with("post /oauth2/token http") && asked.contains("\nmetadata: true\r"),
            "{asked}"
        );
        assert!(asked.ends_with("\r\n\r\nresource=acme"), "{asked}");
        let named = Config { client_id: Some("c".into()), ..Config::default() };
        assert!(build(&vars, named).is_err());
    }

    #[test]
    fn identities_exclude_each_other() {
        let one = Config { client_id: Some("c".into()), ..Config::default() };
        assert!(build(&[], one.clone()).is_ok());
        assert!(build(&[], Config { object_id: Some("o".into()), ..one.clone() }).is_err());
        assert!(build(&[], Config { system_assigned: true, ..one }).is_err());
        let own = Config { system_assigned: true, ..Config::default() };
        assert_eq!(build(&[("AZURE_CLIENT_ID", "c")], own).expect("built").identity, None);
        let inherited = build(&[("AZURE_CLIENT_ID", "c")], Config::default()).expect("built");
        assert!(inherited.url.query().expect("a query").ends_with("&client_id=c"));
    }
}
