//! `wandb-cred init`: writes down the configuration that the environment suggests. The daemon's program knows.

use clap::{ArgMatches, Command};

use super::{Outcome, Verb, daemon_binary};
use crate::env::Env;

pub(super) const VERB: Verb =
    Verb { name: "init", about: "Write a configuration file for what is found here", args, run };

// What `wandb-credd init` takes, too. No doc comment: clap would take it for the help.
// clap names the group after the type.
#[derive(clap::Args)]
#[group(id = "init")]
pub(crate) struct Args {
    /// Replace an existing configuration file
    #[arg(long)]
    pub(crate) force: bool,
    /// Print what would be written, and write nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let mut arguments = vec!["init"];
    if args.force {
        arguments.push("--force");
    }
    if args.dry_run {
        arguments.push("--dry-run");
    }
    Err(daemon_binary::become_it(env, &arguments))
}

const DETAILS: &str = "\
Look at what the environment offers as an identity (an identity token file, a CI system,
a cluster, a cloud), and write a configuration file for it. An existing file is never
replaced without --force.

No configuration is needed where the environment says enough: the daemon looks in the
same way when it finds no file. Writing it down makes the choice permanent, and gives
you something to edit.";
