//! The environment that a W&B program started from this shell would see.
//!
//! What the SDK does with each variable was read in its source and observed (0.19.11 to 0.31.0).

use std::path::{Path, PathBuf};

use super::report::{Report, Step};
use crate::env::Env;
use crate::error::{Error, Exit, FileFault};
use crate::paths::SdkEnvironment;
use crate::profile::BaseUrl;
use crate::read_file;

/// Checks the caller's variables. `ours` is the folder in which a daemon keeps SDK files.
pub fn environment(env: &Env, base_url: Option<&BaseUrl>, ours: &Path, report: &mut Report) {
    let before = report.count(Step::SdkEnvironment);
    let token_file = env.var(TOKEN_FILE).map(PathBuf::from);
    api_key(env, token_file.is_some(), report);
    if let Some(path) = &token_file {
        identity_token_file(env, path, ours, report);
    }
    if let Some(path) = env.var(CREDENTIALS_FILE) {
        credentials_file(&path, report);
    }
    if let (Some(text), Some(base_url)) = (env.var(BASE_URL), base_url) {
        host(&text, base_url, report);
    }
    if report.count(Step::SdkEnvironment) == before {
        let found = match &token_file {
            Some(path) if path.starts_with(ours) => "set up by wandb-cred: programs use its files",
            Some(_) => "programs started here make exchanges of their own, without the daemon",
            None => "no variable of the SDK is in the way; run programs with: wandb-cred exec -- CMD",
        };
        match started_elsewhere(env).filter(|_| token_file.is_none()) {
            Some((what, Starts::This, remedy)) => {
                let found =
                    format!("{what} was started without the SDK's variables, so the SDK finds no token here");
                report.warn(Step::SdkEnvironment, found, remedy);
            }
            Some((what, Starts::Others, remedy)) => report.ok(
                Step::SdkEnvironment,
                format!("{found}; what {what} starts itself (Run, notebooks) has no variables: {remedy}"),
            ),
            None => report.ok(Step::SdkEnvironment, found),
        }
    }
}

/// What a desktop starts has none of the variables of a shell.
enum Starts {
    /// This very process is below it.
    This,
    /// This is a terminal in it.
    Others,
}

/// As ipykernel, VS Code and JetBrains mark what they start.
fn started_elsewhere(env: &Env) -> Option<(&'static str, Starts, &'static str)> {
    let is = |name: &str, value: &str| env.var(name).is_some_and(|found| found == value);
    if env.var("JPY_PARENT_PID").is_some() || env.var("JPY_SESSION_NAME").is_some() {
        let remedy = "start Jupyter with: wandb-cred exec -- jupyter lab (or put \"wandb-cred\", \"exec\", \"--\" before the \
                      program in `argv` of the kernel's kernel.json; `jupyter kernelspec list` shows where)";
        Some(("this notebook", Starts::This, remedy))
    } else if is("TERM_PROGRAM", "vscode") {
        Some(("VS Code", Starts::Others, "start it with wandb-cred exec -- code"))
    } else if is("TERMINAL_EMULATOR", "JetBrains-JediTerm") {
        Some(("the IDE", Starts::Others, "start it with wandb-cred exec"))
    } else {
        None
    }
}

fn api_key(env: &Env, token_file: bool, report: &mut Report) {
    let step = Step::SdkEnvironment;
    match (env.var(API_KEY), token_file) {
        (None, _) => {}
        (Some(_), true) => report.fail(
            step,
            Exit::Configuration,
            format!(
                "{API_KEY} and {TOKEN_FILE} are both set: the SDK refuses to choose (AuthenticationError)"
            ),
            format!("unset {API_KEY}"),
        ),
        (Some(_), false) => report.warn(
            step,
            format!("{API_KEY} is set: programs started here use that key, not the daemon"),
            format!("unset {API_KEY} (wandb-cred exec removes it from the environment of its command)"),
        ),
    }
}

