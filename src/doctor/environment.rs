//! The variables by which servers and identities are found: a service and a shell rarely have the same, and nothing else says
//! so. Values stay where they are: names and hashes are compared.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Report, Step};
use crate::api::{self, Verdict};
use crate::env::Env;
use crate::netrc;
use crate::paths::{IDENTITY_VARIABLES, SdkEnvironment};
use crate::profile;
use crate::token::TokenHash;

/// What the daemon has, as its owner may compare it: each value as a hash with a salt of its own, so that a list of likely
/// values does not give it away wherever the answer ends up.
pub fn fingerprint(env: &Env) -> BTreeMap<String, String> {
    let set = IDENTITY_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), env.var(name)?)));
    set.map(|(name, value)| (name, hash(&format!("{:016x}", fastrand::u64(..)), &value))).collect()
}

fn hash(salt: &str, value: &str) -> String {
    format!("{salt}:{}", TokenHash::of(&format!("{salt}:{value}")))
}

fn is_of(hashed: &str, value: &str) -> bool {
    hashed.split_once(':').is_some_and(|(salt, _)| hash(salt, value) == hashed)
}

/// Warns of each variable that this shell and the daemon do not share, and that may matter to this profile; of each once.
pub fn compare(
    daemon: &api::Doctor,
    kind: &str,
    env: &Env,
    restart: &Restart,
    said: &mut BTreeSet<&'static str>,
    report: &mut Report,
) {
    let failed = daemon.findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    // `exec` and `env` set these for the SDK: they say nothing of where the daemon goes.
    let inside = SdkEnvironment::of(env).is_some() || env.var("WF_TRACE_SERVER_URL").is_some();
    let matters = |name: &str| match name {
        "WANDB_BASE_URL" | "WANDB_IDENTITY_TOKEN_FILE" => !inside,
        // The command line's own, and compared by what they lead to.
        "WANDB_CRED_AUDIENCE" | "WANDB_CRED_CONFIG" => false,
        _ => {
            name.starts_with("WANDB_")
                || NETWORK.iter().any(|network| name.eq_ignore_ascii_case(network))
                || prefixes(kind, failed).iter().any(|prefix| name.starts_with(prefix))
        }
    };
    for name in IDENTITY_VARIABLES.iter().copied().filter(|name| matters(name)) {
        let (found, when, change) = match (env.var(name), daemon.environment.get(name)) {
            (None, None) => continue,
            (Some(ours), Some(theirs)) if is_of(theirs, &ours) => continue,
            (Some(_), None) => (
                format!("{name} is set in this shell, and the daemon does not have it"),
                "if it is needed",
                "import-environment",
            ),
            (None, Some(_)) => (
                format!("the daemon has {name}, and this shell does not"),
                "if it is wrong",
                "unset-environment",
            ),
            (Some(_), Some(_)) => (
                format!("{name} is another one in the daemon than in this shell"),
                "if this shell's is right",
                "import-environment",
            ),
        };
        if said.insert(name) {
            let remedy = match restart {
                Restart::Service => format!("{when}: systemctl --user {change} {name} && {RESTART}"),
                Restart::Process(pid) => {
                    format!(
                        "{when}: kill {pid} (the next `wandb-cred exec` here starts a daemon with this shell's)"
                    )
                }
            };
            report.warn(Step::Daemon, found, remedy);
        }
    }
}

/// How a daemon gets other variables.
pub enum Restart {
    /// systemd starts it.
    Service,
    Process(u32),
}

const RESTART: &str = "systemctl --user restart wandb-cred.service";

/// What a provider of this kind reads. A helper program may read anything: that is of interest when something is wrong.
fn prefixes(kind: &str, failed: bool) -> &'static [&'static str] {
    match kind {
        "aws" => &["AWS_"],
        "azure" => &["AZURE_", "DEFAULT_IDENTITY_", "IDENTITY_", "IMDS_", "MSI_"],
        "azure-pipelines" => &["SYSTEM_"],
        "buildkite" => &["BUILDKITE_"],
        "circleci" => &["CIRCLE_"],
        "gcp" => &["CLOUDSDK_", "GCE_", "GOOGLE_"],
        "github-actions" => &["ACTIONS_"],
        "gitlab" => &["CI_"],
        "kubernetes" => &["KUBE"],
        "oidc" => &["DBUS_SESSION_BUS_ADDRESS", "XDG_STATE_HOME"],
        "spiffe" => &["SPIFFE_"],
        "vault" => &["BAO_", "VAULT_"],
        "auto" | "command" if failed => &[""],
        _ => &[],
    }
}

