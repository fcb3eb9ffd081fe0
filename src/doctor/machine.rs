//! This machine: the folders that hold tokens, the daemon, the service that starts it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Restart;
use super::report::{Report, Step};
use crate::api;
use crate::client::{self, Client};
use crate::env::Env;
use crate::error::{Error, Exit, FileFault, Reason};
use crate::paths::{self, Places};

/// The folders that hold the socket and the SDK files. Those that are missing are made when they are needed, if they can be.
pub fn folders<'a>(
    env: &Env,
    places: &Places,
    profiles: impl IntoIterator<Item = &'a str>,
    report: &mut Report,
) {
    let mut dirs = vec![places.runtime.clone(), places.runtime.join(paths::PROFILES)];
    dirs.extend(profiles.into_iter().map(|profile| places.profile(profile)));
    for dir in dirs {
        if let Err(error) = paths::could_be_private(&dir) {
            let (found, remedy) = folder_fault(env, &error);
            return report.fail(Step::Folders, Exit::from(&error), found, remedy);
        }
    }
    let state =
        if places.runtime.exists() { "is closed to others" } else { "does not exist yet, and can be made" };
    report.ok(Step::Folders, format!("{} {state}", places.runtime.display()));
}

/// What is wrong with a folder that must be private, and how to fix it.
fn folder_fault(env: &Env, error: &Error) -> (String, String) {
    // Whatever says where the folder is; without it, another place is taken.
    let elsewhere = match paths::socket_variable(env) {
        Some(variable) => format!("unset {variable}"),
        None => "export WANDB_CRED_SOCKET=\"$HOME/.cache/wandb-cred/wandb-cred.sock\"".to_owned(),
    };
    let Reason::File { path, fault } = &error.reason else { return (error.to_string(), elsewhere) };
    let shown = path.display();
    match fault {
        FileFault::NotADirectory => {
            (format!("{shown} is not a folder (a symlink is refused too)"), format!("rm {shown}"))
        }
        FileFault::Foreign { owner } => (format!("{shown} belongs to uid {owner}, not to you"), elsewhere),
        FileFault::Loose { mode } => (
            format!("{shown} has mode {mode:04o}, so others can reach the tokens in it"),
            format!("chmod 700 {shown}"),
        ),
        FileFault::Unwritable => (
            format!("{shown} cannot be made or written: {}", error.message),
            format!("free some space (df -h {shown}), or use another place: {elsewhere}"),
        ),
        _ => (error.to_string(), elsewhere),
    }
}

/// Asks the daemon for its status. `None` if it does not answer as it should.
pub fn daemon(env: &Env, client: &Client, places: &Places, report: &mut Report) -> Option<api::Status> {
    let error = match client.get::<api::Status>("/v1/status", STATUS_TIMEOUT) {
        Ok(status) => {
            check_status(&status, places, report);
            return Some(status);
        }
        Err(error) => error,
    };
    let message = error.to_string();
    match error {
        client::Error::NotRunning { .. } if is_left_over(env, places) => report.warn(
            Step::Daemon,
            format!(
                "WANDB_CRED_SOCKET names the daemon of an earlier job, which is gone: {}",
                places.socket.display()
            ),
            "unset WANDB_CRED_SOCKET",
        ),
        client::Error::NotRunning { .. } => {
            report.ok(
                Step::Daemon,
                format!("{message}; `wandb-cred exec` starts one for its command, `wandb-cred service install` one that stays"),
            );
        }
        // The step `folders` says why.
        client::Error::Unsafe(_) => report.skip(&[Step::Daemon], "the socket's folder is not safe"),
        client::Error::Denied { .. } | client::Error::Stranger { .. } => {
            report.fail(
                Step::Daemon,
                Exit::Unavailable,
                message,
                "unset WANDB_CRED_SOCKET, or point it to a daemon of this user",
            );
        }
        client::Error::TimedOut { .. } | client::Error::BrokeOff { .. } => {
            report.fail(
                Step::Daemon,
                Exit::Unavailable,
                message,
                "restart it: systemctl --user restart wandb-cred.service, or kill it",
            );
        }
        client::Error::Malformed { .. } | client::Error::Io { .. } | client::Error::Problem(_) => {
            report.fail(
                Step::Daemon,
                Exit::Unavailable,
                message,
                "is it a wandb-credd of this version? Restart it",
            );
        }
    }
    None
}

/// Whether an `exec` or `env` of before set the socket, of a daemon on demand that has removed its folder.
fn is_left_over(env: &Env, places: &Places) -> bool {
    let on_demand = places.socket.parent().is_some_and(paths::is_on_demand);
    on_demand && !places.runtime.exists() && paths::socket_variable(env) == Some("WANDB_CRED_SOCKET")
}

