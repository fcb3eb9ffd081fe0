//! The network: W&B's address, TLS, the proxy in use, and the clocks.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use url::Url;

use super::report::{Report, Step};
use super::{Context, Probe};
use crate::duration;
use crate::error::{Error, Exit, NetworkFault, Reason};
use crate::http::{Answer, Destination, is_loopback, proxy_at};

/// Reports the proxy that requests to W&B go through, without the user and password that its variable may hold. `Http` says
/// which: the code that sends them.
pub(super) fn proxy(cx: &Context<'_>, report: &mut Report) {
    let step = Step::Proxy;
    let set = || PROXY_VARIABLES.iter().filter_map(|name| Some((*name, cx.env.var(name)?)));
    if let Some(at) = cx.http.proxy_of(cx.base_url.url()) {
        let from = match set().find(|(_, value)| proxy_at(value).as_ref() == Some(&at)) {
            _ if cx.http.has_own_proxy() => format!("`proxy` in [profile.{}]", cx.profile),
            Some((name, _)) => name.to_owned(),
            None => "this system".to_owned(),
        };
        return report.ok(step, format!("{from} sends requests to W&B through {at}"));
    }
    let direct = "no proxy for requests to W&B";
    if cx.http.has_own_proxy() {
        return report.ok(step, format!("{direct}, as [profile.{}] says", cx.profile));
    }
    if cx.base_url.url().scheme() != "https" || is_loopback(cx.base_url.url()) {
        return report.ok(step, direct);
    }
    let exempt = ["NO_PROXY", "no_proxy"].into_iter().find(|name| cx.env.var(name).is_some());
    match (set().next(), exempt) {
        (None, _) => report.ok(step, direct),
        (Some((name, value)), _) if proxy_at(&value).is_none() => report.warn(
            step,
            format!("{name} is set, but not to a proxy URL, so it is ignored"),
            format!("write it like {name}=http://proxy.example:3128, or unset it"),
        ),
        (Some((name, _)), Some(exempt)) => {
            report.ok(step, format!("{direct}: {name} is set, and {exempt} exempts the server"));
        }
        (Some((name, _)), None) => report.warn(
            step,
            format!("{name} is set, and has no effect: an empty variable goes before it (HTTPS_PROXY, https_proxy)"),
            format!("export HTTPS_PROXY=\"${name}\""),
        ),
    }
}

/// Those for https, in the order in which they are looked at.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Asks the API a question that needs no token.
pub(super) async fn server(cx: &Context<'_>) -> Probe {
    let mut probe = Probe::default();
    let report = &mut probe.report;
    let base = cx.base_url.as_str();
    if let Some(right) = right_address(cx.base_url.url()) {
        report.fail(
            Step::Server,
            Exit::Configuration,
            format!("{base} is the address of a page, not of the API"),
            format!("set base-url = \"{right}\" in [profile.{}]", cx.profile),
        );
        return probe;
    }
    let mut url = cx.base_url.url().clone();
    url.set_path(&format!("{}/graphql", url.path().trim_end_matches('/')));
    let question = r#"{"query":"query Viewer { viewer { id } }","variables":{}}"#;
    let request =
        cx.http.request(Destination::Network, Method::POST, url).header(CONTENT_TYPE, JSON).body(question);
    match cx.http.send(Destination::Network, request, TIMEOUT, MAX_ANSWER).await {
        Err(error) => {
            let remedy = unreachable(cx, &error);
            report.fail(Step::Server, Exit::from(&error), error.to_string(), remedy);
        }
        Ok(answer) => {
            probe.skew = answer.skew;
            check_answer(cx, &answer, report);
        }
    }
    probe
}

