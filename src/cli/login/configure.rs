//! The first sign-in on a machine: the daemon's program finds out the issuer and the client ID, and writes the
//! configuration.

use std::io::ErrorKind;
use std::process::Command;

use crate::cli::command_error::CommandError;
use crate::cli::daemon_program;
use crate::env::Env;
use crate::setup_args::FirstLoginArgs;

/// Makes sure that there is a configuration. Asks the person if `args` do not say enough.
pub(super) fn configure(args: &FirstLoginArgs, profile: Option<&str>, env: &Env) -> Result<(), CommandError> {
    let program = daemon_program::find(env);
    let flags = args.to_flags();
    let mut command = Command::new(&program);
    command.arg("first-login").args(&flags);
    if let Some(profile) = profile {
        command.arg(format!("--profile={profile}"));
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(daemon_program::failed("wandb-credd first-login", status)),
        // A container may hold this program alone, beside the socket of a daemon that is configured elsewhere.
        Err(error) if error.kind() == ErrorKind::NotFound && flags.is_empty() => Ok(()),
        Err(error) => Err(daemon_program::not_started(&program, &error)),
    }
}
