//! The service under `systemctl --user`: where its units go and which commands bring it up.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Failure, Step, tool, words};
use crate::cli::failure::Exit;
use crate::env::Env;
use crate::paths;

const SOCKET: &str = include_str!("../../../systemd/wandb-cred.socket");
const SERVICE: &str = include_str!("../../../systemd/wandb-cred.service");

pub(super) fn install(env: &Env, daemon: &Path) -> Result<Vec<Step>, Failure> {
    let folder = folder(env)?;
    Ok(vec![
        Step::Write { path: folder.join("wandb-cred.socket"), text: SOCKET.to_owned() },
        Step::Write { path: folder.join("wandb-cred.service"), text: service(daemon)? },
        Step::Run(words("systemctl --user daemon-reload")),
        Step::Run(words("systemctl --user enable --now wandb-cred.socket")),
        // A daemon that runs already may be of an older version; the socket stays open meanwhile.
        Step::Run(words("systemctl --user try-restart wandb-cred.service")),
    ])
}

pub(super) fn uninstall(env: &Env) -> Result<Vec<Step>, Failure> {
    let folder = folder(env)?;
    let mut steps =
        vec![Step::Remove(folder.join("wandb-cred.socket")), Step::Remove(folder.join("wandb-cred.service"))];
    // Where no manager runs, nothing of ours runs under it either.
    if manager(env).is_some() {
        steps.insert(0, Step::Try(words("systemctl --user disable --now wandb-cred.socket")));
        steps.insert(1, Step::Try(words("systemctl --user stop wandb-cred.service")));
        steps.push(Step::Run(words("systemctl --user daemon-reload")));
    }
    Ok(steps)
}

pub(super) fn status(env: &Env) -> Result<String, Failure> {
    let units = folder(env)?;
    let installed = if is_installed(env) { "installed in" } else { "not installed in" };
    let mut text = format!("units    {installed} {}\n", units.display());
    if manager(env).is_none() {
        return Ok(text + "systemd  no systemd --user runs for this user\n");
    }
    for unit in ["socket", "service"] {
        let state = first_line(&format!("systemctl --user is-active wandb-cred.{unit}"), env);
        text += &format!("{unit:<9}{state}");
        if unit == "socket" {
            text += &format!(", {}", first_line("systemctl --user is-enabled wandb-cred.socket", env));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Whether a service manager runs for this user, and what to do where none does.
pub(super) fn check(env: &Env) -> Result<(), Failure> {
    if manager(env).is_some() {
        return Ok(());
    }
    let what = "no systemd --user runs for this user, as is usual in containers and batch jobs";
    Err(Failure::new(Exit::Unavailable, what)
        .next("wandb-cred exec -- CMD (brings its own daemon), or: wandb-credd &"))
}

/// The runtime folder in which the user's manager listens.
pub(super) fn manager(env: &Env) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime =
        env.var("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    let private = runtime.join("systemd/private").metadata().ok()?;
    (private.uid() == uid).then_some(runtime)
}

pub(super) fn is_installed(env: &Env) -> bool {
    folder(env).is_ok_and(|folder| folder.join("wandb-cred.socket").exists())
        || PACKAGED.iter().any(|folder| Path::new(folder).join("wandb-cred.socket").exists())
}

pub(super) fn is_active(unit: &str, env: &Env) -> bool {
    first_line(&format!("systemctl --user is-active {unit}"), env) == "active"
}

/// Where a user's own units are.
fn folder(env: &Env) -> Result<PathBuf, Failure> {
    let config = match (env.var("XDG_CONFIG_HOME"), env.var("HOME")) {
        (Some(config), _) => PathBuf::from(config),
        (None, Some(home)) => Path::new(&home).join(".config"),
        (None, None) => return Err(paths::no_home().into()),
    };
    Ok(config.join("systemd/user"))
}

/// The shipped unit, with the path of this installation's daemon.
fn service(daemon: &Path) -> Result<String, Failure> {
    let path = daemon.to_str().filter(|path| !path.contains('\n')).ok_or_else(|| {
        Failure::new(Exit::Configuration, format!("systemd cannot run {}", daemon.display()))
    })?;
    let escaped = path.replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%").replace('$', "$$");
    let quoted =
        if escaped.contains([' ', '\t', '\'', '"', '\\', ';']) { format!("\"{escaped}\"") } else { escaped };
    Ok(SERVICE.replace("/usr/bin/wandb-credd", &quoted))
}

fn first_line(command: &str, env: &Env) -> String {
    let output = tool(&words(command), env).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Where packages put units.
const PACKAGED: &[&str] = &["/usr/lib/systemd/user", "/usr/local/lib/systemd/user", "/etc/systemd/user"];

pub(super) const AFTERWARDS: &str = "
The daemon starts when it is first asked. Try:
  wandb-cred status

On a machine where you are not logged in all the time, keep your services running without you:
  loginctl enable-linger
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_this_installations_daemon() {
        let at = |path: &str| service(Path::new(path)).expect("a usable path");
        assert!(at("/opt/w/wandb-credd").contains("\nExecStart=/opt/w/wandb-credd run\n"));
        assert!(at("/a b/100%/$x/wandb-credd").contains("\nExecStart=\"/a b/100%%/$$x/wandb-credd\" run\n"));
    }
}
