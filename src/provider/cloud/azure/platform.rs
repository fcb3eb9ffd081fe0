//! The platforms that give an Azure managed identity: how each is recognised, its address, its secret and its names for
//! parameters. Every value here is MSAL's.

use std::path::Path;

use serde::Deserialize;
use url::Url;

use crate::env::Env;
use crate::error::Error;
use crate::http::{Destination, is_loopback};
use crate::provider::settings::{variable, variable_url};
use crate::token::Secret;

/// Who answers for the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    ServiceFabric,
    AppService,
    MachineLearning,
    CloudShell,
    Arc,
    Vm,
}

impl Platform {
    /// Address without query, secret header, and API version.
    pub(super) fn endpoint(self, env: &Env) -> Result<Endpoint, Error> {
        match self {
            Self::ServiceFabric => Err(Error::variable(
                "IDENTITY_SERVER_THUMBPRINT",
                "provider azure: Service Fabric is not supported: its endpoint is trusted by a SHA-1 thumbprint only; \
                 use the command provider with a program of the Azure SDK",
            )),
            Self::AppService => Ok((
                endpoint_url(env, "IDENTITY_ENDPOINT")?,
                Some(("X-IDENTITY-HEADER", secret(env, "IDENTITY_HEADER")?)),
                "2019-08-01",
            )),
            Self::MachineLearning => Ok((
                endpoint_url(env, "MSI_ENDPOINT")?,
                Some(("secret", secret(env, "MSI_SECRET")?)),
                "2017-09-01",
            )),
            // Without a version, as MSAL asks.
            Self::CloudShell => Ok((endpoint_url(env, "MSI_ENDPOINT")?, None, "")),
            Self::Arc => {
                let url = match env.var("IDENTITY_ENDPOINT") {
                    Some(_) => endpoint_url(env, "IDENTITY_ENDPOINT")?,
                    None => Url::parse(ARC_ENDPOINT).expect("a constant URL"),
                };
                // The key of the second request is for the agent of this machine.
                if !is_loopback(&url) {
                    let message = "IDENTITY_ENDPOINT of an Arc machine must be an address of this machine";
                    return Err(Error::variable("IDENTITY_ENDPOINT", message));
                }
                Ok((url, None, "2020-06-01"))
            }
            Self::Vm => {
                let mut url = vm_base(env)?;
                let path = format!("{}/metadata/identity/oauth2/token", url.path().trim_end_matches('/'));
                url.set_path(&path);
                Ok((url, None, "2018-02-01"))
            }
        }
    }

    /// How this platform spells the name of a user-assigned identity; MSAL's table.
    pub(super) fn parameter(self, kind: NameKind) -> &'static str {
        match (kind, self) {
            (NameKind::Client, Self::MachineLearning) => "clientid",
            (NameKind::Client, _) => "client_id",
            (NameKind::Object, _) => "object_id",
            (NameKind::Resource, Self::AppService) => "mi_res_id",
            (NameKind::Resource, _) => "msi_res_id",
        }
    }
}

pub(super) type Endpoint = (Url, Option<(&'static str, Secret<String>)>, &'static str);

/// The three names of a user-assigned identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    Client,
    Object,
    Resource,
}

/// MSAL's order.
pub(super) fn detect(env: &Env) -> Platform {
    let set = |name| env.var(name).is_some();
    if set("IDENTITY_ENDPOINT") && set("IDENTITY_HEADER") {
        if set("IDENTITY_SERVER_THUMBPRINT") { Platform::ServiceFabric } else { Platform::AppService }
    } else if set("MSI_ENDPOINT") && set("MSI_SECRET") {
        Platform::MachineLearning
    } else if set("IDENTITY_ENDPOINT") && set("IMDS_ENDPOINT") {
        Platform::Arc
    } else if set("MSI_ENDPOINT") {
        Platform::CloudShell
    } else if Path::new(HIMDS).exists() {
        Platform::Arc
    } else {
        Platform::Vm
    }
}

pub(super) fn vm_base(env: &Env) -> Result<Url, Error> {
    match env.var(POD_HOST) {
        Some(_) => endpoint_url(env, POD_HOST),
        None => Ok(Url::parse(IMDS).expect("a constant URL")),
    }
}

/// A URL from the environment that may get a secret: https, or http to an address that is not public.
fn endpoint_url(env: &Env, name: &str) -> Result<Url, Error> {
    variable_url(name, &variable(env, name)?, Destination::Platform)
}

fn secret(env: &Env, name: &str) -> Result<Secret<String>, Error> {
    variable(env, name).map(Secret::new)
}

/// https proves who the host is and may need the proxy; plain http stays on the platform.
pub(super) fn reach(url: &Url) -> Destination {
    if url.scheme() == "https" { Destination::Network } else { Destination::Platform }
}

const IMDS: &str = "http://169.254.169.254";
pub(super) const POD_HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
const ARC_ENDPOINT: &str = "http://localhost:40342/metadata/identity/oauth2/token";
pub(super) const HIMDS: &str = "/opt/azcmagent/bin/himds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_recognised_in_msals_order() {
        let app = [("IDENTITY_ENDPOINT", "http://127.0.0.1/x"), ("IDENTITY_HEADER", "h")];
        let arc = [("IDENTITY_ENDPOINT", "http://127.0.0.1/x"), ("IMDS_ENDPOINT", "http://127.0.0.1")];
        let ml = [("MSI_ENDPOINT", "http://127.0.0.1/x"), ("MSI_SECRET", "s")];
        let fabric = [app[0], app[1], ("IDENTITY_SERVER_THUMBPRINT", "00")];
        let detected = |vars: &[(&str, &str)]| detect(&Env::fixed(vars.iter().copied()));
        assert_eq!(detected(&app), Platform::AppService);
        assert_eq!(detected(&[app[0], app[1], ml[0], ml[1]]), Platform::AppService);
        assert_eq!(detected(&[arc[0], arc[1], ml[0], ml[1]]), Platform::MachineLearning);
        assert_eq!(detected(&ml[..1]), Platform::CloudShell);
        assert_eq!(detected(&[arc[0], arc[1], ml[0]]), Platform::Arc);
        assert_eq!(detected(&arc), Platform::Arc);
        assert_eq!(detected(&fabric), Platform::ServiceFabric);
        assert_eq!(detected(&[]), Platform::Vm);
    }
}
