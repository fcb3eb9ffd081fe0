//! The service under launchd: one LaunchAgent.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::step::{Step, tool, words};
use crate::cli::command_error::CommandError;
use crate::env::Env;
use crate::error::Exit;
use crate::paths;

const PLIST: &str = include_str!("../../../launchd/io.github.wandb-cred.plist");
const LABEL: &str = "io.github.wandb-cred";

pub(super) fn install(env: &Env, daemon: &Path) -> Result<Vec<Step>, CommandError> {
    let plist = plist(env)?;
    let socket = paths::socket(env)?;
    let text = fill(daemon, &socket, &log(env)?)?;
    Ok(vec![
        // launchd opens the socket, but not the folder it is in.
        Step::Folder(socket.parent().unwrap_or(Path::new("/")).to_owned()),
        Step::Write { path: plist.clone(), text },
        Step::Try(words(&format!("launchctl bootout {}/{LABEL}", domain()))),
        Step::Run(vec!["launchctl".into(), "bootstrap".into(), domain(), plist.display().to_string()]),
    ])
}

pub(super) fn uninstall(env: &Env) -> Result<Vec<Step>, CommandError> {
    let bootout = words(&format!("launchctl bootout {}/{LABEL}", domain()));
    Ok(vec![Step::Try(bootout), Step::Remove(plist(env)?)])
}

pub(super) fn status(env: &Env) -> Result<String, CommandError> {
    let plist = plist(env)?;
    let installed = if plist.exists() { "installed" } else { "not installed" };
    let print = words(&format!("launchctl print {}/{LABEL}", domain()));
    let loaded = tool(&print, env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let loaded = if loaded.is_ok_and(|status| status.success()) { "loaded" } else { "not loaded" };
    Ok(format!("agent    {installed}: {}\nlaunchd  {loaded}\n", plist.display()))
}

/// The shipped agent, with the paths of this user.
fn fill(daemon: &Path, socket: &Path, log: &Path) -> Result<String, CommandError> {
    let mut text = PLIST.to_owned();
    for (placeholder, path) in [
        ("/usr/local/bin/wandb-credd", daemon),
        ("/private/var/run/wandb-cred.sock", socket),
        ("/private/tmp/wandb-cred.log", log),
    ] {
        let path = path.to_str().ok_or_else(|| {
            CommandError::new(Exit::Configuration, format!("launchd cannot use the path {}", path.display()))
        })?;
        let escaped = path.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text = text.replace(placeholder, &escaped);
    }
    Ok(text)
}

fn domain() -> String {
    format!("gui/{}", rustix::process::geteuid().as_raw())
}

fn plist(env: &Env) -> Result<PathBuf, CommandError> {
    Ok(library(env)?.join("LaunchAgents").join(format!("{LABEL}.plist")))
}

fn log(env: &Env) -> Result<PathBuf, CommandError> {
    Ok(library(env)?.join("Logs/wandb-cred.log"))
}

fn library(env: &Env) -> Result<PathBuf, CommandError> {
    let home = env.var("HOME").ok_or_else(paths::no_home)?;
    Ok(Path::new(&home).join("Library"))
}

pub(super) const NEXT_STEPS: &str = "
The daemon starts when a program first asks it for something. Try:
  wandb-cred status
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_has_this_users_paths() {
        let paths = [
            "/Applications/a&b/wandb-credd",
            "/var/folders/x/wandb-cred.sock",
            "/Users/a/Library/Logs/w.log",
        ];
        let [daemon, socket, log] = paths.map(Path::new);
        let text = fill(daemon, socket, log).expect("usable paths");
        for path in ["/Applications/a&amp;b/wandb-credd", paths[1], paths[2]] {
            assert!(text.contains(&format!("<string>{path}</string>")), "{text}");
        }
        assert!(!text.contains("/usr/local") && !text.contains("/private/"), "a placeholder is left: {text}");
    }

    #[test]
    fn install_makes_the_folder_before_launchd_needs_it() {
        let env = Env::fixed([("HOME", "/Users/ada"), ("XDG_RUNTIME_DIR", "/tmp/x")]);
        let steps = install(&env, Path::new("/usr/local/bin/wandb-credd")).expect("steps");
        assert!(matches!(&steps[0], Step::Folder(path) if path == Path::new("/tmp/x/wandb-cred")));
        let agent = "/Users/ada/Library/LaunchAgents/io.github.wandb-cred.plist";
        assert!(matches!(&steps[1], Step::Write { path, .. } if path == Path::new(agent)));
    }
}
