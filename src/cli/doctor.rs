//! `wandb-cred doctor`: why would W&B say no? The daemon's program looks.

use super::command_error::Outcome;
use super::daemon_program::exec_daemon_program;
use super::profile;
use crate::env::Env;

/// Find out why W&B does not accept you, and how to fix it
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {
    /// The profile to look at [default: $WANDB_CRED_PROFILE, else all]
    #[arg(long, short, value_name = "NAME")]
    profile: Option<String>,
    /// Print JSON: a list of findings, each with step, verdict, found and remedy
    #[arg(long)]
    json: bool,
    /// Print what is fine too
    #[arg(long, short)]
    verbose: bool,
    /// Look from this shell, even if a daemon answers
    #[arg(long)]
    alone: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    let profile = args.profile.clone().or_else(|| profile::names_in(env).into_iter().next());
    let mut arguments = vec!["doctor"];
    if let Some(profile) = &profile {
        arguments.extend(["--profile", profile]);
    }
    if args.json {
        arguments.push("--json");
    }
    if args.verbose {
        arguments.push("--verbose");
    }
    if args.alone {
        arguments.push("--alone");
    }
    Err(exec_daemon_program(env, &arguments))
}

const DETAILS: &str = "\
Check this machine, and for every profile (or the one that is named) each step from the
configuration to an authenticated call to W&B. Say of each that does not work how to fix
it; --verbose shows all.

If a daemon answers, it does the checks itself, because its environment is what counts.
If none does, they are done from this shell, with one token exchange. The output holds
no token, so you can give it to an administrator. The exit code is 0 if all is well
(warnings allowed), else 69, 75, 77 or 78, as for the other subcommands.";
