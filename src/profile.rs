//! A profile: one provider and one W&B server, kept by two keepers in a row.
//!
//! The identity keeper holds a JWT; the access keeper's source is the identity keeper plus the exchange. A profile that is
//! fed by another daemon has the access keeper alone.
//! Profiles know nothing of each other, so a stuck one delays nobody.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Deserializer};
use url::Url;

use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Reason, Stage};
use crate::exchange::Exchange;
use crate::feed::{self, Upstream};
use crate::http::{self, Destination, Http, Network};
use crate::keeper::{Demand, Keeper, Label, Policy, Restored};
use crate::oidc::session::Session;
use crate::provider;
use crate::token::{AccessToken, IdentityToken, Secret};

mod relay;
mod source;
mod written;

pub use relay::Relay;
use relay::RelaySource;
use source::{AccessSource, IdentitySource};

/// `[profile.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "written::Written")]
pub struct Config {
    /// The W&B server's API address.
    pub base_url: BaseUrl,
    /// What the organization expects in the JWT's `aud`; a token for another audience is refused here.
    pub audience: Option<String>,
    pub whence: Whence,
    /// Whether to keep the two files that an unmodified W&B SDK reads.
    pub sdk_files: bool,
    /// Renew ahead of expiry even when nobody asks: for programs that read the SDK files on their own.
    pub keep_warm: bool,
    /// Whether `GET /v1/identity-token` hands out the JWT itself.
    pub serve_identity_token: bool,
    /// Whether jobs get the loopback proxy, if they do not say.
    pub proxy: bool,
    /// Where the proxy takes weave's requests; known for the multi-tenant cloud, else `traces` below the base URL.
    pub trace_url: Option<BaseUrl>,
    /// How it reaches the network.
    pub network: Arc<Network>,
}

/// Where a profile's tokens come from.
#[derive(Clone, Debug)]
pub enum Whence {
    /// Identity tokens, to be exchanged here.
    Provider(Box<provider::Config>),
    /// Access tokens, from another daemon's socket.
    Upstream { address: feed::upstream::Address, profile: Option<String> },
    /// Access tokens, from lines that are read elsewhere.
    Feed(Arc<feed::Receiver>),
}

impl Config {
    /// All defaults, for a provider.
    pub fn new(provider: provider::Config) -> Self {
        Self::from(Whence::Provider(Box::new(provider)), BaseUrl::default())
    }

    /// For access tokens that come as lines. They cost nothing, so they are kept whether or not anybody asks.
    pub fn fed(receiver: feed::Receiver, base_url: BaseUrl) -> Self {
        Self { keep_warm: true, ..Self::from(Whence::Feed(Arc::new(receiver)), base_url) }
    }

    fn from(whence: Whence, base_url: BaseUrl) -> Self {
        Self {
            base_url,
            audience: None,
            whence,
            sdk_files: true,
            keep_warm: false,
            serve_identity_token: false,
            proxy: false,
            trace_url: None,
            network: Arc::default(),
        }
    }

    pub fn provider(&self) -> Option<&provider::Config> {
        match &self.whence {
            Whence::Provider(provider) => Some(provider),
            Whence::Upstream { .. } | Whence::Feed(_) => None,
        }
    }

