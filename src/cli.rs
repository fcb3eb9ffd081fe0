//! The command `wandb-cred`: what people and scripts type.
//!
//! It knows the socket's API and where things are, and nothing of TLS, providers or the configuration: it asks the
//! daemon, or runs `wandb-credd`. So it starts fast enough for a shell prompt.
//!
//! # Layout
//!
//! A subcommand is one file with its `Args` and its `run`, and one line in [`Subcommand`], in the order of the help.

mod check;
mod command_error;
mod completions;
mod daemon_program;
mod doctor;
mod env;
mod exec;
mod feed;
mod init;
mod job;
mod job_wide;
mod keys;
mod lock;
mod login;
mod logout;
mod need;
mod old_sdk;
mod on_demand;
mod private_daemon;
mod profile;
mod ray;
mod refresh;
mod service;
mod shell;
mod socket;
mod status;
mod token;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};

use self::command_error::{CommandError, Outcome};
use crate::env::Env;
use crate::error::Exit;
use crate::output::{self, Style};

#[derive(Parser)]
#[command(name = "wandb-cred", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    Token(token::Args),
    Exec(exec::Args),
    Feed(feed::Args),
    Env(env::Args),
    Status(status::Args),
    Refresh(refresh::Args),
    Login(login::Args),
    Logout(logout::Args),
    Lock(lock::LockArgs),
    Unlock(lock::UnlockArgs),
    Init(init::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Service(service::Args),
    Socket(socket::Args),
    Completions(completions::Args),
}

pub fn main() -> ExitCode {
    let env = Env::system();
    if let Some(answered) = completions::answer(command, &env) {
        return answered.map_or(Exit::Usage, |()| Exit::Success).into();
    }
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(&cli.subcommand, &env),
        Err(error) => not_parsed(&error).map(ExitCode::from),
    };
    match outcome {
        Ok(exit) => exit,
        Err(error) => error.report(|| service::start_command(&env)),
    }
}

fn run(subcommand: &Subcommand, env: &Env) -> Result<ExitCode, CommandError> {
    let exit = match subcommand {
        // The exit code is that of the command it runs.
        Subcommand::Exec(args) => return exec::run(args, env),
        Subcommand::Token(args) => token::run(args, env),
        Subcommand::Feed(args) => feed::run(args, env),
        Subcommand::Env(args) => env::run(args, env),
        Subcommand::Status(args) => status::run(args, env),
        Subcommand::Refresh(args) => refresh::run(args, env),
        Subcommand::Login(args) => login::run(args, env),
        Subcommand::Logout(args) => logout::run(args, env),
        Subcommand::Lock(_) => lock::run(true, env),
        Subcommand::Unlock(_) => lock::run(false, env),
        Subcommand::Init(args) => init::run(args, env),
        Subcommand::Check(_) => check::run(env),
        Subcommand::Doctor(args) => doctor::run(args, env),
        Subcommand::Service(args) => service::run(args, env),
        Subcommand::Socket(_) => socket::run(env),
        Subcommand::Completions(args) => completions::run(args),
    };
    Ok(exit?.into())
}

/// The command line, for parsing, completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints help or the version if that was asked for; else says what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> Outcome {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let coloured = Style::detect(&Env::system()).has_colour();
            output::print(&if coloured { error.render().ansi().to_string() } else { text })?;
            Ok(Exit::Success)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::eprint(&text);
            Ok(Exit::Usage)
        }
        _ => {
            // Our own last line instead of clap's, in the form of all other errors.
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let text = text.split("\nFor more information, try '").next().unwrap_or(text);
            let first = std::env::args().nth(1).filter(|name| command().find_subcommand(name).is_some());
            let help =
                first.map_or("wandb-cred --help".to_owned(), |name| format!("wandb-cred {name} --help"));
            Err(CommandError::new(Exit::Usage, text.trim_end()).hint(help))
        }
    }
}

const ABOUT: &str = "Always a good Weights & Biases token, from your own identity provider";

const LONG_ABOUT: &str = "\
Always a good Weights & Biases token, from your own identity provider.

This program talks to wandb-credd, a daemon that runs as you and keeps tokens fresh: it
takes the identity that your organization or platform gives you, exchanges it for W&B
access tokens, and renews them before they expire.";

const AFTER_HELP: &str = "Try:
  wandb-cred exec -- python train.py      run a W&B program with credentials that stay fresh
  wandb-cred status                       show the state and expiry of each profile
  curl -H \"$(wandb-cred token --format header)\" https://api.wandb.ai/...

Exit codes: 0 success, 64 wrong usage, 69 no daemon, 75 try again later, 77 sign in first,
78 fix the configuration. Manual: man wandb-cred";

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
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            let name = subcommand.get_name();
            assert!(subcommand.get_long_about().is_some(), "{name} has no long help");
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} {}", argument.get_id());
            }
        }
    }

    /// clap would take the doc comment of a flattened struct for the summary of a subcommand that has none.
    #[test]
    fn no_flattened_struct_brings_a_summary() {
        fn summary<T: clap::Args>() -> Option<String> {
            T::augment_args(clap::Command::new("x")).get_about().map(ToString::to_string)
        }
        for summary in [
            summary::<profile::ProfileArg>(),
            summary::<profile::ProfilesArg>(),
            summary::<need::NeedArg>(),
            summary::<crate::setup_args::InitArgs>(),
            summary::<crate::setup_args::FirstLoginArgs>(),
        ] {
            assert_eq!(summary, None);
        }
        let login = command().find_subcommand("login").and_then(|login| login.get_about().cloned());
        assert_eq!(
            login.map(|about| about.to_string()).as_deref(),
            Some("Sign in with your organization's identity provider")
        );
    }
}
