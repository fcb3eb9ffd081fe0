//! The service under `systemctl --user`: its units, and the commands that start it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::step::{Step, tool, user_manager, words};
use crate::cli::command_error::CommandError;
use crate::env::Env;
use crate::error::Exit;
use crate::paths;

const SOCKET: &str = include_str!("../../../systemd/wandb-cred.socket");
const SERVICE: &str = include_str!("../../../systemd/wandb-cred.service");

pub(super) fn install(env: &Env, daemon: &Path) -> Result<Vec<Step>, CommandError> {
    let folder = folder(env)?;
    let mut steps = Vec::new();
    // A copy of a package's own units would hide those of its next version.
    if daemon != Path::new(PACKAGED_DAEMON) || packaged().is_none() {
        steps.push(Step::Write { path: folder.join("wandb-cred.socket"), text: SOCKET.to_owned() });
        steps.push(Step::Write { path: folder.join("wandb-cred.service"), text: service(daemon)? });
    }
    steps.extend([
        Step::Run(words("systemctl --user daemon-reload")),
        Step::Run(words("systemctl --user enable --now wandb-cred.socket")),
        // A daemon that already runs may be of an older version. The socket stays open meanwhile.
        Step::Run(words("systemctl --user try-restart wandb-cred.service")),
    ]);
    Ok(steps)
}

pub(super) fn uninstall(env: &Env) -> Result<Vec<Step>, CommandError> {
    let folder = folder(env)?;
    let mut steps =
        vec![Step::Remove(folder.join("wandb-cred.socket")), Step::Remove(folder.join("wandb-cred.service"))];
    // If no manager runs, nothing of ours runs under it either.
    if user_manager(env).is_some() {
        steps.insert(0, Step::Try(words("systemctl --user disable --now wandb-cred.socket")));
        steps.insert(1, Step::Try(words("systemctl --user stop wandb-cred.service")));
        steps.push(Step::Run(words("systemctl --user daemon-reload")));
    }
    Ok(steps)
}

pub(super) fn status(env: &Env) -> Result<String, CommandError> {
    let own = folder(env)?;
    let found = if has_socket(&own) { Some(own.as_path()) } else { packaged() };
    let mut text = match found {
        Some(folder) => format!("units    installed in {}\n", folder.display()),
        None => format!("units    not installed in {}\n", own.display()),
    };
    if user_manager(env).is_none() {
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

/// Fails if no service manager runs for this user, and says what to do instead.
pub(super) fn check(env: &Env) -> Result<(), CommandError> {
    if user_manager(env).is_some() {
        return Ok(());
    }
    let message = "no systemd --user runs for this user, which is usual in containers and batch jobs";
    Err(CommandError::new(Exit::Unavailable, message)
        .hint("wandb-cred exec -- CMD (starts its own daemon), or: wandb-credd &"))
}

pub(super) fn is_installed(env: &Env) -> bool {
    is_installed_by_user(env) || packaged().is_some()
}

pub(super) fn is_installed_by_user(env: &Env) -> bool {
    folder(env).is_ok_and(|folder| has_socket(&folder))
}

/// Where a package has put the units.
fn packaged() -> Option<&'static Path> {
    PACKAGED.iter().map(Path::new).find(|folder| has_socket(folder))
}

fn has_socket(folder: &Path) -> bool {
    folder.join("wandb-cred.socket").exists()
}

pub(super) fn is_active(unit: &str, env: &Env) -> bool {
    first_line(&format!("systemctl --user is-active {unit}"), env) == "active"
}

/// The folder of a user's own units.
fn folder(env: &Env) -> Result<PathBuf, CommandError> {
    let config = match (env.var("XDG_CONFIG_HOME"), env.var("HOME")) {
        (Some(config), _) => PathBuf::from(config),
        (None, Some(home)) => Path::new(&home).join(".config"),
        (None, None) => return Err(paths::no_home().into()),
    };
    Ok(config.join("systemd/user"))
}

/// The shipped unit, with the path of this installation's daemon.
fn service(daemon: &Path) -> Result<String, CommandError> {
    let path = daemon.to_str().filter(|path| !path.contains('\n')).ok_or_else(|| {
        CommandError::new(Exit::Configuration, format!("systemd cannot run {}", daemon.display()))
    })?;
    let escaped = path.replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%").replace('$', "$$");
    let quoted =
        if escaped.contains([' ', '\t', '\'', '"', '\\', ';']) { format!("\"{escaped}\"") } else { escaped };
    Ok(SERVICE.replace(PACKAGED_DAEMON, &quoted))
}

fn first_line(command: &str, env: &Env) -> String {
    let output = tool(&words(command), env).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// What the units of packages run.
const PACKAGED_DAEMON: &str = "/usr/bin/wandb-credd";

/// The folders of units from packages.
const PACKAGED: &[&str] = &["/usr/lib/systemd/user", "/usr/local/lib/systemd/user", "/etc/systemd/user"];

pub(super) const NEXT_STEPS: &str = "
The daemon starts when a program first asks it for something. Try:
  wandb-cred status

To keep your services running while you are not logged in:
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