    /// The provider's kind, or what is in its place.
    pub fn kind(&self) -> &'static str {
        match &self.whence {
            Whence::Provider(provider) => provider.kind(),
            Whence::Upstream { .. } => UPSTREAM,
            Whence::Feed(_) => FEED,
        }
    }

    /// The secret that the configuration itself holds, if it does.
    pub fn secret(&self) -> Option<&Secret<String>> {
        self.provider()?.secret()
    }

    /// What this profile's provider is built with.
    pub fn context(&self, name: &str, parts: &Parts) -> provider::Context {
        provider::Context {
            profile: name.to_owned(),
            audience: self.audience.clone(),
            base_url: Some(self.base_url.url().clone()),
            env: parts.env.clone(),
            clock: parts.clock.clone(),
            http: self.http(parts),
        }
    }

    /// The clients for its requests.
    pub fn http(&self, parts: &Parts) -> Http {
        parts.http.with_network(&self.network)
    }

    /// Builds the keepers. A provider that cannot be built makes a profile that says why.
    pub fn build(self, name: &str, parts: &Parts, restored: RestoredTokens) -> (Profile, Loops) {
        let mut parts = parts.for_profile();
        parts.http = self.http(&parts);
        let parts = &parts;
        let demand = Arc::new(Demand::new(self.keep_warm));
        let (clock, warm) = (parts.clock.clone(), Arc::clone(&demand));
        let label = Label { profile: name.into(), stage: Stage::Exchange };
        let access = Keeper::new(label, Policy::SdkMargin, warm, clock.clone(), restored.access);
        let profile = Profile {
            name: name.into(),
            base_url: self.base_url.clone(),
            provider: self.kind(),
            audience: self.audience.clone(),
            serve_identity_token: self.serve_identity_token,
            proxy: self.proxy,
            trace_url: self.trace_url.clone(),
            session: None,
            demand: Arc::clone(&demand),
            identity: None,
            relay: None,
            access,
            exchanges: Arc::default(),
            http: parts.http.clone(),
        };
        let provider = match &self.whence {
            Whence::Provider(provider) => {
                provider.as_ref().clone().build_or_explain(self.context(name, parts))
            }
            Whence::Upstream { address, profile: there } => {
                let urls = self.base_url.spellings().into_iter().map(str::to_owned).collect();
                let upstream = Upstream::new(address.clone(), there.clone(), urls, &parts.env, clock.clone());
                return profile.relayed(Relay::Upstream(Arc::new(upstream)), clock);
            }
            Whence::Feed(receiver) => return profile.relayed(Relay::Feed(Arc::clone(receiver)), clock),
        };
        let label = Label { profile: name.into(), stage: Stage::Identity };
        let identity = Keeper::new(label, Policy::Fraction, demand, clock, restored.identity);
        let exchange = Arc::new(Exchange::new(self.base_url.url(), parts.http.clone()));
        let access = AccessSource::new(identity.clone(), exchange, Arc::clone(&profile.exchanges));
        let profile = Profile {
            provider: provider.name(),
            session: provider.session(),
            identity: Some(identity),
            ..profile
        };
        let identity = IdentitySource {
            provider,
            audience: self.audience,
            profile: name.into(),
            base_url: self.base_url.url().clone(),
            http: parts.http.clone(),
            clock: parts.clock.clone(),
            early: Mutex::default(),
        };
        (profile, Loops::Exchange(Box::new((identity, access))))
    }
}

/// What is left of an earlier daemon's tokens.
#[derive(Clone, Debug, Default)]
pub struct RestoredTokens {
    pub identity: Option<Restored<IdentityToken>>,
    pub access: Option<Restored<AccessToken>>,
}

/// What every profile is built with.
#[derive(Clone)]
pub struct Parts {
    pub env: Env,
    pub clock: Clock,
    pub http: Http,
}

impl Parts {
    /// For one profile: what its servers say about our clock concerns no other profile.
    fn for_profile(&self) -> Self {
        let clock = self.clock.with_own_skew();
        Self { env: self.env.clone(), http: self.http.with_clock(clock.clone()), clock }
    }
}

/// One profile as the edges see it.
pub struct Profile {
    pub name: Arc<str>,
    pub base_url: BaseUrl,
    /// The provider's kind, or what is in its place.
    pub provider: &'static str,
    pub audience: Option<String>,
    pub serve_identity_token: bool,
    /// Whether jobs get the loopback proxy, if they do not say.
    pub proxy: bool,
    pub trace_url: Option<BaseUrl>,
    /// Where a person signs in, if that is how this profile gets its tokens.
    pub session: Option<Arc<Session>>,
    pub demand: Arc<Demand>,
    /// None where access tokens come from another daemon, and what they are got with stays there.
    pub identity: Option<Keeper<IdentityToken>>,
    /// That daemon.
    pub relay: Option<Relay>,
    pub access: Keeper<AccessToken>,
    exchanges: Arc<AtomicU64>,
    /// Its way to its servers.
    pub http: Http,
}

impl Profile {
    /// Tries again at once what failed: the configuration or the source may have changed.
    pub fn retry_failed(&self) {
        if let Some(identity) = &self.identity
            && identity.read(|snapshot| snapshot.error.is_some())
        {
            identity.reset();
        }
        if self.access.read(|snapshot| snapshot.error.is_some()) {
            self.access.reset();
        }
    }

    /// Exchanges made since the start.
    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    fn relayed(mut self, relay: Relay, clock: Clock) -> (Self, Loops) {
        self.relay = Some(relay.clone());
        (self, Loops::Relay(RelaySource::new(relay, clock)))
    }
}

/// The refresh loops of a profile, to be spawned by the daemon.
pub enum Loops {
    /// What the identity keeper and the access keeper renew from.
    Exchange(Box<(IdentitySource, AccessSource)>),
    Relay(RelaySource),
}

impl Loops {
    pub async fn run(self, profile: Arc<Profile>) {
        let access = profile.access.clone();
        match self {
            Self::Exchange(sources) => {
                let (identity, exchange) = *sources;
                match &profile.identity {
                    Some(keeper) => {
                        if let Some(token) = keeper.read(|snapshot| snapshot.token.clone()) {
                            keeper.amend(identity.provider.restored(token).await);
                        }
                        tokio::join!(keeper.clone().run(identity), access.run(exchange));
                    }
                    None => access.run(exchange).await,
                }
            }
            Self::Relay(source) => access.run(source).await,
        }
    }
}

