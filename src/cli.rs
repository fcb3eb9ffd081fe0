//! The command `wandb-cred`: what people and scripts type.
//!
//! It knows the socket's API and where things are, and nothing of TLS, providers or the configuration: that is
//! asked of the daemon, or done by running `wandb-credd`. So it stays small and starts fast enough for a shell
//! prompt.
//!
//! # Layout
//!
//! A subcommand is one file with one [`Verb`] in it, listed in [`VERBS`] in the order of the help. Its arguments
//! are built only when it is the one that was typed, since building all of them costs more than asking the daemon.

mod check;
mod completions;
mod daemon_binary;
mod doctor;
mod env;
mod exec;
mod failure;
pub(crate) mod init;
mod job;
mod lock;
pub(crate) mod login;
mod logout;
mod need;
mod output;
mod profile;
mod refresh;
mod service;
mod shell;
mod span;
mod status;
pub(crate) mod talk;
mod token;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, FromArgMatches};

use self::failure::{Exit, Failure};
use crate::env::Env;

pub fn main() -> ExitCode {
    let env = Env::system();
    let outcome = match command().try_get_matches() {
        Ok(matches) => run(&matches, &env),
        Err(error) => return usage(&error),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let (name, matches) = matches.subcommand().expect("a subcommand is required");
    let verb = VERBS.iter().find(|verb| verb.name == name).expect("clap only accepts what is listed");
    (verb.run)(matches, env)
}

/// The command line, for parsing, completions and manual pages.
pub fn command() -> Command {
    let command = Command::new("wandb-cred")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true);
    VERBS.iter().fold(command, |command, verb| {
        command.subcommand(Command::new(verb.name).about(verb.about).defer(verb.args))
    })
}

/// One subcommand.
pub(crate) struct Verb {
    name: &'static str,
    /// Its line in `wandb-cred --help`.
    about: &'static str,
    /// Adds its arguments and long help; called only if it was typed.
    args: fn(Command) -> Command,
    run: fn(&ArgMatches, &Env) -> Outcome,
}

type Outcome = Result<Exit, Failure>;

const VERBS: &[Verb] = &[
    token::VERB,
    exec::VERB,
    env::VERB,
    status::VERB,
    refresh::VERB,
    login::VERB,
    logout::VERB,
    lock::LOCK,
    lock::UNLOCK,
    init::VERB,
    check::VERB,
    doctor::VERB,
    service::VERB,
    completions::VERB,
];

/// The typed arguments of a subcommand.
fn typed<T: FromArgMatches>(matches: &ArgMatches) -> Result<T, Failure> {
    T::from_arg_matches(matches).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// Prints help or version, or says what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match output::print(&text) {
            Ok(()) => Exit::Success.into(),
            Err(failure) => failure.report(),
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{text}");
            Exit::Usage.into()
        }
        _ => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let (text, next) = text.split_once("\nFor more information, try '").unwrap_or((text, ""));
            let failure = Failure::new(Exit::Usage, text.trim_end());
            let verb = std::env::args().nth(1).filter(|name| VERBS.iter().any(|verb| verb.name == name));
            let help =
                verb.map_or("wandb-cred --help".to_owned(), |verb| format!("wandb-cred {verb} --help"));
            if next.is_empty() { failure } else { failure.next(help) }.report()
        }
    }
}

const ABOUT: &str = "Always a good Weights & Biases token, from your own identity provider";

const LONG_ABOUT: &str = "\
Always a good Weights & Biases token, from your own identity provider.

This program asks wandb-credd, a daemon of yours that keeps tokens fresh: it takes the
identity that your organization or your platform gives you, exchanges it for W&B access
tokens, and renews them before they expire.";

const AFTER_HELP: &str = "Try:
  wandb-cred exec -- python train.py      run a W&B program with credentials that stay fresh
  wandb-cred status                       what the daemon holds, and for how long
  curl -H \"$(wandb-cred token --format header)\" https://api.wandb.ai/...

Exit codes: 0 good, 64 wrong usage, 69 no daemon, 75 try again later, 77 a person must sign in,
78 the configuration needs a change. Manual: man wandb-cred";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_subcommand_explains_itself() {
        let mut command = command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            assert!(verb.get_long_about().is_some(), "{} has no long help", verb.get_name());
            for argument in verb.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
            }
        }
    }
}
