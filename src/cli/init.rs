//! `wandb-cred init`: writes a configuration file for the environment. The daemon's program does it.

use super::command_error::Outcome;
use super::daemon_program::exec_daemon_program;
use crate::env::Env;
use crate::setup_args::InitArgs;

/// Write a configuration file for this environment
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {
    #[command(flatten)]
    init: InitArgs,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let arguments = [vec!["init".to_owned()], args.init.to_flags()].concat();
    Err(exec_daemon_program(env, arguments))
}

const DETAILS: &str = "\
Look for an identity in the environment (an identity token file, a CI system, a cluster,
a cloud), and write a configuration file that uses it. An existing file is replaced only
with --force.

You need no configuration file if the environment says enough: without one, the daemon
looks in the same way each time it starts. A file makes the choice permanent, and gives
you something to edit.";
