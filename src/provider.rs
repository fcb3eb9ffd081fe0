//! Where identity tokens come from: one file per source under `provider/`, in a folder per family, behind one trait.
//!
//! The identity keeper calls [`Provider::fetch`] and nobody else does.
//!
//! To add a source, write its file (a `Config` that builds a [`Provider`], and a [`detect::Detect`] if `auto` should
//! find it), declare it in its family, and add its line to the table of kinds below.

use async_trait::async_trait;
use serde::Deserialize;

use self::detect::{Detect, Detector};
use crate::error::Error;
use crate::token::{IdentityToken, Secret};

pub mod answer;
pub mod auto;
pub mod ci;
pub mod cloud;
pub mod cluster;
pub mod detect;
mod files;
pub mod local;
pub mod oauth;
pub mod program;
mod rotation;
mod settings;
pub(crate) mod source;
mod variable;

pub use auto::Detection;
pub use source::{Context, Provider};

/// One attempt, whose error names the provider.
pub async fn fetch(provider: &dyn Provider) -> Result<IdentityToken, Error> {
    provider.fetch().await.map_err(|error| match provider.name() {
        // It already says where the mistake is.
        INVALID => error,
        name => error.context(format!("provider {name}")),
    })
}

/// Declares the kinds: each has a module with a `Config` that builds its provider. Those that `auto` looks for bring a
/// detector.
macro_rules! kinds {
    (
        detected { $($found:ident($($place:ident)::+) = $found_name:literal,)* }
        only_configured { $($kind:ident($($module:ident)::+) = $name:literal,)* }
    ) => {
        /// `[profile.NAME.provider.KIND]`: the kind is the table's name, so that a typo is reported at its
        /// own line.
        #[derive(Clone, Debug, Deserialize)]
        pub enum Config {
            #[serde(rename = "auto")]
            Auto(auto::Config),
            $(#[serde(rename = $found_name)] $found($($place)::+::Config),)*
            $(#[serde(rename = $name)] $kind($($module)::+::Config),)*
            /// A profile whose table is wrong, and why.
            #[serde(skip)]
            Invalid(String),
        }

        impl Config {
            /// Checks what can be checked without asking the source, and builds the provider.
            pub fn build(self, cx: Context) -> Result<Box<dyn Provider>, Error> {
                Ok(match self {
                    Self::Auto(config) => Box::new(config.build(cx, DETECTORS)?),
                    $(Self::$found(config) => Box::new(config.build(cx)?),)*
                    $(Self::$kind(config) => Box::new(config.build(cx)?),)*
                    Self::Invalid(why) => return Err(Error::misconfigured(why)),
                })
            }

            /// As the configuration spells it.
            pub fn kind(&self) -> &'static str {
                match self {
                    Self::Auto(_) => "auto",
                    $(Self::$found(_) => $found_name,)*
                    $(Self::$kind(_) => $name,)*
                    Self::Invalid(_) => INVALID,
                }
            }
        }

        /// What `auto` looks for.
        const DETECTORS: &[Detector] = &[$(Detector {
            kind: $found_name,
            in_environment: <$($place)::+::Config as Detect>::in_environment,
            on_machine: <$($place)::+::Config as Detect>::on_machine,
            probe: <$($place)::+::Config as Detect>::probe,
            settings: |env| <$($place)::+::Config as Detect>::detected(env).settings(),
            build: |cx| {
                let provider = <$($place)::+::Config as Detect>::detected(&cx.env).build(cx)?;
                Ok(Box::new(provider))
            },
        },)*];
    };
}

kinds! {
    // If the evidence for several is equally strong (see `auto`), `auto` takes the first of them.
    detected {
        WandbSso(local::wandb_sso) = "wandb-sso",
        File(local::file) = "file",
        GithubActions(ci::github_actions) = "github-actions",
        Gitlab(ci::gitlab) = "gitlab",
        Buildkite(ci::buildkite) = "buildkite",
        Circleci(ci::circleci) = "circleci",
        AzurePipelines(ci::azure_pipelines) = "azure-pipelines",
        // After those: a token that cannot be renewed.
        Env(local::env) = "env",
        Spiffe(cluster::spiffe) = "spiffe",
        Fly(cloud::fly) = "fly",
        Aws(cloud::aws) = "aws",
        Azure(cloud::azure) = "azure",
        Gcp(cloud::gcp) = "gcp",
        // After the clouds: a pod's account may ask for tokens only where somebody gave it the role.
        Kubernetes(cluster::kubernetes) = "kubernetes",
    }
    only_configured {
        ClientCredentials(oauth::client_credentials) = "client-credentials",
        Command(local::command) = "command",
        Oidc(oauth::oidc) = "oidc",
        Vault(oauth::vault) = "vault",
    }
}

/// Looks for every kind of source that `auto` can find; what was found comes first, the best at the top.
pub async fn survey(cx: &Context) -> Vec<Detection> {
    auto::survey(cx, DETECTORS, true).await
}

impl Config {
    /// The secret that the configuration itself holds, if it does: then nobody else may be able to read the file.
    pub fn secret(&self) -> Option<&Secret<String>> {
        match self {
            Self::Oidc(config) => config.secret(),
            _ => None,
        }
    }

    /// Like [`Config::build`]; what cannot be built becomes a provider that says why at each attempt.
    pub fn build_or_explain(self, cx: Context) -> Box<dyn Provider> {
        let kind = self.kind();
        self.build(cx).unwrap_or_else(|error| Box::new(Unusable { kind, error }))
    }
}

/// The kind of a profile whose table is wrong.
pub const INVALID: &str = "invalid";

/// Stands in for a provider that could not be built, so that its profile can say why.
struct Unusable {
    kind: &'static str,
    error: Error,
}

#[async_trait]
impl Provider for Unusable {
    fn name(&self) -> &'static str {
        self.kind
    }

    async fn fetch(&self) -> Result<IdentityToken, Error> {
        Err(self.error.clone())
    }
}
