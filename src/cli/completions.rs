//! `wandb-cred completions`: for the shell's Tab key.

use clap::{ArgMatches, Command};

use super::{Exit, Outcome, Verb, output};
use crate::env::Env;

pub(super) const VERB: Verb =
    Verb { name: "completions", about: "Print a shell's completion script", args, run };

#[derive(clap::Args)]
struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS).after_help(EXAMPLES)
}

fn run(matches: &ArgMatches, _: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "wandb-cred", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

const DETAILS: &str = "\
Print a script that makes the shell's Tab key complete wandb-cred's subcommands and
options.";

const EXAMPLES: &str = "Examples:
  wandb-cred completions bash > ~/.local/share/bash-completion/completions/wandb-cred
  wandb-cred completions zsh > ~/.zfunc/_wandb-cred
  wandb-cred completions fish > ~/.config/fish/completions/wandb-cred.fish";