/// In place of a provider's kind.
const UPSTREAM: &str = "upstream";
const FEED: &str = "feed";

/// A W&B API address: https (http on loopback), no trailing slash, no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    url: Url,
    text: String,
}

impl BaseUrl {
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// As the SDK writes it: no trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where weave's trace server is, if it is not below this address.
    pub fn traces(&self) -> Option<&'static str> {
        MULTI_TENANT.contains(&self.as_str()).then_some(TRACES)
    }

    /// Where people look at what was sent here: the SDK's rule (0.31.0, `api_to_app_url`).
    pub fn app(&self) -> String {
        match self.as_str() {
            "https://api.forge.coreweave.com" => "https://forge.coreweave.com/wandb".to_owned(),
            text => match text.split_once("://api.") {
                Some((scheme, host)) if host.starts_with("wandb.") => format!("{scheme}://{host}"),
                Some((scheme, host)) => format!("{scheme}://app.{host}"),
                None => text.to_owned(),
            },
        }
    }

    /// Every spelling of the same deployment that some SDK uses as a key in `credentials.json`: the
    /// multi-tenant cloud has two (the default changed in wandb 0.31.0).
    pub fn spellings(&self) -> Vec<&str> {
        if MULTI_TENANT.contains(&self.as_str()) { MULTI_TENANT.to_vec() } else { vec![self.as_str()] }
    }
}

impl Default for BaseUrl {
    fn default() -> Self {
        MULTI_TENANT[0].parse().expect("the default is a valid base URL")
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let base = Self::with_any_scheme(text)?;
        base.check().map(|()| base)
    }
}

impl BaseUrl {
    /// Whether its scheme is one that needs no word of the profile.
    fn check(&self) -> Result<(), String> {
        http::check_url(&self.url, Destination::Network).map_err(|error| match error.reason {
            Reason::PlainHttp { host } => format!(
                "{host} must be reached by https; for a W&B server without TLS in a private network, name that network in the \
                 profile: allow-plain-http = \"10.0.0.0/8\""
            ),
            _ => error.to_string(),
        })
    }

    fn with_any_scheme(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/');
        let text = if text == FORGE_PAGE { MULTI_TENANT[1] } else { text };
        // `wandb.corp:8080` would be a URL of the scheme `wandb.corp`.
        if !text.contains("://") && !text.is_empty() {
            return Err(format!("`{text}` has no scheme: write \"https://{text}\""));
        }
        let url: Url = text.parse().map_err(|error| {
            format!("`{text}` is not a URL ({error}); write it like \"https://api.wandb.ai\"")
        })?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a base URL has no query and no fragment".to_owned());
        }
        if url.scheme() != "http" {
            http::check_url(&url, Destination::Network).map_err(|error| error.to_string())?;
        }
        Ok(Self { url, text: text.to_owned() })
    }
}

/// Plain http is judged later, by what else the profile says.
fn any_scheme<'de, D: Deserializer<'de>>(input: D) -> Result<BaseUrl, D::Error> {
    BaseUrl::with_any_scheme(&String::deserialize(input)?).map_err(serde::de::Error::custom)
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The SDK's default up to 0.30.0, and from 0.31.0 on.
const MULTI_TENANT: [&str; 2] = ["https://api.wandb.ai", "https://api.forge.coreweave.com"];

/// The trace server of the multi-tenant cloud (weave 0.54).
const TRACES: &str = "https://trace.wandb.ai";

/// The SDK (0.31.0) takes this address of a page for the API's.
const FORGE_PAGE: &str = "https://forge.coreweave.com/api/wandb";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multi_tenant_cloud_has_two_spellings() {
        for url in ["https://api.wandb.ai/", "https://forge.coreweave.com/api/wandb"] {
            assert_eq!(url.parse::<BaseUrl>().expect("valid").spellings(), MULTI_TENANT);
        }
        let own: BaseUrl = "https://wandb.acme.example/api/".parse().expect("valid");
        assert_eq!(own.spellings(), ["https://wandb.acme.example/api"]);
    }

    #[test]
    fn an_address_without_a_scheme_gets_a_sentence() {
        for text in ["wandb.corp:8080", "wandb.corp", "10.0.0.1:8080/"] {
            let why = text.parse::<BaseUrl>().expect_err(text);
            assert!(why.contains(&format!("write \"https://{}\"", text.trim_end_matches('/'))), "{why}");
        }
        let why = "http://wandb.corp".parse::<BaseUrl>().expect_err("plain http");
        assert!(why.contains("allow-plain-http"), "{why}");
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for good in ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:1"] {
            assert!(good.parse::<BaseUrl>().is_ok(), "{good}");
        }
        for bad in ["http://wandb.example", "http://169.254.169.254", "https://u:p@x.example", "ftp://x", "x"]
        {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }
}
