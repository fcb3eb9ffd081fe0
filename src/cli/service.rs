//! `wandb-cred service`: lets the service manager start the daemon when it is first asked for something.

mod launchd;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{ArgMatches, Command};

use super::failure::{Exit, Failure};
use super::{Outcome, Verb, daemon_binary, output, span};
use crate::api;
use crate::client::Client;
use crate::clock::Clock;
use crate::env::Env;
use crate::error::{Error, Stage};
use crate::paths;

pub(super) const VERB: Verb =
    Verb { name: "service", about: "Install, remove or inspect the background service", args, run };

#[derive(clap::Args)]
struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Install the service for this user, and start it
    Install(Manner),
    /// Stop the service, and remove what install wrote
    Uninstall(Manner),
    /// Show what is installed, and whether the daemon answers
    Status,
}

#[derive(clap::Args)]
struct Manner {
    /// Print what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

fn args(command: Command) -> Command {
    <Args as clap::Args>::augment_args(command).long_about(DETAILS)
}

fn run(matches: &ArgMatches, env: &Env) -> Outcome {
    let args: Args = super::typed(matches)?;
    match args.action {
        Action::Install(manner) => install(manner.dry_run, env),
        Action::Uninstall(manner) => uninstall(manner.dry_run, env),
        Action::Status => status(env),
    }
}

fn install(dry_run: bool, env: &Env) -> Outcome {
    let daemon = daemon_path(env)?;
    let (steps, afterwards) = if cfg!(target_os = "macos") {
        (launchd::install(env, &daemon)?, launchd::AFTERWARDS)
    } else {
        if !dry_run {
            systemd::check(env)?;
            refuse_a_second_daemon(env)?;
        }
        (systemd::install(env, &daemon)?, systemd::AFTERWARDS)
    };
    perform(&steps, dry_run, env)?;
    for variable in ["WANDB_CRED_SOCKET", "WANDB_CRED_CONFIG"] {
        if let Some(value) = env.var(variable) {
            output::print_line(format!(
                "note: the service does not see {variable}={value}, which is set in this shell"
            ))?;
        }
    }
    if !dry_run {
        output::print(afterwards)?;
    }
    Ok(Exit::Success)
}

fn uninstall(dry_run: bool, env: &Env) -> Outcome {
    let steps = if cfg!(target_os = "macos") { launchd::uninstall(env)? } else { systemd::uninstall(env)? };
    perform(&steps, dry_run, env)?;
    Ok(Exit::Success)
}

fn status(env: &Env) -> Outcome {
    let manager = if cfg!(target_os = "macos") { launchd::status(env)? } else { systemd::status(env)? };
    output::print(&manager)?;
    let client = Client::find(env)?;
    let status: api::Status =
        client.get("/v1/status", super::status::PATIENCE).map_err(|error| Failure::of(error, env))?;
    let up = Clock::system().now().wall.duration_since(status.started_at).as_secs();
    output::print_line(format!(
        "daemon   answers at {}: version {}, pid {}, up {}, {} profiles",
        status.socket.display(),
        status.version,
        status.pid,
        span::text(up.try_into().unwrap_or(0)),
        status.profiles.len()
    ))?;
    Ok(Exit::Success)
}

/// What to type where no daemon answers.
pub(super) fn start_command(env: &Env) -> &'static str {
    if cfg!(target_os = "macos") {
        return "wandb-cred service install";
    }
    match (systemd::manager(env), systemd::is_installed(env)) {
        (Some(_), true) => "systemctl --user restart wandb-cred.socket",
        (Some(_), false) => "wandb-cred service install",
        (None, _) => "wandb-credd &",
    }
}

/// The daemon's absolute path, as service managers need it.
fn daemon_path(env: &Env) -> Result<PathBuf, Failure> {
    let program = daemon_binary::find(env);
    let candidates: Vec<PathBuf> = if program.is_absolute() {
        vec![program]
    } else {
        let path = env.var("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(&program)).collect()
    };
    candidates.into_iter().find(|path| path.is_absolute() && path.is_file()).ok_or_else(|| {
        Failure::new(Exit::Unavailable, "wandb-credd is neither beside wandb-cred nor in PATH")
            .next("install both programs in one folder, or name it in WANDB_CREDD")
    })
}

/// systemd would take the socket's path away from a daemon that was started by hand.
fn refuse_a_second_daemon(env: &Env) -> Result<(), Failure> {
    if systemd::is_active("wandb-cred.socket", env) {
        return Ok(());
    }
    match Client::find(env)?.get::<api::Status>("/v1/status", super::status::PATIENCE) {
        Ok(status) => {
            let what = format!("a daemon runs already at {}, started otherwise", status.socket.display());
            Err(Failure::new(Exit::TryLater, what)
                .next(format!("kill {}, then the same command again", status.pid)))
        }
        Err(_) => Ok(()),
    }
}

/// One thing that install or uninstall does.
enum Step {
    /// Makes sure that the private folder is there.
    Folder(PathBuf),
    Write {
        path: PathBuf,
        text: String,
    },
    Remove(PathBuf),
    Run(Vec<String>),
    /// Runs, and does not mind if there was nothing to do.
    Try(Vec<String>),
}

fn perform(steps: &[Step], dry_run: bool, env: &Env) -> Result<(), Failure> {
    for step in steps {
        match step {
            Step::Folder(path) => {
                output::print_line(format!("mkdir -p {}", path.display()))?;
                if !dry_run {
                    paths::private_dir(path)?;
                }
            }
            Step::Write { path, text } => {
                output::print_line(format!("write {}", path.display()))?;
                if dry_run {
                    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
                    output::print(&indented)?;
                } else {
                    write(path, text)?;
                }
            }
            Step::Remove(path) => {
                output::print_line(format!("rm -f {}", path.display()))?;
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
                output::print_line(argv.join(" "))?;
                if !dry_run && !run_tool(argv, env)? && matches!(step, Step::Run(_)) {
                    let what = format!("{} failed", argv.join(" "));
                    return Err(Failure::new(Exit::Unavailable, what).next("wandb-cred service status"));
                }
            }
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let at = |error| Failure::from(Error::io(Stage::Files, path, &error));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(at)?;
    }
    std::fs::write(path, text).map_err(at)
}

/// Whether it succeeded; what it says goes to the person.
fn run_tool(argv: &[String], env: &Env) -> Result<bool, Failure> {
    let status = tool(argv, env).stdin(Stdio::null()).status();
    status.map(|status| status.success()).map_err(|error| cannot_run(&argv[0], &error))
}

fn tool(argv: &[String], env: &Env) -> std::process::Command {
    let mut command = std::process::Command::new(&argv[0]);
    command.args(&argv[1..]);
    // In a shell that was opened by su or cron, systemctl does not find the user's manager by itself.
    if let Some(runtime) = systemd::manager(env) {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    command
}

fn cannot_run(program: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot run {program}: {error}")).next("wandb-credd &")
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const DETAILS: &str = "\
Let the service manager of this user (systemd, or launchd on macOS) start the daemon as
soon as something asks it for a token, and restart it should it fail. No root is needed.";
