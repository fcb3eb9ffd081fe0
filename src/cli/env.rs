//! `wandb-cred env`: the SDK's environment for the calling shell.

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::shell::Shell;
use super::{Outcome, Verb, job, output, profile};
use crate::client::Client;
use crate::env::Env;

pub(super) const VERB: Verb =
    Verb { name: "env", about: "Print the W&B environment for the calling shell", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(flatten)]
    profile: profile::Choice,
    /// The shell that evaluates the output
    #[arg(long, short, value_enum, default_value_t = Shell::Sh)]
    shell: Shell,
    /// The process that needs the credentials [default: the calling one]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS).after_help(EXAMPLES)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let client = Client::find(env)?;
    // A shell runs `$(wandb-cred env)` as its own child, so the parent is the one that will use the files.
    let pid = args.pid.unwrap_or_else(std::os::unix::process::parent_id);
    let job = job::register(&client, &args.profile, pid, env).map_err(|error| Failure::of(error, env))?;
    let mut text = String::new();
    for (name, value) in job::variables(&job)? {
        text += &args.shell.set(name, &value);
    }
    text += &args.shell.unset(job::UNSET);
    output::print(&text)?;
    Ok(Exit::Success)
}

const DETAILS: &str = "\
Print shell commands that make every W&B program started from this shell use the
daemon's credentials.

The files they name are kept fresh until the shell ends. WANDB_API_KEY is unset, because
the W&B SDK refuses it beside an identity token file.

In a pipeline or a wrapper the calling process can be a short-lived one; say --pid $$
there. Where no daemon runs, use wandb-cred exec, which brings one.";

const EXAMPLES: &str = "Examples:
  eval \"$(wandb-cred env)\"                       sh, bash, zsh
  wandb-cred env --shell fish | source           fish
  eval `wandb-cred env --shell csh`              csh, tcsh";