fn check_answer(cx: &Context<'_>, answer: &Answer, report: &mut Report) {
    let (base, profile) = (cx.base_url.as_str(), cx.profile);
    let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let json = serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|value| value.is_object());
    let wrong_url = format!(
        "set base-url in [profile.{profile}] to the API's address: https://api.wandb.ai for the multi-tenant cloud, \
         https://HOST for Dedicated Cloud and Self-Managed"
    );
    match answer.status {
        200 | 400 | 401 | 403 | 422 if json => {
            let spellings = cx.base_url.spellings();
            let also = spellings.iter().find(|spelling| **spelling != base);
            let also =
                also.map_or(String::new(), |also| format!(" (the SDK files are also valid for {also})"));
            report.ok(Step::Server, format!("{base} is a W&B API{also}"));
        }
        300..=399 => {
            let to = Url::parse(header(LOCATION))
                .ok()
                .map_or_else(String::new, |url| format!(" to {}", url.origin().ascii_serialization()));
            let found =
                format!("{base} redirects{to} (status {}), and redirects are never followed", answer.status);
            report.fail(Step::Server, Exit::Configuration, found, wrong_url);
        }
        407 => report.fail(
            Step::Server,
            Exit::Configuration,
            "the proxy asks for a user and password (status 407)",
            format!("{PROXY_PASSWORD}, or let requests to W&B bypass it with NO_PROXY"),
        ),
        408 | 429 | 500..=599 => report.fail(
            Step::Server,
            Exit::TryLater,
            format!("{base} answers with status {}", answer.status),
            "W&B, or a proxy in front of it, cannot answer now: try again (https://status.wandb.com)",
        ),
        status => {
            let kind = header(CONTENT_TYPE).split(';').next().unwrap_or_default();
            let kind = if kind.is_empty() { "nothing" } else { kind };
            report.fail(
                Step::Server,
                Exit::Configuration,
                format!("{base} answers /graphql with status {status} and {kind}: this is not a W&B API"),
                wrong_url,
            );
        }
    }
}

/// Why there is no answer, and how to fix it.
fn unreachable(cx: &Context<'_>, error: &Error) -> String {
    let through = cx.http.proxy_of(cx.base_url.url());
    let host = cx.base_url.url().host_str().unwrap_or_default();
    let bypass = match through {
        None => String::new(),
        Some(_) if cx.http.has_own_proxy() => {
            format!("; if W&B needs no proxy: set `no-proxy = \"{host}\"` in [profile.{}]", cx.profile)
        }
        Some(_) => format!("; if W&B needs no proxy: export NO_PROXY={host}"),
    };
    let fault = match &error.reason {
        Reason::NoCertificates { variable: Some(variable), .. } => {
            return format!("unset {variable}, or have it name the CA certificates of this system");
        }
        Reason::NoCertificates { .. } => {
            return "install ca-certificates, or name a file in SSL_CERT_FILE".to_owned();
        }
        Reason::Unreachable { fault, .. } => *fault,
        _ => NetworkFault::Other,
    };
    let remedy = match fault {
        NetworkFault::CertificateExpired => {
            "the server's certificate has expired, or this machine's clock is wrong: date -u".to_owned()
        }
        NetworkFault::CertificateName => {
            "the certificate is for another host: is `base-url` right?".to_owned()
        }
        NetworkFault::CertificateUntrusted => format!(
            "the certificate is signed by an authority that this machine does not trust (a company's proxy, a private CA): \
             add it to the system's store (update-ca-certificates), or name its file in SSL_CERT_FILE or as `ca-file` in \
             [profile.{}]",
            cx.profile
        ),
        NetworkFault::ProxyPassword => PROXY_PASSWORD.to_owned(),
        NetworkFault::ProxyRefuses => format!("ask the administrator of the proxy to let {host} through"),
        // What is said of a connection is then said of the proxy's.
        NetworkFault::UnknownName | NetworkFault::Refused if through.is_some() => {
            "is that the proxy's address, and does it run?".to_owned()
        }
        NetworkFault::UnknownName => {
            "no such host: is `base-url` spelled right, and is there a network?".to_owned()
        }
        NetworkFault::Refused => "nothing listens there: is `base-url` right, port included?".to_owned(),
        NetworkFault::ForbiddenAddress => format!(
            "name the server's network: allow-plain-http = [\"10.0.0.0/8\"] in [profile.{}], or use https",
            cx.profile
        ),
        NetworkFault::Other => {
            "is there a network, and does a firewall let https out? Set HTTPS_PROXY if a proxy is needed"
                .to_owned()
        }
    };
    remedy + &bypass
}

/// Where it is the proxy that must change, whoever is on its other side.
pub(super) fn proxy_remedy(error: &Error) -> Option<&'static str> {
    let Reason::Unreachable { fault: NetworkFault::ProxyPassword, .. } = &error.reason else { return None };
    Some(PROXY_PASSWORD)
}

