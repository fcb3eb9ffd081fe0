//! `[profile.NAME]` as it is written.

use serde::Deserialize;

use super::{BaseUrl, Config, Whence};
use crate::feed::upstream::Address;
use crate::provider;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default)]
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
    proxy: bool,
    #[serde(default)]
    trace_url: Option<BaseUrl>,
}

fn yes() -> bool {
    true
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { provider, upstream, upstream_profile, .. } = written;
        let whence = match (provider, upstream) {
            (None, None) => return Err("missing field `provider`"),
            (Some(_), Some(_)) => return Err(BOTH),
            (Some(_), None) if upstream_profile.is_some() => return Err(NO_UPSTREAM),
            (Some(provider), None) => Whence::Provider(Box::new(provider)),
            (None, Some(_)) if written.audience.is_some() || written.serve_identity_token => {
                return Err(NO_IDENTITY);
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
            proxy: written.proxy,
            trace_url: written.trace_url,
        })
    }
}

const BOTH: &str = "a profile has a provider or an `upstream`, not both: remove one of the two";
const NO_UPSTREAM: &str = "`upstream-profile` names a profile of an `upstream`, and there is none here";
const NO_IDENTITY: &str = "with `upstream`, only access tokens come here: `audience` and `serve-identity-token` belong to the profile there";
