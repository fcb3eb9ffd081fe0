//! Which addresses a request may go to. A name is judged by what it resolves to, at the moment of the connection: there is
//! no gap for another answer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use ipnet::IpNet;
use url::{Host, Url};

use crate::blocking;

/// Where a client connects to. A name that also leads elsewhere is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    Any,
    /// This machine, this link, or a private network: see [`is_platform_address`].
    Platform,
    Loopback,
    /// Networks that the profile names.
    Within(Arc<[IpNet]>),
}

impl Addresses {
    /// The addresses of a name (or the one that it spells), if all are allowed.
    pub(super) async fn look_up(self, name: String, port: u16) -> Result<Vec<SocketAddr>, LookupError> {
        let look_up = move || (name.as_str(), port).to_socket_addrs();
        let found = blocking::run(look_up).await.flatten().map_err(LookupError::Unknown)?;
        let found: Vec<SocketAddr> = found.collect();
        self.judge(&found)?;
        Ok(found)
    }

    /// Every address counts: which one the connection would take is not ours to say.
    fn judge(&self, found: &[SocketAddr]) -> Result<(), LookupError> {
        let allowed = |ip: IpAddr| match self {
            Self::Any => true,
            Self::Platform => is_platform_address(ip),
            Self::Loopback => ip.to_canonical().is_loopback(),
            Self::Within(nets) => within(nets, ip),
        };
        match (found.iter().find(|address| !allowed(address.ip())), self) {
            (Some(address), Self::Within(_)) => Err(LookupError::NotWithin(address.ip())),
            (Some(address), Self::Loopback) => Err(LookupError::NotLoopback(address.ip())),
            (Some(address), _) => Err(LookupError::Forbidden(address.ip())),
            (None, _) => Ok(()),
        }
    }
}

impl reqwest::dns::Resolve for Addresses {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let addresses = self.clone();
        Box::pin(async move {
            let found = addresses.look_up(name.as_str().to_owned(), 0).await?;
            let found: reqwest::dns::Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// Whether the URL is for this machine: a loopback address, `localhost` or a name under it (RFC 6761). Such a name may still
/// lead elsewhere, which is found out when it is resolved.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        _ => literal(url).is_some_and(|ip| ip.to_canonical().is_loopback()),
    }
}

/// Whether plain http may go to this address: this machine, this link, or a private network. Metadata
/// services live there, and nothing on the internet does.
pub fn is_platform_address(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

/// Whether the address is in one of the networks.
pub(super) fn within(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip.to_canonical()))
}

/// The address that the URL holds instead of a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    // Displays the cause itself, so that the innermost message is this one.
    #[error("{0}")]
    Unknown(std::io::Error),
    #[error("the name leads to {0}, which is not an address of this platform")]
    Forbidden(IpAddr),
    #[error("the name leads to {0}, which is not this machine")]
    NotLoopback(IpAddr),
    #[error("the name leads to {0}, to which `allow-plain-http` does not let plain http go")]
    NotWithin(IpAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ips: &[&str]) -> Vec<SocketAddr> {
        ips.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 0)).collect()
    }

    #[test]
    fn one_public_address_spoils_a_platforms_name() {
        let judge = |ips: &[&str]| Addresses::Platform.judge(&at(ips)).is_ok();
        assert!(judge(&["169.254.169.254"]) && judge(&["::ffff:10.0.0.5"]));
        assert!(!judge(&["169.254.169.254", "203.0.113.5"]) && !judge(&["::ffff:203.0.113.5"]));
    }

    #[test]
    fn a_loopback_name_leads_to_this_machine_only() {
        let judge = |ips: &[&str]| Addresses::Loopback.judge(&at(ips)).is_ok();
        assert!(judge(&["::1", "127.0.0.1", "127.8.8.8", "::ffff:127.0.0.1"]));
        for elsewhere in
            ["10.0.0.5", "0.0.0.0", "::", "169.254.169.254", "203.0.113.5", "::ffff:10.0.0.5", "::127.0.0.1"]
        {
            assert!(!judge(&["127.0.0.1", elsewhere]), "{elsewhere}");
        }
    }

    #[test]
    fn loopback_has_many_spellings() {
        let is = |url: &str| is_loopback(&Url::parse(url).expect("a URL"));
        for url in [
            "http://localhost/",
            "http://LOCALHOST/",
            "http://localhost./",
            "http://app.localhost/",
            "http://app.localhost./",
            "http://127.0.0.1:1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.255.255.254/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "https://%6cocalhost/",
        ] {
            assert!(is(url), "{url}");
        }
        for url in [
            "http://0.0.0.0/",
            "http://[::]/",
            "http://localhost.example/",
            "http://notlocalhost/",
            "http://128.0.0.1/",
        ] {
            assert!(!is(url), "{url}");
        }
    }
}
