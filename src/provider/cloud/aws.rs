//! `aws`: a JWT for the IAM role of an EC2 instance, ECS task, EKS pod, Lambda function or any other holder of AWS
//! credentials, from STS `GetWebIdentityToken`.
//!
//! `iss` is `https://ID.tokens.sts.global.api.aws`, one per account (aws iam get-outbound-web-identity-federation-info),
//! `sub` the ARN of the role. Needed once: `aws iam enable-outbound-web-identity-federation`, and
//! `sts:GetWebIdentityToken` allowed to the role. Credentials come from the standard chain (`aws/chain.rs`).
//!
//! ```toml
//! [profile.work]
//! audience = "acme"
//! [profile.work.provider.aws]
//! region = "eu-central-1"     # if neither the environment, the AWS profile nor the instance names one
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::chain::Chain;
use self::credentials::Credentials;
use self::metadata::Imds;
use self::sts::{Refusal, Sts};
use crate::duration::HumanDuration;
use crate::env::Env;
use crate::error::{Error, Kind};
use crate::provider::detect::{Detect, Probe, any_set, firmware};
use crate::provider::source::{Context, Provider};
use crate::token::IdentityToken;

mod chain;
mod credentials;
mod metadata;
mod shared_files;
mod sts;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// By default `AWS_REGION`, `AWS_DEFAULT_REGION`, the AWS profile's or the instance's.
    #[serde(default)]
    pub region: Option<String>,
    /// A profile of the shared AWS files; keys in the environment are then ignored, as in the SDKs.
    #[serde(default)]
    pub profile: Option<String>,
    /// By default `AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL` or the region's own.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// Life of the JWT: 1m to 1h. An hour by default, since the SDK files need what is left of it.
    #[serde(default)]
    pub duration: Option<HumanDuration>,
    #[serde(default)]
    pub signing_algorithm: SigningAlgorithm,
    /// Claims to add under `https://sts.amazonaws.com/`, as `request_tags`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// For one request to STS; 10 s by default.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
    /// For one request to a metadata or container endpoint; `AWS_METADATA_SERVICE_TIMEOUT` (whole seconds)
    /// otherwise, else 2 s.
    #[serde(default)]
    pub metadata_timeout: Option<HumanDuration>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub enum SigningAlgorithm {
    #[default]
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES384")]
    Es384,
}

impl Config {
    pub fn build(self, cx: Context) -> Result<Aws, Error> {
        let audience = cx.require_audience(KIND)?.to_owned();
        let duration = self.duration.map_or(MAX_DURATION, |duration| duration.0);
        if !(MIN_DURATION..=MAX_DURATION).contains(&duration) {
            return Err(Error::setting("duration", "provider aws: duration must be between 1m and 1h"));
        }
        if self.tags.len() > MAX_TAGS {
            return Err(Error::setting("tags", format!("provider aws: at most {MAX_TAGS} tags")));
        }
        let metadata_timeout = self
            .metadata_timeout
            .map(|timeout| timeout.0)
            .or_else(|| cx.env.var("AWS_METADATA_SERVICE_TIMEOUT")?.parse().ok().map(Duration::from_secs));
        let imds = Imds::new(&cx, metadata_timeout.unwrap_or(METADATA_TIMEOUT))?;
        let timeout = self.timeout.map_or(TIMEOUT, |timeout| timeout.0);
        let chain = Chain::new(cx.clone(), self.profile, self.endpoint_url.clone(), imds, timeout)?;
        let region =
            self.region.or_else(|| cx.env.var("AWS_REGION")).or_else(|| cx.env.var("AWS_DEFAULT_REGION"));
        let region = region.map_or_else(OnceCell::new, |region| OnceCell::new_with(Some(region)));
        Ok(Aws {
            audience,
            duration,
            algorithm: match self.signing_algorithm {
                SigningAlgorithm::Rs256 => "RS256",
                SigningAlgorithm::Es384 => "ES384",
            },
            tags: self.tags,
            endpoint: self.endpoint_url,
            region,
            chain,
            timeout,
            cx,
        })
    }
}

impl Detect for Config {
    /// Keys in the environment or in files do not count: people have them on laptops for other things.
    fn in_environment(env: &Env) -> Result<String, String> {
        any_set(env, &PLATFORM_VARIABLES)
    }

    fn on_machine(env: &Env) -> Option<String> {
        if metadata::disabled(env) {
            return None;
        }
        (firmware(DMI_VENDOR)? == "Amazon EC2").then(|| format!("{DMI_VENDOR} says Amazon EC2"))
    }

    fn probe(cx: Context) -> Option<Probe> {
        Some(Box::pin(async move { probe(&cx).await }))
    }

    fn detected(_env: &Env) -> Self {
        Self::default()
    }
}