fn check_status(status: &api::Status, places: &Places, report: &mut Report) {
    let found = format!(
        "answers: version {}, pid {}, {} profile(s)",
        status.version,
        status.pid,
        status.profiles.len()
    );
    if status.version != env!("CARGO_PKG_VERSION") {
        let remedy =
            format!("restart it: systemctl --user try-restart wandb-cred.service, or kill {}", status.pid);
        report.warn(Step::Daemon, format!("{found}; this program is {}", env!("CARGO_PKG_VERSION")), remedy);
    } else if let Some(config) = status.config.as_ref().filter(|config| **config != places.config) {
        let found = format!(
            "{found}; it reads {}, but this shell points to {}",
            config.display(),
            places.config.display()
        );
        report.warn(
            Step::Daemon,
            found,
            "fix WANDB_CRED_CONFIG here, or in the service: systemctl --user edit wandb-cred.service",
        );
    } else if let Some(profile) = status.profiles.iter().find(|profile| files_error(profile).is_some()) {
        let error = files_error(profile).unwrap_or_default();
        let found = format!("{found}; the SDK files of profile {} cannot be written: {error}", profile.name);
        report.warn(
            Step::Daemon,
            found,
            "free some space (df -h), or make this user the owner of the folder",
        );
    } else {
        report.ok(Step::Daemon, found);
    }
}

fn files_error(profile: &api::Profile) -> Option<&str> {
    profile.sdk_files.as_ref()?.error.as_deref()
}

/// The user's service manager, if there is one.
pub fn service(env: &Env, answers: bool, report: &mut Report) {
    if cfg!(target_os = "macos") {
        return report.ok(Step::Service, "wandb-cred service status shows it");
    }
    let Some(runtime) = user_manager(env) else {
        return report.ok(Step::Service, "no systemd --user here, as is usual in containers and jobs");
    };
    let Some(unit) = unit(env) else {
        return report.ok(
            Step::Service,
            "not installed; with `wandb-cred service install` the daemon starts when it is needed",
        );
    };
    let text = std::fs::read_to_string(&unit).unwrap_or_default();
    let program = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).and_then(program);
    if let Some(program) = program.filter(|program| !Path::new(program).is_file()) {
        let found = format!("{} starts {program}, which does not exist", unit.display());
        return report.fail(Step::Service, Exit::Configuration, found, "wandb-cred service install");
    }
    let systemctl = |command: &str, unit: &str| {
        let output = std::process::Command::new("systemctl")
            .args(["--user", command, unit])
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or("unknown").to_owned()
    };
    let (socket, service) =
        (systemctl("is-active", "wandb-cred.socket"), systemctl("is-active", "wandb-cred.service"));
    if socket == "failed" || service == "failed" {
        let remedy = "journalctl --user -u wandb-cred.service says why; then: systemctl --user reset-failed \
                      wandb-cred.socket wandb-cred.service && systemctl --user restart wandb-cred.socket";
        return report.fail(
            Step::Service,
            Exit::Unavailable,
            format!("socket {socket}, service {service}"),
            remedy,
        );
    }
    if socket != "active" && !answers {
        let found = format!("installed, but its socket is {socket}");
        return report.fail(
            Step::Service,
            Exit::Unavailable,
            found,
            "systemctl --user enable --now wandb-cred.socket",
        );
    }
    let enabled = systemctl("is-enabled", "wandb-cred.socket");
    let found = format!("socket {socket} and {enabled}, service {service}");
    if socket == "active" && enabled == "disabled" {
        return report.warn(
            Step::Service,
            found,
            "systemctl --user enable wandb-cred.socket, or it will not start after the next boot",
        );
    }
    report.ok(Step::Service, found);
}

/// How the daemon that answers is started again.
pub fn restart(env: &Env, status: &api::Status) -> Restart {
    let service = user_manager(env).is_some()
        && unit(env).is_some()
        && !status.socket.parent().is_some_and(paths::is_on_demand);
    if service { Restart::Service } else { Restart::Process(status.pid) }
}

fn unit(env: &Env) -> Option<PathBuf> {
    let units = unit_folders(env).into_iter().map(|folder| folder.join("wandb-cred.service"));
    units.into_iter().find(|unit| unit.exists())
}

/// The first word of an `ExecStart=`, quoted or not, if it is a path.
fn program(command: &str) -> Option<&str> {
    let command = command.trim_start_matches(['-', '@', ':', '+', '!']);
    let program = match command.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => command.split(' ').next()?,
    };
    (program.starts_with('/') && !program.contains(['%', '$', '\\'])).then_some(program)
}

/// The runtime folder in which the user's manager listens.
fn user_manager(env: &Env) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime =
        env.var("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    let private = runtime.join("systemd/private").metadata().ok()?;
    (private.uid() == uid).then_some(runtime)
}

fn unit_folders(env: &Env) -> Vec<PathBuf> {
    let config = env.var("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(Path::new(&env.var("HOME")?).join(".config")));
    let own = config.map(|config| config.join("systemd/user"));
    let packaged = ["/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"];
    own.into_iter().chain(packaged.map(PathBuf::from)).collect()
}

const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_unit_is_its_first_word() {
        assert_eq!(program("/usr/bin/wandb-credd run"), Some("/usr/bin/wandb-credd"));
        assert_eq!(program("-\"/a b/wandb-credd\" run"), Some("/a b/wandb-credd"));
        assert_eq!(program("\"/a b/100%%/wandb-credd\" run"), None, "not understood is not wrong");
        assert_eq!(program("wandb-credd run"), None);
    }
}
