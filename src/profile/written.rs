//! `[profile.NAME]` as it is written.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{BaseUrl, Config, Whence, any_scheme};
use crate::feed::upstream::Address;
use crate::http::{Network, Proxy, plain_networks};
use crate::provider;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default, deserialize_with = "any_scheme")]
    base_url: BaseUrl,
    #[serde(default)]
    audience: Option<String>,
    #[serde(default)]
    provider: Option<provider::Config>,
    #[serde(default)]
    upstream: Option<Address>,
    #[serde(default)]
    upstream_profile: Option<String>,
    #[serde(default = "yes")]
    sdk_files: bool,
    #[serde(default)]
    keep_warm: bool,
    #[serde(default)]
    serve_identity_token: bool,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    proxy: Option<ProxySetting>,
    #[serde(default)]
    loopback_proxy: bool,
    #[serde(default, deserialize_with = "some_url")]
    trace_url: Option<BaseUrl>,
    #[serde(default)]
    no_proxy: Option<String>,
    #[serde(default)]
    headers_file: Option<PathBuf>,
    #[serde(default)]
    allow_plain_http: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`allow-plain-http` must be a network like \"10.0.0.0/8\", or a list of such")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Two things have this name: `true`, for jobs to have the loopback proxy, and the URL of the organization's.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`proxy` must be true, for the loopback proxy, or the URL of your organization's"
)]
enum ProxySetting {
    ForJobs(bool),
    ToServers(String),
}

fn some_url<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<BaseUrl>, D::Error> {
    String::deserialize(input)?.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Written {
    fn network(&mut self) -> Result<Network, String> {
        if self.allow_plain_http.is_none() {
            self.base_url.check()?;
        }
        for (key, path) in [("ca-file", &self.ca_file), ("headers-file", &self.headers_file)] {
            if let Some(path) = path.as_ref().filter(|path| path.is_relative()) {
                return Err(format!("`{key}` must be an absolute path, not {}", path.display()));
            }
        }
        let proxy = match self.proxy.take() {
            Some(ProxySetting::ForJobs(for_jobs)) => {
                self.loopback_proxy |= for_jobs;
                None
            }
            Some(ProxySetting::ToServers(url)) => Some(url),
            None => None,
        };
        let proxy = match (proxy, self.no_proxy.take()) {
            (Some(proxy), except) => Some(Proxy::parse(&proxy, except)?),
            (None, Some(_)) => return Err(NO_PROXY.to_owned()),
            (None, None) => None,
        };
        let nets = match self.allow_plain_http.take() {
            None => Vec::new(),
            Some(OneOrMore::One(net)) => vec![net],
            Some(OneOrMore::More(nets)) => nets,
        };
        let url = self.base_url.url();
        let plain_http = plain_networks(&nets)?;
        let network = Network {
            server: Some(url.clone()),
            ca_file: self.ca_file.take(),
            proxy,
            headers_file: self.headers_file.take(),
            plain_http,
        };
        if !network.allows_plain(url) {
            self.base_url.check()?;
        }
        Ok(network)
    }
}

fn yes() -> bool {
    true
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(mut written: Written) -> Result<Self, Self::Error> {
        let network = Arc::new(written.network()?);
        let Written { provider, upstream, upstream_profile, .. } = written;
        let whence = match (provider, upstream) {
            (None, None) => return Err("missing field `provider`".to_owned()),
            (Some(_), Some(_)) => return Err(BOTH.to_owned()),
            (Some(_), None) if upstream_profile.is_some() => return Err(NO_UPSTREAM.to_owned()),
            (Some(provider), None) => Whence::Provider(Box::new(provider)),
            (None, Some(_)) if written.audience.is_some() || written.serve_identity_token => {
                return Err(NO_IDENTITY.to_owned());
            }
            (None, Some(address)) => Whence::Upstream { address, profile: upstream_profile },
        };
        Ok(Self {
            base_url: written.base_url,
            audience: written.audience,
            whence,
            sdk_files: written.sdk_files,
            keep_warm: written.keep_warm,
            serve_identity_token: written.serve_identity_token,
            proxy: written.loopback_proxy,
            trace_url: written.trace_url,
            network,
        })
    }
}

const NO_PROXY: &str = "`no-proxy` lists exceptions from `proxy`, and there is none here: set NO_PROXY for the daemon, or `proxy`";
const BOTH: &str = "a profile has a provider or an `upstream`, not both: remove one of the two";
const NO_UPSTREAM: &str = "`upstream-profile` names a profile of an `upstream`, and there is none here";
const NO_IDENTITY: &str = "with `upstream`, only access tokens come here: `audience` and `serve-identity-token` belong to the profile there";
