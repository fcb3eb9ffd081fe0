//! Keeps an entry of the W&B server in `~/.netrc` from the command: Python's requests would send that key in place of the
//! token that a script names (psf/requests#3929), and so does the SDK's own download of artifacts whose address has expired.
//!
//! `NETRC` then names a copy without those entries. Programs that honour it (requests and with it pip and the SDK, uv, Go)
//! find all other entries there; those that do not (git, curl) read the original, as ever.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Command;

use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use crate::api::Job;
use crate::env::Env;
use crate::netrc::{self, Copy};
use crate::output;

/// Says so once, and returns what the command must inherit for as long as it needs the copy.
pub(super) fn hide(command: &mut Command, job: &Job, env: &Env) -> Option<File> {
    // Requests to the proxy go to loopback, for which nobody has an entry.
    if job.proxy.is_some() {
        return None;
    }
    let path = netrc::path(env)?;
    let text = netrc::read(&path)?;
    let mut hosts = hosts(job);
    hosts.retain(|host| netrc::has(&text, host));
    let host = hosts.first()?;
    let found = format!(
        "wandb-cred: {} has an entry for {host}, which Python's requests sends in place of a token (psf/requests#3929)",
        path.display()
    );
    let copied = netrc::without(&text, &hosts).ok_or(None).and_then(|rest| {
        netrc::sweep(env);
        netrc::write_copy(env, &rest).map_err(Some)
    });
    match copied {
        Ok(Copy { path, lock }) => {
            let then = if netrc::has_default(&text) {
                "; its `default` entry does the same, so remove that: the command gets a copy without the first (NETRC)"
            } else {
                "; the command gets a copy without it (NETRC)"
            };
            say(&(found + then));
            command.env(netrc::VARIABLE, path);
            rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).ok()?;
            Some(lock)
        }
        Err(why) => {
            let why = why.map_or(String::new(), |why| format!(" (no copy without it can be made: {why})"));
            say(&format!("{found}; delete that entry{why}"));
            None
        }
    }
}

fn say(text: &str) {
    output::eprint_line(&output::printable(text));
}

/// The servers for which the job has tokens: those that the SDK finds in the file, in both spellings of the cloud's.
fn hosts(job: &Job) -> Vec<String> {
    #[derive(Deserialize)]
    struct Credentials {
        credentials: BTreeMap<String, IgnoredAny>,
    }
    let text = job.credentials_file.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    let credentials: Option<Credentials> = serde_json::from_slice(&text).ok();
    let urls = credentials.into_iter().flat_map(|credentials| credentials.credentials.into_keys());
    let urls = [job.base_url.clone()].into_iter().chain(urls);
    let mut hosts: Vec<String> =
        urls.filter_map(|url| Url::parse(&url).ok()?.host_str().map(str::to_owned)).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
