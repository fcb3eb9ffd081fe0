//! `wandb-cred check`: is the configuration right? The daemon's program knows.

use super::command_error::Outcome;
use super::daemon_program::exec_daemon_program;
use crate::env::Env;

/// Check the configuration file
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {}

pub(super) fn run(env: &Env) -> Outcome {
    Err(exec_daemon_program(env, ["check"]))
}

const DETAILS: &str = "\
Check the configuration file. Nothing is started, and the network is not used.

Errors name the file, the line and the nearest known key. The file is config.toml in the
configuration folder, or the one that WANDB_CRED_CONFIG names; wandb-cred-config(5)
describes it.";