/// Warns where the daemon runs with an older configuration than the file that is here.
pub fn reloaded(status: &api::Status, profiles: &BTreeMap<String, profile::Config>, report: &mut Report) {
    for (name, ours) in profiles {
        let there = status.profiles.iter().find(|profile| profile.name == *name);
        let differs = there.is_none_or(|there| {
            there.base_url != ours.base_url.as_str()
                || there.audience != ours.audience
                // `auto` shows what it chose.
                || (there.provider != ours.kind() && ours.kind() != "auto")
        });
        if differs {
            report.warn(
                Step::Daemon,
                format!("the daemon does not have profile {name} as the file says now"),
                format!("kill -HUP {}", status.pid),
            );
        }
    }
}

/// Warns of what has no effect on us, and of entries that other libraries put in front of a token.
pub fn elsewhere<'a>(env: &Env, hosts: impl Iterator<Item = &'a str>, report: &mut Report) {
    let unread = UNREAD.iter().filter_map(|name| Some((name, env.var(name)?)));
    for (name, file) in unread.filter(|_| env.var("SSL_CERT_FILE").is_none()) {
        report.warn(
            Step::SdkEnvironment,
            format!(
                "{name} is set: Python's requests reads it, and neither the daemon nor the SDK's core does"
            ),
            format!("export SSL_CERT_FILE={file}, for the daemon too (or `ca-file` in the profile)"),
        );
    }
    let Some(path) = netrc::path(env) else { return };
    let Some(text) = netrc::read(&path) else { return };
    let mut hosts: Vec<_> = hosts.filter(|host| netrc::has(&text, host)).collect();
    hosts.dedup();
    for host in hosts {
        report.warn(
            Step::SdkEnvironment,
            format!(
                "{} has an entry for {host}, which Python's requests sends in place of a token (psf/requests#3929); \
                 wandb-cred exec shows its command a copy without it",
                path.display()
            ),
            format!("delete the entry of {host}, which `wandb login` wrote, for what runs without exec"),
        );
    }
}

/// As reqwest and rustls-native-certs read them.
const NETWORK: [&str; 6] =
    ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"];

const UNREAD: &[&str] = &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn said(report: Report) -> Vec<String> {
        report.finish("p").findings.into_iter().map(|finding| finding.found).collect()
    }

    fn compared(daemon: &[(&str, &str)], shell: &[(&str, &str)], kind: &str) -> Vec<String> {
        let environment = fingerprint(&Env::fixed(daemon.iter().copied()));
        assert!(environment.values().all(|value| !value.contains("planted")));
        let mut report = Report::default();
        let daemon = api::Doctor { environment, ..Report::default().finish("p") };
        let shell = Env::fixed(shell.iter().copied());
        compare(&daemon, kind, &shell, &Restart::Service, &mut BTreeSet::new(), &mut report);
        said(report)
    }

    #[test]
    fn each_difference_is_said_and_no_value() {
        let said = compared(
            &[("HTTPS_PROXY", "http://planted"), ("no_proxy", "a"), ("SSL_CERT_DIR", "/c")],
            &[("HTTPS_PROXY", "http://other"), ("SSL_CERT_FILE", "/planted"), ("SSL_CERT_DIR", "/c")],
            "file",
        );
        assert_eq!(
            said,
            [
                "HTTPS_PROXY is another one in the daemon than in this shell",
                "SSL_CERT_FILE is set in this shell, and the daemon does not have it",
                "the daemon has no_proxy, and this shell does not",
            ]
        );
    }

    #[test]
    fn what_a_provider_reads_matters_to_its_profiles() {
        let shell = [("AWS_PROFILE", "ml"), ("VAULT_ADDR", "https://v"), ("WANDB_ID_TOKEN", "planted")];
        let words = "AWS_PROFILE is set in this shell, and the daemon does not have it";
        assert_eq!(compared(&[], &shell, "aws")[0], words);
        assert_eq!(compared(&[], &shell, "file").len(), 1, "WANDB_ID_TOKEN alone");
    }

    #[test]
    fn what_exec_sets_is_no_difference() {
        let shell = [
            ("WANDB_BASE_URL", "https://w"),
            ("WANDB_IDENTITY_TOKEN_FILE", "/r/profiles/p/identity-token"),
            ("WANDB_CREDENTIALS_FILE", "/r/profiles/p/credentials.json"),
        ];
        assert!(compared(&[], &shell, "file").is_empty());
        assert_eq!(compared(&[], &shell[..1], "file").len(), 1, "set by somebody else");
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
        elsewhere(&env, ["api.wandb.ai"].into_iter(), &mut report);
        let found = said(report);
        assert!(
            found[0].starts_with("REQUESTS_CA_BUNDLE is set") && found[1].contains("api.wandb.ai"),
            "{found:?}"
        );
        assert!(!found.concat().contains("planted"));
        let mut report = Report::default();
        elsewhere(&Env::fixed([("NETRC", shown)]), ["wandb.acme.example"].into_iter(), &mut report);
        assert!(said(report).is_empty());
    }
}