const PROXY_PASSWORD: &str = "put a user and password into the proxy's URL, in the environment of the daemon: \
                              HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT (with special characters as %XX)";

/// The API's address, if this is one that people mistake for it.
fn right_address(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let path = url.path().trim_end_matches('/');
    match host {
        "wandb.ai" | "www.wandb.ai" | "app.wandb.ai" => Some("https://api.wandb.ai".to_owned()),
        "forge.coreweave.com" => Some("https://api.forge.coreweave.com".to_owned()),
        _ => PAGE_PATHS
            .iter()
            .find_map(|end| path.strip_suffix(end))
            .map(|start| format!("{}{start}", url.origin().ascii_serialization())),
    }
}

/// Paths of pages and endpoints that end up in a base URL.
const PAGE_PATHS: [&str; 5] = ["/graphql", "/oidc/token", "/home", "/login", "/authorize"];

/// Compares our clock with those of the servers, by their `Date` headers.
pub(super) fn clocks(clocks: &[(&str, Option<i64>)], report: &mut Report) {
    let known: Vec<_> = clocks.iter().filter_map(|(name, skew)| Some((*name, (*skew)?))).collect();
    let Some((name, skew)) = known.iter().copied().max_by_key(|(_, skew)| skew.abs()) else {
        report.skip(&[Step::Clock], "no server gave its time");
        return;
    };
    let direction = if skew > 0 { "behind" } else { "ahead" };
    let found = format!("this machine is {} {direction} of {name}", duration::text(skew.abs()));
    let set = "synchronise the clock: timedatectl set-ntp true (WSL: wsl --shutdown; a paused virtual machine: \
               chronyc makestep)";
    if let [(first, a), (second, b)] = known[..]
        && (a - b).abs() > WARN_SKEW
    {
        let found = format!("the clocks of {first} and {second} differ by {}", duration::text((a - b).abs()));
        let remedy = format!("to W&B, JWTs seem expired or not yet valid: on the issuer's machine, {set}");
        report.warn(Step::Clock, found, remedy);
    } else if skew.abs() > FAIL_SKEW {
        report.fail(Step::Clock, Exit::Configuration, found, set);
    } else if skew.abs() > WARN_SKEW {
        report.warn(Step::Clock, found, set);
    } else {
        report.ok(Step::Clock, format!("within {} of {}", duration::text(skew.abs().max(1)), join(&known)));
    }
}

fn join(known: &[(&str, i64)]) -> String {
    known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ")
}

const WARN_SKEW: i64 = 30;

/// The life of the shortest JWTs in use.
const FAIL_SKEW: i64 = 300;

const JSON: &str = "application/json";
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_address_is_suggested_for_a_page() {
        let right = |url: &str| right_address(&url.parse().expect("a URL"));
        assert_eq!(right("https://wandb.ai").as_deref(), Some("https://api.wandb.ai"));
        assert_eq!(right("https://forge.coreweave.com").as_deref(), Some("https://api.forge.coreweave.com"));
        assert_eq!(right("https://w.acme.example/home").as_deref(), Some("https://w.acme.example"));
        assert_eq!(
            right("https://w.acme.example:8/x/graphql").as_deref(),
            Some("https://w.acme.example:8/x")
        );
        for url in ["https://api.wandb.ai", "https://w.acme.example/api", "https://acme.wandb.io"] {
            assert_eq!(right(url), None, "{url}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_ours_or_theirs() {
        let verdict = |issuer, server| {
            let mut report = Report::default();
            clocks(&[("the issuer", issuer), ("W&B", server)], &mut report);
            let doctor = report.finish("p");
            (doctor.findings[0].verdict, doctor.findings[0].found.clone())
        };
        use crate::api::Verdict::{Fail, Ok, Skipped, Warn};
        assert_eq!(verdict(Some(2), Some(-1)).0, Ok);
        assert_eq!(verdict(Some(60), Some(61)).0, Warn);
        let (ours, said) = verdict(Some(600), Some(601));
        assert!(ours == Fail && said.contains("behind"), "{said}");
        let (theirs, said) = verdict(Some(600), Some(0));
        assert!(theirs == Warn && said.contains("differ by 10 min"), "{said}");
        assert_eq!(verdict(None, None).0, Skipped);
    }
}
