//! The first sign-in on a machine: the daemon's program finds out the issuer and the client ID, and writes the
//! configuration; at first to a draft, so that a sign-in that fails leaves nothing behind.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::cli::command_error::CommandError;
use crate::cli::daemon_program;
use crate::env::Env;
use crate::setup_args::FirstLoginArgs;

/// Writes the draft, if there is no configuration. Asks the person if `args` do not say enough.
pub(super) fn draft(
    args: &FirstLoginArgs,
    profile: Option<&str>,
    draft: &Path,
    env: &Env,
) -> Result<(), CommandError> {
    let program = daemon_program::find(env);
    let mut command = Command::new(&program);
    command.arg("first-login").args(args.to_flags()).arg("--draft").arg(draft);
    if let Some(profile) = profile {
        command.arg(format!("--profile={profile}"));
    }
    run(&program, command)
}

/// Makes the draft the configuration.
pub(super) fn keep(draft: &Path, env: &Env) -> Result<(), CommandError> {
    let program = daemon_program::find(env);
    let mut command = Command::new(&program);
    command.arg("first-login").arg("--keep").arg(draft);
    run(&program, command)
}

/// Whether the program is there. A container may hold this one alone, beside the socket of a daemon that is configured
/// elsewhere.
pub(super) fn is_possible(env: &Env) -> bool {
    let program = daemon_program::find(env);
    let asked = Command::new(&program).arg("--version").stdout(std::process::Stdio::null()).status();
    !asked.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn run(program: &Path, mut command: Command) -> Result<(), CommandError> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(daemon_program::failed("wandb-credd first-login", status)),
        Err(error) => Err(daemon_program::not_started(program, &error)),
    }
}
