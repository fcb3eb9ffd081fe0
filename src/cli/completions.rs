//! `wandb-cred completions`: for the shell's Tab key.

use super::command_error::Outcome;
use crate::error::Exit;
use crate::output;

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script that completes `command`.
pub(super) fn run(args: &Args, mut command: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "wandb-cred", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

const DETAILS: &str = "\
Print a script that makes the shell's Tab key complete the subcommands and options of
wandb-cred.";

const EXAMPLES: &str = "Examples:
  wandb-cred completions bash > ~/.local/share/bash-completion/completions/wandb-cred
  wandb-cred completions zsh > ~/.zfunc/_wandb-cred
  wandb-cred completions fish > ~/.config/fish/completions/wandb-cred.fish";
