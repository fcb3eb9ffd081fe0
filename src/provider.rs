//! Where identity tokens come from: one file per source under `provider/`, in a folder per family, behind one verb.
//!
//! The identity keeper calls [`Provider::fetch`] and nobody else does.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Malformed, Reason};
use crate::http::Http;
use crate::oidc::session::Session;
use crate::token::{IdentityToken, Secret};

mod answer;
pub mod auto;
pub mod ci;
pub mod cloud;
pub mod cluster;
pub mod local;
pub mod oauth;

/// A source of identity tokens.
///
/// An implementer tries **once** per call. It never retries (the keeper does, with backoff), never caches
/// (the keeper keeps), never logs a token, and never changes or deletes what it reads.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The kind, as the configuration spells it.
    fn name(&self) -> &'static str;

    /// One attempt at a fresh identity token. May be cancelled at any await.
    async fn fetch(&self) -> Result<IdentityToken, Error>;

    /// Where a person can sign in for it, if that is how it gets its tokens.
    fn session(&self) -> Option<Arc<Session>> {
        None
    }
}

/// One attempt, whose error names the provider.
pub async fn fetch(provider: &dyn Provider) -> Result<IdentityToken, Error> {
    provider.fetch().await.map_err(|error| match provider.name() {
        // Says where the mistake is already.
        INVALID => error,
        name => error.context(format!("provider {name}")),
    })
}

/// What every provider may need, handed to [`Config::build`].
#[derive(Clone)]
pub struct Context {
    pub profile: String,
    /// The audience the organization expects, from the profile.
    pub audience: Option<String>,
    /// The W&B server of the profile, where the source holds accounts of several.
    pub base_url: Option<url::Url>,
    pub env: Env,
    pub clock: Clock,
    pub http: Http,
}

impl Context {
    /// Reads a JWT that `source` gave (`source` is named in the error).
    pub fn parse(&self, raw: &str, source: impl fmt::Display) -> Result<IdentityToken, Error> {
        IdentityToken::parse_insecure(raw, self.clock.now()).map_err(|why| match why {
            // Not yet rotated: the next look may find a good one.
            Malformed::Expired { at } => {
                Error::transient(format!("{source}: {why}")).because(Reason::TokenExpired { at })
            }
            // Half-written.
            Malformed::Empty => Error::transient(format!("{source}: {why}"))
                .because(Reason::MalformedToken { how: Malformed::Empty }),
            how => Error::rejected(format!("{source}: {how}")).because(Reason::MalformedToken { how }),
        })
    }

    /// The audience, or an error that says which key is missing.
    pub fn require_audience(&self, kind: &str) -> Result<&str, Error> {
        self.audience.as_deref().ok_or_else(|| {
            let profile = &self.profile;
            let message = format!(
                "provider {kind} needs to know the audience: set `audience` in [profile.{profile}] to the name of your W&B organization"
            );
            Error::misconfigured(message).because(Reason::Setting { key: "audience".to_owned() })
        })
    }
}

/// Declares the kinds: each has a module with a `Config` that builds its provider.
macro_rules! kinds {
    ($($kind:ident($($module:ident)::+) = $name:literal,)*) => {
        /// `[profile.NAME.provider.KIND]`: the kind is the table's name, so that a typo is reported at its
        /// own line.
        #[derive(Clone, Debug, Deserialize)]
        pub enum Config {
            $(#[serde(rename = $name)] $kind($($module)::+::Config),)*
            /// Not written by anybody: a profile whose table is wrong, and why.
            #[serde(skip)]
            Invalid(String),
        }

        impl Config {
            /// Checks what can be checked without asking the source, and builds the provider.
            pub fn build(self, cx: Context) -> Result<Box<dyn Provider>, Error> {
                Ok(match self {
                    $(Self::$kind(config) => Box::new(config.build(cx)?),)*
                    Self::Invalid(why) => return Err(Error::misconfigured(why)),
                })
            }

            /// As the configuration spells it.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $name,)*
                    Self::Invalid(_) => INVALID,
                }
            }
        }
    };
}

kinds! {
    Auto(auto) = "auto",
    Aws(cloud::aws) = "aws",
    Azure(cloud::azure) = "azure",
    Buildkite(ci::buildkite) = "buildkite",
    Circleci(ci::circleci) = "circleci",
    ClientCredentials(oauth::client_credentials) = "client-credentials",
    Command(local::command) = "command",
    Env(local::env) = "env",
    File(local::file) = "file",
    Gcp(cloud::gcp) = "gcp",
    GithubActions(ci::github_actions) = "github-actions",
    Gitlab(ci::gitlab) = "gitlab",
    Kubernetes(cluster::kubernetes) = "kubernetes",
    Oidc(oauth::oidc) = "oidc",
    Spiffe(cluster::spiffe) = "spiffe",
    WandbSso(local::wandb_sso) = "wandb-sso",
}

impl Config {
    /// The secret that the configuration itself holds, if it does: the file must be closed to others then.
    pub fn secret(&self) -> Option<&Secret<String>> {
        match self {
            Self::Oidc(config) => config.secret(),
            _ => None,
        }
    }

    /// The same; what cannot be built becomes a provider that says why at each attempt.
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
