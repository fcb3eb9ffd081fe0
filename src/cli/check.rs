//! `wandb-cred check`: is the configuration right? The daemon's program knows.

use clap::{ArgMatches, Command};

use super::{Outcome, Verb, daemon_binary};
use crate::env::Env;

pub(super) const VERB: Verb = Verb { name: "check", about: "Check the configuration file", args, run };

fn args(command: Command) -> Command {
    command.long_about(DETAILS)
}

fn run(_: &ArgMatches, env: &Env) -> Outcome {
    Err(daemon_binary::become_it(env, &["check"]))
}

const DETAILS: &str = "\
Check the configuration file, without starting anything and without touching the
network.

Errors name the file, the line and the nearest known key. The file is config.toml in the
configuration folder, or what WANDB_CRED_CONFIG names; wandb-cred-config(5) describes
it.";
