//! `wandb-cred socket`: where the daemon is, for programs that ask it themselves.

use super::command_error::{CommandError, Outcome};
use super::on_demand;
use crate::env::Env;
use crate::error::Exit;
use crate::output;

/// Print the path of the daemon's socket
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {}

pub(super) fn run(env: &Env) -> Outcome {
    let daemon = on_demand::find_or_start(env)?;
    let socket = daemon.client.socket();
    let text = socket.to_str().ok_or_else(|| {
        let message = format!("the path {} is not Unicode", socket.display());
        CommandError::new(Exit::Configuration, message)
            .hint("set WANDB_CRED_SOCKET to a path in another folder")
    })?;
    output::print_line(text)?;
    Ok(Exit::Success)
}

const DETAILS: &str = "\
Print the path of the socket at which the daemon answers.

It is the daemon that exec, env and token would ask. If none runs, one is started, and
ends when nobody has needed it for a while.";

const EXAMPLES: &str = "Examples:
  curl --unix-socket \"$(wandb-cred socket)\" http://localhost/v1/token";
