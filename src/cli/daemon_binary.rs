//! Finds and runs `wandb-credd` for what only the daemon's program can do.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::failure::{Exit, Failure};
use crate::env::Env;

/// The one beside this program, so that both have one version; else the one in PATH. `WANDB_CREDD` overrides.
pub(super) fn find(env: &Env) -> PathBuf {
    if let Some(path) = env.var("WANDB_CREDD") {
        return path.into();
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.canonicalize().ok())
        .map(|exe| exe.with_file_name(NAME));
    match beside {
        Some(path) if path.is_file() => path,
        _ => NAME.into(),
    }
}

/// Becomes `wandb-credd` with these arguments; returns only if that fails.
pub(super) fn become_it(env: &Env, arguments: &[&str]) -> Failure {
    let program = find(env);
    let error = Command::new(&program).args(arguments).exec();
    failure(&program, &error)
}

/// Why it did not start.
pub(super) fn failure(program: &std::path::Path, error: &std::io::Error) -> Failure {
    let what = match error.kind() {
        ErrorKind::NotFound if program == std::path::Path::new(NAME) => {
            format!("{NAME} is neither beside wandb-cred nor in PATH")
        }
        _ => format!("cannot run {}: {error}", program.display()),
    };
    Failure::new(Exit::Unavailable, what)
        .next("install both programs in one folder, or name it in WANDB_CREDD")
}

const NAME: &str = "wandb-credd";