fn identity_token_file(env: &Env, path: &Path, ours: &Path, report: &mut Report) {
    let step = Step::SdkEnvironment;
    let shown = path.display();
    let text = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let stale = path.starts_with(ours) || SdkEnvironment::of(env).is_some();
            let remedy = if stale {
                "unset WANDB_IDENTITY_TOKEN_FILE WANDB_CREDENTIALS_FILE WANDB_BASE_URL WANDB_CRED_PROFILE WANDB_CRED_SOCKET (the \
                 daemon that wrote the file is gone; wandb-cred exec sets them anew, and so does eval \"$(wandb-cred env)\")"
            } else {
                "unset WANDB_IDENTITY_TOKEN_FILE, and run the program with wandb-cred exec; or fix the path (~ is not expanded)"
            };
            let found = format!("{TOKEN_FILE}: {error}; the SDK's core then crashes (\"Connection lost\")");
            return report.fail(step, Exit::Configuration, found, remedy);
        }
    };
    let trimmed = text.trim_ascii();
    let json = trimmed.starts_with(b"{");
    if trimmed.is_empty() || (!json && trimmed.iter().filter(|byte| **byte == b'.').count() != 2) {
        let found = format!("{TOKEN_FILE} names {shown}, which holds no JWT");
        return report.fail(
            step,
            Exit::Configuration,
            found,
            format!("unset {TOKEN_FILE}, or put the JWT into the file, and nothing else"),
        );
    }
    if !json && trimmed.len() != text.len() {
        let found = format!("{shown} has white space around the JWT, which SDKs up to 0.28.0 send with it");
        report.warn(step, found, format!("printf %s \"$(cat {shown})\" > {shown}"));
    }
}

fn credentials_file(path: &str, report: &mut Report) {
    let step = Step::SdkEnvironment;
    if path.starts_with('~') {
        let found = format!("{CREDENTIALS_FILE} is {path:?}, and the SDK does not expand ~");
        let expanded = path.replacen('~', "$HOME", 1);
        return report.fail(
            step,
            Exit::Configuration,
            found,
            format!("export {CREDENTIALS_FILE}=\"{expanded}\""),
        );
    }
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let found = format!("{CREDENTIALS_FILE} is in {}, which is not a folder", folder.display());
        return report.fail(
            step,
            Exit::Configuration,
            found,
            format!("mkdir -p -m 700 {}", folder.display()),
        );
    }
    match read(Path::new(path)) {
        Ok(text) if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err() => {
            let found = format!("{path} is not JSON: the SDK makes an exchange of its own and overwrites it");
            report.warn(step, found, format!("rm {path}"));
        }
        Err(error) if error.file_fault() != Some(&FileFault::Missing) => {
            let found = format!("{CREDENTIALS_FILE}: {error}");
            report.fail(
                step,
                Exit::Configuration,
                found,
                format!("unset {CREDENTIALS_FILE}, or let this user read and write it"),
            );
        }
        _ => {}
    }
}

fn host(text: &str, base_url: &BaseUrl, report: &mut Report) {
    let step = Step::SdkEnvironment;
    let wanted = base_url.as_str();
    match text.parse::<BaseUrl>() {
        Err(why) => {
            let found = format!("{BASE_URL}: {why}");
            report.fail(step, Exit::Configuration, found, format!("export {BASE_URL}={wanted}"));
        }
        Ok(url) if !base_url.spellings().contains(&url.as_str()) => {
            let found = format!(
                "{BASE_URL} is {url}, but the profile's server is {wanted}: credentials for one are not sent to the other"
            );
            report.warn(
                step,
                found,
                format!("export {BASE_URL}={wanted}, or unset it and use wandb-cred exec"),
            );
        }
        Ok(url) if text != url.as_str() && text.ends_with('/') => {
            let found = format!("{BASE_URL} ends with a slash, so the SDK finds no credentials under it");
            report.warn(step, found, format!("export {BASE_URL}={url}"));
        }
        Ok(_) => {}
    }
}

const API_KEY: &str = "WANDB_API_KEY";
fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
    let owned = path.to_owned();
    read_file::within_time(path, move || read_file::read(&owned, read_file::LIMIT))
}

const TOKEN_FILE: &str = "WANDB_IDENTITY_TOKEN_FILE";
const CREDENTIALS_FILE: &str = "WANDB_CREDENTIALS_FILE";
const BASE_URL: &str = "WANDB_BASE_URL";
