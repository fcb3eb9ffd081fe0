//! The variables by which servers are reached: a service and a shell rarely have the same, and nothing else says so.

use std::collections::BTreeMap;

use super::report::{Report, Step};
use crate::env::Env;
use crate::token::TokenHash;

/// What the daemon has, as its caller may compare it.
pub fn fingerprint(env: &Env) -> BTreeMap<String, String> {
    let set = NAMES.iter().filter_map(|name| Some(((*name).to_owned(), env.var(name)?)));
    set.map(|(name, value)| (name, TokenHash::of(&value).to_string())).collect()
}

/// Warns of each variable that this shell and the daemon do not share.
pub fn compare(daemon: &BTreeMap<String, String>, env: &Env, report: &mut Report) {
    let ours = fingerprint(env);
    for name in NAMES {
        let (found, remedy) = match (ours.get(*name), daemon.get(*name)) {
            (ours, theirs) if ours == theirs => continue,
            (Some(_), None) => (
                format!("{name} is set in this shell, and the daemon does not have it"),
                format!(
                    "if it is needed: systemctl --user import-environment {name}, then restart the daemon"
                ),
            ),
            (None, _) => (
                format!("the daemon has {name}, and this shell does not"),
                "if it is wrong: restart the daemon without it".to_owned(),
            ),
            (Some(_), Some(_)) => (
                format!("{name} is another one in the daemon than in this shell"),
                "the daemon's counts: restart it if this shell's is right".to_owned(),
            ),
        };
        report.warn(Step::Daemon, found, remedy);
    }
}

/// Warns of what has no effect on us, and of entries that other libraries put in front of a token.
pub fn elsewhere(env: &Env, host: Option<&str>, report: &mut Report) {
    let unread = UNREAD.iter().filter(|name| env.var(name).is_some());
    for name in unread.filter(|_| env.var("SSL_CERT_FILE").is_none()) {
        report.warn(
            Step::SdkEnvironment,
            format!(
                "{name} is set: Python's requests reads it, and neither the daemon nor the SDK's core does"
            ),
            "name the same file in SSL_CERT_FILE, for the daemon too",
        );
    }
    let Some(host) = host else { return };
    let path = env.path("NETRC").or_else(|| Some(env.path("HOME")?.join(".netrc")));
    let Some(path) = path else { return };
    let Ok(text) = crate::read_file::read(&path, MAX_NETRC) else { return };
    if machines(&String::from_utf8_lossy(&text)).any(|machine| machine == host) {
        report.warn(
            Step::SdkEnvironment,
            format!(
                "{} has an entry for {host}: Python's requests sends that in place of a token (psf/requests#3929)",
                path.display()
            ),
            format!("remove the entry of {host}, which `wandb login` wrote"),
        );
    }
}

/// The hosts of a .netrc file.
fn machines(text: &str) -> impl Iterator<Item = &str> {
    let mut words = text.split_whitespace();
    std::iter::from_fn(move || {
        words.find(|word| *word == "machine")?;
        words.next()
    })
}

/// As reqwest and rustls-native-certs read them. `WANDB_BASE_URL` is not among them: exec sets it.
const NAMES: &[&str] = &[
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

const UNREAD: &[&str] = &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

const MAX_NETRC: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn said(report: Report) -> Vec<String> {
        report.finish("p").findings.into_iter().map(|finding| finding.found).collect()
    }

    #[test]
    fn each_difference_is_said_and_no_value() {
        let daemon = fingerprint(&Env::fixed([
            ("HTTPS_PROXY", "http://planted"),
            ("NO_PROXY", "a"),
            ("SSL_CERT_DIR", "/c"),
        ]));
        let shell = Env::fixed([
            ("HTTPS_PROXY", "http://other"),
            ("SSL_CERT_FILE", "/planted"),
            ("SSL_CERT_DIR", "/c"),
        ]);
        let mut report = Report::default();
        compare(&daemon, &shell, &mut report);
        let said = said(report);
        assert_eq!(
            said,
            [
                "HTTPS_PROXY is another one in the daemon than in this shell",
                "the daemon has NO_PROXY, and this shell does not",
                "SSL_CERT_FILE is set in this shell, and the daemon does not have it",
            ]
        );
    }

    #[test]
    fn an_entry_for_the_host_of_wandb_is_found() {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("netrc");
        std::fs::write(
            &path,
            "machine github.com login x password y\nmachine api.wandb.ai\n  login user\n  password planted\n",
        )
        .expect("written");
        let shown = path.to_str().expect("text");
        let env = Env::fixed([("NETRC", shown), ("REQUESTS_CA_BUNDLE", "/ca.pem")]);
        let mut report = Report::default();
        elsewhere(&env, Some("api.wandb.ai"), &mut report);
        let found = said(report);
        assert!(
            found[0].starts_with("REQUESTS_CA_BUNDLE is set") && found[1].contains("api.wandb.ai"),
            "{found:?}"
        );
        assert!(!found.concat().contains("planted"));
        let mut report = Report::default();
        elsewhere(&Env::fixed([("NETRC", shown)]), Some("wandb.acme.example"), &mut report);
        assert!(said(report).is_empty());
    }
}
