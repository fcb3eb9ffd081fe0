//! Where metrics are shown beside the socket, as the configuration says, and in which form.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

/// `metrics-listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Loopback(pub(super) SocketAddr);

impl TryFrom<String> for Loopback {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self(address)),
            Ok(address) => Err(format!(
                "metrics-listen: {} can be reached from other machines, and nothing there asks who is asking; write \
                 127.0.0.1:{1}, and put a proxy of yours before it",
                address.ip(),
                address.port()
            )),
            Err(_) => {
                Err("metrics-listen is a loopback address with a port, such as \"127.0.0.1:9464\"".to_owned())
            }
        }
    }
}

/// `metrics-textfile`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Textfile(pub(super) PathBuf);

impl TryFrom<String> for Textfile {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') && text.ends_with(".prom") {
            return Ok(Self(text.into()));
        }
        Err("metrics-textfile is the absolute path of a file whose name ends in .prom, as node_exporter wants it".to_owned())
    }
}

/// Whether a request's `Host` is one that a web page cannot have brought about. A page of `http://evil.example:9464` whose
/// name is made to resolve to 127.0.0.1 ("DNS rebinding") is of the same origin as we are, and could read the answer; its
/// browser then sends that name. Addresses resolve to nothing else, and browsers resolve `localhost` by themselves.
pub(super) fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// OpenMetrics as the text format before it (version 0.0.4): there, a counter's name has its `_total` everywhere, and units
/// and an end are not known.
pub(super) fn classic(open: &str) -> String {
    let counters: Vec<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let name = about.and_then(|about| about.split(' ').next()).filter(|name| counters.contains(name));
        match name {
            Some(name) => text += &line.replacen(name, &format!("{name}_total"), 1),
            None => text += line,
        }
        text.push('\n');
    }
    text
}

/// The same without what changes by itself, for a reader who sees it later.
pub(super) fn lasting(classic: &str) -> String {
    classic.split_inclusive('\n').filter(|line| !line.contains(COUNTDOWN)).collect()
}

/// In its place there is the time of expiry.
const COUNTDOWN: &str = "wandb_cred_remaining_seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on_and_others_are_told_why() {
        let of = |text: &str| Loopback::try_from(text.to_owned());
        for good in ["127.0.0.1:9464", "127.9.9.9:0", "[::1]:9464"] {
            assert!(of(good).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464"] {
            assert!(of(bad).expect_err(bad).contains("127.0.0.1:9464"), "{bad}");
        }
        for bad in ["localhost:9464", "9464", "127.0.0.1", ""] {
            assert!(of(bad).expect_err(bad).contains("such as"), "{bad}");
        }
    }

    #[test]
    fn a_name_that_somebody_could_point_at_us_is_no_host() {
        for good in [
            "127.0.0.1:9464",
            "127.0.0.1",
            "[::1]:9464",
            "[::1]",
            "localhost:9464",
            "LOCALHOST",
            "10.0.0.7:80",
        ] {
            assert!(is_local(good), "{good}");
        }
        for bad in
            ["evil.example:9464", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io:9464", ""]
        {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn the_older_format_names_counters_in_full() {
        let open = "# HELP a_b Requests a_b.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n# HELP g G.\n# TYPE g gauge\n# UNIT g s\ng 2\n# EOF\n";
        let wanted = "# HELP a_b_total Requests a_b.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n# HELP g G.\n# TYPE g gauge\ng 2\n";
        assert_eq!(classic(open), wanted);
        assert_eq!(lasting("wandb_cred_remaining_seconds{a=\"b\"} 7\ng 2\n"), "g 2\n");
    }
}
