//! Asks for the SDK files or the proxy, and says which variables make an unmodified W&B SDK use them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::command_error::CommandError;
use super::profile::ProfilesArg;
use crate::api::{Job, JobRequest, ProxyAccess};
use crate::client::{self, Client};
use crate::env::Env;
use crate::error::{Exit, Reason};
use crate::paths::{self, CREDENTIALS_FILE, IDENTITY_TOKEN_FILE};

/// What the command line asks for.
pub(super) struct Wanted<'a> {
    pub(super) profiles: &'a ProfilesArg,
    /// Whether it says so; else the profile does.
    pub(super) proxy: bool,
    pub(super) wait: bool,
}

impl Wanted<'_> {
    fn request(&self, pid: Option<u32>, env: &Env) -> JobRequest {
        let mut profiles = self.profiles.names(env);
        let profile = if profiles.len() == 1 { profiles.pop() } else { None };
        let proxy = self.proxy.then_some(true);
        let patient = paths::starts_with_others(env);
        JobRequest { profile, profiles, pid, hold: pid.is_none(), proxy, wait: self.wait, patient }
    }
}

/// Registers the process `pid`: its files exist now, and stay fresh until it ends.
pub(super) fn register(
    client: &Client,
    wanted: &Wanted<'_>,
    pid: u32,
    env: &Env,
) -> Result<Job, client::Error> {
    client.post("/v1/jobs", &wanted.request(Some(pid), env), JOB_TIMEOUT)
}

/// Registers this process, and what it becomes. The connection, if there is one, must be inherited: the daemon does not see
/// this process, and takes the connection's end for its end.
pub(super) fn register_own(
    client: &Client,
    wanted: &Wanted<'_>,
    env: &Env,
) -> Result<(Job, Option<UnixStream>), client::Error> {
    match register(client, wanted, std::process::id(), env) {
        Err(client::Error::Problem(problem)) if problem.reason == Some(Reason::ProcessUnseen) => {
            let request = wanted.request(None, env);
            let (job, connection) = client.post_and_hold("/v1/jobs", &request, JOB_TIMEOUT)?;
            Ok((job, Some(connection)))
        }
        other => Ok((other?, None)),
    }
}

/// The variables to set, and those to unset.
pub(super) fn variables(job: &Job, env: &Env) -> Result<Variables, CommandError> {
    let mut variables = match (&job.proxy, &job.identity_token_file, &job.credentials_file) {
        (Some(proxy), _, _) => of_proxy(proxy, env),
        (None, Some(identity_token), Some(credentials)) => of_files(job, identity_token, credentials, env)?,
        _ => {
            return Err(CommandError::new(
                Exit::Software,
                "the daemon's answer names neither files nor a proxy",
            ));
        }
    };
    // So that a wandb-cred inside the job asks for the same profile, or the same ones.
    variables.push(("WANDB_CRED_PROFILE", Some(job.profile.clone())));
    // What is unset comes last.
    variables.sort_by_key(|(_, value)| value.is_none());
    Ok(variables)
}

pub(super) type Variables = Vec<(&'static str, Option<String>)>;

fn of_files(
    job: &Job,
    identity_token: &Path,
    credentials: &Path,
    env: &Env,
) -> Result<Variables, CommandError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            let message = format!("the path {} is not Unicode, which the W&B SDK requires", path.display());
            CommandError::new(Exit::Configuration, message)
                .hint("set WANDB_CRED_SOCKET to a path in another folder")
        })
    };
    let mut variables = vec![
        (IDENTITY_TOKEN_FILE, Some(text(identity_token)?)),
        (CREDENTIALS_FILE, Some(text(credentials)?)),
        (BASE_URL, Some(job.base_url.clone())),
        // The SDK refuses an API key beside an identity token file.
        (API_KEY, None),
    ];
    // Of a job by the proxy that this one runs in: weave would send it what it does not take.
    if env.var(TRACE_URL).is_some() && env.var(TRACE_URL) == env.var(BASE_URL).map(|url| url + "/traces") {
        variables.push((TRACE_URL, None));
    }
    Ok(variables)
}

fn of_proxy(proxy: &ProxyAccess, env: &Env) -> Variables {
    let mut variables = vec![
        (BASE_URL, Some(proxy.url.clone())),
        (API_KEY, Some(proxy.key.clone())),
        (TRACE_URL, Some(proxy.trace_url.clone())),
        (IDENTITY_TOKEN_FILE, None),
        (CREDENTIALS_FILE, None),
    ];
    if env.var(APP_URL).is_none() {
        variables.push((APP_URL, Some(proxy.app_url.clone())));
    }
    // Some clients look at one of the two, and some at the other first.
    for (name, other) in [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")] {
        let before = env.var(name).or_else(|| env.var(other)).unwrap_or_default();
        let mut hosts: Vec<&str> = before.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        for host in LOOPBACK {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        variables.push((name, Some(hosts.join(","))));
    }
    variables
}

const BASE_URL: &str = "WANDB_BASE_URL";
const API_KEY: &str = "WANDB_API_KEY";
const APP_URL: &str = "WANDB_APP_URL";
const TRACE_URL: &str = "WF_TRACE_SERVER_URL";

const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// The answer may have to wait for the first exchange.
const JOB_TIMEOUT: Duration = Duration::from_secs(65);

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(env: &[(&str, &str)]) -> Vec<(&'static str, Option<String>)> {
        let access = ProxyAccess {
            port: 4,
            key: "k".repeat(40),
            url: "http://127.0.0.1:4".into(),
            trace_url: "http://127.0.0.1:4/traces".into(),
            app_url: "https://wandb.ai".into(),
        };
        of_proxy(&access, &Env::fixed(env.iter().copied()))
    }

    fn value(variables: &Variables, wanted: &str) -> Option<String> {
        variables.iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| value.clone())
    }

    #[test]
    fn loopback_is_appended_to_both_spellings_of_no_proxy() {
        for (before, upper, lower) in [
            (&[][..], "127.0.0.1,localhost", "127.0.0.1,localhost"),
            (&[("NO_PROXY", "a, b")][..], "a,b,127.0.0.1,localhost", "a,b,127.0.0.1,localhost"),
            (
                &[("no_proxy", "localhost"), ("NO_PROXY", "*")][..],
                "*,127.0.0.1,localhost",
                "localhost,127.0.0.1",
            ),
        ] {
            let variables = proxied(before);
            assert_eq!(value(&variables, "NO_PROXY").as_deref(), Some(upper));
            assert_eq!(value(&variables, "no_proxy").as_deref(), Some(lower));
        }
    }

    #[test]
    fn a_persons_own_app_url_stays_and_no_identity_variable_does() {
        let variables = proxied(&[("WANDB_APP_URL", "https://app.example")]);
        assert!(!variables.iter().any(|(name, _)| *name == APP_URL));
        assert!(
            variables.contains(&(IDENTITY_TOKEN_FILE, None)) && variables.contains(&(CREDENTIALS_FILE, None))
        );
        assert_eq!(value(&proxied(&[]), APP_URL).as_deref(), Some("https://wandb.ai"));
    }
}
