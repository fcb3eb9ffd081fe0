//! The steps of installing and removing a service: each is printed, and done unless this is a dry run.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::command_error::CommandError;
use crate::env::Env;
use crate::error::{Error, Exit, Stage};
use crate::{output, paths};

/// One thing that install or uninstall does.
pub(super) enum Step {
    /// Creates a private folder.
    Folder(PathBuf),
    Write {
        path: PathBuf,
        text: String,
    },
    Remove(PathBuf),
    Run(Vec<String>),
    /// Runs, and may fail: there was nothing to do.
    Try(Vec<String>),
}

pub(super) fn perform(steps: &[Step], dry_run: bool, env: &Env) -> Result<(), CommandError> {
    for step in steps {
        match step {
            Step::Folder(path) => {
                say(format!("mkdir -p {}", path.display()))?;
                if !dry_run {
                    paths::private_dir(path)?;
                }
            }
            Step::Write { path, text } => {
                say(format!("write {}", path.display()))?;
                if dry_run {
                    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
                    say(indented.trim_end())?;
                } else {
                    write(path, text)?;
                }
            }
            Step::Remove(path) if path.symlink_metadata().is_err() => {}
            Step::Remove(path) => {
                say(format!("rm -f {}", path.display()))?;
                if !dry_run {
                    match std::fs::remove_file(path) {
                        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                            return Err(Error::io(Stage::Files, path, &source).into());
                        }
                        _ => {}
                    }
                }
            }
            Step::Run(argv) | Step::Try(argv) => {
                say(argv.join(" "))?;
                if !dry_run && !run_tool(argv, env)? && matches!(step, Step::Run(_)) {
                    let message = format!("{} failed", argv.join(" "));
                    return Err(
                        CommandError::new(Exit::Unavailable, message).hint("wandb-cred service status")
                    );
                }
            }
        }
    }
    Ok(())
}

/// A reader that goes away must not leave the work half done.
fn say(text: impl Into<String>) -> Result<(), output::Error> {
    match output::print_line(text) {
        Err(output::Error::Closed) => Ok(()),
        result => result,
    }
}

fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let at = |error| CommandError::from(Error::io(Stage::Files, path, &error));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(at)?;
    }
    std::fs::write(path, text).map_err(at)
}

/// Returns whether it succeeded. What it prints goes to the person.
fn run_tool(argv: &[String], env: &Env) -> Result<bool, CommandError> {
    let status = tool(argv, env).stdin(Stdio::null()).status();
    status.map(|status| status.success()).map_err(|error| cannot_run(&argv[0], &error))
}

pub(super) fn tool(argv: &[String], env: &Env) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    // In a shell that was opened by su or cron, systemctl does not find the user's manager by itself.
    if let Some(runtime) = user_manager(env) {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command
}

fn cannot_run(program: &str, error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Unavailable, format!("cannot run {program}: {error}")).hint("wandb-credd &")
}

pub(super) fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The runtime folder in which this user's systemd listens, if it runs.
pub(super) fn user_manager(env: &Env) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let runtime =
        env.var("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    let private = runtime.join("systemd/private").metadata().ok()?;
    (private.uid() == uid).then_some(runtime)
}