/// Asks the metadata address whether it is an EC2 instance's, in half a second at most.
pub async fn probe(cx: &Context) -> Result<String, String> {
    let imds = Imds::new(cx, PROBE_TIMEOUT).map_err(|why| why.to_string())?;
    imds.session().await.map_err(|why| why.to_string())?;
    Ok("the EC2 metadata service gives session tokens".into())
}

pub struct Aws {
    audience: String,
    duration: Duration,
    algorithm: &'static str,
    tags: BTreeMap<String, String>,
    endpoint: Option<String>,
    /// A machine does not change its region.
    region: OnceCell<String>,
    chain: Chain,
    timeout: Duration,
    cx: Context,
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> &'static str {
        KIND
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        let region = self.region.get_or_try_init(|| self.chain.region()).await?;
        let sts = Sts::new(&self.cx, self.endpoint.as_deref(), region, self.timeout)?;
        let credentials = self.chain.credentials(region, self.duration).await?;
        let form = self.form(&credentials)?;
        let given: Given = match sts.call(&form, Some(&credentials)).await {
            Ok(given) => given,
            Err(refusal) => return Err(self.refused(refusal, &credentials).await),
        };
        let raw = Zeroizing::new(given.result.token);
        self.cx.identity(&raw, "AWS STS", "something between this machine and STS changes requests")
    }
}

impl Aws {
    fn form(&self, credentials: &Credentials) -> Result<Vec<(String, String)>, Error> {
        let mut duration = self.duration;
        if let Some(left) = credentials.remaining(self.cx.clock.now()) {
            // STS gives no token that outlives the session (SessionDurationEscalationException).
            duration = duration.min(left.saturating_sub(SESSION_SLACK));
            if duration < MIN_DURATION {
                // No reason: its data would say that the identity token has this life left.
                let (source, left) = (credentials.source, left.as_secs());
                let message =
                    format!("the AWS credentials ({source}) end within {left} s, too soon for a token");
                return Err(Error::transient(message));
            }
        }
        let mut form: Vec<(String, String)> = vec![
            ("Action".into(), "GetWebIdentityToken".into()),
            ("Version".into(), sts::VERSION.into()),
            ("Audience.member.1".into(), self.audience.clone()),
            ("DurationSeconds".into(), duration.as_secs().to_string()),
            ("SigningAlgorithm".into(), self.algorithm.into()),
        ];
        for (n, (key, value)) in self.tags.iter().enumerate() {
            form.push((format!("Tags.member.{}.Key", n + 1), key.clone()));
            form.push((format!("Tags.member.{}.Value", n + 1), value.clone()));
        }
        Ok(form)
    }

    /// What the user can do about STS's refusal.
    async fn refused(&self, refusal: Refusal, credentials: &Credentials) -> Error {
        let Refusal { code, error } = refusal;
        let source = credentials.source;
        let misconfigured = |hint: String| error.clone().kind(Kind::Misconfigured).hint(hint);
        match code.trim_end_matches("Exception") {
            "OutboundWebIdentityFederationDisabled" => misconfigured(
                "an administrator of the account must run: aws iam enable-outbound-web-identity-federation"
                    .into(),
            ),
            "SessionDurationEscalation" => misconfigured(format!(
                "the session of the AWS credentials ({source}) ends sooner than the token would: lower `duration`"
            )),
            "JWTPayloadSizeExceeded" => misconfigured("set fewer or shorter `tags`".into()),
            "AccessDenied" => error.kind(Kind::Rejected).hint(
                "allow sts:GetWebIdentityToken in an IAM policy of the role (its conditions may limit \
                 sts:IdentityTokenAudience and sts:DurationSeconds)",
            ),
            "ExpiredToken" | "InvalidClientTokenId" | "UnrecognizedClient" | "RequestExpired"
                if credentials.renewable =>
            {
                self.chain.forget().await;
                error
                    .kind(Kind::Transient)
                    .hint(format_args!("the credentials ({source}) will be fetched again"))
            }
            "ExpiredToken" | "InvalidClientTokenId" | "UnrecognizedClient" => {
                error.kind(Kind::Rejected).hint(format_args!("replace the AWS credentials ({source})"))
            }
            _ => error,
        }
    }
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "GetWebIdentityTokenResult")]
    result: GivenToken,
}

#[derive(Deserialize)]
struct GivenToken {
    #[serde(rename = "WebIdentityToken")]
    token: String,
}

/// Variables by which a platform of AWS names its credentials.
const PLATFORM_VARIABLES: [&str; 4] = [
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_LAMBDA_FUNCTION_NAME",
];
const KIND: &str = "aws";
const MIN_DURATION: Duration = Duration::from_secs(60);
const MAX_DURATION: Duration = Duration::from_secs(3600);
/// For the way to STS and for clocks that differ.
const SESSION_SLACK: Duration = Duration::from_secs(10);
const MAX_TAGS: usize = 50;
const DMI_VENDOR: &str = "/sys/class/dmi/id/sys_vendor";
const TIMEOUT: Duration = Duration::from_secs(10);
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
