//! Finds and runs `wandb-credd`, for what only the daemon's program can do.

use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::command_error::CommandError;
use crate::env::Env;
use crate::error::Exit;
use crate::process;

/// The program beside this one, so that both have one version; else the one in PATH. `WANDB_CREDD` overrides.
pub(super) fn find(env: &Env) -> PathBuf {
    if let Some(path) = env.var("WANDB_CREDD") {
        return path.into();
    }
    let sibling = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.canonicalize().ok())
        .map(|exe| exe.with_file_name(NAME));
    match sibling {
        Some(path) if path.is_file() => path,
        _ => NAME.into(),
    }
}

/// Replaces this process by `wandb-credd` with these arguments; returns only if that fails.
pub(super) fn exec_daemon_program(
    env: &Env,
    arguments: impl IntoIterator<Item = impl AsRef<str>>,
) -> CommandError {
    let program = find(env);
    let mut command = Command::new(&program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    not_started(&program, &command.exec())
}

/// It could not be started.
pub(super) fn not_started(program: &Path, error: &io::Error) -> CommandError {
    if error.kind() == ErrorKind::NotFound && program == Path::new(NAME) {
        return not_found();
    }
    let shown = program.display();
    let message = format!("cannot run {shown}: {error}");
    if process::may_start_later(error) {
        let message = format!("{message}; this machine, or its limit for you, has nothing to spare");
        return CommandError::new(Exit::System, message).hint("ulimit -a");
    }
    CommandError::new(Exit::Unavailable, message).hint(match error.kind() {
        ErrorKind::PermissionDenied => format!("chmod +x {shown}, unless its file system forbids programs"),
        _ => INSTALL.to_owned(),
    })
}

/// It is not installed.
pub(super) fn not_found() -> CommandError {
    let message = format!("{NAME} is neither in the folder of wandb-cred nor in PATH");
    CommandError::new(Exit::Unavailable, message).hint(INSTALL)
}

/// It ran, and did not succeed. With an exit code of ours, it has said why on standard error.
pub(super) fn failed(what: &str, status: ExitStatus) -> CommandError {
    match status.code().and_then(Exit::from_code) {
        Some(exit) => CommandError::silent(exit),
        None => CommandError::new(Exit::Unavailable, format!("{what}: {status}")),
    }
}

const NAME: &str = "wandb-credd";

const INSTALL: &str = "install both programs in one folder, or set WANDB_CREDD to the path of wandb-credd";
