//! `wandb-cred completions`: for the shell's Tab key.
//!
//! The script that it prints asks this program at each Tab, so that it knows the profiles and never differs from the
//! command line that is installed.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _};
use clap_complete::env::{CompleteEnv, Shells};

use super::command_error::Outcome;
use crate::client::Client;
use crate::env::Env;
use crate::error::Exit;
use crate::{api, output, paths};

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(long_about = DETAILS, after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell.to_string()).expect("each shell of the list has a completer");
    shell
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .expect("a Vec takes everything");
    if args.shell == clap_complete::Shell::Zsh {
        script.extend_from_slice(ZSH_AUTOLOAD.as_bytes());
    }
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// As a file of `fpath`, which is where packages put it, the script is run at the first Tab, which would else only define it.
const ZSH_AUTOLOAD: &str = r#"
if [ "$funcstack[1]" = "_wandb-cred" ]; then
    _clap_dynamic_completer_wandb_cred "$@"
fi
"#;

/// Answers the script. `None` if it was not the script that ran this program.
pub(super) fn answer(command: fn() -> clap::Command, env: &Env) -> Option<clap::error::Result<()>> {
    env.var(VARIABLE)?;
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let index = env.var("_CLAP_COMPLETE_INDEX").and_then(|index| index.parse().ok());
    let program = names_program(&words, index.unwrap_or(words.len().saturating_sub(1)));
    let asked = env.clone();
    let complete = CompleteEnv::with_factory(move || with_values(command(), program, &asked)).var(VARIABLE);
    complete.try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref()).map(drop).into()
}

/// Whether the word at `index` is the command that `exec` will run, not one of its arguments.
fn names_program(words: &[OsString], index: usize) -> bool {
    index.checked_sub(1).and_then(|before| words.get(before)).is_some_and(|word| word == "--")
}

/// Says which values the arguments have that clap cannot know.
fn with_values(mut command: clap::Command, program: bool, env: &Env) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let env = env.clone();
        command = command.mut_subcommand(name, |sub| {
            sub.mut_args(|argument| match argument.get_id().as_str() {
                "profile" => {
                    let env = env.clone();
                    argument.add(ArgValueCompleter::new(move |typed: &OsStr| profiles(typed, &env)))
                }
                "command" if program => {
                    let env = env.clone();
                    argument.add(ArgValueCompleter::new(move |typed: &OsStr| programs(typed, &env)))
                }
                "command" => argument.add(ArgValueCompleter::new(PathCompleter::any())),
                _ => argument,
            })
        });
    }
    command
}

/// The profiles of the configuration file; without one, those that the daemon has.
fn profiles(typed: &OsStr, env: &Env) -> Vec<CompletionCandidate> {
    let written =
        paths::Places::find(env).ok().and_then(|places| std::fs::read_to_string(places.config).ok());
    let names = written.as_deref().map_or_else(|| served(env), written_profiles);
    let typed = typed.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// The NAME of each `[profile.NAME]` and `[profile.NAME.provider.KIND]`, read without a parser: a file that is being
/// edited completes too, and the command knows nothing of the configuration.
fn written_profiles(text: &str) -> Vec<String> {
    let heads = text.lines().filter_map(|line| line.trim_start().strip_prefix("[profile."));
    let names = heads.filter_map(|rest| match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(['.', ']']).next(),
    });
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn served(env: &Env) -> Vec<String> {
    let client = Client::find(env).ok().filter(Client::accepts);
    let status = client.and_then(|client| client.get::<api::Status>("/v1/status", PATIENCE).ok());
    status.into_iter().flat_map(|status| status.profiles).map(|profile| profile.name).collect()
}

/// The programs of PATH, or the files of a path that is being typed.
fn programs(typed: &OsStr, env: &Env) -> Vec<CompletionCandidate> {
    let Some(prefix) = typed.to_str().filter(|typed| !typed.contains('/')) else {
        return PathCompleter::any().complete(typed);
    };
    let path = env.var("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter_map(|folder| folder.read_dir().ok()).flatten();
    let files = folders.filter_map(Result::ok).filter_map(|file| file.file_name().into_string().ok());
    let mut names: Vec<_> = files.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

const PROGRAM: &str = "wandb-cred";

/// Set by the script. clap's own name for it, COMPLETE, is one that other programs may set.
const VARIABLE: &str = "WANDB_CRED_COMPLETE";

/// Nobody waits longer for a Tab.
const PATIENCE: Duration = Duration::from_secs(1);

const DETAILS: &str = "\
Print a script that makes the shell's Tab key complete wandb-cred: its subcommands and
options, the names of your profiles, and the command after exec --.

Let the shell read it at each start, so that it fits the version that is installed.";

const EXAMPLES: &str = "Examples:
  source <(wandb-cred completions bash)          in ~/.bashrc
  source <(wandb-cred completions zsh)           in ~/.zshrc, after compinit
  wandb-cred completions fish | source           in ~/.config/fish/config.fish";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_in_a_file_that_is_not_finished() {
        let text =
            "[profile.work]\n[profile.work.provider.file]\n [profile.\"a.b\"]\n# [profile.no]\n[profile.x\n";
        assert_eq!(written_profiles(text), ["a.b", "work", "x"]);
    }
}
