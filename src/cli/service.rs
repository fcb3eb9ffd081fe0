//! `wandb-cred service`: lets the service manager start the daemon on first use.

mod launchd;
mod step;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;

use self::step::perform;
use super::command_error::{CommandError, Outcome};
use super::daemon_program;
use crate::client::Client;
use crate::clock::Clock;
use crate::env::Env;
use crate::error::Exit;
use crate::{duration, output};

/// Install, remove or inspect the background service
#[derive(clap::Args)]
#[command(long_about = DETAILS)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Install the service for this user, and start it
    Install(Install),
    /// Stop the service, and remove what install wrote
    Uninstall(DryRun),
    /// Show what is installed, and whether the daemon answers
    Status,
}

// No doc comment: clap would show it as the summary of both subcommands.
#[derive(clap::Args)]
struct DryRun {
    /// Print what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

// No doc comment, as above.
#[derive(clap::Args)]
struct Install {
    #[command(flatten)]
    dry_run: DryRun,
    /// Record this shell's proxy and certificates in the configuration, without asking
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(args: &Args, env: &Env) -> Outcome {
    match &args.action {
        Action::Install(how) => install(how, env),
        Action::Uninstall(how) => uninstall(how.dry_run, env),
        Action::Status => status(env),
    }
}

fn install(how: &Install, env: &Env) -> Outcome {
    let dry_run = how.dry_run.dry_run;
    let daemon = daemon_path(env)?;
    let (steps, next_steps) = if cfg!(target_os = "macos") {
        (launchd::install(env, &daemon)?, launchd::NEXT_STEPS)
    } else {
        if !dry_run {
            systemd::check(env)?;
            refuse_a_second_daemon(env)?;
        }
        (systemd::install(env, &daemon)?, systemd::NEXT_STEPS)
    };
    // Before the daemon starts, which then reads it.
    record_network(&daemon, how)?;
    perform(&steps, dry_run, env)?;
    for variable in ["WANDB_CRED_SOCKET", "WANDB_CRED_CONFIG"] {
        if let Some(value) = env.var(variable) {
            output::print_line(format!(
                "note: {variable}={value} is set in this shell, but the service does not see it"
            ))?;
        }
    }
    if let Some(folder) = passing_environment(&daemon) {
        output::print_line(format!(
            "note: the service runs {}, which goes when the Python environment {} does; uv tool install wandb-cred, or pipx, makes \
             one that stays",
            daemon.display(),
            folder.display()
        ))?;
    }
    if !dry_run {
        output::print(next_steps)?;
    }
    Ok(Exit::Success)
}

/// The daemon's program knows the configuration, and whether there is something to record.
fn record_network(daemon: &Path, how: &Install) -> Result<(), CommandError> {
    let mut command = Command::new(daemon);
    command.arg("record-network");
    command.args(how.yes.then_some("--yes")).args(how.dry_run.dry_run.then_some("--dry-run"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(daemon_program::failed("wandb-credd record-network", status)),
        Err(error) => Err(daemon_program::not_started(daemon, &error)),
    }
}

/// The virtual environment that the program is in, unless it is one that uv or pipx keeps for a tool: a project's is made anew
/// at any time, and that of `uvx` lies in a cache.
fn passing_environment(program: &Path) -> Option<&Path> {
    let folder = program.parent()?.parent()?;
    let has = |file| folder.join(file).exists();
    (has("pyvenv.cfg") && !KEPT.into_iter().any(has)).then_some(folder)
}

fn uninstall(dry_run: bool, env: &Env) -> Outcome {
    if !cfg!(target_os = "macos") && !systemd::is_installed(env) {
        output::print_line("the service is not installed, so nothing was changed")?;
        return Ok(Exit::Success);
    }
    if !cfg!(target_os = "macos") && !systemd::is_installed_by_user(env) {
        let message = "the units came with a package, for all users, so nothing was changed";
        return Err(CommandError::new(Exit::Unavailable, message)
            .hint("systemctl --user mask --now wandb-cred.socket (turns them off for you)"));
    }
    let steps = if cfg!(target_os = "macos") { launchd::uninstall(env)? } else { systemd::uninstall(env)? };
    perform(&steps, dry_run, env)?;
    Ok(Exit::Success)
}

fn status(env: &Env) -> Outcome {
    let manager = if cfg!(target_os = "macos") { launchd::status(env)? } else { systemd::status(env)? };
    output::print(&manager)?;
    let client = Client::find(env)?;
    let status = client.status()?;
    let up = Clock::system().now().wall.duration_since(status.started_at).as_secs();
    output::print_line(format!(
        "daemon   answers at {}: version {}, pid {}, up {}, {} profiles",
        status.socket.display(),
        status.version,
        status.pid,
        duration::text(up),
        status.profiles.len()
    ))?;
    Ok(Exit::Success)
}

/// What to type on this machine if no daemon answers.
pub(super) fn start_command(env: &Env) -> &'static str {
    if cfg!(target_os = "macos") {
        return "wandb-cred service install";
    }
    match (step::user_manager(env), systemd::is_installed(env)) {
        (Some(_), true) => "systemctl --user restart wandb-cred.socket",
        (Some(_), false) => "wandb-cred service install",
        (None, _) => "wandb-credd &",
    }
}

/// The daemon's absolute path, as service managers need it.
fn daemon_path(env: &Env) -> Result<PathBuf, CommandError> {
    let program = daemon_program::find(env);
    let candidates: Vec<PathBuf> = if program.is_absolute() {
        vec![program]
    } else {
        let path = env.var("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(&program)).collect()
    };
    candidates
        .into_iter()
        .find(|path| path.is_absolute() && path.is_file())
        .ok_or_else(daemon_program::not_found)
}

/// systemd would take the socket's path away from a daemon that was started by hand.
fn refuse_a_second_daemon(env: &Env) -> Result<(), CommandError> {
    if systemd::is_active("wandb-cred.socket", env) {
        return Ok(());
    }
    let Ok(status) = Client::find(env)?.status() else { return Ok(()) };
    let message = format!("a daemon that systemd did not start answers at {}", status.socket.display());
    Err(CommandError::new(Exit::TryLater, message)
        .hint(format!("kill {}, then run this command again", status.pid)))
}

/// What uv and pipx leave beside `pyvenv.cfg` in the environment of an installed tool.
const KEPT: [&str; 2] = ["uv-receipt.toml", "pipx_metadata.json"];

const DETAILS: &str = "\
Let this user's service manager (systemd, or launchd on macOS) start the daemon as soon
as a program asks it for a token, and restart it if it fails. This needs no root access.

A service does not see this shell. If the shell has a proxy (HTTPS_PROXY, NO_PROXY) or
certificates of its own (SSL_CERT_FILE), install offers to record them in the
configuration, for profiles that say nothing of it.";
