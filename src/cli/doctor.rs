//! `wandb-cred doctor`: why would W&B say no? The daemon's program looks.

use clap::{ArgMatches, Command};

use super::{Outcome, Verb, daemon_binary, profile};
use crate::env::Env;

pub(super) const VERB: Verb =
    Verb { name: "doctor", about: "Find out what keeps W&B from accepting you, and what helps", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// Print JSON: a list of findings, each with step, verdict, found and remedy
    #[arg(long)]
    json: bool,
    /// Look from this shell, even if a daemon answers
    #[arg(long)]
    alone: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let profile = args.profile.name(env);
    let mut arguments = vec!["doctor"];
    if let Some(profile) = &profile {
        arguments.extend(["--profile", profile]);
    }
    if args.json {
        arguments.push("--json");
    }
    if args.alone {
        arguments.push("--alone");
    }
    Err(daemon_binary::become_it(env, &arguments))
}

const DETAILS: &str = "Walk the whole path from the configuration to an authenticated call, and say for each step whether it is \
well and what to do if it is not.

Where a daemon answers, it looks itself: its environment is what counts. Where none does, the same is done from here, \
which makes one exchange. The output holds no token, so it can be given to an admin. Exit code 0 if all is well \
(warnings allowed), else 69, 75, 77 or 78 as everywhere.";
